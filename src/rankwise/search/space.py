"""The space of a search: its settings with their values, and the points in it.

A point is a value for each setting. What a configuration of a study is in the space, and whether it
lies in it, is told by its settings.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from rankwise.analysis.factors import is_number
from rankwise.errors import SpecError
from rankwise.spec.arms import Arm, check_key, draft_arm
from rankwise.spec.errors import arm_settings, readable, shown
from rankwise.spec.identity import canonical, name_by
from rankwise.spec.models import SearchSpec, StudySpec
from rankwise.spec.search import SEARCHED, RangeSpec
from rankwise.text import shorten

Point = Mapping[str, Any]

DIGITS = 3  # significant ones of proposed numbers, so that a configuration can be read
MOST_LISTED = 10_000


@dataclass(frozen=True)
class Choices:
    """A list of values, each another configuration; numbers in ascending order."""

    setting: str
    values: tuple[Any, ...]

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers, so that neighbours are alike."""
        return all(is_number(value) for value in self.values)

    def at(self, u: float) -> Any:
        """The value at a share of the list, from 0 up to 1."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def find(self, value: Any) -> Any | None:
        """The value of the list that is written like this one, None where there is none."""
        return next((one for one in self.values if canonical(one) == canonical(value)), None)

    def nearest(self, value: Any) -> Any:
        """The value itself where it is in the list, the nearest number, or the first one."""
        found = self.find(value)
        if found is not None:
            return found
        if not is_number(value) or not self.ordered:
            return self.values[0]
        log = min(*self.values, value) > 0
        return min(self.values, key=lambda one: abs(_on(one, log) - _on(value, log)))


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; `whole` ones, or with three significant digits."""

    setting: str
    low: float
    high: float
    log: bool
    whole: bool

    def at(self, u: float) -> float:
        """The value at a share of the range."""
        low, high = _on(self.low, self.log), _on(self.high, self.log)
        x = low + u * (high - low)
        return self.rounded(math.exp(x) if self.log else x)

    def rounded(self, x: float) -> float:
        """A number of the range as it is proposed."""
        near = round(x) if self.whole else float(f"{x:.{DIGITS}g}")
        return min(max(near, self.low), self.high)

    def find(self, value: Any) -> float | None:
        """The value, None where it is no number of the range."""
        inside = is_number(value) and self.low <= value <= self.high
        return value if inside and (not self.whole or value == int(value)) else None

    def nearest(self, value: Any) -> float:
        """The number of the range nearest to this one; the middle for what is no number."""
        return self.rounded(float(value)) if is_number(value) else self.at(0.5)


Dimension = Choices | Range


def _on(value: float, log: bool) -> float:
    return math.log(value) if log else float(value)


@dataclass(frozen=True)
class Space:
    """The settings that are searched, in the order of the spec."""

    dimensions: tuple[Dimension, ...]

    @property
    def settings(self) -> tuple[str, ...]:
        """Their dotted names."""
        return tuple(one.setting for one in self.dimensions)

    @cached_property
    def size(self) -> int | None:
        """Number of points; None where a setting has a range of numbers that are not whole."""
        sizes = [_size(one) for one in self.dimensions]
        return None if None in sizes else math.prod(size or 0 for size in sizes)

    def at(self, u_D: Sequence[float]) -> Point:
        """The point at these shares of the settings' values."""
        return {one.setting: one.at(u) for one, u in zip(self.dimensions, u_D, strict=True)}

    def points(self) -> Iterator[Point]:
        """All points; of a space that has a size."""
        values = [
            one.values if isinstance(one, Choices) else range(int(one.low), int(one.high) + 1)
            for one in self.dimensions
        ]
        for combination in itertools.product(*values):
            yield dict(zip(self.settings, combination, strict=True))

    def point_of(self, settings: Mapping[str, Any]) -> Point | None:
        """The point with these values of its settings, None where one lies outside."""
        found = {one.setting: one.find(settings.get(one.setting)) for one in self.dimensions}
        return None if None in found.values() else found

    def unused(self, used: set[str]) -> list[Point] | None:
        """The points whose spelling is not among these; None for an infinite or large space."""
        if self.size is None or self.size > MOST_LISTED:
            return None
        return [point for point in self.points() if canonical(point) not in used]


def _size(one: Dimension) -> int | None:
    if isinstance(one, Choices):
        return len(one.values)
    return int(one.high - one.low) + 1 if one.whole else None


def point_in(space: Space, spec: StudySpec, settings: Mapping[str, Any]) -> Point | None:
    """Where in the space a configuration with these effective settings lies.

    None where a value lies outside, or another setting is not that of the proposals.
    """
    point = space.point_of({**_shared(space, spec), **settings})
    if point is None:
        return None
    try:
        same = draft_arm(spec, point, "search").settings
    except SpecError:
        return None
    return point if canonical(same) == canonical(settings) else None


def _shared(space: Space, spec: StudySpec) -> dict[str, Any]:
    return {setting: value_of(spec, setting) for setting in space.settings}


def value_of(spec: StudySpec, setting: str) -> Any:
    """What the sections of a spec say of a dotted setting."""
    found: Any = spec.model_dump(mode="json", warnings=False)
    for part in setting.split("."):
        found = found[part]
    return found


def name_of(space: Space, arm: Arm) -> str:
    """A name for a proposal by the settings that are searched."""
    return name_by(arm.settings, [one for one in space.settings if one in arm.settings])


def space_of(spec: StudySpec) -> Space:
    """The space of a study's search, checked.

    Raises:
        SpecError: a setting that does not exist or cannot be searched, values that are not valid,
            a space with one point, or a sampler that cannot use the space.
    """
    search = spec.search
    assert search is not None
    known = tuple(name for name, _ in arm_settings())
    for setting in search.space:
        _check_setting(spec, setting, known)
    space = Space(tuple(_dimension(spec, *one) for one in search.space.items()))
    if space.size == 1 or not space.dimensions:
        raise SpecError(
            "search.space: has one point, and nothing to search; give a setting two values"
        )
    _check_values(spec, space)
    _check_sampler(search, space)
    return space


def _check_setting(spec: StudySpec, setting: str, known: Sequence[str]) -> None:
    place = f"search.space.{shorten(setting)}"
    check_key(setting, place, known)
    if not setting.startswith(SEARCHED):
        raise SpecError(
            f"{place}: cannot be searched, as proposals share method, rows and prompts; give its "
            f"values in grid or configs of a study without search"
        )
    if setting in spec.grid:
        raise SpecError(f"{place}: is in grid as well, which gives it a value; remove one")


def _dimension(spec: StudySpec, setting: str, given: Any) -> Dimension:
    place = f"search.space.{setting}"
    if isinstance(given, list) and given:
        return Choices(setting, tuple(sorted(given) if all(map(is_number, given)) else given))
    if not isinstance(given, dict):
        raise SpecError(
            f"{place}: must be a list of values or a range such as {{low: 1e-5, high: 1e-2, log: "
            f"true}}, found {shown(given)}"
        )
    try:
        bounds = RangeSpec.model_validate(given)
    except ValidationError as error:
        raise SpecError(readable(error, given, RangeSpec, f"{place}: ")) from None
    low, high = bounds.low, bounds.high
    if low >= high:
        raise SpecError(f"{place}: low must be below high, found low {low:g} and high {high:g}")
    if bounds.log and low <= 0:
        raise SpecError(f"{place}: log needs a low above 0, found {low:g}; set log: false")
    return Range(setting, low, high, bounds.log, _is_whole(spec, setting, low, high))


def _is_whole(spec: StudySpec, setting: str, low: float, high: float) -> bool:
    """Whether a setting takes whole numbers only: it refuses one between the bounds."""
    if low != int(low) or high != int(high):
        return False
    try:
        draft_arm(spec, {setting: low + 0.5}, "search")
    except SpecError:
        return True
    return False


def _check_values(spec: StudySpec, space: Space) -> None:
    """Try every value that is listed and every bound, the other settings at their first value."""
    first = space.at([0.0] * len(space.dimensions))
    for one in space.dimensions:
        place = f"search.space.{one.setting}"
        values = one.values if isinstance(one, Choices) else (one.low, one.high)
        seen: dict[str, Any] = {}
        for value in values:
            if value is None:
                raise SpecError(f"{place}: an entry is empty; give a value")
            key = draft_arm(spec, {**first, one.setting: value}, place).id
            if key in seen:
                raise SpecError(
                    f"{place}: {shown(seen[key])} and {shown(value)} make the same configuration; "
                    f"remove one"
                )
            seen[key] = value


def _check_sampler(search: SearchSpec, space: Space) -> None:
    if search.sampler == "grid":
        for one in space.dimensions:
            if isinstance(one, Range):
                raise SpecError(
                    f"search.space.{one.setting}: sampler grid needs a list of values, found a "
                    f"range; list them, or use another sampler"
                )
    if search.sampler in ("random", "grid"):
        for name in ("startup", "warm_start"):
            if getattr(search, name):
                raise SpecError(
                    f"search.{name}: has no effect with sampler {search.sampler}, which does not "
                    f"look at results; remove it, or use tpe or gp"
                )


def first_values(spec: StudySpec, space: Space) -> Iterator[Arm]:
    """Configurations that between them have every listed value and every bound of the space."""
    first = space.at([0.0] * len(space.dimensions))
    for one in space.dimensions:
        for value in one.values if isinstance(one, Choices) else (one.low, one.high):
            yield draft_arm(spec, {**first, one.setting: value}, f"search.space.{one.setting}")
