"""Evaluation of all selected runs in one pass, example by example.

Legend: K runs, E examples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rankwise.answers import accuracy, macro_f1, matthews
from rankwise.cohort.bank import Trainable
from rankwise.cohort.batch import Task, collate
from rankwise.cohort.loss import row_losses
from rankwise.data.examples import Example

TOKENS_OF_A_PASS = 8192  # bounds the memory of one evaluation pass


@dataclass(frozen=True)
class Evaluation:
    """One run on one set of examples.

    Attributes:
        losses_E: Mean loss over the targets of each example.
        targets_E: Number of targets of each example.
        predicted_E: Predicted class of each example, for classification.
        labels_E: True class of each example, for classification.
    """

    losses_E: NDArray[np.float64]
    targets_E: NDArray[np.float64]
    predicted_E: NDArray[np.int64] | None = None
    labels_E: NDArray[np.int64] | None = None

    @property
    def loss(self) -> float:
        """Mean loss over all targets."""
        return float(np.average(self.losses_E, weights=self.targets_E))

    @property
    def correct_E(self) -> NDArray[np.bool_] | None:
        """Which examples were classified rightly."""
        return None if self.predicted_E is None else self.predicted_E == self.labels_E

    def metrics(self) -> dict[str, float]:
        """The set's metrics by name: loss, and perplexity or the measures of classification."""
        if self.predicted_E is None or self.labels_E is None:
            return {"eval_loss": self.loss, "eval_perplexity": math.exp(min(self.loss, 700.0))}
        return {
            "eval_loss": self.loss,
            "eval_accuracy": accuracy(self.labels_E, self.predicted_E),
            "eval_macro_f1": macro_f1(self.labels_E, self.predicted_E),
            "eval_matthews": matthews(self.labels_E, self.predicted_E),
        }


@torch.no_grad()
def evaluate(
    bank: Trainable, examples: Sequence[Example], task: Task, rows: int
) -> list[Evaluation]:
    """Every selected run on the same examples, K evaluations in the order of the selection.

    Args:
        bank: The bank, with its selection made.
        examples: E examples.
        task: How they become tensors.
        rows: Most rows of one run in a pass.
    """
    runs = len(bank.selected)
    losses_KE = np.empty((runs, len(examples)))
    targets_E = np.empty(len(examples))
    predicted_KE = np.empty((runs, len(examples)), dtype=np.int64)
    bank.set_batch(None)
    for places in passes(examples, runs, rows):
        batch = collate([examples[i] for _ in range(runs) for i in places], task)
        with bank.context():
            result = row_losses(bank.model, task.name, batch)
        total_KN = result.total.view(runs, -1).double().cpu().numpy()
        targets_E[places] = result.targets.view(runs, -1)[0].cpu().numpy()
        losses_KE[:, places] = total_KN / targets_E[places]
        if result.predicted is not None:
            predicted_KE[:, places] = result.predicted.view(runs, -1).cpu().numpy()
    if task.name != "SEQ_CLS":
        return [Evaluation(losses_E, targets_E) for losses_E in losses_KE]
    labels_E = np.array([int(e.labels) for e in examples])
    return [
        Evaluation(losses_E, targets_E, predicted_E, labels_E)
        for losses_E, predicted_E in zip(losses_KE, predicted_KE, strict=True)
    ]


def passes(examples: Sequence[Example], runs: int, rows: int) -> list[list[int]]:
    """Places of the examples, sorted by length and cut so that a pass stays within its bounds."""
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i].input_ids), i))
    cut: list[list[int]] = [[]]
    for i in order:
        tokens = (len(cut[-1]) + 1) * runs * len(examples[i].input_ids)
        if cut[-1] and (len(cut[-1]) == rows or tokens > TOKENS_OF_A_PASS):
            cut.append([])
        cut[-1].append(i)
    return cut
