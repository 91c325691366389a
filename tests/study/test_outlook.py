"""What `run --dry-run` and `plan` say is what `run` then does, and no byte changes for it."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from black_box import Study, make_study, rankwise
from rankwise.cli.app import look
from rankwise.files import sums_of
from rankwise.store.lock import hold
from rankwise.study.run import run_study
from rankwise.train.loop import Ended, Stepped

OLD = Path(__file__).parents[1] / "fixtures" / "study_v2"
TWO = {"small": {"lora.r": 2}, "large": {"lora.r": 4}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two configurations with two seeds, all done; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    return make_study(folder, configurations=TWO, seeds=[0, 1]).run()


@pytest.fixture
def study(finished, tmp_path):
    """A copy of it, of the same model and rows."""
    shutil.copytree(finished.out, tmp_path / "out", symlinks=True)
    shutil.copy(finished.spec, tmp_path / "study.yaml")
    return Study(tmp_path / "study.yaml", tmp_path / "out", finished.model, finished.task)


def changed(study, **sections):
    spec = {**yaml.safe_load(study.spec.read_text()), **sections}
    study.spec.write_text(yaml.safe_dump(spec))


def configs(**settings):
    return [{"name": name, **values} for name, values in settings.items()]


def dry_run(study, *words):
    """What a dry run says, as facts and in words; the folder must stay as it is."""
    before = everything(study.out)
    code, out, err = rankwise("run", study.spec, "--out", study.out, "--dry-run", "--json", *words)
    assert code == 0, err
    code, told, err = rankwise("run", study.spec, "--out", study.out, "--dry-run", *words)
    assert code == 0, err
    assert everything(study.out) == before
    return json.loads(out), told


def everything(folder):
    """Every file with its sum and times, so that one written anew with the same bytes shows."""
    times = {path: path.lstat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
    return sums_of(folder), times


def test_a_finished_study_has_nothing_left(study):
    facts, told = dry_run(study)
    assert sorted(facts["done"]) == [
        "large/seed-0", "large/seed-1", "small/seed-0", "small/seed-1",
    ]  # fmt: skip
    assert facts["unchanged"] == ["small", "large"]
    assert not any(facts[name] for name in ("begin", "go_on", "begin_again", "train_again"))
    assert "unchanged: 2 configurations" in told
    assert "kept: 4 runs done\nnothing is left to be trained" in told


def test_what_is_kept_and_what_is_trained_is_told_before_it_is_so(study):
    shutil.rmtree((study.out / "adapters" / "small" / "seed-0").resolve())
    wider = configs(small={"lora.r": 2}, large={"lora.r": 3}, new={"lora.r": 5})
    changed(study, configs=wider, seeds=[0, 2])
    facts, told = dry_run(study)
    assert facts["done"] == []
    assert facts["changed"]["large"]["lora.r"] == {"was": 4, "now": 3}
    assert facts["moved"] == {"large": "large.old1"}
    assert facts["outside"] == ["large.old1"]
    assert (facts["seeds_new"], facts["seeds_outside"]) == ([2], [1])
    assert set(facts["train_again"]) == {"small/seed-0"}
    fresh = ["small/seed-2", "large/seed-0", "large/seed-2", "new/seed-0", "new/seed-2"]
    assert facts["begin"] == fresh
    assert "large differs from before: lora.r was 4, now 3" in told
    assert "small/seed-0 is trained again for its adapter" in told
    assert "in all 6 runs to be trained, about" in told
    code, plan, _ = rankwise("plan", study.spec, "--out", study.out)
    assert code == 0
    assert told.strip() in plan
    ended = [
        event.run
        for events in run_study(look(study.spec, []), study.out)
        for event in events
        if isinstance(event, Ended)
    ]
    assert sorted(ended) == sorted([*fresh, "small/seed-0"])
    facts, _ = dry_run(study)
    assert sorted(facts["done"]) == sorted([*fresh, "small/seed-0"])
    assert facts["unchanged"] == ["small", "large", "new"]


def test_a_run_that_goes_on_is_named_with_its_step_and_goes_on_from_there(tmp_path):
    hardware = {"checkpoint_seconds": 0, "max_runs": 1}
    study = make_study(tmp_path, configurations=TWO, seeds=[0], hardware=hardware)
    running, steps = run_study(look(study.spec, []), study.out), 0
    while steps < 3:
        steps += sum(isinstance(event, Stepped) for event in next(running))
    running.close()
    facts, told = dry_run(study)
    (run,) = facts["go_on"]
    assert facts["go_on"] == {run: 3}
    assert len(facts["begin"]) == 1
    assert f"{run} goes on from its checkpoint at step 3 of 4" in told
    for path in (study.out / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    facts, told = dry_run(study)
    assert facts["begin_again"] == [run]
    assert f"{run} begins again: it is interrupted, and no checkpoint of it can be used" in told


def test_a_folder_without_a_study_is_not_made(study):
    shutil.rmtree(study.out)
    code, told, err = rankwise("run", study.spec, "--out", study.out, "--dry-run")
    assert code == 0, err
    assert "no study there yet" in told
    assert "to be trained: 4 runs that never began" in told
    assert not study.out.exists()


@pytest.mark.parametrize("command", [["plan"], ["run", "--dry-run"]])
def test_another_study_is_refused_as_run_refuses_it(study, command):
    data = {**yaml.safe_load(study.spec.read_text())["data"], "max_length": 24}
    changed(study, data=data)
    before = everything(study.out)
    code, _, err = rankwise(*command, study.spec, "--out", study.out)
    assert code == 2
    assert err == rankwise("run", study.spec, "--out", study.out)[2]
    assert "data.max_length was 48, now 24" in err
    assert everything(study.out)[0] == before[0]


def test_a_dry_run_is_refused_while_the_study_runs_and_a_plan_says_so(study):
    lock = hold(study.out)
    try:
        code, _, err = rankwise("run", study.spec, "--out", study.out, "--dry-run")
        assert code == 2
        assert "another process is running this study" in err
        code, told, _ = rankwise("plan", study.spec, "--out", study.out)
        assert code == 0
        assert "run by process" in told
    finally:
        lock.close()


def test_a_study_of_an_older_form_is_looked_at_and_stays_as_it_is(old_form):
    folder, spec = old_form
    before = everything(folder)
    code, out, err = rankwise("run", spec, "--out", folder, "--dry-run", "--json")
    assert code == 0, err
    assert len(json.loads(out)["done"]) == 4
    assert everything(folder) == before


@pytest.fixture
def old_form(tmp_path, monkeypatch):
    """A study of the second form, and its spec with the key of today."""
    folder = shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(folder)
    spec = yaml.safe_load((folder / "study.yaml").read_text())
    spec["configs"] = spec.pop("arms")
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    (tmp_path / "rows.jsonl").symlink_to(folder / "rows.jsonl")
    return folder, tmp_path / "spec.yaml"
