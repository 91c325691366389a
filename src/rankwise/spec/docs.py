"""The generated documents of the spec: `docs/spec.md` and `docs/spec.schema.json`.

`python -m rankwise.spec.docs docs` writes them.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from rankwise.spec.errors import arm_settings, fields_of, section_of
from rankwise.spec.models import Section, StudySpec
from rankwise.spec.search import SEARCHED, RangeSpec


def json_schema() -> dict[str, Any]:
    """A JSON schema of the spec file, for editors; the grid's keys are written out."""
    schema = StudySpec.model_json_schema()
    settings = dict(arm_settings())
    definitions: dict[str, Any] = schema["$defs"]
    schema["properties"]["grid"] |= {
        "additionalProperties": False,
        "properties": {
            name: {"type": "array", "minItems": 1, "items": _schema_of(field, definitions)}
            for name, field in settings.items()
        },
    }
    definitions["RangeSpec"] = RangeSpec.model_json_schema()
    either = [{"type": "array", "minItems": 1}, {"$ref": "#/$defs/RangeSpec"}]
    definitions["SearchSpec"]["properties"]["space"] |= {
        "additionalProperties": False,
        "properties": {name: {"anyOf": either} for name in settings if name.startswith(SEARCHED)},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A rankwise study",
    } | {key: value for key, value in schema.items() if key != "title"}


def _schema_of(field: FieldInfo, definitions: dict[str, Any]) -> dict[str, Any]:
    kind: Any = field.annotation
    for constraint in field.metadata:
        kind = Annotated[kind, constraint]
    found = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}")
    definitions.update(found.pop("$defs", {}))
    return found | {"description": field.description}


def spec_reference() -> str:
    """The reference of all settings as Markdown tables, generated from the models."""
    parts = [_REFERENCE_HEAD, _table("", StudySpec)]
    for name, field in fields_of(StudySpec):
        section = section_of(field)
        if section is not None:
            doc = (section.__doc__ or "").split("\n\n")[0]
            parts.append(f"## `{name}`\n\n{doc}\n\n{_table(name + '.', section)}")
    return "\n".join(parts)


_REFERENCE_HEAD = """# The spec, setting by setting

Generated from the models in `src/rankwise/spec/` by `make docs`; do not edit.

A spec is a YAML file. Unknown settings are errors, and so is a key given twice; `1e-4` is a number,
and only `true` and `false` are truth values. Every setting can be given on the command line as
`--set training.max_steps=20`. Settings marked *yes* under "varies" may differ between the
configurations of a study: in `grid` (dotted name to a list of values; every combination is a
configuration) or in an entry of `configs`.
"""


def _table(prefix: str, model: type[Section]) -> str:
    varying = dict(arm_settings())
    rows = ["| setting | values | default | varies | meaning |", "|---|---|---|---|---|"]
    for name, field in model.model_fields.items():
        section = section_of(field) is not None
        kind = "section" if section else _kind(field)
        default = "" if section else _default(field)
        may_vary = "yes" if prefix + name in varying else ""
        cells = (f"`{name}`", kind, default, may_vary, field.description or "")
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return ""
    if isinstance(value, tuple):
        value = list(value)
    return f"`{json.dumps(value)}`"


def _kind(field: FieldInfo) -> str:
    """The values a field takes, in words, from its own JSON schema."""
    words = _words(_schema_of(field, {}))
    return words.replace(" or nothing", "") if not field.is_required() else words


def _words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_words(option) for option in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_words(schema.get('items', {}))}"
    names = {
        "string": "text", "integer": "whole number", "number": "number", "object": "mapping",
        "boolean": "`true`, `false`", "null": "nothing", "any": "any",
    }  # fmt: skip
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]}" for key, sign in limits.items() if key in schema]
    return " ".join([names[kind], ", ".join(bounds)]).strip()


def write_docs(folder: Path) -> None:
    """Write `spec.md` and `spec.schema.json` into `folder`."""
    (folder / "spec.md").write_text(spec_reference(), encoding="utf-8")
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    (folder / "spec.schema.json").write_text(schema, encoding="utf-8")


if __name__ == "__main__":
    write_docs(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
