"""What a study's database holds: its tables, its records, its states. No torch here.

Shapes: E evaluation examples of a split, in one order that is the same for every run of the study.
Arrays keep their dtype on the way in and out.
"""

import io
import zlib
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rankwise.errors import DamagedError

FILE = "study.db"
ADAPTERS = "adapters"
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
AGAIN = ("planned", "running", "interrupted", "crashed", "out_of_memory")
"""States of a run that a further call does again; `diverged` would only diverge again."""
ENDED = tuple(state for state in STATES if state not in AGAIN)
TOO_LARGE = "large loss"
Split = Literal["validation", "test"]

TABLES = """
    CREATE TABLE study (
        one INTEGER PRIMARY KEY CHECK (one = 1), spec_yaml TEXT NOT NULL, spec TEXT NOT NULL,
        device TEXT NOT NULL, threads INTEGER NOT NULL, base_name TEXT NOT NULL,
        base_sha256 TEXT NOT NULL, dtype TEXT NOT NULL, attention TEXT NOT NULL,
        base_params INTEGER NOT NULL, data_fingerprint TEXT NOT NULL, label_names TEXT);
    CREATE TABLE version (package TEXT PRIMARY KEY, version TEXT NOT NULL);
    CREATE TABLE base_metric (name TEXT PRIMARY KEY, value REAL);
    CREATE TABLE training (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, trainable_params INTEGER,
        total_params INTEGER, storage_bytes INTEGER, memory_bytes INTEGER,
        adapter TEXT NOT NULL DEFAULT '{}');
    CREATE TABLE module_rank (
        training_id INTEGER NOT NULL REFERENCES training, place INTEGER NOT NULL,
        module TEXT NOT NULL, rank INTEGER NOT NULL, scaling REAL,
        PRIMARY KEY (training_id, place)) WITHOUT ROWID;
    CREATE TABLE config (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
        training_id INTEGER NOT NULL REFERENCES training, name TEXT NOT NULL UNIQUE,
        settings TEXT NOT NULL);
    CREATE TABLE run (
        id INTEGER PRIMARY KEY, training_id INTEGER NOT NULL REFERENCES training,
        seed INTEGER NOT NULL, state TEXT NOT NULL, best_step INTEGER, folder TEXT NOT NULL,
        not_finite TEXT, bad_step INTEGER, bad_learning_rate REAL, error TEXT, traceback TEXT,
        UNIQUE (training_id, seed));
    CREATE TABLE step (
        run_id INTEGER NOT NULL REFERENCES run, step INTEGER NOT NULL, loss REAL, grad_norm REAL,
        learning_rate REAL, PRIMARY KEY (run_id, step)) WITHOUT ROWID;
    CREATE TABLE examples (
        split TEXT PRIMARY KEY, hashes TEXT NOT NULL, groups BLOB NOT NULL, weights BLOB NOT NULL);
    CREATE TABLE evaluation (
        run_id INTEGER NOT NULL REFERENCES run, split TEXT NOT NULL, step INTEGER NOT NULL,
        losses BLOB NOT NULL, correct BLOB, PRIMARY KEY (run_id, split, step));
    CREATE TABLE metric (
        run_id INTEGER NOT NULL REFERENCES run, split TEXT NOT NULL, step INTEGER NOT NULL,
        place INTEGER NOT NULL, name TEXT NOT NULL, value REAL,
        PRIMARY KEY (run_id, split, step, place)) WITHOUT ROWID;
    CREATE TABLE cost (
        training_id INTEGER PRIMARY KEY REFERENCES training, step_seconds REAL, eval_seconds REAL,
        memory_bytes INTEGER, path TEXT NOT NULL);
    CREATE TABLE merged (run_id INTEGER PRIMARY KEY REFERENCES run, loss REAL);
    CREATE TABLE answer (
        id INTEGER PRIMARY KEY, config_id INTEGER NOT NULL REFERENCES config,
        run_id INTEGER REFERENCES run, prompt TEXT NOT NULL, reference TEXT, text TEXT NOT NULL,
        ids TEXT NOT NULL, measures TEXT NOT NULL);
    CREATE INDEX answer_of ON answer (config_id, run_id);
    CREATE TABLE fact (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, data TEXT NOT NULL, UNIQUE (kind, data));
"""
"""The fourth form. A NULL among numbers is NaN, which SQLite itself cannot hold."""
RELOAD_TABLES = """
    ALTER TABLE examples ADD COLUMN sample TEXT;
    CREATE TABLE reload (
        run_id INTEGER PRIMARY KEY REFERENCES run, rows INTEGER NOT NULL, stored REAL, loss REAL,
        agrees INTEGER NOT NULL)
"""
"""What the fifth form has beside it."""
PROGRESS_TABLES = """
    ALTER TABLE study ADD COLUMN seconds REAL NOT NULL DEFAULT 0;
    ALTER TABLE config ADD COLUMN current INTEGER NOT NULL DEFAULT 1;
    CREATE TABLE cohort (
        place INTEGER PRIMARY KEY, runs TEXT NOT NULL, most_rows INTEGER, apart INTEGER NOT NULL,
        trained INTEGER NOT NULL)
"""
"""What the sixth form has beside it."""
ADAPTER_TABLES = """
    ALTER TABLE run ADD COLUMN dropped TEXT;
    CREATE TABLE adapter_file (
        run_id INTEGER NOT NULL REFERENCES run, name TEXT NOT NULL, bytes INTEGER NOT NULL,
        sha256 TEXT NOT NULL, PRIMARY KEY (run_id, name)) WITHOUT ROWID
"""
"""What the seventh form has beside it."""
ORIGIN_TABLES = """
    CREATE TABLE base_file (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, stamp TEXT NOT NULL);
    ALTER TABLE study ADD COLUMN settled TEXT
"""
"""What the eighth form, the newest one, has beside it."""

OF_RUN = ("step", "metric", "evaluation", "answer", "merged", "reload", "adapter_file")
"""Tables whose rows belong to one run, by `run_id`."""


@dataclass(frozen=True)
class BaseRecord:
    """The frozen base: where it is from, sha256 of its weights, precision, attention, size."""

    name: str
    sha256: str
    dtype: str
    attention: str = ""
    total_params: int = 0


@dataclass(frozen=True)
class BaseFile:
    """A file that the base was read from: its sha256, and its size, times and place on disk.

    Where the latter, the `stamp`, is as it was, the file was not changed.
    """

    sha256: str
    stamp: str


@dataclass(frozen=True)
class StudyRecord:
    """What was asked, with what, on what. `label_names` only where the task has classes."""

    spec_yaml: str
    spec: dict[str, Any]
    versions: dict[str, str]
    device: str
    threads: int
    base: BaseRecord
    data_fingerprint: str
    label_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ModuleRank:
    """What an adapted module got; the scaling of B A is None where it was not recorded."""

    rank: int
    scaling: float | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """What is trained once for all configurations of equal `key`; counts known before it runs.

    `adapter` is what peft.LoraConfig takes to train the same; empty where that is not known.
    """

    id: int
    key: str
    trainable_params: int | None
    total_params: int | None
    storage_bytes: int | None
    memory_bytes: int | None
    adapter: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfigRecord:
    """One configuration: `settings` by dotted name; its runs are those of its training.

    `current`: whether it is one of the spec with which the study was last run.
    """

    id: int
    key: str
    training_id: int
    name: str
    settings: dict[str, Any]
    current: bool = True


@dataclass(frozen=True)
class CohortRecord:
    """Runs that train together, in the order of their places, or will.

    most_rows  rows of a run that may go through the model at once; None: all of its batch
    apart      whether others may not join them
    trained    whether they have ended, and only lack what comes after training
    """

    runs: tuple[int, ...]
    most_rows: int | None = None
    apart: bool = False
    trained: bool = False


@dataclass(frozen=True)
class Failure:
    """Why a run has no result.

    not_finite     "loss", "gradient norm" or "validation metric": what was no finite number; or
                   TOO_LARGE: the loss was finite, and passed the bound at which a run is ended
    step           at which step that was
    learning_rate  of that step
    error          type and first line of what was raised
    traceback      its end
    """

    not_finite: str | None = None
    step: int | None = None
    learning_rate: float | None = None
    error: str | None = None
    traceback: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """One training with one seed; its adapter is in `adapters/FOLDER` of the study's folder.

    `dropped` is the value of `keep_adapters` by which the adapter was removed; None: it was not.
    """

    id: int
    training_id: int
    seed: int
    state: str
    best_step: int | None
    folder: str
    failure: Failure
    dropped: str | None = None


@dataclass(frozen=True)
class Step:
    """What one optimizer step saw: mean loss, gradient norm before clipping, learning rate."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float


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

    run_id: int
    split: str
    step: int
    losses: np.ndarray
    correct: np.ndarray | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class Reload:
    """A run's adapter, loaded from disk by plain transformers and peft.

    Attributes:
        rows: Validation examples that were computed again, the first so many.
        stored: Their mean loss as training recorded it.
        loss: Their mean loss as the loaded adapter gives it.
        agrees: Whether no example differs by more than the precision of the base explains.
    """

    rows: int
    stored: float
    loss: float
    agrees: bool


@dataclass(frozen=True)
class CostRecord:
    """A training's price alone: seconds of a step and of an evaluation, bytes while training.

    None where it is not known; `path` says how it was measured.
    """

    step_seconds: float | None
    eval_seconds: float | None
    memory_bytes: int | None
    path: str = "measured"


@dataclass(frozen=True)
class Answer:
    """A generated answer: its text, its tokens, and what was measured of it."""

    prompt: str
    reference: str | None
    text: str
    ids: tuple[int, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AnswersRecord:
    """What a run answers as a configuration asks; `run_id` is None for the untrained base."""

    config_id: int
    run_id: int | None
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Fact:
    """Something the report should mention: a kind, and values that its sentence is made of."""

    kind: str
    data: dict[str, Any]


CHECK = 4  # bytes of a blob's checksum, behind what numpy reads


def to_blob(array: np.ndarray) -> bytes:
    """An array as bytes, with dtype, shape (numpy's own format, no pickle) and a CRC-32."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    blob = buffer.getvalue()
    return blob + zlib.crc32(blob).to_bytes(CHECK, "little")


def from_blob(blob: bytes) -> np.ndarray:
    """The array that `to_blob` put away; older versions did so without a checksum.

    Raises:
        DamagedError: these are not the bytes of an array, or the checksum differs.
    """
    buffer = io.BytesIO(blob)
    try:
        found: np.ndarray = np.load(buffer, allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, OverflowError, MemoryError) as error:
        raise DamagedError(f"values of single examples are damaged ({error})") from error
    end = buffer.tell()
    if blob[end:] not in (b"", zlib.crc32(blob[:end]).to_bytes(CHECK, "little")):
        raise DamagedError("values of single examples are damaged (their checksum differs)")
    return found


def to_number(value: float | None) -> float | None:
    """A number as SQLite holds it: NaN as NULL, infinity as it is."""
    return None if value is None or value != value else float(value)


def from_number(value: float | None) -> float:
    """The number that `to_number` put away."""
    return float("nan") if value is None else float(value)
