"""The mean of one arm and its interval, and the noise floor of the study.

Array suffixes: A arms with a finished run, R finished runs, G examples or groups of examples.
"""

from dataclasses import dataclass

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from rankwise.analysis.clusters import spread_of_groups
from rankwise.analysis.quantiles import chi2_quantile, t_quantile
from rankwise.analysis.scores import Floats, Ints, Scores
from rankwise.analysis.seed_noise import Pool
from rankwise.analysis.variance import Components


@dataclass(frozen=True)
class NoiseFloor:
    """Standard deviation of one arm over its seeds, pooled over the arms that are not unstable.

    within   one arm run again with another seed, on the same examples
    low, high  its 95 % interval (chi-square with `df` degrees of freedom)
    paired   the same for comparisons at the same seed, of one arm
    """

    within: float
    low: float
    high: float
    df: float
    paired: float


def noise_floor(parts: Components) -> NoiseFloor | None:
    """The noise floor, or None where no arm has a second seed."""
    if not parts.pools:
        return None
    pool = parts.pools[0]
    square, df = _seed_noise(parts, pool)
    within = float(np.sqrt(square))
    low, high = within * np.sqrt(df / chi2_quantile([0.975, 0.025], df))
    return NoiseFloor(within, float(low), float(high), df, float(np.sqrt(pool.mean_square)))


def spreads(parts: Components) -> Floats:
    """Standard deviation of each arm over its seeds (A,), NaN for an arm with one."""
    off_R = parts.runs.mean_R - parts.mean_A[parts.runs.arm_R]
    squares_A = np.bincount(parts.runs.arm_R, weights=off_R**2, minlength=len(parts.arms))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt(squares_A / (parts.seeds_A - 1.0)))


def mean_intervals(scores: Scores, parts: Components) -> tuple[Floats, Floats]:
    """95 % bounds (A,) of the plain mean of each arm; NaN where the noise is unknown.

    variance = seeds + examples - residual as for a difference, but including the effects of seeds
    and examples that all arms share. One seed and scores of 0 and 1: Wilson's interval (J. Am.
    Stat. Assoc. 22, 1927), by statsmodels.
    """
    if parts.claim == "nothing":
        return np.full(len(parts.arms), np.nan), np.full(len(parts.arms), np.nan)
    if parts.claim == "examples" and _is_share(scores, parts):
        hits_A = parts.mean_A * parts.examples
        low_A, high_A = proportion_confint(hits_A, parts.examples, 0.05, method="wilson")
        return np.asarray(low_A), np.asarray(high_A)
    seed_A, residual_A, seed_df_A = _seed_parts(parts)
    known_A, example_df, residual = _example_parts(parts)
    variance_A = np.maximum(known_A, seed_A + known_A - residual * residual_A)
    spread_A = seed_A**2 / seed_df_A + known_A**2 / example_df
    with np.errstate(divide="ignore", invalid="ignore"):
        df_A = np.where(spread_A > 0, variance_A**2 / spread_A, np.inf)
    df_A = np.maximum(df_A, np.minimum(seed_df_A, example_df))
    half_A = t_quantile(0.975, df_A) * np.sqrt(variance_A)
    return parts.mean_A - half_A, parts.mean_A + half_A


def _is_share(scores: Scores, parts: Components) -> bool:
    plain = scores.groups_E is None and scores.weights_E is None
    one_each = bool(np.all(parts.seeds_A == 1))
    return one_each and plain and (parts.runs.binary or scores.test_size is not None)


def _seed_noise(parts: Components, pool: Pool) -> tuple[float, float]:
    """Mean square of runs within the arms of a pool, and its df.

    It is the sum of the seed effect common to all arms and of arm by seed; the first has few
    degrees of freedom (seeds - 1), so the df is Satterthwaite's.
    """
    in_R = pool.runs_R > 0
    if pool.family == "common":  # its mean square rests on the runs of the unclear arms as well
        for other in parts.pools:
            in_R = in_R | ((other.runs_R > 0) & (other.family == "unclear"))
    arm_R = parts.runs.arm_R[in_R]
    off_R = parts.runs.mean_R[in_R] - parts.mean_A[arm_R]
    total, df = float(off_R @ off_R), len(arm_R) - len(np.unique(arm_R))
    own = pool.mean_square * pool.df
    if pool.family != "common":
        # Their runs may agree by chance although their misfit to the blocks is large.
        return max(total / df, pool.mean_square), pool.df
    shared, shared_df = max(total - own, 0.0), df - pool.df
    spread = own**2 / pool.df + (shared**2 / shared_df if shared_df > 0 else 0.0)
    return total / df, total**2 / spread if total > 0 and spread > 0 else float(df)


def _seed_parts(parts: Components) -> tuple[Floats, Floats, Floats]:
    """Of each arm: seed variance of its mean, 1 / its seeds, df; an unstable arm by itself."""
    share_A = np.zeros(len(parts.arms))
    seed_A = np.zeros(len(parts.arms))
    df_A = np.full(len(parts.arms), np.inf)
    for pool in parts.pools:
        square, df = _seed_noise(parts, pool)
        in_A: Ints = np.unique(parts.runs.arm_R[pool.runs_R > 0])
        share_A[in_A] = 1 / parts.seeds_A[in_A]
        seed_A[in_A], df_A[in_A] = square * share_A[in_A], df
    return seed_A, share_A, df_A


def _example_parts(parts: Components) -> tuple[Floats, float, float]:
    """Variance of each plain mean over examples (A,), its df, and the residual of a run mean."""
    if parts.runs.u_RG is None:
        known = parts.example_AA
        known_A = np.zeros(len(parts.arms)) if known is None else np.diagonal(known)
        return known_A, np.inf, 0.0
    u_RG, arm_R = parts.runs.u_RG, parts.runs.arm_R
    groups = u_RG.shape[1]
    if groups < 2:
        return np.zeros(len(parts.arms)), np.inf, 0.0
    mean_AR = np.eye(len(parts.arms))[arm_R].T / parts.seeds_A[:, None]
    s_AG = mean_AR @ u_RG / groups
    s_AG -= s_AG.mean(axis=1, keepdims=True)
    factor, example_df = spread_of_groups(parts.runs.share_G, s_AG)
    known_A = factor * (s_AG**2).sum(axis=1)
    if parts.runs.binary:
        known_A = known_A + 1 / groups**2
    df = len(arm_R) - len(parts.arms)
    if df < 1:
        return known_A, example_df, 0.0
    rest_RG = u_RG / groups - s_AG[arm_R]
    rest_RG -= rest_RG.mean(axis=1, keepdims=True)
    return known_A, example_df, factor * float(np.einsum("rg,rg->", rest_RG, rest_RG)) / df
