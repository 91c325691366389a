"""The best value of a numeric setting, on its own scale, with an interval.

The learning rate and the rank act by their ratio, so a step is a doubling; see `Factor.scale`.

Two statements, apart. Without a model: the best value lies between the last level below and the
first level above that are ruled out, which holds if there is one lowest point. With one: the lowest
point of a quadratic through the levels, with the interval of Fieller (J. R. Stat. Soc. B 16, 1954,
p. 175): all values at which the slope does not differ significantly from zero; it is bounded
exactly where the curvature is significant. Only the first decides anything: losses rise faster
above the best learning rate than below it, and on such curves Fieller's interval holds the best
value in less than half of simulated studies, although a test of fit seldom objects.

Array suffixes: A arms with a finished run, L levels, K contrasts of arms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rankwise.analysis.additive import LEVEL, Errors
from rankwise.analysis.factors import (
    Scale,
    on_scale,
)
from rankwise.analysis.quantiles import t_at_tail
from rankwise.analysis.scores import Floats
from rankwise.analysis.variance import Estimates

Place = Literal["inside", "at the lowest", "at the highest", "open"]


@dataclass(frozen=True)
class Optimum:
    """Where a numeric setting is best, in its own unit.

    place       "inside": lowest and highest value tried are both ruled out; "at the lowest", "at
                the highest": that value is better than all others, so a better one may lie outside;
                "open": neither
    candidates  the levels that may be the best one (95 %)
    above, below  the best value lies between these two levels; None unless the place is "inside",
                and where it rests on the quadratic alone
    value, low, high  lowest point of a quadratic and its 95 % interval, if the curve is one; None
                where the quadratic does not fit, shows no lowest point, or one that is not
                between `above` and `below`
    """

    place: Place
    candidates: tuple[float, ...]
    above: float | None = None
    below: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None


def between_levels(errors: Errors, level_LA: Floats) -> Estimates:
    """Level (row) minus level (column), arrays (L, L); rows of `level_LA` are weights of arms."""
    levels, arms = level_LA.shape
    each = errors.estimates((level_LA[:, None] - level_LA).reshape(-1, arms))
    return Estimates(*(x.reshape(levels, levels) for x in (each.value, each.error, each.df)))


def could_be_best(between: Estimates, sign: float) -> NDArray[np.bool_]:
    """Which levels (L,) may be the best one, at 95 %; all where the noise is unknown.

    A level is out where another is significantly better: one-sided t, 5 % over the others
    (Bonferroni; Hsu, Annals of Statistics 12, 1984, with that bound in place of his constant). The
    best one is out in at most 5 % of studies. `sign` is 1 where lower is better, else -1.
    """
    others = max(len(between.value) - 1, 1)
    limit_LL = np.maximum(t_at_tail(LEVEL / others, between.df) * between.error, 0.0)
    return np.asarray(~(sign * between.value > limit_LL).any(axis=1))


def find_optimum(
    errors: Errors,
    scale: Scale,
    values: Sequence[float],
    level_LA: Floats,
    sign: float,
    tried: Sequence[float] = (),
    between: Estimates | None = None,
) -> Optimum:
    """The best value of a setting with two or more `values` in ascending order.

    level_LA are the weights of arms that give the metric at each value, up to a constant. `tried`
    are the values in ascending order with those whose runs failed; they belong to the range.
    `between` is that of `between_levels`, for callers that have it.
    """
    tried = tried or values
    in_L = could_be_best(between or between_levels(errors, level_LA), sign)
    candidates = tuple(value for value, kept in zip(values, in_L, strict=True) if kept)
    first, last = tried.index(candidates[0]), tried.index(candidates[-1])
    if first > 0 and last < len(tried) - 1:
        above, below = tried[first - 1], tried[last + 1]
        found = _lowest_point(errors, on_scale(values, scale), level_LA, sign)
        if found is not None:
            best, low, high = (float(2.0**x) if scale == "log" else x for x in found)
            if above <= low and high <= below:
                return Optimum("inside", candidates, above, below, best, low, high)
        return Optimum("inside", candidates, above, below)
    if last == 0:
        return Optimum("at the lowest", candidates)
    return Optimum("at the highest" if first == len(tried) - 1 else "open", candidates)


def _lowest_point(
    errors: Errors, x_L: Floats, level_LA: Floats, sign: float
) -> tuple[float, float, float] | None:
    """Lowest point of the quadratic through the levels, and its interval, as positions.

    None where the quadratic does not fit or its curvature is not significantly positive.
    """
    if len(x_L) < 3:
        return None
    z_L = (x_L - x_L[0]) / (x_L[-1] - x_L[0])
    powers_LP = np.stack([np.ones(len(z_L)), z_L, z_L**2], axis=1)
    left, _, _ = np.linalg.svd(powers_LP)
    relative_LA = sign * (level_LA - level_LA[0])
    if len(z_L) > 3 and errors.wald_p(left[:, 3:].T @ relative_LA) < LEVEL:
        return None
    found = fieller(errors, np.linalg.pinv(powers_LP)[1:] @ relative_LA)
    if found is None:
        return None
    best, low, high = (float(x_L[0] + z * (x_L[-1] - x_L[0])) for z in found)
    return best, low, high


def fieller(errors: Errors, c_2A: Floats) -> tuple[float, float, float] | None:
    """Lowest point of b z + c z^2 and its 95 % interval; c_2A are the weights of b and of c.

    The interval is {z: |b + 2 c z| <= t se(b + 2 c z)}, the roots of a quadratic in z. None where c
    is not significantly positive, for then it has no end.
    """
    b, c = (float(v) for v in errors.estimates(c_2A).value)
    cov, df = errors.covariance(c_2A)
    t2 = float(t_at_tail(LEVEL / 2, df)) ** 2
    square = c * c - t2 * cov[1, 1]
    if c <= 0 or not square > 0:
        return None
    middle = b * c - t2 * cov[0, 1]
    root = np.sqrt(max(middle**2 - square * (b * b - t2 * cov[0, 0]), 0.0))
    low, high = (float((-middle + way * root) / square / 2) for way in (-1, 1))
    return -b / c / 2, low, high
