"""Arms that did not start, predicted from their settings and the forecasts of those that did.

The logarithm of the distance from the best (plus the margin, so that it is finite) is a Gaussian
process over the settings: arms that share learning rate, structure or schedule are alike, numbers
by their distance on a log scale. On this scale a rate that is bad for every structure is far
away whatever its distance is.

Array suffixes: A arms that started, N arms that did not, B draws.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from rankwise.analysis.factors import RATE_NAMES, Factor, Factors, find_factors
from rankwise.analysis.scores import Floats
from rankwise.analysis.variance import symmetric_root
from rankwise.search.seen import Seen

FEWEST_STARTED = 4
# Shares of the variance: the learning rate, each other setting alone, all together, the arm's own.
BY_RATE, BY_OTHERS, TOGETHER, OWN = 0.4, 0.1, 0.2, 0.3
# Distances in doublings over which a number's effect is alike.
NEAR = 1.5
# Standard deviation that is added to what the started arms show, on the log scale.
LEAST = 0.4


def draw_unstarted(
    seen: Seen, final: Mapping[str, Floats], margin: float, rng: np.random.Generator
) -> dict[str, Floats]:
    """Draws (B,) of the final losses of arms without a run, on the scale of `final`.

    Where little is known every such arm may be the best: with fewer than FEWEST_STARTED arms, or no
    setting that varies, all draws equal those of the best.
    """
    absent = [arm for arm in seen.arms if not seen.seeds[arm]]
    started = [arm for arm in seen.arms if arm in final]
    if not absent or not started:
        return {}
    final_AB = np.array([final[arm] for arm in started])
    best_B = final_AB.min(axis=0)
    if len(started) < FEWEST_STARTED or not all(arm in seen.settings for arm in seen.arms):
        return dict.fromkeys(absent, best_B)
    factors = find_factors([*started, *absent], seen.settings)
    if not factors.varied:
        return dict.fromkeys(absent, best_B)
    distance_AB = np.minimum(final_AB - best_B, 1e3 * margin)
    log_AB = np.log1p(distance_AB / margin)
    log_NB = _predicted(factors, len(started), log_AB, rng)
    drawn_NB = best_B + margin * np.expm1(np.clip(log_NB, -2.0, 7.0))
    return {arm: drawn_NB[n] for n, arm in enumerate(absent)}


def _predicted(factors: Factors, started: int, log_AB: Floats, rng: np.random.Generator) -> Floats:
    """Draws (N, B) on the log scale by kriging with the mean of the started arms."""
    k_XX = similarity(factors)
    middle_A, noise_A = log_AB.mean(axis=1), log_AB.var(axis=1) + LEAST**2
    size = max(float(middle_A.var()), 1.0)
    cov_AA = size * k_XX[:started, :started] + np.diag(noise_A)
    cov_AN = size * k_XX[:started, started:]
    weights_AN = np.linalg.solve(cov_AA, cov_AN)
    constant = float(middle_A.mean())
    mean_N = constant + weights_AN.T @ (middle_A - constant)
    cov_NN = size * k_XX[started:, started:] - weights_AN.T @ cov_AN
    return np.asarray(
        mean_N[:, None]
        + symmetric_root(cov_NN) @ rng.standard_normal((len(mean_N), log_AB.shape[1]))
    )


def similarity(factors: Factors) -> Floats:
    """Correlations (X, X) of the arms by their settings; 1 on the diagonal."""
    arms = len(factors.arms)
    alike = {factor.label: _alike_by(factor) for factor in factors.varied}
    rate = [alike[f.label] for f in factors.varied if _is_rate(f.settings)]
    others = [alike[f.label] for f in factors.varied if not _is_rate(f.settings)]
    together = np.prod(list(alike.values()), axis=0)
    parts: list[tuple[float, Floats]] = [(TOGETHER, together), (OWN, np.eye(arms))]
    if rate:
        parts.append((BY_RATE, rate[0]))
    if others:
        parts.append((BY_OTHERS, np.mean(others, axis=0)))
    total = sum(weight for weight, _ in parts)
    return np.asarray(sum(weight * part for weight, part in parts) / total)


def _is_rate(settings: Sequence[str]) -> bool:
    return any(name.rpartition(".")[2] in RATE_NAMES for name in settings)


def _alike_by(factor: Factor) -> Floats:
    at_A = np.array(factor.level_A)
    if factor.values is None or None in factor.values:
        return np.asarray(at_A[:, None] == at_A, dtype=np.float64)
    x_A = factor.position_L[at_A]
    return np.asarray(np.exp(-0.5 * ((x_A[:, None] - x_A) / NEAR) ** 2))
