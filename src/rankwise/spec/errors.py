"""Mistakes in a spec as messages: place, what must be there, what was found, nearest names."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from rankwise.spec.settings import setting_names
from rankwise.text import closest, nearest, shorten

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
            text += f".{part}" if text else str(part)
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
        return str(mistakes[0]["ctx"]["error"])
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
