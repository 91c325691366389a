"""What happens while runs train: frozen records of numbers, for whoever keeps or shows them.

The loop yields them in tuples. Between two tuples every run is at the end of a batch or of an
evaluation: there runs may be stopped, saved and taken out of their cohort.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from rankwise.train.evaluate import Evaluation


@dataclass(frozen=True)
class Batched:
    """One batch of the cohort went through the model and back.

    Attributes:
        runs: The runs in it.
        tokens: Tokens of all their rows.
        padded: The same with the padding that was computed as well.
        seconds: What it took, optimizer steps included.
    """

    runs: tuple[str, ...]
    tokens: int
    padded: int
    seconds: float


@dataclass(frozen=True)
class Stepped:
    """A run took an optimizer step.

    Attributes:
        step: Its number, from 1.
        loss: Mean loss over the targets of the step, before it.
        grad_norm: Norm of the run's gradient, before clipping.
        learning_rate: That of the step (of A, where LoRA+ gives B another one).
    """

    run: str
    step: int
    loss: float
    grad_norm: float
    learning_rate: float


@dataclass(frozen=True)
class Evaluated:
    """A run was evaluated on a split, with the weights of this step."""

    run: str
    split: Literal["validation", "test"]
    step: int
    evaluation: Evaluation


@dataclass(frozen=True)
class Improved:
    """The run's best validation so far; its weights are in the run's state."""

    run: str
    step: int
    value: float


@dataclass(frozen=True)
class Ended:
    """A run has no further step.

    Attributes:
        state: done, stopped_early or diverged.
        facts: Of a divergence: `what` was not finite (loss or gradient norm), the `step` and its
            `learning_rate`, and the steps `before`.
    """

    run: str
    state: str
    facts: dict[str, Any] = field(default_factory=dict)


Event = Batched | Stepped | Evaluated | Improved | Ended
