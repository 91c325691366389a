"""A forward pass of the bank and what it costs every row: losses per row, run by run.

Logits are computed only where there is a label. The output layer is told which positions those
are (`LabelledPositions`); it also flattens its input first, because a non-contiguous slice in
front of a large vocabulary makes `linear` copy the vocabulary matrix for every row.

Legend: K runs, N rows of a run, T tokens, L labels of a row, P labelled positions, V vocabulary
or classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankwise.train.layers import Banked

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Rows of K runs, one run after the other.

    Attributes:
        input_ids: (K*N, T).
        attention_mask: (K*N, T).
        labels: (K*N, T) for a causal LM, (K*N, L) for sequence to sequence, (K*N,) classes.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


@dataclass(frozen=True)
class RowLosses:
    """What a batch cost, row by row.

    Attributes:
        total: (K*N,) sum of a row's target losses, fp32, with gradient.
        targets: (K*N,) number of targets in the row.
        predicted: (K*N,) predicted class, for classification.
    """

    total: Tensor
    targets: Tensor
    predicted: Tensor | None = None


class LabelledPositions(nn.Module):
    """An output layer that answers only for the positions it was told of, (P, V)."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head: Any = head
        self.positions_P: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The output matrix: some models read or tie it."""
        weight: Tensor = self.head.weight
        return weight

    def forward(self, hidden: Tensor) -> Tensor:
        """All positions, or (P, V) where positions were set."""
        if self.positions_P is None:
            everywhere: Tensor = self.head(hidden)
            return everywhere
        logits_PV: Tensor = self.head(hidden.flatten(0, -2)[self.positions_P])
        return logits_PV


@contextmanager
def labelled_positions(model: nn.Module, positions_P: Tensor) -> Iterator[None]:
    """For the duration, the model's output layer answers for these flat positions only.

    An output layer that is itself in the bank needs its rows whole, and is left alone.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    if head is None or isinstance(head, Banked):
        yield
        return
    narrow = LabelledPositions(head)
    narrow.positions_P = positions_P
    model.set_output_embeddings(narrow)  # type: ignore[operator]
    try:
        yield
    finally:
        model.set_output_embeddings(head)  # type: ignore[operator]


def row_losses(model: nn.Module, task: str, batch: Batch) -> RowLosses:
    """One forward pass and the losses of its rows.

    Args:
        model: The frozen model, with or without a bank in it.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        batch: The rows.
    """
    if task == "SEQ_CLS":
        return _class_losses(model, batch)
    if task == "SEQ_2_SEQ_LM":
        inputs: dict[str, Any] = {"decoder_input_ids": _shifted_right(model, batch.labels)}
        labels_NL = batch.labels
    else:
        inputs = {"use_cache": False}
        labels_NL = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORED)
    positions_P = (labels_NL != IGNORED).flatten().nonzero().squeeze(1)
    with labelled_positions(model, positions_P):
        logits_PV = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, **inputs
        ).logits
    if logits_PV.dim() == 3 and len(logits_PV) == len(labels_NL):
        logits_PV = logits_PV.flatten(0, 1)[positions_P]
    target_P = labels_NL.flatten()[positions_P]
    loss_P = F.cross_entropy(logits_PV.float().flatten(0, -2), target_P, reduction="none")
    row_P = positions_P // labels_NL.shape[1]
    zeros_N = loss_P.new_zeros(len(labels_NL))
    return RowLosses(
        zeros_N.index_add(0, row_P, loss_P), zeros_N.index_add(0, row_P, torch.ones_like(loss_P))
    )


def _class_losses(model: nn.Module, batch: Batch) -> RowLosses:
    logits_NV = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    loss_N = F.cross_entropy(logits_NV.float(), batch.labels, reduction="none")
    return RowLosses(loss_N, torch.ones_like(loss_N), logits_NV.detach().argmax(-1))


def _shifted_right(model: nn.Module, labels_NL: Tensor) -> Tensor:
    shifted: Tensor = model.prepare_decoder_input_ids_from_labels(labels=labels_NL)  # type: ignore[operator]
    return shifted
