"""Is what a report says of settings as sure as it says? Simulated studies with a known truth.

Rows of `verdict_calibration.py`.

Every study draws 2 to 4 seeds, 100 to 400 examples, and a seed noise from none to twice the
residual noise of a run. Differences are planted in units of the standard error of the difference of
two arms (s.e.), which is known here.

Array suffixes: A arms, S seeds, E examples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankwise.analysis.effects import Effects, factor_effects
from rankwise.analysis.interactions import interactions
from rankwise.analysis.rates import learning_rate_flags
from rankwise.analysis.scores import Scores
from rankwise.analysis.shapes import Shape, shapes
from rankwise.analysis.smooth import smooth
from rankwise.analysis.smooth_model import draw, point_of, smooth_model
from rankwise.analysis.tuned import TunedStructure, tune
from rankwise.analysis.variance import Components, components
from rankwise.analysis.verdict import judge_parts

Floats = NDArray[np.float64]
FactorRow = tuple[str, list[float], float, float]
Settings = dict[str, dict[str, object]]
RATE = "training.learning_rate"


@dataclass(frozen=True)
class Noise:
    """A study's size and true noise; residual and arm by example have standard deviation 1, 0.5."""

    seeds: int
    examples: int
    seed_sd: float

    @property
    def error(self) -> float:
        """Standard error of the difference of two arms, given the truth."""
        run = self.seed_sd**2 + 1 / self.examples
        return float(np.sqrt(2 * (run / self.seeds + 0.25 / self.examples)))


def draw_noise(rng: np.random.Generator, fewest_seeds: int = 2) -> Noise:
    """Size and noise of one study; see the top of this file."""
    examples = int(rng.integers(100, 401))
    return Noise(
        int(rng.integers(fewest_seeds, 5)), examples, rng.uniform(0, 2) / np.sqrt(examples)
    )


def draw_scores(
    rng: np.random.Generator, noise: Noise, settings: Settings, mean_A: Sequence[float]
) -> Scores:
    """Losses by example of arms with these true means."""
    arms, size = len(settings), (len(settings), noise.seeds, noise.examples)
    x_ASE = (
        np.asarray(mean_A, dtype=np.float64)[:, None, None]
        + noise.seed_sd * rng.standard_normal((arms, noise.seeds, 1))
        + noise.seed_sd * rng.standard_normal((1, noise.seeds, 1))
        + rng.standard_normal((1, 1, noise.examples))
        + 0.5 * rng.standard_normal((arms, 1, noise.examples))
        + rng.standard_normal(size)
    )
    return Scores("eval_loss", tuple(settings), tuple(range(noise.seeds)), x_ASE)


def sweep(rates: Sequence[float], **others: object) -> Settings:
    """Arms that differ in the learning rate."""
    tag = " ".join(map(str, others.values()))
    return {f"{tag} {rate:g}": {RATE: rate, **others} for rate in rates}


def effect_is_reported(effects: Effects, found: Sequence[Shape]) -> bool:
    """Whether the report says of any setting that it changes the metric."""
    silent = ("not shown", "cannot tell")
    decided = any(d.decided for f in effects.factors for d in f.differences)
    return decided or any(shape.kind not in silent for shape in found)


def u_shaped_sweep(
    rng: np.random.Generator, depth: float, skew: float
) -> tuple[float, float, float]:
    """Seven learning rates: (an effect is reported, the best value is covered, by a parabola too).

    The lowest point lies in the middle third of the range; the ends are higher by about `depth`
    standard errors. With a skew the loss rises faster above it than below, as the LINEX loss does
    (Varian 1975). The last two values are NaN where no best value is given.
    """
    noise = draw_noise(rng)
    settings = sweep(10.0 ** np.linspace(-5, -2, 7))
    at = rng.uniform(-0.33, 0.33)
    off_A = np.linspace(-1, 1, 7) - at
    curve_A = off_A**2
    if skew:
        curve_A = 2 * (np.exp(skew * off_A) - skew * off_A - 1) / skew**2
    scores = draw_scores(rng, noise, settings, depth * noise.error * curve_A)
    parts = components(scores)
    effects = factor_effects("eval_loss", parts, settings)
    found = shapes(parts, settings, effects)
    best = found[0].optimum
    truth = 10.0 ** (-3.5 + 1.5 * at)
    reported = float(effect_is_reported(effects, found))
    return reported, _holds(best.above, truth, best.below), _holds(best.low, truth, best.high)


def _holds(low: float | None, truth: float, high: float | None) -> float:
    """1 or 0; NaN where there is no interval."""
    return np.nan if low is None or high is None else float(low <= truth <= high)


def edge_is_named(rng: np.random.Generator, depth: float) -> bool:
    """Three learning rates, the middle one better by `depth` standard errors: an edge is named."""
    noise = draw_noise(rng)
    settings = sweep((1e-4, 1e-3, 1e-2))
    scores = draw_scores(rng, noise, settings, [0.0, -depth * noise.error, 0.0])
    (flag,) = learning_rate_flags(settings, components(scores))
    return flag.at_the_edge


def overlapping_ranges(rng: np.random.Generator, gap: float = 0.0) -> tuple[bool, bool]:
    """Two targets, ranges of rates that share one, the first better by `gap` s.e.: (claim, cover).

    With a gap there are 3 seeds or more, for 2 may leave open how much an arm spreads.
    Either end of a target's range is worse than its middle, by up to 8 standard errors. Claimed
    counts both the effect of the target and the comparison at the own best rates.
    """
    noise = draw_noise(rng, 3 if gap else 2)
    rates = 10.0 ** np.linspace(-4, -2, 5)
    settings = sweep(rates[:3], target="qv") | sweep(rates[2:], target="all")
    mean_A = noise.error * rng.uniform(0, 8, 6)
    mean_A[[1, 4]] = 0
    mean_A[3:] += gap * noise.error
    scores = draw_scores(rng, noise, settings, mean_A.tolist())
    parts = components(scores)
    effects = factor_effects("eval_loss", parts, settings)
    target = next(f for f in effects.factors if "target" in f.factor.settings)
    tuned = tune(scores, parts, settings, RATE)
    claimed = any(d.decided for d in target.differences) or _one_is_better(tuned)
    return claimed, _covers(tuned, gap * noise.error)


def unequal_choice(rng: np.random.Generator) -> tuple[bool, bool]:
    """Five equal learning rates against one, no true difference: (one is better, covered)."""
    noise = draw_noise(rng)
    settings = sweep(10.0 ** np.linspace(-4, -2, 5), target="qv") | sweep((1e-3,), target="all")
    scores = draw_scores(rng, noise, settings, [0.0] * 6)
    tuned = tune(scores, components(scores), settings, RATE)
    return _one_is_better(tuned), _covers(tuned, 0.0)


def _one_is_better(tuned: Sequence[TunedStructure]) -> bool:
    return any(row.worse or row.best for row in tuned)


def _covers(tuned: Sequence[TunedStructure], gap: float) -> bool:
    """Whether the interval of the first of two targets against the second holds the truth."""
    (first,) = (row for row in tuned if ("target", "qv") in row.structure)
    return bool(_holds(first.low, -gap, first.high))


def factorial(rng: np.random.Generator, interaction: float) -> tuple[Settings, Floats]:
    """Rank x rate x target, 3 x 3 x 2: additive effects and random interactions, in errors."""
    settings: Settings = {
        f"r{r} {rate:g} {target}": {"lora.r": r, RATE: rate, "lora.target_modules": target}
        for r in (4, 16, 64)
        for rate in (1e-4, 1e-3, 1e-2)
        for target in ("qv", "all")
    }
    main = [rng.standard_normal((3, 1, 1)), rng.standard_normal((1, 3, 1))]
    mean = main[0] + main[1] + rng.standard_normal((1, 1, 2))
    return settings, (mean + interaction * rng.standard_normal((3, 3, 2))).ravel()


def averages_cover(rng: np.random.Generator) -> tuple[float, float]:
    """How often intervals of average effects hold the true averages, with interactions.

    The share of those of each effect alone, which are of the mean over pairs; and 1 if all that
    the report prints do at once.
    """
    noise = draw_noise(rng)
    settings, mean_A = factorial(rng, rng.uniform(0, 3))
    mean_A = noise.error * mean_A
    parts = _parts(rng, noise, settings, mean_A)
    effects = factor_effects("eval_loss", parts, settings)
    truth = dict(zip(settings, mean_A.tolist(), strict=True))
    alone, together = [], []
    for d in (d for f in effects.factors for d in f.differences):
        gap = float(np.mean([truth[high] - truth[low] for low, high in d.pairs]))
        assert d.low_bound is not None
        assert d.high_bound is not None
        together.append(d.low_bound <= gap <= d.high_bound)
        c_A = np.array(
            [sum((high == a) - (low == a) for low, high in d.pairs) for a in parts.arms], float
        )
        own = parts.contrasts(c_A[None] / len(d.pairs)).interval()
        alone.append(own[0][0] <= gap <= own[1][0])
    return float(np.mean(alone)), float(np.all(together))


def _parts(
    rng: np.random.Generator, noise: Noise, settings: Settings, mean_A: Floats
) -> Components:
    return components(draw_scores(rng, noise, settings, mean_A.tolist()))


def interaction_is_claimed(rng: np.random.Generator) -> bool:
    """Whether any interaction is called significant where effects are additive."""
    noise = draw_noise(rng)
    settings, mean_A = factorial(rng, 0.0)
    found = interactions(_parts(rng, noise, settings, noise.error * mean_A), settings)
    return any(one.clear for one in found.tested)


@dataclass(frozen=True)
class SmoothOutcome:
    """What the second estimate said of one study of 18 arms."""

    size: float
    tied: float
    kept: float
    refuted: float
    predicted: float
    untried: float


def smooth_study(rng: np.random.Generator, synergy: float = 0.0) -> SmoothOutcome:
    """A 3 x 3 x 2 factorial; with a synergy one arm is better by so many errors than all others.

    The last value is whether an arm that is left out is predicted within its interval.
    """
    noise = draw_noise(rng)
    settings, additive_A = factorial(rng, 0.0)
    mean_A = rng.uniform(0.3, 1.5) * additive_A + rng.uniform(0, 1) * rng.standard_normal(18)
    if synergy:
        mean_A[rng.integers(18)] = mean_A.min() - synergy
    mean_A = noise.error * mean_A
    scores = draw_scores(rng, noise, settings, mean_A.tolist())
    parts = components(scores)
    model = smooth_model(parts, settings, True)
    assert model is not None
    found = smooth(model, parts, True)
    truth = dict(
        zip(settings, (mean_A - mean_A.mean() + parts.fitted_A.mean()).tolist(), strict=True)
    )
    best = min(truth, key=truth.__getitem__)
    return SmoothOutcome(
        size=len(found.best),
        tied=len(judge_parts(scores, parts).tie_group),
        kept=float(best in found.best),
        refuted=float(found.refuted),
        predicted=float(np.mean([_holds(p.low, truth[p.arm], p.high) for p in found.predictions])),
        untried=np.nan if synergy else _untried_is_covered(rng, scores, settings, mean_A),
    )


def _untried_is_covered(
    rng: np.random.Generator, scores: Scores, settings: Settings, mean_A: Floats
) -> float:
    """Leave one arm out and predict it, relative to the mean of the others."""
    out = int(rng.integers(18))
    keep = np.arange(18) != out
    assert scores.x_ASE is not None
    names = tuple(np.array(scores.arms)[keep].tolist())
    parts = components(replace(scores, arms=names, x_ASE=scores.x_ASE[keep]))
    model = smooth_model(parts, settings, True)
    assert model is not None
    point = point_of(model.factors, settings[scores.arms[out]])
    loss_DN = draw(model, [point])
    low, high = np.quantile(loss_DN[:, -1] - loss_DN[:, :-1].mean(axis=1), (0.025, 0.975))
    return _holds(float(low), float(mean_A[out] - mean_A[keep].mean()), float(high))


def factor_rows(studies: int, seed: int) -> list[FactorRow]:
    """(what, one value a study, lower bound, upper bound) of everything that is calibrated here."""

    def many(
        number: int, one: Callable[[np.random.Generator], object], times: int = 1
    ) -> list[object]:
        rng = np.random.default_rng([seed, number])
        return [one(rng) for _ in range(times * studies)]

    deep = np.array(many(1, lambda rng: u_shaped_sweep(rng, 8.0, 0.0)), dtype=np.float64)
    skewed = np.array(many(8, lambda rng: u_shaped_sweep(rng, 8.0, 1.5)), dtype=np.float64)
    overlap = np.array(many(4, overlapping_ranges), dtype=np.float64)
    better = np.array(many(10, lambda rng: overlapping_ranges(rng, 8.0)), dtype=np.float64)
    unequal = np.array(many(5, unequal_choice), dtype=np.float64)
    flat = [float(bool(x)) for x in many(2, lambda rng: edge_is_named(rng, 0.0))]
    shallow = [float(bool(x)) for x in many(3, lambda rng: edge_is_named(rng, 1.0))]
    averages = np.array(many(6, averages_cover, 3), dtype=np.float64)
    crossed = [float(bool(x)) for x in many(7, interaction_is_claimed)]
    inside, by_parabola = (deep[np.isfinite(deep[:, n]), n].tolist() for n in (1, 2))
    inside_skewed = skewed[np.isfinite(skewed[:, 1]), 1].tolist()
    few = max(studies // 3, 10)
    rng = np.random.default_rng([seed, 9])
    plain = [smooth_study(rng) for _ in range(few)]
    synergy = [smooth_study(rng, 4.0) for _ in range(few)]
    return [
        ("U of 7 learning rates, 8 s.e. deep: an effect is reported", deep[:, 0].tolist(), 0.9, 1),
        ("- the best value lies where it is said to", inside, 0.935, 1),
        ("- and in the interval of the parabola, which this curve is", by_parabola, 0.935, 1),
        ("the same, steeper above: an effect is reported", skewed[:, 0].tolist(), 0.9, 1),
        ("- the best value lies where it is said to", inside_skewed, 0.935, 1),
        ("3 equal learning rates: an edge is named", flat, 0, 0.1),
        ("3 learning rates, the middle better by 1 s.e.: an edge is named", shallow, 0, 0.1),
        (
            "ranges share one rate, equal at best: one is called better",
            overlap[:, 0].tolist(),
            0,
            0.1,
        ),
        ("- 95 % interval at the own best rates", overlap[:, 1].tolist(), 0.935, 1),
        (
            "- one better by 8 s.e. at best, 3 or 4 seeds: it is found",
            better[:, 0].tolist(),
            0.9,
            1,
        ),
        ("- 95 % interval at the own best rates", better[:, 1].tolist(), 0.935, 1),
        ("5 equal rates against 1: one is called better", unequal[:, 0].tolist(), 0, 0.06),
        ("- 95 % interval at the own best rates", unequal[:, 1].tolist(), 0.935, 1),
        (
            "95 % interval of an average effect, with interactions",
            averages[:, 0].tolist(),
            0.935,
            0.965,
        ),
        ("- those of all effects, as printed, at once", averages[:, 1].tolist(), 0.935, 1),
        ("effects are additive: an interaction is called significant", crossed, 0, 0.06),
        *_smooth_rows(plain, synergy),
    ]


def _smooth_rows(
    plain: Sequence[SmoothOutcome], synergy: Sequence[SmoothOutcome]
) -> list[FactorRow]:
    def of(found: Sequence[SmoothOutcome], name: str) -> list[float]:
        return [getattr(one, name) for one in found]

    return [
        ("18 arms, if settings act smoothly: size of the set of the best", of(plain, "size"), 1, 8),
        ("- size of the tie group of the verdict", of(plain, "tied"), 1, 18),
        ("- the set holds the best", of(plain, "kept"), 0.935, 1),
        ("- 95 % interval of an arm", of(plain, "predicted"), 0.93, 1),
        ("- 95 % interval of an arm that was left out", of(plain, "untried"), 0.93, 1),
        ("- the model is refuted", of(plain, "refuted"), 0, 0.06),
        ("one arm 4 s.e. better than all others: it is refuted", of(synergy, "refuted"), 0.8, 1),
        ("- the set holds the best", of(synergy, "kept"), 0.935, 1),
    ]
