"""Which rows are in the batch of a step, and how examples are padded to one array.

Shapes: N examples in a batch, T tokens of the longest of them.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
IntArray = NDArray[np.int64]
Tokens = NDArray[np.int32] | NDArray[np.int64]  # examples hold the smaller ones


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


def pad_inputs(
    rows: Sequence[Tokens], pad_token_id: int, length: int | None = None, side: str = "right"
) -> tuple[IntArray, IntArray]:
    """Rows of token ids as one array, and its mask with 1 on real tokens; both (N, T).

    Args:
        rows: N of them.
        pad_token_id: What fills a short row.
        length: T; where None, that of the longest row.
        side: `right` for training, `left` for generation by a decoder, which goes on at the end.

    Raises:
        ValueError: a row is longer than `length`, or `side` is neither.
    """
    mask_NT = stack([np.ones_like(row) for row in rows], 0, length, side)
    return stack(rows, pad_token_id, length, side), mask_NT


def stack(
    rows: Sequence[Tokens], fill: int, length: int | None = None, side: str = "right"
) -> IntArray:
    """Rows of different lengths as one array (N, `length`); filled up on `side`. See above."""
    if side not in ("right", "left"):
        raise ValueError(f"side must be right or left, found {side!r}")
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
