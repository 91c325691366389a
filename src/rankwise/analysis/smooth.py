"""A second estimate, if settings act smoothly: arms predicted from their settings.

It stands beside the verdict and never in its place: the verdict takes every arm for itself, this
one lets arms with like settings inform each other, which is right only as far as they are alike.

The hierarchical model: y = X b + g + e. X are additive effects of the settings (of numbers a
quadratic on their own scale) with a flat prior; g are deviations of combinations from that, normal
with variance t^2 K; e is the noise that `components` estimates, with its degrees of freedom. K is
one half what arms share that have two settings alike (products of similarities, averaged over the
pairs of factors) and one half each arm's own; numbers are alike by their distance on the scale,
other settings where they are equal. The size t of the deviations is integrated over a grid, with the
restricted likelihood (Harville, J. Am. Stat. Assoc. 72, 1977, p. 320) and a half-Cauchy prior whose
scale is the spread of the arms (Gelman, Bayesian Analysis 1, 2006, p. 515). Given t, arms are
predicted by best linear unbiased prediction (Robinson, Statistical Science 6, 1991, p. 15).

Array suffixes: A arms, N points (arms and others), P columns of X, G grid points, D draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, special, stats

from rankwise.analysis.factors import Factor, Factors, Settings, find_factors
from rankwise.analysis.scores import Floats
from rankwise.analysis.variance import Components

LEVEL = 0.05
MOST_ARMS = 150
# With fewer arms than columns and these, nothing estimates the size of the deviations.
SPARE = 3
DRAWS = 4000
SIZES = 30
NOISES = 5
# Coordinates of an arm, one a factor: a position on its scale, or a level of one without a scale.
Point = tuple[float, ...]


@dataclass(frozen=True)
class Prediction:
    """One arm, by its settings and its result: value, 95 % interval, probability to be the best.

    The interval is of its difference from the mean of all arms, added to that mean.
    """

    arm: str
    value: float
    low: float
    high: float
    p_best: float


@dataclass(frozen=True)
class Smooth:
    """What the arms show if settings act smoothly.

    deviation, deviation_low, deviation_high  standard deviation of combinations beyond additive
                effects, with its 95 % interval
    noise       standard error of the difference of two arms, the middle one
    predictions all arms, the best first
    best        the fewest arms that hold the best one with a probability of 95 %
    misfit_p    of the arm that fits worst when it is left out and predicted (Bonferroni over arms);
                below 5 % the model is refuted
    misfit_arm  that arm
    """

    deviation: float
    deviation_low: float
    deviation_high: float
    noise: float
    predictions: tuple[Prediction, ...]
    best: tuple[str, ...]
    misfit_p: float
    misfit_arm: str

    @property
    def refuted(self) -> bool:
        """Whether the arms contradict the model."""
        return self.misfit_p < LEVEL


@dataclass(frozen=True, eq=False)
class SmoothModel:
    """The model with its posterior over the size of deviations and the scale of the noise.

    loss_A      fitted arms, lower is better
    cov_AA      covariance of their noise, up to a common shift
    size_G, scale_G, log_G  t, factor on cov_AA, log of the posterior of each grid point
    free_AQ     contrasts of the arms that are free of X, turned so that they are independent
    var_GQ      their variances
    """

    factors: Factors
    points: tuple[Point, ...]
    loss_A: Floats
    cov_AA: Floats
    size_G: Floats
    scale_G: Floats
    log_G: Floats
    free_AQ: Floats
    var_GQ: Floats

    @property
    def weight_G(self) -> Floats:
        """Posterior weights of the grid points."""
        return np.asarray(np.exp(self.log_G - special.logsumexp(self.log_G)))


def smooth_model(
    parts: Components, settings: Mapping[str, Settings], lower_is_better: bool
) -> SmoothModel | None:
    """The model of the arms of `parts`; None where the noise is unknown or arms are too few."""
    factors = find_factors(parts.arms, settings)
    arms = len(parts.arms)
    if parts.claim == "nothing" or not factors.varied or arms > MOST_ARMS:
        return None
    points = tuple(_point(factors, a) for a in range(arms))
    x_AP = design(factors, points)
    if arms - int(np.linalg.matrix_rank(x_AP)) < SPARE:
        return None
    centre_AA = np.eye(arms) - 1 / arms
    cov_AA = parts.covariance(centre_AA)
    shift = float(np.diagonal(cov_AA).mean())
    if shift <= 0:
        return None
    df = float(np.median(parts.contrasts(centre_AA).df))
    loss_A = parts.fitted_A if lower_is_better else -parts.fitted_A
    cov_AA = cov_AA + shift
    spread = float(loss_A.std()) or float(np.sqrt(shift))
    size_G, scale_G = _grid(spread, df)
    free_AQ, ratio_Q = _free(x_AP, similarity(factors, points), cov_AA)
    var_GQ = scale_G[:, None] + size_G[:, None] ** 2 * ratio_Q
    log_G = -0.5 * (np.log(var_GQ) + (free_AQ.T @ loss_A) ** 2 / var_GQ).sum(axis=1)
    return SmoothModel(factors, points, loss_A, cov_AA, size_G, scale_G, log_G, free_AQ, var_GQ)


def _point(factors: Factors, arm: int) -> Point:
    return tuple(
        float(factor.position_L[factor.level_A[arm]]) if numeric(factor) else factor.level_A[arm]
        for factor in factors.varied
    )


def numeric(factor: Factor) -> bool:
    """Whether a factor has a number at every level, so that values between them mean something."""
    return factor.values is not None and None not in factor.values


def design(factors: Factors, points: Sequence[Point]) -> Floats:
    """The columns of additive effects (N, P) at these points, the constant first."""
    blocks = [np.ones((len(points), 1))]
    for n, factor in enumerate(factors.varied):
        at_N = np.array([point[n] for point in points], dtype=np.float64)
        if numeric(factor):
            x_L = factor.position_L
            z_N = (at_N - x_L[0]) / (x_L[-1] - x_L[0])
            powers = range(1, min(3, len(x_L)))
            blocks.append(np.stack([z_N**power for power in powers], axis=1))
        else:
            blocks.append(np.eye(len(factor.levels))[at_N.astype(np.intp)][:, 1:])
    return np.hstack(blocks)


def similarity(factors: Factors, points: Sequence[Point]) -> Floats:
    """K (N, N) of the deviations; 1 on the diagonal."""
    alike = [_alike(factor, [p[n] for p in points]) for n, factor in enumerate(factors.varied)]
    terms = [alike[a] * alike[b] for a in range(len(alike)) for b in range(a)]
    terms += [alike[n] for n, f in enumerate(factors.varied) if numeric(f) and len(f.levels) > 3]
    own = np.array([[one == two for two in points] for one in points], dtype=np.float64)
    return own if not terms else np.asarray((own + sum(terms) / len(terms)) / 2)


def _alike(factor: Factor, at: Sequence[float]) -> Floats:
    x_N = np.array(at, dtype=np.float64)
    if not numeric(factor):
        return np.asarray(x_N[:, None] == x_N, dtype=np.float64)
    half = (factor.position_L[-1] - factor.position_L[0]) / 2
    return np.asarray(np.exp(-0.5 * ((x_N[:, None] - x_N) / half) ** 2))


def _grid(spread: float, df: float) -> tuple[Floats, Floats]:
    """Sizes of deviations and scales of the noise (G,), at quantiles of their priors."""
    steps = (np.arange(SIZES) + 0.5) / SIZES
    size_T = spread * np.tan(np.pi / 2 * steps)
    steps = (np.arange(NOISES) + 0.5) / NOISES
    scale_S = np.ones(NOISES) if np.isinf(df) else df / stats.chi2.isf(steps, df)
    size_G, scale_G = (grid.ravel() for grid in np.meshgrid(size_T, scale_S, indexing="ij"))
    return size_G, scale_G


def _free(x_AP: Floats, k_AA: Floats, cov_AA: Floats) -> tuple[Floats, Floats]:
    """Contrasts (A, Q) free of X with noise of variance 1 and deviations of variance t^2 ratio_Q.

    Both are diagonal there, so that the restricted likelihood of a grid point is a sum.
    """
    free_AQ = np.linalg.svd(x_AP)[0][:, int(np.linalg.matrix_rank(x_AP)) :]
    ratio_Q, turn_QQ = linalg.eigh(free_AQ.T @ k_AA @ free_AQ, free_AQ.T @ cov_AA @ free_AQ)
    return free_AQ @ turn_QQ, np.maximum(ratio_Q, 0.0)


def draw(model: SmoothModel, others: Sequence[Point] = ()) -> Floats:
    """Posterior draws (D, N) of the true losses of the arms and of other points, always the same.

    Universal kriging (Cressie, Statistics for Spatial Data, 1993, eq. 3.4.59 and 3.4.62).
    """
    arms, every = len(model.points), [*model.points, *others]
    x_NP, k_NN = design(model.factors, every), similarity(model.factors, every)
    rng = np.random.default_rng(0)
    found = []
    for g, count in enumerate(rng.multinomial(DRAWS, model.weight_G)):
        if not count:
            continue
        g_NN = model.size_G[g] ** 2 * k_NN
        inverse_AA = np.linalg.inv(g_NN[:arms, :arms] + model.scale_G[g] * model.cov_AA)
        weighted_AP, g_NA = inverse_AA @ x_NP[:arms], g_NN[:, :arms]
        inverse_PP = np.linalg.pinv(x_NP[:arms].T @ weighted_AP, hermitian=True)
        b_P = inverse_PP @ weighted_AP.T @ model.loss_A
        mean_N = x_NP @ b_P + g_NA @ inverse_AA @ (model.loss_A - x_NP[:arms] @ b_P)
        rest_NP = x_NP - g_NA @ weighted_AP
        cov_NN = g_NN - g_NA @ inverse_AA @ g_NA.T + rest_NP @ inverse_PP @ rest_NP.T
        size_N, turn_NN = np.linalg.eigh(cov_NN)
        z_DN = rng.standard_normal((count, len(every)))
        found.append(mean_N + z_DN * np.sqrt(np.maximum(size_N, 0.0)) @ turn_NN.T)
    return np.vstack(found)


def smooth(model: SmoothModel, parts: Components, lower_is_better: bool) -> Smooth:
    """Predictions of all arms, the set of the best, and whether the arms contradict the model."""
    sign = 1.0 if lower_is_better else -1.0
    loss_DA = draw(model)
    level = float(model.loss_A.mean())
    relative_DA = loss_DA - loss_DA.mean(axis=1, keepdims=True) + level
    p_A = np.bincount(loss_DA.argmin(axis=1), minlength=len(parts.arms)) / len(loss_DA)
    value_A = relative_DA.mean(axis=0)
    low_A, high_A = np.sort(sign * np.quantile(relative_DA, (0.025, 0.975), axis=0), axis=0)
    order = np.argsort(-p_A, kind="stable")
    fewest = int(np.searchsorted(np.cumsum(p_A[order]), 1 - LEVEL)) + 1
    columns = (sign * value_A, low_A, high_A, p_A)
    predictions = tuple(
        Prediction(parts.arms[a], *(float(column[a]) for column in columns))
        for a in np.argsort(value_A, kind="stable")
    )
    p_misfit, worst = _misfit(model)
    off = ~np.eye(len(parts.arms), dtype=bool)
    size, low, high = _size(model)
    return Smooth(
        deviation=size,
        deviation_low=low,
        deviation_high=high,
        noise=float(np.median(parts.pairs().error[off])),
        predictions=predictions,
        best=tuple(parts.arms[a] for a in order[:fewest]),
        misfit_p=p_misfit,
        misfit_arm=parts.arms[worst],
    )


def _size(model: SmoothModel) -> tuple[float, float, float]:
    """Median and 95 % interval of the size of deviations."""
    order = np.argsort(model.size_G, kind="stable")
    share = np.cumsum(model.weight_G[order])
    at = np.minimum(np.searchsorted(share, (0.5, 0.025, 0.975)), len(order) - 1)
    middle, low, high = (float(size) for size in model.size_G[order][at])
    return middle, low, high


def _misfit(model: SmoothModel) -> tuple[float, int]:
    """p of the arm that is predicted worst by all others, times their number; and that arm.

    With P = V^-1 - V^-1 X (X' V^-1 X)^-1 X' V^-1, the result of arm i minus its prediction from the
    others is (P y)_i / P_ii, with variance 1 / P_ii (Cook and Weisberg 1982, section 2.2). The
    posterior of a grid point without the arm is the one with it over the density of that residual.
    """
    weight_AQ = model.free_AQ / model.var_GQ[:, None, :]
    own_GA = (weight_AQ * model.free_AQ).sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        off_GA = weight_AQ @ (model.free_AQ.T @ model.loss_A) / np.sqrt(own_GA)
    # An arm without which one of the effects is not determined is predicted by nothing.
    off_GA = np.where(own_GA > 1e-9 * own_GA.max(), off_GA, 0.0)
    log_GA = model.log_G[:, None] - 0.5 * np.log(np.maximum(own_GA, 1e-300)) + 0.5 * off_GA**2
    without_GA = np.exp(log_GA - special.logsumexp(log_GA, axis=0))
    p_A = (without_GA * 2 * stats.norm.sf(np.abs(off_GA))).sum(axis=0)
    worst = int(np.argmin(p_A))
    return float(min(1.0, p_A[worst] * len(p_A))), worst
