"""What a race will take, said before it runs: its rungs, and the runs of simulated races."""

import math
import statistics
from dataclasses import dataclass

from rankwise.search.prior import PRIOR
from rankwise.search.race import RaceRules
from rankwise.search.simulate import expected_runs
from rankwise.spec.models import RaceSpec, race_of
from rankwise.study.budget import limit_of, run_costs
from rankwise.study.plan import StudyPlan
from rankwise.study.race import rung_steps
from rankwise.text import names, percent

Range = tuple[float, float, float]
"""10 %, median and 90 % of simulated races."""
FEWEST_ARMS, FEWEST_SEEDS = 4, 2
MOST_RUNGS = 6


@dataclass(frozen=True)
class ExpectedRace:
    """A race before it runs; in full runs of the configuration of median cost.

    rungs    shares of their steps at which runs are compared
    at_once  runs that train at the same time
    budget   None where there is none but time
    race     for the race alone; total: with the rounds of further seeds
    most     that it can take
    grid     every configuration with every seed
    """

    configurations: int
    rungs: tuple[float, ...]
    at_once: int
    budget: float | None
    race: Range
    total: Range
    most: float
    grid: int
    source: str


def expect_race(plan: StudyPlan) -> ExpectedRace | None:
    """The race of a study; None where every run is trained to its end."""
    race = race_of(plan.spec)
    return None if race is None else _expected(plan, race, _budget(plan))


def would_race(plan: StudyPlan) -> ExpectedRace | None:
    """What a race would take in place of a grid; None where it could save nothing worth saying."""
    arms = len({arm.training_id for arm in plan.arms})
    if race_of(plan.spec) is not None or arms < FEWEST_ARMS or len(plan.spec.seeds) < FEWEST_SEEDS:
        return None
    found = _expected(plan, RaceSpec(), None)
    return found if found.total[1] < found.grid else None


def _expected(plan: StudyPlan, race: RaceSpec, budget: float | None) -> ExpectedRace:
    arms, seeds = len({arm.training_id for arm in plan.arms}), len(plan.spec.seeds)
    rungs, grid = rungs_of(plan, race), arms * seeds
    rules = RaceRules(audit=race.audit, seeds=plan.spec.seeds, most_seeds=seeds)
    found = expected_runs(arms, rungs, rules, budget)
    most = float(grid) if budget is None else min(budget, float(grid))
    return ExpectedRace(
        configurations=arms,
        rungs=rungs,
        at_once=race.at_once,
        budget=budget,
        race=_capped(found.race, most),
        total=_capped(found.total, most),
        most=most,
        grid=grid,
        source=PRIOR.source,
    )


def _capped(runs: Range, most: float) -> Range:
    low, middle, high = (min(value, most) for value in runs)
    return low, middle, high


def _budget(plan: StudyPlan) -> float | None:
    """The budget in full runs of the configuration of median cost."""
    limit = limit_of(plan)
    return None if limit == math.inf else limit / statistics.median(run_costs(plan).values())


def rungs_of(plan: StudyPlan, race: RaceSpec) -> tuple[float, ...]:
    """The evaluations before the end at which runs may be stopped, as shares of the first arm's."""
    arm = plan.arms[0]
    steps = plan.steps(arm)
    return tuple(step / steps for step in rung_steps(race, arm.training, steps))


def rungs_words(rungs: tuple[float, ...]) -> str:
    """Where runs are compared."""
    if not rungs:
        return "never stopped early"
    if len(rungs) > MOST_RUNGS:
        first, last = percent(rungs[0], 0), percent(rungs[-1], 0)
        return f"compared {len(rungs)} times, from {first} to {last} of their steps"
    return f"compared at {names([percent(rung, 0) for rung in rungs])} of their steps"
