"""The plan of a race, what one would save, and which differences a study could find."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from black_box import rankwise
from conftest import SPEC, write_study
from rankwise.analysis.pair_noise import detectable_difference
from rankwise.cli.app import look
from rankwise.cli.tables import print_plan, race_words
from rankwise.search.race import Decision, RaceRules, decide
from rankwise.search.simulate import expected_runs
from rankwise.study.expected import expect_race, rungs_of, would_race
from rankwise.study.noise import detectable_words, look_for_differences, recorded_noise
from rankwise.study.plan import StudyPlan
from tiny_text import tiny_spec

STUDY: dict[str, Any] = {
    "grid": {"lora.r": [2, 4], "training.learning_rate": [1e-4, 1e-3, 1e-2]},
    "seeds": [0, 1],
    "lora": {"target_modules": ["query", "value"]},
    "training": {"max_steps": 20, "eval_steps": 2, "per_device_train_batch_size": 4},
}


def written(folder: Path, **more: Any) -> Path:
    spec = {**tiny_spec(folder, "bert", "labelled", **{**STUDY, **more})}
    (folder / "study.yaml").write_text(yaml.safe_dump(spec))
    return folder / "study.yaml"


def planned(folder: Path, **more: Any) -> StudyPlan:
    plan = look(written(folder, **more), [])
    assert isinstance(plan, StudyPlan)
    return plan


def test_the_plan_of_a_race_says_rungs_budget_and_runs(tmp_path: Path) -> None:
    spec = written(tmp_path, budget={"runs": 8}, race={"at_once": 3})
    code, out, _ = rankwise("plan", spec, "--out", tmp_path / "out", "--json")
    assert code == 0
    facts = json.loads(out)
    race = facts["race"]
    assert race["rungs"] == pytest.approx([step / 20 for step in range(6, 20, 2)])
    assert race["budget"] == race["most"] == 8
    assert race["grid"] == 12
    low, middle, high = race["total"]
    assert 0 < low <= middle <= high <= 8
    assert race["seconds"] == pytest.approx(
        [runs * facts["seconds"] / facts["trainings"] for runs in race["total"]]
    )
    assert facts["would_race"] is None
    words = " ".join(race_words(facts))
    assert "compared 7 times, from 30 % to 90 % of their steps, 3 at once" in words
    assert "a budget of 8 full runs" in words
    assert "A full grid takes 12" in words


def test_the_expected_runs_are_those_of_the_simulation(tmp_path: Path) -> None:
    race = expect_race(planned(tmp_path, budget={"runs": 30}, race={"audit": 0.2}))
    assert race is not None
    rules = RaceRules(audit=0.2, seeds=(0, 1), most_seeds=2)
    found = expected_runs(6, race.rungs, rules, 30)
    assert race.race == found.race
    assert race.total == tuple(min(runs, 12) for runs in found.total)


def test_rungs_are_the_first_evaluations_from_there_on(tmp_path: Path) -> None:
    plan = planned(tmp_path, budget={"runs": 8}, race={"rungs": [0.31, 0.38, 0.95]})
    assert plan.spec.race is not None
    assert rungs_of(plan, plan.spec.race) == pytest.approx((0.4,))
    never = planned(tmp_path, budget={"runs": 8}, race={"rungs": []})
    race = expect_race(never)
    assert race is not None
    assert race.race == (6, 6, 6)


def test_a_budget_in_tokens_is_told_in_full_runs(tmp_path: Path) -> None:
    plan = planned(tmp_path, budget={"tokens": 10_000})
    lengths = [len(one.input_ids) for one in plan.train[plan.arms[0].training_id]]
    race = expect_race(plan)
    assert race is not None
    assert race.budget == pytest.approx(10_000 / (20 * 4 * sum(lengths) / len(lengths)))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, True),
        ({"seeds": [0]}, False),
        ({"grid": {"training.learning_rate": [1e-4, 1e-3, 1e-2]}}, False),
        ({"budget": {"runs": 8}}, False),
    ],
)
def test_a_plain_study_is_told_what_a_race_would_save(
    more: dict[str, Any], told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rankwise.cli.tables import plan_facts

    plan = planned(tmp_path, **more)
    assert (would_race(plan) is not None) is told
    print_plan(plan_facts(plan))
    line = "A race would take about"
    assert (line in capsys.readouterr().out) is told


def test_the_difference_that_can_be_found_is_of_recorded_noise_at_first(tmp_path: Path) -> None:
    plan = planned(tmp_path / "here")
    found = look_for_differences(plan, tmp_path / "here" / "studies" / "out")
    assert found is not None
    groups = [example.group for example in plan.data.validation]
    noise, source = recorded_noise("SEQ_CLS")
    assert found.value == detectable_difference(noise, 6, 2, groups)
    words = detectable_words(found)
    assert words.startswith(f"With 2 seeds and {len(groups)} examples differences of about ")
    assert "in validation loss can be found (80 %)" in words
    assert words.endswith(f"noise as in {source}.")


def test_an_earlier_study_of_the_task_gives_its_noise(tmp_path: Path) -> None:
    plan = planned(tmp_path / "spec")
    shelf = tmp_path / "studies"
    write_study(shelf / "other", spec={**SPEC, "study": "earlier"}, examples=60, seed_noise=0.03)
    data = {"source": str(tmp_path / "spec" / "rows.jsonl")}
    recorded = look_for_differences(plan, tmp_path / "elsewhere" / "out")
    other = look_for_differences(plan, shelf / "out")
    assert recorded is not None
    assert other is not None
    assert other.source == "the study earlier, on other data"
    assert other.value != recorded.value
    write_study(shelf / "same", spec={**SPEC, "study": "before", "data": data}, examples=60)
    same = look_for_differences(plan, shelf / "out")
    assert same is not None
    assert same.source == "the study before"


def test_a_study_of_another_task_or_metric_says_nothing(tmp_path: Path) -> None:
    plan = planned(tmp_path / "spec")
    shelf = tmp_path / "studies"
    write_study(shelf / "task", spec={**SPEC, "task": "CAUSAL_LM"}, examples=60)
    write_study(
        shelf / "metric", spec={**SPEC, "objective": {"metric": "eval_accuracy"}}, examples=60
    )
    (shelf / "damaged").mkdir()
    (shelf / "damaged" / "study.db").write_bytes(b"no database")
    found = look_for_differences(plan, shelf / "out")
    assert found is not None
    assert found.source == recorded_noise("SEQ_CLS")[1]


def test_one_seed_is_told_apart(tmp_path: Path) -> None:
    found = look_for_differences(planned(tmp_path, seeds=[3]), None)
    assert found is not None
    words = detectable_words(found)
    assert words.startswith("With 1 seed and ")
    assert "not whether they hold for other seeds" in words


def test_one_configuration_is_told_nothing_of_differences(tmp_path: Path) -> None:
    plan = planned(tmp_path, grid={"lora.r": [4]})
    assert look_for_differences(plan, None) is None


def test_a_task_without_recorded_runs_says_that_nothing_is_known(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, "t5", "translation", grid={"lora.r": [2, 4]}, seeds=[0, 1])
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(spec))
    found = look_for_differences(look(tmp_path / "study.yaml", []), None)
    assert found is not None
    assert found.value is None
    assert "is not known before a study of such a task" in detectable_words(found)


def test_a_raced_study_with_stopped_runs_ends_with_exit_code_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = written(
        tmp_path,
        grid={"training.learning_rate": [1e-4, 1e-3, 0.3]},
        budget={"runs": 6},
        race={"audit": 0.0, "at_once": 3},
        training={"max_steps": 5, "eval_steps": 1, "per_device_train_batch_size": 4},
    )
    worst = look(spec, []).arms[-1].training_id

    def stopping_the_worst(*asked: Any) -> tuple[Decision, ...]:
        found = decide(*asked)
        return tuple(replace(one, stop=one.arm == worst, audited=False) for one in found)

    monkeypatch.setattr("rankwise.study.race.decide", stopping_the_worst)
    out = tmp_path / "out"
    code, said, _ = rankwise("run", spec, "--out", out)
    assert code == 0
    assert "1 stopped by the race" in said
    assert "stopped at 40 %" in said
    assert "1 configuration stopped early" in said
    report = (out / "report.md").read_text()
    assert "\n## Race\n" in report
    assert "Runs without a result" not in report
    again, told, _ = rankwise("run", spec, "--out", out, "--dry-run")
    assert again == 0
    assert "kept: 1 run that the race has stopped" in told
    assert "nothing is left to be trained" in told
