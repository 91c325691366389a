"""Spec files: from YAML to a checked `StudySpec`, with one readable message on mistakes."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rankwise.errors import SpecError
from rankwise.spec.errors import flat, once, readable, shown
from rankwise.spec.models import StudySpec
from rankwise.spec.read_yaml import Dumper, read_yaml, read_yaml_file
from rankwise.text import shorten


def load_spec(path: Path, overrides: Sequence[str] = ()) -> StudySpec:
    """Read a study's spec from a YAML file; `a.b.c=value` overrides apply before it is checked.

    Args:
        path: the YAML file (UTF-8).
        overrides: settings as `dotted.name=value`, the value in YAML.

    Raises:
        SpecError: the file cannot be read, is no YAML, or holds unknown settings or invalid
            values; the first few mistakes, one a line, each with its place.
    """
    path = Path(path)
    raw = read_yaml_file(path)
    if not isinstance(raw, dict):
        raise SpecError(f"{path.name}: must be a mapping of settings, found {shown(raw)}")
    _flatten_grid(raw, path.name)  # before the overrides, which name a setting of the grid dotted
    _flatten_space(raw, path.name)
    places = [_override(raw, text) for text in overrides]
    if "arms" in raw:
        raise SpecError(f"{path.name}: arms: this key is now named `configs`; rename it")
    _flatten_grid(raw, path.name)
    _flatten_space(raw, path.name)
    _refuse_idle_overrides(raw, places)
    try:
        return StudySpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(readable(error, raw, StudySpec, f"{path.name}: ")) from None


def _flatten_grid(raw: dict[Any, Any], place: str) -> None:
    if isinstance(raw.get("grid"), dict):
        raw["grid"] = once(flat(raw["grid"]), f"{place}: grid")


def _flatten_space(raw: dict[Any, Any], place: str) -> None:
    """As the grid; a mapping with `low` or `high` is a range."""
    search = raw.get("search")
    if isinstance(search, dict) and isinstance(search.get("space"), dict):
        ranges = set(_ranges(search["space"]))
        search["space"] = once(flat(search["space"], ranges), f"{place}: search.space")


def _ranges(tree: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and {"low", "high"} & value.keys():
            yield f"{prefix}{key}"
        elif isinstance(value, dict):
            yield from _ranges(value, f"{prefix}{key}.")


def _override(raw: dict[Any, Any], text: str) -> str:
    """Write `a.b.c=value` into the raw spec and return the dotted name."""
    name, equals, value = text.partition("=")
    name = name.strip()
    place = f"--set {shorten(text)}"
    if not equals or not name or not all(name.split(".")):
        raise SpecError(f"{place}: write it as name.of.setting=value")
    parsed = read_yaml(value, place)
    keys = name.split(".")
    if keys[0] == "grid" and len(keys) > 1:
        keys = ["grid", ".".join(keys[1:])]  # a key of the grid is itself a dotted name
    elif keys[:2] == ["search", "space"] and len(keys) > 2:
        *setting, last_key = keys[2:]
        bound = [last_key] if setting and last_key in ("low", "high", "log") else []
        keys = [*keys[:2], ".".join(keys[2 : len(keys) - len(bound)]), *bound]
    elif keys[0] == "configs" and len(keys) > 2:
        keys = ["configs", keys[1], ".".join(keys[2:])]
    here: Any = raw
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(here, list):
            index: Any = next((n for n in range(len(here)) if str(n) == key), None)
            if index is None:
                raise SpecError(f"{place}: {'.'.join(keys[:depth])} has no entry {key}")
        elif isinstance(here, dict):
            index = key
        else:
            raise SpecError(f"{place}: {'.'.join(keys[:depth])} is not a mapping of settings")
        if last:
            here[index] = parsed
        elif isinstance(here, dict) and here.get(index) is None:
            here[index] = {}
        here = here[index]
    return name


def _refuse_idle_overrides(raw: dict[Any, Any], names: Sequence[str]) -> None:
    """Refuse an override that the grid would replace in every configuration."""
    grid = raw.get("grid")
    if not isinstance(grid, dict) or raw.get("configs"):
        return
    for name in names:
        if name in grid:
            raise SpecError(
                f"--set {name}: has no effect, because the grid varies {name}; "
                f"use --set grid.{name}=[...] instead"
            )


def dump_spec(spec: StudySpec) -> str:
    """The spec as YAML that `load_spec` reads back as an equal spec; only what was given."""
    plain = json.loads(spec.model_dump_json(exclude_unset=True))
    return yaml.dump(
        plain, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=100,
        allow_unicode=True,
    )  # fmt: skip
