"""The hierarchical model of arms by their settings: additive effects, and deviations from them.

The model: y = constant + h + g + e. h are additive effects of the settings, of numbers
a quadratic on their own scale, normal with variance m^2 H; g are deviations of combinations from
that, normal with variance t^2 K; e is the noise that `components` estimates, with its degrees of
freedom. K is one half what arms share that have two settings alike (products of similarities,
averaged over the pairs of factors) and one half each arm's own; numbers are alike by their distance
on the scale, other settings where they are equal. The sizes m and t are integrated over a grid, by
the restricted likelihood (Harville, J. Am. Stat. Assoc. 72, 1977, p. 320) and half-Cauchy priors
whose scale is the spread of the arms (Gelman, Bayesian Analysis 1, 2006, p. 515). Given them, arms
are predicted by best linear unbiased prediction (Robinson, Statistical Science 6, 1991, p. 15).
With a flat prior for h, the set of the best held it in 88 % of simulated studies with weak effects.

Array suffixes: A arms, N points (arms and others), P columns, G grid points, D draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from rankwise.analysis.factors import Factor, Factors, Settings, find_factors, on_scale, text_of
from rankwise.analysis.scores import Floats
from rankwise.analysis.variance import Components, symmetric_root

MOST_ARMS = 100
FEWEST_ARMS = 6
DRAWS = 4000
# Points of the grid: sizes of effects, sizes of deviations, scales of the noise.
GRID = (12, 16, 3)
# Numbers held at once while the grid is gone through.
MOST_NUMBERS = 2_000_000
# Coordinates of an arm, one a factor: a position on its scale, or a level of one without a scale.
Point = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """Effects' size m, deviations' size t, factor on the noise, log of the prior; (G,) each."""

    main_G: Floats
    size_G: Floats
    scale_G: Floats
    prior_G: Floats


@dataclass(frozen=True, eq=False)
class Posterior:
    """The log of each grid point's weight, and what predicts an arm from the others there.

    With P = V^-1 - V^-1 1 (1' V^-1 1)^-1 1' V^-1, own_GA is P_ii and off_GA is (P y)_i / P_ii^1/2:
    arm i minus its prediction from the others, over the standard deviation of that (Cook and
    Weisberg 1982, section 2.2).
    """

    log_G: Floats
    own_GA: Floats
    off_GA: Floats

    @property
    def weight_G(self) -> Floats:
        """Weights of the grid points."""
        return np.asarray(np.exp(self.log_G - special.logsumexp(self.log_G)))


@dataclass(frozen=True, eq=False)
class SmoothModel:
    """The model with its posterior.

    loss_A      fitted arms, lower is better
    cov_AA      covariance of their noise, up to a common shift
    """

    factors: Factors
    points: tuple[Point, ...]
    loss_A: Floats
    cov_AA: Floats
    grid: Grid
    posterior: Posterior


def smooth_model(
    parts: Components, settings: Mapping[str, Settings], lower_is_better: bool
) -> SmoothModel | None:
    """The model of the arms of `parts`; None where the noise is unknown or arms are too few."""
    factors = find_factors(parts.arms, settings)
    arms = len(parts.arms)
    if parts.claim == "nothing" or not factors.varied or not FEWEST_ARMS <= arms <= MOST_ARMS:
        return None
    centre_AA = np.eye(arms) - 1 / arms
    cov_AA = parts.covariance(centre_AA)
    shift = float(np.diagonal(cov_AA).mean())
    if shift <= 0:
        return None
    points = tuple(point_of(factors, settings[arm]) for arm in parts.arms)
    loss_A = parts.fitted_A if lower_is_better else -parts.fitted_A
    spread = float(loss_A.std()) or float(np.sqrt(shift))
    grid = grid_of(spread, float(np.median(parts.contrasts(centre_AA).df)))
    kernels = additive(factors, points, points), similarity(factors, points)
    posterior = posterior_of(grid, *kernels, loss_A, cov_AA + shift)
    return SmoothModel(factors, points, loss_A, cov_AA + shift, grid, posterior)


def point_of(factors: Factors, settings: Settings) -> Point:
    """The coordinates of settings; those of a factor without a scale must be a level of it.

    Raises ValueError for another level.
    """
    found = []
    for factor in factors.varied:
        value = settings.get(factor.settings[0])
        if numeric(factor):
            found.append(float(on_scale([float(str(value))], factor.scale)[0]))
        else:
            text = " / ".join(text_of(settings.get(name)) for name in factor.settings)
            found.append(float(factor.levels.index(text)))
    return tuple(found)


def numeric(factor: Factor) -> bool:
    """Whether a factor has a number at every level, so that values between them mean something."""
    return factor.values is not None and None not in factor.values


def additive(factors: Factors, arms: Sequence[Point], points: Sequence[Point]) -> Floats:
    """H (N, N) of the additive effects at these points; 1 on the diagonal on average over arms.

    The columns of a factor are centred and made orthogonal over the arms, so that each of its
    contrasts is as likely as any other.
    """
    total = np.zeros((len(points), len(points)))
    for n, factor in enumerate(factors.varied):
        raw_AP, raw_NP = (_columns(factor, [p[n] for p in at]) for at in (arms, points))
        middle_P = raw_AP.mean(axis=0)
        turn_PP = np.linalg.inv(np.linalg.qr(raw_AP - middle_P)[1])
        own_NP = (raw_NP - middle_P) @ turn_PP
        total += own_NP @ own_NP.T * len(arms) / raw_AP.shape[1]
    return total / len(factors.varied)


def _columns(factor: Factor, at: Sequence[float]) -> Floats:
    """Of a number its position and the square of it, of another setting one column a level."""
    if not numeric(factor):
        return np.eye(len(factor.levels))[np.array(at, dtype=np.intp)][:, 1:]
    x_L = factor.position_L
    z_N = (np.array(at, dtype=np.float64) - x_L[0]) / (x_L[-1] - x_L[0])
    return np.stack([z_N**power for power in range(1, min(3, len(x_L)))], axis=1)


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


def grid_of(spread: float, df: float) -> Grid:
    """Sizes with half-Cauchy priors, closer together near zero; scales at those of df / chi-square.

    A size stands for its part of the prior's probability, from (i / n)^2 to ((i + 1) / n)^2.
    """
    (main_M, first_M), (size_T, second_T) = (_sizes(spread, count) for count in GRID[:2])
    middle_S = (np.arange(GRID[2]) + 0.5) / GRID[2]
    scale_S = np.ones(1) if np.isinf(df) else df / stats.chi2.isf(middle_S, df)
    at = np.meshgrid(main_M, size_T, scale_S, indexing="ij")
    prior = np.log(first_M)[:, None, None] + np.log(second_T)[:, None] + np.zeros(len(scale_S))
    main_G, size_G, scale_G = (grid.ravel() for grid in at)
    return Grid(main_G, size_G, scale_G, prior.ravel())


def _sizes(spread: float, count: int) -> tuple[Floats, Floats]:
    edges = np.linspace(0, 1, count + 1) ** 2
    middle = (edges[1:] + edges[:-1]) / 2
    return stats.halfcauchy.ppf(middle, scale=spread), np.diff(edges)


def posterior_of(grid: Grid, h_AA: Floats, k_AA: Floats, y_A: Floats, cov_AA: Floats) -> Posterior:
    """Prior and restricted likelihood, whose log is -1/2 (log|V| + log 1'V^-1 1 + y'P y)."""
    log_G, own_GA, product_GA = (np.empty((len(grid.size_G), n)) for n in (1, len(y_A), len(y_A)))
    step = max(1, MOST_NUMBERS // len(y_A) ** 2)
    for some in (slice(at, at + step) for at in range(0, len(grid.size_G), step)):
        main, size = (x_G[some, None, None] ** 2 for x_G in (grid.main_G, grid.size_G))
        v_GAA = main * h_AA + size * k_AA + grid.scale_G[some, None, None] * cov_AA
        inverse_GAA = np.linalg.inv(v_GAA)
        sums_GA = inverse_GAA.sum(axis=2)
        total_G1 = sums_GA.sum(axis=1, keepdims=True)
        product_GA[some] = inverse_GAA @ y_A - sums_GA * (sums_GA @ y_A)[:, None] / total_G1
        own_GA[some] = np.diagonal(inverse_GAA, axis1=1, axis2=2) - sums_GA**2 / total_G1
        log_V = np.linalg.slogdet(v_GAA)[1][:, None]
        log_G[some] = -0.5 * (log_V + np.log(total_G1) + (product_GA[some] @ y_A)[:, None])
    return Posterior(grid.prior_G + log_G[:, 0], own_GA, product_GA / np.sqrt(own_GA))


def draw(model: SmoothModel, others: Sequence[Point] = ()) -> Floats:
    """Posterior draws (D, N) of the true losses of the arms and of other points, always the same.

    Ordinary kriging (Cressie, Statistics for Spatial Data, 1993, section 3.2).
    """
    every = [*model.points, *others]
    h_NN = additive(model.factors, model.points, every)
    k_NN = similarity(model.factors, every)
    rng = np.random.default_rng(0)
    found = []
    for g, count in enumerate(rng.multinomial(DRAWS, model.posterior.weight_G)):
        if count:
            g_NN = model.grid.main_G[g] ** 2 * h_NN + model.grid.size_G[g] ** 2 * k_NN
            noise_AA = model.grid.scale_G[g] * model.cov_AA
            mean_N, cov_NN = predict(g_NN, noise_AA, model.loss_A)
            z_DN = rng.standard_normal((count, len(every)))
            found.append(mean_N + z_DN @ symmetric_root(cov_NN))
    return np.vstack(found)


def predict(g_NN: Floats, noise_AA: Floats, y_A: Floats) -> tuple[Floats, Floats]:
    """Mean (N,) and covariance (N, N) of constant + effects, the first A of which were observed.

    g_NN is the prior covariance of the effects; the constant has a flat prior.
    """
    arms = len(y_A)
    inverse_AA = np.linalg.inv(g_NN[:arms, :arms] + noise_AA)
    g_NA, sums_A = g_NN[:, :arms], inverse_AA.sum(axis=1)
    constant = float(sums_A @ y_A / sums_A.sum())
    mean_N = constant + g_NA @ inverse_AA @ (y_A - constant)
    rest_N = 1 - g_NA @ sums_A
    cov_NN = g_NN - g_NA @ inverse_AA @ g_NA.T + np.outer(rest_N, rest_N) / sums_A.sum()
    return mean_N, cov_NN
