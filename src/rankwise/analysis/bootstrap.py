"""A cross-check of the verdict's intervals that shares none of their assumptions.

Array suffixes: S seeds, G examples or groups of examples, B draws.
"""

from dataclasses import dataclass

import numpy as np

from rankwise.analysis.scores import Floats, Scores, finished_runs
from rankwise.errors import DataError


@dataclass(frozen=True)
class BootstrapInterval:
    """Arm minus other with the 2.5 and 97.5 % points of its bootstrap draws."""

    arm: str
    other: str
    value: float
    low: float
    high: float
    seeds: int


def bootstrap_against(
    scores: Scores, other: str, draws: int = 2000, seed: int = 0
) -> tuple[BootstrapInterval, ...]:
    """Every arm against `other`: seeds and examples are drawn again, each with replacement.

    The percentile bootstrap of a two-way layout (Owen, Annals of Applied Statistics 1, 2007, the
    "pigeonhole" bootstrap), on the seeds that both arms finished; arms that share none are left
    out. With few seeds it is too narrow (the variance of n drawn seeds is (n - 1)/n of the true
    one, and no t allows for that), so it checks the verdict's interval and does not replace it.

    Raises DataError without scores by example or where `other` has no finished run.
    """
    runs = finished_runs(scores)
    if runs.u_RG is None:
        raise DataError(f"{scores.metric}: the bootstrap needs scores by example")
    if other not in scores.arms or scores.arms.index(other) not in runs.arm_R:
        raise DataError(f"{scores.metric}: {other} has no finished run to compare with")
    reference = scores.arms.index(other)
    rng = np.random.default_rng(seed)
    groups = runs.u_RG.shape[1]
    weight_BG = rng.multinomial(groups, np.full(groups, 1 / groups), size=draws) / groups
    row = {
        (int(a), int(s)): r for r, (a, s) in enumerate(zip(runs.arm_R, runs.seed_R, strict=True))
    }
    intervals = []
    for a, arm in enumerate(scores.arms):
        shared = [s for s in range(len(scores.seeds)) if (a, s) in row and (reference, s) in row]
        if a == reference or not shared:
            continue
        d_SG = np.stack([runs.u_RG[row[a, s]] - runs.u_RG[row[reference, s]] for s in shared])
        low, high = _percentiles(d_SG, weight_BG, rng)
        value = float(d_SG.mean())
        intervals.append(BootstrapInterval(arm, other, value, low, high, len(shared)))
    return tuple(intervals)


def _percentiles(d_SG: Floats, weight_BG: Floats, rng: np.random.Generator) -> tuple[float, float]:
    seeds = len(d_SG)
    weight_BS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(weight_BG)) / seeds
    drawn_B = np.einsum("bs,bs->b", weight_BS, weight_BG @ d_SG.T)
    low, high = np.percentile(drawn_B, [2.5, 97.5])
    return float(low), float(high)
