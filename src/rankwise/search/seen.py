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
from rankwise.analysis.scores import Floats, Ints

# Shares of a schedule that are equal to so many places are the same share.
PLACES = 3
SAME_SHARE = 10**-PLACES
FEWEST_GROUPS = 3


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

    @cached_property
    def _places(self) -> Mapping[float, float]:
        return {round(share, PLACES): share for share in self.curve}

    def at(self, share: float) -> Floats | None:
        """The losses at this share, None where the run was not evaluated there."""
        at = self._places.get(round(share, PLACES))
        return None if at is None else self.curve[at]

    @property
    def result(self) -> Floats | None:
        """The losses that a finished run is ranked by."""
        if not self.finished:
            return None
        return self.curve[self.reached] if self.final is None else self.final


class Grouping(NamedTuple):
    """Weights of the examples, summing to 1; their order by group, and where each group starts.

    share_G is the weight of each group; None where every example is a group and all weigh the same.
    """

    weights_E: Floats
    order_E: Ints
    starts_G: Ints
    share_G: Floats | None


def grouping(
    examples: int,
    groups_E: Sequence[Hashable] | None = None,
    weights_E: Sequence[float] | None = None,
) -> Grouping:
    """The grouping of this many examples."""
    raw_E = np.ones(examples) if weights_E is None else np.asarray(weights_E, dtype=np.float64)
    w_E = raw_E / raw_E.sum()
    labels = range(examples) if groups_E is None else groups_E
    numbers = {label: g for g, label in enumerate(dict.fromkeys(labels))}
    group_E = np.array([numbers[label] for label in labels], dtype=np.intp)
    order_E = np.argsort(group_E, kind="stable")
    starts_G = np.searchsorted(group_E[order_E], np.arange(len(numbers)))
    plain = groups_E is None and bool(np.all(w_E == w_E[0]))
    share_G = None if plain else np.asarray(np.bincount(group_E, weights=w_E), np.float64)
    return Grouping(w_E, order_E, starts_G, share_G)


class Means(NamedTuple):
    """The mean losses of one run by share, and that of its result."""

    curve: Mapping[float, float]
    result: float | None

    def at(self, share: float) -> float | None:
        """The mean loss at this share."""
        return self.curve.get(round(share, PLACES))


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

    @cached_property
    def means(self) -> Mapping[tuple[str, int], Means]:
        """The mean losses of each run."""
        return {key: self._means(run) for key, run in self.runs.items()}

    def _means(self, run: Run) -> Means:
        if not run.curve:
            return Means({}, None)
        w_E = self.grouping.weights_E
        curve = {round(share, PLACES): float(x_E @ w_E) for share, x_E in run.curve.items()}
        return Means(curve, None if run.result is None else float(run.result @ w_E))

    @cached_property
    def grouping(self) -> Grouping:
        """Weights and groups of the examples; needs an evaluation."""
        examples = next(len(x_E) for run in self.runs.values() for x_E in run.curve.values())
        return grouping(examples, self.groups_E, self.weights_E)

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

    The error is that of a ratio mean over groups, as `Scores` and `analysis.variance` have it; NaN
    where fewer than three groups leave it unknown.
    """
    groups = seen.grouping
    value = float(losses_E @ groups.weights_E)
    off_E = groups.weights_E * (losses_E - value)
    off_G = np.add.reduceat(off_E[groups.order_E], groups.starts_G)
    if len(off_G) < FEWEST_GROUPS:
        return Mean(value, float("nan"))
    factor, df = spread_of_groups(groups.share_G, off_G[None])
    error = float(np.sqrt(factor * (off_G @ off_G))) if df >= FEWEST_GROUPS - 1 else float("nan")
    return Mean(value, error)
