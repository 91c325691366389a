"""The verdict on one metric: noise floor, intervals, tie group, winner, detectable difference.

`judge` does all of it. `Verdict.claim` says what the intervals hold for; a winner is declared only
where seeds are part of it. Array suffixes: A arms with a finished run, R finished runs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.analysis.comparisons import (
    Settlement,
    detectable,
    holm_all_pairs,
    holm_with_best,
    settle,
)
from rankwise.analysis.means import NoiseFloor, mean_intervals, noise_floor, spreads
from rankwise.analysis.scores import Floats, Ints, Scores
from rankwise.analysis.variance import Claim, Components, Estimates, components

LEVEL = 0.05
# A detectable difference is computed for a power of PLANNED and stated with CLAIMED: it rests on an
# estimate of the noise, and in simulated studies 84 % of such differences were found.
PLANNED = 0.9
CLAIMED = 0.8


@dataclass(frozen=True)
class ArmResult:
    """One arm. The interval is for its own mean; to compare arms use the differences.

    missing          planned runs without a score, whatever the cause
    mean, low, high  plain mean over its finished runs and its 95 % interval (None: unknown)
    fitted           the mean adjusted for missing seeds; equals `mean` if none is missing
    place            1 for the best fitted mean; None if no run finished
    tied             could be the best according to these data
    spread           standard deviation of its runs over seeds; None with one seed
    unstable         its spread is significantly larger than the others' (F test, 5 %, Bonferroni)
    """

    arm: str
    finished: int
    missing: int
    mean: float | None
    low: float | None
    high: float | None
    fitted: float | None
    place: int | None
    tied: bool
    spread: float | None
    unstable: bool
    unclear: bool


@dataclass(frozen=True)
class Difference:
    """Arm minus other, 95 % interval, two-sided p; None where the noise is unknown.

    p_adjusted is for all comparisons with the best (see `holm_with_best`), else None. `better`
    names the arm that the interval favours, None if the interval includes zero or is unknown.
    """

    arm: str
    other: str
    value: float
    low: float | None
    high: float | None
    df: float | None
    p: float | None
    p_adjusted: float | None
    better: str | None


@dataclass(frozen=True)
class DetectableEffect:
    """True difference from the best that such a study detects with probability `power` or more.

    The level is that of the strictest step of the comparison with the best. In simulated studies an
    arm that was better by this difference was the only one in the tie group in 84 % of studies, at
    twice the difference in 97 % (docs/calibration.md).
    """

    value: float
    power: float
    level: float
    seeds: float
    examples: int


@dataclass(frozen=True, eq=False)
class PairTable:
    """Arm (row) minus arm (column) for every pair, arrays (A, A); `interval` bounds are 95 %.

    decided_AA  -1 row is lower, +1 row is higher, 0 undecided, after Holm over all pairs
    """

    arms: tuple[str, ...]
    value_AA: Floats
    low_AA: Floats
    high_AA: Floats
    df_AA: Floats
    p_AA: Floats
    decided_AA: Floats


@dataclass(frozen=True)
class Verdict:
    """The verdict on one metric.

    claim       what the intervals hold for beyond these runs and these examples
    arms        in the order given, failed ones included
    best        lowest (or highest) fitted mean; an observation, not a claim
    tie_group   arms that could be the best, best first; the truly best arm is in it with 95 %
    winner      the only arm of the tie group, where the claim includes seeds; else None
    stands_out  with one seed: the arm that the examples show to be better than all others
    with_best   every other arm against `best`, in order of place
    """

    metric: str
    lower_is_better: bool
    claim: Claim
    paired: bool
    seeds: int
    examples: int
    unit: str
    arms: tuple[ArmResult, ...]
    best: str | None
    tie_group: tuple[str, ...]
    winner: str | None
    stands_out: str | None
    noise: NoiseFloor | None
    detectable: DetectableEffect | None
    with_best: tuple[Difference, ...]
    settlements: tuple[Settlement, ...]
    pairs: PairTable

    @property
    def behind(self) -> tuple[str, ...]:
        """Tied arms whose 95 % interval against `best`, not adjusted, excludes zero."""
        return tuple(
            d.arm
            for d in self.with_best
            if d.arm in self.tie_group and d.better is not None and d.better != d.arm
        )

    def difference(self, arm: str, other: str) -> Difference:
        """A difference, unadjusted. Raises KeyError for an arm without a finished run."""
        for name in (arm, other):
            if name not in self.pairs.arms:
                raise KeyError(f"{name} has no finished run")
        a, b = self.pairs.arms.index(arm), self.pairs.arms.index(other)
        return _difference(self.pairs, a, b, self.lower_is_better, None)


def judge(scores: Scores) -> Verdict:
    """The verdict on `scores`. Missing and failed runs are counted and raise no error."""
    return judge_parts(scores, components(scores))


def judge_parts(scores: Scores, parts: Components) -> Verdict:
    """`judge`, for callers that have the components already."""
    sign = 1.0 if scores.lower_is_better else -1.0
    order = np.argsort(sign * parts.fitted_A, kind="stable")
    pairs = parts.pairs()
    table = _table(parts, pairs)
    adjusted_A = _adjusted(table, order)
    in_tie_A = ~(adjusted_A < LEVEL)
    tie_group = tuple(parts.arms[a] for a in order if in_tie_A[a])
    alone = tie_group[0] if len(tie_group) == 1 < len(parts.arms) else None
    return Verdict(
        metric=scores.metric,
        lower_is_better=scores.lower_is_better,
        claim=parts.claim,
        paired=parts.design.paired,
        seeds=len(np.unique(parts.runs.seed_R)),
        examples=parts.examples,
        unit=parts.unit,
        arms=_arm_results(scores, parts, order, in_tie_A),
        best=parts.arms[order[0]] if len(order) else None,
        tie_group=tie_group,
        winner=alone if parts.pools else None,
        stands_out=None if parts.pools else alone,
        noise=noise_floor(parts),
        detectable=_detectable(parts, pairs, order),
        with_best=_with_best(table, order, adjusted_A, scores.lower_is_better),
        settlements=_settlements(parts, order, in_tie_A),
        pairs=table,
    )


def _table(parts: Components, pairs: Estimates) -> PairTable:
    low_AA, high_AA = pairs.interval()
    p_AA = pairs.p_value()
    decided = holm_all_pairs(p_AA) < LEVEL
    return PairTable(
        arms=parts.arms,
        value_AA=pairs.value,
        low_AA=low_AA,
        high_AA=high_AA,
        df_AA=pairs.df,
        p_AA=p_AA,
        decided_AA=np.where(decided, np.sign(pairs.value), 0.0),
    )


def _adjusted(table: PairTable, order: Ints) -> Floats:
    if len(order) == 0:
        return np.empty(0)
    return holm_with_best(table.p_AA[order[0]], int(order[0]))


def _difference(
    table: PairTable, a: int, b: int, lower_is_better: bool, p_adjusted: float | None
) -> Difference:
    value, low, high = (float(x[a, b]) for x in (table.value_AA, table.low_AA, table.high_AA))
    arm, other = table.arms[a], table.arms[b]
    if np.isnan(low):
        return Difference(arm, other, value, None, None, None, None, None, None)
    better = None
    if low > 0 or high < 0:
        better = arm if (high < 0) == lower_is_better else other
    df, p = float(table.df_AA[a, b]), float(table.p_AA[a, b])
    return Difference(arm, other, value, low, high, df, p, p_adjusted, better)


def _with_best(
    table: PairTable, order: Ints, adjusted_A: Floats, lower_is_better: bool
) -> tuple[Difference, ...]:
    return tuple(
        _difference(table, int(a), int(order[0]), lower_is_better, float(adjusted_A[a]))
        for a in order[1:]
    )


def _arm_results(
    scores: Scores, parts: Components, order: Ints, in_tie_A: NDArray[np.bool_]
) -> tuple[ArmResult, ...]:
    """Every arm in the order given; those without a finished run have only counts."""
    low_A, high_A = mean_intervals(scores, parts)
    spread_A = spreads(parts)
    place = {int(a): n for n, a in enumerate(order, start=1)}
    family = {a: pool.family for pool in parts.pools for a in pool.arms}
    results = []
    for name in scores.arms:
        if name not in parts.arms:
            none = (None, None, None, None, None)
            results.append(ArmResult(name, 0, len(scores.seeds), *none, False, None, False, False))
            continue
        a = parts.arms.index(name)
        finished = int(parts.seeds_A[a])
        results.append(
            ArmResult(
                arm=name,
                finished=finished,
                missing=len(scores.seeds) - finished,
                mean=float(parts.mean_A[a]),
                low=_known(low_A[a]),
                high=_known(high_A[a]),
                fitted=float(parts.fitted_A[a]),
                place=place[a],
                tied=bool(in_tie_A[a]),
                spread=_known(spread_A[a]),
                unstable=family.get(a) == "noisier",
                unclear=family.get(a) == "unclear",
            )
        )
    return tuple(results)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _detectable(parts: Components, pairs: Estimates, order: Ints) -> DetectableEffect | None:
    """From the median pair with the best, at the level of the first step of `holm_with_best`."""
    arms = len(parts.arms)
    if arms < 2 or parts.claim == "nothing":
        return None
    error = float(np.median(pairs.error[order[0], order[1:]]))
    df = float(np.median(pairs.df[order[0], order[1:]]))
    level = LEVEL / (arms * (arms - 1) / 2)
    value = detectable(error, df, level, PLANNED)
    return DetectableEffect(value, CLAIMED, level, float(np.mean(parts.seeds_A)), parts.examples)


def _settlements(
    parts: Components, order: Ints, in_tie_A: NDArray[np.bool_]
) -> tuple[Settlement, ...]:
    """What would decide between each tied arm and the best, at the level of that tie group."""
    tied = [int(a) for a in order if in_tie_A[a]]
    level = LEVEL / max(len(tied) * (len(tied) - 1) / 2, 1)
    return tuple(settle(parts, a, tied[0], level, PLANNED) for a in tied[1:])
