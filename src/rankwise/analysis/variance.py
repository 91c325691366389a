"""Variance components of the crossed design arm x seed x example, and intervals of contrasts.

The model of a score is x_ase = arm_a + seed_s + example_e + (as) + (ae) + (se) + residual_ase with
arms fixed, seeds and examples drawn at random. A difference of two arms on common seeds and
examples is free of seed_s, example_e and (se); the rest is estimated as follows:

* arms and seeds are fitted to the run means by least squares; with no run missing this is the
  plain mean over seeds. The residual mean square estimates (as) + residual/E, pooled over arms;
* the spread over examples of the difference of two fitted arms estimates (ae) + residual/S;
* residual/E is in both, so its own mean square is subtracted once:
  variance = seeds + examples - residual, never below the part of the examples alone;
* degrees of freedom by Satterthwaite (Biometrics Bulletin 2, 1946, p. 110).

Array suffixes: A arms with a finished run, R finished runs, G examples or groups of examples,
K contrasts.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from rankwise.analysis.scores import (
    Design,
    Floats,
    Ints,
    Pool,
    Runs,
    Scores,
    finished_runs,
    fit_design,
    seed_pools,
)

Claim = Literal["seeds and examples", "seeds", "examples", "nothing"]
# Differences this small relative to the scores are rounding of equal runs.
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Estimates:
    """Contrasts of arms: value, standard error, degrees of freedom, each (K,) or (A, A).

    The standard error is NaN where the noise is unknown.
    """

    value: Floats
    error: Floats
    df: Floats

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Lower and upper bound of the two-sided t interval."""
        half = stats.t.ppf((1 + level) / 2, self.df) * self.error
        return self.value - half, self.value + half

    def p_value(self) -> Floats:
        """Two-sided p value of 'no difference'; 1 where a zero difference has zero error."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.abs(self.value) / self.error
        ratio = np.where((self.value == 0) & (self.error == 0), 0.0, ratio)
        return np.asarray(2 * stats.t.sf(ratio, self.df))


@dataclass(frozen=True, eq=False)
class Components:
    """Estimates of arms and of noise. Made by `components`.

    arms         names of the arms with a finished run, in the order given
    runs         the finished runs; `runs.arm_R` counts positions in `arms`
    seeds_A      finished runs of each arm
    mean_A       plain mean over the finished seeds
    fitted_A     what comparisons use: the same as mean_A if no run is missing
    design       the least-squares fit of arms and seeds
    pools        seed noise; empty if no arm has a second seed
    residual     mean square of the three-way residual, on the scale of a run mean
    example_AA   covariance over examples of the fitted arms, divided by their number (or None)
    example_df   its degrees of freedom: number of examples or groups less one, or infinite
    examples     number of examples, groups of examples or test items; 0 if unknown
    unit         what is counted there: "examples", "groups of examples" or "test items"
    """

    arms: tuple[str, ...]
    runs: Runs
    seeds_A: Ints
    mean_A: Floats
    fitted_A: Floats
    design: Design
    pools: tuple[Pool, ...]
    residual: float
    residual_df: float
    example_AA: Floats | None
    example_df: float
    examples: int
    unit: str

    @property
    def claim(self) -> Claim:
        """What the intervals hold for beyond these runs and examples."""
        if self.pools:
            return "seeds" if self.example_AA is None else "seeds and examples"
        return "nothing" if self.example_AA is None else "examples"

    def contrasts(self, c_KA: Floats) -> Estimates:
        """Estimates of c_KA @ arms; every row of c must sum to zero."""
        b_KR = c_KA @ self.design.coef_AR
        seed_parts = [(b_KR**2) @ pool.runs_R for pool in self.pools]
        examples = None
        if self.example_AA is not None:
            examples = np.einsum("ka,ab,kb->k", c_KA, self.example_AA, c_KA)
        return self._estimates(c_KA @ self.fitted_A, seed_parts, examples)

    def difference(self, arm: int, other: int) -> float:
        """Arm minus other; differences that are rounding of equal runs are zero."""
        value = float(self.fitted_A[arm] - self.fitted_A[other])
        rounding = ROUNDING * float(np.abs(self.fitted_A).max(initial=0.0))
        return 0.0 if abs(value) <= rounding else value

    def covariance(self, c_KA: Floats) -> Floats:
        """Covariance (K, K) of the estimates of c_KA @ arms; zero where the noise is unknown."""
        b_KR = c_KA @ self.design.coef_AR
        total = np.zeros((len(c_KA), len(c_KA)))
        if self.example_AA is not None:
            total += c_KA @ self.example_AA @ c_KA.T
        for pool in self.pools:
            beyond = pool.mean_square
            if self.example_AA is not None:
                beyond = max(beyond - self.residual, 0.0)
            total += beyond * (b_KR * pool.runs_R) @ b_KR.T
        return total

    def pairs(self) -> Estimates:
        """Estimates of arm a minus arm b, each array (A, A)."""
        coef_AR = self.design.coef_AR
        seed_parts = [_of_pairs((coef_AR * pool.runs_R) @ coef_AR.T) for pool in self.pools]
        examples = None if self.example_AA is None else _of_pairs(self.example_AA)
        return self._estimates(self.fitted_A[:, None] - self.fitted_A, seed_parts, examples)

    def _estimates(
        self, value: Floats, seed_parts: list[Floats], examples: Floats | None
    ) -> Estimates:
        if self.claim == "nothing":
            unknown = np.full(value.shape, np.nan)
            return Estimates(value, unknown, unknown)
        rounding = ROUNDING * float(np.abs(self.fitted_A).max(initial=0.0))
        value = np.where(np.abs(value) <= rounding, 0.0, value)
        known = np.zeros(value.shape) if examples is None else examples
        terms = [p.mean_square * part for p, part in zip(self.pools, seed_parts, strict=True)]
        off = self.residual * sum(seed_parts, np.zeros(value.shape))
        variance = np.maximum(known, sum(terms, known - off))
        variance = np.where(variance <= rounding**2, 0.0, variance)
        spread = known**2 / self.example_df + off**2 / self.residual_df
        for pool, term in zip(self.pools, terms, strict=True):
            spread = spread + term**2 / pool.df
        with np.errstate(divide="ignore", invalid="ignore"):
            df = np.where(spread > 0, variance**2 / spread, np.inf)
        fewest = min([pool.df for pool in self.pools] + [self.example_df])
        return Estimates(value, np.sqrt(variance), np.maximum(df, fewest))


def components(scores: Scores) -> Components:
    """Fit the design of `scores`; arms without a finished run are left out."""
    found = finished_runs(scores)
    kept, arm_R = np.unique(found.arm_R, return_inverse=True)
    runs = Runs(arm_R, found.seed_R, found.mean_R, found.u_RG, found.binary)
    design = fit_design(arm_R, runs.seed_R)
    residual, residual_df = _residual(runs.u_RG, design)
    example_AA, example_df = _examples(scores, runs, design)
    examples, unit = _counted(scores, runs)
    seeds_A = np.bincount(arm_R, minlength=len(kept))
    sums_A = np.bincount(arm_R, weights=runs.mean_R, minlength=len(kept))
    return Components(
        arms=tuple(scores.arms[a] for a in kept),
        runs=runs,
        seeds_A=seeds_A,
        mean_A=sums_A / seeds_A,
        fitted_A=design.coef_AR @ runs.mean_R,
        design=design,
        pools=seed_pools(arm_R, runs.seed_R, runs.mean_R, design),
        residual=residual,
        residual_df=residual_df,
        example_AA=example_AA,
        example_df=example_df,
        examples=examples,
        unit=unit,
    )


def _counted(scores: Scores, runs: Runs) -> tuple[int, str]:
    if runs.u_RG is None:
        return scores.test_size or 0, "test items"
    return runs.u_RG.shape[1], "examples" if scores.groups_E is None else "groups of examples"


def _of_pairs(v_AA: Floats) -> Floats:
    """Variance of each difference from a covariance matrix; rounding never makes it negative."""
    d_A = np.diagonal(v_AA)
    return np.maximum(d_A[:, None] + d_A - 2 * v_AA, 0.0)


def _residual(u_RG: Floats | None, design: Design) -> tuple[float, float]:
    """Mean square of arm x seed x example, divided by the number of examples; and its df."""
    if u_RG is None or design.df < 1 or u_RG.shape[1] < 2:
        return 0.0, np.inf
    rest_RG = design.residuals(u_RG)
    rest_RG -= rest_RG.mean(axis=1, keepdims=True)
    groups = u_RG.shape[1]
    df = float(design.df * (groups - 1))
    return float(np.einsum("rg,rg->", rest_RG, rest_RG)) / df / groups, df


def _examples(scores: Scores, runs: Runs, design: Design) -> tuple[Floats | None, float]:
    """Covariance of the fitted arms over examples, divided by their number; and its df.

    For scores of 0 and 1 each arm gets 1/n^2 on top, which is one more discordant example each way
    (Bonett and Price, J. Educ. Behav. Stat. 37, 2012): equal answers on n examples do not prove
    equal arms.

    With a test size n only, the covariance is known for no pair of arms. A run's variance over
    items and seeds is p(1-p)/n + seeds, and the spread between the seeds of an arm holds all of it
    but what its runs share on the same items. So with a second seed nothing is added (None): the
    intervals hold for other seeds on these test items. Adding p(1-p)/n, as if every arm had items
    of its own, counts the noise of an answer twice and the difficulty of the common items as noise.
    With one seed each it is all there is: p(1-p)/n with one success and one failure added (Agresti
    and Caffo, American Statistician 54, 2000), and no covariance, which is an upper bound where
    items that are hard for one arm are not easy for another.
    """
    if runs.u_RG is not None:
        groups = runs.u_RG.shape[1]
        if groups < 2:
            return None, np.inf
        y_AG = design.coef_AR @ runs.u_RG
        y_AG -= y_AG.mean(axis=1, keepdims=True)
        cov_AA = y_AG @ y_AG.T / (groups - 1) / groups
        if runs.binary:
            cov_AA += np.eye(len(cov_AA)) / groups**2
        return cov_AA, float(groups - 1)
    if scores.test_size is None or design.df > 0:
        return None, np.inf
    n = scores.test_size
    p_A = (np.clip(design.coef_AR @ runs.mean_R, 0, 1) * n + 1) / (n + 2)
    return np.diag(p_A * (1 - p_A) / (n + 2)), np.inf
