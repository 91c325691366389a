"""A finished study is found finished without torch; every change of what it is made of shows."""

import shutil
import subprocess
import sys

import pytest
import yaml

from black_box import Study, make_study, rankwise
from rankwise.cli import app
from rankwise.spec.arms import make_arms
from rankwise.spec.load import load_spec
from rankwise.study.settled import is_settled, made_of

SAID = "nothing has changed, and nothing is left to be trained"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two runs, done, with a check of the export; not to be changed."""
    folder = tmp_path_factory.mktemp("settled")
    return make_study(folder, configurations={"a": {"lora.r": 2}}, seeds=[0, 1]).run()


@pytest.fixture
def study(finished, tmp_path):
    """A copy, of the same model and rows."""
    shutil.copytree(finished.out, tmp_path / "out", symlinks=True)
    shutil.copy(finished.spec, tmp_path / "study.yaml")
    return Study(tmp_path / "study.yaml", tmp_path / "out", finished.model, finished.task)


@pytest.fixture
def planned(monkeypatch):
    """Counts how often a study is planned, which needs torch and the tokenizer."""
    calls, before = [], app.check

    def check(*words, **more):
        calls.append(words)
        return before(*words, **more)

    monkeypatch.setattr(app, "check", check)
    return calls


def everything(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != "study.lock"
    }


def test_nothing_is_imported_planned_or_written_where_nothing_is_left(study):
    before = everything(study.out)
    script = (
        "import sys; from rankwise.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: print(stop.code, file=sys.stderr)\n"
        "print({'torch', 'transformers', 'peft', 'altair'} & set(sys.modules), file=sys.stderr)"
    )
    words = [sys.executable, "-c", script, "run", str(study.spec), "--out", str(study.out)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [SAID, "0", "set()"]
    assert done.stdout == rankwise("status", study.out)[1]
    assert everything(study.out) == before


def test_report_and_names_that_were_removed_come_back(study, planned):
    report = (study.out / "report.html").read_bytes()
    (study.out / "report.html").unlink()
    (study.out / "adapters" / "a" / "seed-0").unlink()
    study.run()
    assert not planned
    assert (study.out / "report.html").read_bytes() == report
    assert (study.out / "adapters" / "a" / "seed-0").is_dir()


def set_in_spec(**values):
    def change(study):
        study.spec.write_text(yaml.safe_dump({**yaml.safe_load(study.spec.read_text()), **values}))

    return change


def one_adapter_less(study):
    shutil.rmtree((study.out / "adapters" / "a" / "seed-1").resolve())


def one_adapter_damaged(study):
    path = study.out / "adapters" / "a" / "seed-1" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(
    "change",
    [
        set_in_spec(seeds=[0]),
        set_in_spec(objective={"cost": "memory"}),
        set_in_spec(configs=[{"name": "b", "lora.r": 2}]),
        set_in_spec(keep_adapters="best"),
        one_adapter_less,
        one_adapter_damaged,
    ],
)
def test_whatever_changes_is_planned_and_then_settled_again(study, change, planned):
    change(study)
    study.run()
    assert len(planned) == 1
    study.run()
    study.run()
    assert len(planned) <= 2, "a call that drops adapters says so, and settles with the next one"


def test_other_rows_under_the_same_name_are_found(study, finished):
    spec, rows = load_spec(study.spec), finished.spec.parent / "rows.jsonl"
    before = rows.read_text()
    assert is_settled(spec, study.spec.parent, study.out)
    try:
        rows.write_text(before.replace("cat", "kit", 1))
        assert not is_settled(spec, study.spec.parent, study.out)
    finally:
        rows.write_text(before)


def test_a_function_that_makes_rows_is_never_taken_for_what_it_was(study):
    spec = load_spec(study.spec, ["data.augment={factor: 2, function: 'more.py:rows'}"])
    assert made_of(spec, make_arms(spec), "rows") is None


def test_other_versions_are_planned(study, planned, monkeypatch):
    monkeypatch.setattr("rankwise.study.settled.__version__", "0.0.1")
    study.run()
    assert len(planned) == 1


def test_a_study_with_something_left_is_not_settled(tmp_path, planned):
    study = make_study(
        tmp_path,
        configurations={"a": {"lora.r": 2}},
        seeds=[0, 1],
        budget={"hours": 1e-9},
    )
    study.run()
    assert not is_settled(load_spec(study.spec), tmp_path, study.out)
