"""Interactions of two settings, where the design determines them.

Array suffixes: A arms with a finished run, K contrasts of arms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats

from rankwise.analysis.comparisons import holm
from rankwise.analysis.effects import TOLERANCE, build_model, wald_p
from rankwise.analysis.factors import Factor, Settings, columns, find_factors
from rankwise.analysis.scores import Floats
from rankwise.analysis.variance import Components, Estimates

MOST_FACTORS = 8


@dataclass(frozen=True)
class Interaction:
    """How the effect of one factor changes with another, adjusted for all other pairs.

    value      of the largest difference of differences: (metric at level `high` - at the first
               level of `first`), at `other` minus at the first level of `second`
    low_bound, high_bound   its 95 % interval; None where the noise is unknown
    p          of the test that all differences of differences are zero; None likewise
    p_adjusted Holm over the interactions of the study
    """

    first: str
    second: str
    high: str
    other: str
    value: float
    low_bound: float | None
    high_bound: float | None
    p: float | None
    p_adjusted: float | None


@dataclass(frozen=True)
class Interactions:
    """Tested pairs of factors, and those that the arms do not determine."""

    tested: tuple[Interaction, ...]
    not_separable: tuple[tuple[str, str], ...]


def interactions(parts: Components, settings: Mapping[str, Settings]) -> Interactions:
    """Every pair of factors of `parts`, in a model with all pairs (a full two-way model).

    With two seeds or more the error is the noise of `components`; with one seed the residuals of
    the full two-way model; without residual degrees of freedom the examples alone, or nothing.
    """
    factors = find_factors(parts.arms, settings)
    varied = factors.varied
    pairs = list(combinations(range(len(varied)), 2))
    if not pairs or len(varied) > MOST_FACTORS:
        return Interactions((), tuple((varied[a].label, varied[b].label) for a, b in pairs))
    main = build_model(factors)
    blocks = [_products(varied[a], varied[b]) for a, b in pairs]
    full = np.hstack([main.design_AP, *blocks])
    inverse = np.linalg.pinv(full)
    rest = _left_over(parts, full, inverse)
    starts = np.cumsum([main.design_AP.shape[1], *(block.shape[1] for block in blocks)])
    found, missing = [], []
    for (a, b), start, end in zip(pairs, starts[:-1], starts[1:], strict=True):
        asked = np.eye(full.shape[1])[start:end]
        if np.abs(asked - asked @ inverse @ full).max() > TOLERANCE:
            missing.append((varied[a].label, varied[b].label))
        else:
            found.append(_interaction(parts, varied[a], varied[b], inverse[start:end], rest))
    return Interactions(_adjusted(found), tuple(missing))


def _products(a: Factor, b: Factor) -> Floats:
    left, right = columns(a), columns(b)
    return np.asarray(np.einsum("ap,aq->apq", left, right).reshape(len(left), -1))


def _left_over(parts: Components, full: Floats, inverse: Floats) -> tuple[float, int] | None:
    """Residual mean square and df of the full two-way model, if it is the error."""
    spare = len(full) - int(np.linalg.matrix_rank(full, tol=TOLERANCE))
    if parts.pools or spare < 1:
        return None
    off_A = parts.fitted_A - full @ (inverse @ parts.fitted_A)
    return float(off_A @ off_A) / spare, spare


def _interaction(
    parts: Components, a: Factor, b: Factor, c_KA: Floats, rest: tuple[float, int] | None
) -> Interaction:
    if rest is None:
        each, p = parts.contrasts(c_KA), wald_p(parts, c_KA)
    else:
        each, p = _by_rest(parts, c_KA, *rest)
    k = int(np.argmax(np.abs(each.value)))
    low, high = (float(bound[k]) for bound in each.interval())
    level_a, level_b = divmod(k, columns(b).shape[1])
    known = not np.isnan(low)
    return Interaction(
        first=a.label,
        second=b.label,
        high=a.levels[-1] if a.on_a_line else a.levels[level_a + 1],
        other=b.levels[-1] if b.on_a_line else b.levels[level_b + 1],
        value=float(each.value[k]),
        low_bound=low if known else None,
        high_bound=high if known else None,
        p=p if known else None,
        p_adjusted=None,
    )


def _by_rest(parts: Components, c_KA: Floats, square: float, df: int) -> tuple[Estimates, float]:
    value_K = c_KA @ parts.fitted_A
    cov_KK = c_KA @ c_KA.T
    error_K = np.sqrt(square * np.diagonal(cov_KK))
    f = float(value_K @ np.linalg.solve(cov_KK, value_K)) / len(c_KA) / square
    each = Estimates(value_K, error_K, np.full(len(c_KA), float(df)))
    return each, float(stats.f.sf(f, len(c_KA), df))


def _adjusted(found: list[Interaction]) -> tuple[Interaction, ...]:
    known = [one.p for one in found if one.p is not None]
    if not known:
        return tuple(found)
    adjusted = iter(holm(np.array(known)).tolist())
    return tuple(one if one.p is None else replace(one, p_adjusted=next(adjusted)) for one in found)
