"""The examples of a study: rows drawn, augmented and tokenised, part by part.

`shapes.py` has one function for each kind of columns (text, prompt and completion, messages, ...);
this module decides which rows they get, and in which order the steps run.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankwise.data.augment import augment_rows
from rankwise.data.chat import NotTellable, render
from rankwise.data.order import IntArray, Tokens, permutation
from rankwise.data.shapes import (
    Example,
    Made,
    Notes,
    Tokenizer,
    answered,
    blocks,
    classified,
    cut_ids,
    translated,
)
from rankwise.data.split import Part, Split
from rankwise.data.tokenize import plain_ids, special_ids
from rankwise.errors import DataError
from rankwise.spec.models import AugmentSpec, DataSpec
from rankwise.text import shorten

__all__ = ["Example", "StudyData", "make_examples", "prompt_ids", "train_examples"]
HERE = Path()


@dataclass(frozen=True)
class StudyData:
    """All examples of a study. `fingerprint` is a hash of their tokens, labels and groups."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    label_names: tuple[str, ...] | None
    fingerprint: str
    notes: Notes


def make_examples(
    split: Split, data: DataSpec, tokenizer: Tokenizer, base_dir: Path = HERE
) -> StudyData:
    """The examples of a study; the training part with the settings of the `data` section.

    Raises:
        DataError: a part is empty after rows are cut to `data.max_length`, or the tokenizer lacks
            what the columns need (such as a chat template).
    """
    train, notes = train_examples(split, data.augment, data.max_samples, data, tokenizer, base_dir)
    validation, of_validation = _held_out("validation", split, data, tokenizer)
    test, of_test = _held_out("test", split, data, tokenizer)
    digest = hashlib.sha256()
    for side in (train, validation, test):
        pieces = ", ".join(repr((example.digest, example.group)) for example in side)
        digest.update(f"[{pieces}]".encode())
    every_note = (*split.notes, *notes, *of_validation, *of_test)
    return StudyData(train, validation, test, split.label_names, digest.hexdigest(), every_note)


def train_examples(
    split: Split,
    augment: AugmentSpec,
    max_samples: int | None,
    data: DataSpec,
    tokenizer: Tokenizer,
    base_dir: Path = HERE,
) -> Made:
    """The training examples of one arm, and notes on rows that were drawn, cut or left out.

    Args:
        split: as `split_rows` made it; augmented rows are compared with its held-out parts.
        augment: the arm's augmentation, applied to the rows that `max_samples` leaves.
        max_samples: number of rows to draw, by the seed of the split; for one long text the number
            of blocks, drawn after tokenisation.
        data: the settings that all arms share.
        tokenizer: of transformers.
        base_dir: the folder of the spec, where a FILE.py of `augment.function` lies.

    Raises:
        DataError: as `make_examples`, or the augmentation cannot be done.
    """
    part = split.train
    notes: list[str] = []
    if max_samples is not None and not split.one_text:
        part = part.take(_drawn(len(part), max_samples, "rows", data, notes))
    if augment.factor > 1:
        held = (*split.validation.rows, *split.test.rows)
        part, more = augment_rows(part, augment, data, held, base_dir)
        notes += more
    examples, of_tokens = _examples("train", part, split, data, tokenizer)
    if max_samples is not None and split.one_text:
        places = _drawn(len(examples), max_samples, "blocks", data, notes)
        examples = tuple(examples[at] for at in places)
    if not examples:
        raise DataError(f"data: no training example is left: {'; '.join((*notes, *of_tokens))}")
    return examples, (*notes, *of_tokens)


def _drawn(n: int, most: int, what: str, data: DataSpec, notes: list[str]) -> IntArray:
    if most >= n:
        notes.append(f"train: max_samples {most} has no effect, there are {n} {what}")
        return np.arange(n)
    notes.append(f"train: {most} of {n} {what} used (max_samples)")
    return np.sort(permutation(n, data.split.seed, 3)[:most])


def _held_out(side: str, split: Split, data: DataSpec, tokenizer: Tokenizer) -> Made:
    part = split.validation if side == "validation" else split.test
    examples, notes = _examples(side, part, split, data, tokenizer)
    if len(part) and not examples:
        raise DataError(f"data.split.{side}: no example is left: {'; '.join(notes)}")
    return examples, notes


def _examples(side: str, part: Part, split: Split, data: DataSpec, tokenizer: Tokenizer) -> Made:
    if not len(part):
        return (), ()
    if data.label is not None:
        assert split.classes is not None
        return classified(side, part, data, tokenizer, split.classes)
    if data.input is not None:
        return translated(side, part, data, tokenizer)
    if data.text is not None:
        return blocks(part, data, tokenizer, split.one_text), ()
    return answered(side, part, data, tokenizer)


def prompt_ids(text: str, data: DataSpec, tokenizer: Tokenizer) -> Tokens:
    """The token ids (T,) of a prompt that the user wrote, for a model trained on `data`.

    For conversations `text` is a user's message, given through the chat template.

    Raises:
        DataError: the chat template refuses it, or it is longer than inputs may be.
    """
    if data.messages is not None:
        try:
            asked = render([{"role": "user", "content": text}], None, tokenizer, ask=True)
        except NotTellable as error:
            raise DataError(f"generation.prompts: {shorten(text)}: {error}") from error
        (ids,) = plain_ids([asked], tokenizer)
        return np.array(ids, dtype=np.int32)
    if data.input is not None:
        made, cut = cut_ids([text], data.max_length, tokenizer)
        if cut:
            raise DataError(
                f"generation.prompts: {shorten(text)}: has more than {data.max_length} tokens "
                "(data.max_length); shorten it"
            )
        return made[0]
    before, _ = special_ids(tokenizer)
    (ids,) = plain_ids([text], tokenizer)
    return np.array([*before, *ids], dtype=np.int32)
