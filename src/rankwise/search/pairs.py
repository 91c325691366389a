"""Two arms beside each other: same seeds, same share of the same schedule, same examples.

Array suffixes: E examples.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rankwise.analysis.scores import Floats
from rankwise.search.seen import Mean, Run, Seen, mean_of

# "above": the arm has a higher learning rate than the reference; "other": another schedule.
Side = Literal["below", "same", "above", "other"]
# Learning rates within this factor count as equal.
SAME_RATE = 1.05


@dataclass(frozen=True)
class Pair:
    """Arm minus reference at one share, the mean over common seeds.

    error     standard error over examples; NaN where unknown
    distance  decades from the reference's learning rate to the arm's; 0 where one is unknown
    paired    on common seeds; else the seeds of each
    final     arm minus reference once both are finished, else None
    seeds     finished seeds of the arm, where it is finished
    """

    arm: str
    share: float
    difference: float
    error: float
    side: Side
    distance: float
    paired: bool
    final: float | None
    seeds: int


def runs_of(seen: Seen, arm: str) -> dict[int, Run]:
    """The runs of an arm that did not diverge, by seed."""
    own = {seed: seen.runs[arm, seed] for seed in seen.seeds[arm]}
    return {seed: run for seed, run in own.items() if not run.diverged}


def reference_of(seen: Seen, arms: Sequence[str]) -> str:
    """The best of the arms that went farthest; the first of equal ones."""
    reached = {arm: max(run.reached for run in runs_of(seen, arm).values()) for arm in arms}
    far = max(reached.values())
    first = [arm for arm in arms if reached[arm] > far - 1e-3]
    return min(first, key=lambda arm: level_of(seen, arm, far))


def level_of(seen: Seen, arm: str, share: float) -> float:
    """The mean loss of an arm at a share, or of its result where the share is 1 and it finished."""
    found = []
    for run in runs_of(seen, arm).values():
        losses_E = run.result if run.finished and share > 1 - 1e-3 else run.at(share)
        if losses_E is not None:
            found.append(mean_of(losses_E, seen).value)
    return float(np.mean(found)) if found else math.inf


def pair_of(seen: Seen, arm: str, reference: str, share: float | None = None) -> Pair | None:
    """The pair at this share, else at the last share that both have; None where there is none."""
    own, other = runs_of(seen, arm), runs_of(seen, reference)
    if share is None:
        share = _last_common(own.values(), other.values())
    at = {seed: run.at(share) for seed, run in own.items()} if share else {}
    beside = {seed: run.at(share) for seed, run in other.items()} if share else {}
    found = _difference(seen, at, beside)
    if found is None or share is None:
        return None
    mean, paired = found
    ends = {seed: run.result for seed, run in own.items()}
    final = _difference(seen, ends, {seed: run.result for seed, run in other.items()})
    side, distance = _side(seen, arm, reference)
    return Pair(
        arm=arm,
        share=share,
        difference=mean.value,
        error=mean.error,
        side=side,
        distance=distance,
        paired=paired,
        final=None if final is None else final[0].value,
        seeds=sum(losses_E is not None for losses_E in ends.values()),
    )


def unit_of(pairs: Iterable[Pair]) -> float | None:
    """The standard error over examples of a difference: the median of the nearer half of pairs.

    None where no pair has one.
    """
    known = [p for p in pairs if math.isfinite(p.error) and p.error > 0]
    if not known:
        return None
    near = sorted(known, key=lambda pair: abs(pair.difference))[: (len(known) + 1) // 2]
    return float(np.median([pair.error for pair in near]))


def _last_common(own: Iterable[Run], other: Iterable[Run]) -> float | None:
    others = list(other)
    shares = [
        share
        for run in own
        for share in run.curve
        if any(one.at(share) is not None for one in others)
    ]
    return max(shares, default=None)


def _difference(
    seen: Seen, own: dict[int, Floats | None], other: dict[int, Floats | None]
) -> tuple[Mean, bool] | None:
    """The mean difference and whether it is on common seeds; None where one side has nothing."""
    mine = {seed: losses_E for seed, losses_E in own.items() if losses_E is not None}
    theirs = {seed: losses_E for seed, losses_E in other.items() if losses_E is not None}
    if not mine or not theirs:
        return None
    common = mine.keys() & theirs.keys()
    seeds, others = (common, common) if common else (mine.keys(), theirs.keys())
    losses_E = np.mean([mine[s] for s in sorted(seeds)], axis=0)
    losses_E = losses_E - np.mean([theirs[s] for s in sorted(others)], axis=0)
    return mean_of(losses_E, seen), bool(common)


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
