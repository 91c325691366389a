"""YAML by this project's rules: plain values only, and of a bounded size whatever is written.

Text from somebody else may try to exhaust memory (aliases of aliases, thousands of levels) or to
name Python objects; both are mistakes with a line here.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from rankwise.errors import SpecError
from rankwise.spec.sections import LARGEST
from rankwise.text import nearest, shorten

INT = re.compile(r"[-+]?[0-9][0-9_]*$|0x[0-9a-fA-F]+$|0o[0-7]+$")
FLOAT = re.compile(
    r"[-+]?([0-9][0-9_]*)(\.[0-9_]*)?([eE][-+]?[0-9]+)?$|[-+]?\.[0-9][0-9_]*([eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
BOOL = re.compile(r"true$|True$|TRUE$|false$|False$|FALSE$")
NULL = re.compile(r"~$|null$|Null$|NULL$|$")
TAG = "tag:yaml.org,2002:"
MOST_BYTES = 500_000  # of a file: the reader of YAML needs seconds for so many
MOST_CHARACTERS = 1_000_000  # with every alias written out
DEEPEST = 40  # levels
TOO_DEEP = f"has more than {DEEPEST} levels"
SURROGATE = re.compile("[\ud800-\udfff]")
NO_CHARACTER = re.compile("[\x00\ud800-\udfff]")  # no file, tokenizer or database takes these


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars, so that 1e-4 is a number and `yes` text; no key may come twice."""

    levels = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.levels += 1
        if self.levels > DEEPEST:
            raise _mistake(self.peek_event(), TOO_DEEP)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise _mistake(key_node, "a key must be plain text")
            if key in seen:
                raise _mistake(key_node, f"the key {shorten(repr(key))} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """Puts quotes around text that either YAML 1.1 or `_Loader` would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _mistake(node: Any, text: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if SURROGATE.search(text):  # JSON writes a character past 16 bits as two escapes
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    broken = NO_CHARACTER.search(text)
    if broken:
        raise _mistake(node, f"holds \\u{ord(broken[0]):04x}, which is no character of a text")
    return text


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    if len(text) > 80:
        raise _mistake(node, f"{shorten(text)}: whole numbers must lie within 64 bits")
    # 010 is ten, not eight
    value = int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if abs(value) > LARGEST:
        raise _mistake(node, f"{shorten(text)}: whole numbers must lie within 64 bits")
    return value


def _real(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    special = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
    return float(special.get(text, text))


def _truth(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return {"true": True, "false": False}[loader.construct_scalar(node).lower()]


def _nothing(loader: _Loader, node: yaml.ScalarNode) -> None:
    loader.construct_scalar(node)


def _checked(name: str, build: Any) -> Any:
    """A scalar's constructor whose failure, as for `!!int x`, is a mistake with its line."""

    def construct(loader: _Loader, node: yaml.ScalarNode) -> Any:
        try:
            return build(loader, node)
        except (ValueError, KeyError):
            raise _mistake(node, f"{shorten(node.value)} is no {name}") from None

    return construct


def _unknown(loader: _Loader, node: yaml.Node) -> Any:
    raise _mistake(node, f"the tag {shorten(node.tag)} is not read here; write plain values")


_SCALARS: tuple[tuple[str, Any, re.Pattern[str] | None, list[str]], ...] = (
    ("null", _nothing, NULL, [*"~nN", ""]),
    ("bool", _truth, BOOL, [*"tTfF"]),
    ("int", _whole, INT, [*"-+0123456789"]),
    ("float", _real, FLOAT, [*"-+.0123456789"]),
    ("str", _text, None, []),
)
_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1
_Loader.yaml_constructors = {
    **{TAG + kind: yaml.SafeLoader.yaml_constructors[TAG + kind] for kind in ("seq", "map")},
    None: _unknown,
}
for _name, _build, _pattern, _first in _SCALARS:
    _Loader.add_constructor(TAG + _name, _checked(_name, _build))
    if _pattern is not None:
        _Loader.add_implicit_resolver(TAG + _name, _pattern, _first)
        Dumper.add_implicit_resolver(TAG + _name, _pattern, _first)


def read_yaml(text: str, place: str) -> Any:
    """Parse YAML by this project's rules (1e-4 is a number, a key given twice is an error).

    Raises:
        SpecError: the text is no YAML, names types other than plain ones, or is too deep or, its
            aliases written out, too large; the message starts with `place` and names the line.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        except ValueError as error:  # an escape such as "\U00110000"
            raise SpecError(f"{place}: line {loader.line + 1}: no YAML: {error}") from None
        if node is None:
            return None
        _check_size(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SpecError(f"{place}: {where}{error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        found = f"{error.character:#06x}" if isinstance(error.character, int) else "it"
        raise SpecError(f"{place}: line {line}: no YAML: {found}: {error.reason}") from None


def read_yaml_file(path: Path) -> Any:
    """What a YAML file holds, by the rules of `read_yaml`; SpecError where it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode()
    except FileNotFoundError:
        near = nearest(path.name, [found.name for found in path.parent.glob("*.y*ml")])
        raise SpecError(f"{path}: no such file{near}") from None
    except UnicodeDecodeError as error:
        raise SpecError(
            f"{path.name}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise SpecError(f"{path.name}: has more than {MOST_BYTES:,} bytes, too many to read")
    return read_yaml(text, path.name)


def _check_size(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Characters and levels of a value with its aliases written out; neither may be too many."""
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise _mistake(node, "holds itself by an alias; write it out")
        return found
    known[id(node)] = None
    size, levels = 1, 1
    if isinstance(node, yaml.ScalarNode):
        size += len(node.value)
    else:
        pairs = isinstance(node, yaml.MappingNode)
        for child in (part for pair in node.value for part in pair) if pairs else node.value:
            more, deep = _check_size(child, known)
            size, levels = size + more, max(levels, deep + 1)
    if size > MOST_CHARACTERS:
        raise _mistake(node, f"has more than {MOST_CHARACTERS:,} characters, aliases written out")
    if levels > DEEPEST:
        raise _mistake(node, TOO_DEEP)
    known[id(node)] = size, levels
    return size, levels
