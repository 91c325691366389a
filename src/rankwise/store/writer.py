"""The records of a study: `study.db` (SQLite) in the study's folder. No torch here.

Who owns what
- One process writes at a time: it holds `study.lock`, from the beginning of `rankwise run` to its
  end (without a lock given, from `begin_study` to `close`). The lock is the operating system's and
  ends with the process, however that ends.
- Any number of processes read meanwhile. A reader sees what was committed, never half of it. A
  folder that cannot be written can be read all the same.
- A database of an older form is brought into the newest by whoever opens it first, in one
  transaction for each version; not while another process holds the lock.
- The folder must be on a local disk: SQLite's write-ahead log does not work over a network.

What is written when
- Every method commits before it returns, but `log`, which buffers: at most `BUFFER_ROWS` steps or
  `BUFFER_SECONDS`. Every other write about a run writes the buffer first.
- A run is one training with one seed. Its adapter lies in `adapters/FOLDER`; `set_best` is called
  after that folder is written whole, with the sizes and checksums of its files, and an end state
  after the last evaluation. So a run that is done has its best adapter and its records.
- `study.db.bak` is a whole copy, made at the end of each cohort (`back_up`) and by `close`, which
  notes the checksums of both files in `study.sha256`.
- Nothing stored depends on the clock but measured costs, so equal results make equal reports.

What survives
- An exception, kill -9: everything committed; of `log` at most the buffer is lost.
- A crash of the machine or a loss of power: the file stays whole (`synchronous=NORMAL` in WAL
  mode), but the last commits may be undone. Such a run is found as it was before, `running` at
  the least, and is trained again. Adapters are on disk before the commit that names them.
- A full disk: DiskFullError; what was committed stays.
- Damage of the file itself: DamagedError. It is found, after a proper end, in every bit by the
  checksum; after a kill, by SQLite's own check, the checksums of arrays and the backup.
  `damage.repair` makes a new file out of the backup and of what can be read, beside the old one.
NaN and infinity survive (NaN is kept as NULL).
"""

import itertools
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.errors import StoreError, WrongFolderError
from rankwise.files import FileSum, full_disk_told
from rankwise.store import seal
from rankwise.store.connect import connect, store_error, transaction
from rankwise.store.lock import Lock, hold
from rankwise.store.reader import Reader
from rankwise.store.schema import (
    FILE,
    OF_RUN,
    STATES,
    Answer,
    BaseFile,
    CohortRecord,
    CostRecord,
    Failure,
    ModuleRank,
    Reload,
    Split,
    StudyRecord,
    to_blob,
    to_number,
)
from rankwise.text import redacted

BUFFER_ROWS = 2000
BUFFER_SECONDS = 2.0
NO_FAILURE = Failure()


class Store(Reader):
    """A study's records, to read and write; the contract is in this module's docstring.

    Args:
        folder: Of the study.
        create: A folder without a study becomes one.
        lock: The right to write it, where this process has that already and keeps it.

    Raises:
        StoreError: as for `Reader`.
    """

    def __init__(self, folder: Path, create: bool = False, lock: Lock | None = None) -> None:
        self._lock = lock
        self._own_lock: Lock | None = None
        self._buffer: list[tuple[int, int, float | None, float | None, float | None]] = []
        self._flushed = time.monotonic()
        self._unsealed = self._changed = False
        if create:
            self.folder = Path(folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_sealed()
            self._db = self._connect()
            self._run_ids = {}
        else:
            super().__init__(folder)

    def _connect(self) -> sqlite3.Connection:
        return connect(self.folder / FILE, held=self._lock is not None)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, StoreError):  # writing failed, and would again
            self._buffer, self._unsealed = [], False
        super().__exit__(kind, error, trace)

    def close(self) -> None:
        """Writes what is buffered, makes backup and checksums, and lets go of the file.

        A lock of its own is given back.
        """
        try:
            if self._db.in_transaction:  # a signal came between its beginning and its first write
                self._db.execute("ROLLBACK")
            self.flush()
            if self._unsealed and self._lock is not None:
                self.back_up()
                self._sealing(seal.seal)
        finally:
            super().close()
            if self._own_lock is not None:
                self._own_lock.close()
                self._own_lock = self._lock = None

    def back_up(self) -> None:
        """Makes `study.db.bak` a copy of the records as they are now.

        Raises:
            DiskFullError: there is no room for it.
            DamagedError: the records cannot all be read.
        """
        self.flush()
        if self._changed:
            self._sealing(seal.back_up)
            self._changed = False

    def _sealing(self, make: Callable[[sqlite3.Connection, Path], None]) -> None:
        try:
            with full_disk_told(self.folder / FILE):
                make(self._db, self.folder)
        except sqlite3.DatabaseError as error:
            raise store_error(self.folder / FILE, error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, in which everything buffered is written first."""
        try:
            if not self._unsealed:
                seal.unseal(self.folder)
            self._unsealed = self._changed = True
            with transaction(self._db) as db:
                if self._buffer:
                    query = "INSERT OR REPLACE INTO step VALUES (?, ?, ?, ?, ?)"
                    db.executemany(query, self._buffer)
                yield db
        except sqlite3.DatabaseError as error:
            raise store_error(self.folder / FILE, error) from error
        self._buffer = []
        self._flushed = time.monotonic()

    def _insert(self, query: str, values: Sequence[Any]) -> int:
        """Runs an INSERT that ends in `RETURNING id`."""
        with self._writing() as db:
            return int(db.execute(query, values).fetchone()[0])

    def take_lock(self) -> None:
        """Holds the right to write the folder until `close`.

        Raises:
            InUseError: another process has it.
        """
        if self._lock is None:
            self._lock = self._own_lock = hold(self.folder)

    def set_spec(self, spec_yaml: str, spec: Mapping[str, Any]) -> None:
        """Records the spec of today; the rest of a study stays as it was begun.

        From here on it is not settled.
        """
        values = (spec_yaml, _text(spec))
        with self._writing() as db:
            db.execute("UPDATE study SET spec_yaml = ?, spec = ?, settled = NULL", values)

    def settle(self, made_of: str) -> None:
        """Records that nothing is left to be done, and of what the study is made."""
        with self._writing() as db:
            db.execute("UPDATE study SET settled = ?", (made_of,))

    def drop_facts(self, kind: str) -> None:
        """Forgets the facts of a kind, which are to be found out anew."""
        with self._writing() as db:
            db.execute("DELETE FROM fact WHERE kind = ?", (kind,))

    def begin_study(self, record: StudyRecord) -> None:
        """Begins the study, or resumes it; holds the folder until `close`.

        Weights and precision of the base and the data may not change within a study, since runs
        are compared across calls. Spec, versions and device may, and a change of versions or
        device leaves a fact of that kind.

        Raises:
            StoreError: another base, precision or data than the study began with, or the study
                is being written by another process.
        """
        self.take_lock()
        old = self._study_or_none()
        if old is not None:
            self._check_same(old, record)
            if old.versions != record.versions:
                self.add_fact("versions", before=old.versions, now=record.versions)
            before, now = ({"device": one.device, "threads": one.threads} for one in (old, record))
            if before != now:
                self.add_fact("device", before=before, now=now)
        base = record.base
        row = (
            redacted(record.spec_yaml),
            _text(record.spec),
            record.device,
            record.threads,
            *(base.name, base.sha256, base.dtype, base.attention, base.total_params),
            record.data_fingerprint,
            None if record.label_names is None else _text(record.label_names),
        )
        with self._writing() as db:
            seconds = db.execute("SELECT seconds FROM study").fetchone() or (0.0,)
            values = (*row, *seconds, None)
            db.execute(f"INSERT OR REPLACE INTO study VALUES (1{', ?' * len(values)})", values)
            db.execute("DELETE FROM version")
            db.executemany("INSERT INTO version VALUES (?, ?)", record.versions.items())

    def _check_same(self, old: StudyRecord, new: StudyRecord) -> None:
        for what, name, before, now in (
            ("base model", "sha256", old.base.sha256, new.base.sha256),
            ("base model", "dtype", old.base.dtype, new.base.dtype),
            ("data", "fingerprint", old.data_fingerprint, new.data_fingerprint),
        ):
            if before != now:
                raise WrongFolderError(
                    f"{self.folder}: this study was begun with another {what} ({name} {before}, "
                    f"now {now}), and such runs cannot be compared; use another --out"
                )

    def save_base_files(self, files: Mapping[str, BaseFile]) -> None:
        """Records the files that the base was read from, in place of those before."""
        rows = [(name, one.sha256, one.stamp) for name, one in files.items()]
        with self._writing() as db:
            db.execute("DELETE FROM base_file")
            db.executemany("INSERT INTO base_file VALUES (?, ?, ?)", rows)

    def save_base_metrics(self, metrics: Mapping[str, float]) -> None:
        """Records validation metrics of the untouched base, by name."""
        rows = [(name, to_number(value)) for name, value in metrics.items()]
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO base_metric VALUES (?, ?)", rows)

    def add_training(
        self,
        key: str,
        trainable_params: int | None = None,
        total_params: int | None = None,
        storage_bytes: int | None = None,
        memory_bytes: int | None = None,
        ranks: Mapping[str, ModuleRank] | None = None,
        adapter: Mapping[str, Any] | None = None,
    ) -> int:
        """Adds a training, or refreshes the one of this key; its id.

        Args:
            key: Hash of what is trained.
            trainable_params: Counted from the configuration, as are the three others; memory is
                a prediction.
            total_params: With the base.
            storage_bytes: Of the adapter's file.
            memory_bytes: While it trains alone.
            ranks: By module, in the model's order; none leaves those that are stored.
            adapter: What peft.LoraConfig takes to train the same; none leaves what is stored.
        """
        row = (key, trainable_params, total_params, storage_bytes, memory_bytes)
        with self._writing() as db:
            training = db.execute(
                "INSERT INTO training (key, trainable_params, total_params, storage_bytes, "
                "memory_bytes) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "trainable_params = excluded.trainable_params, "
                "total_params = excluded.total_params, "
                "storage_bytes = excluded.storage_bytes, memory_bytes = excluded.memory_bytes "
                "RETURNING id",
                row,
            ).fetchone()[0]
            if adapter:
                values = (_text(dict(adapter)), training)
                db.execute("UPDATE training SET adapter = ? WHERE id = ?", values)
            if ranks:
                db.execute("DELETE FROM module_rank WHERE training_id = ?", (training,))
                db.executemany(
                    "INSERT INTO module_rank VALUES (?, ?, ?, ?, ?)",
                    [
                        (training, place, module, one.rank, one.scaling)
                        for place, (module, one) in enumerate(ranks.items())
                    ],
                )
        return int(training)

    def add_config(self, key: str, training_id: int, name: str, settings: dict[str, Any]) -> int:
        """Adds a configuration, or refreshes the one of this key; its id.

        `settings` are those that identify it, by dotted name.

        Raises:
            StoreError: the name belongs to another configuration of the study.
        """
        clash = self._row("SELECT key FROM config WHERE name = ? AND key != ?", (name, key))
        if clash:
            raise WrongFolderError(
                f"{self.folder}: the name {name} already belongs to configuration {clash[0]} with "
                "other settings; give one of them a `name`, or use another --out"
            )
        return self._insert(
            "INSERT INTO config (key, training_id, name, settings) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET training_id = excluded.training_id, "
            "name = excluded.name, settings = excluded.settings RETURNING id",
            (key, training_id, name, _text(settings)),
        )

    def add_run(self, training_id: int, seed: int) -> int:
        """Adds a run in state `planned`; one that is there keeps its state and results. Its id."""
        query = "SELECT id FROM run WHERE training_id = ? AND seed = ?"
        known = self._row(query, (training_id, seed))
        if known is not None:
            return int(known[0])
        with self._writing() as db:
            db.execute(
                "INSERT INTO run (training_id, seed, state, folder) VALUES (?, ?, 'planned', '')",
                (training_id, seed),
            )
            run = int(db.execute("SELECT last_insert_rowid()").fetchone()[0])
            db.execute("UPDATE run SET folder = ? WHERE id = ?", (f"run-{run}", run))
        return run

    def set_configs(self, known: Mapping[str, str]) -> dict[str, str]:
        """Make room for the configurations of a spec, by key and name; the others stay.

        Those that the spec has no more are not current from here on, and where it gives their
        name to another one, they get a new one; old to new names are returned.
        """
        every = self._rows("SELECT id, key, name FROM config ORDER BY id")
        moved = moved_names(known, [(key, name) for _, key, name in every])
        with self._writing() as db:
            db.execute("UPDATE config SET current = 0")
            for number, key, name in every:
                if key in known:  # out of the way: names may have been exchanged
                    db.execute("UPDATE config SET name = ? WHERE id = ?", (f"/{number}", number))
                elif name in moved:
                    values = (moved[name], number)
                    db.execute("UPDATE config SET name = ? WHERE id = ?", values)
            for key, name in known.items():
                db.execute("UPDATE config SET name = ?, current = 1 WHERE key = ?", (name, key))
        return moved

    def rewind_run(self, run_id: int, step: int, evaluated: int, best_step: int | None) -> None:
        """Forgets what a run has recorded after a step, to go on from there."""
        self.flush()
        with self._writing() as db:
            db.execute("DELETE FROM step WHERE run_id = ? AND step > ?", (run_id, step))
            for table in ("metric", "evaluation"):
                query = f"DELETE FROM {table} WHERE run_id = ? AND (step > ? OR split = 'test')"
                db.execute(query, (run_id, evaluated))
            for table in ("answer", "merged", "reload"):
                db.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))
            db.execute("UPDATE run SET best_step = ? WHERE id = ?", (best_step, run_id))

    def save_cohorts(self, cohorts: Sequence[CohortRecord]) -> None:
        """Records the cohorts that are formed and not done, in place of those before."""
        rows = [
            (place, json.dumps(one.runs), one.most_rows, int(one.apart), int(one.trained))
            for place, one in enumerate(cohorts)
        ]
        with self._writing() as db:
            db.execute("DELETE FROM cohort")
            db.executemany("INSERT INTO cohort VALUES (?, ?, ?, ?, ?)", rows)

    def set_seconds(self, seconds: float) -> None:
        """Records what the study has taken so far, in all its calls."""
        with self._writing() as db:
            db.execute("UPDATE study SET seconds = ?", (seconds,))

    def sync(self) -> None:
        """Writes the buffer and waits until all is on disk, so that a loss of power keeps it."""
        self.flush()
        self._rows("PRAGMA wal_checkpoint(FULL)")

    def restart_run(self, run_id: int) -> None:
        """Forgets what a run has recorded, its answers included, and plans it anew."""
        self._buffer = [row for row in self._buffer if row[0] != run_id]
        with self._writing() as db:
            for table in OF_RUN:
                db.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))
            db.execute("UPDATE run SET best_step = NULL, dropped = NULL WHERE id = ?", (run_id,))
        self.set_state(run_id, "planned")

    def set_state(self, run_id: int, state: str, failure: Failure = NO_FAILURE) -> None:
        """Sets a run's state (one of STATES) and why it has no result."""
        if state not in STATES:
            raise ValueError(f"state {state!r} is not one of {', '.join(STATES)}")
        bad = (failure.not_finite, failure.step, to_number(failure.learning_rate))
        told = (text and redacted(text) for text in (failure.error, failure.traceback))
        row = (state, *bad, *told, run_id)
        self._update_run(
            "state = ?, not_finite = ?, bad_step = ?, bad_learning_rate = ?, error = ?, "
            "traceback = ?",
            row,
        )

    def set_best(self, run_id: int, step: int, files: Mapping[str, FileSum] | None = None) -> None:
        """Sets the step of a run's best validation so far.

        Args:
            run_id: The run; its adapter is in place by now.
            step: Where that was.
            files: The files of the adapter as they were written, by name.
        """
        rows = [(run_id, name, one.bytes, one.sha256) for name, one in (files or {}).items()]
        with self._writing() as db:
            self._changed_run(db, "best_step = ?", (step, run_id))
            db.execute("DELETE FROM adapter_file WHERE run_id = ?", (run_id,))
            db.executemany("INSERT INTO adapter_file VALUES (?, ?, ?, ?)", rows)

    def set_dropped(self, run_id: int, choice: str) -> None:
        """Notes that a run's adapter is to be removed, by this value of `keep_adapters`."""
        self._update_run("dropped = ?", (choice, run_id))

    def _update_run(self, change: str, values: Sequence[Any]) -> None:
        with self._writing() as db:
            self._changed_run(db, change, values)

    def _changed_run(self, db: sqlite3.Connection, change: str, values: Sequence[Any]) -> None:
        found = db.execute(f"UPDATE run SET {change} WHERE id = ?", values)
        if found.rowcount != 1:
            raise StoreError(f"{self.folder}: no run {values[-1]} in this study")

    def log(
        self, run_id: int, step: int, loss: float, grad_norm: float, learning_rate: float
    ) -> None:
        """Records what an optimizer step saw; buffered. The same step again replaces it."""
        row = (run_id, step, to_number(loss), to_number(grad_norm), to_number(learning_rate))
        self._buffer.append(row)
        waited = time.monotonic() - self._flushed
        if len(self._buffer) >= BUFFER_ROWS or waited > BUFFER_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the buffered steps."""
        if self._buffer:
            with self._writing():
                pass

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """As in Reader, with what is still buffered."""
        self.flush()
        return super()._rows(query, values)

    def save_examples(
        self, split: Split, hashes: Sequence[str], groups: np.ndarray, weights: np.ndarray
    ) -> None:
        """Records a split's examples once: hashes, groups (E,), weights (E,).

        Raises:
            StoreError: the study already has other examples in this split.
        """
        old = self.examples(split)
        if old is not None and old.hashes != tuple(hashes):
            raise WrongFolderError(
                f"{self.folder}: the {split} examples differ from those the study began with; "
                "use another --out"
            )
        values = (split, json.dumps(list(hashes)), to_blob(groups), to_blob(weights))
        with self._writing() as db:
            db.execute(
                "INSERT INTO examples (split, hashes, groups, weights) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (split) DO UPDATE SET groups = excluded.groups, "
                "weights = excluded.weights",
                values,
            )

    def save_sample(self, sample: Sequence[tuple[list[int], Any]]) -> None:
        """Records token ids and labels of the first validation examples, to compute them again."""
        with self._writing() as db:
            db.execute(
                "UPDATE examples SET sample = ? WHERE split = 'validation'",
                (json.dumps([list(one) for one in sample]),),
            )

    def save_reload(self, run_id: int, found: Reload) -> None:
        """Records what a run's adapter gives when it is loaded from disk."""
        values = (to_number(found.stored), to_number(found.loss), int(found.agrees))
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO reload VALUES (?, ?, ?, ?, ?)",
                (run_id, found.rows, *values),
            )

    def save_evaluation(
        self,
        run_id: int,
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
        place = (run_id, split, step)
        right = None if correct is None else to_blob(correct)
        rows = [
            (*place, number, name, to_number(value))
            for number, (name, value) in enumerate(metrics.items())
        ]
        with self._writing() as db:
            for table in ("evaluation", "metric"):
                query = f"DELETE FROM {table} WHERE run_id = ? AND split = ? AND step = ?"
                db.execute(query, place)
            query = "INSERT INTO evaluation VALUES (?, ?, ?, ?, ?)"
            db.execute(query, (*place, to_blob(losses), right))
            db.executemany("INSERT INTO metric VALUES (?, ?, ?, ?, ?, ?)", rows)

    def save_cost(self, training_id: int, cost: CostRecord) -> None:
        """Records what one run of a training costs alone."""
        row = (training_id, cost.step_seconds, cost.eval_seconds, cost.memory_bytes, cost.path)
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO cost VALUES (?, ?, ?, ?, ?)", row)

    def save_merged(self, run_id: int, loss: float | None) -> None:
        """Records a run's loss merged into the unquantised base; None where memory held it not."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO merged VALUES (?, ?)", (run_id, loss))

    def save_answers(self, config_id: int, run_id: int | None, answers: Sequence[Answer]) -> None:
        """Records what a run (None: the untouched base) answers as a configuration asks.

        In place of what it answered before.
        """
        rows = [
            (
                config_id,
                run_id,
                redacted(one.prompt),
                one.reference,
                one.text,
                _text([int(i) for i in one.ids]),
                _text(one.measures or {}),
            )
            for one in answers
        ]
        with self._writing() as db:
            query = "DELETE FROM answer WHERE config_id = ? AND run_id IS ?"
            db.execute(query, (config_id, run_id))
            db.executemany(
                "INSERT INTO answer (config_id, run_id, prompt, reference, text, ids, measures) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def add_fact(self, kind: str, **data: Any) -> None:
        """Notes a fact for the report, whose module `remarks` words it; the same one only once."""
        row = (kind, redacted(json.dumps(data, sort_keys=True, ensure_ascii=False)))
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO fact (kind, data) VALUES (?, ?)", row)


def moved_names(known: Mapping[str, str], every: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The new names of configurations whose name a spec gives to another one, by the old ones.

    Args:
        known: The configurations of the spec: key to name.
        every: Key and name of those that are stored.
    """
    every, moved = list(every), {}
    taken = {*known.values(), *(name for _, name in every)}
    for key, name in every:
        if key not in known and name in known.values():
            new = (f"{name}.old{n}" for n in itertools.count(1))
            moved[name] = next(one for one in new if one not in taken)
            taken.add(moved[name])
    return moved


def _text(value: Any) -> str:
    """JSON in the order given, so that a spec or settings read as written, but for secrets."""
    return redacted(json.dumps(value, ensure_ascii=False))
