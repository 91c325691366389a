"""The store keeps what it is given, goes on where it was stopped, and refuses what cannot mix."""

import math
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rankwise.errors import StoreError
from rankwise.report.remarks import remark
from rankwise.store.migrations import FIRST_TABLES, MIGRATIONS
from rankwise.store.reader import Reader
from rankwise.store.schema import (
    Answer,
    BaseRecord,
    CostRecord,
    Failure,
    ModuleRank,
    Step,
    StudyRecord,
)
from rankwise.store.writer import Store
from stored import RECORD, SETTINGS, with_one_run


def test_arrays_and_metrics_come_back_as_they_went_in(tmp_path: Path) -> None:
    losses = np.array([0.1, np.nan, 3.0], dtype=np.float32)
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        store.log(run, 1, 1.25, math.inf, 0.1)
        store.log(run, 2, math.nan, -math.inf, 0.1)
        metrics = {"x": 0.5, "bad": math.nan, "far": math.inf}
        store.save_evaluation(run, 2, "validation", losses, np.array([1, 0, 1], bool), metrics)
        store.save_examples("validation", ["a", "b", "c"], np.array([0, 0, 1]), np.ones(3))
        store.save_base_metrics({"eval_loss": math.nan})
        store.save_merged(run, math.inf)
    with Reader(tmp_path) as reader:
        first, second = reader.steps(run)
        assert first == Step(1, 1.25, math.inf, 0.1)
        assert math.isnan(second.loss)
        assert second.grad_norm == -math.inf
        (found,) = reader.evaluations(run)
        assert found.losses.dtype == np.float32
        np.testing.assert_array_equal(found.losses, losses)
        assert found.correct is not None
        assert found.correct.tolist() == [True, False, True]
        assert list(found.metrics) == ["x", "bad", "far"]
        assert (found.metrics["x"], found.metrics["far"]) == (0.5, math.inf)
        assert math.isnan(found.metrics["bad"])
        examples = reader.examples("validation")
        assert examples is not None
        assert examples.groups.tolist() == [0, 0, 1]
        assert reader.examples("test") is None
        assert math.isnan(reader.base_metrics()["eval_loss"])
        assert reader.merged() == {run: math.inf}


def test_a_second_begin_goes_on_and_keeps_results(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        store.set_state(run, "done")
    with Store(tmp_path, create=True) as store:
        assert with_one_run(store) == run
        assert [r.state for r in store.runs()] == ["done"]
        assert store.facts() == ()


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (replace(RECORD, base=replace(RECORD.base, sha256="zz")), "base model"),
        (replace(RECORD, base=replace(RECORD.base, dtype="bfloat16")), "dtype"),
        (replace(RECORD, data_fingerprint="zz"), "data"),
    ],
)
def test_another_model_precision_or_data_is_refused(
    tmp_path: Path, other: StudyRecord, word: str
) -> None:
    with Store(tmp_path, create=True) as store:
        store.begin_study(RECORD)
        with pytest.raises(StoreError, match=word) as caught:
            store.begin_study(other)
        assert "--out" in str(caught.value)


def test_changed_versions_and_devices_are_noted_not_refused(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        store.begin_study(RECORD)
        store.begin_study(replace(RECORD, versions={"torch": "2"}, threads=4))
        assert [remark(fact) for fact in store.facts()] == [
            ("versions", "versions changed within the study: torch 1 -> 2"),
            ("device", "device changed within the study: threads 2 -> 4"),
        ]
        assert store.study().versions == {"torch": "2"}


def test_other_examples_in_a_split_are_refused(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        store.save_examples("test", ["a"], np.zeros(1), np.ones(1))
        store.save_examples("test", ["a"], np.zeros(1), np.ones(1))
        with pytest.raises(StoreError, match="test examples differ"):
            store.save_examples("test", ["b"], np.zeros(1), np.ones(1))


def test_a_folder_without_study_is_an_error_that_says_so(tmp_path: Path) -> None:
    for kind in (Reader, Store):
        with pytest.raises(StoreError, match="no study here"):
            kind(tmp_path)
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
        store.configs()


def test_records_of_a_newer_rankwise_are_left_alone(tmp_path: Path) -> None:
    Store(tmp_path, create=True).close()
    db = sqlite3.connect(tmp_path / "study.db")
    db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(StoreError, match="newer rankwise"):
        Reader(tmp_path)


def first_version(folder: Path) -> None:
    """A database of the first version with one configuration and a run of it."""
    db = sqlite3.connect(folder / "study.db")
    db.executescript(f"{FIRST_TABLES} PRAGMA user_version=1;")
    db.execute("INSERT INTO arm VALUES ('a1', 't1', 'old', '{}', '{\"trainable_params\": 8.0}')")
    db.execute("INSERT INTO run VALUES ('old/seed-0', 'a1', 0, 'done', NULL, NULL)")
    rows = [("old/seed-0", 1, "loss", None), ("old/seed-0", 1, "grad_norm", math.inf)]
    db.executemany("INSERT INTO metric VALUES (?, ?, ?, ?)", rows)
    db.execute("INSERT INTO note (kind, text) VALUES ('data', '2 rows left out')")
    db.commit()
    db.close()


def test_records_of_the_first_version_are_brought_up_to_date(tmp_path: Path) -> None:
    first_version(tmp_path)
    with Store(tmp_path) as store:
        training = store.add_training("t2", ranks={"layer.0.q": ModuleRank(4, 2.0)})
        store.add_config("a2", training, "new", {})
        assert [config.name for config in store.configs()] == ["old", "new"]
        assert store.ranks(training) == {"layer.0.q": ModuleRank(4, 2.0)}
        old, _ = store.trainings()
        assert (old.key, old.trainable_params) == ("t1", 8)
        assert store.ranks(old.id) == {}
        (run,) = store.runs()
        assert (run.state, run.folder, run.best_step) == ("done", "old/seed-0", None)
        (step,) = store.steps(run.id)
        assert math.isnan(step.loss)
        assert step.grad_norm == math.inf
        assert [remark(fact) for fact in store.facts()] == [("data", "2 rows left out")]


def test_a_migration_that_fails_leaves_the_old_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_version(tmp_path)

    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("rankwise.store.migrations._copy_answers", fails)
        with pytest.raises(StoreError, match="disk full"):
            Reader(tmp_path)
    with Reader(tmp_path) as reader:
        assert [config.name for config in reader.configs()] == ["old"]


def test_an_old_study_is_not_brought_up_to_date_while_it_is_written(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    first_version(tmp_path)
    with (tmp_path / "study.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another process"):
            Reader(tmp_path)
    Reader(tmp_path).close()


def test_one_process_writes_while_others_read(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as writer:
        run = with_one_run(writer)
        writer.log(run, 1, 1.0, 2.0, 0.1)
        writer.flush()
        with Store(tmp_path) as reader:
            assert reader.steps(run) == (Step(1, 1.0, 2.0, 0.1),)
            with pytest.raises(StoreError, match="another process"):
                reader.begin_study(RECORD)
    with Store(tmp_path) as later:
        later.begin_study(RECORD)


def test_what_a_killed_process_had_committed_is_there(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from rankwise.store.writer import Store\n"
        "from rankwise.store.schema import StudyRecord, BaseRecord\n"
        "s = Store(Path(sys.argv[1]), create=True)\n"
        "s.begin_study(StudyRecord('', {}, {}, 'cpu', 1, BaseRecord('n', 'a', 'b'), 'c'))\n"
        "t = s.add_training('t'); s.add_config('c', t, 'n', {}); r = s.add_run(t, 0)\n"
        "s.log(r, 1, 2.0, 1.0, 0.1); s.set_state(r, 'running'); s.log(r, 2, 3.0, 1.0, 0.1)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    with Store(tmp_path) as store:
        (run,) = store.runs()
        assert run.state == "running"
        assert [step.loss for step in store.steps(run.id)] == [2.0]  # the other was in the buffer
        store.begin_study(StudyRecord("", {}, {}, "cpu", 1, BaseRecord("n", "a", "b"), "c"))


def test_a_run_is_one_training_with_one_seed(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        training = store.run(run).training_id
        store.add_config("c2", training, "r4-warm", {**SETTINGS, "generation.temperature": 1})
        assert store.add_run(training, 0) == run == store.run_id("t1", 0)
        other = store.add_run(training, 1)
        assert [one.folder for one in store.runs()] == [f"run-{run}", f"run-{other}"]
        for missing in (("t1", 2), ("t2", 0)):
            with pytest.raises(StoreError, match="no run of training"):
                store.run_id(*missing)


def test_a_training_is_refreshed_and_keeps_ranks_that_are_not_given_again(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        ranks = {"z": ModuleRank(2, 1.0), "a": ModuleRank(8)}
        training = store.add_training("t1", trainable_params=7, ranks=ranks)
        store.add_training("t1", adapter={"r": 4})
        assert store.add_training("t1", trainable_params=9) == training
        assert store.trainings()[0].adapter == {"r": 4}
        assert store.trainings()[0].trainable_params == 9
        assert list(store.ranks(training).items()) == list(ranks.items())


def test_the_best_step_and_the_failure_of_a_run_are_kept(tmp_path: Path) -> None:
    failure = Failure("loss", 3, math.inf, "an error", "its trace")
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        assert store.run(run).best_step is None
        store.set_best(run, 2)
        store.set_state(run, "diverged", failure)
    with Reader(tmp_path) as reader:
        assert reader.run(run).best_step == 2
        assert reader.run(run).failure == failure


def test_a_restarted_run_forgets_its_past_and_only_its_own(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        other = store.add_run(store.run(run).training_id, 1)
        config = store.configs()[0].id
        for one in (run, other):
            store.log(one, 1, 1.0, 1.0, 0.1)
            store.save_evaluation(one, 1, "validation", np.zeros(1), None, {"eval_loss": 0.1})
            store.set_best(one, 1)
            store.save_answers(config, one, [Answer("p", None, "x")])
            store.save_merged(one, 0.2)
            store.set_state(one, "diverged", Failure("loss", 1))
        store.log(run, 2, 1.0, 1.0, 0.1)
        store.restart_run(run)
        assert (store.steps(run), store.evaluations(run)) == ((), ())
        assert [(r.state, r.best_step, r.failure) for r in store.runs()] == [
            ("planned", None, Failure()),
            ("diverged", 1, Failure("loss", 1)),
        ]
        assert len(store.steps(other)) == len(store.evaluations(other)) == 1
        assert [record.run_id for record in store.answers()] == [other]
        assert store.merged() == {other: 0.2}


def test_unknown_states_and_runs_are_refused(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        with pytest.raises(ValueError, match="not one of planned"):
            store.set_state(run, "finished")
        for write in (lambda: store.set_state(99, "done"), lambda: store.set_best(99, 1)):
            with pytest.raises(StoreError, match="no run 99"):
                write()
        with pytest.raises(StoreError, match="no run 99"):
            store.run(99)


def test_two_configurations_of_one_name_are_refused(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        with_one_run(store)
        training = store.add_training("t2")
        with pytest.raises(StoreError, match="r4 already belongs"):
            store.add_config("c2", training, "r4", {})


def test_the_same_evaluation_again_replaces_the_first(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        store.save_evaluation(run, 1, "validation", np.zeros(2), None, {"a": 1.0, "b": 2.0})
        store.save_evaluation(run, 1, "validation", np.ones(2), None, {"a": 3.0})
        (found,) = store.evaluations(run)
        assert (found.losses.tolist(), found.metrics) == ([1.0, 1.0], {"a": 3.0})
        assert store.evaluation_metrics(run) == [{"step": 1, "a": 3.0}]
        with pytest.raises(StoreError, match="no validation evaluation at step 2"):
            store.evaluation_at(run, 2)


def test_costs_belong_to_the_training(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        training = store.run(with_one_run(store)).training_id
        store.save_cost(training, CostRecord(0.25, None, 10, "alone"))
        assert store.costs() == {training: CostRecord(0.25, None, 10, "alone")}


def test_answers_and_facts_keep_their_order_and_are_not_doubled(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        run = with_one_run(store)
        config = store.configs()[0].id
        store.save_answers(config, run, [Answer("p", None, "x")])
        store.save_answers(config, None, [Answer("p", "r", "y", (1, 2), {"tokens": 2.0})])
        store.save_answers(config, run, [Answer("p", None, "z", (), {})])
        store.add_fact("text", about="data", text="2 rows left out")
        store.add_fact("text", text="2 rows left out", about="data")
        base, own = store.answers()
        assert base.run_id is None
        assert base.answers == (Answer("p", "r", "y", (1, 2), {"tokens": 2.0}),)
        assert (own.run_id, own.answers[0].text) == (run, "z")
        assert [remark(fact) for fact in store.facts()] == [("data", "2 rows left out")]
