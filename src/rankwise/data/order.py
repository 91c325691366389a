"""Which rows are in the batch of a step, and how examples are padded to one array.

Shapes: N examples in a batch, T tokens of the input, L tokens of a seq2seq target.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
IntArray = NDArray[np.int64]


class Tokens(Protocol):
    """What `pad` needs of an example (`rankwise.data.examples.Example` has it)."""

    @property
    def input_ids(self) -> IntArray: ...
    @property
    def labels(self) -> IntArray: ...


@lru_cache(maxsize=32)
def permutation(n: int, *key: int) -> IntArray:
    """A random order of 0..n-1, a pure function of `key`; shape (n,), not writable.

    Sorting the raw output of SFC64 keeps it the same under every version of NumPy: raw streams
    are covered by NumPy's compatibility policy (NEP 19), `Generator.permutation` is not.
    """
    order = np.argsort(np.random.SFC64(key).random_raw(n), kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


def rows_at(n: int, batch_size: int, seed: int, step: int) -> IntArray:
    """The examples of batch number `step` (from 0), indices below `n`; shape (batch_size,).

    A pure function without state: at one seed and step every arm sees the same rows, and a resumed
    run sees the rows of an uninterrupted one. Each epoch is one
    permutation of all rows; a batch may hold rows of two epochs.

    Raises:
        ValueError: there are no rows, or the batch size or step is out of range.
    """
    if n < 1 or batch_size < 1 or step < 0:
        raise ValueError(f"no batch {step} of {batch_size} rows out of {n}")
    places = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs, offsets = np.divmod(places, n)
    batch = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        batch[here] = permutation(n, seed, int(epoch))[offsets[here]]
    return batch


def padded_length(lengths: Sequence[int], max_length: int, multiple: int = 8) -> int:
    """The common length of a batch: its longest row rounded up to `multiple`, at most `max_length`.

    With few different lengths, kernels and memory are reused.

    Raises:
        ValueError: a row is longer than `max_length`; the caller must have cut it.
    """
    longest = max(lengths)
    if longest > max_length:
        raise ValueError(f"a row has {longest} tokens, but at most {max_length} are allowed")
    return min(-(-longest // multiple) * multiple, max_length)


def pad(
    examples: Sequence[Tokens],
    pad_token_id: int,
    length: int | None = None,
    side: str = "right",
    task: str = "CAUSAL_LM",
) -> dict[str, NDArray[np.int64]]:
    """One batch of arrays; short rows are padded.

    Args:
        examples: N of them.
        pad_token_id: what fills `input_ids`; labels are filled with -100, which has no loss.
        length: T; where None, that of the longest input.
        side: `right` for training, `left` for generation by a decoder.
        task: shape of the labels: CAUSAL_LM like the inputs, (N, T); SEQ_2_SEQ_LM one row of
            targets, (N, L); SEQ_CLS one class id an example, (N,).

    Returns:
        `input_ids` (N, T), `attention_mask` (N, T) with 1 on real tokens, `labels`.

    Raises:
        ValueError: an input is longer than `length`, or `side` or `task` is unknown.
    """
    if side not in ("right", "left"):
        raise ValueError(f"side must be right or left, found {side!r}")
    inputs = [example.input_ids for example in examples]
    batch = {
        "input_ids": _stack(inputs, pad_token_id, length, side),
        "attention_mask": _stack([np.ones_like(ids) for ids in inputs], 0, length, side),
    }
    labels = [example.labels for example in examples]
    if task == "SEQ_CLS":
        batch["labels"] = np.array([int(label) for label in labels], dtype=np.int64)
    elif task == "CAUSAL_LM":
        batch["labels"] = _stack(labels, IGNORED, length, side)
    elif task == "SEQ_2_SEQ_LM":
        batch["labels"] = _stack(labels, IGNORED, None, "right")
    else:
        raise ValueError(f"unknown task {task!r}")
    if task == "CAUSAL_LM" and batch["labels"].shape != batch["input_ids"].shape:
        raise ValueError("labels of a causal example must have the length of its input")
    return batch


def _stack(rows: Sequence[IntArray], fill: int, length: int | None, side: str) -> IntArray:
    longest = max(len(row) for row in rows)
    if length is not None and longest > length:
        raise ValueError(f"a row has {longest} tokens, but at most {length} are allowed")
    stacked = np.full((len(rows), length or longest), fill, dtype=np.int64)
    for place, row in zip(stacked, rows, strict=True):
        if side == "right":
            place[: len(row)] = row
        else:
            place[len(place) - len(row) :] = row
    return stacked
