"""How settings act beyond one effect each: interactions of two, and simple effects where they are.

Array suffixes: A arms with a finished run, P columns of the two-way model, K contrasts of arms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np

from rankwise.analysis.additive import LEVEL, TOLERANCE, Errors, Model, build_model, misfit_p
from rankwise.analysis.comparisons import at_once, bonferroni
from rankwise.analysis.factors import (
    Factor,
    Settings,
    columns,
    find_factors,
    level_columns,
    level_pairs,
)
from rankwise.analysis.scores import Floats
from rankwise.analysis.variance import Components

MOST_FACTORS = 8
# The test of the two-way model takes time with the cube of the arms.
MOST_TESTED = 500


@dataclass(frozen=True)
class Interaction:
    """How the effect of one factor changes with another, adjusted for all other pairs.

    value      of the largest difference of differences: (metric at level `high` - at the first
               level of `first`), at `other` minus at the first level of `second`
    low_bound, high_bound   its interval, which allows for having chosen the largest (Scheffé), at
               95 % for all interactions of the study at once; None where the noise is unknown
    p          of the test that all differences of differences are zero; None likewise
    p_adjusted p times the number of interactions of the study
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

    @property
    def clear(self) -> bool:
        """Whether it is significant (`p_adjusted`, 5 %)."""
        return self.p_adjusted is not None and self.p_adjusted < LEVEL


@dataclass(frozen=True)
class SimpleEffect:
    """Metric at `high` minus metric at `low` of one factor, at one level of another.

    The mean over the settings beside the two, by the two-way model. The interval holds
    at 95 % for all simple effects of the study at once, and p_adjusted is p times their number
    (Bonferroni). Bounds and p are None where the noise is unknown.
    """

    factor: str
    low: str
    high: str
    other: str
    at: str
    value: float
    low_bound: float | None
    high_bound: float | None
    p: float | None
    p_adjusted: float | None


@dataclass(frozen=True)
class Interactions:
    """Tested pairs of factors, and those that the arms do not determine.

    misfit_p  p of the test that the two-way model fits: below 5 % even the simple effects are
              averages of effects that differ; None where it cannot be tested
    simple    simple effects for the pairs whose interaction is significant
    """

    tested: tuple[Interaction, ...]
    not_separable: tuple[tuple[str, str], ...]
    misfit_p: float | None = None
    simple: tuple[SimpleEffect, ...] = ()


@dataclass(frozen=True, eq=False)
class TwoWay:
    """The full two-way model: the additive one and a block of products for each pair of factors."""

    main: Model
    pairs: tuple[tuple[int, int], ...]
    design_AP: Floats
    inverse_PA: Floats
    blocks: tuple[slice, ...]

    def determined(self, c_KP: Floats) -> bool:
        """Whether the arms determine all of these functions of the columns."""
        off_KP = c_KP - c_KP @ self.inverse_PA @ self.design_AP
        return bool(np.abs(off_KP).max(initial=0.0) <= TOLERANCE)

    @cached_property
    def rank(self) -> int:
        """Number of independent columns."""
        return int(np.linalg.matrix_rank(self.design_AP, tol=TOLERANCE))

    def errors(self, parts: Components) -> Errors:
        """The noise; with one seed the residuals of this model where there are any."""
        if parts.pools or self.rank == len(self.design_AP):
            return Errors(parts, "noise")
        return Errors(parts, "misfit", self.design_AP)


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
    model = _two_way(build_model(factors), pairs)
    errors = model.errors(parts)
    found: list[tuple[tuple[int, int], Floats]] = []
    missing = []
    for (a, b), block in zip(pairs, model.blocks, strict=True):
        if model.determined(np.eye(model.design_AP.shape[1])[block]):
            found.append(((a, b), model.inverse_PA[block]))
        else:
            missing.append((varied[a].label, varied[b].label))
    level = at_once(len(found))
    tested = _adjusted(
        [_interaction(errors, varied[a], varied[b], c_KA, level) for (a, b), c_KA in found]
    )
    clear = [pair for (pair, _), one in zip(found, tested, strict=True) if one.clear]
    return Interactions(
        tested, tuple(missing), _misfit_p(parts, model), _simple_effects(errors, model, clear)
    )


def _two_way(main: Model, pairs: Sequence[tuple[int, int]]) -> TwoWay:
    varied = main.factors.varied
    products = [_products(columns(varied[a]), columns(varied[b])) for a, b in pairs]
    design_AP = np.hstack([main.design_AP, *products])
    ends = np.cumsum([main.design_AP.shape[1], *(block.shape[1] for block in products)]).tolist()
    blocks = tuple(slice(start, end) for start, end in pairwise(ends))
    return TwoWay(main, tuple(pairs), design_AP, np.linalg.pinv(design_AP), blocks)


def _products(left: Floats, right: Floats) -> Floats:
    """Products of the columns of two factors, row by row."""
    return np.asarray(np.einsum("ap,aq->apq", left, right).reshape(len(left), -1))


def _misfit_p(parts: Components, model: TwoWay) -> float | None:
    if len(parts.arms) > MOST_TESTED:
        return None
    return misfit_p(parts, model.design_AP, model.rank)


def _interaction(errors: Errors, a: Factor, b: Factor, c_KA: Floats, level: float) -> Interaction:
    value_K = errors.estimates(c_KA).value
    k = int(np.argmax(np.abs(value_K)))
    low, high = (float(bound[k]) for bound in errors.scheffe(c_KA, level))
    level_a, level_b = divmod(k, columns(b).shape[1])
    known = not np.isnan(low)
    return Interaction(
        first=a.label,
        second=b.label,
        high=a.levels[-1] if a.degree else a.levels[level_a + 1],
        other=b.levels[-1] if b.degree else b.levels[level_b + 1],
        value=float(value_K[k]),
        low_bound=low if known else None,
        high_bound=high if known else None,
        p=errors.wald_p(c_KA) if known else None,
        p_adjusted=None,
    )


def _simple_effects(
    errors: Errors, model: TwoWay, clear: Sequence[tuple[int, int]]
) -> tuple[SimpleEffect, ...]:
    """Ends of each factor of a pair at every level of the other, where both have levels."""
    varied = model.main.factors.varied
    asked = [
        (one, two, level)
        for pair in clear
        for one, two in (pair, pair[::-1])
        if not varied[one].degree and not varied[two].degree and len(varied[one].levels) <= 4
        for level in range(len(varied[two].levels))
    ]
    rows = [
        (one, low, high, two, level)
        for one, two, level in asked
        for low, high in level_pairs(varied[one])
    ]
    weights = [_simple(model, *row) for row in rows]
    kept = [n for n, c_P in enumerate(weights) if model.determined(c_P[None])]
    if not kept:
        return ()
    each = errors.estimates(np.array([weights[n] for n in kept]) @ model.inverse_PA)
    low_K, high_K = each.interval(at_once(len(kept)))
    known = not np.isnan(low_K).any()
    p_K = each.p_value()
    adjusted_K = bonferroni(p_K)
    found = []
    for k, n in enumerate(kept):
        one, low, high, two, level = rows[n]
        found.append(
            SimpleEffect(
                factor=varied[one].label,
                low=varied[one].levels[low],
                high=varied[one].levels[high],
                other=varied[two].label,
                at=varied[two].levels[level],
                value=float(each.value[k]),
                low_bound=float(low_K[k]) if known else None,
                high_bound=float(high_K[k]) if known else None,
                p=float(p_K[k]) if known else None,
                p_adjusted=float(adjusted_K[k]) if known else None,
            )
        )
    return tuple(found)


def _simple(model: TwoWay, one: int, low: int, high: int, two: int, level: int) -> Floats:
    """Weights of the columns (P,): high minus low of one factor at a level of another.

    The factors beside the two are at the mean of their columns over the arms.
    """
    varied = model.main.factors.varied
    change = level_columns(varied[one])[high] - level_columns(varied[one])[low]
    c_P = np.zeros(model.design_AP.shape[1])
    c_P[model.main.slices[one]] = change
    for (a, b), block in zip(model.pairs, model.blocks, strict=True):
        if one in (a, b):
            other = b if a == one else a
            at = columns(varied[other]).mean(axis=0)
            if other == two:
                at = level_columns(varied[two])[level]
            left, right = (change, at) if a == one else (at, change)
            c_P[block] = np.outer(left, right).ravel()
    return c_P


def _adjusted(found: list[Interaction]) -> tuple[Interaction, ...]:
    adjusted = bonferroni(np.array([np.nan if one.p is None else one.p for one in found]))
    return tuple(
        one if one.p is None else replace(one, p_adjusted=float(p))
        for one, p in zip(found, adjusted, strict=True)
    )
