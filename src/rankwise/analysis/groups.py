"""Groups of arms (strategies, methods): counts and means, failures, comparison at equal budgets.

Array suffixes: A arms with a finished run, K contrasts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rankwise.analysis.variance import Components
from rankwise.errors import DataError
from rankwise.text import names

FINISHED = ("done", "stopped_early")


@dataclass(frozen=True)
class GroupRun:
    """One run as a group sees it. `score` counts only in a finished state and if finite.

    budget  trainable parameters, or another cost that differs between arms; None if unknown
    """

    arm: str
    group: str
    score: float | None
    budget: float | None
    state: str = "done"

    @property
    def finished(self) -> bool:
        """Whether its score may be averaged."""
        return self.state in FINISHED and self.score is not None and bool(np.isfinite(self.score))


@dataclass(frozen=True)
class Group:
    """One group. All numbers are of its finished runs; None where there is none.

    spread             standard deviation of their scores (n - 1); None with one
    best_arm, best     the best single run, which is not the mean of an arm or of the group
    budgets            the different budgets of its finished runs, ascending
    score_per_million  mean of score / (budget / 10^6): loss per million parameters. It falls as the
                       budget grows even if the loss stays, so it cannot rank different budgets
    failures           (state, runs) of runs that did not finish, in order of appearance; a finished
                       run without a finite score counts as "diverged"
    """

    group: str
    runs: int
    finished: int
    mean: float | None
    spread: float | None
    best_arm: str | None
    best: float | None
    budgets: tuple[float, ...]
    score_per_million: float | None
    failures: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class GroupDifference:
    """Mean of `first` minus mean of `second` over arms of one equal budget, 95 % interval.

    None bounds: the noise is unknown.
    """

    first: str
    second: str
    budget: float
    first_arms: tuple[str, ...]
    second_arms: tuple[str, ...]
    value: float
    low: float | None
    high: float | None


def summarize_groups(runs: Sequence[GroupRun], lower_is_better: bool = True) -> tuple[Group, ...]:
    """A summary of each group, in order of appearance; groups are not ranked."""
    by_group: dict[str, list[GroupRun]] = {}
    for run in runs:
        by_group.setdefault(run.group, []).append(run)
    return tuple(_group(name, own, lower_is_better) for name, own in by_group.items())


def at_equal_budget(
    parts: Components, group: Mapping[str, str], budget: Mapping[str, float | None]
) -> tuple[GroupDifference, ...]:
    """Differences of group means where two groups have arms of exactly the same budget.

    The mean is over the arms of that budget, each counted once. Raises DataError for an arm of
    `parts` without a group.
    """
    missing = [arm for arm in parts.arms if arm not in group]
    if missing:
        raise DataError(f"no group is given for {names(missing)}")
    cells: dict[float, dict[str, list[str]]] = {}
    for arm in parts.arms:
        spent = budget.get(arm)
        if spent is not None:
            cells.setdefault(spent, {}).setdefault(group[arm], []).append(arm)
    return tuple(
        _difference(parts, spent, one, two, groups)
        for spent, groups in sorted(cells.items())
        for one, two in combinations(groups, 2)
    )


def _group(name: str, runs: list[GroupRun], lower_is_better: bool) -> Group:
    done = [run for run in runs if run.finished]
    failures: dict[str, int] = {}
    for run in runs:
        if not run.finished:
            state = "diverged" if run.state in FINISHED else run.state
            failures[state] = failures.get(state, 0) + 1
    scores = [run.score for run in done if run.score is not None]
    pick = min if lower_is_better else max
    best = pick(done, key=lambda run: run.score or 0.0) if done else None
    rates = [run.score / (run.budget / 1e6) for run in done if run.budget and run.score is not None]
    return Group(
        group=name,
        runs=len(runs),
        finished=len(done),
        mean=float(np.mean(scores)) if scores else None,
        spread=float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        best_arm=best.arm if best else None,
        best=best.score if best else None,
        budgets=tuple(sorted({run.budget for run in done if run.budget is not None})),
        score_per_million=float(np.mean(rates)) if done and len(rates) == len(done) else None,
        failures=tuple(failures.items()),
    )


def _difference(
    parts: Components,
    budget: float,
    first: str,
    second: str,
    groups: Mapping[str, Sequence[str]],
) -> GroupDifference:
    c_A = np.zeros(len(parts.arms))
    for name, sign in ((first, 1.0), (second, -1.0)):
        for arm in groups[name]:
            c_A[parts.arms.index(arm)] = sign / len(groups[name])
    estimate = parts.contrasts(c_A[None])
    low, high = (float(bound[0]) for bound in estimate.interval())
    known = not np.isnan(low)
    return GroupDifference(
        first=first,
        second=second,
        budget=budget,
        first_arms=tuple(groups[first]),
        second_arms=tuple(groups[second]),
        value=float(estimate.value[0]),
        low=low if known else None,
        high=high if known else None,
    )
