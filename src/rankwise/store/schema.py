"""What a study's database holds: its tables, its records, its states. No torch here.

Shapes: E evaluation examples of a split, in one order that is the same for every run of the study.
Arrays keep their dtype on the way in and out.
"""

import io
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rankwise.errors import StoreError

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
    "ALTER TABLE arm ADD COLUMN ranks TEXT NOT NULL DEFAULT '{}';",
    "ALTER TABLE arm ADD COLUMN adapter TEXT NOT NULL DEFAULT '{}';",
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
    """One configuration: `settings` by dotted name, `costs` before it ran, rank by module name.

    `adapter` holds the resolved arguments of peft.LoraConfig; empty where there are none.
    """

    id: str
    training_id: str
    name: str
    settings: dict[str, Any]
    costs: dict[str, float]
    ranks: dict[str, int]
    adapter: dict[str, Any]


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


def connect(path: Path) -> sqlite3.Connection:
    """An open database in its newest form.

    Raises:
        StoreError: the file is no database, or was written by a newer rankwise.
    """
    db = sqlite3.connect(path, timeout=30)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA foreign_keys=ON")
        _migrate(db, path)
    except sqlite3.DatabaseError as error:
        db.close()
        raise StoreError(
            f"{path}: not readable as a study ({error}); restore it or use another --out"
        ) from error
    except StoreError:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: written by a newer rankwise (records version {version}, this one knows "
            f"{len(MIGRATIONS)}); upgrade rankwise"
        )
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        # One transaction a version: a crash leaves either the old or the new form.
        db.executescript(f"BEGIN; {script} PRAGMA user_version={number}; COMMIT;")


def to_blob(array: np.ndarray) -> bytes:
    """An array as bytes, with its dtype and shape (numpy's own format, no pickle)."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def from_blob(blob: bytes) -> np.ndarray:
    """The array that `to_blob` put away."""
    found: np.ndarray = np.load(io.BytesIO(blob), allow_pickle=False)
    return found
