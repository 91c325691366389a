"""Multiple comparison with the best: which arms may be the best, and how far behind each may be.

Arm i may be the best unless some arm is better than it by more than chance allows for all A - 1
comparisons of i at once (Hsu, Annals of Statistics 12, 1984, p. 1136). Whichever arm is truly the
best, it is compared with the others as a control with treatments (Dunnett, J. Am. Stat. Assoc. 50,
1955), so that no price is paid for having chosen the best by looking. In a second step, arms that
are shown to be worse than i no longer count among the comparisons of i (Romano, Shaikh and Wolf,
Econometrica 82, 2014, p. 1979).

Critical values are those of a multivariate t with the estimated correlations, simulated with a
fixed quasi-random sequence. A difference whose degrees of freedom are others than the common ones
enters as the t value of the common ones that has its p.

An arm of which it is unclear whether its runs spread more than the common ones (`seed_noise`) needs
its own, wide spread to rule others out, and can be ruled out by the common one: an arm that looks
good by luck must not win, and one of bad luck is no loss. Its own bounds are wide as well.

Values are turned so that lower is better. Array suffixes: A arms, B draws, J the other arms.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special, stats

from rankwise.analysis.quantiles import chi2_quantile, t_at_tail, t_quantile, t_tail
from rankwise.analysis.scores import Floats, Ints
from rankwise.analysis.variance import Components, Estimates, symmetric_root

DRAWS = 4096
# Draws are fewer for very many arms, so that draws x arms x arms stays below this.
MOST_WORK = 10_000_000
FEWEST_DRAWS = 512
# The share of a level that goes into finding out which comparisons do not matter.
FIRST_STEP = 0.1
MOST_PLANTED = 8
# An arm whose p is below this by Bonferroni's inequality is not simulated.
CLEAR = 1e-5
# Beyond so many arms the critical value of all pairs is Bonferroni's.
MOST_ARMS_IN_PAIRS = 200


@dataclass(frozen=True, eq=False)
class Contest:
    """All differences of arms as t values of common degrees of freedom, and their joint draws.

    value_AA  arm (row) minus arm (column); lower is better
    error_AA, df_AA  standard error and df, an unclear arm in the column with its own spread
    t_AA      value / error as a t value with `df` degrees of freedom
    both      the differences with the spread of both arms
    df        common degrees of freedom: the median of those of the differences
    z_BA      draws of the arms' errors, with the estimated covariance
    scale_B   draws of the estimated over the true standard error
    sd_AA     standard deviation of the difference of two columns of z_BA
    """

    value_AA: Floats
    error_AA: Floats
    df_AA: Floats
    t_AA: Floats
    both: Estimates
    df: float
    z_BA: Floats
    scale_B: Floats
    sd_AA: Floats


def contest(parts: Components, lower_is_better: bool) -> Contest:
    """The contest of the arms of `parts`, two or more; their noise must be known."""
    arms = len(parts.arms)
    pairs = parts.pairs(trusted_rows=True)
    value_AA = pairs.value if lower_is_better else -pairs.value
    off = ~np.eye(arms, dtype=bool)
    df = float(np.median(pairs.df[off]))
    cov_AA = parts.covariance(np.eye(arms) - 1 / arms)
    z_BA, scale_B = _draws(arms, df)
    z_BA = z_BA @ symmetric_root(cov_AA)
    diagonal_A = np.diagonal(cov_AA)
    sd_AA = np.sqrt(np.maximum(diagonal_A[:, None] + diagonal_A - 2 * cov_AA, 0.0))
    # Two arms without any noise between them: their draws are equal, and so is their difference.
    sd_AA[sd_AA <= 1e-9 * sd_AA.max()] = np.inf
    t_AA = _at_df(value_AA, pairs.error, pairs.df, df)
    both = parts.pairs()
    return Contest(value_AA, pairs.error, pairs.df, t_AA, both, df, z_BA, scale_B, sd_AA)


def _at_df(value: Floats, error: Floats, df: Floats, common: float) -> Floats:
    """value / error, as the t value with `common` degrees of freedom that has the same p."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(value == 0, 0.0, value / error)
    return np.sign(t) * _same_tail(np.abs(t), df, np.full(t.shape, common))


def _same_tail(t: Floats, df: Floats, other: Floats) -> Floats:
    """The t value, not negative, with `other` degrees of freedom whose tail is that with `df`."""
    moved = np.array(t)
    differ = ~(np.isclose(df, other) | ~np.isfinite(t))
    tail = t_tail(t[differ], df[differ])
    moved[differ] = t_at_tail(np.maximum(tail, 1e-300), other[differ])
    return moved


def _draws(arms: int, df: float) -> tuple[Floats, Floats]:
    """Standard normal draws (B, A), and draws (B,) of the root of chi-square / df."""
    z_BA, uniform_B = _sequence(arms)
    if np.isinf(df):
        return z_BA, np.ones(len(z_BA))
    return z_BA, np.sqrt(chi2_quantile(uniform_B, df) / df)


@cache
def _sequence(arms: int) -> tuple[Floats, Floats]:
    """Sobol's sequence, scrambled with a fixed seed: normal (B, A) and uniform (B,) numbers."""
    draws = 1 << int(np.log2(np.clip(MOST_WORK / arms**2, FEWEST_DRAWS, DRAWS)))
    rng = np.random.default_rng(arms)
    uniform = stats.qmc.Sobol(min(arms + 1, 512), rng=rng).random(draws)
    if arms + 1 > 512:
        uniform = np.hstack([uniform, rng.random((draws, arms - 511))])
    uniform = np.clip(uniform, 1e-12, 1 - 1e-12)
    return np.asarray(special.ndtri(uniform[:, 1:])), uniform[:, 0]


def _t_of(game: Contest, arm: int, other_J: Ints | None = None) -> Floats:
    """Draws of the t values of `arm` minus each other arm (B, J), where all are equal."""
    if other_J is None:
        other_J = _others(game, arm)
    z_BJ = game.z_BA[:, [arm]] - game.z_BA[:, other_J]
    z_BJ /= game.sd_AA[arm, other_J]
    z_BJ /= game.scale_B[:, None]
    return z_BJ


def _others(game: Contest, arm: int) -> Ints:
    return np.delete(np.arange(len(game.t_AA)), arm)


def p_best(game: Contest) -> Floats:
    """For each arm, the smallest level at which it is ruled out as the best (A,).

    The arms whose p is not below 5 % are the 95 % confidence set of the best.
    """
    arms = range(len(game.t_AA))
    return np.array([p_best_among(game, arm, _others(game, arm)) for arm in arms])


def p_best_among(game: Contest, arm: int, other_J: Ints) -> float:
    """The smallest level at which `arm` is ruled out as the best of itself and these others."""
    t_J = game.t_AA[arm, other_J]
    most = float(t_J.max(initial=-np.inf))
    alone = float(t_tail(most, game.df))
    bonferroni = len(t_J) * alone
    if most <= 0:
        return 1.0
    if len(t_J) == 1 or bonferroni < CLEAR:
        return bonferroni
    drawn_BJ = _t_of(game, arm, other_J)
    p = float((drawn_BJ.max(axis=1) >= most).mean())
    for _ in range(3):
        first = FIRST_STEP * max(p, alone)
        upper_J = t_J + t_at_tail(first / len(t_J), game.df)
        drawn = (drawn_BJ + np.minimum(upper_J, 0.0)).max(axis=1)
        p = min(p, float((drawn >= most).mean()) / (1 - FIRST_STEP))
    return min(max(p, alone), 1.0)


@dataclass(frozen=True, eq=False)
class Behind:
    """How far each arm is behind the truly best one: bounds that hold for all arms at once.

    value_A, low_A, high_A  at least 0; value_A is the distance from the best estimate
    """

    value_A: Floats
    low_A: Floats
    high_A: Floats


def behind_best(game: Contest, level: float = 0.95) -> Behind:
    """Bounds on the distance of every arm from the best, all of them right with `level`.

    If arm k is the best, the distance of i is that from k, and lies within the bounds of all
    differences from k (Dunnett, two-sided) with `level`. The bounds are the widest over all k that
    can be the best by the same bounds (Edwards and Hsu, J. Am. Stat. Assoc. 78, 1983, p. 965).
    """
    arms = len(game.t_AA)
    low_AA, high_AA = np.empty((arms, arms)), np.empty((arms, arms))
    for k in range(arms):
        half_A = _half(game.error_AA[k], game.df_AA[k], game.df, _two_sided(game, k, level))
        half_A[k] = 0.0
        low_AA[k], high_AA[k] = game.value_AA[:, k] - half_A, game.value_AA[:, k] + half_A
    possible = (high_AA >= 0).all(axis=1)
    return Behind(
        value_A=game.value_AA.max(axis=1),
        low_A=np.maximum(low_AA[possible].min(axis=0), 0.0),
        high_A=np.maximum(high_AA[possible].max(axis=0), 0.0),
    )


def _two_sided(game: Contest, arm: int, level: float) -> float:
    """Critical value of all differences from one arm, two-sided."""
    if len(game.t_AA) == 2:
        return float(t_quantile((1 + level) / 2, game.df))
    return float(np.quantile(np.abs(_t_of(game, arm)).max(axis=1), level))


def _half(error: Floats, df: Floats, common_df: float, critical: float) -> Floats:
    """Half widths at a critical value of the t with `common_df` degrees of freedom."""
    return error * _same_tail(np.full(df.shape, critical), np.full(df.shape, common_df), df)


def all_pairs(game: Contest, level: float = 0.95) -> tuple[Floats, Floats]:
    """Half widths (A, A) of all differences at once, and the adjusted p of each (A, A).

    Tukey's honest differences with the estimated covariance (Hochberg and Tamhane, Multiple
    Comparison Procedures, 1987, chapter 3); Bonferroni's with more than 200 arms.
    """
    arms, both = len(game.t_AA), game.both
    size_AA = np.abs(_at_df(both.value, both.error, both.df, game.df))
    p_AA = 2 * t_tail(size_AA, game.df)
    if arms == 2 or arms > MOST_ARMS_IN_PAIRS:
        pairs = arms * (arms - 1) // 2
        critical = float(t_at_tail((1 - level) / 2 / pairs, game.df))
        p_AA = np.minimum(p_AA * pairs, 1.0)
    else:
        most_B = np.sort(_most_of_all(game))
        critical = float(np.quantile(most_B, level))
        beaten = np.searchsorted(most_B, size_AA, side="left")
        p_AA = np.maximum(p_AA, 1 - beaten / len(most_B))
    half_AA = _half(both.error, both.df, game.df, critical)
    np.fill_diagonal(half_AA, 0.0)
    np.fill_diagonal(p_AA, 1.0)
    return half_AA, p_AA


def _most_of_all(game: Contest) -> Floats:
    """Draws (B,) of the largest t value of any pair, in size."""
    found = np.zeros(len(game.z_BA))
    for arm in range(len(game.t_AA) - 1):
        np.maximum(found, np.abs(_t_of(game, arm)).max(axis=1), out=found)
    return found


def detectable(game: Contest, level: float, power: float) -> tuple[float, float]:
    """By how much an arm must be better than all others to be alone at `level`, with `power`.

    Where its distance is d, every other arm i is ruled out if d >= critical value * estimated error
    of the difference - what chance adds to it; d is the `power` quantile, over the draws, of the
    most that any i asks for. The noise of this study is an estimate: each draw is divided by a
    further draw of estimated over true, which makes d a prediction for a study to come. The mean
    over the arms that might be that one, at most MOST_PLANTED of them.

    Also the critical value times the error of the difference that has the least: where two arms
    have little noise between them, differences from there on are significant.
    """
    arms = len(game.t_AA)
    planted = np.unique(np.linspace(0, arms - 1, min(arms, MOST_PLANTED)).round().astype(int))
    critical = float(np.median([_one_sided(game, int(arm), level) for arm in planted]))
    again_B = np.random.default_rng(0).permutation(game.scale_B)
    found = []
    for arm in planted:
        others = np.arange(arms) != arm
        chance_BJ = game.z_BA[:, others] - game.z_BA[:, [arm]]
        half_J = _half(game.error_AA[others, arm], game.df_AA[others, arm], game.df, critical)
        asked_B = (half_J * game.scale_B[:, None] - chance_BJ).max(axis=1) / again_B
        found.append(float(np.quantile(asked_B, power)))
    off = ~np.eye(arms, dtype=bool)
    half_AA = _half(game.error_AA, game.df_AA, game.df, critical)
    return float(np.mean(found)), float(half_AA[off].min())


def _one_sided(game: Contest, arm: int, level: float) -> float:
    """Critical value of all differences from one arm, one-sided, in one step."""
    if len(game.t_AA) == 2:
        return float(t_at_tail(level, game.df))
    return float(np.quantile(_t_of(game, arm).max(axis=1), 1 - level * (1 - FIRST_STEP)))
