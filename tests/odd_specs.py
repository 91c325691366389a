"""Specs of every kind of oddness, as hypothesis draws them: mutated good ones, and any text.

`tests/spec/test_any_spec.py` tries a few of them, `benchmarks/fuzz_spec.py` as many as asked.
"""

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from rankwise.errors import UserError
from rankwise.spec.arms import Arm, make_arms
from rankwise.spec.docs import json_schema
from rankwise.spec.errors import setting_names
from rankwise.spec.load import dump_spec, load_spec
from rankwise.spec.models import StudySpec
from rankwise.spec.read_yaml import read_yaml

ROOT = Path(__file__).parents[1]
EXAMPLES = tuple(
    yaml.safe_load(path.read_text()) for path in sorted((ROOT / "examples").glob("*.yaml"))
)
SCHEMA = json_schema()
VARYING = {
    name: values["items"] for name, values in SCHEMA["properties"]["grid"]["properties"].items()
}
SETTINGS = setting_names(StudySpec)
TEXTS = (
    "", " ", "\n", "a\nb", "~", "null", "1e-4", "1e400", ".nan", "0x", "-", "*a", "&a", "!!int x",
    "..", "../../x", "a/b", "CON", "nul", "best", "base", "x" * 300, "x" * 70_000, "é", "名前",
    "\u202e", "\ufeff", "\U0001f600", "a\tb", "²", "١٢", "9" * 30, "9" * 5000, "1_0", "infr",
    "nanr", "2r", "-r", "r", "sqrt", "all-linear", "query", "[", "(", "(?P<x>", "(a+)+$",
    "{column}", "{0}",
    "{", "pkg://", "pkg://x", "pkg://yaml/../..", "pkg://a.b/c", "hub/name", "a/b/c", "~nobody/x",
    "f.py:g", "f.py:", "http://user:word@host/x.csv", "cuda:99", "cpu", "cuda:x", "mps",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2, 7, 64, 10_001, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**40, 0.0, -0.0,
    0.5, 1.0, 1.5, -0.1, 1e-320, 1e-45, 1e308, -1e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
PIECES = (
    ": ", "- ", "\n", "\n  ", "  ", "{", "}", "[", "]", ",", "&a ", "*a", "!!binary ", "!!set ",
    "? ", "!!python/object/apply:os.system [ls]", "!!timestamp 2001-01-01", "!x ", "<<: *a",
    "|\n", ">\n",
    "---\n", "...\n", "%YAML 9.9\n", "%TAG ! x\n", "\x00", "\x1b", "\ufeff", '"\\ud800"', '"\\0"',
    '"\\U00110000"', "'", '"', "#", "@", "`", "\t", "[" * 60, "[" * 3000, "- " * 3000, "{a: " * 60,
    "._", "1_", "0x_", "0o8", "1e", "=", "9" * 5000, "study: x\n",
)  # fmt: skip

odd_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(NUMBERS),
        st.sampled_from(TEXTS),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(TEXTS), st.sampled_from(SETTINGS), st.none(), st.integers()),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=4,
)


def fitting(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a JSON schema's type, large ones too, not all of which a setting takes."""
    if "anyOf" in schema:
        return st.one_of([fitting(option) for option in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "$ref" in schema:
        return fitting(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    match schema.get("type"):
        case "boolean":
            return st.booleans()
        case "integer":
            return st.sampled_from((1, 2, 3, 4, 5, 8, 16, 64, 1000, 0, 2**31, 2**62))
        case "number":
            return st.sampled_from((0.1, 0.2, 0.5, 0.9, 1e-3, 1.0, 2.0, 3, 0.0, 1e-300, 1e300))
        case "array":
            return st.lists(fitting(schema.get("items", {})), max_size=3)
        case "null":
            return st.none()
        case "object" if "properties" in schema:
            names = sorted(schema["properties"])
            return st.dictionaries(st.sampled_from(names), odd_values, max_size=2)
        case "object":
            kind = schema.get("additionalProperties")
            inner = fitting(kind) if isinstance(kind, dict) else odd_values
            return st.dictionaries(st.sampled_from(TEXTS), inner, max_size=2)
    return st.sampled_from(TEXTS)


@st.composite
def setting_values(draw: st.DrawFn, name: str) -> Any:
    """Values for a setting that may vary: mostly of its type."""
    return draw(odd_values if draw(st.integers(0, 19)) == 11 else fitting(VARYING[name]))


@st.composite
def varying(draw: st.DrawFn) -> Any:
    """A grid, or a list of configurations, of real settings."""
    names = st.lists(st.sampled_from(sorted(VARYING)), min_size=1, max_size=3, unique=True)
    if draw(st.booleans()):
        return "grid", {
            name: draw(st.lists(setting_values(name), min_size=1, max_size=3))
            for name in draw(names)
        }
    entries = []
    for _ in range(draw(st.integers(1, 3))):
        entry = {name: draw(setting_values(name)) for name in draw(names)}
        if draw(st.integers(0, 9)) == 7:
            entry["name"] = draw(st.one_of(st.sampled_from(TEXTS), st.text(max_size=5)))
        entries.append(entry)
    return "configs", entries


def _places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    parts = tree.items() if isinstance(tree, dict) else ()
    parts = enumerate(tree) if isinstance(tree, list) else parts
    for key, part in parts:
        found += _places(part, (*at, key))
    return found


@st.composite
def mutated(draw: st.DrawFn, good: Sequence[dict[str, Any]], most: int = 3) -> dict[str, Any]:
    """A good spec with up to `most` changes."""
    spec = copy.deepcopy(draw(st.sampled_from(good)))
    gentle = draw(st.integers(0, 3)) != 2
    for _ in range(1 if gentle else draw(st.integers(1, most))):
        kinds = () if gentle else ("drop", "odd", "rename", "move")
        change = draw(st.sampled_from(("varying", "setting", *kinds)))
        if change == "varying":
            key, value = draw(varying())
            spec[key] = value
        elif change == "setting":
            name = draw(st.sampled_from(sorted(VARYING)))
            _put(spec, name, draw(setting_values(name)))
        else:
            _disturb(draw, spec, change)
    return spec


def _put(spec: dict[str, Any], name: str, value: Any) -> None:
    *sections, leaf = name.split(".")
    here = spec
    for section in sections:
        if not isinstance(here.get(section), dict):
            here[section] = {}
        here = here[section]
    here[leaf] = value


def _disturb(draw: st.DrawFn, spec: dict[str, Any], change: str) -> None:
    places = _places(spec)
    if not places:
        return
    *above, key = draw(st.sampled_from(places))
    here: Any = spec
    for part in above:
        here = here[part]
    value = here[key]
    if change == "odd":
        here[key] = draw(odd_values)
    elif change == "move":
        here[key] = draw(st.sampled_from(([value], {"x": value}, str(value), copy.deepcopy(spec))))
    elif isinstance(here, list):
        here.append(copy.deepcopy(value)) if change == "rename" else here.pop(key)
    else:
        del here[key]
        if change == "rename":
            name = draw(st.one_of(st.sampled_from(TEXTS), st.sampled_from(SETTINGS), st.integers()))
            here[name] = value


def written(spec: dict[str, Any]) -> st.SearchStrategy[str]:
    """A spec as YAML, in one of three hands."""
    return st.sampled_from((0, 1, 2)).map(
        lambda hand: (
            json.dumps(spec)
            if hand == 0
            else yaml.safe_dump(spec, default_flow_style=hand == 1, sort_keys=False)
        )
    )


@st.composite
def disturbed_text(draw: st.DrawFn, good: Sequence[dict[str, Any]]) -> str:
    """A good spec's YAML with pieces put in, cut out or repeated."""
    text = yaml.safe_dump(draw(st.sampled_from(good)), sort_keys=False)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 30)))
        match draw(st.sampled_from(("put", "put", "cut", "repeat", "value"))):
            case "put":
                text = text[:at] + draw(st.sampled_from(PIECES)) + text[at:]
            case "cut":
                text = text[:at] + text[end:]
            case "repeat":
                text = text[:at] + text[at:end] * 2 + text[end:]
            case "value":
                values = [found.start(1) for found in re.finditer(r": (\S)", text)] or [at]
                at = draw(st.sampled_from(values))
                text = text[:at] + draw(st.sampled_from(PIECES)) + " " + text[at:]
    return text


@st.composite
def spec_texts(draw: st.DrawFn, good: Sequence[dict[str, Any]] = EXAMPLES) -> bytes:
    """Files of every kind, most of them near to a good one."""
    kind = draw(st.sampled_from((9, 9, 9, 0, 1, 2, 3, 9, 9, 9)))
    if kind == 0:
        return draw(st.binary(max_size=40))
    if kind == 1:
        text = "".join(draw(st.lists(st.sampled_from(PIECES + TEXTS), max_size=12)))
    elif kind < 4:
        text = draw(disturbed_text(good))
    else:
        text = draw(written(draw(mutated(good))))
    return text.encode("utf-8", "surrogatepass")


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    """Up to two texts as for `--set`."""
    if draw(st.integers(0, 9)) not in (3, 7):
        return []
    found = []
    for _ in range(draw(st.integers(1, 2))):
        names = (*SETTINGS, *(f"grid.{name}" for name in VARYING), "configs.0.lora.r", "seeds.²")
        key = draw(st.one_of(st.sampled_from(names), st.text(max_size=6)))
        plain = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS)).map(str)
        value = draw(st.one_of(plain, odd_values.map(lambda v: json.dumps(v, default=str)),
                               st.sampled_from(PIECES)))  # fmt: skip
        found.append(draw(st.sampled_from(("{}={}", "{}={}", "{}{}"))).format(key, value))
    return found


def try_spec(path: Path, changes: Sequence[str]) -> tuple[StudySpec, tuple[Arm, ...]] | None:
    """The study of a spec file; None where it is refused by a message with a place.

    Raises:
        Exception: what no user should see.
    """
    try:
        spec = load_spec(path, changes)
        arms = make_arms(spec)
    except UserError as error:
        check_message(str(error))
        return None
    kept = dump_spec(spec)  # what the store keeps
    assert dump_spec(StudySpec.model_validate(read_yaml(kept, "kept"))) == kept
    return spec, arms


def check_message(said: str) -> None:
    """A message names a place, is of a bounded length, and can be printed anywhere."""
    assert re.match(r"\S.*?(:|are the same configuration)", said), said
    assert len(said) < 3000, said
    said.encode()
