"""From examples to batches of a cohort: same rows for runs of one seed, cut into parts by length.

A step's rows are sorted by length within each run and cut into parts, so that short rows are not
padded to the longest. A run alone has too few rows for small parts to pay on most hardware; a
cohort has enough. Parts change no result: losses are sums over rows, and dropout masks belong to
rows, not to places in a batch.

A dropout mask is a pure function of (seed, batch, module, row of the batch): a stream of random
16-bit numbers read in the order of the row's tokens and features. Padding is on the right, so the
tokens read the same numbers however long the padding, whatever the neighbours, and however the
batch is cut. Runs of one seed share the numbers, and a mask is made once for all of them. On the
CPU the stream is numpy's SFC64, about ten times as fast as torch's serial Mersenne Twister. On
other devices it is a hash of the position (the finaliser of MurmurHash3, Appleby 2011), computed
where the mask is used.

Legend: K runs, N rows of a run, T tokens, F all the other elements of a row (tokens x features).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rankwise.data.examples import Example
from rankwise.data.order import padded_length, rows_at
from rankwise.tasks.by_name import make_batch
from rankwise.tasks.losses import Batch

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


def uniform_numbers(key: BatchKey, module: int, shape_F: Sequence[int], like: Tensor) -> Tensor:
    """Numbers between -1 and 1, evenly spread and in pairs around 0, (K, N, *shape_F) in fp32.

    They belong to a row as masks do. Arguments as `keep_mask`; `like` gives the device.
    """
    kinds = list(zip(key.seeds, key.batches, key.rows, strict=True))
    drawn: dict[tuple[int, int, tuple[int, ...]], Tensor] = {}
    for seed, batch, rows in dict.fromkeys(kinds):
        bits_NF = _random_bits(seed, batch, module, rows, shape_F, like.device)
        drawn[seed, batch, rows] = bits_NF.float().add_(0.5).div_(LEVELS // 2)
    return torch.stack([drawn[kind] for kind in kinds])


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


# A product of fewer rows than this leaves the hardware idle. Best of 512 to 8,192 on two CPU cores
# (MiniLM, bf16, a cohort of 8); the GPU's figure is a guess.
PAYING_TOKENS = {"cpu": 2048, "cuda": 16384}


@dataclass(frozen=True)
class Task:
    """How examples of this study become tensors."""

    name: str
    pad_token_id: int
    max_length: int
    device: torch.device


@dataclass(frozen=True)
class Part:
    """Some rows of every run of a cohort, ready for one forward pass."""

    batch: Batch
    key: BatchKey


def collate(examples: Sequence[Example], task: Task, length: int | None = None) -> Batch:
    """Examples as one right-padded batch on the task's device; `length` tokens, if it is given."""
    length = length or padded_length([len(e.input_ids) for e in examples], task.max_length)
    batch = make_batch(task.name, examples, task.pad_token_id, length)
    tensors = (batch.input_ids, batch.attention_mask, batch.labels)
    return Batch(*(tensor.to(task.device, non_blocking=True) for tensor in tensors))


def chosen_rows(
    examples_K: Sequence[Sequence[Example]],
    seeds_K: Sequence[int],
    rows: int,
    batches_K: Sequence[int],
) -> list[list[Example]]:
    """The rows that each of K runs sees: a pure function of its seed and its batch number."""
    return [
        [examples[i] for i in rows_at(len(examples), rows, seed, batch)]
        for examples, seed, batch in zip(examples_K, seeds_K, batches_K, strict=True)
    ]


def parts_of(
    chosen_KN: Sequence[Sequence[Example]],
    seeds_K: Sequence[int],
    batches_K: Sequence[int],
    task: Task,
    most_rows: int | None = None,
) -> Iterator[Part]:
    """Cut K runs' rows into parts of equal row counts, short rows first.

    `most_rows` of a run in one part, where memory asks for few; no number changes by it.
    """
    order_KN = [
        np.argsort([len(e.input_ids) for e in rows], kind="stable").tolist() for rows in chosen_KN
    ]
    rows = len(order_KN[0])
    size = rows_of_a_part(chosen_KN, rows, PAYING_TOKENS.get(task.device.type, 16384))
    size = min(size, most_rows or size)
    for start in range(0, rows, size):
        places_K = tuple(tuple(order[start : start + size]) for order in order_KN)
        examples = [
            chosen[i] for chosen, places in zip(chosen_KN, places_K, strict=True) for i in places
        ]
        yield Part(collate(examples, task), BatchKey(tuple(seeds_K), tuple(batches_K), places_K))


def rows_of_a_part(chosen_KN: Sequence[Sequence[Example]], rows: int, tokens: int) -> int:
    """Rows of a run in one part: as few as still make a product worth the hardware's while."""
    lengths = [len(e.input_ids) for chosen in chosen_KN for e in chosen]
    tokens_of_a_row = max(1.0, float(np.mean(lengths))) * len(chosen_KN)
    return min(rows, max(1, round(tokens / tokens_of_a_row)))
