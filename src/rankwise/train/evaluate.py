"""Evaluation of all selected runs in one pass, example by example.

Legend: K runs, E examples.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rankwise.analysis.answers import accuracy, macro_f1, matthews
from rankwise.data.examples import Example
from rankwise.spec.tasks import has_classes
from rankwise.tasks.by_name import row_losses
from rankwise.train.batch import BatchKey, Task, collate

TOKENS_OF_A_PASS = 8192  # bounds the memory of one pass
# Best of 512 to 8,192 on two CPU cores (MiniLM, bf16, a cohort of 8): small enough for the cache,
# large enough for both cores. GPUs want more work at once.
TOKENS_OF_AN_EVALUATION = {"cpu": 4096, "cuda": 65536}


class Forward(Protocol):
    """What evaluation and generation need: a bank, a whole model, or the untouched base."""

    @property
    def model(self) -> Any:
        """The model."""

    def running(
        self, runs: Sequence[int], key: BatchKey | None = None
    ) -> AbstractContextManager[Any]:
        """The model, for batches of these runs, one after the other; no key: no dropout."""


@dataclass(frozen=True)
class Untouched:
    """A model where a bank is expected; it has one run, number 0.

    Attributes:
        model: Such as the untrained base.
        products: Precision of its products, where that is not the precision of its weights.
    """

    model: Any
    products: torch.dtype | None = None

    @contextmanager
    def running(self, runs: Sequence[int], key: BatchKey | None = None) -> Iterator[Any]:
        """The model."""
        device = next(self.model.parameters()).device.type
        lower = self.products not in (None, torch.float32)
        with torch.autocast(device, dtype=self.products, enabled=lower):
            yield self.model


@dataclass(frozen=True)
class Evaluation:
    """One run on one set of examples.

    Attributes:
        losses_E: Mean loss over the targets of each example.
        targets_E: Number of targets of each example.
        predicted_E: Predicted class of each example, for classification.
        labels_E: True class of each example, for classification.
        likeness: Measures of what the model wrote, for sequence to sequence.
    """

    losses_E: NDArray[np.float64]
    targets_E: NDArray[np.float64]
    predicted_E: NDArray[np.int64] | None = None
    labels_E: NDArray[np.int64] | None = None
    likeness: Mapping[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Mean loss over all targets."""
        return float(np.average(self.losses_E, weights=self.targets_E))

    @property
    def correct_E(self) -> NDArray[np.bool_] | None:
        """Which examples were classified rightly."""
        return None if self.predicted_E is None else self.predicted_E == self.labels_E

    def metrics(self) -> dict[str, float]:
        """The set's metrics by name; none is a number where the loss is none."""
        found = {"eval_loss": self.loss}
        if self.predicted_E is None or self.labels_E is None:
            found["eval_perplexity"] = math.exp(min(self.loss, 700.0))
            found |= self.likeness
        else:
            found["eval_accuracy"] = accuracy(self.labels_E, self.predicted_E)
            found["eval_macro_f1"] = macro_f1(self.labels_E, self.predicted_E)
            found["eval_matthews"] = matthews(self.labels_E, self.predicted_E)
        # a model whose loss is NaN still names a class, the first one: that is no accuracy
        if not math.isfinite(self.loss):
            return {**dict.fromkeys(found, math.nan), "eval_loss": self.loss}
        return found


def evaluate(
    bank: Forward, runs: Sequence[int], examples: Sequence[Example], task: Task, rows: int
) -> list[Evaluation]:
    """Some runs on the same examples, K evaluations in their order; arguments as `evaluating`."""
    passing = evaluating(bank, runs, examples, task, rows)
    while True:
        try:
            next(passing)
        except StopIteration as end:
            found: list[Evaluation] = end.value
            return found


@torch.no_grad()
def evaluating(
    bank: Forward, runs: Sequence[int], examples: Sequence[Example], task: Task, rows: int
) -> Generator[int, None, list[Evaluation]]:
    """Some runs on the same examples, K evaluations in their order; yields after every pass.

    What it yields is how many of the examples are done. Nothing of the runs changes meanwhile.

    Args:
        bank: Where the runs are.
        runs: Their K numbers.
        examples: E examples.
        task: How they become tensors.
        rows: Most rows of one run in a pass.
    """
    count = len(runs)
    losses_KE = np.empty((count, len(examples)))
    targets_E = np.empty(len(examples))
    predicted_KE = np.empty((count, len(examples)), dtype=np.int64)
    most = TOKENS_OF_AN_EVALUATION.get(task.device.type, TOKENS_OF_A_PASS)
    lengths = [len(example.input_ids) for example in examples]
    done = 0
    with bank.running(runs) as model:
        for places in passes(lengths, count, rows, most):
            batch = collate([examples[i] for _ in runs for i in places], task)
            result = row_losses(model, task.name, batch)
            total_KN = result.total.view(count, -1).double().cpu().numpy()
            targets_E[places] = result.targets.view(count, -1)[0].cpu().numpy()
            losses_KE[:, places] = total_KN / targets_E[places]
            if result.predicted is not None:
                predicted_KE[:, places] = result.predicted.view(count, -1).cpu().numpy()
            done += len(places)
            yield done
    if not has_classes(task.name):
        return [Evaluation(losses_E, targets_E) for losses_E in losses_KE]
    labels_E = np.array([int(e.labels) for e in examples])
    return [
        Evaluation(losses_E, targets_E, predicted_E, labels_E)
        for losses_E, predicted_E in zip(losses_KE, predicted_KE, strict=True)
    ]


def passes(lengths: Sequence[int], runs: int, rows: int, most: int) -> list[list[int]]:
    """Places of rows of these lengths, sorted and cut so that a pass stays within its bounds.

    Args:
        lengths: Tokens of each row of one run.
        runs: How many runs take each row.
        rows: Most rows of one run in a pass.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    cut: list[list[int]] = [[]]
    for i in order:
        tokens = (len(cut[-1]) + 1) * runs * lengths[i]
        if cut[-1] and (len(cut[-1]) == rows or tokens > most):
            cut.append([])
        cut[-1].append(i)
    return cut
