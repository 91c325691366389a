"""How many runs a race will take, before it begins: drawn from what recorded curves say.

A drawn study has arms at distances like those of recorded problems. What an arm shows at a rung is
its final distance with the drift taken back, and the race stops arms by the rule of `race`. Arms
that would not be started at all are counted as if they ran to the first rung, so that the numbers
are rather too high. Array suffixes: D drawn studies, A arms, J rungs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rankwise.analysis.scores import Floats
from rankwise.search.prior import PRIOR, Prior
from rankwise.search.race import RaceRules, most_p
from rankwise.spec.models import EARLIEST_RUNG

STUDIES = 400
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Expected:
    """Full runs that a study takes: the median of drawn studies, and the 10 to 90 % range.

    race     of the race alone
    total    with the rounds of seeds, at most the budget
    ended    arms that reach their end
    """

    race: tuple[float, float, float]
    total: tuple[float, float, float]
    ended: tuple[float, float, float]


def expected_runs(
    arms: int,
    rungs: Sequence[float],
    rules: RaceRules,
    budget: float | None = None,
    prior: Prior = PRIOR,
    seed: int = 0,
) -> Expected:
    """The cost of a race of so many arms, which may be stopped at these shares. Deterministic.

    The rounds give each arm that is left one seed after the other up to `rules.most_seeds`: an
    upper bound, as they end where one arm is the winner.
    """
    rng = np.random.default_rng([seed, arms])
    final_DA = _finals(arms, prior, rng)
    running_DA = np.ones(final_DA.shape, dtype=bool)
    lost_D, cost_D, before = np.zeros(STUDIES), np.zeros(STUDIES), 0.0
    for share in sorted({*rungs, 1.0}):
        cost_D += running_DA.sum(axis=1) * (share - before)
        before = share
        p_DA = np.where(running_DA, _chances(final_DA, share, prior, rng), 0.0)
        ended_D = running_DA.sum(axis=1)
        most = most_p(share) if share >= EARLIEST_RUNG else -1.0
        stop_DA = _stops(p_DA, running_DA, lost_D, rules.level, most)
        audit_DA = rng.random(stop_DA.shape) < rules.audit
        lost_D += np.where(stop_DA, p_DA, 0.0).sum(axis=1)
        cost_D += (stop_DA & audit_DA).sum(axis=1) * (1 - share)
        running_DA &= ~stop_DA
    left_D = running_DA.sum(axis=1)
    total_D = cost_D + np.where(left_D > 1, left_D * (rules.most_seeds - 1), 0)
    if budget is not None:
        total_D = np.minimum(total_D, np.maximum(budget, cost_D))
    return Expected(_range(cost_D), _range(total_D), _range(ended_D))


def _finals(arms: int, prior: Prior, rng: np.random.Generator) -> Floats:
    """Final distances from the best (D, A), in units: quantiles of recorded problems."""
    at = np.linspace(0, 1, len(prior.distances))
    drawn_DA = np.interp(rng.random((STUDIES, arms)), at, prior.distances)
    return np.asarray(drawn_DA - drawn_DA.min(axis=1, keepdims=True))


def _chances(final_DA: Floats, share: float, prior: Prior, rng: np.random.Generator) -> Floats:
    """What the forecast says of each arm's chance to end in the tie group (D, A)."""
    drift = prior.at(share, "same")
    noise_DA = rng.standard_normal(final_DA.shape)
    sd_DA = np.hypot(drift.absolute, drift.relative * final_DA)
    forecast_DA = final_DA + sd_DA * noise_DA
    forecast_DA -= forecast_DA.min(axis=1, keepdims=True)
    spread_DA = np.hypot(sd_DA, prior.margin * prior.margin_spread)
    return np.asarray(special.ndtr((prior.margin - forecast_DA) / spread_DA))


def _stops(p_DA: Floats, running_DA: Bools, lost_D: Floats, level: float, most: float) -> Bools:
    """The arms of the smallest chances, as far as the level goes (D, A)."""
    most_D = level * (p_DA.sum(axis=1) + lost_D)
    asked_DA = np.where(running_DA, p_DA, np.inf)
    order_DA = np.argsort(asked_DA, axis=1)
    sorted_DA = np.take_along_axis(asked_DA, order_DA, axis=1)
    within_DA = (lost_D[:, None] + np.cumsum(sorted_DA, axis=1) <= most_D[:, None]) & (
        sorted_DA <= most
    )
    within_DA[:, -1] = False
    stop_DA = np.zeros(p_DA.shape, dtype=bool)
    np.put_along_axis(stop_DA, order_DA, within_DA, axis=1)
    return np.asarray(stop_DA & running_DA)


def _range(value_D: Floats) -> tuple[float, float, float]:
    low, middle, high = np.quantile(value_D, (0.1, 0.5, 0.9))
    return float(low), float(middle), float(high)
