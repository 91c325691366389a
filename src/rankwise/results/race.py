"""The race of a study as records: what was begun and why, who was stopped, and what it took.

Among configurations that share a training the first one stands for it.
"""

from dataclasses import dataclass
from typing import Literal

Unit = Literal["runs", "tokens"]


@dataclass(frozen=True)
class RaceStart:
    """A run that was begun; why is "first", "promising" (by forecast) or "contender"."""

    arm: str
    seed: int
    why: str


@dataclass(frozen=True)
class RaceDecision:
    """What was decided of a configuration, as `search.race.Decision` has it, with names.

    Differences and distances are those of the raced metric, above 0 where it is behind. Numbers are
    None where nothing could be said yet.
    """

    arm: str
    share: float
    stop: bool
    leader: str
    difference: float | None
    forecast: float | None
    low: float | None
    high: float | None
    p: float
    audited: bool
    reason: str


@dataclass(frozen=True)
class Unbegun:
    """A configuration without a run: by a decision on its settings, or for lack of budget."""

    arm: str
    decision: RaceDecision | None


@dataclass(frozen=True)
class Round:
    """A round of further seeds: the configurations that got one, and which."""

    number: int
    arms: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Race:
    """How a study was raced.

    metric     that runs were compared by
    unit       of what follows: full runs of the configuration of median cost, or training tokens
    budget     None where there is none but time
    spent      steps made as a share of all of a run, times what a full run costs
    grid       every configuration with every seed of the spec
    ended      whether nothing is under way
    stopped    the decision that ended each stopped configuration, in the order of the study
    audited    the first decision to stop each of those that ran on all the same
    most_seeds of one configuration
    """

    metric: str
    unit: Unit
    budget: float | None
    spent: float
    grid: float
    ended: bool
    starts: tuple[RaceStart, ...]
    decisions: tuple[RaceDecision, ...]
    stopped: tuple[RaceDecision, ...]
    unbegun: tuple[Unbegun, ...]
    audited: tuple[RaceDecision, ...]
    rounds: tuple[Round, ...]
    most_seeds: int

    @property
    def left(self) -> float | None:
        """Of the budget."""
        return None if self.budget is None else max(self.budget - self.spent, 0.0)

    def stop_of(self, arm: str) -> RaceDecision | None:
        """The decision that ended a configuration."""
        return next((one for one in self.stopped if one.arm == arm), None)

    def unbegun_of(self, arm: str) -> Unbegun | None:
        """Why a configuration has no run; None where it has one."""
        return next((one for one in self.unbegun if one.arm == arm), None)
