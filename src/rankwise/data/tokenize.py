"""Tokens of prompts, answers and conversations, and which of them are targets (have a loss).

A row is a sequence of pieces of text: answers are targets (`learnt`), prompts are only read. The
tokens before an answer are exactly those that the model is given to generate one, so that training
and generation see the same prompt.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from rankwise.text import shorten

Tokenizer = Any
Message = dict[str, Any]
GENERATION_MARK = re.compile(r"\{%-?\s*generation\b")


@dataclass(frozen=True)
class Piece:
    """A stretch of text; `learnt` where its tokens are targets."""

    text: str
    learnt: bool


@dataclass(frozen=True, eq=False)
class Dialogue:
    """The tokens of a row: `ids` (T,), `learnt` (T,), and each answer with what was asked."""

    ids: NDArray[np.int64]
    learnt: NDArray[np.bool_]
    prompts: tuple[str, ...]
    answers: tuple[str, ...]


class NotTellable(ValueError):
    """The chat template does not show which tokens of a conversation are its answers."""


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
) -> list[tuple[list[int], list[bool]]]:
    """Token ids and target marks of each row of pieces, without added special tokens.

    Pieces are tokenised together where that leaves the tokens of the earlier pieces as they are.
    Where a token would span two pieces, the new piece is tokenised alone.
    """
    cumulative = ["".join(p.text for p in row[: i + 1]) for row in rows for i in range(len(row))]
    joint = iter(plain_ids(cumulative, tokenizer))
    made = []
    for row in rows:
        ids: list[int] = []
        learnt: list[bool] = []
        for piece in row:
            together = next(joint)
            if together[: len(ids)] == ids:
                new = together[len(ids) :]
            else:
                (new,) = plain_ids([piece.text], tokenizer)
            ids = ids + new
            learnt += [piece.learnt] * len(new)
        made.append((ids, learnt))
    return made


def pair_dialogues(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> list[Dialogue]:
    """Prompt and completion as one row each; learnt are the completion and the end of text."""
    before, _ = special_ids(tokenizer)
    end = tokenizer.eos_token_id
    rows = [(Piece(prompt, False), Piece(answer, True)) for prompt, answer in pairs]
    made = []
    for (prompt, answer), (ids, learnt) in zip(pairs, tokens_of(rows, tokenizer), strict=True):
        if end is not None and (not ids or ids[-1] != end):
            ids, learnt = [*ids, end], [*learnt, True]
        made.append(_dialogue([*before, *ids], [False] * len(before) + learnt, [prompt], [answer]))
    return made


def _dialogue(
    ids: list[int], learnt: list[bool], prompts: Sequence[str], answers: Sequence[str]
) -> Dialogue:
    return Dialogue(
        np.array(ids, dtype=np.int64), np.array(learnt, dtype=bool), tuple(prompts), tuple(answers)
    )


def chat_dialogue(messages: Sequence[Message], tokenizer: Tokenizer) -> Dialogue:
    """A conversation through the tokenizer's own template; learnt are the assistant's answers.

    Where the template marks them (`{% generation %}`) its marks are used. Otherwise an answer is
    what the template adds when the answer is added to the messages before it, up to its
    end-of-turn mark; the whole conversation must begin with each of these texts.

    Raises:
        NotTellable: the template refuses the messages, or changes earlier turns.
    """
    asked = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    if not asked:
        raise NotTellable("no message of the role assistant")
    prompts = [readable(messages[:at]) for at in asked]
    answers = [messages[at]["content"] for at in asked]
    if GENERATION_MARK.search(tokenizer.get_chat_template()):
        ids, learnt = _marked(messages, tokenizer)
    else:
        ((ids, learnt),) = tokens_of([_chat_pieces(messages, asked, tokenizer)], tokenizer)
    return _dialogue(ids, learnt, prompts, answers)


def readable(messages: Sequence[Message]) -> str:
    """The messages before an answer as readable text, without system messages."""
    said = [message["content"] for message in messages if message["role"] != "system"]
    return "\n\n".join(said)


def render(messages: Sequence[Message], tokenizer: Tokenizer, ask: bool = False) -> str:
    """The template's text for `messages`; with `ask` also the start of the assistant's turn."""
    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=ask
        )
    except jinja2.TemplateError as error:
        raise NotTellable(f"the chat template raised an error: {shorten(error)}") from error
    return text


def _marked(messages: Sequence[Message], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    try:
        made = tokenizer.apply_chat_template(
            list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
    except jinja2.TemplateError as error:
        raise NotTellable(f"the chat template raised an error: {shorten(error)}") from error
    return list(made["input_ids"]), [bool(mark) for mark in made["assistant_masks"]]


def _chat_pieces(
    messages: Sequence[Message], asked: Sequence[int], tokenizer: Tokenizer
) -> list[Piece]:
    whole = render(messages, tokenizer)
    pieces: list[Piece] = []
    done = ""
    for at in asked:
        before = render(messages[:at], tokenizer, ask=True)
        after = render(messages[: at + 1], tokenizer)
        if not (whole.startswith(after) and after.startswith(before) and before.startswith(done)):
            raise NotTellable("the chat template changes earlier turns when an answer is added")
        answer = after[len(before) :].rstrip()
        if messages[at]["content"].strip() not in answer:
            raise NotTellable("the chat template changes the text of an answer")
        pieces += [Piece(before[len(done) :], False), Piece(answer, True)]
        done = before + answer
    return pieces if done == whole else [*pieces, Piece(whole[len(done) :], False)]
