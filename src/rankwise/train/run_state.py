"""A run as a value: all that must be known of it to go on, in this process or another.

What a run sees is a pure function of (seed, batch): its rows, its dropout masks. So the state is
its weights and AdamW's moments, how far it has come, and what it has found. It can leave one
cohort and join another; there its weights are padded to the largest rank, here they are not.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rankwise.errors import StoreError
from rankwise.spec.arms import Run

Tensors = dict[str, Tensor]
FACTS = (
    "max_steps", "step", "batches", "evaluated", "window", "losses", "best", "best_step",
    "waited", "seen", "status",
)  # fmt: skip
GROUPS = ("weights", "first_moments", "second_moments", "gradients", "best_weights")


@dataclass
class RunState:
    """A run that is not in any cohort, or as it was when it joined its present one.

    Attributes:
        max_steps: Optimizer steps of the whole run.
        weights: Trained weights by name, fp32 on the CPU; empty: they are drawn from the seed.
        first_moments, second_moments: AdamW's, by weight; empty before the first step.
        gradients: Of an accumulation window under way; else empty.
        best_weights: Those of `best_step`.
        step: Optimizer steps done.
        batches: Batches seen.
        evaluated: The step of the last evaluation.
        window: Targets in the accumulation window under way, over which its loss is a mean.
        losses: Loss of that window's batches so far.
        best: Best value of the deciding validation metric, None before there was one.
        waited: Evaluations since then without enough improvement.
        seen: The last steps (step, loss, grad_norm, learning_rate), kept as evidence.
        status: running, done, stopped_early or diverged.
    """

    run: Run
    max_steps: int
    weights: Tensors = field(default_factory=dict)
    first_moments: Tensors = field(default_factory=dict)
    second_moments: Tensors = field(default_factory=dict)
    gradients: Tensors = field(default_factory=dict)
    best_weights: Tensors = field(default_factory=dict)
    step: int = 0
    batches: int = 0
    evaluated: int = 0
    window: float = 1.0
    losses: float = 0.0
    best: float | None = None
    best_step: int = -1
    waited: int = 0
    seen: list[dict[str, float]] = field(default_factory=list)
    status: str = "running"

    def state_dict(self) -> tuple[Tensors, dict[str, Any]]:
        """The tensors by `group/name`, and all other facts, JSON-ready."""
        tensors = {
            f"{group}/{name}": tensor
            for group in GROUPS
            for name, tensor in getattr(self, group).items()
        }
        facts = {name: getattr(self, name) for name in FACTS}
        return tensors, {"training": self.run.arm.training_id, "seed": self.run.seed, **facts}

    @classmethod
    def from_state_dict(
        cls, run: Run, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "RunState":
        """The state that `state_dict` gave.

        Raises:
            StoreError: it is that of another training or seed than `run`.
        """
        found = (facts["training"], facts["seed"])
        if found != (run.arm.training_id, run.seed):
            raise StoreError(
                f"{run.id}: the saved state belongs to training {found[0]} with seed {found[1]}, "
                f"not to {run.arm.training_id} with seed {run.seed}"
            )
        state = cls(run, **{name: facts[name] for name in FACTS})
        for key, tensor in tensors.items():
            group, _, name = key.partition("/")
            getattr(state, group)[name] = tensor
        return state


def save_run_state(state: RunState, path: Path) -> None:
    """Write a state to one safetensors file; facts are JSON in its metadata."""
    tensors, facts = state.state_dict()
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path, {"run": json.dumps(facts)})


def load_run_state(run: Run, path: Path) -> RunState:
    """Read the state of `run` from the file that `save_run_state` wrote.

    Raises:
        StoreError: as `RunState.from_state_dict`.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(file.metadata()["run"])
    return RunState.from_state_dict(run, tensors, facts)
