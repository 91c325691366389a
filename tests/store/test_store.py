"""The store keeps what it is given, goes on where it was stopped, and refuses what cannot mix."""

import csv
import math
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankwise.errors import StoreError
from rankwise.store.writer import MIGRATIONS, Store

MODEL = {"name": "tiny", "sha256": "aa", "dtype": "float32"}
DATA = {"fingerprint": "bb", "counts": {"train": 10, "validation": 3}}


def begin(store: Store, **changes: Any) -> None:
    parts: dict[str, Any] = {
        "spec_yaml": "study: s\n",
        "spec": {"study": "s", "objective": {"metric": "eval_loss"}},
        "versions": {"torch": "1"},
        "device": {"name": "cpu"},
        "model": MODEL,
        "data": DATA,
        **changes,
    }
    store.begin_study(**parts)


def with_one_run(store: Store) -> str:
    begin(store)
    store.add_arm("a1", "t1", "r4", {"lora.r": 4, "lora.target_modules": ["q", "v"]}, {"p": 7.0})
    store.add_run("r4/seed-0", "a1", 0)
    return "r4/seed-0"


def test_arrays_and_metrics_come_back_as_they_went_in(tmp_path: Path) -> None:
    losses = np.array([0.1, np.nan, 3.0], dtype=np.float32)
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        store.log(run, 1, {"loss": 1.25, "grad_norm": math.inf})
        store.log(run, 2, {"loss": math.nan})
        store.save_evaluation(run, 2, "validation", losses, np.array([1, 0, 1], bool), {"x": 0.5})
        store.save_examples("validation", ["a", "b", "c"], np.array([0, 0, 1]), np.ones(3))
    with Store(tmp_path) as store:
        first, second = store.metrics(run)
        assert first == {"step": 1, "loss": 1.25, "grad_norm": math.inf}
        assert math.isnan(second["loss"])
        (found,) = store.evaluations(run)
        assert found.losses.dtype == np.float32
        np.testing.assert_array_equal(found.losses, losses)
        assert found.correct is not None
        assert found.correct.tolist() == [True, False, True]
        examples = store.examples("validation")
        assert examples is not None
        assert examples.groups.tolist() == [0, 0, 1]
        assert store.examples("test") is None


def test_a_second_begin_goes_on_and_keeps_results(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        store.set_state(run, "done")
    with Store(tmp_path, create=True) as store:
        with_one_run(store)
        assert [r.state for r in store.runs()] == ["done"]
        assert store.notes() == ()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model": {**MODEL, "sha256": "zz"}}, "base model"),
        ({"model": {**MODEL, "dtype": "bfloat16"}}, "dtype"),
        ({"data": {"fingerprint": "zz"}}, "data"),
    ],
)
def test_another_model_precision_or_data_is_refused(
    tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    with Store(tmp_path, create=True) as store:
        begin(store)
        with pytest.raises(StoreError, match=word) as caught:
            begin(store, **change)
        assert "--out" in str(caught.value)


def test_changed_versions_are_noted_not_refused(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        begin(store)
        begin(store, versions={"torch": "2"})
        assert store.notes() == (("versions", "versions changed within the study: torch 1 -> 2"),)
        assert store.study().versions == {"torch": "2"}


def test_other_examples_in_a_split_are_refused(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        store.save_examples("test", ["a"], np.zeros(1), np.ones(1))
        store.save_examples("test", ["a"], np.zeros(1), np.ones(1))
        with pytest.raises(StoreError, match="test examples differ"):
            store.save_examples("test", ["b"], np.zeros(1), np.ones(1))


def test_a_folder_without_study_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no study here"):
        Store(tmp_path)
    with Store(tmp_path, create=True) as store, pytest.raises(StoreError, match="no study was"):
        store.study()


def test_a_damaged_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"this is no database, whatever its name " * 50)
    with pytest.raises(StoreError, match="not readable as a study"):
        Store(tmp_path)


def test_damage_inside_the_file_is_a_store_error_when_it_is_met(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        with_one_run(store)
    path = tmp_path / "study.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(StoreError, match=r"study\.db"), Store(tmp_path) as store:
        store.arms()


def test_records_of_a_newer_rankwise_are_left_alone(tmp_path: Path) -> None:
    Store(tmp_path, create=True).close()
    db = sqlite3.connect(tmp_path / "study.db")
    db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(StoreError, match="newer rankwise"):
        Store(tmp_path)


def test_records_of_the_first_version_are_brought_up_to_date(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "study.db")
    db.executescript(f"{MIGRATIONS[0]} PRAGMA user_version=1;")
    db.execute("INSERT INTO arm VALUES ('a1', 't1', 'old', '{}', '{}')")
    db.commit()
    db.close()
    with Store(tmp_path) as store:
        store.add_arm("a2", "t2", "new", {}, {}, {"layer.0.q": 4})
        assert [(arm.name, arm.ranks) for arm in store.arms()] == [
            ("old", {}),
            ("new", {"layer.0.q": 4}),
        ]


def test_one_process_writes_while_others_read(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as writer:
        run = with_one_run(writer)
        writer.log(run, 1, {"loss": 1.0})
        writer.flush()
        with Store(tmp_path) as reader:
            assert reader.metrics(run) == [{"step": 1, "loss": 1.0}]
            with pytest.raises(StoreError, match="another process"):
                begin(reader)
    with Store(tmp_path) as later:
        begin(later)


def test_what_a_killed_process_had_flushed_is_there(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from rankwise.store.writer import Store\n"
        "s = Store(Path(sys.argv[1]), create=True)\n"
        "s.begin_study('', {}, {}, {}, {'sha256': 'a', 'dtype': 'b'}, {'fingerprint': 'c'})\n"
        "s.add_arm('a', 't', 'n', {}, {}); s.add_run('r', 'a', 0); s.log('r', 1, {'loss': 2.0})\n"
        "s.flush(); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    with Store(tmp_path) as store:
        assert store.metrics("r") == [{"step": 1, "loss": 2.0}]
        store.begin_study("", {}, {}, {}, {"sha256": "a", "dtype": "b"}, {"fingerprint": "c"})


def test_best_step_is_the_first_lowest_loss_or_highest_score(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        for step, loss, accuracy in [(1, math.nan, 0.9), (2, 0.5, 0.6), (3, 0.5, 0.8)]:
            metrics = {"eval_loss": loss, "eval_accuracy": accuracy}
            store.save_evaluation(run, step, "validation", np.zeros(1), None, metrics)
        assert store.best_step(run) == 2
        assert store.best_step(run, "eval_accuracy") == 1
        assert store.best_step("another run") is None


def test_a_restarted_run_forgets_its_past_and_only_its_own(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        store.add_run("r4/seed-1", "a1", 1)
        for name in (run, "r4/seed-1"):
            store.log(name, 1, {"loss": 1.0})
            store.save_evaluation(name, 1, "validation", np.zeros(1), None, {"eval_loss": 0.1})
            store.set_state(name, "diverged", "loss became NaN", {"step": 1})
        store.log(run, 2, {"loss": 1.0})
        store.restart_run(run)
        assert (store.metrics(run), store.evaluations(run)) == ([], ())
        assert [(r.state, r.cause) for r in store.runs()] == [
            ("planned", None),
            ("diverged", "loss became NaN"),
        ]
        assert len(store.metrics("r4/seed-1")) == 1


def test_unknown_states_and_runs_are_refused(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        with pytest.raises(ValueError, match="not one of planned"):
            store.set_state(run, "finished")
        with pytest.raises(StoreError, match="no run r9"):
            store.set_state("r9", "done")


def test_two_arms_of_one_name_are_refused(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        with_one_run(store)
        with pytest.raises(StoreError, match="r4 already belongs"):
            store.add_arm("a2", "t2", "r4", {}, {})


def test_runs_csv_has_a_row_a_run_with_best_last_and_test(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        store.save_probe("a1", {"step_seconds": 0.25, "path": "alone"})
        for step, loss in [(10, 0.4), (20, 0.6)]:
            store.save_evaluation(run, step, "validation", np.zeros(1), None, {"eval_loss": loss})
        store.save_evaluation(run, 10, "test", np.zeros(1), None, {"eval_loss": 0.5})
        store.set_state(run, "done")
        store.write_runs_csv(tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["arm"], row["seed"], row["state"]) == ("r4", "0", "done")
    assert (row["best_eval_loss"], row["last_eval_loss"], row["test_eval_loss"]) == (
        "0.4",
        "0.6",
        "0.5",
    )
    assert row["lora.target_modules"] == '["q", "v"]'
    assert row["probe_step_seconds"] == "0.25"


def test_answers_and_notes_keep_their_order_and_are_not_doubled(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        store.save_answers(run, "a1", [{"prompt": "p", "answer": "x"}])
        store.save_answers("base", "a1", [{"prompt": "p", "answer": "y"}])
        store.save_answers(run, "a1", [{"prompt": "p", "answer": "z"}])
        store.add_note("data", "2 rows left out")
        store.add_note("data", "2 rows left out")
        assert [(a.run_id, a.answers[0]["answer"]) for a in store.answers()] == [
            ("base", "y"),
            (run, "z"),
        ]
        assert store.notes() == (("data", "2 rows left out"),)
