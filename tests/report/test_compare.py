"""Two arms side by side: what differs, how surely, and to what it may be put down."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import judge
from rankwise.errors import DataError
from rankwise.report.compare import compare_arms
from rankwise.store.writer import Store
from stored import labels


def test_two_settings_that_differ_are_credited_together(plain_study: Path) -> None:
    text, facts = compare_arms(plain_study, "r4_lr0.001_q", "r16_lr0.005_qv")
    assert set(facts["differ"]) == {"lora.r", "training.learning_rate", "lora.target_modules"}
    assert "3 settings at once" in text
    assert "it cannot be attributed to one setting" in text
    assert facts["one_setting_differs"] is False


def test_one_setting_that_differs_is_named_alone(plain_study: Path) -> None:
    text, facts = compare_arms(plain_study, "r4_lr0.001_q", "r4_lr0.005_q")
    assert facts["differ"] == {"training.learning_rate": [0.001, 0.005]}
    assert "differ only in `training.learning_rate`" in text
    assert facts["agree"]["lora.r"] == 4


def test_every_metric_has_the_mean_of_its_runs_and_an_interval(plain_study: Path) -> None:
    a, b = "r4_lr0.001_q", "r4_lr0.005_qv"
    _, facts = compare_arms(plain_study, a, b)
    json.dumps(facts, allow_nan=False)
    with Store(plain_study) as store:
        ids = labels(store)
        for one in facts["metrics"]:
            for name, value in ((a, one["first"]), (b, one["second"])):
                runs = [ids[f"{name}/seed-{seed}"] for seed in (0, 1)]
                rows = [store.evaluation_metrics(run, one["part"])[-1] for run in runs]
                assert value == pytest.approx(np.mean([row[one["metric"]] for row in rows]))
            assert one["low"] < one["difference"] < one["high"]
    decided = facts["metrics"][0]
    assert (decided["metric"], decided["better"]) == ("eval_loss", b)
    kept = {(one["part"], one["metric"]): one["claim"] for one in facts["metrics"]}
    assert set(kept.values()) == {"seeds and examples"}  # all of them are stored by example


def test_accuracy_by_example_has_the_interval_of_the_stored_answers(plain_study: Path) -> None:
    a, b = "r4_lr0.001_q", "r4_lr0.005_qv"
    _, facts = compare_arms(plain_study, a, b)
    (found,) = (
        one
        for one in facts["metrics"]
        if (one["part"], one["metric"]) == ("validation", "eval_accuracy")
    )
    with Store(plain_study) as store:
        names = [config.name for config in store.configs()]
        x_ASE = np.full((8, 2, 500), np.nan)
        for label, run in labels(store).items():
            name, _, seed = label.partition("/seed-")
            best = store.run(run).best_step
            if store.run(run).state == "done" and best is not None:
                x_ASE[names.index(name), int(seed)] = store.evaluation_at(run, best).correct
        examples = store.examples("validation")
    assert examples is not None
    groups = examples.groups.tolist()
    scores = Scores("accuracy", tuple(names), (0, 1), x_ASE, groups_E=groups, lower_is_better=False)
    expected = judge(scores).difference(a, b)
    assert [found["low"], found["high"]] == pytest.approx([expected.low, expected.high])


def test_arms_of_one_truth_are_not_told_apart(plain_study: Path) -> None:
    text, facts = compare_arms(plain_study, "r4_lr0.005_qv", "r16_lr0.005_qv")
    assert facts["metrics"][0]["better"] is None
    assert "**No significant difference:**" in text


def test_answers_and_measures_stand_beside_each_other(make_study: Any) -> None:
    folder = make_study(examples=30, answers=True)
    text, facts = compare_arms(folder, "r4_lr0.001_q", "r4_lr0.005_q")
    assert text.index("hello from r4_lr0.001_q") < text.index("hello from r4_lr0.005_q")
    assert "| Untrained base | 1 | 2.000 | 3.000 |" in text
    assert {answer["arm"] for answer in facts["answers"]} == {"r4_lr0.001_q", "r4_lr0.005_q"}


def test_an_arm_without_a_result_is_not_compared_by_numbers(make_study: Any) -> None:
    broken = {f"r4_lr0.001_q/seed-{s}": ("out_of_memory", "no memory", {"step": 1}) for s in (0, 1)}
    text, facts = compare_arms(
        make_study(examples=30, broken=broken), "r4_lr0.001_q", "r4_lr0.005_q"
    )
    assert facts["metrics"] == []
    assert "**No comparison possible:** no finished run of `r4_lr0.001_q`" in text


@pytest.mark.parametrize(
    ("pair", "word"),
    [(("r4", "r4_lr0.001_q"), "no configuration 'r4'"), (("r4_lr0.001_q",) * 2, "given twice")],
)
def test_a_wrong_name_is_answered_with_the_right_ones(
    plain_study: Path, pair: tuple[str, str], word: str
) -> None:
    with pytest.raises(DataError, match=word) as caught:
        compare_arms(plain_study, *pair)
    assert "r16_lr0.005_qv" in str(caught.value)
