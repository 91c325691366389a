"""What fails after a run is trained, or beside it, costs that run nothing."""

import json
import sys

import pytest
import torch
import yaml

from rankwise.cli.app import main
from rankwise.study import train_cohort
from tiny_text import tiny_spec

GRID = {
    "grid": {"lora.r": [2, 4]},
    "seeds": [0, 1],
    "lora": {"target_modules": ["query", "value"]},
}
ASKED = {"prompts": ["where is the cat?"], "max_new_tokens": 4}


def rankwise(monkeypatch, *words):
    """Exit code of a command run in this process."""
    monkeypatch.setattr(sys, "argv", ["rankwise", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def written(folder, kind="bert", shape="labelled", **more):
    """A spec file of a tiny study in `folder`, and where its results go."""
    spec = tiny_spec(folder, kind, shape, **{**GRID, **more})
    (folder / "study.yaml").write_text(yaml.safe_dump(spec))
    return folder / "study.yaml", folder / "out"


def states_of(monkeypatch, capsys, out):
    capsys.readouterr()
    assert rankwise(monkeypatch, "status", out, "--json") == 0
    return json.loads(capsys.readouterr().out)["states"]


@pytest.fixture
def trained(monkeypatch):
    """The names of the runs that begin to train."""
    found, before = [], train_cohort.new_states

    def counting(runs, train):
        found.extend(run.id for run in runs)
        return before(runs, train)

    monkeypatch.setattr(train_cohort, "new_states", counting)
    return found


def failing(error):
    def fails(*_):
        raise error

    return fails


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("too little"), ZeroDivisionError("us")])
@pytest.mark.parametrize("what", ["probe_cost", "read_test"])
def test_what_fails_after_training_leaves_the_runs_done(
    what, error, tmp_path, monkeypatch, capsys, trained
):
    spec, out = written(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train_cohort, what, failing(error))
        assert rankwise(patch, "run", spec, "--out", out) == 0
    assert states_of(monkeypatch, capsys, out) == {"done": 4}
    assert len(trained) == 4


def test_an_interruption_of_the_answers_trains_nothing_again(
    tmp_path, monkeypatch, capsys, trained
):
    spec, out = written(
        tmp_path, "llama", "text", generation=ASKED, lora={"target_modules": "all-linear"}
    )
    with monkeypatch.context() as patch:
        patch.setattr(train_cohort, "ask_runs", failing(KeyboardInterrupt()))
        assert rankwise(patch, "run", spec, "--out", out) == 130
    assert states_of(monkeypatch, capsys, out) == {"done": 4}
    trained.clear()
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    assert trained == []
    assert rankwise(monkeypatch, "report", out, "--json") == 0
    answers = (out / "report.md").read_text()
    assert answers.count("where is the cat?") > 0


def test_a_test_part_that_was_not_read_is_read_later_with_the_best_weights(
    tmp_path, monkeypatch, capsys, trained
):
    spec, out = written(tmp_path)
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    whole = (out / "runs.csv").read_text()
    late = tmp_path / "late"
    with monkeypatch.context() as patch:
        patch.setattr(train_cohort, "read_test", failing(RuntimeError("not now")))
        assert rankwise(patch, "run", spec, "--out", late) == 0
    assert columns_of(late, "test_eval_loss") != columns_of(out, "test_eval_loss")
    trained.clear()
    assert rankwise(monkeypatch, "run", spec, "--out", late) == 0
    assert trained == []
    for ours, theirs in zip(
        columns_of(late, "test_eval_loss"), columns_of(out, "test_eval_loss"), strict=True
    ):
        assert float(ours) == pytest.approx(float(theirs), abs=1e-6)
    assert "test_eval_loss" in whole


def test_too_little_memory_for_what_trained_runs_lack_loses_nothing(
    tmp_path, monkeypatch, capsys, trained
):
    spec, out = written(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train_cohort, "read_test", failing(RuntimeError("not now")))
        assert rankwise(patch, "run", spec, "--out", out) == 0
    before, trained[:] = train_cohort.make_bank, []

    def narrow(base, adapters, seeds):
        if len(seeds) > 1:
            raise torch.OutOfMemoryError("too little for two")
        return before(base, adapters, seeds)

    with monkeypatch.context() as patch:
        patch.setattr(train_cohort, "make_bank", narrow)
        assert rankwise(patch, "run", spec, "--out", out) == 0
    assert states_of(monkeypatch, capsys, out) == {"done": 4}
    assert trained == []
    assert all(columns_of(out, "test_eval_loss"))


def columns_of(out, name):
    import csv

    with (out / "runs.csv").open() as lines:
        return [row.get(name, "") for row in csv.DictReader(lines)]


def test_of_runs_that_train_apart_one_failure_is_its_own(tmp_path, monkeypatch, capsys, trained):
    spec, out = written(
        tmp_path, kind="deberta-v2", lora={"target_modules": ["query_proj", "value_proj"]}
    )
    before = train_cohort.train

    def fails_once(cohort):
        if cohort.runs[0].id == "r4/seed-0":
            raise ZeroDivisionError("in one run alone")
        return before(cohort)

    with monkeypatch.context() as patch:
        patch.setattr(train_cohort, "train", fails_once)
        assert rankwise(patch, "run", spec, "--out", out) == 1
    assert states_of(monkeypatch, capsys, out) == {"done": 3, "crashed": 1}
    assert sorted(trained) == ["r2/seed-0", "r2/seed-1", "r4/seed-0", "r4/seed-1"]
    trained.clear()
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    assert trained == ["r4/seed-0"]


def test_a_failure_before_the_first_step_lets_each_run_try_alone(
    tmp_path, monkeypatch, capsys, trained
):
    spec, out = written(tmp_path)
    before = train_cohort.make_bank

    def refuses(base, adapters, seeds):
        if len(seeds) > 1 or (seeds == [1] and 4 in adapters[0].ranks.values()):
            raise ValueError("this bank cannot be made")
        return before(base, adapters, seeds)

    with monkeypatch.context() as patch:
        patch.setattr(train_cohort, "make_bank", refuses)
        assert rankwise(patch, "run", spec, "--out", out) == 1
    assert states_of(monkeypatch, capsys, out) == {"done": 3, "crashed": 1}
    assert sorted(trained) == ["r2/seed-0", "r2/seed-1", "r4/seed-0"]


def test_a_configuration_that_differs_in_generation_alone_is_not_trained_again(
    tmp_path, monkeypatch, capsys, trained
):
    grid = {"lora.r": [2], "generation.max_new_tokens": [4]}
    spec, out = written(
        tmp_path,
        "llama",
        "text",
        generation=ASKED,
        grid=grid,
        lora={"target_modules": "all-linear"},
    )
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    more = yaml.safe_load(spec.read_text())
    more["grid"]["generation.max_new_tokens"] = [4, 8]
    spec.write_text(yaml.safe_dump(more))
    trained.clear()
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    assert trained == []
    assert len(columns_of(out, "run")) == 4
