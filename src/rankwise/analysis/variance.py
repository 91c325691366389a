"""Variance components of the crossed design arm x seed x example, and intervals of contrasts.

The model of a score is x_ase = arm_a + seed_s + example_e + (as) + (ae) + (se) + residual_ase with
arms fixed, seeds and examples drawn at random. A difference of two arms on common seeds and
examples is free of seed_s, example_e and (se); the rest is estimated as follows:

* arms and seeds are fitted to the run means by least squares; with no run missing this is the
  plain mean over seeds. The residual mean square estimates (as) + residual/E, pooled over arms;
* the spread over examples of the difference of two fitted arms estimates (ae) + residual/S;
* residual/E is in both, so its own mean square is subtracted once:
  variance = seeds + examples - residual, never below the part of the examples alone;
* seeds, and examples - residual, have degrees of freedom of their own. The interval lies between
  those of Howe (J. Am. Stat. Assoc. 69, 1974, p. 789) and of Satterthwaite (Biometrics Bulletin 2,
  1946, p. 110), see `half_width`; never narrower than that of the examples alone.

Array suffixes: A arms with a finished run, R finished runs, G examples or groups of examples,
K contrasts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import special, stats

from rankwise.analysis.clusters import spread_of_groups
from rankwise.analysis.design import Design, fit_design
from rankwise.analysis.quantiles import t_quantile, t_tail
from rankwise.analysis.scores import Floats, Ints, Runs, Scores, finished_runs
from rankwise.analysis.seed_noise import Pool, seed_pools

Claim = Literal["seeds and examples", "seeds", "examples", "nothing"]
# Differences this small relative to the scores are rounding of equal runs.
ROUNDING = 1e-12
# Two groups, or three of which one has nearly all examples, say nothing of other groups.
FEWEST_GROUPS = 3
# A quarter: one of four arms, two against two.
SMALL_PART = 0.25
NORMAL = float(stats.norm.ppf(0.975))


@dataclass(frozen=True, eq=False)
class Estimates:
    """Contrasts of arms: value, standard error, degrees of freedom, each (K,) or (A, A).

    The standard error is NaN where the noise is unknown. The degrees of freedom are those at which
    t gives the 95 % interval of `half_width`.
    """

    value: Floats
    error: Floats
    df: Floats

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Lower and upper bound of the two-sided t interval."""
        half = t_quantile((1 + level) / 2, self.df) * self.error
        return self.value - half, self.value + half

    def p_value(self) -> Floats:
        """Two-sided p value of 'no difference'; 1 where a zero difference has zero error."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.abs(self.value) / self.error
        ratio = np.where((self.value == 0) & (self.error == 0), 0.0, ratio)
        return np.asarray(2 * t_tail(ratio, self.df))


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
            examples = np.maximum(np.einsum("ka,ab,kb->k", c_KA, self.example_AA, c_KA), 0.0)
        return self._estimates(c_KA @ self.fitted_A, seed_parts, examples)

    def covariance(self, c_KA: Floats) -> Floats:
        """Covariance (K, K) of the estimates of c_KA @ arms; zero where the noise is unknown.

        Unclear arms have the common variance here.
        """
        b_KR = c_KA @ self.design.coef_AR
        total = np.zeros((len(c_KA), len(c_KA)))
        if self.example_AA is not None:
            total += c_KA @ self.example_AA @ c_KA.T
        for pool in self.pools:
            beyond = (self.pools[0] if pool.family == "unclear" else pool).mean_square
            if self.example_AA is not None:
                beyond = max(beyond - self.residual, 0.0)
            total += beyond * _of_runs(b_KR, pool)
        return total

    def pairs(self, trusted_rows: bool = False) -> Estimates:
        """Estimates of arm a minus arm b, each array (A, A).

        With `trusted_rows` an unclear arm has the common variance as a, and its own only as b.
        """
        coef_AR = self.design.coef_AR
        seed_parts = [_of_pairs(_of_runs(coef_AR, pool)) for pool in self.pools]
        for pool, part_AA in zip(self.pools, seed_parts, strict=True):
            if trusted_rows and pool.family == "unclear":
                arm = pool.arms[0]
                seed_parts[0][arm] += part_AA[arm]
                part_AA[arm] = 0.0
        examples = None if self.example_AA is None else _of_pairs(self.example_AA)
        return self._estimates(self.fitted_A[:, None] - self.fitted_A, seed_parts, examples)

    def _estimates(
        self, value: Floats, seed_parts: list[Floats], examples: Floats | None
    ) -> Estimates:
        if self.claim == "nothing":
            unknown = np.full(value.shape, np.nan)
            return Estimates(value, unknown, unknown)
        seed_parts = self._shared_out(seed_parts)
        rounding = ROUNDING * float(np.abs(self.fitted_A).max(initial=0.0))
        value = np.where(np.abs(value) <= rounding, 0.0, value)
        known = np.zeros(value.shape) if examples is None else examples
        terms = [p.mean_square * part for p, part in zip(self.pools, seed_parts, strict=True)]
        off = self.residual * sum(seed_parts, np.zeros(value.shape))
        variance = np.maximum(known, sum(terms, known - off))
        variance = np.where(variance <= rounding**2, 0.0, variance)
        of_seeds = list(zip(terms, (pool.df for pool in self.pools), strict=True))
        half = half_width(of_seeds, np.maximum(known - off, 0.0), self.example_df, variance)
        half = np.maximum(half, t_quantile(0.975, self.example_df) * np.sqrt(known))
        error = np.sqrt(variance)
        return Estimates(value, error, degrees_of_freedom(half, error))

    def _shared_out(self, seed_parts: list[Floats]) -> list[Floats]:
        """Unclear arms that are a small part of a contrast count with the common variance.

        Over several arms, what one has too much of the common variance, others have too little.
        """
        if not seed_parts:
            return seed_parts
        common, *others = seed_parts
        total = sum(others, common)
        kept = []
        for pool, part in zip(self.pools[1:], others, strict=True):
            small = (pool.family == "unclear") & (part <= SMALL_PART * total)
            common = common + np.where(small, part, 0.0)
            kept.append(np.where(small, 0.0, part))
        return [common, *kept]


Part = tuple[Floats, float | Floats]


def half_width(
    seeds: Sequence[Part], examples: Floats, example_df: float, variance: Floats
) -> Floats:
    """Half width of the 95 % interval of a sum of independent parts, given as (variance, df).

    Howe's is the root of the summed squares of each part's own: exact where one part dominates, too
    wide in between. Satterthwaite's, t with (sum v)^2 / sum (v^2 / df) for the whole, is too narrow
    where few runs agree by chance. Between them, Howe's with the weight 2 / (1 + fewest
    degrees of freedom), the interval is close to 95 % (docs/calibration.md).
    """
    parts = [*seeds, (examples, example_df)]
    squares = [t_quantile(0.975, df) ** 2 * part for part, df in parts]
    howe = np.sqrt(np.maximum(sum(squares), 0.0))
    spread = sum(part**2 / df for part, df in parts)
    fewest = np.full(howe.shape, np.inf)
    for part, df in parts:
        fewest = np.where(part > 0, np.minimum(fewest, df), fewest)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(spread > 0, variance**2 / spread, np.inf)
    satterthwaite = t_quantile(0.975, np.maximum(df, fewest)) * np.sqrt(variance)
    weight = 2 / (1 + np.maximum(fewest, 1))
    return np.asarray(satterthwaite + (howe - satterthwaite) * weight)


def degrees_of_freedom(half: Floats, error: Floats) -> Floats:
    """The degrees of freedom at which t times `error` gives the 95 % half width `half`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error > 0, half / error, NORMAL)
    df = special.stdtridf(0.975, np.maximum(ratio, NORMAL))
    return np.where(ratio <= NORMAL, np.inf, df)


def components(scores: Scores) -> Components:
    """Fit the design of `scores`; arms without a finished run are left out."""
    found = finished_runs(scores)
    kept, arm_R = np.unique(found.arm_R, return_inverse=True)
    runs = replace(found, arm_R=arm_R)
    design = fit_design(arm_R, runs.seed_R)
    residual, residual_df = _residual(runs, design)
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


def _of_runs(b_KR: Floats, pool: Pool) -> Floats:
    """Covariance (K, K) of functions of the runs of a pool, in units of its mean square."""
    b_KI = b_KR[:, pool.runs_R > 0]
    return np.asarray(b_KI @ b_KI.T)


def _of_pairs(v_AA: Floats) -> Floats:
    """Variance of each difference from a covariance matrix; rounding never makes it negative."""
    d_A = np.diagonal(v_AA)
    return np.maximum(d_A[:, None] + d_A - 2 * v_AA, 0.0)


def _residual(runs: Runs, design: Design) -> tuple[float, float]:
    """Mean square of arm x seed x example, divided by the number of examples; and its df."""
    if runs.u_RG is None or design.df < 1 or runs.u_RG.shape[1] < 2:
        return 0.0, np.inf
    rest_RG = design.residuals(runs.u_RG)
    rest_RG -= rest_RG.mean(axis=1, keepdims=True)
    rest_RG /= runs.u_RG.shape[1]
    factor, df = spread_of_groups(runs.share_G, rest_RG)
    return factor * float(np.einsum("rg,rg->", rest_RG, rest_RG)) / design.df, design.df * df


def _examples(scores: Scores, runs: Runs, design: Design) -> tuple[Floats | None, float]:
    """Covariance of the fitted arms over examples, divided by their number; and its df.

    None with fewer than three groups, or as unequal ones: then nothing is claimed of other groups.
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
        s_AG = design.coef_AR @ runs.u_RG
        s_AG -= s_AG.mean(axis=1, keepdims=True)
        s_AG /= groups
        # What decides is how differences of arms spread, not what all arms find hard.
        factor, df = spread_of_groups(runs.share_G, s_AG - s_AG.mean(axis=0) * (len(s_AG) > 1))
        if df < FEWEST_GROUPS - 1:
            return None, np.inf
        cov_AA = factor * s_AG @ s_AG.T
        if runs.binary:
            cov_AA += np.eye(len(cov_AA)) / groups**2
        return cov_AA, df
    if scores.test_size is None or design.df > 0:
        return None, np.inf
    n = scores.test_size
    p_A = (np.clip(design.coef_AR @ runs.mean_R, 0, 1) * n + 1) / (n + 2)
    return np.diag(p_A * (1 - p_A) / (n + 2)), np.inf


def symmetric_root(cov_AA: Floats) -> Floats:
    """The symmetric root of a covariance: draws times this have it.

    Other roots depend on the signs of eigenvectors and on their order where eigenvalues are equal,
    which differ between processors, and with them the numbers of a report.
    """
    values_A, vectors_AA = np.linalg.eigh(cov_AA)
    return np.asarray((vectors_AA * np.sqrt(np.maximum(values_A, 0.0))) @ vectors_AA.T)
