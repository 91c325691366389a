"""Which configurations start, and in which order: first a spread-out few, then where it pays.

Array suffixes: A arms.
"""

from collections.abc import Sequence

import numpy as np

from rankwise.analysis.factors import find_factors
from rankwise.search.forecast import forecast
from rankwise.search.race import Decision, RaceRules
from rankwise.search.seen import Seen
from rankwise.search.unstarted import similarity

# Added to the diagonal, so that arms of equal settings do not make the matrix singular.
OWN_NOISE = 0.05


def spread_out(seen: Seen, first: Sequence[str] = ()) -> tuple[str, ...]:
    """All arms, each the one whose result is the least known from those before it.

    `first` come first (protected arms). The variance is that of a Gaussian process over the
    settings; equal ones keep the order of the study. Without settings the order is the study's.
    """
    arms = seen.arms
    order = [arm for arm in arms if arm in first]
    factors = find_factors(arms, seen.settings) if all(a in seen.settings for a in arms) else None
    if factors is None or not factors.varied:
        return (*order, *(arm for arm in arms if arm not in order))
    k_AA = similarity(factors)
    while len(order) < len(arms):
        left = [arm for arm in arms if arm not in order]
        order.append(max(left, key=lambda arm: _unknown(k_AA, arms, order, arm)))
    return tuple(order)


def _unknown(k_AA: np.ndarray, arms: Sequence[str], order: Sequence[str], arm: str) -> float:
    """Variance of an arm given those before it, rounded so that equal ones are equal."""
    at, known = arms.index(arm), [arms.index(one) for one in order]
    if not known:
        return float(k_AA[at].sum().round(9))
    k_KK = k_AA[np.ix_(known, known)] + OWN_NOISE * np.eye(len(known))
    return float(
        np.round(k_AA[at, at] - k_AA[at, known] @ np.linalg.solve(k_KK, k_AA[known, at]), 9)
    )


def next_starts(
    seen: Seen, rules: RaceRules, count: int, earlier: Sequence[Decision] = ()
) -> tuple[str, ...]:
    """The arms to start next, at most `count`: the most promising, once something is known.

    Arms that `earlier` ruled out are left out; protected ones come first.
    """
    out = {one.arm for one in earlier if one.stop}
    found = forecast(seen, rules.tolerance, rules.planned)
    order = seen.arms if found is not None else spread_out(seen, sorted(rules.protect))
    absent = [arm for arm in order if not seen.seeds[arm] and arm not in out]
    if found is not None:
        p = found.p
        absent.sort(key=lambda arm: (arm not in rules.protect, -p.get(arm, 1.0)))
    return tuple(absent[:count])
