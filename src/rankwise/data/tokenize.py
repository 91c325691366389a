"""Tokens of prompts and answers, and which of them are targets (have a loss).

A row is a sequence of pieces of text: answers are targets, prompts are only read. The tokens before
an answer are exactly those that the model is given to generate one, so that training and generation
see the same prompt. `chat.py` makes the pieces of conversations.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import Any

import numpy as np

from rankwise.data.order import Tokens

Tokenizer = Any
READ = -1  # in place of the number of an answer: not learnt
OTHER = -2  # learnt, but of no answer
TEXTS, CHARACTERS = 1000, 1 << 20  # most of a batch that is tokenised at once
BACKEND = "transformers.tokenization_utils_tokenizers"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text, and the number of the answer that its tokens are learnt for.

    READ or OTHER, where they belong to none.
    """

    text: str
    answer: int = READ


@dataclass(frozen=True, eq=False, slots=True)
class Dialogue:
    """The tokens of a row, and each of its answers with what was asked.

    Attributes:
        ids: (T,) token ids.
        of_answer: (T,) the number of the answer that a token is learnt for; READ or OTHER for
            tokens of none.
        prompts, answers: Readable, by number of the answer.
    """

    ids: Tokens
    of_answer: Tokens
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


def token_ids(
    texts: Iterable[str], tokenizer: Tokenizer, target: bool = False, **how: Any
) -> Iterator[list[int]]:
    """Token ids of each text, made in batches.

    The first text of a batch is given to the tokenizer itself, which sets `how` in its library; so
    are all others, but for the kind whose call does nothing more than ask the library for ids, and
    then put each into objects that take most of the time and the memory.

    Args:
        texts: They may come one by one.
        tokenizer: Of transformers.
        target: Whether they are what a sequence-to-sequence model writes.
        how: Arguments of the tokenizer's call.
    """
    # verbose=False: a text longer than the model's context is cut later and needs no warning
    how |= {"verbose": False, "return_attention_mask": False, "return_token_type_ids": False}
    bare = not target and _is_bare(tokenizer)
    for batch in _batches(texts):
        own = batch[:1] if bare else batch
        made = tokenizer(**{"text_target" if target else "text": own}, **how)["input_ids"]
        if len(own) < len(batch):
            add = how.get("add_special_tokens", True)
            backend = tokenizer.backend_tokenizer
            rest = backend.encode_batch_fast(batch[1:], add_special_tokens=add)
            made += [encoding.ids for encoding in rest]
        yield from made


def _is_bare(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer's call is that of transformers' own fast tokenizers."""
    found = getattr(type(tokenizer), "_encode_plus", None)
    called = getattr(type(tokenizer).__call__, "__module__", None)
    return (
        getattr(found, "__module__", None) == BACKEND
        and called == "transformers.tokenization_utils_base"
        and hasattr(tokenizer.backend_tokenizer, "encode_batch_fast")
    )


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and (len(batch) == TEXTS or characters + len(text) > CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


def plain_ids(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    """Token ids of each text without special tokens; none for an empty text."""
    return token_ids(texts, tokenizer, add_special_tokens=False)


def tokens_of(
    rows: Iterable[Sequence[Piece]], tokenizer: Tokenizer
) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids of each row of pieces, without added special tokens, and what each is learnt for.

    Pieces are tokenised together where that leaves the tokens of the earlier pieces as they are.
    Where a token would span two pieces, the new piece is tokenised alone.
    """
    rows, same = tee(rows)
    joint = plain_ids((text for row in same for text in _growing(row)), tokenizer)
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
        yield ids, of_answer


def _growing(row: Sequence[Piece]) -> Iterator[str]:
    """The text of a row up to each of its pieces."""
    text = ""
    for piece in row:
        text += piece.text
        yield text


def pair_dialogues(
    pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, every: bool = False
) -> Iterator[Dialogue]:
    """Prompt and completion as one row each; learnt are the completion and the end of text.

    With `every` the prompt is learnt as well.
    """
    asked = OTHER if every else READ
    before, _ = special_ids(tokenizer)
    end = tokenizer.eos_token_id
    rows = ((Piece(prompt, asked), Piece(answer, 0)) for prompt, answer in pairs)
    for (prompt, answer), (ids, learnt) in zip(pairs, tokens_of(rows, tokenizer), strict=True):
        if end is not None and (not ids or ids[-1] != end):
            ids, learnt = [*ids, end], [*learnt, 0]
        yield dialogue([*before, *ids], [asked] * len(before) + learnt, [prompt], [answer])


def dialogue(
    ids: list[int], of_answer: list[int], prompts: Sequence[str], answers: Sequence[str]
) -> Dialogue:
    """A row of tokens as arrays."""
    return Dialogue(
        np.array(ids, dtype=np.int32),
        np.array(of_answer, dtype=np.int32),
        tuple(prompts),
        tuple(answers),
    )
