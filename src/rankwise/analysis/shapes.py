"""The shape of numeric settings: does one matter, does it saturate, is its best value inside?

A step is measured on the setting's scale (`Factor.scale`): a doubling of the learning rate or of
the rank. Array suffixes: A arms with a finished run, K steps between levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from rankwise.analysis.additive import LEVEL, Basis, Errors, Model, asked_contrasts, build_model
from rankwise.analysis.comparisons import at_once, bonferroni, holm
from rankwise.analysis.curvature import Optimum, find_optimum
from rankwise.analysis.effects import Effects
from rankwise.analysis.factors import Factor, Scale, Settings, find_factors, middle_level, on_scale
from rankwise.analysis.scores import Floats
from rankwise.analysis.variance import Components

Kind = Literal[
    "saturating", "steady", "accelerating", "turning", "trend", "some", "not shown", "cannot tell"
]


@dataclass(frozen=True)
class Step:
    """Gain from one level to the next; positive is better for every metric.

    per_doubling  gain divided by log2(high / low); by (high - low) where a value is not positive
    low_bound, high_bound   interval; all steps at once at 95 % (Bonferroni)
    p             two-sided, times the number of steps
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
    """The shape of one numeric factor of three values or more, averaged over the others.

    kind   "not shown" where the test over all steps is not significant (Holm over the factors),
           "cannot tell" where the noise is unknown; else (steps: all of them together, 5 %)
           "turning": the best value is inside the range, or one step is a significant gain and
           another a significant loss;
           "saturating": the first step is a significant gain, and the gain per doubling of the last
           step is significantly smaller: diminishing returns;
           "accelerating": the last step is a significant gain, and its gain per doubling is
           significantly larger than that of the first;
           "steady": every step is a significant gain (or every one a significant loss), and no
           change of the gain per doubling was found;
           "trend": only the difference of the two ends is significant; "some": none of these
    scale  a gain per doubling on the "log" scale, per unit on the "linear" one
    steps  between neighbouring levels; where values rarely repeat, between lowest, middle, highest
    p      of the test that no step changes anything (F); None where the noise is unknown
    p_adjusted  Holm over the factors
    drop   gain per doubling of the first step minus that of the last
    ends   gain from the lowest to the highest level
    """

    factor: str
    scale: Scale
    kind: Kind
    steps: tuple[Step, ...]
    p: float | None
    p_adjusted: float | None
    drop: float
    drop_low: float | None
    drop_high: float | None
    ends: float
    ends_low: float | None
    ends_high: float | None
    optimum: Optimum


def shapes(
    parts: Components, settings: Mapping[str, Settings], effects: Effects
) -> tuple[Shape, ...]:
    """The shape of every numeric factor of three values or more, if its steps can be separated."""
    model = build_model(find_factors(parts.arms, settings))
    found = []
    for n, factor in enumerate(model.factors.varied):
        levels = _ordered(factor)
        if len(levels) > 2:
            shape = _shape(parts, model, effects, n, levels)
            found += [] if shape is None else [shape]
    known = [shape.p for shape in found if shape.p is not None]
    adjusted = iter(holm(np.array(known)).tolist() if known else [])
    return tuple(shape if shape.p is None else _gated(shape, next(adjusted)) for shape in found)


def _over_arms(errors: Errors, factor: Factor, sign: float) -> Optimum:
    """The best value where nothing else varies: every level stands for itself, without a curve."""
    level_LA = np.eye(len(factor.levels))[:, list(factor.level_A)]
    level_LA /= level_LA.sum(axis=1, keepdims=True)
    values = tuple(float(value or 0.0) for value in factor.values or ())
    return find_optimum(errors, factor.scale, values, level_LA, sign)


def _gated(shape: Shape, p_adjusted: float) -> Shape:
    """With its adjusted p; without one that is significant, nothing else is claimed."""
    kind = shape.kind if p_adjusted < LEVEL else "not shown"
    return replace(shape, kind=kind, p_adjusted=p_adjusted)


def _ordered(factor: Factor) -> list[int]:
    """Levels that have a value, lowest first; of a quadratic its ends and the middle."""
    if factor.degree == 1:
        return []
    if factor.degree == 2:
        return [0, middle_level(factor), len(factor.levels) - 1]
    return [n for n, value in enumerate(factor.values or ()) if value is not None]


def _shape(
    parts: Components, model: Model, effects: Effects, n: int, levels: list[int]
) -> Shape | None:
    asked = [(n, low, high) for low, high in pairwise(levels)]
    found = asked_contrasts(parts, model, asked, effects.basis)
    if any(mixed is not None for mixed in found.mixed):
        return None
    factor = model.factors.varied[n]
    sign = 1.0 if effects.lower_is_better else -1.0
    values = [float((factor.values or ())[level] or 0.0) for level in levels]
    basis: Basis = effects.basis if effects.basis in found.basis else "noise"
    errors = Errors(parts, basis, model.design_AP)
    gain_KA = -sign * found.c_KA
    level_LA = np.vstack([np.zeros(len(parts.arms)), np.cumsum(found.c_KA, axis=0)])
    optimum = find_optimum(errors, factor.scale, values, level_LA, sign)
    if factor.degree:
        alone = len(model.factors.varied) == 1
        # Beside other settings no value stands for itself: all that is known is the curve.
        optimum = (
            _over_arms(errors, factor, sign) if alone else replace(optimum, above=None, below=None)
        )
    width_K = np.diff(on_scale(values, factor.scale))
    drop_A = gain_KA[0] / width_K[0] - gain_KA[-1] / width_K[-1]
    estimates = errors.estimates(np.vstack([gain_KA, drop_A, gain_KA.sum(axis=0)]))
    low, high = (_optional(bound) for bound in estimates.interval())
    each = [_optional(bound) for bound in estimates.interval(at_once(len(asked)))]
    p_K = _optional(bonferroni(estimates.p_value()[: len(asked)]))
    steps = tuple(
        Step(values[k], values[k + 1], float(estimates.value[k]), each[0][k], each[1][k],
             float(estimates.value[k] / width_K[k]), p_K[k])
        for k in range(len(asked))
    )  # fmt: skip
    known = low[0] is not None
    return Shape(
        factor=factor.label,
        scale=factor.scale,
        kind=_kind(steps, (low[-2], high[-2]), (low[-1], high[-1]), optimum),
        steps=steps,
        p=errors.wald_p(gain_KA) if known else None,
        p_adjusted=None,
        drop=float(estimates.value[-2]),
        drop_low=low[-2],
        drop_high=high[-2],
        ends=float(estimates.value[-1]),
        ends_low=low[-1],
        ends_high=high[-1],
        optimum=optimum,
    )


def _optional(bounds: Floats) -> list[float | None]:
    return [None if np.isnan(b) else float(b) for b in bounds]


def _kind(
    steps: tuple[Step, ...],
    drop: tuple[float | None, float | None],
    ends: tuple[float | None, float | None],
    optimum: Optimum,
) -> Kind:
    sure = [_direction(step) for step in steps]
    if any(step.p is None for step in steps):
        return "cannot tell"
    if optimum.place == "inside" or {1, -1} <= set(sure):
        return "turning"
    if sure[0] == 1 and _sign(*drop) == 1:
        return "saturating"
    if sure[-1] == 1 and _sign(*drop) == -1:
        return "accelerating"
    if 0 not in sure:
        return "steady"
    return "trend" if _sign(*ends) else "some"


def _direction(step: Step) -> int:
    """1 for a significant gain, -1 for a loss, 0 for neither."""
    return int(np.sign(step.gain)) if step.p is not None and step.p < LEVEL else 0


def _sign(low: float | None, high: float | None) -> int:
    """1 if the interval is above zero, -1 if below, 0 if it holds zero or is unknown."""
    if low is None or high is None:
        return 0
    return int(low > 0) - int(high < 0)
