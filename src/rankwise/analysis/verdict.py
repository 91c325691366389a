"""The verdict on one metric: which arms may be the best, how far behind each may be, and a winner.

`judge` does all of it. `Verdict.claim` says what the intervals hold for; a winner is declared only
where seeds are part of it. Array suffixes: A arms with a finished run, R finished runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from rankwise.analysis.best import (
    Behind,
    Contest,
    all_pairs,
    behind_best,
    contest,
    detectable,
    p_best,
)
from rankwise.analysis.means import NoiseFloor, mean_intervals, noise_floor, spreads
from rankwise.analysis.planning import Settlement, settle
from rankwise.analysis.scores import Floats, Ints, Scores
from rankwise.analysis.variance import Claim, Components, Estimates, components

LEVEL = 0.05
# A winner is alone in the 97.5 % set: of two equal arms, either may be alone in the 95 % set, so
# that one of them is in nearly 10 % of studies.
WINNER_LEVEL = 0.025
# A detectable difference is computed for a power of PLANNED and stated with CLAIMED.
PLANNED = 0.83
CLAIMED = 0.8
# Advice on more runs is for this power.
SETTLED = 0.9
MOST_SETTLED = 12


@dataclass(frozen=True)
class ArmResult:
    """One arm. The interval is for its own mean; to compare arms use the differences.

    missing          planned runs without a score, whatever the cause
    mean, low, high  plain mean over its finished runs and its 95 % interval (None: unknown)
    fitted           the mean adjusted for missing seeds; equals `mean` if none is missing
    place            1 for the best fitted mean; None if no run finished
    tied             could be the best according to these data
    equal            shown to be no further behind the best than the tolerance; None without one
    spread           standard deviation of its runs over seeds; None with one seed
    unstable         one of the arms whose runs spread significantly more (5 % over all arms)
    unclear          its few runs differ so much that it may be such an arm; its interval is wide
    """

    arm: str
    finished: int
    missing: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    fitted: float | None = None
    place: int | None = None
    tied: bool = False
    equal: bool | None = None
    spread: float | None = None
    unstable: bool = False
    unclear: bool = False


@dataclass(frozen=True)
class Distance:
    """How far an arm is behind the best, never negative, whatever the metric's direction.

    value      behind the best fitted mean of the study
    low, high  bounds on the distance from the truly best arm, right for all arms at once with 95 %;
               None where the noise is unknown
    p          the smallest level at which the arm is ruled out as the best, for all comparisons
    """

    arm: str
    value: float
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class Difference:
    """Arm minus other, with bounds and a p that hold for all pairs of the study at once.

    None where the noise is unknown. `better` names the arm that the interval favours, None if the
    interval includes zero or is unknown.
    """

    arm: str
    other: str
    value: float
    low: float | None
    high: float | None
    p: float | None
    better: str | None


@dataclass(frozen=True)
class DetectableEffect:
    """An arm that is truly better than all others by `value` is declared the winner with `power`.

    With one seed: is said to stand out.

    value      on average over the arms, where they differ in runs or noise
    smallest   differences from here on are significant between the two arms that have the least
               noise between them; far below `value` where arms are unlike
    seeds      mean number of finished runs of an arm
    """

    value: float
    smallest: float
    power: float
    seeds: float
    examples: int


@dataclass(frozen=True, eq=False)
class PairTable:
    """Arm (row) minus arm (column) for every pair, arrays (A, A).

    low_AA, high_AA, df_AA, p_AA  of this pair alone, 95 %, for none that was picked by looking
    half_AA, adjusted_AA          half width and p for all pairs at once
    decided_AA                    -1 row is lower, +1 row is higher, 0 undecided, all pairs at once
    """

    arms: tuple[str, ...]
    value_AA: Floats
    low_AA: Floats
    high_AA: Floats
    df_AA: Floats
    p_AA: Floats
    half_AA: Floats
    adjusted_AA: Floats
    decided_AA: Floats


@dataclass(frozen=True)
class Verdict:
    """The verdict on one metric.

    claim       what the intervals hold for beyond these runs and these examples
    tolerance   differences up to this do not matter; None where that was not said
    share       of each level that is used; below 1 where the study was judged before
    declared    whether a winner may be declared; not while runs are missing
    arms        in the order given, failed ones included
    best        lowest (or highest) fitted mean; an observation, not a claim
    tie_group   the 95 % confidence set of the best, best fitted mean first
    winner      the only arm of the 97.5 % set, where the claim includes seeds; else None
    stands_out  with one seed: the arm that the examples show to be better than all others
    distances   every arm behind the best, in order of place
    settlements what would decide the tie, where `with_settlements` was asked
    """

    metric: str
    lower_is_better: bool
    claim: Claim
    paired: bool
    seeds: int
    examples: int
    unit: str
    tolerance: float | None
    share: float
    declared: bool
    arms: tuple[ArmResult, ...]
    best: str | None
    tie_group: tuple[str, ...]
    winner: str | None
    stands_out: str | None
    noise: NoiseFloor | None
    detectable: DetectableEffect | None
    distances: tuple[Distance, ...]
    settlements: tuple[Settlement, ...]
    pairs: PairTable

    def distance(self, arm: str) -> Distance:
        """How far an arm is behind the best (StopIteration without a finished run)."""
        return next(one for one in self.distances if one.arm == arm)

    def difference(self, arm: str, other: str) -> Difference:
        """A difference, for all pairs at once; KeyError for an arm without a finished run."""
        for name in (arm, other):
            if name not in self.pairs.arms:
                raise KeyError(f"{name} has no finished run")
        table = self.pairs
        a, b = table.arms.index(arm), table.arms.index(other)
        value, half, p = (
            float(x[a, b]) for x in (table.value_AA, table.half_AA, table.adjusted_AA)
        )
        if np.isnan(half):
            return Difference(arm, other, value, None, None, None, None)
        better = None
        if abs(value) > half:
            better = arm if (value < 0) == self.lower_is_better else other
        return Difference(arm, other, value, value - half, value + half, p, better)


def judge(
    scores: Scores, tolerance: float | None = None, share: float = 1.0, declared: bool = True
) -> Verdict:
    """The verdict on `scores`. Missing and failed runs are counted and raise no error.

    `share` of each level is used; p values are divided by it. Where not `declared` there is no
    winner.
    """
    return judge_parts(scores, components(scores), tolerance, share, declared)


def judge_parts(
    scores: Scores,
    parts: Components,
    tolerance: float | None = None,
    share: float = 1.0,
    declared: bool = True,
) -> Verdict:
    """`judge`, for callers that have the components already."""
    sign = 1.0 if scores.lower_is_better else -1.0
    order = np.argsort(sign * parts.fitted_A, kind="stable")
    pairs = parts.pairs()
    game = None
    if len(parts.arms) > 1 and parts.claim != "nothing":
        game = contest(parts, scores.lower_is_better)
    p_A = np.ones(len(order)) if game is None else np.minimum(p_best(game) / share, 1.0)
    behind = _behind(game, sign * parts.fitted_A, share)
    tie_group = tuple(parts.arms[a] for a in order if not p_A[a] < LEVEL)
    left = [parts.arms[a] for a in order if not p_A[a] < WINNER_LEVEL]
    alone = left[0] if len(left) == 1 < len(parts.arms) and declared else None
    return Verdict(
        metric=scores.metric,
        lower_is_better=scores.lower_is_better,
        claim=parts.claim,
        paired=parts.design.paired,
        seeds=len(np.unique(parts.runs.seed_R)),
        examples=parts.examples,
        unit=parts.unit,
        tolerance=tolerance,
        share=share,
        declared=declared,
        arms=_arm_results(scores, parts, order, p_A, _equal(behind, tolerance)),
        best=parts.arms[order[0]] if len(order) else None,
        tie_group=tie_group,
        winner=alone if parts.pools else None,
        stands_out=None if parts.pools else alone,
        noise=noise_floor(parts),
        detectable=_detectable(parts, game, share),
        distances=_distances(parts.arms, order, behind, p_A if game is not None else None),
        settlements=(),
        pairs=_table(parts, pairs, game, share),
    )


def _behind(game: Contest | None, value_A: Floats, share: float) -> Behind:
    """The bounds on every arm's distance from the best; NaN where the noise is unknown."""
    if game is not None:
        return behind_best(game, 1 - LEVEL * share)
    unknown_A = np.full(len(value_A), np.nan)
    return Behind(value_A - value_A.min(initial=np.inf), unknown_A, unknown_A)


def _equal(behind: Behind, tolerance: float | None) -> list[bool | None]:
    """Whether each arm is shown to be within the tolerance of the best, None where none is set.

    Two one-sided tests (Schuirmann, J. Pharmacokin. Biopharm. 15, 1987): the distance from the best
    is above -tolerance as it cannot be negative, and below tolerance where its bound is.
    """
    if tolerance is None:
        return [None] * len(behind.value_A)
    return [bool(high <= tolerance) for high in behind.high_A]


def _table(parts: Components, pairs: Estimates, game: Contest | None, share: float) -> PairTable:
    low_AA, high_AA = pairs.interval()
    half_AA, adjusted_AA = np.full(pairs.value.shape, np.nan), np.full(pairs.value.shape, np.nan)
    if game is not None:
        half_AA, adjusted_AA = all_pairs(game, 1 - LEVEL * share)
        adjusted_AA = np.minimum(adjusted_AA / share, 1.0)
    decided_AA = np.abs(pairs.value) > half_AA
    return PairTable(
        arms=parts.arms,
        value_AA=pairs.value,
        low_AA=low_AA,
        high_AA=high_AA,
        df_AA=pairs.df,
        p_AA=pairs.p_value(),
        half_AA=half_AA,
        adjusted_AA=adjusted_AA,
        decided_AA=np.where(decided_AA, np.sign(pairs.value), 0.0),
    )


def _distances(
    arms: tuple[str, ...], order: Ints, behind: Behind, p_A: Floats | None
) -> tuple[Distance, ...]:
    return tuple(
        Distance(
            arm=arms[a],
            value=float(behind.value_A[a]),
            low=_known(behind.low_A[a]),
            high=_known(behind.high_A[a]),
            p=None if p_A is None else float(p_A[a]),
        )
        for a in order
    )


def _arm_results(
    scores: Scores, parts: Components, order: Ints, p_A: Floats, equal_A: list[bool | None]
) -> tuple[ArmResult, ...]:
    """Every arm in the order given; those without a finished run have only counts."""
    low_A, high_A = mean_intervals(scores, parts)
    spread_A = spreads(parts)
    place = {int(a): n for n, a in enumerate(order, start=1)}
    family = {a: pool.family for pool in parts.pools for a in pool.arms}
    results = []
    for name in scores.arms:
        if name not in parts.arms:
            results.append(ArmResult(name, 0, len(scores.seeds)))
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
                tied=bool(p_A[a] >= LEVEL),
                equal=equal_A[a],
                spread=_known(spread_A[a]),
                unstable=family.get(a) == "noisier",
                unclear=family.get(a) == "unclear",
            )
        )
    return tuple(results)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _detectable(parts: Components, game: Contest | None, share: float) -> DetectableEffect | None:
    if game is None:
        return None
    value, smallest = detectable(game, WINNER_LEVEL * share, PLANNED)
    seeds = float(np.mean(parts.seeds_A))
    return DetectableEffect(value, smallest, CLAIMED, seeds, parts.examples)


def with_settlements(
    verdict: Verdict, parts: Components, hours: Mapping[str, float] | None = None
) -> Verdict:
    """The verdict with what would decide between the best and each tied arm, the first few.

    At the level that is left for each of them: a winner must be better than all. `hours` of a run,
    by arm.
    """
    if verdict.claim == "nothing" or len(verdict.tie_group) < 2:
        return verdict
    best, *tied = (parts.arms.index(arm) for arm in verdict.tie_group)
    level = 2 * WINNER_LEVEL * verdict.share / len(tied)
    found = tuple(settle(parts, arm, best, level, SETTLED, hours) for arm in tied[:MOST_SETTLED])
    return replace(verdict, settlements=found)
