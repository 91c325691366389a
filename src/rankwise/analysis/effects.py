"""Effects of the settings by least squares on the arms, with intervals; which are not separable.

The additive model: arm = constant + one effect a level of each factor. A difference of two levels
is given a number only if the arms at hand determine it (an estimable function: it lies in the row
space of the design, Searle, Linear Models, 1971, section 5.4); else the factors it is mixed with
are named. Its error is the seed and example noise of `components`, with seeds as blocks.

Where effects are not additive, an average over the other settings still is what it is: it is taken
over the pairs of arms that differ in nothing else, with the error of the noise. (In a full
factorial that is the least-squares value itself.) Only where there is no such pair, or one seed,
the misfit of the additive model is the error.

Array suffixes: A arms with a finished run, P columns of the model, K contrasts of arms.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rankwise.analysis.additive import (
    LEVEL,
    Basis,
    Model,
    asked_contrasts,
    basis_of,
    build_model,
    misfit_p,
)
from rankwise.analysis.comparisons import at_once, bonferroni
from rankwise.analysis.factors import (
    ABSENT,
    RATE_NAMES,
    Factor,
    Factors,
    Settings,
    find_factors,
    is_number,
    level_pairs,
    text_of,
)
from rankwise.analysis.rates import is_rate
from rankwise.analysis.variance import Components


@dataclass(frozen=True)
class LevelDifference:
    """Metric at level `high` minus metric at level `low` of one factor, other settings equal.

    separable    the arms determine it; if not, `mixed_with` names the factors it is mixed with
    value        None if not separable
    low_bound, high_bound   interval, together with those of all separable differences of the
                 study at 95 % (Bonferroni); None where the noise is unknown
    p, p_adjusted   two-sided: of this difference alone, and times the number of them
    pairs        pairs of arms that differ in this factor alone
    basis        what its interval rests on, as in `Effects`
    by_pairs     the plain mean over `pairs`, because effects are not additive
    narrow       numeric factors of which the arms at the two levels share at most half of the
                 values (see `narrow_factors`): the difference is one at the shared values and
                 decides nothing between the levels, each of which may be best elsewhere
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
    basis: Basis = "noise"
    by_pairs: bool = False
    narrow: tuple[str, ...] = ()

    @property
    def decided(self) -> bool:
        """Whether one level is called better: significant (`p_adjusted`, 5 %) and not `narrow`."""
        return self.p_adjusted is not None and self.p_adjusted < LEVEL and not self.narrow


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

    basis         what intervals rest on: "noise" of seeds (and examples); "misfit" of the
                  additive model; "examples" alone, which holds only for these runs; "nothing".
                  That of a difference may be "noise" where this is "misfit"
    misfit_p      p of the test that effects are additive; None where it cannot be tested
    constant      settings that do not vary, with their value
    left_out      arms without a finished run
    collapsed     arms set aside because their runs learned nothing or lost what they had learned
    combinations  number of all combinations of the levels that occur; None where a factor has no
                  levels (see `Factor.degree`) or does not apply to every arm
    complete      every combination is there, so averages over the others assume nothing
    """

    metric: str
    lower_is_better: bool
    basis: Basis
    misfit_p: float | None
    factors: tuple[FactorEffect, ...]
    constant: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]
    collapsed: tuple[str, ...] = ()
    combinations: int | None = None
    complete: bool = True

    @property
    def additive(self) -> bool | None:
        """False where the misfit is significant; None where it cannot be tested."""
        return None if self.misfit_p is None else self.misfit_p >= LEVEL


def factor_effects(
    metric: str,
    parts: Components,
    settings: Mapping[str, Settings],
    lower_is_better: bool = True,
    left_out: tuple[str, ...] = (),
    collapsed: tuple[str, ...] = (),
) -> Effects:
    """Effects of all settings that vary over the arms of `parts`.

    `settings` maps every arm to its settings. `left_out` and `collapsed` name arms that are not in
    `parts`, so that it is known which values were tried. Raises KeyError for an arm without
    settings.
    """
    factors = find_factors(parts.arms, settings)
    model = build_model(factors)
    tested_p = misfit_p(parts, model.design_AP, model.rank)
    basis = basis_of(parts, model, tested_p)
    asked = [
        (n, low, high)
        for n, factor in enumerate(factors.varied)
        for low, high in level_pairs(factor)
    ]
    differences = _differences(parts, model, asked, basis, settings)
    effects = []
    for n, factor in enumerate(factors.varied):
        own = tuple(d for (m, _, _), d in zip(asked, differences, strict=True) if m == n)
        mixed = dict.fromkeys(label for d in own for label in d.mixed_with)
        effects.append(FactorEffect(factor, any(d.separable for d in own), tuple(mixed), own))
    possible = _combinations(factors)
    return Effects(
        metric=metric,
        lower_is_better=lower_is_better,
        basis=basis,
        misfit_p=tested_p,
        factors=tuple(effects),
        constant=factors.constant,
        left_out=left_out,
        collapsed=collapsed,
        combinations=possible,
        complete=possible is not None and possible == len(factors.arms),
    )


def _combinations(factors: Factors) -> int | None:
    """Number of all combinations of levels, where every factor has some that all arms can have."""
    for factor in factors.varied:
        if factor.degree or any(ABSENT in level.split(" / ") for level in factor.levels):
            return None
    return math.prod(len(factor.levels) for factor in factors.varied)


def _differences(
    parts: Components,
    model: Model,
    asked: list[tuple[int, int, int]],
    basis: Basis,
    settings: Mapping[str, Settings],
) -> list[LevelDifference]:
    found = asked_contrasts(parts, model, asked, basis)
    estimates = found.estimates(parts, model)
    known = np.array([m is None and basis != "nothing" for m in found.mixed], dtype=bool)
    p_K = np.where(known, estimates.p_value(), np.nan)
    adjusted_K = bonferroni(p_K)
    low_K, high_K = estimates.interval(at_once(int(np.count_nonzero(known))))
    narrow = narrow_factors(model.factors, asked, settings)
    differences = []
    for k, (n, low, high) in enumerate(asked):
        factor, mixed = model.factors.varied[n], found.mixed[k]
        differences.append(
            LevelDifference(
                factor=factor.label,
                low=factor.levels[low],
                high=factor.levels[high],
                separable=mixed is None,
                mixed_with=mixed or (),
                value=float(estimates.value[k]) if mixed is None else None,
                low_bound=float(low_K[k]) if known[k] else None,
                high_bound=float(high_K[k]) if known[k] else None,
                p=float(p_K[k]) if known[k] else None,
                p_adjusted=float(adjusted_K[k]) if known[k] else None,
                pairs=tuple(found.pairs[k]),
                basis=found.basis[k],
                by_pairs=bool(found.by_pairs_K[k]),
                narrow=narrow[k],
            )
        )
    return differences


def narrow_factors(
    factors: Factors, asked: list[tuple[int, int, int]], settings: Mapping[str, Settings]
) -> list[tuple[str, ...]]:
    """For each (factor, low, high): numeric factors of which the arms there share at most half.

    Of another setting than the learning rate only where both were tried at two values or more: a
    setting that was varied at one of the two levels alone, one at a time, was not tuned for it.
    Every arm of `settings` counts, for a value that failed was tried. A factor without levels (see
    `Factor.degree`) counts by the ranges of its values. A curve has no two levels to compare.
    """
    tried = [_tried(factors, factor, settings) for factor in factors.varied]
    found = []
    for n, low, high in asked:
        narrow = []
        for other, at in tried[n].items():
            one, two = at[low], at[high]
            ranges = factors.varied[other].degree > 0
            fewest = 1 if _is_rate(factors.varied[other]) else 2
            if min(len(one), len(two)) >= fewest and _shared(one, two, ranges) <= 0.5:
                narrow.append(factors.varied[other].label)
        found.append(tuple(narrow))
    return found


def _is_rate(factor: Factor) -> bool:
    return any(is_rate(name, key) for name in factor.settings for key in RATE_NAMES)


def _tried(
    factors: Factors, factor: Factor, settings: Mapping[str, Settings]
) -> dict[int, list[set[float]]]:
    """For each other numeric factor its values, on its scale, at every level of this factor."""
    if factor.degree:
        return {}
    others = {n: f for n, f in enumerate(factors.varied) if f is not factor and f.values}
    found = {n: [set[float]() for _ in factor.levels] for n in others}
    level_of = {text: level for level, text in enumerate(factor.levels)}
    for own in settings.values():
        level = level_of.get(" / ".join(text_of(own.get(name)) for name in factor.settings))
        for n, other in others.items():
            value = own.get(other.settings[0])
            if level is not None and is_number(value):
                x = float(str(value))
                found[n][level].add(math.log2(x) if other.scale == "log" and x > 0 else x)
    return found


def _shared(one: set[float], two: set[float], ranges: bool) -> float:
    """Share of the values, or of the range, of the two together that both have."""
    if not ranges or min(map(len, (one, two))) < 2:
        return len(one & two) / len(one | two)
    both = min(max(one), max(two)) - max(min(one), min(two))
    return both / (max(*one, *two) - min(*one, *two))
