"""A few moments of each kind of fault; `make faults` tries many more."""

import os
import shutil

import pytest
import yaml

from fault_trials import LATER, Moment, Trials, kill, terminate
from rankwise.study.checkpoints import FOLDER
from tiny_text import tiny_spec

STUDY = {
    "grid": {"lora.r": [2, 4]},
    "seeds": [0, 1],
    "generation": {"prompts": ["where is the cat?"], "max_new_tokens": 4},
    "hardware": {"checkpoint_seconds": 0, "max_runs": 2},
}


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    spec = tiny_spec(folder, "llama", "text", **STUDY)
    (folder / "study.yaml").write_text(yaml.safe_dump(spec))
    return Trials(folder / "study.yaml", folder / "trials", reports=False)


@pytest.mark.parametrize("stage", ["training", "evaluation", "answering", "saving"])
def test_a_killed_process_costs_no_more_than_the_steps_since_its_checkpoint(trials, stage):
    for moment in trials.moments(stage, 2 if stage == "training" else 1, seed=0):
        out = trials.out()
        killed = trials.call(out, moment, kill)
        assert killed.code == -9, moment
        again, problems = trials.finish(out)
        assert problems == [], moment
        assert trials.made_again(killed, again) <= killed.unsaved <= 2, moment


def test_sigterm_loses_no_step_and_says_the_command_that_goes_on(trials):
    for moment in (Moment("beginning", 0), Moment("training", 2), Moment("saving", 9)):
        out = trials.out()
        stopped = trials.call(out, moment, terminate)
        assert stopped.code == 143, moment
        assert "To go on: rankwise run" in stopped.said
        again, problems = trials.finish(out)
        assert problems == [], moment
        assert trials.made_again(stopped, again) == 0, moment


def test_a_limit_on_file_sizes_is_a_message_and_the_same_command_goes_on(trials):
    for stage, number in (("training", 1), ("saving", 20), ("answering", 1)):
        out = trials.out()
        full = trials.call(out, Moment(stage, number), inject="limit")
        assert full.code == 1
        assert "make room, then the same command goes on" in full.said.splitlines()[-1]
        assert trials.finish(out)[1] == []


@pytest.mark.parametrize(("fault", "lost"), [("nan", 1), ("memory", 0), ("error", 0)])
def test_what_happens_to_one_run_changes_no_number_of_another(trials, fault, lost):
    for number in (0, 5):
        out = trials.out()
        call = trials.call(out, Moment("training", number), inject=fault)
        assert call.code == 0, call.said
        assert list(trials.far(out, lost)) == [], number


def test_a_clock_that_jumps_back_changes_nothing(trials):
    out = trials.out()
    killed = trials.call(out, Moment("training", 3), kill, inject="clock")
    for path in out.rglob("*"):  # a clock that jumped back before the next call
        if path.is_file():
            os.utime(path, (path.stat().st_mtime + LATER,) * 2)
    again, problems = trials.finish(out)
    assert problems == []
    assert trials.made_again(killed, again) <= killed.unsaved


@pytest.fixture(scope="module")
def killed(trials):
    """A study that was killed in its second cohort."""
    out = trials.out()
    assert trials.call(out, Moment("training", 6), kill).code == -9
    return out


@pytest.mark.parametrize("name", ["study.db", FOLDER, "adapters"])
def test_a_damaged_file_costs_time_and_no_result(trials, killed, name):
    out = shutil.copytree(killed, trials.out(), symlinks=True)
    found = [out / name] if (out / name).is_file() else (out / name).rglob("*.safetensors")
    path = max(path for path in found if not path.is_symlink())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert trials.finish(out, path)[1] == []
