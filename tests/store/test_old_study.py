"""A study made by the version before opens, says what it said, and goes on."""

import csv
import json
import math
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise.cli.app import main
from rankwise.report.json import read_facts
from rankwise.report.remarks import remarks_of
from rankwise.results.from_store import read_records
from rankwise.spec.models import StudySpec
from rankwise.store.reader import Reader
from rankwise.study import train_cohort
from stored import labels, states

FIXTURE = Path(__file__).parent.parent / "fixtures" / "study_v2"
LISTED = "configs" if "configs" in StudySpec.model_fields else "arms"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old study, as the working folder: its spec has relative paths."""
    folder = shutil.copytree(FIXTURE, tmp_path / "study")
    monkeypatch.chdir(folder)
    return folder


def rankwise(monkeypatch: pytest.MonkeyPatch, *words: object) -> Any:
    monkeypatch.setattr(sys, "argv", ["rankwise", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURE / "facts.json").read_text())
    return found


WORDED = ("sentence", "sentences", "would_change", "path")
ESTIMATED = (
    *("low", "high", "df", "p", "p_adjusted", "low_bound", "high_bound", "misfit_p"),
    *("noise", "detectable", "settlements", "with_best"),
)


def without_words(facts: Any) -> Any:
    """Facts without sentences and estimates, which are made anew from time to time."""
    if isinstance(facts, dict):
        left_out = (*WORDED, *ESTIMATED)
        return {k: without_words(value) for k, value in facts.items() if k not in left_out}
    if isinstance(facts, float):
        return round(facts, 9)
    return [without_words(one) for one in facts] if isinstance(facts, list) else facts


def kept_of(facts: Any, before: Any) -> Any:
    """The facts without fields that did not exist before."""
    if isinstance(facts, dict) and isinstance(before, dict):
        return {k: kept_of(facts[k], before[k]) for k in facts if k in before}
    if isinstance(facts, list) and isinstance(before, list) and len(facts) == len(before):
        return [kept_of(one, other) for one, other in zip(facts, before, strict=True)]
    return facts


def close(facts: Any, before: Any) -> Any:
    """The facts with numbers as before where they differ by rounding, as processors do."""
    if isinstance(facts, dict) and isinstance(before, dict):
        return {k: close(facts[k], before.get(k)) for k in facts}
    if isinstance(facts, list) and isinstance(before, list) and len(facts) == len(before):
        return [close(one, other) for one, other in zip(facts, before, strict=True)]
    if isinstance(facts, float) and isinstance(before, float):
        return before if math.isclose(facts, before, rel_tol=1e-6, abs_tol=1e-12) else facts
    return facts


@pytest.mark.parametrize(
    "part", ["verdict", "on_test", "recommendation", "front", "effects", "curves", "answers"]
)
def test_the_facts_of_the_report_are_those_that_were_recorded(old: Path, part: str) -> None:
    before = without_words(recorded()[part])
    now = kept_of(without_words(read_facts(old)[part]), before)
    assert close(now, before) == before


@pytest.mark.parametrize("part", ["runs", "arms"])
def test_every_run_and_configuration_is_what_it_was(old: Path, part: str) -> None:
    before, now = without_words(recorded()[part]), without_words(read_facts(old)[part])
    assert [{name: one[name] for name in before[0]} for one in now] == before


def test_runs_that_were_copies_are_one_run_now(old: Path) -> None:
    with Reader(old) as store:
        ids = labels(store)
        assert len(store.configs()) == 4
        assert len(store.runs()) == len(store.trainings()) * 2 == 6
        assert ids["greedy/seed-0"] == ids["sampled/seed-0"]
        assert {run.folder for run in store.runs()} == {
            f"{name}/seed-{seed}" for name in ("greedy", "empirical", "wild") for seed in (0, 1)
        }
        kinds = [kind for kind, _ in remarks_of(read_records(store))]
        assert kinds == ["ranks"]  # what is shared is read off the trainings


def test_every_command_works_on_it(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rankwise(monkeypatch, "status", old) == 0
    said = capsys.readouterr().out
    assert "2 diverged, 6 done" in said
    assert "the loss was not finite at step 2, at learning rate 2.25e+38" in said
    assert rankwise(monkeypatch, "report", old) == 0
    assert rankwise(monkeypatch, "compare", old, "greedy", "empirical") == 0
    assert rankwise(monkeypatch, "export", old, "sampled", "--to", old / "new") == 0
    assert (old / "new" / "adapter_model.safetensors").read_bytes() == (
        FIXTURE / "adapters" / "greedy" / "seed-1" / "adapter_model.safetensors"
    ).read_bytes()
    assert rankwise(monkeypatch, "export", old, "best", "--to", old / "m", "--merged") == 0
    with (old / "runs.csv").open() as new, (FIXTURE / "runs.csv").open() as before:
        rows = list(csv.DictReader(before))
        assert [{name: row[name] for name in rows[0]} for row in csv.DictReader(new)] == rows


def test_it_is_extended_by_a_seed_and_a_configuration(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = yaml.safe_load((old / "study.yaml").read_text())
    spec["seeds"] = [0, 1, 2]
    spec[LISTED] = [*spec.pop("arms"), {"name": "larger", "lora.r": 4}]
    (old / "study.yaml").write_text(yaml.safe_dump(spec))
    trained: list[str] = []
    before = train_cohort.new_states
    monkeypatch.setattr(
        train_cohort,
        "new_states",
        lambda runs, part: trained.extend(run.id for run in runs) or before(runs, part),
    )
    assert rankwise(monkeypatch, "run", old / "study.yaml", "--out", old) == 0
    assert sorted(trained) == [
        "empirical/seed-2", "greedy/seed-2", "larger/seed-0", "larger/seed-1", "larger/seed-2",
        "wild/seed-2",
    ]  # fmt: skip
    with Reader(old) as store:
        found = states(store)
        assert len(found) == 15
        assert all((state == "diverged") == run.startswith("wild") for run, state in found.items())
        numbers = {run.id for run in store.runs()}
        assert all(run.folder == f"run-{run.id}" for run in store.runs() if run.seed == 2)
        assert len(numbers) == 12
    for name in ("greedy", "sampled", "empirical", "larger"):
        adapter = old / "adapters" / name / "seed-2"
        assert (adapter / "adapter_model.safetensors").exists()
        assert not Path(adapter.readlink()).is_absolute()
    kept = {run["id"]: run for run in read_facts(old)["runs"]}
    for run in recorded()["runs"]:
        assert {name: kept[run["id"]][name] for name in run} == run


def test_a_configuration_that_differs_in_generation_alone_trains_nothing(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = yaml.safe_load((old / "study.yaml").read_text())
    longer = {"name": "longer", "lora.r": 2, "generation.max_new_tokens": 6}
    spec[LISTED] = [*spec.pop("arms"), longer]
    (old / "study.yaml").write_text(yaml.safe_dump(spec))

    def no_training(*_: object) -> None:
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr(train_cohort, "new_states", no_training)
    assert rankwise(monkeypatch, "run", old / "study.yaml", "--out", old) == 0
    with Reader(old) as store:
        assert len(store.runs()) == 6
        ids = {config.name: config.id for config in store.configs()}
        said = {(one.config_id, one.run_id): one.answers for one in store.answers()}
        for seed in (0, 1):
            run = labels(store)[f"longer/seed-{seed}"]
            short, long = said[ids["greedy"], run], said[ids["longer"], run]
            assert [one.ids for one in short] == [one.ids[:4] for one in long]
            assert all("base_perplexity" in (one.measures or {}) for one in long)
        assert (ids["longer"], None) in said


def test_what_was_measured_of_merging_is_found_with_its_run(old: Path) -> None:
    db = sqlite3.connect(old / "study.db")
    arm = db.execute("SELECT id FROM arm WHERE name = 'empirical'").fetchone()[0]
    probe = json.loads(db.execute("SELECT probe FROM probe WHERE arm_id = ?", (arm,)).fetchone()[0])
    probe["merged_eval_loss"] = 5.75
    db.execute("UPDATE probe SET probe = ? WHERE arm_id = ?", (json.dumps(probe), arm))
    text = "empirical/seed-1: validation loss 5.6337 over the nf4 base, 5.7500 (+0.1163) merged"
    db.execute("INSERT INTO note (kind, text) VALUES ('quantization', ?)", (text,))
    db.commit()
    db.close()
    with Reader(old) as store:
        assert store.merged() == {labels(store)["empirical/seed-1"]: 5.75}
        told = [text for kind, text in remarks_of(read_records(store)) if kind == "quantization"]
        assert len(told) == 1
        assert told[0].startswith("empirical/seed-1: validation loss")
        assert "5.7500 (" in told[0]
