"""The additive model of the arms, and contrasts of them with the error that they rest on.

Array suffixes: A arms with a finished run, P columns of the model, K contrasts of arms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rankwise.analysis.factors import Factors, columns, isolated_pairs, level_columns
from rankwise.analysis.quantiles import f_tail
from rankwise.analysis.scores import Floats
from rankwise.analysis.variance import Components, Estimates

LEVEL = 0.05
TOLERANCE = 1e-8
Basis = Literal["noise", "misfit", "examples", "nothing"]


@dataclass(frozen=True, eq=False)
class Model:
    """The additive model of the arms: design_AP, its pseudo-inverse, the columns of each factor."""

    factors: Factors
    design_AP: Floats
    inverse_PA: Floats
    slices: tuple[slice, ...]

    @cached_property
    def rank(self) -> int:
        """Number of independent columns."""
        return int(np.linalg.matrix_rank(self.design_AP, tol=TOLERANCE))

    def contrast(self, factor: int, low: int, high: int) -> Floats:
        """The difference of two levels as a function of the columns (P,)."""
        c_P = np.zeros(self.design_AP.shape[1])
        level_LP = level_columns(self.factors.varied[factor])
        c_P[self.slices[factor]] = level_LP[high] - level_LP[low]
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


@dataclass(frozen=True, eq=False)
class Errors:
    """Contrasts of the arms of `parts` with the error that `basis` names.

    design_AP  the model whose residuals are the error where the basis is "misfit"
    """

    parts: Components
    basis: Basis
    design_AP: Floats | None = None

    def estimates(self, c_KA: Floats) -> Estimates:
        """Value, standard error and degrees of freedom of c_KA @ arms, rows summing to zero."""
        if self.basis != "misfit":
            return self.parts.contrasts(c_KA)
        cov_KK, df = self.covariance(c_KA)
        error_K = np.sqrt(np.diagonal(cov_KK))
        return Estimates(c_KA @ self.parts.fitted_A, error_K, np.full(len(c_KA), df))

    def covariance(self, c_KA: Floats) -> tuple[Floats, float]:
        """Covariance (K, K) of the same, and the middle of their degrees of freedom."""
        if self.basis != "misfit":
            df_K = self.parts.contrasts(c_KA).df
            return self.parts.covariance(c_KA), float(np.median(df_K))
        square, df = self._misfit
        return np.asarray(square * (c_KA @ c_KA.T)), df

    @cached_property
    def _misfit(self) -> tuple[float, float]:
        """Mean square of the residuals of the model, and its degrees of freedom."""
        y_A, x_AP = self.parts.fitted_A, self.design_AP
        assert x_AP is not None
        coef_P, _, rank, _ = np.linalg.lstsq(x_AP, y_A, rcond=TOLERANCE)
        off_A = y_A - x_AP @ coef_P
        df = float(len(y_A) - int(rank))
        return float(off_A @ off_A) / df, df

    def wald_p(self, c_KA: Floats) -> float:
        """p of the hypothesis that all K contrasts are zero (F test)."""
        cov_KK, df = self.covariance(c_KA)
        value_K = self.estimates(c_KA).value
        rank = int(np.linalg.matrix_rank(cov_KK, hermitian=True))
        if rank == 0:
            return 1.0 if np.all(value_K == 0) else 0.0
        f = float(value_K @ np.linalg.pinv(cov_KK, hermitian=True) @ value_K) / rank
        return float(f_tail(f, rank, df))

    def scheffe(self, c_KA: Floats, level: float) -> tuple[Floats, Floats]:
        """Bounds (K,) of the K contrasts that hold at once for all combinations of them.

        Scheffe (Biometrika 40, 1953): root of rank x F quantile, times the standard error. All of
        them hold zero exactly where `wald_p` is at least 1 - level.
        """
        cov_KK, df = self.covariance(c_KA)
        rank = int(np.linalg.matrix_rank(cov_KK, hermitian=True))
        value_K = self.estimates(c_KA).value
        factor = np.sqrt(rank * stats.f.ppf(level, rank, df)) if rank else 0.0
        half_K = factor * np.sqrt(np.diagonal(cov_KK))
        return value_K - half_K, value_K + half_K


def misfit_p(parts: Components, design_AP: Floats, rank: int) -> float | None:
    """Wald F test of the arms' misfit to a model against seed and example noise.

    None where a second seed or a degree of freedom is missing. `rank` is that of the model.
    """
    if rank == len(parts.arms) or not parts.pools:
        return None
    left, _, _ = np.linalg.svd(design_AP)
    return Errors(parts, "noise").wald_p(left[:, rank:].T)


def basis_of(parts: Components, model: Model, misfit_p: float | None) -> Basis:
    """Of a difference that the whole model determines."""
    spare = len(parts.arms) - model.rank
    if parts.pools:
        return "misfit" if misfit_p is not None and misfit_p < LEVEL else "noise"
    if spare > 0:
        return "misfit"
    return "examples" if parts.claim == "examples" else "nothing"


@dataclass(frozen=True, eq=False)
class Asked:
    """Contrasts of arms, one a difference asked for: weights, error, and the pairs behind it.

    mixed[k] is None where the arms determine difference k; by_pairs_K where it is the plain mean
    over pairs[k].
    """

    c_KA: Floats
    mixed: list[tuple[str, ...] | None]
    pairs: list[list[tuple[str, str]]]
    by_pairs_K: NDArray[np.bool_]
    basis: list[Basis]

    def estimates(self, parts: Components, model: Model) -> Estimates:
        """Each with the error of its basis."""
        by_noise = parts.contrasts(self.c_KA)
        if "misfit" not in self.basis:
            return by_noise
        by_misfit = Errors(parts, "misfit", model.design_AP).estimates(self.c_KA)
        noise_K = np.array([basis != "misfit" for basis in self.basis])
        return Estimates(
            by_noise.value,
            np.where(noise_K, by_noise.error, by_misfit.error),
            np.where(noise_K, by_noise.df, by_misfit.df),
        )


def asked_contrasts(
    parts: Components, model: Model, asked: Sequence[tuple[int, int, int]], basis: Basis
) -> Asked:
    """The contrasts of (factor, low, high): by the model, or by pairs where it does not fit."""
    varied = model.factors.varied
    c_KP = np.array([model.contrast(*one) for one in asked]).reshape(len(asked), -1)
    c_KA = c_KP @ model.inverse_PA
    mixed = [model.mixed_with(c_P, n) for c_P, (n, _, _) in zip(c_KP, asked, strict=True)]
    pairs = [
        [] if varied[n].degree else isolated_pairs(model.factors, varied[n], low, high)
        for n, low, high in asked
    ]
    refuted = basis == "misfit" and bool(parts.pools)
    by_pairs_K = np.array(
        [refuted and bool(own) and m is None for own, m in zip(pairs, mixed, strict=True)],
        dtype=bool,
    )
    for k in np.flatnonzero(by_pairs_K):
        c_KA[k] = _mean_of_pairs(model.factors.arms, pairs[k])
    return Asked(c_KA, mixed, pairs, by_pairs_K, ["noise" if own else basis for own in by_pairs_K])


def _mean_of_pairs(arms: tuple[str, ...], pairs: Sequence[tuple[str, str]]) -> Floats:
    c_A = np.zeros(len(arms))
    for low, high in pairs:
        c_A[arms.index(low)] -= 1 / len(pairs)
        c_A[arms.index(high)] += 1 / len(pairs)
    return c_A
