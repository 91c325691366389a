"""Multiple comparisons, power, and how much more data would decide a tie.

Array suffixes: A arms with a finished run.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rankwise.analysis.scores import Floats
from rankwise.analysis.variance import Components

MOST_SEEDS = 1000
MOST_TIMES_EXAMPLES = 1000
# Above this many standard errors the power is 1; the noncentral t may not converge there.
CERTAIN = 1000.0


def holm(p: Floats) -> Floats:
    """Holm-adjusted p values (Scand. J. Stat. 6, 1979), in the order given.

    The same as statsmodels' `multipletests(p, method="holm")`, which runs the garbage collector at
    every call and so takes a hundred times as long as the rest of an analysis.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def power_of_t(effect: float, df: float, level: float) -> float:
    """Power of a two-sided t test at `level` for a difference of `effect` standard errors.

    The noncentral t; a decision in the wrong direction is not counted.
    """
    if df > 1e5:
        return float(stats.norm.sf(stats.norm.ppf(1 - level / 2) - effect))
    return float(stats.nct.sf(stats.t.ppf(1 - level / 2, df), df, effect))


@dataclass(frozen=True)
class Settlement:
    """What would decide between `arm` and `best` if the observed difference were the true one.

    seeds      seeds per arm, on the same examples; None if no number up to 1,000 is enough
    examples   examples, with the same seeds; None if 1,000 times as many are not enough
    seeds_now  seeds per arm in this study
    power      probability of a decision with that many
    """

    arm: str
    best: str
    difference: float
    seeds: int | None
    examples: int | None
    seeds_now: float
    power: float


def settle(parts: Components, arm: int, best: int, level: float, power: float) -> Settlement:
    """Seeds or examples needed for arm against best, from the variance parts of that pair."""
    plan = _plan(parts, arm, best)
    value = parts.difference(arm, best)
    seeds = examples = None
    if value != 0 and parts.pools:
        seeds = _fewest_seeds(plan, abs(value), level, power)
    if value != 0 and parts.example_AA is not None:
        examples = _fewest_examples(plan, abs(value), level, power)
    return Settlement(parts.arms[arm], parts.arms[best], value, seeds, examples, plan.seeds, power)


@dataclass(frozen=True)
class _Plan:
    """Variance of one pair as a function of seeds s and examples e: (run + res/e')/s + own/e'.

    Each part is scaled to the study at hand: e' = examples / examples now.
    """

    seeds: float
    examples: float
    run: float
    residual: float
    own: float
    run_df: float
    example_df: float


def _plan(parts: Components, arm: int, best: int) -> _Plan:
    weight_R = (parts.design.coef_AR[arm] - parts.design.coef_AR[best]) ** 2
    runs = 2 / float(weight_R.sum())
    seed_part = sum(pool.mean_square * float(weight_R @ pool.runs_R) for pool in parts.pools)
    residual = parts.residual * float(weight_R.sum())
    known = 0.0
    if parts.example_AA is not None:
        pair = np.ix_([arm, best], [arm, best])
        known = float(np.array([1, -1]) @ parts.example_AA[pair] @ np.array([1, -1]))
    residual = min(residual, known)
    df = sum(pool.df for pool in parts.pools) / max(runs - 1, 1)
    return _Plan(
        seeds=runs,
        examples=float(parts.examples),
        run=max(seed_part - residual, 0.0) * runs,
        residual=residual * runs,
        own=known - residual,
        run_df=df,
        example_df=parts.example_df,
    )


def _power_at(plan: _Plan, seeds: float, times: float, value: float, level: float) -> float:
    """Power with `seeds` seeds per arm and `times` as many examples."""
    seed_part = (plan.run + plan.residual / times) / seeds
    example_part = plan.own / times
    error = float(np.sqrt(seed_part + example_part))
    if error * CERTAIN < value:
        return 1.0
    spread = example_part**2 / (plan.example_df * times)
    if plan.run_df > 0:
        spread += seed_part**2 / (plan.run_df * max(seeds - 1, 1))
    df = error**4 / spread if spread > 0 else np.inf
    return power_of_t(value / error, float(df), level)


def _fewest_seeds(plan: _Plan, value: float, level: float, power: float) -> int | None:
    def enough(seeds: int) -> bool:
        return _power_at(plan, seeds, 1.0, value, level) >= power

    return _first(enough, int(plan.seeds) + 1, MOST_SEEDS)


def _fewest_examples(plan: _Plan, value: float, level: float, power: float) -> int | None:
    def enough(examples: int) -> bool:
        return _power_at(plan, plan.seeds, examples / plan.examples, value, level) >= power

    return _first(enough, int(plan.examples) + 1, int(plan.examples) * MOST_TIMES_EXAMPLES)


def _first(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest n from low to high with `enough(n)`, which is monotone in n."""
    if not enough(high):
        return None
    return low + bisect_left(range(low, high), True, key=enough)
