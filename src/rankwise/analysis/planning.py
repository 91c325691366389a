"""What more runs and more examples would decide: power, and the cheapest way to decide a tie.

Array suffixes: S numbers of seeds, T numbers of examples as multiples of those of the study.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from rankwise.analysis.quantiles import chi2_quantile
from rankwise.analysis.scores import Floats
from rankwise.analysis.variance import Components

MOST_SEEDS = 1000
MOST_TIMES_EXAMPLES = 1000
# The part of a run's time that goes into evaluation, which grows with the examples: an assumption,
# only there to choose between more runs and more examples.
EVALUATION = 0.1
CERTAIN = 1000.0
DOUBTS = 15


@dataclass(frozen=True)
class Settlement:
    """What would decide between `arm` and `best`, if the observed difference is the true one.

    seeds, examples  seeds per arm and examples (or groups) in all, the cheapest together; None if
                     up to 1,000 seeds and 1,000 times the examples are not enough
    only_seeds       seeds per arm on the same examples; None if no number up to 1,000 is enough
    only_examples    examples with the same seeds; None if 1,000 times as many are not enough
    runs, hours      runs of the two arms that the cheapest way takes: the further ones if the
                     examples stay, else all of them, as other examples make another study; hours
                     are None where the time of a run is not known
    seeds_now        seeds per arm in this study
    power            probability of a decision with that many, on average over what the noise may
                     be that this study estimates
    """

    arm: str
    best: str
    difference: float
    seeds: int | None
    examples: int | None
    only_seeds: int | None
    only_examples: int | None
    runs: int | None
    hours: float | None
    seeds_now: float
    power: float


@dataclass(frozen=True)
class _Goal:
    """To find a difference with this power, by a two-sided test at this level."""

    value: float
    level: float
    power: float


@dataclass(frozen=True, eq=False)
class _Plan:
    """Variance of one pair as a function of seeds s and examples e: (run + res/e')/s + own/e'.

    Each part is scaled to the study at hand: e' = examples / examples now. doubt_Q: what the true
    variance over seeds may be, as multiples of the estimate, each equally likely.
    """

    seeds: float
    examples: int
    run: float
    residual: float
    own: float
    run_df: float
    example_df: float
    doubt_Q: Floats


def power_of_t(effect: Floats, df: Floats, level: float) -> Floats:
    """Power of a two-sided t test at `level` for differences of `effect` standard errors.

    A decision in the wrong direction is not counted. The noncentral t by Abramowitz and Stegun,
    Handbook of Mathematical Functions, 1964, 26.7.10: within 0.003 where the power is 0.9.
    """
    critical = special.stdtrit(np.minimum(df, 1e9), 1 - level / 2)
    moved = critical * (1 - 1 / (4 * df)) - effect
    return np.asarray(special.ndtr(-moved / np.sqrt(1 + critical**2 / (2 * df))))


def settle(
    parts: Components,
    arm: int,
    best: int,
    level: float,
    power: float,
    hours: Mapping[str, float] | None = None,
) -> Settlement:
    """Seeds and examples needed for arm against best, from the variance parts of that pair.

    `hours` of a run, by arm. `level` is that of a two-sided test of the pair.
    """
    c_A = np.zeros(len(parts.arms))
    c_A[arm], c_A[best] = 1, -1
    plan = _plan(parts, c_A)
    value = float(parts.contrasts(c_A[None]).value[0])
    names = parts.arms[arm], parts.arms[best]
    goal = _Goal(abs(value), level, power)
    ways = _ways(plan, goal) if value != 0 else []
    cheapest = min(ways, key=lambda way: (_cost(plan, *way), way), default=None)
    if cheapest is not None:
        seeds = _fewest_seeds(plan, cheapest[1], goal) or cheapest[0]
        cheapest = seeds, cheapest[1]
    only_seeds = _fewest_seeds(plan, plan.examples, goal) if value != 0 else None
    only_examples = _fewest_examples(plan, goal) if value != 0 else None
    runs = None if cheapest is None else 2 * _runs(plan, *cheapest)
    known = hours is not None and all(name in hours for name in names)
    time = sum(hours[name] for name in names) / 2 if hours is not None and known else None
    return Settlement(
        *names,
        difference=value,
        seeds=None if cheapest is None else cheapest[0],
        examples=None if cheapest is None else cheapest[1],
        only_seeds=only_seeds,
        only_examples=only_examples,
        runs=runs,
        hours=None if runs is None or time is None else runs * time,
        seeds_now=plan.seeds,
        power=power,
    )


def _plan(parts: Components, c_A: Floats) -> _Plan:
    weight_R = (c_A @ parts.design.coef_AR) ** 2
    runs = round(2 / float(weight_R.sum()), 9)  # of an arm; whole where none is missing
    seed_part = sum(pool.mean_square * float(weight_R @ pool.runs_R) for pool in parts.pools)
    residual = parts.residual * float(weight_R.sum())
    known = 0.0 if parts.example_AA is None else float(c_A @ parts.example_AA @ c_A)
    residual = min(residual, known)
    known_df = sum(pool.df for pool in parts.pools)
    doubt_Q = np.ones(1)
    if known_df > 0:
        doubt_Q = known_df / chi2_quantile((np.arange(DOUBTS) + 0.5) / DOUBTS, known_df)
    return _Plan(
        seeds=runs,
        examples=parts.examples if parts.example_AA is not None else 0,
        run=max(seed_part - residual, 0.0) * runs,
        residual=residual * runs,
        own=known - residual,
        run_df=known_df / max(runs - 1, 1),
        example_df=parts.example_df,
        doubt_Q=doubt_Q,
    )


def _cost(plan: _Plan, seeds: int, examples: int) -> float:
    """Of such a number of seeds and examples, in runs as they are now."""
    times = examples / plan.examples if plan.examples else 1.0
    return _runs(plan, seeds, examples) * (1 - EVALUATION + EVALUATION * times)


def _runs(plan: _Plan, seeds: int, examples: int) -> int:
    """Runs of one arm that are still to be done."""
    same = examples == plan.examples
    return seeds - int(plan.seeds) if same else seeds


def _power(plan: _Plan, seeds: Floats, times: float, value: float, level: float) -> Floats:
    """Power with so many seeds (any shape) and examples, on average over the doubt about noise."""
    own = plan.own / times
    seed_Q = np.multiply.outer(1 / seeds, (plan.run + plan.residual / times) * plan.doubt_Q)
    spread_Q = np.full(seed_Q.shape, own**2 / (plan.example_df * times))
    if plan.run_df > 0:
        spread_Q += seed_Q**2 / (plan.run_df * np.maximum(seeds - 1, 1)[..., None])
    with np.errstate(divide="ignore", invalid="ignore"):
        df_Q = np.where(spread_Q > 0, (seed_Q + own) ** 2 / spread_Q, np.inf)
        effect_Q = value / np.sqrt(seed_Q + own)
    power_Q = power_of_t(np.minimum(effect_Q, CERTAIN), np.minimum(df_Q, 1e9), level)
    return np.asarray(power_Q.mean(axis=-1))


def _enough(plan: _Plan, seeds: float, examples: int, goal: _Goal) -> bool:
    times = examples / plan.examples if plan.examples else 1.0
    found = _power(plan, np.array(float(seeds)), times, goal.value, goal.level)
    return bool(found >= goal.power)


def _ways(plan: _Plan, goal: _Goal) -> list[tuple[int, int]]:
    """(seeds, examples) that are enough: about the fewest seeds, at each number of examples."""
    if plan.run_df <= 0:
        return []
    steps_S: Floats = np.unique(np.geomspace(2, MOST_SEEDS, 40).round()).astype(np.float64)
    found = []
    for examples in _example_counts(plan):
        fewest = int(plan.seeds) + 1 if examples == plan.examples else 2
        from_S = steps_S[steps_S >= fewest]
        times = examples / plan.examples if plan.examples else 1.0
        enough_S = _power(plan, from_S, times, goal.value, goal.level) >= goal.power
        if enough_S.any():
            found.append((int(from_S[np.argmax(enough_S)]), examples))
    return found


def _fewest_seeds(plan: _Plan, examples: int, goal: _Goal) -> int | None:
    """Seeds per arm with so many examples."""
    if plan.run_df <= 0:
        return None
    fewest = int(plan.seeds) + 1 if examples == plan.examples else 2
    return _first(lambda seeds: _enough(plan, seeds, examples, goal), fewest, MOST_SEEDS)


def _first(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest n from low to high with `enough(n)`, which is monotone in n."""
    if not enough(high):
        return None
    return low + bisect_left(range(low, high), True, key=enough)


def _example_counts(plan: _Plan) -> list[int]:
    """The examples of the study, and up to 1,000 times as many, in steps of a quarter or so."""
    if not plan.examples:
        return [0]
    steps = np.exp(np.linspace(0, np.log(MOST_TIMES_EXAMPLES), 32))
    return sorted({round(plan.examples * float(times)) for times in steps})


def _fewest_examples(plan: _Plan, goal: _Goal) -> int | None:
    """Examples with the same seeds."""
    if not plan.examples:
        return None
    most = plan.examples * MOST_TIMES_EXAMPLES
    return _first(lambda n: _enough(plan, plan.seeds, n, goal), plan.examples + 1, most)
