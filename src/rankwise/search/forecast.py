"""Forecasts of where arms will end, from what they have shown and from recorded curves.

Within one schedule, arm i is compared in pairs with a reference R at the last share that both have:

    final difference = keep * difference at that share + drift,
    drift ~ t with scale^2 (absolute * unit)^2 + (relative * difference)^2 + (rough * roughness)^2.

The roughness is how much the difference jumps between evaluations. The numbers depend on the share
and on whether the learning rate of i is above, below or equal to that of R: a high rate looks bad
until the schedule decays. They come from recorded curves (`prior`). Drifts of arms whose learning
rates are near each other are alike, so the arms of this study that went to the end say what to
expect of the others, in size and in spread. The unit is the standard error over examples of a
difference in pairs, the middle one of the study.

Arms of other schedules are compared through the references of their schedules alone, with the wide
drift that comparisons across schedules have. Arms that did not start are predicted from their
settings (`unstarted`).

Array suffixes: A arms, B draws, K arms that went to the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rankwise.analysis.scores import Floats
from rankwise.analysis.variance import symmetric_root
from rankwise.search.pairs import Pair, few_groups, pair_of, reference_of, runs_of, unit_of
from rankwise.search.prior import PRIOR, Prior
from rankwise.search.seen import Schedule, Seen
from rankwise.search.unstarted import draw_unstarted

DRAWS = 1000
BOUND = 0.05
# Degrees of freedom of the t distribution of drifts.
DF = 4.0
# A known drift counts as at most so many standard deviations.
MOST_Z = 6.0
# Shares of a drift's variance: common to all arms beside one reference, and to learning rates that
# are near each other (in decades). The rest is each arm's own.
COMMON = 0.2
BY_RATE = 0.5
NEAR = 0.4


@dataclass(frozen=True)
class Forecast:
    """The forecast of every arm that may still count.

    leader      the arm of the best median forecast
    p           arm -> probability to end in the tie group of the full study
    distance    arm -> (5 %, 50 %, 95 %) of its final distance from the leader
    difference  arm -> arm minus leader at the last common share, where there is one
    margin      the distance up to which an arm counts as tied
    """

    leader: str
    p: Mapping[str, float]
    distance: Mapping[str, tuple[float, float, float]]
    difference: Mapping[str, float]
    margin: float


@lru_cache(maxsize=4)
def forecast(
    seen: Seen, tolerance: float = 0.0, planned: int = 3, prior: Prior = PRIOR
) -> Forecast | None:
    """The forecast from what was seen; None before two arms can be compared.

    Deterministic: the draws come from a fixed seed. The last few are kept.
    """
    live = [arm for arm in seen.arms if any(run.curve for run in runs_of(seen, arm).values())]
    if len(live) < 2:
        return None
    reference = reference_of(seen, live)
    pairs = _all_pairs(seen, live, reference)
    unit = unit_of(seen, (pair for _, pair in pairs.values()))
    if unit is None:
        return None
    rng = np.random.default_rng(0)
    final = _finals(seen, pairs, reference, Noise(unit, prior, planned), rng)
    for arm in seen.arms:
        if arm not in final and seen.seeds[arm]:
            final[arm] = np.full(DRAWS, np.inf)
    middle = prior.margin * unit * few_groups(seen)
    margin = max(tolerance, middle)
    final |= draw_unstarted(seen, final, margin, rng)
    widths_AB = prior.margin_spread * rng.standard_normal((len(final), DRAWS))
    margin_AB = np.maximum(tolerance, middle * np.exp(widths_AB))
    direct = {arm: pair.difference for arm, (_, pair) in pairs.items()}
    return _summary(final, direct, margin_AB)


@dataclass(frozen=True)
class Noise:
    """What chance adds: the unit, what recorded curves say of drifts, seeds of the full study."""

    unit: float
    prior: Prior
    planned: int

    def deviation(self, pair: Pair) -> tuple[float, float]:
        """Expected final difference and the standard deviation around it."""
        return self._from(pair, pair.share, pair.difference)

    def of_seeds(self, pair: Pair) -> tuple[float, float]:
        """Expected difference over all planned seeds of a finished arm, and the deviation from it.

        Recorded curves say it for one seed; with more, less is to come.
        """
        assert pair.final is not None
        middle, sd = self._from(pair, 1.0, pair.final)
        left = max(1 / pair.seeds - 1 / self.planned, 0.0) / (1 - 1 / self.planned)
        return pair.final + (middle - pair.final) * left, sd * float(np.sqrt(left))

    def _from(self, pair: Pair, share: float, difference: float) -> tuple[float, float]:
        drift = self.prior.at(share, pair.side)
        parts = (drift.absolute * self.unit, drift.relative * difference, drift.rough * pair.rough)
        return drift.keep * difference, float(np.linalg.norm(parts))


def _all_pairs(seen: Seen, live: Sequence[str], reference: str) -> dict[str, tuple[str, Pair]]:
    """Arm -> what it is compared with, and how: the best of its schedule, or the reference."""
    groups: dict[Schedule, list[str]] = {}
    for arm in live:
        groups.setdefault(seen.schedules[arm], []).append(arm)
    found = {}
    for schedule, arms in groups.items():
        own = reference if schedule == seen.schedules[reference] else reference_of(seen, arms)
        for arm in arms:
            other = reference if arm == own else own
            pair = pair_of(seen, arm, other) if arm != other else None
            if pair is not None:
                found[arm] = (other, pair)
    return found


def _finals(
    seen: Seen,
    pairs: Mapping[str, tuple[str, Pair]],
    reference: str,
    noise: Noise,
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """Draws of the final losses relative to the reference, by arm."""
    final = {reference: np.zeros(DRAWS)}
    waiting = dict(pairs)
    while waiting:
        ready = [arm for arm, (other, _) in waiting.items() if other in final]
        if not ready:
            break
        by_other: dict[str, list[Pair]] = {}
        for arm in ready:
            other, pair = waiting.pop(arm)
            by_other.setdefault(other, []).append(pair)
        for other, own in by_other.items():
            for arm, drawn_B in _draw(seen, other, own, noise, rng).items():
                final[arm] = final[other] + drawn_B
    return final


def _draw(
    seen: Seen, other: str, pairs: Sequence[Pair], noise: Noise, rng: np.random.Generator
) -> dict[str, Floats]:
    """Draws of the final differences from `other`, by arm."""
    found = {}
    done = [pair for pair in pairs if pair.final is not None]
    for pair in done:
        middle, sd = noise.of_seeds(pair)
        found[pair.arm] = middle + sd * _t_draws(rng)
    waiting: dict[float, list[Pair]] = {}
    for pair in pairs:
        if pair.final is None:
            waiting.setdefault(pair.share, []).append(pair)
    for share, own in waiting.items():
        earlier = [pair_of(seen, pair.arm, other, share) for pair in done]
        known = [
            (early, float(pair.final or 0.0))
            for early, pair in zip(earlier, done, strict=True)
            if early is not None
        ]
        found |= _conditional(own, known, noise, rng)
    return found


def _t_draws(rng: np.random.Generator) -> Floats:
    return rng.standard_normal(DRAWS) * np.sqrt(DF / rng.chisquare(DF, DRAWS))


def _conditional(
    pairs: Sequence[Pair],
    known: Sequence[tuple[Pair, float]],
    noise: Noise,
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """Draws of final differences, given those of arms that went to the end from the same share.

    A multivariate t: its conditional distribution has a wider spread, by as much as the known arms
    drifted more than expected, and as many degrees of freedom more as there are such arms (Ding,
    American Statistician 70, 2016, p. 293).
    """
    every = [*(pair for pair, _ in known), *pairs]
    middle_A, sd_A = np.array([noise.deviation(pair) for pair in every]).T
    cov_AA = _alike(every)
    k = len(known)
    z_K = np.clip((np.array([f for _, f in known]) - middle_A[:k]) / sd_A[:k], -MOST_Z, MOST_Z)
    weights_KA = np.linalg.solve(cov_AA[:k, :k], cov_AA[:k, k:])
    surprise = float(z_K @ np.linalg.solve(cov_AA[:k, :k], z_K)) if k else 0.0
    rest_AA = (cov_AA[k:, k:] - weights_KA.T @ cov_AA[:k, k:]) * (DF + surprise) / (DF + k)
    z_BA = rng.standard_normal((DRAWS, len(pairs))) @ symmetric_root(rest_AA)
    z_BA *= np.sqrt((DF + k) / rng.chisquare(DF + k, (DRAWS, 1)))
    drawn_BA = middle_A[k:] + sd_A[k:] * (z_K @ weights_KA + z_BA)
    return {pair.arm: drawn_BA[:, n] for n, pair in enumerate(pairs)}


def _alike(pairs: Sequence[Pair]) -> Floats:
    """Correlations (A, A) of drifts: of all arms, of near learning rates, of each arm alone."""
    rate_A = np.array([pair.distance for pair in pairs])
    near_AA = np.exp(-0.5 * ((rate_A[:, None] - rate_A) / NEAR) ** 2)
    alone = 1 - COMMON - BY_RATE
    return np.asarray(COMMON + BY_RATE * near_AA + alone * np.eye(len(pairs)))


def _summary(
    final: Mapping[str, Floats], difference: Mapping[str, float], margin_AB: Floats
) -> Forecast:
    final_AB = np.array(list(final.values()))
    best_B = final_AB.min(axis=0)
    p_A = (final_AB <= best_B + margin_AB).mean(axis=1)
    middle_A = np.median(final_AB, axis=1)
    leader = int(np.argmin(middle_A))
    distance_AB = final_AB - final_AB[leader]
    bounds_A = np.quantile(distance_AB, (BOUND, 0.5, 1 - BOUND), axis=1, method="higher").T
    names = list(final)
    return Forecast(
        leader=names[leader],
        p={arm: float(p) for arm, p in zip(names, p_A, strict=True)},
        distance={
            a: (float(q[0]), float(q[1]), float(q[2])) for a, q in zip(names, bounds_A, strict=True)
        },
        difference=difference,
        margin=float(np.median(margin_AB)),
    )
