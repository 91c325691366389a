"""The records of a study: `study.db` (SQLite, WAL) in the study's folder. No torch here.

NaN metrics survive (SQLite itself would lose them). Nothing stored depends on the clock, so equal
results make equal reports.
"""

import contextlib
import csv
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from rankwise.errors import StoreError
from rankwise.store.reader import StudyReader
from rankwise.store.schema import (
    FILE,
    FINISHED,
    MIGRATIONS,
    STATES,
    AnswersRecord,
    ArmRecord,
    Evaluation,
    ExamplesRecord,
    RunRecord,
    Split,
    StudyRecord,
    to_blob,
)

try:
    import fcntl
except ImportError:  # Windows: no advisory lock, SQLite's own still keeps the file whole
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FILE",
    "FINISHED",
    "MIGRATIONS",
    "STATES",
    "AnswersRecord",
    "ArmRecord",
    "Evaluation",
    "ExamplesRecord",
    "RunRecord",
    "Split",
    "Store",
    "StudyRecord",
]


class Store(StudyReader):
    """A study's records. One process writes at a time; any number may read meanwhile.

    Raises:
        StoreError: no study there (and not `create`), a damaged file, or one written by a newer
            rankwise.
    """

    def __init__(self, folder: Path, create: bool = False) -> None:
        folder = Path(folder)
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        elif not (folder / FILE).is_file():
            raise StoreError(f"{folder}: no study here (no {FILE}); start one with rankwise run")
        super().__init__(folder)
        self._lock: IO[str] | None = None
        self._buffer: list[tuple[str, int, str, float | None]] = []
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Writes what is buffered and lets go of the file."""
        self.flush()
        self._db.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def begin_study(
        self,
        spec_yaml: str,
        spec: dict[str, Any],
        versions: dict[str, Any],
        device: dict[str, Any],
        model: dict[str, Any],
        data: dict[str, Any],
    ) -> None:
        """Begins the study, or goes on with it; holds the folder until `close`.

        `model` needs name, sha256 (of the weights) and dtype, `data` a fingerprint: these may not
        change within a study, since runs are compared across calls. Spec, versions and device may,
        and a change of versions or device leaves a note.

        Raises:
            StoreError: another model, precision or data than the study began with, or the study
                is being written by another process.
        """
        self._hold()
        old = self._study_or_none()
        if old is not None:
            self._check_same("base model", old.model, model, ("sha256", "dtype"))
            self._check_same("data", old.data, data, ("fingerprint",))
            for name, before, now in (
                ("versions", old.versions, versions),
                ("device", old.device, device),
            ):
                if _canonical(before) != _canonical(now):
                    text = f"{name} changed within the study: {_changes(before, now)}"
                    self.add_note(name, text)
        values = (spec_yaml, *(_text(part) for part in (spec, versions, device, model, data)))
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO study VALUES (1, ?, ?, ?, ?, ?, ?)", values)

    def _hold(self) -> None:
        if self._lock is not None or fcntl is None:
            return
        lock = (self.folder / "study.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise StoreError(
                f"{self.folder}: another process is running this study; wait for it, or use "
                "another --out"
            ) from None
        self._lock = lock

    def _check_same(
        self, what: str, old: Mapping[str, Any], new: Mapping[str, Any], keys: Sequence[str]
    ) -> None:
        for key in keys:
            if old.get(key) != new.get(key):
                raise StoreError(
                    f"{self.folder}: this study was begun with another {what} ({key} "
                    f"{old.get(key)}, now {new.get(key)}), and such runs cannot be compared; "
                    "use another --out"
                )

    def add_arm(
        self,
        arm_id: str,
        training_id: str,
        name: str,
        settings: dict[str, Any],
        costs: dict[str, float],
        ranks: Mapping[str, int] | None = None,
        adapter: Mapping[str, Any] | None = None,
    ) -> None:
        """Adds an arm, or refreshes the one with this id.

        `settings` are those that identify it, by dotted name; `costs` what is known before it
        runs (trainable_params, total_params, storage_bytes, memory_bytes); `ranks` the rank of
        each adapted module by its full name, for the figure of ranks by layer; `adapter` the
        resolved arguments of peft.LoraConfig, for the report's snippets.

        Raises:
            StoreError: the name belongs to another arm of the study.
        """
        clash = self._row("SELECT id FROM arm WHERE name = ? AND id != ?", (name, arm_id))
        if clash:
            raise StoreError(
                f"{self.folder}: the name {name} already belongs to arm {clash[0]} with other "
                "settings; give one of them a `name`, or use another --out"
            )
        with self._writing() as db:
            db.execute(
                "INSERT INTO arm VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "training_id = excluded.training_id, name = excluded.name, "
                "settings = excluded.settings, costs = excluded.costs, ranks = excluded.ranks, "
                "adapter = excluded.adapter",
                (
                    arm_id,
                    training_id,
                    name,
                    *map(_text, (settings, costs, ranks or {}, adapter or {})),
                ),
            )

    def add_run(self, run_id: str, arm_id: str, seed: int) -> None:
        """Adds a run in state `planned`; one that is there keeps its state and results."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO run VALUES (?, ?, ?, 'planned', NULL, NULL) ON CONFLICT DO NOTHING",
                (run_id, arm_id, seed),
            )

    def restart_run(self, run_id: str) -> None:
        """Forgets what a run has recorded and plans it anew."""
        self._buffer = [row for row in self._buffer if row[0] != run_id]
        with self._writing() as db:
            db.execute("DELETE FROM metric WHERE run_id = ?", (run_id,))
            db.execute("DELETE FROM evaluation WHERE run_id = ?", (run_id,))
            db.execute("DELETE FROM answers WHERE run_id = ?", (run_id,))
        self.set_state(run_id, "planned")

    def copy_run(self, run_id: str, to: str) -> None:
        """Gives run `to` the records of the run whose training it shares, all but its answers."""
        self.flush()
        with self._writing() as db:
            for table, columns in (
                ("metric", "step, name, value"),
                ("evaluation", "split, step, metrics, losses, correct"),
            ):
                db.execute(f"DELETE FROM {table} WHERE run_id = ?", (to,))
                db.execute(
                    f"INSERT INTO {table} (run_id, {columns}) "
                    f"SELECT ?, {columns} FROM {table} WHERE run_id = ?",
                    (to, run_id),
                )
            db.execute(
                "UPDATE run SET (state, cause, evidence) = "
                "(SELECT state, cause, evidence FROM run WHERE id = ?) WHERE id = ?",
                (run_id, to),
            )

    def set_state(
        self,
        run_id: str,
        state: str,
        cause: str | None = None,
        evidence: dict[str, Any] | None = None,
    ) -> None:
        """Sets a run's state (one of STATES) and why; writes what is buffered first."""
        if state not in STATES:
            raise ValueError(f"state {state!r} is not one of {', '.join(STATES)}")
        self.flush()
        with self._writing() as db:
            found = db.execute(
                "UPDATE run SET state = ?, cause = ?, evidence = ? WHERE id = ?",
                (state, cause, _text(evidence or {}), run_id),
            )
        if found.rowcount != 1:
            raise StoreError(f"{self.folder}: no run {run_id} in this study")

    def log(self, run_id: str, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics of a step (loss, grad_norm, learning_rate, ...); NaN and inf too."""
        for name, value in metrics.items():
            number = float(value)
            self._buffer.append((run_id, step, name, None if number != number else number))
        if len(self._buffer) > 2000 or time.monotonic() - self._flushed > 2:
            self.flush()

    def flush(self) -> None:
        """Writes the buffered metrics."""
        self._flushed = time.monotonic()
        if self._buffer:
            with self._writing() as db:
                db.executemany("INSERT OR REPLACE INTO metric VALUES (?, ?, ?, ?)", self._buffer)
            self._buffer = []

    def metrics(self, run_id: str, names: Iterable[str] | None = None) -> list[dict[str, float]]:
        """As in StudyReader, with what is still buffered."""
        self.flush()
        return super().metrics(run_id, names)

    def save_examples(
        self, split: Split, hashes: Sequence[str], groups: np.ndarray, weights: np.ndarray
    ) -> None:
        """Records a split's examples once: hashes, groups (E,), weights (E,).

        Raises:
            StoreError: the study already has other examples in this split.
        """
        old = self.examples(split)
        if old is not None and old.hashes != tuple(hashes):
            raise StoreError(
                f"{self.folder}: the {split} examples differ from those the study began with; "
                "use another --out"
            )
        values = (split, json.dumps(list(hashes)), to_blob(groups), to_blob(weights))
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO examples VALUES (?, ?, ?, ?)", values)

    def save_evaluation(
        self,
        run_id: str,
        step: int,
        split: Split,
        losses: np.ndarray,
        correct: np.ndarray | None,
        metrics: Mapping[str, float],
    ) -> None:
        """Records an evaluation: losses (E,), correct (E,) or None, metrics by name.

        Metrics carry the names that the objective uses (eval_loss, eval_accuracy, ...) on both
        splits. The same step again replaces the record.
        """
        self.flush()
        row = (
            run_id,
            split,
            step,
            json.dumps({name: float(value) for name, value in metrics.items()}),
            to_blob(losses),
            None if correct is None else to_blob(correct),
        )
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO evaluation VALUES (?, ?, ?, ?, ?, ?)", row)

    def save_probe(self, arm_id: str, probe: Mapping[str, Any]) -> None:
        """Records an arm's solo probe: step_seconds, eval_seconds, memory_bytes, path."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO probe VALUES (?, ?)", (arm_id, _text(probe)))

    def save_answers(self, run_id: str, arm_id: str, answers: Sequence[Mapping[str, Any]]) -> None:
        """Records generated answers: prompt, reference, answer, measures; run_id may be "base"."""
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)",
                (run_id, arm_id, _text(list(answers))),
            )

    def add_note(self, kind: str, text: str) -> None:
        """Adds a remark for the report (`kind` such as fallback, data); the same one only once."""
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO note (kind, text) VALUES (?, ?)", (kind, text))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._db:
                yield self._db
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.folder / FILE}: could not be written ({error})") from error

    def write_runs_csv(self, path: Path) -> None:
        """Writes a row a run: arm, seed, state, settings, costs, metrics at best and last step."""
        arms = {arm.id: arm for arm in self.arms()}
        probes = self.probes()
        rows = [self._csv_row(run, arms[run.arm_id], probes) for run in self.runs()]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def _csv_row(
        self, run: RunRecord, arm: ArmRecord, probes: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            "run": run.id,
            "arm": arm.name,
            "seed": run.seed,
            "state": run.state,
            "cause": run.cause or "",
        }
        for name, value in {**arm.settings, **arm.costs}.items():
            row[name] = value if isinstance(value, str | int | float) else _text(value)
        row.update({f"probe_{name}": value for name, value in probes.get(arm.id, {}).items()})
        evaluations = self.evaluation_metrics(run.id)
        best = self.best_step(run.id)
        for prefix, found in (
            ("best", [e for e in evaluations if e["step"] == best]),
            ("last", evaluations[-1:]),
            ("test", self.evaluation_metrics(run.id, "test")[-1:]),
        ):
            row.update(
                {f"{prefix}_{name}": value for entry in found for name, value in entry.items()}
            )
        return row


def _text(value: Any) -> str:
    """JSON in the order given, so that a spec or a row of settings reads as it was written."""
    return json.dumps(value, ensure_ascii=False)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{key} {before.get(key)} -> {now.get(key)}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    )
