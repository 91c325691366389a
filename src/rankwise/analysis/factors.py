"""From the settings of arms to factors: what varies, what moves together, what is isolated.

The learning rate is the factor that hides others: was it tuned for every structure, and is the best
value at an end of those tried?
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rankwise.analysis.scores import Floats
from rankwise.text import names, number

Settings = Mapping[str, object]
ABSENT = "not set"


@dataclass(frozen=True)
class Factor:
    """One setting, or several that always change together, with their levels.

    settings  their names
    levels    texts; in ascending order if there are `values`
    values    the numbers of the first numeric setting, one per level, None for a level without it
              (the rank of full fine-tuning); None for a categorical factor
    level_A   level of each arm, by position
    """

    settings: tuple[str, ...]
    levels: tuple[str, ...]
    values: tuple[float | None, ...] | None
    level_A: tuple[int, ...]

    @property
    def on_a_line(self) -> bool:
        """Whether values rarely repeat, as in a random search: a line is fitted instead of levels.

        The line is straight in the logarithm where all values are positive.
        """
        whole = self.values is not None and None not in self.values
        return whole and len(self.levels) >= max(6, 0.8 * len(self.level_A))

    @property
    def label(self) -> str:
        """`lora.r`, or `lora.r with lora.lora_alpha`."""
        first, *rest = self.settings
        return f"{first} with {names(rest)}" if rest else first


@dataclass(frozen=True)
class Factors:
    """All settings of a study.

    constant  (setting, value) that are the same in every arm, so their effect is unknown
    """

    arms: tuple[str, ...]
    varied: tuple[Factor, ...]
    constant: tuple[tuple[str, str], ...]


def find_factors(arms: Sequence[str], settings: Mapping[str, Settings]) -> Factors:
    """The factors of `arms`, whose settings are `settings[arm]`; a missing key is "not set"."""
    keys = list(dict.fromkeys(key for arm in arms for key in settings[arm]))
    constant, by_partition = [], dict[tuple[int, ...], list[str]]()
    for key in keys:
        texts = [_text(settings[arm].get(key)) for arm in arms]
        first_seen = list(dict.fromkeys(texts))
        if len(first_seen) == 1:
            constant.append((key, texts[0]))
        else:
            by_partition.setdefault(tuple(map(first_seen.index, texts)), []).append(key)
    varied = tuple(
        _factor(keys, partition, [settings[arm] for arm in arms])
        for partition, keys in by_partition.items()
    )
    return Factors(tuple(arms), varied, tuple(constant))


def isolated_pairs(factors: Factors, factor: Factor, low: int, high: int) -> list[tuple[str, str]]:
    """Pairs of arms (at level low, at level high) that differ only in `factor`."""
    rest: dict[tuple[int, ...], tuple[list[str], list[str]]] = {}
    others = [other.level_A for other in factors.varied if other is not factor]
    for a, arm in enumerate(factors.arms):
        if factor.level_A[a] in (low, high):
            sides = rest.setdefault(tuple(level_A[a] for level_A in others), ([], []))
            sides[factor.level_A[a] == high].append(arm)
    return [(one, two) for lows, highs in rest.values() for one in lows for two in highs]


def columns(factor: Factor) -> Floats:
    """Columns of a factor in the additive model, with its first level as the reference.

    One indicator per further level (A, levels - 1); for a factor on a line one column (A, 1) that
    runs from 0 at the lowest value to 1 at the highest.
    """
    if not factor.on_a_line:
        return np.eye(len(factor.levels))[list(factor.level_A)][:, 1:]
    x = np.array([0.0 if v is None else v for v in factor.values or ()])
    x = np.log(x) if x.min() > 0 else x
    return np.asarray(((x - x.min()) / (x.max() - x.min()))[list(factor.level_A)][:, None])


def _factor(keys: list[str], partition: tuple[int, ...], settings: list[Settings]) -> Factor:
    examples = [settings[partition.index(level)] for level in range(max(partition) + 1)]
    numeric = next((key for key in keys if _is_numeric([e.get(key) for e in examples])), None)
    if numeric is None:
        texts = [" / ".join(_text(e.get(key)) for key in keys) for e in examples]
        return Factor(tuple(keys), tuple(texts), None, partition)
    found = [e.get(numeric) for e in examples]
    values = [None if value is None else float(str(value)) for value in found]
    sizes = [-math.inf if value is None else value for value in values]
    order = sorted(range(len(values)), key=sizes.__getitem__)
    keys = [numeric, *(key for key in keys if key != numeric)]
    return Factor(
        settings=tuple(keys),
        levels=tuple(" / ".join(_text(examples[n].get(key)) for key in keys) for n in order),
        values=tuple(values[n] for n in order),
        level_A=tuple(order.index(level) for level in partition),
    )


def _is_numeric(values: Sequence[object]) -> bool:
    """At least two numbers; all others are settings that an arm does not have."""
    return sum(map(_is_number, values)) > 1 and all(_is_number(v) for v in values if v is not None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    """One text a value; numbers that are equal have the same text."""
    if value is None:
        return ABSENT
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if abs(value) < 1e6 else number(float(value))
    return json.dumps(value, sort_keys=True, default=str)


Kind = Literal["not varied", "at the lowest", "at the highest", "inside"]


@dataclass(frozen=True)
class LearningRateFlag:
    """One structure, that is one set of all other settings that vary, and its learning rates.

    tried     learning rates in ascending order, those of failed arms included
    finished  those whose arm has a score
    best      the one with the best score; None if no arm finished
    kind      "not varied": only one learning rate; "at the lowest" or "at the highest": the best is
              at an end of the range tried, so a better one may lie outside; "inside": neither
    """

    structure: tuple[tuple[str, str], ...]
    arms: tuple[str, ...]
    tried: tuple[float, ...]
    finished: tuple[float, ...]
    best: float | None
    kind: Kind


def learning_rate_flags(
    settings: Mapping[str, Settings],
    score: Mapping[str, float | None],
    lower_is_better: bool = True,
    key: str = "learning_rate",
) -> tuple[LearningRateFlag, ...]:
    """A flag for each structure of `settings`; `score` is None for an arm without a finished run.

    `key` names the learning rate, with or without a prefix such as `training.`. Arms that do not
    have it are left out.
    """
    found = {arm: _rate(own, key) for arm, own in settings.items()}
    arms = [arm for arm, rate in found.items() if rate is not None]
    others = {arm: {k: v for k, v in settings[arm].items() if not _is(k, key)} for arm in arms}
    varied = find_factors(arms, others).varied if arms else ()
    structures: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for a, arm in enumerate(arms):
        levels = tuple((f.label, f.levels[f.level_A[a]]) for f in varied)
        structures.setdefault(levels, []).append(arm)
    rates = {arm: rate for arm, rate in found.items() if rate is not None}
    return tuple(
        _flag(structure, members, rates, score, lower_is_better)
        for structure, members in structures.items()
    )


def _is(name: str, key: str) -> bool:
    return name == key or name.endswith(f".{key}")


def _rate(settings: Settings, key: str) -> float | None:
    for name, value in settings.items():
        if _is(name, key) and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def _flag(
    structure: tuple[tuple[str, str], ...],
    arms: list[str],
    rates: Mapping[str, float],
    score: Mapping[str, float | None],
    lower_is_better: bool,
) -> LearningRateFlag:
    tried = tuple(sorted({rates[arm] for arm in arms}))
    scored = [(value, rates[arm]) for arm in arms if (value := score.get(arm)) is not None]
    best = (min(scored) if lower_is_better else max(scored))[1] if scored else None
    kind = _kind(tried, best)
    finished = tuple(sorted({rate for _, rate in scored}))
    return LearningRateFlag(structure, tuple(arms), tried, finished, best, kind)


def _kind(tried: tuple[float, ...], best: float | None) -> Kind:
    if len(tried) == 1:
        return "not varied"
    if best == tried[0]:
        return "at the lowest"
    return "at the highest" if best == tried[-1] else "inside"
