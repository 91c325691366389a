"""Tokens of prompts and answers, and which of them are targets (have a loss).

A row is a sequence of pieces of text: answers are targets, prompts are only read. The tokens before
an answer are exactly those that the model is given to generate one, so that training and generation
see the same prompt. `chat.py` makes the pieces of conversations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokenizer = Any
READ = -1  # in place of the number of an answer: not learnt


@dataclass(frozen=True)
class Piece:
    """A stretch of text, and the number of the answer that its tokens are learnt for, or READ."""

    text: str
    answer: int = READ


@dataclass(frozen=True, eq=False)
class Dialogue:
    """The tokens of a row, and each of its answers with what was asked.

    Attributes:
        ids: (T,) token ids.
        of_answer: (T,) the number of the answer that a token is learnt for, READ for others.
        prompts, answers: Readable, by number of the answer.
    """

    ids: NDArray[np.int64]
    of_answer: NDArray[np.int64]
    prompts: tuple[str, ...]
    answers: tuple[str, ...]


def special_ids(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The token ids that the tokenizer adds before and after a text."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []


def plain_ids(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of each text without special tokens; none for an empty text."""
    if not texts:
        return []
    # verbose=False: a text longer than the model's context is cut later and needs no warning
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)[
        "input_ids"
    ]
    return ids


def tokens_of(
    rows: Sequence[Sequence[Piece]], tokenizer: Tokenizer
) -> list[tuple[list[int], list[int]]]:
    """Token ids of each row of pieces, without added special tokens, and what each is learnt for.

    Pieces are tokenised together where that leaves the tokens of the earlier pieces as they are.
    Where a token would span two pieces, the new piece is tokenised alone.
    """
    cumulative = ["".join(p.text for p in row[: i + 1]) for row in rows for i in range(len(row))]
    joint = iter(plain_ids(cumulative, tokenizer))
    made = []
    for row in rows:
        ids: list[int] = []
        of_answer: list[int] = []
        for piece in row:
            together = next(joint)
            if together[: len(ids)] == ids:
                new = together[len(ids) :]
            else:
                (new,) = plain_ids([piece.text], tokenizer)
            ids = ids + new
            of_answer += [piece.answer] * len(new)
        made.append((ids, of_answer))
    return made


def pair_dialogues(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> list[Dialogue]:
    """Prompt and completion as one row each; learnt are the completion and the end of text."""
    before, _ = special_ids(tokenizer)
    end = tokenizer.eos_token_id
    rows = [(Piece(prompt), Piece(answer, 0)) for prompt, answer in pairs]
    made = []
    for (prompt, answer), (ids, learnt) in zip(pairs, tokens_of(rows, tokenizer), strict=True):
        if end is not None and (not ids or ids[-1] != end):
            ids, learnt = [*ids, end], [*learnt, 0]
        made.append(dialogue([*before, *ids], [READ] * len(before) + learnt, [prompt], [answer]))
    return made


def dialogue(
    ids: list[int], of_answer: list[int], prompts: Sequence[str], answers: Sequence[str]
) -> Dialogue:
    """A row of tokens as arrays."""
    return Dialogue(
        np.array(ids, dtype=np.int64),
        np.array(of_answer, dtype=np.int64),
        tuple(prompts),
        tuple(answers),
    )
