"""From examples to batches of a cohort: same rows for runs of one seed, cut into parts by length.

A step's rows are sorted by length within each run and cut into parts, so that short rows are not
padded to the longest. A run alone has too few rows for small parts to pay on most hardware; a
cohort has enough. Parts change no result: losses are sums over rows, and dropout masks belong to
rows, not to places in a batch.

Legend: K runs, N rows of a run, T tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rankwise.data.examples import Example
from rankwise.data.order import padded_length, rows_at
from rankwise.tasks.by_name import make_batch
from rankwise.tasks.losses import Batch
from rankwise.train.dropout import BatchKey

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


def collate(examples: Sequence[Example], task: Task) -> Batch:
    """Examples as one right-padded batch on the task's device."""
    length = padded_length([len(e.input_ids) for e in examples], task.max_length)
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
) -> Iterator[Part]:
    """Cut K runs' rows into parts of equal row counts, short rows first."""
    order_KN = [
        np.argsort([len(e.input_ids) for e in rows], kind="stable").tolist() for rows in chosen_KN
    ]
    rows = len(order_KN[0])
    size = rows_of_a_part(chosen_KN, rows, PAYING_TOKENS.get(task.device.type, 16384))
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
