"""The settings of a spec by their dotted names, and mistakes in a spec as messages."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rankwise.errors import SpecError
from rankwise.spec.models import Section, StudySpec
from rankwise.text import closest, nearest, shorten


def setting_names(model: type[BaseModel]) -> tuple[str, ...]:
    """The dotted names of all settings of a model, sections included."""
    return tuple(name for name, _ in fields_of(model))


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting of `model` as (dotted name, field), a section before its own settings."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        section = section_of(field)
        if section is not None:
            yield from fields_of(section, f"{prefix}{name}.")


def section_of(field: FieldInfo) -> type[Section] | None:
    """The model of a field that is a section of the spec, else None."""
    for kind in (field.annotation, *get_args(field.annotation)):  # `RaceSpec | None`, too
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def arm_settings() -> Iterator[tuple[str, FieldInfo]]:
    """The settings in which the configurations of one study may differ, as (dotted name, field)."""
    varying = ("training.", "lora.", "ranks.", "generation.", "data.augment.")
    single = ("method", "data.max_samples", "model.quantization")
    for name, field in fields_of(StudySpec):
        if name in single or name.startswith(varying):
            yield name, field


MISTAKES_SHOWN = 5
KINDS = {
    "bool": "true or false",
    "dict": "a mapping of names to values",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "model": "a mapping of settings",
    "string": "text (in quotes)",
    "tuple": "a list",
}


def readable(error: ValidationError, raw: Any, model: type[BaseModel], prefix: str) -> str:
    """Pydantic's findings as one message: the first few mistakes, one a line, place first.

    Args:
        error: what pydantic raised for `raw`.
        raw: the input as it was given.
        model: the model it was checked against, for the nearest name of an unknown one.
        prefix: what each line starts with, such as the file's name.
    """
    found: dict[str, list[Any]] = {}
    for mistake in error.errors(include_url=False):
        found.setdefault(_place(mistake, raw), []).append(mistake)
    # Of a union's branches the one that got furthest says most: `labels[1]` before `labels`.
    places = [a for a in found if not any(b.startswith(f"{a}[") for b in found if a)]
    lines = []
    for place in places[:MISTAKES_SHOWN]:
        mistakes = found[place]
        if mistakes[0]["type"] == "extra_forbidden":
            message = no_such_setting(place, setting_names(model))
        else:
            message = _message(mistakes)
        lines.append(prefix + (f"{place}: " if place else "") + message)
    if len(places) > MISTAKES_SHOWN:
        lines.append(f"{prefix}and {len(places) - MISTAKES_SHOWN} more mistakes")
    return "\n".join(lines)


def _place(mistake: Any, raw: Any) -> str:
    """The dotted place of a mistake; the names pydantic gives a union's branches left out."""
    text, here = "", raw
    loc = mistake["loc"]
    for depth, part in enumerate(loc):
        missing = mistake["type"] == "missing" and depth == len(loc) - 1
        if isinstance(here, dict) and (part in here or missing):
            name = shorten(part, 60)
            text += f".{name}" if text else name
            here = here.get(part)
        elif isinstance(here, list | tuple) and isinstance(part, int) and part < len(here):
            text += f"[{part}]"
            here = here[part]
    return text


def _message(mistakes: Sequence[Any]) -> str:
    """The message on one setting; several mistakes are of the types that pydantic tried."""
    kind, value = mistakes[0]["type"], mistakes[0]["input"]
    if kind == "missing":
        return "is required"
    if kind == "value_error":
        return shorten(mistakes[0]["ctx"]["error"], 400)
    allowed = list(dict.fromkeys(_allowed(mistake) for mistake in mistakes))
    if KINDS["float"] in allowed and KINDS["int"] in allowed:
        allowed.remove(KINDS["int"])
    near = nearest(str(value), _options(mistakes[0])) if kind == "literal_error" else ""
    return f"must be {' or '.join(allowed)}, found {shown(value)}{near}"


def _options(mistake: Any) -> list[str]:
    return re.findall(r"'([^']*)'", mistake["ctx"]["expected"])


def _allowed(mistake: Any) -> str:
    """What pydantic would have taken in place of the value."""
    kind: str = mistake["type"]
    if kind == "literal_error":
        return f"one of {mistake['ctx']['expected'].replace(chr(39), '')}"
    family = kind.split("_")[0]
    if kind.endswith(("_type", "_parsing", "_from_float")) and family in KINDS:
        return KINDS[family]
    if kind == "value_error":
        return str(mistake["ctx"]["error"]).removeprefix("must be ")
    if kind == "too_short":
        return "a list with at least one entry"
    if kind == "string_pattern_mismatch":
        return "made of letters, digits, dots, dashes and underscores, the first a letter or digit"
    return str(mistake["msg"]).removeprefix("Input should be ")


def shown(value: Any) -> str:
    """A value as it was written, on one short line."""
    return "nothing" if value is None else shorten(repr(value), 60)


def flat(
    tree: Mapping[Any, Any], whole: Collection[str] = (), prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Settings with dotted names, whether written nested or dotted; `whole` ones are not opened."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and name not in whole:
            yield from flat(value, whole, f"{name}.")
        else:
            yield name, value


def once(settings: Iterable[tuple[str, Any]], place: str) -> dict[str, Any]:
    """Settings by name; SpecError where one is written nested and dotted as well."""
    found: dict[str, Any] = {}
    for name, value in settings:
        if name in found:
            raise SpecError(f"{place}: {shorten(name)}: is given twice; remove one")
        found[name] = value
    return found


def no_such_setting(place: str, names: Sequence[str]) -> str:
    """What to say of an unknown setting at `place`: the nearest of the existing dotted `names`."""
    section, _, leaf = place.rpartition(".")
    siblings = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] == section}
    elsewhere = {n.rpartition(".")[2]: n for n in names}
    near = closest(leaf, siblings)
    if not near:
        near = [
            elsewhere[name] for name in ([leaf] if leaf in elsewhere else closest(leaf, elsewhere))
        ]
    if near:
        return f"no such setting; nearest: {near[0]}"
    return f"no such setting; there are: {', '.join(siblings or elsewhere)}"
