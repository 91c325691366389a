"""What tests put into a store and look up in it, by the names that people use."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rankwise.spec.arms import Run
from rankwise.store.reader import Reader
from rankwise.store.schema import BaseRecord, StudyRecord
from rankwise.store.writer import Store

SPEC = {"study": "s", "objective": {"metric": "eval_loss"}}
RECORD = StudyRecord(
    "study: s\n", SPEC, {"torch": "1"}, "cpu", 2, BaseRecord("tiny", "aa", "float32"), "bb"
)
NUMBERS = {
    "run": "SELECT key, seed, state, best_step, not_finite, bad_step, error FROM run "
    "JOIN training ON training.id = training_id ORDER BY key, seed",
    "step": "SELECT key, seed, step, loss, grad_norm, learning_rate FROM step "
    "JOIN run ON run.id = run_id JOIN training ON training.id = training_id "
    "ORDER BY key, seed, step",
    "evaluation": "SELECT key, seed, split, step, losses, correct FROM evaluation "
    "JOIN run ON run.id = run_id JOIN training ON training.id = training_id "
    "ORDER BY key, seed, split, step",
    "metric": "SELECT key, seed, split, step, name, value FROM metric "
    "JOIN run ON run.id = run_id JOIN training ON training.id = training_id "
    "ORDER BY key, seed, split, step, name",
    "answer": "SELECT config.key, seed, prompt, text, ids, measures FROM answer "
    "JOIN config ON config.id = config_id LEFT JOIN run ON run.id = run_id "
    "ORDER BY config.key, seed, prompt",
    "cohort": "SELECT * FROM cohort",
}
SETTINGS = {"lora.r": 4, "lora.target_modules": ["q", "v"]}


def with_one_run(store: Store) -> int:
    """A study begun, with one configuration and one run of it; the run's number."""
    store.begin_study(RECORD)
    training = store.add_training("t1", trainable_params=7)
    store.add_config("c1", training, "r4", SETTINGS)
    return store.add_run(training, 0)


def add_runs(store: Store, runs: Iterable[Run]) -> None:
    """Trainings, configurations and runs, as a study adds them when it begins."""
    for run in runs:
        training = store.add_training(run.arm.training_id)
        store.add_config(run.arm.id, training, run.arm.name, run.arm.settings)
        store.add_run(training, run.seed)


def id_of(store: Reader, run: Run) -> int:
    """The store's number of a run."""
    return store.run_id(run.arm.training_id, run.seed)


def labels(store: Reader) -> dict[str, int]:
    """CONFIG/seed-N -> the run's number, for every configuration that shares it."""
    return {
        f"{config.name}/seed-{run.seed}": run.id
        for config in store.configs()
        for run in store.runs()
        if run.training_id == config.training_id
    }


def states(store: Reader) -> dict[str, str]:
    """CONFIG/seed-N -> state."""
    return {label: store.run(run).state for label, run in labels(store).items()}


def numbers(out: Path) -> dict[Any, Any]:
    """All that a study has computed, but what the clock decides."""
    with sqlite3.connect(out / "study.db") as db:
        found = {name: db.execute(query).fetchall() for name, query in NUMBERS.items()}
        keys = "SELECT key, seed, folder FROM run JOIN training ON training.id = training_id"
        for key, seed, folder in db.execute(keys):
            weights = out / "adapters" / folder / "adapter_model.safetensors"
            found[key, seed] = weights.read_bytes() if weights.exists() else b""
    db.close()
    return found
