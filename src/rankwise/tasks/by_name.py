"""What the rest of the package asks of a task, given by its name."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from rankwise.data.order import IntArray, Tokens, pad_inputs
from rankwise.data.shapes import Example
from rankwise.tasks import causal_lm, seq_2_seq_lm, seq_cls
from rankwise.tasks.losses import Batch, RowLosses


class Learnt(Protocol):
    """The module of a task."""

    def labels_of(self, examples: Sequence[Example], length: int) -> IntArray: ...
    def target_count(self, example: Example) -> int: ...
    def row_losses(
        self, model: nn.Module, batch: Batch, smoothing_N: Sequence[float] = ()
    ) -> RowLosses: ...


class Written(Learnt, Protocol):
    """The module of a task whose models write text."""

    def prompt_of(self, example: Example) -> Tokens: ...
    def example_of(self, prompt: Tokens, answer: Tokens) -> Example: ...


WRITTEN: dict[str, Written] = {"CAUSAL_LM": causal_lm, "SEQ_2_SEQ_LM": seq_2_seq_lm}
LEARNT: dict[str, Learnt] = {**WRITTEN, "SEQ_CLS": seq_cls}


def make_batch(task: str, examples: Sequence[Example], pad_token_id: int, length: int) -> Batch:
    """Examples as one right-padded batch, on the CPU.

    Args:
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        examples: N of them.
        pad_token_id: What fills a short input; its labels are filled with -100.
        length: Tokens of an input, T.

    Raises:
        ValueError: an input is longer than `length`.
    """
    ids_NT, mask_NT = pad_inputs([one.input_ids for one in examples], pad_token_id, length)
    labels = LEARNT[task].labels_of(examples, length)
    return Batch(torch.from_numpy(ids_NT), torch.from_numpy(mask_NT), torch.from_numpy(labels))


def row_losses(
    model: nn.Module, task: str, batch: Batch, smoothing_N: Sequence[float] = ()
) -> RowLosses:
    """One forward pass of a model, with or without a bank in it, and the losses of its rows.

    Args:
        model: The model.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        batch: The rows.
        smoothing_N: Label smoothing of each row; empty: none, as in every evaluation.
    """
    return LEARNT[task].row_losses(model, batch, smoothing_N)


def target_count(example: Example, task: str) -> int:
    """Targets in an example's loss: tokens of text, or the one class."""
    return LEARNT[task].target_count(example)


def prompt_of(example: Example, task: str) -> Tokens:
    """The token ids (T,) that ask for the reference of an example."""
    return WRITTEN[task].prompt_of(example)


def example_of(prompt: Tokens, answer: Tokens, task: str) -> Example:
    """An example whose targets are the tokens of an answer to a prompt."""
    return WRITTEN[task].example_of(prompt, answer)
