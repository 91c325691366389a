"""The records of a study: `study.db` (SQLite, WAL) in the study's folder. No torch here.

Shapes: E evaluation examples of a split, in one order that is the same for every run of the study.
Arrays keep their dtype on the way in and out; NaN metrics survive (SQLite itself would lose them).
Nothing stored depends on the clock, so equal results make equal reports.
"""

import contextlib
import csv
import io
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import numpy as np

from rankwise.errors import StoreError

try:
    import fcntl
except ImportError:  # Windows: no advisory lock, SQLite's own still keeps the file whole
    fcntl = None  # type: ignore[assignment]

FILE = "study.db"
STATES = (
    "planned",
    "running",
    "done",
    "diverged",
    "out_of_memory",
    "crashed",
    "pruned",
    "stopped_early",
    "interrupted",
)
FINISHED = ("done", "stopped_early")
"""States with results that may be ranked; `stopped_early` is early stopping by patience."""
Split = Literal["validation", "test"]

MIGRATIONS = (
    """
    CREATE TABLE study (
        one INTEGER PRIMARY KEY CHECK (one = 1), spec_yaml TEXT NOT NULL, spec TEXT NOT NULL,
        versions TEXT NOT NULL, device TEXT NOT NULL, model TEXT NOT NULL, data TEXT NOT NULL);
    CREATE TABLE arm (
        id TEXT PRIMARY KEY, training_id TEXT NOT NULL, name TEXT NOT NULL UNIQUE,
        settings TEXT NOT NULL, costs TEXT NOT NULL);
    CREATE TABLE run (
        id TEXT PRIMARY KEY, arm_id TEXT NOT NULL REFERENCES arm, seed INTEGER NOT NULL,
        state TEXT NOT NULL, cause TEXT, evidence TEXT, UNIQUE (arm_id, seed));
    CREATE TABLE metric (
        run_id TEXT NOT NULL REFERENCES run, step INTEGER NOT NULL, name TEXT NOT NULL,
        value REAL, PRIMARY KEY (run_id, step, name)) WITHOUT ROWID;
    CREATE TABLE examples (
        split TEXT PRIMARY KEY, hashes TEXT NOT NULL, groups BLOB NOT NULL, weights BLOB NOT NULL);
    CREATE TABLE evaluation (
        run_id TEXT NOT NULL REFERENCES run, split TEXT NOT NULL, step INTEGER NOT NULL,
        metrics TEXT NOT NULL, losses BLOB NOT NULL, correct BLOB,
        PRIMARY KEY (run_id, split, step));
    CREATE TABLE probe (arm_id TEXT PRIMARY KEY REFERENCES arm, probe TEXT NOT NULL);
    CREATE TABLE answers (
        run_id TEXT NOT NULL, arm_id TEXT NOT NULL, answers TEXT NOT NULL,
        PRIMARY KEY (run_id, arm_id));
    CREATE TABLE note (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, text TEXT NOT NULL, UNIQUE (kind, text));
    """,
)
"""One SQL script a version, never edited once released: a new column is a new script."""


@dataclass(frozen=True)
class StudyRecord:
    """What was asked, with what, on what."""

    spec_yaml: str
    spec: dict[str, Any]
    versions: dict[str, Any]
    device: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]


@dataclass(frozen=True)
class ArmRecord:
    """One configuration; `settings` are flat dotted keys, `costs` are numbers with their unit."""

    id: str
    training_id: str
    name: str
    settings: dict[str, Any]
    costs: dict[str, float]


@dataclass(frozen=True)
class RunRecord:
    """One arm with one seed; `cause` and `evidence` say why it is not done."""

    id: str
    arm_id: str
    seed: int
    state: str
    cause: str | None
    evidence: dict[str, Any]


@dataclass(frozen=True)
class ExamplesRecord:
    """The evaluation examples of a split: hashes, groups (E,), weights (E,) in target tokens."""

    split: str
    hashes: tuple[str, ...]
    groups: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one run: losses (E,), correct (E,) or None, metrics by name."""

    run_id: str
    split: str
    step: int
    losses: np.ndarray
    correct: np.ndarray | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class AnswersRecord:
    """Generated answers of a run, or of the untrained base (`run_id` = "base")."""

    run_id: str
    arm_id: str
    answers: tuple[dict[str, Any], ...]


class Store:
    """A study's records. One process writes at a time; any number may read meanwhile.

    Raises:
        StoreError: no study there (and not `create`), a damaged file, or one written by a newer
            rankwise.
    """

    def __init__(self, folder: Path, create: bool = False) -> None:
        self.folder = Path(folder)
        path = self.folder / FILE
        if create:
            self.folder.mkdir(parents=True, exist_ok=True)
        elif not path.is_file():
            raise StoreError(
                f"{self.folder}: no study here (no {FILE}); start one with rankwise run"
            )
        self._lock: IO[str] | None = None
        self._buffer: list[tuple[str, int, str, float | None]] = []
        self._flushed = time.monotonic()
        self._db = sqlite3.connect(path, timeout=30)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._migrate(path)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise StoreError(
                f"{path}: not readable as a study ({error}); restore it or use another --out"
            ) from error
        except StoreError:
            self._db.close()
            raise

    def _migrate(self, path: Path) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{path}: written by a newer rankwise (records version {version}, this one knows "
                f"{len(MIGRATIONS)}); upgrade rankwise"
            )
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            # One transaction a version: a crash leaves either the old or the new form.
            self._db.executescript(f"BEGIN; {script} PRAGMA user_version={number}; COMMIT;")

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

    # ---------------------------------------------------------------- writing

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
    ) -> None:
        """Adds an arm, or refreshes the one with this id.

        Raises:
            StoreError: the name belongs to another arm of the study.
        """
        clash = self._db.execute(
            "SELECT id FROM arm WHERE name = ? AND id != ?", (name, arm_id)
        ).fetchone()
        if clash:
            raise StoreError(
                f"{self.folder}: the name {name} already belongs to arm {clash[0]} with other "
                "settings; give one of them a `name`, or use another --out"
            )
        with self._writing() as db:
            db.execute(
                "INSERT INTO arm VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "training_id = excluded.training_id, name = excluded.name, "
                "settings = excluded.settings, costs = excluded.costs",
                (arm_id, training_id, name, _text(settings), _text(costs)),
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
        values = (split, json.dumps(list(hashes)), _blob(groups), _blob(weights))
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
            _blob(losses),
            None if correct is None else _blob(correct),
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

    # ---------------------------------------------------------------- reading

    def begun(self) -> bool:
        """Whether a study has been begun here."""
        return self._study_or_none() is not None

    def study(self) -> StudyRecord:
        """The study's spec, versions, device, model and data.

        Raises:
            StoreError: no study was begun here.
        """
        found = self._study_or_none()
        if found is None:
            raise StoreError(f"{self.folder}: no study was begun here; start it with rankwise run")
        return found

    def _study_or_none(self) -> StudyRecord | None:
        row = self._db.execute(
            "SELECT spec_yaml, spec, versions, device, model, data FROM study"
        ).fetchone()
        return None if row is None else StudyRecord(row[0], *(json.loads(part) for part in row[1:]))

    def arms(self) -> tuple[ArmRecord, ...]:
        """All arms in the order they were added."""
        rows = self._db.execute(
            "SELECT id, training_id, name, settings, costs FROM arm ORDER BY rowid"
        )
        return tuple(
            ArmRecord(i, t, name, json.loads(settings), json.loads(costs))
            for i, t, name, settings, costs in rows
        )

    def runs(self) -> tuple[RunRecord, ...]:
        """All runs in the order of their arms, then seeds."""
        rows = self._db.execute(
            "SELECT run.id, arm_id, seed, state, cause, evidence FROM run "
            "JOIN arm ON arm.id = arm_id ORDER BY arm.rowid, seed"
        )
        return tuple(
            RunRecord(i, arm, seed, state, cause, json.loads(evidence or "{}"))
            for i, arm, seed, state, cause, evidence in rows
        )

    def metrics(self, run_id: str, names: Iterable[str] | None = None) -> list[dict[str, float]]:
        """A run's logged metrics, a dict a step (with `step`), in order; all names or these."""
        self.flush()
        query = "SELECT step, name, value FROM metric WHERE run_id = ?"
        chosen = None if names is None else tuple(names)
        if chosen is not None:
            query += f" AND name IN ({','.join('?' * len(chosen))})"
        rows: dict[int, dict[str, float]] = {}
        for step, name, value in self._db.execute(
            query + " ORDER BY step, name", (run_id, *(chosen or ()))
        ):
            row = rows.setdefault(step, {"step": step})
            row[name] = float("nan") if value is None else value
        return list(rows.values())

    def examples(self, split: Split) -> ExamplesRecord | None:
        """The examples of a split, or None where it has none."""
        row = self._db.execute(
            "SELECT hashes, groups, weights FROM examples WHERE split = ?", (split,)
        ).fetchone()
        if row is None:
            return None
        return ExamplesRecord(split, tuple(json.loads(row[0])), _array(row[1]), _array(row[2]))

    def evaluations(self, run_id: str, split: Split = "validation") -> tuple[Evaluation, ...]:
        """A run's evaluations with per-example losses, by step."""
        rows = self._db.execute(
            "SELECT step, losses, correct, metrics FROM evaluation "
            "WHERE run_id = ? AND split = ? ORDER BY step",
            (run_id, split),
        )
        return tuple(
            Evaluation(run_id, split, step, _array(losses), _array(c) if c else None, json.loads(m))
            for step, losses, c, m in rows
        )

    def evaluation_at(self, run_id: str, step: int, split: Split = "validation") -> Evaluation:
        """One evaluation of a run.

        Raises:
            StoreError: there is none at this step.
        """
        row = self._db.execute(
            "SELECT losses, correct, metrics FROM evaluation "
            "WHERE run_id = ? AND split = ? AND step = ?",
            (run_id, split, step),
        ).fetchone()
        if row is None:
            raise StoreError(f"{self.folder}: {run_id} has no {split} evaluation at step {step}")
        losses, correct, metrics = row
        return Evaluation(
            run_id,
            split,
            step,
            _array(losses),
            _array(correct) if correct else None,
            json.loads(metrics),
        )

    def evaluation_metrics(
        self, run_id: str, split: Split = "validation"
    ) -> list[dict[str, float]]:
        """A run's evaluations without the examples: a dict a step (with `step`), in order."""
        rows = self._db.execute(
            "SELECT step, metrics FROM evaluation WHERE run_id = ? AND split = ? ORDER BY step",
            (run_id, split),
        )
        return [{"step": step, **json.loads(metrics)} for step, metrics in rows]

    def best_step(self, run_id: str, metric: str | None = None) -> int | None:
        """Step of a run's best validation by `metric` (default: the study's objective).

        The earliest of equals; None where nothing finite was evaluated. Losses are best low, all
        other metrics best high.
        """
        name = metric or str(self.study().spec.get("objective", {}).get("metric", "eval_loss"))
        sign = 1 if name.endswith("loss") else -1
        scored = [
            (sign * row[name], row["step"])
            for row in self.evaluation_metrics(run_id)
            if np.isfinite(row.get(name, np.nan))
        ]
        return int(min(scored)[1]) if scored else None

    def probes(self) -> dict[str, dict[str, Any]]:
        """Solo probes by arm id."""
        return {
            i: json.loads(p) for i, p in self._db.execute("SELECT * FROM probe ORDER BY arm_id")
        }

    def answers(self) -> tuple[AnswersRecord, ...]:
        """All generated answers."""
        rows = self._db.execute("SELECT * FROM answers ORDER BY run_id != 'base', rowid")
        return tuple(AnswersRecord(run, arm, tuple(json.loads(text))) for run, arm, text in rows)

    def notes(self) -> tuple[tuple[str, str], ...]:
        """All remarks as (kind, text), in the order they were made."""
        return tuple(self._db.execute("SELECT kind, text FROM note ORDER BY id"))

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


def _blob(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _array(blob: bytes) -> np.ndarray:
    found: np.ndarray = np.load(io.BytesIO(blob), allow_pickle=False)
    return found
