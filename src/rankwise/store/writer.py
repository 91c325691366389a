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

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rankwise.errors import StoreError, WrongFolderError
from rankwise.files import FileSum
from rankwise.store.schema import (
    OF_RUN,
    STATES,
    Answer,
    CostRecord,
    Failure,
    Reload,
    Split,
    to_blob,
    to_number,
)
from rankwise.store.study_writer import StudyWriter
from rankwise.store.transactions import as_text
from rankwise.text import redacted

NO_FAILURE = Failure()


class Store(StudyWriter):
    """A study's records, to read and write; the contract is in this module's docstring.

    Arguments and errors are those of `Transactions`.
    """

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
                as_text([int(i) for i in one.ids]),
                as_text(one.measures or {}),
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
