"""A spec file says what is meant, or what is wrong with it."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from rankwise.errors import SpecError
from rankwise.spec.docs import json_schema, spec_reference
from rankwise.spec.load import dump_spec, load_spec
from rankwise.spec.models import StudySpec

ROOT = Path(__file__).parents[2]
SPEC = """\
study: reviews
model: {name: somewhere/model}
task: SEQ_CLS
data: {source: rows.csv, text: text, label: category, labels: [yes, no]}
training: {max_steps: 20, learning_rate: 1e-3}
lora: {lora_dropout: 0.05, target_modules: [query, value]}
grid:
  lora.r: [4, 16]
seeds: [0, 1]
"""


@pytest.fixture
def load(tmp_path):
    def load_text(text: str, *overrides: str) -> StudySpec:
        path = tmp_path / "review.yaml"
        path.write_text(text)
        return load_spec(path, overrides)

    return load_text


def said(load, text, *overrides):
    with pytest.raises(SpecError) as caught:
        load(text, *overrides)
    return str(caught.value)


def test_numbers_with_an_exponent_are_numbers_and_yes_is_a_label(load):
    spec = load(SPEC)
    assert spec.training.learning_rate == 0.001
    assert spec.data.labels == ("yes", "no")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E4", 1e4), ("1_000", 1000), (".5", 0.5), ("010", 10), ("0x10", 16),
     ("true", True), ("null", None), ("~", None), ("", None), ("on", "on"), ("1:30", "1:30"),
     ("2024-01-01", "2024-01-01"), ("'1e-4'", "1e-4"), ("-3", -3), ("1e", "1e"), ("2r", "2r"),
     ("e5", "e5"), ("1.2.3", "1.2.3")],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(load, text, value):
    found = load(SPEC.replace("lora.r: [4, 16]", f"lora.r: [{text or '~'}]")).grid["lora.r"][0]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "value"), [("0.01", 0.01), ("1", 1.0), ("1%", "1%"), ("0.5 %", "0.5 %"), ("", None)]
)
def test_a_tolerance_is_a_number_or_a_share(load, text, value):
    assert load(SPEC + f"objective: {{tolerance: {text}}}\n").objective.tolerance == value


@pytest.mark.parametrize("text", ["0", "-1", "0%", "little", "1 percent", ".inf", "[1]"])
def test_another_tolerance_is_refused(load, text):
    message = said(load, SPEC + f"objective: {{tolerance: {text}}}\n")
    assert message.startswith("review.yaml: objective.tolerance: must be ")


def test_a_key_given_twice_is_an_error_with_its_line(load):
    message = said(load, SPEC + "task: CAUSAL_LM\n")
    assert message == "review.yaml: line 10, column 1: the key 'task' is given twice"


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("learning_rate", "lerning_rate",
         "review.yaml: training.lerning_rate: no such setting; nearest: learning_rate"),
        ("study: reviews", "study: reviews\nr: 8",
         "review.yaml: r: no such setting; nearest: lora.r"),
        ("max_steps: 20", "max_steps: many",
         "review.yaml: training.max_steps: must be a whole number, found 'many'"),
        ("max_steps: 20", "max_steps: 0",
         "review.yaml: training.max_steps: must be greater than or equal to 1, found 0"),
        ("[query, value]", "[query, 3]",
         "review.yaml: lora.target_modules[1]: must be text (in quotes), found 3"),
        ("[query, value]", "3.5",
         "review.yaml: lora.target_modules: must be text (in quotes) or a list, found 3.5"),
        ("task: SEQ_CLS", "task: SEQCLS",
         "review.yaml: task: must be one of CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM, "
         "found 'SEQCLS'; nearest: SEQ_CLS"),
        ("task: SEQ_CLS\n", "", "review.yaml: task: is required"),
        ("seeds: [0, 1]", "seeds: []",
         "review.yaml: seeds: must be a list with at least one entry, found []"),
        ("lora.r: [4, 16]", "lora.r: 4", "review.yaml: grid.lora.r: must be a list, found 4"),
        ("{max_steps: 20, learning_rate: 1e-3}", "12",
         "review.yaml: training: must be a mapping of settings, found 12"),
        ("lora: {", "lora: {lora_alpha: wide, ",
         "review.yaml: lora.lora_alpha: must be a number or a rule such as '2r' or "
         "'sqrt', found 'wide'"),
        ("study: reviews", "study: 'a b'",
         "review.yaml: study: must be made of letters, digits, dots, dashes and "
         "underscores, the first a letter or digit, found 'a b'"),
        ("seeds: [0, 1]", "seeds: [1, 1]",
         "review.yaml: seeds: a seed is given twice and would repeat its runs; remove one"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_place_finding_and_remedy(load, old, new, wanted):
    assert said(load, SPEC.replace(old, new)) == wanted


def test_of_many_mistakes_the_first_five_are_said_one_a_line(load):
    lines = said(load, SPEC, *(f"training.x{n}=1" for n in range(7))).splitlines()
    assert len(lines) == 6
    assert all(line.startswith("review.yaml: training.x") for line in lines[:5])
    assert lines[5] == "review.yaml: and 2 more mistakes"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "review.yaml: must be a mapping of settings, found nothing"),
        ("- a\n", "review.yaml: must be a mapping of settings, found ['a']"),
        ("a: [1,\n", "review.yaml: line 2, column 1: "),
        ("a: !!python/object:os.system {}\n", "review.yaml: line 1, column 4: "),
        ("? [a, b]\n: 1\n", "review.yaml: line 1, column 3: a key must be plain text"),
    ],
)
def test_what_is_no_spec_is_an_error_with_its_place(load, text, wanted):
    assert said(load, text).startswith(wanted)


def test_a_missing_file_is_said_with_its_neighbour(tmp_path):
    (tmp_path / "review.yaml").write_text(SPEC)
    with pytest.raises(SpecError, match=r"reviw\.yaml: no such file; nearest: review\.yaml"):
        load_spec(tmp_path / "reviw.yaml")


def test_a_binary_file_and_a_folder_are_no_specs(tmp_path):
    (tmp_path / "bin.yaml").write_bytes(b"\xff\xfe\x00")
    for place in (tmp_path / "bin.yaml", tmp_path):
        with pytest.raises(SpecError):
            load_spec(place)


def test_every_value_can_be_overridden(load):
    spec = load(
        SPEC + "configs: [{lora.r: 64}]\n", "training.max_steps=7", "data.split.validation=100",
        "grid.training.learning_rate=[1e-3, 1e-2]", "configs.0.lora.r=32", "seeds=[5]",
        "lora.rank_pattern={layer.0.query: 2}", "hardware.max_runs=3",
    )  # fmt: skip
    assert spec.training.max_steps == 7
    assert spec.data.split.validation == 100
    assert spec.grid["training.learning_rate"] == [0.001, 0.01]
    assert spec.configs[0]["lora.r"] == 32
    assert spec.seeds == (5,)
    assert spec.lora.rank_pattern == {"layer.0.query": 2}
    assert spec.hardware.max_runs == 3


@pytest.mark.parametrize(
    "override", ["lora.r", "=3", "a..b=1", "study.x=1", "configs.0.r=1", "task=["]
)
def test_an_override_that_cannot_be_is_an_error(load, override):
    assert "--set" in said(load, SPEC, override) or "review.yaml" in said(load, SPEC, override)


def test_an_override_that_the_grid_overrules_is_refused(load):
    assert said(load, SPEC, "lora.r=8").startswith("--set lora.r: has no effect")
    assert load(SPEC + "configs: [{name: one}]\n", "lora.r=8").lora.r == 8


@pytest.mark.parametrize("override", ["arms=[{name: one}]", None])
def test_the_old_key_of_the_list_is_answered_with_the_new_one(load, override):
    text = SPEC if override else SPEC + "arms: [{name: one}]\n"
    message = said(load, text, *filter(None, [override]))
    assert message == "review.yaml: arms: this key is now named `configs`; rename it"


def test_a_nested_grid_is_the_dotted_one(load):
    nested = SPEC.replace("lora.r: [4, 16]", "lora: {r: [4, 16]}")
    assert load(nested) == load(SPEC)


@pytest.mark.parametrize("label", ["1e-4", "yes", "010", "null", "2024-01-01", "a: b", "é", "0x1"])
def test_a_dumped_spec_loads_as_the_same_spec(load, label):
    spec = load(SPEC, f"data.labels=['{label}', rest]")
    assert spec.data.labels == (label, "rest")
    assert load(dump_spec(spec)) == spec
    assert yaml.safe_load(dump_spec(spec))["data"]["labels"][0] == label


def test_the_schema_accepts_a_good_spec_and_refuses_a_typo(load):
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    good = json.loads(load(SPEC).model_dump_json(exclude_unset=True))
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(good | {"grid": {"lora.rr": [1]}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(good | {"training": {"lerning_rate": 1}}, schema)


def test_the_written_documents_are_those_of_the_models():
    assert (ROOT / "docs/spec.md").read_text() == spec_reference()
    assert json.loads((ROOT / "docs/spec.schema.json").read_text()) == json_schema()


def test_reading_a_spec_imports_neither_torch_nor_transformers():
    code = (
        "import sys, rankwise.spec.load, rankwise.spec.arms, rankwise.study.cohorts;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'peft')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
