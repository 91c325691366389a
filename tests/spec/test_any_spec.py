"""Whatever a spec holds, it gives a study or one message with a place, in bounded time."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from odd_specs import overrides, spec_texts, try_spec
from rankwise.errors import SpecError
from rankwise.spec.arms import make_arms
from rankwise.spec.load import load_spec
from rankwise.spec.read_yaml import read_yaml

GOOD = """\
study: odd
model: {name: somewhere/model}
task: CAUSAL_LM
data: {source: rows.csv, text: text}
"""


@settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(spec_texts(), overrides())
def test_any_text_gives_a_study_or_a_message_with_a_place(text, changes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.yaml"
        path.write_bytes(text)
        try_spec(path, changes)


def said(text, *overrides, folder):
    path = folder / "spec.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError) as caught:
        make_arms(load_spec(path, overrides))
    return str(caught.value)


LAUGHS = "l0: &l0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [(LAUGHS, "line 6, column 5: has more than 1,000,000 characters, aliases written out"),
     ("grid: &a [*a]", "line 1, column 7: holds itself by an alias"),
     ("[" * 20_000, "has more than 40 levels"), ("- " * 20_000, "has more than 40 levels"),
     ("x: " + "[" * 50 + "]" * 50, "line 1, column 43: has more than 40 levels"),
     (b"x" * 500_001, "has more than 500,000 bytes"),
     ("a: !!python/object/apply:os.system [ls]", "line 1, column 4: the tag tag:yaml.org"),
     ("a: !!binary aGk=", "is not read here; write plain values"),
     ("a: !!timestamp 2001-01-01", "is not read here"), ("a: !!set {x}", "is not read here"),
     ("a: !!int x", "line 1, column 4: x is no int"), ("a: !!bool maybe", "maybe is no bool"),
     ("a: !!float x", "x is no float"),
     ('a: "\\ud800"', "line 1, column 4: holds \\ud800, which is no character of a text"),
     ('a: "\\0"', "holds \\u0000"), ('a: "\\U00110000"', "line 1: no YAML"),
     ("a: \x1b", "line 1: no YAML: 0x001b"), ("a: " + "9" * 5000, "must lie within 64 bits"),
     ("a: 9223372036854775808", "must lie within 64 bits"),
     ("? [a]\n: b", "a key must be plain text")],
)  # fmt: skip
def test_yaml_that_is_no_plain_values_is_refused_with_its_line(tmp_path, text, words):
    assert words in said(text, folder=tmp_path)


def test_a_character_that_json_writes_in_two_halves_is_read_whole():
    assert read_yaml('{"a": "\\ud83d\\ude00"}', "x") == {"a": "\U0001f600"}


@pytest.mark.parametrize(
    ("text", "words"),
    [(GOOD + "lora: {r: 4}\nconfigs: [{lora: {r: 8}, lora.r: 2}]",
      "configs[0]: lora.r: is given twice"),
     (GOOD + "grid: {lora: {r: [8]}, lora.r: [2]}", "spec.yaml: grid: lora.r: is given twice"),
     (GOOD + f"training: {{lr_scheduler_kwargs: {{? {'9' * 5000}x : 1}}}}", "takes no 999"),
     (GOOD + "lora: *" + "x" * 9000, "found undefined alias"),
     (GOOD + f"configs: [{{name: {'x' * 9000}}}]", "choose another name"),
     (GOOD + f"configs: [{{lora.lora_alpha: {'x' * 9000}}}]", "must be a number or a rule"),
     (GOOD + "? " + "x" * 9000 + "\n: 1\n", "no such setting"),
     (GOOD + "lora: {r: '99999999999999999999'}", "lora: r: whole numbers must lie within 64 bits"),
     (GOOD + f"lora: {{r: {2**63 - 1}, lora_alpha: {'9' * 18}r}}", None),
     (GOOD + "seeds: ['99999999999999999999']", "seeds: whole numbers must lie within 64 bits"),
     (GOOD + "data.augment.factor: 1", "no such setting"),
     (GOOD.replace("text: text", "text: text, augment: {factor: 2147483648}"),
      "less than or equal to 1000"),
     (GOOD + "configs: [" + "{lora.r: 1}," * 10_001 + "]", "10,001 configurations, but at most")],
)  # fmt: skip
def test_what_specs_of_every_kind_have_shown(tmp_path, text, words):
    if words is None:
        (tmp_path / "spec.yaml").write_text(text)
        assert make_arms(load_spec(tmp_path / "spec.yaml"))
    else:
        found = said(text, folder=tmp_path)
        assert words in found
        assert len(found) < 2000


def test_an_override_names_an_entry_by_plain_digits(tmp_path):
    text = GOOD + "configs: [{lora.r: 2}]"
    assert "has no entry \u00b2" in said(text, "configs.\u00b2.lora.r=3", folder=tmp_path)
    assert "has no entry 01" in said(text, "configs.01.lora.r=3", folder=tmp_path)


def test_an_override_of_a_nested_grid_is_the_dotted_one(tmp_path):
    (tmp_path / "spec.yaml").write_text(GOOD + "grid: {lora: {r: [2, 4]}}")
    spec = load_spec(tmp_path / "spec.yaml", ["grid.lora.r=[8]"])
    assert spec.grid == {"lora.r": [8]}
