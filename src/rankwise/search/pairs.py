"""Two arms beside each other: same seeds, same share of the same schedule, same examples.

Array suffixes: E examples.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from rankwise.analysis.scores import Floats
from rankwise.search.seen import SAME_SHARE, Run, Seen, mean_of

# "above": the arm has a higher learning rate than the reference; "other": another schedule.
Side = Literal["below", "same", "above", "other"]
# Learning rates within this factor count as equal.
SAME_RATE = 1.05
# Evaluations that the roughness of a curve is taken over.
ROUGH_OVER = 5
# A gain of so many standard errors over examples is more than chance.
LEARNED = 2.0


@dataclass(frozen=True)
class Pair:
    """Arm minus reference at one share: the mean over common seeds, else over those of each.

    distance  decades from the reference's learning rate to the arm's; 0 where one is unknown
    rough     how far the difference jumps between evaluations beyond its trend: the root mean
              square of the last second differences, scaled to one evaluation
    final     arm minus reference once both are finished, else None
    seeds     finished seeds of the arm, where it is finished
    """

    arm: str
    reference: str
    share: float
    difference: float
    side: Side
    distance: float
    rough: float
    final: float | None
    seeds: int


def runs_of(seen: Seen, arm: str) -> dict[int, Run]:
    """The runs of an arm that did not diverge, by seed."""
    own = {seed: seen.runs[arm, seed] for seed in seen.seeds[arm]}
    return {seed: run for seed, run in own.items() if not run.diverged}


def reference_of(seen: Seen, arms: Sequence[str]) -> str:
    """The arm that went farthest, of the best quarter of them; the better of equal ones.

    A good one, as drifts grow with differences; a far one, as it is compared where both were. That
    one of all went farthest says little: it may be a lost one that is trained on for the audit.
    """
    best = arms[0]
    for arm in arms[1:]:
        if _behind(seen, arm, best) < 0:
            best = arm
    ranked = sorted(arms, key=lambda arm: _behind(seen, arm, best))
    near = ranked[: max(len(arms) // 4, 1)]
    if best not in near:
        near.append(best)
    reached = {arm: max(run.reached for run in runs_of(seen, arm).values()) for arm in near}
    far = max(reached.values())
    first = [arm for arm in near if reached[arm] > far - SAME_SHARE]
    return min(first, key=lambda arm: level_of(seen, arm, far))


def _behind(seen: Seen, arm: str, other: str) -> float:
    """Arm minus other, in results where both have one, else at their last common share."""
    if arm == other:
        return 0.0
    own, others = runs_of(seen, arm), runs_of(seen, other)
    share = _last_common(own.values(), others.values())
    if share is None:
        return math.inf
    return level_of(seen, arm, share) - level_of(seen, other, share)


def level_of(seen: Seen, arm: str, share: float) -> float:
    """The mean loss of an arm at a share, or of its result where the share is 1 and it finished."""
    found = []
    for seed, run in runs_of(seen, arm).items():
        means = seen.means[arm, seed]
        value = means.result if run.finished and share > 1 - SAME_SHARE else means.at(share)
        if value is not None:
            found.append(value)
    return sum(found) / len(found) if found else math.inf


def pair_of(seen: Seen, arm: str, reference: str, share: float | None = None) -> Pair | None:
    """The pair at this share, else at the last share that both have; None where there is none."""
    own, other = runs_of(seen, arm), runs_of(seen, reference)
    if share is None:
        share = _last_common(own.values(), other.values())
    if share is None:
        return None
    at = {seed: seen.means[arm, seed].at(share) for seed in own}
    beside = {seed: seen.means[reference, seed].at(share) for seed in other}
    difference = _difference(at, beside)
    if difference is None:
        return None
    ends = {seed: seen.means[arm, seed].result for seed in own}
    final = _difference(ends, {seed: seen.means[reference, seed].result for seed in other})
    side, distance = _side(seen, arm, reference)
    seeds = sum(value is not None for value in ends.values())
    rough = _roughness(seen, arm, reference, share)
    return Pair(arm, reference, share, difference, side, distance, rough, final, seeds)


def error_of(seen: Seen, pair: Pair) -> float:
    """Standard error of the difference over examples; NaN where unknown."""
    sides = []
    for arm in (pair.arm, pair.reference):
        at = {seed: run.at(pair.share) for seed, run in runs_of(seen, arm).items()}
        sides.append({seed: losses_E for seed, losses_E in at.items() if losses_E is not None})
    common = sorted(sides[0].keys() & sides[1].keys())
    own, other = (np.mean([side[s] for s in common or sorted(side)], axis=0) for side in sides)
    return mean_of(own - other, seen).error


def few_groups(seen: Seen) -> float:
    """By how much few groups of examples widen the verdict's margins: a ratio of critical values.

    Of the t with their degrees of freedom and of the normal, at 5 % for all arms (Bonferroni).
    """
    groups, tail = len(seen.grouping.starts_G), 0.05 / max(len(seen.arms) - 1, 1)
    if groups < 2:
        return 1.0
    return float(stats.t.isf(tail, groups - 1) / stats.norm.isf(tail))


def has_learned(seen: Seen, arm: str) -> bool:
    """Whether an arm is now better than the start by more than chance.

    Until the best arm is, those are ahead that have moved least, and comparisons say nothing. The
    start is the first evaluation of the arm of the lowest learning rate, or the middle one of all.
    """
    start_E = _first_losses(seen)
    now = [run.curve[run.reached] for run in runs_of(seen, arm).values() if run.curve]
    if start_E is None or not now:
        return False
    gain = mean_of(start_E - np.mean(now, axis=0), seen)
    return gain.value > LEARNED * gain.error


def _first_losses(seen: Seen) -> Floats | None:
    first: list[tuple[float, float, Floats]] = []
    for (arm, _), run in seen.runs.items():
        if run.curve:
            losses_E = run.curve[min(run.curve)]
            rate = seen.rate(arm)
            first.append((rate or math.inf, mean_of(losses_E, seen).value, losses_E))
    if not first:
        return None
    slowest = min(rate for rate, _, _ in first)
    found = sorted((one for one in first if one[0] == slowest), key=lambda one: one[1])
    return found[len(found) // 2][2]


def unit_of(seen: Seen, pairs: Iterable[Pair]) -> float | None:
    """The standard error over examples of a difference: the median of the nearer half of pairs.

    None where no pair has one.
    """
    near = sorted(pairs, key=lambda pair: abs(pair.difference))
    errors = [error_of(seen, pair) for pair in near[: (len(near) + 1) // 2]]
    known = [error for error in errors if error > 0]
    return float(np.median(known)) if known else None


def _roughness(seen: Seen, arm: str, reference: str, share: float) -> float:
    """`Pair.rough` of the first common seed; 0 with one evaluation."""
    common = [seed for seed in seen.seeds[arm] if seed in seen.seeds[reference]]
    if not common:
        return 0.0
    own, other = (seen.means[name, common[0]].curve for name in (arm, reference))
    shares = sorted(at for at in own.keys() & other.keys() if at <= share + SAME_SHARE)
    d_T = np.array([own[at] - other[at] for at in shares[-ROUGH_OVER:]])
    if len(d_T) < 3:
        return float(np.abs(np.diff(d_T)).sum()) / math.sqrt(2)
    return float(np.sqrt(np.square(np.diff(d_T, 2)).mean() / 6))


def _last_common(own: Iterable[Run], other: Iterable[Run]) -> float | None:
    """The last share that a run of each side has."""
    theirs = [run for run in other if run.curve]
    for share in sorted({share for run in own for share in run.curve}, reverse=True):
        if any(run.at(share) is not None for run in theirs):
            return share
    return None


def _difference(own: dict[int, float | None], other: dict[int, float | None]) -> float | None:
    """The mean difference on common seeds, else of all seeds; None where one side has nothing."""
    mine = {seed: value for seed, value in own.items() if value is not None}
    theirs = {seed: value for seed, value in other.items() if value is not None}
    if not mine or not theirs:
        return None
    common = sorted(mine.keys() & theirs.keys())
    sides = [[side[s] for s in common or sorted(side)] for side in (mine, theirs)]
    return sum(sides[0]) / len(sides[0]) - sum(sides[1]) / len(sides[1])


def _side(seen: Seen, arm: str, reference: str) -> tuple[Side, float]:
    if seen.schedules[arm] != seen.schedules[reference]:
        return "other", 0.0
    own, other = seen.rate(arm), seen.rate(reference)
    if not own or not other:
        return "same", 0.0
    distance = math.log10(own / other)
    if abs(distance) < math.log10(SAME_RATE):
        return "same", distance
    return ("above" if distance > 0 else "below"), distance
