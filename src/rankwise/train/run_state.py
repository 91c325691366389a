"""A run as a value: all that must be known of it to go on, in this process or another.

What a run sees is a pure function of (seed, batch): its rows, its dropout masks. So the state is
its weights and what its optimizer keeps, how far it has come, and what it has found. It can leave
one cohort and join another; there its weights are padded to the largest rank, here they are not.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rankwise.errors import StoreError
from rankwise.spec.arms import Run

Tensors = dict[str, Tensor]
Key = tuple[str, int]
FACTS = (
    "max_steps", "step", "batches", "evaluated", "window", "losses", "best", "best_step",
    "waited", "first_loss", "seen", "status", "why",
)  # fmt: skip
GROUPS = ("weights", "optimizer", "gradients", "best_weights")
MOMENTS = {"first_moments": "exp_avg", "second_moments": "exp_avg_sq"}  # names of earlier versions


@dataclass
class RunState:
    """A run that is not in any cohort, or as it was when it joined its present one.

    Attributes:
        max_steps: Optimizer steps of the whole run.
        weights: Trained weights by name, fp32 on the CPU; empty: they are drawn from the seed.
        optimizer: What the optimizer keeps, by state and weight (`exp_avg/NAME`); empty before the
            first step.
        gradients: Of an accumulation window under way; else empty.
        best_weights: Those of `best_step`.
        step: Optimizer steps done.
        batches: Batches seen.
        evaluated: The step of the last evaluation.
        window: Targets in the accumulation window under way, over which its loss is a mean.
        losses: Loss of that window's batches so far.
        best: Best value of the deciding validation metric, None before there was one.
        waited: Evaluations since then without enough improvement.
        first_loss: Loss of the first step, None before it.
        seen: The last steps (step, loss, grad_norm, learning_rate), kept as evidence.
        status: running, done, stopped_early or diverged.
        why: Of a divergence: `what` it was, the `step` and its `learning_rate`.
    """

    run: Run
    max_steps: int
    weights: Tensors = field(default_factory=dict)
    optimizer: Tensors = field(default_factory=dict)
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
    first_loss: float | None = None
    seen: list[dict[str, float]] = field(default_factory=list)
    status: str = "running"
    why: dict[str, Any] = field(default_factory=dict)

    def state_dict(self) -> tuple[Tensors, dict[str, Any]]:
        """The tensors by `group/name`, and all other facts, JSON-ready."""
        tensors = {
            f"{group}/{name}": tensor
            for group in GROUPS
            for name, tensor in getattr(self, group).items()
        }
        facts = {name: getattr(self, name) for name in FACTS}
        return tensors, {"training": self.run.arm.training_id, "seed": self.run.seed, **facts}


def key_of(run: Run) -> Key:
    """What tells the training of a run from all others: the id of the training, and the seed."""
    return run.arm.training_id, run.seed


def save_run_states(states: Sequence[RunState], path: Path) -> None:
    """Write states to one safetensors file; facts are JSON in its metadata."""
    tensors: Tensors = {}
    every = []
    for number, state in enumerate(states):
        held, facts = state.state_dict()
        tensors |= {f"{number}/{name}": tensor.contiguous() for name, tensor in held.items()}
        every.append(facts)
    save_file(tensors, path, {"runs": json.dumps(every)})


def saved_facts(path: Path) -> dict[Key, dict[str, Any]]:
    """What the file says of each state but its tensors, by training and seed: `FACTS`.

    Raises:
        OSError, SafetensorError, ValueError, KeyError, TypeError: it is damaged.
    """
    with safe_open(path, framework="pt") as file:
        every = json.loads(file.metadata()["runs"])
    return {(one["training"], one["seed"]): one for one in every}


def load_run_states(runs: Iterable[Run], path: Path) -> dict[Run, RunState]:
    """The states of these runs from the file that `save_run_states` wrote.

    Raises:
        StoreError: it holds none of one of them.
        OSError, SafetensorError, ValueError, KeyError, TypeError: it is damaged.
    """
    with safe_open(path, framework="pt") as file:
        names: dict[str, list[str]] = {}
        for name in file.keys():  # noqa: SIM118
            names.setdefault(name.partition("/")[0], []).append(name)
        every = json.loads(file.metadata()["runs"])
        places = {(one["training"], one["seed"]): place for place, one in enumerate(every)}
        found = {}
        for run in runs:
            if key_of(run) not in places:
                raise StoreError(
                    f"{path}: holds no state of {run.id} (training {run.arm.training_id}, seed "
                    f"{run.seed})"
                )
            place = places[key_of(run)]
            state = RunState(run, **{name: every[place][name] for name in FACTS})
            for name in names.get(str(place), ()):
                _, group, weight = name.split("/", 2)
                if group in MOMENTS:
                    group, weight = "optimizer", f"{MOMENTS[group]}/{weight}"
                getattr(state, group)[weight] = file.get_tensor(name)
            found[run] = state
    return found
