"""A study that was stopped, in whatever way and wherever, ends as one that was not."""

import errno
import os
import shutil
import signal

import numpy as np
import pytest
import torch
import yaml

from black_box import rankwise
from rankwise.cli import progress
from rankwise.cli.app import look
from rankwise.errors import DiskFullError
from rankwise.store.writer import Store
from rankwise.study import checkpoints, train_cohort
from rankwise.study import plan as study_plan
from rankwise.study import run as study_run
from rankwise.study.checkpoints import Checkpoints
from rankwise.study.run import run_study
from rankwise.train import loop
from rankwise.train.loop import Batched, Ended, Evaluating, Stepped
from stored import numbers
from tiny_text import tiny_spec

STUDY = {
    "grid": {"lora.r": [2, 4]},
    "seeds": [0, 1],
    "lora": {"target_modules": ["query", "value"], "lora_dropout": 0.1},
    "hardware": {"checkpoint_seconds": 0, "max_runs": 4},
}
ASKED = {
    "generation": {"prompts": ["where is the cat?", "where?"], "max_new_tokens": 4},
    "lora": {"target_modules": "all-linear"},
}


def written(folder, kind="bert", shape="labelled", **more):
    """A spec file of a tiny study."""
    spec = tiny_spec(folder, kind, shape, **{**STUDY, **more})
    (folder / "study.yaml").write_text(yaml.safe_dump(spec))
    return folder / "study.yaml"


def moments(spec, out, aside):
    """Run a study to its end; after every tuple of events, what is on disk is copied aside."""
    told = []
    for events in run_study(look(spec, []), out):
        if not any(isinstance(event, Evaluating) for event in events):
            shutil.copytree(out, aside / f"{len(told):03d}", symlinks=True)
        told.append(events)
    return told


def finish(spec, out):
    return [event for events in run_study(look(spec, []), out) for event in events]


def steps_made(events):
    return sum(isinstance(event, Stepped) for event in events)


@pytest.mark.parametrize("name", ["classifier", "answers", "full", "early"])
def test_whatever_moment_a_process_dies_at_the_results_are_the_same_bytes(name, tmp_path):
    more = {
        "classifier": {"kind": "bert", "shape": "labelled"},
        "answers": {"kind": "llama", "shape": "text", **ASKED},
        "full": {"kind": "bert", "shape": "labelled", "method": "full", "grid": {}, "lora": {}},
        "early": {  # runs end at different steps, and others take their places
            "kind": "bert",
            "shape": "labelled",
            "seeds": [0, 1, 2],
            "training": {"max_steps": 8, "eval_steps": 1, "early_stopping_patience": 1},
            "hardware": {**STUDY["hardware"], "max_runs": 2},
        },
    }[name]
    spec = written(tmp_path, **more)
    told = moments(spec, tmp_path / "out", tmp_path / "moments")
    whole = numbers(tmp_path / "out")
    assert all(state in ("done", "stopped_early") for _, _, state, *_ in whole["run"])
    assert whole["cohort"] == []
    assert not (tmp_path / "out" / "checkpoints").exists()
    total = steps_made(event for events in told for event in events)
    plan = look(spec, [])
    places = sorted((tmp_path / "moments").iterdir())
    for place in places[:: max(1, len(places) // 8)]:
        before = steps_made(event for events in told[: int(place.name) + 1] for event in events)
        again = steps_made(event for events in run_study(plan, place) for event in events)
        assert numbers(place) == whole, place.name
        assert again == total - before, f"{place.name}: steps were made twice"


def test_closing_the_iterator_saves_whatever_is_in_training(tmp_path):
    spec = written(tmp_path, hardware={"checkpoint_seconds": 3600, "max_runs": 4})
    finish(spec, tmp_path / "whole")
    out = tmp_path / "out"
    study = run_study(look(spec, []), out)
    batches = 0
    for events in study:
        batches += any(isinstance(event, Batched) for event in events)
        if batches == 3:
            break
    study.close()
    assert [state for _, _, state, *_ in numbers(out)["run"]] == ["interrupted"] * 4
    code, said, _ = rankwise("status", out)
    assert code == 0
    assert "4 interrupted" in said
    assert steps_made(finish(spec, out)) == 4, "of 4 runs of 4 steps, 3 of each were saved"
    assert numbers(out) == numbers(tmp_path / "whole")


def stopped(spec, out, batches):
    """A study that was stopped after so many batches."""
    study = run_study(look(spec, []), out)
    for events in study:
        batches -= any(isinstance(event, Batched) for event in events)
        if not batches:
            break
    study.close()


def test_the_same_cohorts_are_formed_again_whatever_memory_is_free_then(tmp_path, monkeypatch):
    spec = written(tmp_path, hardware={"checkpoint_seconds": 3600})
    finish(spec, tmp_path / "whole")
    stopped(spec, tmp_path / "out", 2)
    monkeypatch.setattr(study_plan, "free_bytes", lambda device: 1)
    events = finish(spec, tmp_path / "out")
    assert {len(event.runs) for event in events if isinstance(event, Batched)} == {4}
    assert numbers(tmp_path / "out") == numbers(tmp_path / "whole")


def test_what_was_recorded_after_the_checkpoint_is_forgotten(tmp_path):
    spec = written(tmp_path)
    finish(spec, tmp_path / "whole")
    stopped(spec, tmp_path / "out", 2)
    with Store(tmp_path / "out") as store:  # as where a device repeats no number exactly
        for run in store.runs():
            store.log(run.id, 99, 1.0, 1.0, 1.0)
            store.save_evaluation(run.id, 99, "validation", np.ones(12), None, {"eval_loss": 0.0})
            store.set_best(run.id, 99)
    finish(spec, tmp_path / "out")
    assert numbers(tmp_path / "out") == numbers(tmp_path / "whole")


def test_the_end_of_a_run_is_in_a_checkpoint_before_it_is_recorded(tmp_path):
    spec = written(tmp_path, hardware={"checkpoint_seconds": 3600, "max_runs": 4})
    moments(spec, tmp_path / "out", tmp_path / "moments")
    plan, ended = look(spec, []), 0
    for place in sorted((tmp_path / "moments").iterdir()):
        with Store(place) as store:
            states = {one.id: one.state for one in store.runs() if one.state == "done"}
            if not states or not store.cohorts():
                continue
            saved = Checkpoints(place, 0).load(plan.trained)
            assert {state.status for state in saved.values()} == {"done"}
            ended += len(states) == len(saved) == 4
    assert ended


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path):
    spec = written(tmp_path)
    moments(spec, tmp_path / "out", tmp_path / "moments")
    whole = numbers(tmp_path / "out")
    for place in sorted((tmp_path / "moments").iterdir()):
        files = sorted((place / "checkpoints").glob("*.safetensors"))
        if len(files) == 2:
            break
    for number, damage in enumerate((b"", b"no tensors", None)):
        out = shutil.copytree(place, tmp_path / f"damaged{number}", symlinks=True)
        path = out / "checkpoints" / files[1].name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content if damage is None else damage)
        said = [getattr(event, "text", "") for event in finish(spec, out)]
        assert any(path.name in text for text in said)
        assert numbers(out) == whole
        assert path.exists(), "what is damaged is left for whoever wants to look at it"


def test_a_run_that_diverges_leaves_its_place_to_the_next_one(tmp_path):
    rates = {"grid": {"training.learning_rate": [1e-3, 1e20, 2e-3, 3e-3]}, "seeds": [0]}
    training = {"max_steps": 6, "eval_steps": 6}
    spec = written(tmp_path, **rates, training=training, hardware={"max_runs": 2})
    events = finish(spec, tmp_path / "out")
    states = [state for _, _, state, *_ in numbers(tmp_path / "out")["run"]]
    assert sorted(states) == ["diverged", "done", "done", "done"]
    begun = set()
    for event in events:
        if isinstance(event, Batched):
            begun |= set(event.runs)
            assert len(event.runs) == 2 or len(begun) == 4, "a place was empty while a run waited"


def test_too_little_memory_goes_on_from_the_last_state(tmp_path, monkeypatch):
    spec = written(tmp_path)
    finish(spec, tmp_path / "whole")
    before, calls = loop.row_losses, []

    def narrow(model, task, batch, *more):
        calls.append(len(batch.input_ids))
        if len(calls) > 3 and len(batch.input_ids) > 8:
            raise torch.OutOfMemoryError("no more memory")
        return before(model, task, batch, *more)

    monkeypatch.setattr(loop, "row_losses", narrow)
    events = finish(spec, tmp_path / "out")
    ours, theirs = numbers(tmp_path / "out"), numbers(tmp_path / "whole")
    assert ours["run"] == theirs["run"]
    assert steps_made(events) == len(theirs["step"]), "no step is made twice"
    for one, other in zip(ours["step"], theirs["step"], strict=True):
        assert one[:3] == other[:3]
        assert one[3:] == pytest.approx(other[3:], abs=1e-5)


def test_what_does_not_fit_even_alone_takes_fewer_rows_at_once(tmp_path, monkeypatch):
    spec = written(tmp_path, seeds=[0], grid={"lora.r": [2]})
    finish(spec, tmp_path / "whole")
    before = loop.row_losses

    def narrow(model, task, batch, *more):
        if len(batch.input_ids) > 1:
            raise torch.OutOfMemoryError("no more memory")
        return before(model, task, batch, *more)

    monkeypatch.setattr(loop, "row_losses", narrow)
    finish(spec, tmp_path / "out")
    ours, theirs = numbers(tmp_path / "out"), numbers(tmp_path / "whole")
    assert ours["run"] == theirs["run"]
    for one, other in zip(ours["step"], theirs["step"], strict=True):
        assert one[3:] == pytest.approx(other[3:], abs=1e-5)
    code, report, _ = rankwise("report", tmp_path / "out", "--json")
    assert code == 0
    assert "1 row at a time" in report


def test_a_failure_of_one_run_costs_the_others_no_step(tmp_path, monkeypatch):
    spec = written(tmp_path)
    before = train_cohort.train

    def fails(cohort):
        for number, events in enumerate(before(cohort)):
            if number > 2 and any(m.id == "r4/seed-1" for m in cohort.members):
                raise ZeroDivisionError("in one run")
            yield events

    monkeypatch.setattr(train_cohort, "train", fails)
    events = finish(spec, tmp_path / "out")
    states = [state for _, _, state, *_ in numbers(tmp_path / "out")["run"]]
    assert sorted(states) == ["crashed", "done", "done", "done"]
    assert len([event for event in events if isinstance(event, Ended)]) == 3


def test_a_budget_of_hours_is_kept_and_what_was_not_run_is_said(tmp_path, monkeypatch):
    spec = written(tmp_path, hardware={"max_runs": 2}, budget={"hours": 1.0})
    finish(written(tmp_path / "whole"), tmp_path / "whole" / "out")
    spent = iter([*[0.0] * 3, *[3600.0] * 1000])
    with monkeypatch.context() as patch:
        patch.setattr(study_run.Study, "seconds", lambda self: next(spent))
        said = [getattr(event, "text", "") for event in finish(spec, tmp_path / "out")]
    assert any("the budget of 1 hours is spent; 4 runs not done" in text for text in said)
    _, report, _ = rankwise("report", tmp_path / "out", "--json")
    assert "before 4 runs had a result" in report
    more = yaml.safe_load(spec.read_text())
    more["budget"] = {"hours": 100.0}
    spec.write_text(yaml.safe_dump(more))
    finish(spec, tmp_path / "out")
    assert {state for _, _, state, *_ in numbers(tmp_path / "out")["run"]} == {"done"}
    _, report, _ = rankwise("report", tmp_path / "out", "--json")
    assert "before 4 runs" not in report


def test_a_checkpoint_is_not_used_where_the_records_do_not_reach_it(tmp_path):
    spec = written(tmp_path)
    moments(spec, tmp_path / "out", tmp_path / "moments")
    for place in sorted((tmp_path / "moments").iterdir()):
        if len(list((place / "checkpoints").glob("*"))) == 2:
            break
    with Store(place) as store:  # as after a repair from an older backup
        for run in store.runs():
            store.restart_run(run.id)
    finish(spec, place)
    assert numbers(place) == numbers(tmp_path / "out")


def test_a_full_disk_is_no_failure_of_a_run(tmp_path, monkeypatch):
    spec = written(tmp_path)

    def full(states, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_run_states", full)
        with pytest.raises(DiskFullError, match="make room"):
            finish(spec, tmp_path / "out")
    assert {state for _, _, state, *_ in numbers(tmp_path / "out")["run"]} == {"interrupted"}
    finish(spec, tmp_path / "out")
    finish(spec, tmp_path / "whole")
    assert numbers(tmp_path / "out") == numbers(tmp_path / "whole")


def test_a_loss_that_is_too_large_is_not_called_infinite(tmp_path):
    wild = {"name": "wild", "training.learning_rate": 1e4, "training.max_grad_norm": 0}
    training = {"max_steps": 8, "eval_steps": 8}
    spec = written(tmp_path, grid={}, configs=[wild], seeds=[0], training=training)
    finish(spec, tmp_path / "out")
    ((_, _, state, *_),) = numbers(tmp_path / "out")["run"]
    assert state == "diverged"
    assert rankwise("report", tmp_path / "out")[0] == 0
    report = (tmp_path / "out" / "report.md").read_text()
    assert "the loss was more than 100 times that of the first step" in report
    assert "not finite" not in report


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_the_command_that_goes_on(signum, tmp_path, monkeypatch):
    spec = written(tmp_path, hardware={"checkpoint_seconds": 3600, "max_runs": 4})
    finish(spec, tmp_path / "whole")
    handler = signal.getsignal(signum)
    before, batches = progress.Watch.take, []

    def take(self, event):
        before(self, event)
        batches.extend([event] * isinstance(event, Batched))
        if len(batches) == 3:
            os.kill(os.getpid(), signum)

    with monkeypatch.context() as patch:
        patch.setattr(progress.Watch, "take", take)
        code, _, said = rankwise("run", spec, "--out", tmp_path / "out")
    assert code == 128 + signum
    assert f"stopped by {signum.name}; the runs in training are saved" in said
    assert f"To go on: rankwise run {spec} --out {tmp_path / 'out'}" in said
    assert signal.getsignal(signum) is handler, "the handlers of before are back"
    assert steps_made(finish(spec, tmp_path / "out")) == 4, "one step of each run was left"
    assert numbers(tmp_path / "out") == numbers(tmp_path / "whole")
