"""From the settings of arms to factors: what varies, what moves together, what is isolated.

Array suffixes: A arms, L levels of a factor, P columns of a factor in the additive model.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from rankwise.analysis.scores import Floats
from rankwise.text import names, number

Settings = Mapping[str, object]
ABSENT = "not set"
# Fewer values that hardly repeat are levels.
FEWEST_OF_A_CURVE = 6
# Shares and momenta act by their difference; other positive numbers by their ratio.
LINEAR = ("dropout", "ratio", "beta", "smoothing", "momentum")
RATE_NAMES = ("learning_rate", "lr")
Scale = Literal["log", "linear"]


def scale_of(name: str, values: Sequence[float]) -> Scale:
    """ "log" where all values are positive, save for shares such as the dropout."""
    share = any(word in name.rpartition(".")[2] for word in LINEAR)
    return "log" if values and min(values) > 0 and not share else "linear"


def on_scale(values: Sequence[float], scale: Scale) -> Floats:
    """Values on their scale: their log2, so that a doubling is 1, or themselves."""
    x = np.array(values, dtype=np.float64)
    return np.log2(x) if scale == "log" else x


@dataclass(frozen=True)
class Factor:
    """One setting, or several that always change together, with their levels.

    settings  their names
    levels    texts; in ascending order if there are `values`
    values    the numbers of the first numeric setting, one per level, None for a level without it
              (the rank of full fine-tuning); None for a categorical factor
    level_A   level of each arm, by position
    degree    0: one column a level. 1 or 2: values rarely repeat, as in a random search, so a line
              or a quadratic through all values on their scale takes the place of the levels
    """

    settings: tuple[str, ...]
    levels: tuple[str, ...]
    values: tuple[float | None, ...] | None
    level_A: tuple[int, ...]
    degree: int = 0

    @property
    def scale(self) -> Scale:
        """Of a numeric factor."""
        return scale_of(self.settings[0], [v for v in self.values or () if v is not None])

    @cached_property
    def position_L(self) -> Floats:
        """Each level on the factor's scale; NaN for a level without a value."""
        return on_scale([np.nan if v is None else v for v in self.values or ()], self.scale)

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
        texts = [text_of(settings[arm].get(key)) for arm in arms]
        first_seen = list(dict.fromkeys(texts))
        if len(first_seen) == 1:
            constant.append((key, texts[0]))
        else:
            by_partition.setdefault(tuple(map(first_seen.index, texts)), []).append(key)
    own = [settings[arm] for arm in arms]
    varied = tuple(
        _factor(together, partition, own)
        for partition, keys in by_partition.items()
        for together in _moving_together(keys, partition, own)
    )
    return Factors(tuple(arms), _with_degrees(varied, len(arms)), tuple(constant))


def _moving_together(
    keys: list[str], partition: tuple[int, ...], settings: Sequence[Settings]
) -> list[list[str]]:
    """Settings that change at the same places, in groups that are one factor each.

    That is one group, save where every arm has its own values, as in a random search: there numbers
    move together only if they have the same order, or the opposite one.
    """
    if len(set(partition)) < max(FEWEST_OF_A_CURVE, len(partition)):
        return [keys]
    groups: dict[tuple[int, ...], list[str]] = {}
    for key in keys:
        values = [one.get(key) for one in settings]
        if all(map(is_number, values)):
            order = tuple(np.argsort(np.array(values, dtype=np.float64)).tolist())
            groups.setdefault(min(order, order[::-1]), []).append(key)
    found = list(groups.values()) or [[]]
    return [[*found[0], *(key for key in keys if not any(key in g for g in found))], *found[1:]]


def _with_degrees(varied: tuple[Factor, ...], arms: int) -> tuple[Factor, ...]:
    """Quadratics for factors whose values rarely repeat; lines where the arms are too few."""
    curved = [f for f in varied if _rarely_repeats(f)]
    for degree in (2, 1):
        found = tuple(replace(f, degree=degree) if f in curved else f for f in varied)
        if 1 + sum(level_columns(f).shape[1] for f in found) < arms - 1:
            break
    return found


def _rarely_repeats(factor: Factor) -> bool:
    whole = factor.values is not None and None not in factor.values
    return whole and len(factor.levels) >= max(FEWEST_OF_A_CURVE, 0.8 * len(factor.level_A))


def isolated_pairs(factors: Factors, factor: Factor, low: int, high: int) -> list[tuple[str, str]]:
    """Pairs of arms (at level low, at level high) that differ only in `factor`."""
    rest: dict[tuple[int, ...], tuple[list[str], list[str]]] = {}
    others = [other.level_A for other in factors.varied if other is not factor]
    for a, arm in enumerate(factors.arms):
        if factor.level_A[a] in (low, high):
            sides = rest.setdefault(tuple(level_A[a] for level_A in others), ([], []))
            sides[factor.level_A[a] == high].append(arm)
    return [(one, two) for lows, highs in rest.values() for one in lows for two in highs]


def middle_level(factor: Factor) -> int:
    """The level nearest to the middle of the range of a factor of three values or more."""
    x_L = factor.position_L
    nearest = int(np.argmin(np.abs(x_L - (x_L[0] + x_L[-1]) / 2)))
    return min(max(nearest, 1), len(x_L) - 2)


def level_pairs(factor: Factor) -> list[tuple[int, int]]:
    """Pairs of levels to compare.

    Neighbours and ends if ordered; all if up to 4; else each against the most frequent. Without
    levels: the two halves of the range, so that a U does not hide, and its ends.
    """
    last = len(factor.levels) - 1
    if factor.degree:
        middle = middle_level(factor)
        return [(0, middle), (middle, last), (0, last)]
    if factor.values is not None:
        first = 1 if factor.values[0] is None else 0
        steps = list(pairwise(range(first, last + 1)))
        return steps if last - first < 2 else [*steps, (first, last)]
    if last < 4:
        return list(combinations(range(last + 1), 2))
    usual = max(range(last + 1), key=factor.level_A.count)
    return [(usual, level) for level in range(last + 1) if level != usual]


def level_columns(factor: Factor) -> Floats:
    """What each level adds to the additive model (L, P); the first level is the reference, zero.

    One indicator per further level; with a degree, the powers of a position that runs from 0 at the
    lowest value to 1 at the highest.
    """
    if factor.degree == 0:
        return np.eye(len(factor.levels))[:, 1:]
    x_L = factor.position_L
    z_L = (x_L - x_L.min()) / (x_L.max() - x_L.min())
    return np.stack([z_L**power for power in range(1, factor.degree + 1)], axis=1)


def columns(factor: Factor) -> Floats:
    """The columns of a factor in the additive model (A, P)."""
    return level_columns(factor)[list(factor.level_A)]


def _factor(keys: list[str], partition: tuple[int, ...], settings: list[Settings]) -> Factor:
    examples = [settings[partition.index(level)] for level in range(max(partition) + 1)]
    numeric = next((key for key in keys if _is_numeric([e.get(key) for e in examples])), None)
    if numeric is None:
        texts = [" / ".join(text_of(e.get(key)) for key in keys) for e in examples]
        return Factor(tuple(keys), tuple(texts), None, partition)
    found = [e.get(numeric) for e in examples]
    values = [None if value is None else float(str(value)) for value in found]
    sizes = [-math.inf if value is None else value for value in values]
    order = sorted(range(len(values)), key=sizes.__getitem__)
    keys = [numeric, *(key for key in keys if key != numeric)]
    return Factor(
        settings=tuple(keys),
        levels=tuple(" / ".join(text_of(examples[n].get(key)) for key in keys) for n in order),
        values=tuple(values[n] for n in order),
        level_A=tuple(order.index(level) for level in partition),
    )


def _is_numeric(values: Sequence[object]) -> bool:
    """At least two numbers; all others are settings that an arm does not have."""
    return sum(map(is_number, values)) > 1 and all(is_number(v) for v in values if v is not None)


def is_number(value: object) -> bool:
    """Whether a setting's value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def text_of(value: object) -> str:
    """One text a value; numbers that are equal have the same text."""
    if value is None:
        return ABSENT
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if abs(value) < 1e6 else number(float(value))
    return json.dumps(value, sort_keys=True, default=str)
