"""The records of a study as a whole: its spec, its base, its configurations, its planned runs."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rankwise.errors import WrongFolderError
from rankwise.store.schema import (
    BaseFile,
    CohortRecord,
    ModuleRank,
    StudyRecord,
    to_number,
)
from rankwise.store.transactions import Transactions, as_text
from rankwise.text import redacted


class StudyWriter(Transactions):
    """What a study is made of, to read and write; the contract is that of `store.writer`."""

    def set_spec(self, spec_yaml: str, spec: Mapping[str, Any]) -> None:
        """Records the spec of today; the rest of a study stays as it was begun.

        From here on it is not settled.
        """
        values = (spec_yaml, as_text(spec))
        with self._writing() as db:
            db.execute("UPDATE study SET spec_yaml = ?, spec = ?, settled = NULL", values)

    def settle(self, made_of: str) -> None:
        """Records that nothing is left to be done, and of what the study is made."""
        with self._writing() as db:
            db.execute("UPDATE study SET settled = ?", (made_of,))

    def set_seconds(self, seconds: float) -> None:
        """Records what the study has taken so far, in all its calls."""
        with self._writing() as db:
            db.execute("UPDATE study SET seconds = ?", (seconds,))

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
            as_text(record.spec),
            record.device,
            record.threads,
            *(base.name, base.sha256, base.dtype, base.attention, base.total_params),
            record.data_fingerprint,
            None if record.label_names is None else as_text(record.label_names),
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
                values = (as_text(dict(adapter)), training)
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
            (key, training_id, name, as_text(settings)),
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

    def save_cohorts(self, cohorts: Sequence[CohortRecord]) -> None:
        """Records the cohorts that are formed and not done, in place of those before."""
        rows = [
            (place, json.dumps(one.runs), one.most_rows, int(one.apart), int(one.trained))
            for place, one in enumerate(cohorts)
        ]
        with self._writing() as db:
            db.execute("DELETE FROM cohort")
            db.executemany("INSERT INTO cohort VALUES (?, ?, ?, ?, ?)", rows)


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
