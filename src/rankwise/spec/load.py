"""Spec files: from YAML to a checked `StudySpec`, with one readable message on mistakes."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rankwise.errors import SpecError
from rankwise.spec.errors import readable, shown
from rankwise.spec.models import StudySpec
from rankwise.text import nearest

INT = re.compile(r"[-+]?[0-9][0-9_]*$|0x[0-9a-fA-F]+$|0o[0-7]+$")
FLOAT = re.compile(
    r"[-+]?([0-9][0-9_]*)(\.[0-9_]*)?([eE][-+]?[0-9]+)?$|[-+]?\.[0-9_]+([eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
BOOL = re.compile(r"true$|True$|TRUE$|false$|False$|FALSE$")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars, so that 1e-4 is a number and `yes` text; no key may come twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1


class _Dumper(yaml.SafeDumper):
    """Puts quotes around text that either YAML 1.1 or `_Loader` would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in (
    ("null", re.compile(r"~$|null$|Null$|NULL$|$"), [*"~nN", ""]),
    ("bool", BOOL, [*"tTfF"]),
    ("int", INT, [*"-+0123456789"]),
    ("float", FLOAT, [*"-+.0123456789"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)  # 010 is ten, not eight


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


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
    raw = read_yaml(_text_of(path), path.name)
    if not isinstance(raw, dict):
        raise SpecError(f"{path.name}: must be a mapping of settings, found {shown(raw)}")
    places = [_override(raw, text) for text in overrides]
    if "arms" in raw:
        raise SpecError(f"{path.name}: arms: this key is now named `configs`; rename it")
    if isinstance(raw.get("grid"), dict):
        raw["grid"] = dict(_flat_lists(raw["grid"]))
    _refuse_idle_overrides(raw, places)
    try:
        return StudySpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(readable(error, raw, StudySpec, f"{path.name}: ")) from None


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = nearest(path.name, [found.name for found in path.parent.glob("*.y*ml")])
        raise SpecError(f"{path}: no such file{near}") from None
    except UnicodeDecodeError as error:
        raise SpecError(
            f"{path.name}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None


def read_yaml(text: str, place: str) -> Any:
    """Parse YAML by this project's rules (1e-4 is a number, a key given twice is an error).

    Raises:
        SpecError: the text is no YAML; the message starts with `place` and names the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SpecError(f"{place}: {where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{place}: not readable as YAML: {error}") from None
    except ValueError as error:
        raise SpecError(f"{place}: {error}") from None


def _override(raw: dict[Any, Any], text: str) -> str:
    """Write `a.b.c=value` into the raw spec and return the dotted name."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name or not all(name.split(".")):
        raise SpecError(f"--set {text}: write it as name.of.setting=value")
    parsed = read_yaml(value, f"--set {text}")
    keys = name.split(".")
    if keys[0] == "grid" and len(keys) > 1:
        keys = ["grid", ".".join(keys[1:])]  # a key of the grid is itself a dotted name
    elif keys[0] == "configs" and len(keys) > 2:
        keys = ["configs", keys[1], ".".join(keys[2:])]
    here: Any = raw
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(here, list):
            if not key.isdigit() or int(key) >= len(here):
                raise SpecError(f"--set {text}: {'.'.join(keys[:depth])} has no entry {key}")
            index: Any = int(key)
        elif isinstance(here, dict):
            index = key
        else:
            raise SpecError(f"--set {text}: {'.'.join(keys[:depth])} is not a mapping of settings")
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


def _flat_lists(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The grid with dotted keys, whether it was written nested or dotted."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat_lists(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def dump_spec(spec: StudySpec) -> str:
    """The spec as YAML that `load_spec` reads back as an equal spec; only what was given."""
    plain = json.loads(spec.model_dump_json(exclude_unset=True))
    return yaml.dump(
        plain, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100,
        allow_unicode=True,
    )  # fmt: skip
