"""Effects of the settings by least squares on the arms, with intervals; which are not separable.

The additive model: arm = constant + one effect a level of each factor. A difference of two levels
is given a number only if the arms at hand determine it (an estimable function: it lies in the row
space of the design, Searle, Linear Models, 1971, section 5.4); else the factors it is mixed with
are named. Its error is the seed and example noise of `components`, with seeds as blocks; where the
misfit of the additive model is significant, or where there is one seed, the misfit is the error.

Array suffixes: A arms with a finished run, P columns of the model, K contrasts of arms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import numpy as np
from scipy import stats

from rankwise.analysis.comparisons import holm
from rankwise.analysis.factors import (
    Factor,
    Factors,
    Settings,
    columns,
    find_factors,
    isolated_pairs,
)
from rankwise.analysis.scores import Floats
from rankwise.analysis.variance import Components, Estimates

LEVEL = 0.05
TOLERANCE = 1e-8
Basis = Literal["noise", "misfit", "examples", "nothing"]


@dataclass(frozen=True)
class LevelDifference:
    """Metric at level `high` minus metric at level `low` of one factor, other settings equal.

    separable    the arms determine it; if not, `mixed_with` names the factors it is mixed with
    value        None if not separable
    low_bound, high_bound, p   95 % interval and two-sided p; None where the noise is unknown
    p_adjusted   Holm over all separable differences of the study
    pairs        pairs of arms that differ in this factor alone
    """

    factor: str
    low: str
    high: str
    separable: bool
    mixed_with: tuple[str, ...]
    value: float | None
    low_bound: float | None
    high_bound: float | None
    p: float | None
    p_adjusted: float | None
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FactorEffect:
    """One factor, its level differences, and whether any of them is separable."""

    factor: Factor
    separable: bool
    mixed_with: tuple[str, ...]
    differences: tuple[LevelDifference, ...]


@dataclass(frozen=True)
class Effects:
    """All factors of a study.

    basis       what the intervals rest on: "noise" of seeds (and examples); "misfit" of the
                additive model; "examples" alone, which holds only for these runs; "nothing"
    misfit_p    p of the test that effects are additive; None where it cannot be tested
    constant    settings that do not vary, with their value
    left_out    arms without a finished run
    """

    metric: str
    lower_is_better: bool
    basis: Basis
    misfit_p: float | None
    factors: tuple[FactorEffect, ...]
    constant: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Model:
    """The additive model of the arms: design_AP, its pseudo-inverse, the columns of each factor."""

    factors: Factors
    design_AP: Floats
    inverse_PA: Floats
    slices: tuple[slice, ...]

    @property
    def rank(self) -> int:
        """Number of independent columns."""
        return int(np.linalg.matrix_rank(self.design_AP, tol=TOLERANCE))

    def contrast(self, factor: int, low: int, high: int) -> Floats:
        """The difference of two levels as a function of the columns (P,)."""
        c_P = np.zeros(self.design_AP.shape[1])
        start = self.slices[factor].start
        if self.factors.varied[factor].on_a_line:
            c_P[start] = 1.0
            return c_P
        for level, sign in ((low, -1.0), (high, 1.0)):
            if level > 0:
                c_P[start + level - 1] = sign
        return c_P

    def mixed_with(self, c_P: Floats, factor: int) -> tuple[str, ...] | None:
        """None if the arms determine c_P; else the labels of the other factors it is mixed with."""
        off_P = c_P - c_P @ self.inverse_PA @ self.design_AP
        if np.abs(off_P).max() < TOLERANCE:
            return None
        return tuple(
            other.label
            for n, other in enumerate(self.factors.varied)
            if n != factor and np.abs(off_P[self.slices[n]]).max() > TOLERANCE
        )


def build_model(factors: Factors) -> Model:
    """Constant column, then the columns of each factor."""
    blocks = [np.ones((len(factors.arms), 1)), *(columns(f) for f in factors.varied)]
    ends = np.cumsum([block.shape[1] for block in blocks]).tolist()
    design_AP = np.hstack(blocks)
    slices = tuple(slice(start, end) for start, end in pairwise(ends))
    return Model(factors, design_AP, np.linalg.pinv(design_AP), slices)


def factor_effects(
    metric: str,
    parts: Components,
    settings: Mapping[str, Settings],
    lower_is_better: bool = True,
    left_out: tuple[str, ...] = (),
) -> Effects:
    """Effects of all settings that vary over the arms of `parts`.

    `settings` maps every arm to its settings. `left_out` names arms that are not in `parts`.
    Raises KeyError for an arm without settings.
    """
    factors = find_factors(parts.arms, settings)
    model = build_model(factors)
    misfit_p = _misfit_p(parts, model)
    basis = _basis(parts, model, misfit_p)
    asked = [
        (n, low, high) for n, factor in enumerate(factors.varied) for low, high in _asked(factor)
    ]
    differences = _differences(parts, model, asked, basis)
    effects = []
    for n, factor in enumerate(factors.varied):
        own = tuple(d for (m, _, _), d in zip(asked, differences, strict=True) if m == n)
        mixed = dict.fromkeys(label for d in own for label in d.mixed_with)
        effects.append(FactorEffect(factor, any(d.separable for d in own), tuple(mixed), own))
    return Effects(
        metric, lower_is_better, basis, misfit_p, tuple(effects), factors.constant, left_out
    )


def _asked(factor: Factor) -> list[tuple[int, int]]:
    """Pairs of levels: neighbours and ends if ordered; all if up to 4; else against the usual."""
    last = len(factor.levels) - 1
    if factor.on_a_line:
        return [(0, last)]
    if factor.values is not None:
        first = 1 if factor.values[0] is None else 0
        steps = list(pairwise(range(first, last + 1)))
        return steps if last - first < 2 else [*steps, (first, last)]
    if last < 4:
        return list(combinations(range(last + 1), 2))
    usual = max(range(last + 1), key=factor.level_A.count)
    return [(usual, level) for level in range(last + 1) if level != usual]


def _misfit_p(parts: Components, model: Model) -> float | None:
    """Wald F test of the arms' misfit to the additive model against seed and example noise."""
    spare = len(parts.arms) - model.rank
    if spare < 1 or not parts.pools:
        return None
    left, _, _ = np.linalg.svd(model.design_AP)
    return wald_p(parts, left[:, model.rank :].T)


def wald_p(parts: Components, c_KA: Floats) -> float:
    """p of the hypothesis that all K contrasts are zero; F with the middle of their df."""
    each = parts.contrasts(c_KA)
    cov_KK = parts.covariance(c_KA)
    rank = int(np.linalg.matrix_rank(cov_KK, hermitian=True))
    if rank == 0:
        return 1.0 if np.all(each.value == 0) else 0.0
    f = float(each.value @ np.linalg.pinv(cov_KK, hermitian=True) @ each.value) / rank
    return float(stats.f.sf(f, rank, float(np.median(each.df))))


def _basis(parts: Components, model: Model, misfit_p: float | None) -> Basis:
    spare = len(parts.arms) - model.rank
    if parts.pools:
        return "misfit" if misfit_p is not None and misfit_p < LEVEL else "noise"
    if spare > 0:
        return "misfit"
    return "examples" if parts.claim == "examples" else "nothing"


def _differences(
    parts: Components, model: Model, asked: list[tuple[int, int, int]], basis: Basis
) -> list[LevelDifference]:
    c_KP = np.array([model.contrast(*one) for one in asked]).reshape(len(asked), -1)
    mixed = [model.mixed_with(c_P, n) for c_P, (n, _, _) in zip(c_KP, asked, strict=True)]
    estimates = contrast_estimates(parts, model, c_KP @ model.inverse_PA, basis)
    low_K, high_K = estimates.interval()
    known = np.array([m is None and basis != "nothing" for m in mixed], dtype=bool)
    p_K = np.full(len(asked), np.nan)
    adjusted_K = p_K.copy()
    if known.any():
        p_K[known] = estimates.p_value()[known]
        adjusted_K[known] = holm(p_K[known])
    differences = []
    for k, (n, low, high) in enumerate(asked):
        factor = model.factors.varied[n]
        pairs = () if factor.on_a_line else isolated_pairs(model.factors, factor, low, high)
        differences.append(
            LevelDifference(
                factor=factor.label,
                low=factor.levels[low],
                high=factor.levels[high],
                separable=mixed[k] is None,
                mixed_with=mixed[k] or (),
                value=float(estimates.value[k]) if mixed[k] is None else None,
                low_bound=float(low_K[k]) if known[k] else None,
                high_bound=float(high_K[k]) if known[k] else None,
                p=float(p_K[k]) if known[k] else None,
                p_adjusted=float(adjusted_K[k]) if known[k] else None,
                pairs=tuple(pairs),
            )
        )
    return differences


def contrast_estimates(parts: Components, model: Model, c_KA: Floats, basis: Basis) -> Estimates:
    """Contrasts of arms with the error that `basis` names."""
    if basis != "misfit":
        return parts.contrasts(c_KA)
    y_A = parts.fitted_A
    off_A = y_A - model.design_AP @ (model.inverse_PA @ y_A)
    df = len(y_A) - model.rank
    error_K = np.sqrt(off_A @ off_A / df * (c_KA**2).sum(axis=1))
    return Estimates(c_KA @ y_A, error_K, np.full(len(c_KA), float(df)))
