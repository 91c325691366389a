"""How much runs vary over seeds: the fit of arms and seeds, and which arms share one variance.

Seed noise is pooled over a family of arms. An arm, or several, whose runs spread more than those of
the rest make a family of their own. Array suffixes: A arms, S seeds, R finished runs, K numbers of
arms, B draws.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from rankwise.analysis.design import Design
from rankwise.analysis.quantiles import f_tail, t_quantile
from rankwise.analysis.scores import Floats, Ints

Family = Literal["common", "noisier", "unclear"]
FAMILY_LEVEL = 0.05
# Two runs of an arm of ten times the spread agree by chance in one study of five or more. Where the
# runs of an arm differ by as much as the p of this level, by its number of runs, it is unclear
# whether it is such an arm. Then its interval is ONLY_TWO times the standard error of its own runs
# (t with one degree of freedom has 12.7, for arms that were not picked), so that nine of ten such
# intervals hold the truth of an arm ten times noisier (docs/calibration.md).
UNCLEAR_LEVEL = {2: 0.25}
# Where some arms were found to be noisier, one more may be among the rest.
UNEQUAL_LEVEL = {3: 0.1}
ONLY_TWO = 9.5
NULL_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Pool:
    """Runs that share one variance: the mean square of their run means, its degrees of freedom.

    family  "common": most arms; "noisier": arms that spread significantly more; "unclear": one arm
            that may spread more, with a mean square that makes its interval wide enough
    arms    positions of its arms
    """

    mean_square: float
    df: float
    runs_R: Floats
    arms: tuple[int, ...]
    family: Family


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of each arm: sum of squares about its mean, runs, and what it says of the seeds' effects.

    The normal equations of the seeds, arms eliminated, are n_SS @ effects = b_S, summed over arms.
    """

    square_A: Floats
    runs_A: Ints
    n_ASS: Floats
    b_AS: Floats


def seed_pools(arm_R: Ints, seed_R: Ints, mean_R: Floats, design: Design) -> tuple[Pool, ...]:
    """The common pool, then those of arms whose runs spread more. Empty without a second run.

    Arms are sorted by their misfit and cut in two wherever F, the mean square of the noisier part
    over that of the rest, has the smallest p. That p is compared with its distribution in simulated
    studies of equal noise, as the cut was chosen by looking. The rest is then cut again.
    """
    if design.df < 1:
        return ()
    misfit_R = design.residuals(mean_R)
    order_A = np.argsort(np.bincount(arm_R, weights=misfit_R**2) / np.bincount(arm_R))
    sums = _sums_by_arm(arm_R, seed_R, mean_R, design.paired)
    noisier: list[Pool] = []
    while (quiet := _cut(sums, order_A, design.paired)) is not None:
        pools = _noisier(sums, order_A[:quiet], order_A[quiet:], arm_R, design.paired)
        own = [arm for pool in pools for arm in pool.arms]
        if not own:
            break
        noisier += pools
        order_A = order_A[~np.isin(order_A, own)]
    square, df = _misfit(sums, order_A, design.paired)
    common = _pool(square / df, df, order_A, arm_R, "common")
    level = UNCLEAR_LEVEL if not noisier else UNCLEAR_LEVEL | UNEQUAL_LEVEL
    return (*_with_unclear(common, sums, arm_R, design.paired, level), *noisier)


def _noisier(sums: _Sums, quiet_A: Ints, noisy_A: Ints, arm_R: Ints, paired: bool) -> list[Pool]:
    """The noisier arms as one family; each for itself where its two runs are all there is of it.

    Of two arms that are cut off together one may be an ordinary one, and would halve the other's
    spread at more than one degree of freedom.
    """
    alone = [noisy_A[n : n + 1] for n, arm in enumerate(noisy_A) if sums.runs_A[arm] == 2]
    families = [*alone, noisy_A[sums.runs_A[noisy_A] != 2]]
    base, base_df = _misfit(sums, quiet_A, paired)
    pools = []
    for arms in families:
        square, df = _misfit(sums, np.concatenate([quiet_A, arms]), paired)
        if df > base_df:
            mean_square = (square - base) / (df - base_df)
            pools.append(_pool(mean_square, df - base_df, arms, arm_R, "noisier"))
    return pools


def _pool(square: float, df: float, arms_A: Ints, arm_R: Ints, family: Family) -> Pool:
    runs_R = np.isin(arm_R, arms_A).astype(np.float64)
    return Pool(square, float(df), runs_R, tuple(sorted(int(a) for a in arms_A)), family)


def _sums_by_arm(arm_R: Ints, seed_R: Ints, mean_R: Floats, paired: bool) -> _Sums:
    """Without pairing there are no effects of seeds, of which there may be as many as runs."""
    runs_A = np.bincount(arm_R)
    off_R = mean_R - (np.bincount(arm_R, weights=mean_R) / runs_A)[arm_R]
    square_A: Floats = np.bincount(arm_R, weights=off_R**2).astype(np.float64)
    if not paired:
        none_A = np.empty((len(runs_A), 0))
        return _Sums(square_A, runs_A, none_A[:, :, None], none_A)
    seeds, seed_R = np.unique(seed_R, return_inverse=True)
    there_AS = np.zeros((len(runs_A), len(seeds)))
    there_AS[arm_R, seed_R] = 1
    b_AS = np.zeros(there_AS.shape)
    b_AS[arm_R, seed_R] = off_R
    shared_ASS = np.einsum("as,at->ast", there_AS, there_AS) / runs_A[:, None, None]
    n_ASS = there_AS[:, :, None] * np.eye(len(seeds)) - shared_ASS
    return _Sums(square_A, runs_A, n_ASS, b_AS)


def _misfits(sums: _Sums, order_A: Ints, paired: bool) -> tuple[Floats, Floats]:
    """Residual sum of squares and its df, of the first 1, 2, ... arms of `order_A`, each (A,)."""
    square_K = np.cumsum(sums.square_A[order_A])
    df_K = np.cumsum(sums.runs_A[order_A] - 1).astype(np.float64)
    if not paired:
        return square_K, df_K
    n_KSS, b_KS = np.cumsum(sums.n_ASS[order_A], axis=0), np.cumsum(sums.b_AS[order_A], axis=0)
    return _without_seeds(square_K, df_K, n_KSS, b_KS)


def _misfit(sums: _Sums, arms_A: Ints, paired: bool) -> tuple[float, float]:
    """Residual sum of squares of these arms, and its df."""
    square, df = float(sums.square_A[arms_A].sum()), float((sums.runs_A[arms_A] - 1).sum())
    if not paired:
        return square, df
    n_SS, b_S = sums.n_ASS[arms_A].sum(axis=0), sums.b_AS[arms_A].sum(axis=0)
    square_K, df_K = _without_seeds(np.array([square]), np.array([df]), n_SS[None], b_S[None])
    return float(square_K[0]), float(df_K[0])


def _without_seeds(
    square_K: Floats, df_K: Floats, n_KSS: Floats, b_KS: Floats
) -> tuple[Floats, Floats]:
    """Sums of squares and df once the seeds' effects are fitted as well."""
    explained_K = np.einsum(
        "ks,kst,kt->k", b_KS, np.linalg.pinv(n_KSS, rcond=1e-9, hermitian=True), b_KS
    )
    rank_K = np.linalg.matrix_rank(n_KSS, tol=1e-9, hermitian=True)
    return np.maximum(square_K - explained_K, 0.0), df_K - rank_K


def _cut(sums: _Sums, order_A: Ints, paired: bool) -> int | None:
    """Number of arms in the quiet part; None where all arms may have equal noise."""
    square_K, df_K = _misfits(sums, order_A, paired)
    p_K = _p_of_cuts(square_K, df_K)
    if not len(p_K) or not np.isfinite(p_K).any():
        return None
    seeds = int(sums.runs_A[order_A].max())
    k = int(np.nanargmin(p_K))
    if p_K[k] >= _smallest_p(len(order_A), seeds, paired):
        return None
    return k + 1


def _p_of_cuts(square_K: Floats, df_K: Floats) -> Floats:
    """p of the F test of every cut; NaN where a part has no degree of freedom or nothing varies.

    What is left of the sum of squares in the quiet part is independent of what the noisier arms add
    (Cook and Weisberg, Residuals and Influence in Regression, 1982, section 3.6), so F is exact for
    a cut that is given. The last axis counts the arms.
    """
    quiet, quiet_df = square_K[..., :-1], df_K[..., :-1]
    added, added_df = square_K[..., -1:] - quiet, df_K[..., -1:] - quiet_df
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (added / added_df) / (quiet / quiet_df)
        known = (quiet_df >= 1) & (added_df >= 1) & (quiet > 1e-12 * square_K[..., -1:])
        return np.where(known, f_tail(ratio, added_df, quiet_df), np.nan)


@cache
def _smallest_p(arms: int, seeds: int, paired: bool) -> float:
    """The point below which the smallest p of all cuts lies in 5 % of studies of equal noise."""
    rng = np.random.default_rng([arms, seeds, paired])
    draws = max(200, min(NULL_DRAWS, 200_000 // arms))
    y_BAS = rng.standard_normal((draws, arms, seeds))
    y_BAS -= y_BAS.mean(axis=2, keepdims=True)
    off_BAS = y_BAS - y_BAS.mean(axis=1, keepdims=True) if paired else y_BAS
    order_BA = np.argsort((off_BAS**2).sum(axis=2), axis=1)
    y_BAS = np.take_along_axis(y_BAS, order_BA[:, :, None], axis=1)
    square_BA = np.cumsum((y_BAS**2).sum(axis=2), axis=1)
    k_A = np.arange(1, arms + 1)
    df_A = (k_A - paired) * (seeds - 1.0)
    if paired:
        square_BA -= (np.cumsum(y_BAS, axis=1) ** 2).sum(axis=2) / k_A
    p_BA = _p_of_cuts(square_BA, np.broadcast_to(df_A, square_BA.shape))
    known = np.isfinite(p_BA).any(axis=1)
    if not known.any():
        return 0.0
    return float(np.quantile(np.nanmin(p_BA[known], axis=1), FAMILY_LEVEL))


def _with_unclear(
    pool: Pool, sums: _Sums, arm_R: Ints, paired: bool, levels: dict[int, float]
) -> tuple[Pool, ...]:
    """A pool without its unclear arms, and those; their runs still count in its mean square."""
    arms = np.array(pool.arms, dtype=np.intp)
    found = []
    for arm in arms if len(arms) > 2 else ():
        level = levels.get(int(sums.runs_A[arm]), FAMILY_LEVEL)
        rest_square, rest_df = _misfit(sums, arms[arms != arm], paired)
        square, df = pool.mean_square * pool.df - rest_square, pool.df - rest_df
        if rest_df >= 1 and df >= 1 and rest_square > 0:
            p = float(f_tail(square / df / (rest_square / rest_df), df, rest_df))
            if p < level:
                own = ONLY_TWO if sums.runs_A[arm] == 2 else t_quantile(0.975, df)
                widening = max(float(own / t_quantile(0.975, pool.df)), 1.0)
                own_square = max(square / df * widening**2, pool.mean_square)
                found.append(_pool(own_square, pool.df, np.array([arm]), arm_R, "unclear"))
    rest = np.setdiff1d(arms, [one.arms[0] for one in found]).astype(np.intp)
    return (_pool(pool.mean_square, pool.df, rest, arm_R, pool.family), *found)
