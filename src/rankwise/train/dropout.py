"""Dropout masks that belong to a run: a pure function of (seed, batch, module, row of the batch).

A row's mask is a stream of random 16-bit numbers read in the order of its tokens and features.
Padding is on the right, so the tokens of the row read the same numbers however long the padding,
whatever the neighbours, and however the batch is cut into parts. Runs of one seed share the
numbers (common random numbers), and a mask is made once for all of them.

On the CPU the stream is numpy's SFC64, about ten times as fast as torch's serial Mersenne
Twister. On other devices it is a hash of the position (the finaliser of MurmurHash3, Appleby
2011), computed where the mask is used.

Legend: K runs, N rows of a run, F all the other elements of a row (tokens x features).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LEVELS = 1 << 16  # a mask compares 16-bit numbers with a threshold, so p is kept to 1/65536


@dataclass(frozen=True)
class BatchKey:
    """Which batch the model sees: for every run its seed, its batch number, and its rows.

    `rows` holds the positions of the run's rows in its own batch.
    """

    seeds: tuple[int, ...]
    batches: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]

    def of(self, places: Sequence[int]) -> "BatchKey":
        """The key of the runs at these places alone."""
        return BatchKey(
            tuple(self.seeds[place] for place in places),
            tuple(self.batches[place] for place in places),
            tuple(self.rows[place] for place in places),
        )


def keep_mask(
    key: BatchKey, module: int, probabilities: Sequence[float], shape_F: Sequence[int], like: Tensor
) -> Tensor:
    """The mask for K runs, with kept elements already scaled by 1 / (1 - p).

    Args:
        key: The batch, with K seeds.
        module: Number of the module in the bank; other modules have other masks.
        probabilities: K dropout probabilities.
        shape_F: Shape of one row.
        like: Gives device and precision.

    Returns:
        A tensor (K, N, *shape_F), or (1, N, *shape_F) where all K masks are the same one.
    """
    kinds = list(zip(key.seeds, key.batches, key.rows, probabilities, strict=True))
    masks: dict[tuple[int, int, tuple[int, ...], float], Tensor] = {}
    for kind in kinds:
        if kind not in masks:
            seed, batch, rows, p = kind
            bits_NF = _random_bits(seed, batch, module, rows, shape_F, like.device)
            threshold = round(p * LEVELS)
            scale = LEVELS / (LEVELS - threshold)
            masks[kind] = (bits_NF >= threshold - LEVELS // 2).to(like.dtype).mul_(scale)
    if len(masks) == 1:
        return next(iter(masks.values())).unsqueeze(0)
    return torch.stack([masks[kind] for kind in kinds])


def _random_bits(
    seed: int,
    batch: int,
    module: int,
    rows: Sequence[int],
    shape_F: Sequence[int],
    device: torch.device,
) -> Tensor:
    """Numbers from -32768 to 32767 of shape (N, *shape_F), int16."""
    keys = [((seed << 32 | batch) << 32 | module) << 32 | row for row in rows]
    size = int(np.prod(shape_F))
    if device.type == "cpu":
        bits_NF = np.empty((len(keys), size), dtype=np.uint16)
        for row_F, row_key in zip(bits_NF, keys, strict=True):
            words = np.random.SFC64(row_key).random_raw((size + 3) // 4)
            row_F[:] = words.view(np.uint16)[:size]
        return torch.from_numpy(bits_NF.view(np.int16)).view(len(keys), *shape_F)
    starts = [int(np.random.SeedSequence(row_key).generate_state(1)[0]) for row_key in keys]
    return hashed_bits(starts, size, device).view(len(keys), *shape_F)


def hashed_bits(starts: Sequence[int], size: int, device: torch.device) -> Tensor:
    """`size` numbers from -32768 to 32767 for every 32-bit start, (N, size), int16, no loop.

    Each is the upper half of MurmurHash3's 32-bit finaliser, applied to the start mixed with the
    position, in 64-bit integers kept to 32 bits (torch has no unsigned products).
    """
    start_N1 = torch.tensor(starts, dtype=torch.int64, device=device).unsqueeze(1)
    h_NF = start_N1 ^ _mix(torch.arange(size, dtype=torch.int64, device=device)).unsqueeze(0)
    return ((_mix(h_NF) >> 16) - LEVELS // 2).to(torch.int16)


def _mix(h: Tensor) -> Tensor:
    """MurmurHash3's finaliser fmix32 on numbers below 2**32."""
    word = 0xFFFFFFFF
    h = h ^ (h >> 16)
    h = (h * 0x85EBCA6B) & word
    h = h ^ (h >> 13)
    h = (h * 0xC2B2AE35) & word
    return h ^ (h >> 16)
