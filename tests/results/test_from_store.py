"""The facts for machines say what the report says, and hold to their schema."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rankwise.report.json import facts_schema, read_facts
from rankwise.store.writer import Store
from stored import labels


@pytest.fixture(scope="module")
def facts(plain_study: Path) -> dict[str, Any]:
    return read_facts(plain_study)


def test_facts_hold_to_their_schema_and_to_json(facts: dict[str, Any]) -> None:
    schema = facts_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(json.dumps(facts, allow_nan=False)), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**facts, "format": "one"}, schema)


def test_every_run_is_there_with_its_outcome_and_every_failure_with_a_diagnosis(
    facts: dict[str, Any],
) -> None:
    assert len(facts["runs"]) == 16
    (failed,) = [run for run in facts["runs"] if run["state"] != "done"]
    assert failed["id"] == "r16_lr0.005_q/seed-1"
    assert facts["diagnoses"][failed["id"]]["bad_step"] == 33
    last = failed["tail"][-1]
    assert (last["step"], last["loss"], last["grad_norm"]) == (33, None, 51.0)


def test_values_are_those_of_the_best_validation_step(
    facts: dict[str, Any], plain_study: Path
) -> None:
    with Store(plain_study) as store:
        ids = labels(store)
        for run in facts["runs"]:
            if run["state"] == "done":
                rows = store.evaluation_metrics(ids[run["id"]])
                assert run["value"] == min(row["eval_loss"] for row in rows)
                assert run["test"] == {
                    k: v for k, v in store.evaluation_metrics(ids[run["id"]], "test")[0].items()
                    if k != "step"
                }  # fmt: skip


def test_effects_find_what_was_planted_and_not_what_was_not(facts: dict[str, Any]) -> None:
    effects = {e["factor"]["settings"][0]: e["differences"][0] for e in facts["effects"]["factors"]}
    rate = effects["training.learning_rate"]
    assert rate["low_bound"] < -0.03 < rate["high_bound"]
    assert rate["high_bound"] < 0
    assert effects["lora.r"]["low_bound"] < 0 < effects["lora.r"]["high_bound"]


def test_examples_are_judged_by_group(facts: dict[str, Any]) -> None:
    assert facts["verdict"]["unit"] == "groups of examples"
    assert facts["verdict"]["examples"] < 500
