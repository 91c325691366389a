"""How settings act beyond one effect each: interactions of two, and the shape of an ordered one.

The shape of an ordered factor, such as the rank, is steady, saturating, turning, or not shown.
Array suffixes: A arms with a finished run, K contrasts of arms or steps between levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Literal

import numpy as np
from scipy import stats

from rankwise.analysis.comparisons import holm
from rankwise.analysis.effects import (
    LEVEL,
    TOLERANCE,
    Effects,
    Model,
    build_model,
    contrast_estimates,
    wald_p,
)
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


Kind = Literal[
    "saturating", "steady", "accelerating", "turning", "trend", "not shown", "cannot tell"
]


@dataclass(frozen=True)
class Step:
    """Gain from one level to the next; positive is better for every metric. 95 % interval.

    per_doubling  gain divided by log2(high / low); by (high - low) where a value is not positive
    p             two-sided, Holm over the steps
    """

    low: float
    high: float
    gain: float
    low_bound: float | None
    high_bound: float | None
    per_doubling: float
    p: float | None


@dataclass(frozen=True)
class Shape:
    """The shape of one ordered factor.

    kind   (significance of steps: Holm over steps, 5 %)
           "turning": one step is a significant gain and another a significant loss;
           "saturating": the first step is a significant gain, and the gain per doubling of the last
           step is significantly smaller: diminishing returns;
           "accelerating": the last step is a significant gain, and its gain per doubling is
           significantly larger than that of the first;
           "steady": every step is a significant gain (or every one a significant loss), and no
           change of the gain per doubling was found;
           "trend": only the difference of the two ends is significant;
           "not shown": none of these; "cannot tell": the noise is unknown
    drop   gain per doubling of the first step minus that of the last; None with two levels
    ends   gain from the lowest to the highest level
    """

    factor: str
    kind: Kind
    steps: tuple[Step, ...]
    drop: float | None
    drop_low: float | None
    drop_high: float | None
    ends: float
    ends_low: float | None
    ends_high: float | None


def shapes(
    parts: Components, settings: Mapping[str, Settings], effects: Effects
) -> tuple[Shape, ...]:
    """The shape of every ordered factor of three levels or more, if its steps can be separated."""
    model = build_model(find_factors(parts.arms, settings))
    found = []
    for n, factor in enumerate(model.factors.varied):
        levels = _ordered(factor)
        if len(levels) < 3 or factor.on_a_line:
            continue
        c_KP = np.array([model.contrast(n, low, high) for low, high in pairwise(levels)])
        if all(model.mixed_with(c_P, n) is None for c_P in c_KP):
            found.append(_shape(parts, model, effects, factor, levels, c_KP))
    return tuple(found)


def _ordered(factor: Factor) -> list[int]:
    """Levels that have a value, lowest first."""
    return [n for n, value in enumerate(factor.values or ()) if value is not None]


def _shape(
    parts: Components,
    model: Model,
    effects: Effects,
    factor: Factor,
    levels: list[int],
    c_KP: Floats,
) -> Shape:
    sign = -1.0 if effects.lower_is_better else 1.0
    x = [float((factor.values or ())[n] or 0.0) for n in levels]
    width_K = np.log2(np.divide(x[1:], x[:-1])) if min(x) > 0 else np.diff(x)
    c_KA = sign * c_KP @ model.inverse_PA
    drop_A = c_KA[0] / width_K[0] - c_KA[-1] / width_K[-1]
    rows = np.vstack([c_KA, drop_A, c_KA.sum(axis=0)])
    estimates = contrast_estimates(parts, model, rows, effects.basis)
    low, high = (_optional(bound) for bound in estimates.interval())
    p = _holm(estimates.p_value()[: len(c_KA)])
    steps = tuple(
        Step(x[k], x[k + 1], float(estimates.value[k]), low[k], high[k],
             float(estimates.value[k] / width_K[k]), p[k])
        for k in range(len(c_KA))
    )  # fmt: skip
    drop, ends = len(c_KA), len(c_KA) + 1
    return Shape(
        factor=factor.label,
        kind=_kind(steps, (low[drop], high[drop]), (low[ends], high[ends])),
        steps=steps,
        drop=float(estimates.value[drop]),
        drop_low=low[drop],
        drop_high=high[drop],
        ends=float(estimates.value[ends]),
        ends_low=low[ends],
        ends_high=high[ends],
    )


def _optional(bounds: Floats) -> list[float | None]:
    return [None if np.isnan(b) else float(b) for b in bounds]


def _holm(p_K: Floats) -> list[float | None]:
    if np.isnan(p_K).any():
        return [None] * len(p_K)
    return [float(p) for p in holm(p_K)]


def _kind(
    steps: tuple[Step, ...],
    drop: tuple[float | None, float | None],
    ends: tuple[float | None, float | None],
) -> Kind:
    sure = [_direction(step) for step in steps]
    if any(step.p is None for step in steps):
        return "cannot tell"
    if 1 in sure and -1 in sure:
        return "turning"
    if sure[0] == 1 and _sign(*drop) == 1:
        return "saturating"
    if sure[-1] == 1 and _sign(*drop) == -1:
        return "accelerating"
    if 0 not in sure:
        return "steady"
    return "trend" if _sign(*ends) else "not shown"


def _direction(step: Step) -> int:
    """1 for a significant gain, -1 for a loss, 0 for neither."""
    return int(np.sign(step.gain)) if step.p is not None and step.p < LEVEL else 0


def _sign(low: float | None, high: float | None) -> int:
    """1 if the interval is above zero, -1 if below, 0 if it holds zero or is unknown."""
    if low is None or high is None:
        return 0
    return int(low > 0) - int(high < 0)
