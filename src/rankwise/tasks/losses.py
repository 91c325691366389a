"""Rows of a batch, and what they cost: losses at the labelled positions only.

The output layer is told which positions those are (`LabelledPositions`); it also flattens its input
first, because a non-contiguous slice in front of a large vocabulary makes `linear` copy the
vocabulary matrix for every row.

Legend: N rows, T tokens, L labels of a row, H hidden size, P labelled positions, V vocabulary or
classes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankwise.data.order import IGNORED


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
        predicted: (K*N,) predicted class, where examples have classes.
    """

    total: Tensor
    targets: Tensor
    predicted: Tensor | None = None


class LabelledPositions(nn.Module):
    """An output layer that answers only for the positions it was told of, (P, V)."""

    def __init__(self, head: nn.Module, positions_P: Tensor, shape_NL: tuple[int, ...]) -> None:
        super().__init__()
        self.head: Any = head
        self.positions_P, self.shape_NL = positions_P, shape_NL

    @property
    def weight(self) -> Tensor:
        """The output matrix: some models read or tie it."""
        weight: Tensor = self.head.weight
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The output bias: decoders of the BERT kind take it over."""
        bias: Tensor | None = self.head.bias
        return bias

    def forward(self, hidden: Tensor) -> Tensor:
        """(P, V), or all positions where this is not the (N, L, H) that they were set for."""
        if tuple(hidden.shape[:-1]) != self.shape_NL:
            everywhere: Tensor = self.head(hidden)
            return everywhere
        logits_PV: Tensor = self.head(hidden.flatten(0, -2)[self.positions_P])
        return logits_PV


@contextmanager
def labelled_positions(
    model: nn.Module, positions_P: Tensor, shape_NL: tuple[int, ...]
) -> Iterator[None]:
    """For the duration, the model's output layer answers for these flat positions of (N, L) only.

    An output layer that says `needs_whole_rows` (one that a bank trains) is left alone.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    if head is None or getattr(head, "needs_whole_rows", False):
        yield
        return
    narrow = LabelledPositions(head, positions_P, shape_NL)
    model.set_output_embeddings(narrow)  # type: ignore[operator]
    try:
        yield
    finally:
        model.set_output_embeddings(head)  # type: ignore[operator]


def target_losses(
    logits_PV: Tensor, target_P: Tensor, row_P: Tensor, smoothing_N: Sequence[float]
) -> Tensor:
    """Cross-entropy of each target, (P,), fp32.

    With a smoothing e of its row it is (1 - e) times that of the target plus e times the mean over
    all V (Szegedy et al. 2016, section 7), as in transformers' LabelSmoother.

    Args:
        logits_PV: Of the targets.
        target_P: The targets.
        row_P: The row of each.
        smoothing_N: Of each of N rows; empty: none.
    """
    logits_PV = logits_PV.float()
    kinds = sorted(set(smoothing_N)) or [0.0]
    if len(kinds) == 1:
        return F.cross_entropy(logits_PV, target_P, reduction="none", label_smoothing=kinds[0])
    kind_N = torch.tensor([kinds.index(e) for e in smoothing_N], device=row_P.device)
    kind_P = kind_N[row_P]
    loss_P = logits_PV.new_zeros(len(target_P))
    for kind, smoothing in enumerate(kinds):
        places = (kind_P == kind).nonzero().squeeze(1)
        smoothed = F.cross_entropy(
            logits_PV[places], target_P[places], reduction="none", label_smoothing=smoothing
        )
        loss_P = loss_P.index_add(0, places, smoothed)
    return loss_P


def token_losses(
    model: nn.Module,
    batch: Batch,
    labels_NL: Tensor,
    inputs: dict[str, Any],
    smoothing_N: Sequence[float] = (),
) -> RowLosses:
    """One forward pass, and the losses of its rows over their labelled tokens.

    Args:
        model: The frozen model, with or without a bank in it.
        batch: The rows.
        labels_NL: The label of each position of the output, -100 where there is none.
        inputs: What the model is given beside tokens and mask.
        smoothing_N: As in `target_losses`.
    """
    positions_P = (labels_NL != IGNORED).flatten().nonzero().squeeze(1)
    with labelled_positions(model, positions_P, tuple(labels_NL.shape)):
        logits_PV = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, **inputs
        ).logits
    if logits_PV.dim() == 3 and len(logits_PV) == len(labels_NL):
        logits_PV = logits_PV.flatten(0, 1)[positions_P]
    target_P = labels_NL.flatten()[positions_P]
    row_P = positions_P // labels_NL.shape[1]
    loss_P = target_losses(logits_PV.flatten(0, -2), target_P, row_P, smoothing_N)
    zeros_N = loss_P.new_zeros(len(labels_NL))
    return RowLosses(
        zeros_N.index_add(0, row_P, loss_P), zeros_N.index_add(0, row_P, torch.ones_like(loss_P))
    )
