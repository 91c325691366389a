"""The recommended configuration to take away: a spec for rankwise, and its peft.LoraConfig."""

import copy
import pprint
from collections.abc import Mapping
from typing import Any

import yaml

from rankwise.results.judge import Choice
from rankwise.results.records import Records

LOOK = (
    "# Not a recommendation: this study does not show how much results vary between seeds. This\n"
    "# configuration has the best value; run it and the next ones with more seeds first.\n"
)


def recommended_yaml(records: Records, choice: Choice) -> str:
    """The recommended configuration as a spec; a comment on top says if it is no recommendation.

    Raises:
        ValueError: there is no such arm.
    """
    if choice.arm is None:
        raise ValueError("no arm to recommend")
    text = as_yaml(recommended_spec(records, choice.arm))
    return LOOK + text if choice.basis == "look" else text


def recommended_spec(records: Records, arm: str) -> dict[str, Any]:
    """The study's spec with this configuration alone: no grid, no list, settings in sections."""
    spec: dict[str, Any] = copy.deepcopy(records.study["spec"])
    spec["grid"], spec["configs"] = {}, []
    for name, value in records.arm(arm).settings.items():
        *sections, leaf = name.split(".")
        here = spec
        for section in sections:
            here = here.setdefault(section, {})
        here[leaf] = value
    spec["study"] = f"{spec.get('study', 'study')}-recommended"
    return _without_empty(spec)


def _without_empty(section: dict[str, Any]) -> dict[str, Any]:
    """A section without fields that are not given; what a user wrote as `config` stays whole."""
    found = {
        name: _without_empty(value) if isinstance(value, dict) and name != "config" else value
        for name, value in section.items()
    }
    return {name: value for name, value in found.items() if value not in (None, {}, [])}


def as_yaml(tree: Mapping[str, Any]) -> str:
    """YAML in the given order; numbers such as 1e-4 in a spelling that YAML reads as a number."""
    text: str = yaml.safe_dump(_plain(tree), sort_keys=False, allow_unicode=True, width=100)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value


def peft_snippet(records: Records, arm: str) -> str | None:
    """Python that makes the configuration's peft.LoraConfig, everything in it resolved.

    None for full fine-tuning, and for studies of earlier versions, which did not store it.
    """
    adapter = records.arm(arm).adapter
    if not adapter:
        return None
    lines = [f"    {name}={_python(value)}," for name, value in adapter.items()]
    return "\n".join(["from peft import LoraConfig", "", "config = LoraConfig(", *lines, ")"])


def _python(value: Any) -> str:
    """The value as Python writes it, over several lines where it is long."""
    text = pprint.pformat(_plain(value), width=90, sort_dicts=False, compact=True)
    return text.replace("\n", "\n        ")
