"""What to say of mistakes in a spec: pydantic's findings in one readable message, nearest names."""

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rankwise.spec.models import Section, StudySpec

MISTAKES_SHOWN = 5
WANTED = {
    "bool": "true or false is wanted",
    "dict": "a mapping of names to values is wanted",
    "float": "a number is wanted",
    "int": "a whole number is wanted",
    "list": "a list is wanted",
    "model": "a mapping of settings is wanted",
    "string": "text (in quotes) is wanted",
    "tuple": "a list is wanted",
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
            saying = no_such_setting(place, setting_names(model))
        else:
            saying = _saying(mistakes)
        lines.append(prefix + (f"{place}: " if place else "") + saying)
    if len(places) > MISTAKES_SHOWN:
        lines.append(f"{prefix}and more mistakes ({len(places) - MISTAKES_SHOWN})")
    return "\n".join(lines)


def _place(mistake: Any, raw: Any) -> str:
    """The dotted place of a mistake; the names pydantic gives a union's branches left out."""
    text, here = "", raw
    loc = mistake["loc"]
    for depth, part in enumerate(loc):
        missing = mistake["type"] == "missing" and depth == len(loc) - 1
        if isinstance(here, dict) and (part in here or missing):
            text += f".{part}" if text else str(part)
            here = here.get(part)
        elif isinstance(here, list | tuple) and isinstance(part, int) and part < len(here):
            text += f"[{part}]"
            here = here[part]
    return text


def _saying(mistakes: Sequence[Any]) -> str:
    """One setting's mistakes (several where pydantic tried several types) in one phrase."""
    sayings = dict.fromkeys(_one_saying(mistake) for mistake in mistakes)
    if len(sayings) > 1:  # branches of a union
        if WANTED["float"] in sayings:
            sayings.pop(WANTED["int"], None)
        sayings = dict.fromkeys(text.removesuffix(" is wanted") for text in sayings)
        text = " or ".join(sayings) + " is wanted"
    else:
        text = next(iter(sayings))
    if mistakes[0]["type"] in ("missing", "value_error"):
        return text
    return f"{text}, found {shown(mistakes[0]['input'])}"


def _one_saying(mistake: Any) -> str:
    kind: str = mistake["type"]
    if kind == "missing":
        return "is required"
    if kind == "value_error":
        return str(mistake["ctx"]["error"])
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", mistake["ctx"]["expected"])
        near = difflib.get_close_matches(str(mistake["input"]), options, n=1, cutoff=0.5)
        listed = mistake["ctx"]["expected"].replace("'", "")
        return f"one of {listed} is wanted" + (f" (nearest: {near[0]})" if near else "")
    family = kind.split("_")[0]
    if kind.endswith(("_type", "_parsing", "_from_float")) and family in WANTED:
        return WANTED[family]
    if kind == "too_short":
        return "at least one entry is wanted"
    if kind == "string_pattern_mismatch":
        return "letters, digits, dots, dashes and underscores are wanted"
    text: str = mistake["msg"]
    if text.startswith("Input should be "):
        return f"a value {text.removeprefix('Input should be ')} is wanted"
    return text


def shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def no_such_setting(place: str, names: Sequence[str]) -> str:
    """What to say of an unknown setting at `place`: the nearest of the existing dotted `names`."""
    section, _, leaf = place.rpartition(".")
    siblings = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] == section}
    elsewhere = {n.rpartition(".")[2]: n for n in names}
    near = difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.6)
    if near:
        return f"no such setting; nearest: {near[0]}"
    if leaf in elsewhere:
        return f"no such setting; nearest: {elsewhere[leaf]}"
    near = difflib.get_close_matches(leaf, elsewhere, n=1, cutoff=0.6)
    if near:
        return f"no such setting; nearest: {elsewhere[near[0]]}"
    return f"no such setting; there are: {', '.join(siblings or elsewhere)}"


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
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def arm_settings() -> Iterator[tuple[str, FieldInfo]]:
    """The settings in which the arms of one study may differ, as (dotted name, field)."""
    varying = ("training.", "lora.", "ranks.", "generation.", "data.augment.")
    single = ("method", "data.max_samples", "model.quantization")
    for name, field in fields_of(StudySpec):
        if name in single or name.startswith(varying):
            yield name, field
