"""What the runs of a study have shown so far, and what two arms show beside each other.

Array suffixes: E examples.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rankwise.analysis.clusters import spread_of_groups
from rankwise.analysis.factors import RATE_NAMES, Settings, is_number
from rankwise.analysis.scores import Floats, Scores, finished_runs

# Shares of a schedule that differ by less are the same share: steps are whole numbers.
SAME_SHARE = 1e-3


class Schedule(NamedTuple):
    """What makes equal shares comparable: the shape of the learning rate, and the run's length.

    Two arms are compared directly only where all three are equal. The learning rate itself is no
    part of it.
    """

    name: str
    warmup: float
    steps: int


@dataclass(frozen=True, eq=False)
class Run:
    """One run: its losses by example (E,) at each evaluation, by the share of its schedule.

    curve     share (step / max_steps, above 0 up to 1) -> losses, the same examples in every run;
              the sign is turned where higher is better
    final     losses at the step where the run is ranked, once it is finished; without it a finished
              run is read at its last evaluation
    finished  it reached its end and may be ranked
    diverged  it ended without a result, as its loss was not finite
    """

    curve: Mapping[float, Floats] = field(default_factory=dict)
    final: Floats | None = None
    finished: bool = False
    diverged: bool = False

    @property
    def reached(self) -> float:
        """The share of the last evaluation; 0 before the first."""
        return max(self.curve, default=0.0)

    def at(self, share: float) -> Floats | None:
        """The losses at this share, None where the run was not evaluated there."""
        near = min(self.curve, key=lambda one: abs(one - share), default=None)
        if near is None or abs(near - share) > SAME_SHARE:
            return None
        return self.curve[near]

    @property
    def result(self) -> Floats | None:
        """The losses that a finished run is ranked by."""
        if not self.finished:
            return None
        return self.curve[self.reached] if self.final is None else self.final


@dataclass(frozen=True, eq=False)
class Seen:
    """Everything that decisions rest on. Arms that did not start are named in `schedules` alone.

    runs       (arm, seed) -> run
    schedules  arm -> its schedule, for every arm of the study, in the order of the study
    settings   arm -> its settings by dotted name; the learning rate is looked for among them
    groups_E, weights_E  as in `Scores`
    """

    runs: Mapping[tuple[str, int], Run]
    schedules: Mapping[str, Schedule]
    settings: Mapping[str, Settings] = field(default_factory=dict)
    groups_E: Sequence[Hashable] | None = None
    weights_E: Sequence[float] | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms, in the order of the study."""
        return tuple(self.schedules)

    @cached_property
    def seeds(self) -> Mapping[str, tuple[int, ...]]:
        """The seeds of each arm that started, in ascending order."""
        found: dict[str, list[int]] = {arm: [] for arm in self.schedules}
        for arm, seed in self.runs:
            found[arm].append(seed)
        return {arm: tuple(sorted(own)) for arm, own in found.items()}

    def rate(self, arm: str) -> float | None:
        """The learning rate of an arm, None where its settings do not name one."""
        for name, value in self.settings.get(arm, {}).items():
            if name.rpartition(".")[2] in RATE_NAMES and is_number(value):
                return float(str(value))
        return None


class Mean(NamedTuple):
    """A mean over examples and the standard error that other examples would give it."""

    value: float
    error: float


def mean_of(losses_E: Floats, seen: Seen) -> Mean:
    """Weighted mean of one loss, or of one difference, by example, with groups as in the verdict.

    The error is NaN where fewer than three groups leave it unknown, as in `analysis.variance`.
    """
    runs = finished_runs(
        Scores("loss", ("arm",), (0,), losses_E[None, None], None, seen.groups_E, seen.weights_E)
    )
    if not len(runs.mean_R) or runs.u_RG is None:
        return Mean(float("nan"), float("nan"))
    off_1G = runs.u_RG - runs.mean_R[:, None]
    groups = off_1G.shape[1]
    if groups < 2:
        return Mean(float(runs.mean_R[0]), float("nan"))
    factor, df = spread_of_groups(runs.share_G, off_1G / groups)
    error = float(np.sqrt(factor * np.square(off_1G / groups).sum())) if df >= 2 else float("nan")
    return Mean(float(runs.mean_R[0]), error)
