"""Reading a study's records; `Store` adds the writing."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from rankwise.errors import DamagedError, StoreError, WrongFolderError
from rankwise.files import FileSum, stays_inside
from rankwise.store.connect import REPAIR, connect_to_read, store_error
from rankwise.store.schema import ADAPTERS as ADAPTERS
from rankwise.store.schema import (
    FILE,
    Answer,
    AnswersRecord,
    BaseFile,
    BaseRecord,
    CohortRecord,
    ConfigRecord,
    CostRecord,
    Evaluation,
    ExamplesRecord,
    Fact,
    Failure,
    ModuleRank,
    Reload,
    RunRecord,
    Split,
    Step,
    StudyRecord,
    TrainingRecord,
    from_blob,
    from_number,
)
from rankwise.store.seal import not_as_sealed


class Reader:
    """The records of a study. Every method may raise StoreError on a damaged file.

    Args:
        folder: Of the study.
        untouched: Leave every byte in the folder as it is. SQLite puts away its log otherwise,
            and an old form is brought into the newest. Not while another process writes.

    Raises:
        StoreError: no study there, a damaged file, one written by a newer rankwise, or one of an
            older rankwise that is being written.
    """

    def __init__(self, folder: Path, untouched: bool = False) -> None:
        self.folder = Path(folder)
        self._untouched = untouched
        self._check_sealed()
        if not (self.folder / FILE).is_file():
            raise WrongFolderError(
                f"{folder}: no study here (no {FILE}); start one with rankwise run"
            )
        self._db = self._connect()
        self._run_ids: dict[tuple[str, int], int] = {}

    def _check_sealed(self) -> None:
        why = not_as_sealed(self.folder)
        if why is not None:
            raise self._damaged(why)

    def _connect(self) -> sqlite3.Connection:
        return connect_to_read(self.folder / FILE, self._untouched)

    def _damaged(self, why: object) -> DamagedError:
        return DamagedError(f"{self.folder / FILE}: is damaged: {why}; {REPAIR}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._db.close()

    def _row(self, query: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row, or None where there is none."""
        return next(iter(self._rows(query, values)), None)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise store_error(self.folder / FILE, error) from error
        except UnicodeDecodeError as error:
            raise self._damaged("text in it is damaged") from error

    def _parsed(self, text: str) -> Any:
        """What a stored JSON text says."""
        try:
            return json.loads(text)
        except (ValueError, TypeError) as error:
            raise self._damaged(error) from error

    def _array(self, blob: bytes) -> np.ndarray:
        try:
            return from_blob(blob)
        except DamagedError as error:
            raise self._damaged(error) from error

    def _inside(self, name: str) -> str:
        """A name that becomes a path: that of a foreign study must not lead out of its folder."""
        if not stays_inside(name):
            raise StoreError(f"{self.folder / FILE}: {name!r} leads out of the study's folder")
        return name

    def _run(self, run: int, training: int, seed: int, state: str, *rest: Any) -> RunRecord:
        best_step, folder, dropped, *failure = rest
        why = Failure(*failure)
        inside = self._inside(folder)
        return RunRecord(run, training, seed, state, best_step, inside, why, dropped)

    def begun(self) -> bool:
        """Whether a study has been begun here."""
        return self._study_or_none() is not None

    def study(self) -> StudyRecord:
        """The study's spec, versions, device, base and data.

        Raises:
            StoreError: no study was begun here.
        """
        found = self._study_or_none()
        if found is None:
            raise WrongFolderError(
                f"{self.folder}: no study was begun here; start it with rankwise run"
            )
        return found

    def _study_or_none(self) -> StudyRecord | None:
        row = self._row(
            "SELECT spec_yaml, spec, device, threads, base_name, base_sha256, dtype, attention, "
            "base_params, data_fingerprint, label_names FROM study"
        )
        if row is None:
            return None
        spec_yaml, spec, device, threads, *base, fingerprint, labels = row
        versions = dict(self._rows("SELECT package, version FROM version ORDER BY rowid"))
        return StudyRecord(
            spec_yaml,
            self._parsed(spec),
            versions,
            device,
            threads,
            BaseRecord(*base),
            fingerprint,
            None if labels is None else tuple(self._parsed(labels)),
        )

    def base_metrics(self) -> dict[str, float]:
        """Validation metrics of the untouched base by name; none where they were not measured."""
        rows = self._rows("SELECT name, value FROM base_metric ORDER BY rowid")
        return {name: from_number(value) for name, value in rows}

    def base_files(self) -> dict[str, BaseFile]:
        """The files that the base was read from; none where an older version began the study."""
        rows = self._rows("SELECT name, sha256, stamp FROM base_file ORDER BY name")
        return {name: BaseFile(*rest) for name, *rest in rows}

    def settled(self) -> str | None:
        """Of what the study was made when nothing was left to be done; None where some is."""
        row = self._row("SELECT settled FROM study")
        return None if row is None else row[0]

    def trainings(self) -> tuple[TrainingRecord, ...]:
        """All trainings in the order they were added."""
        rows = self._rows(
            "SELECT id, key, trainable_params, total_params, storage_bytes, memory_bytes, adapter "
            "FROM training ORDER BY id"
        )
        return tuple(
            TrainingRecord(i, key, trained, total, stored, memory, self._parsed(adapter))
            for i, key, trained, total, stored, memory, adapter in rows
        )

    def configs(self) -> tuple[ConfigRecord, ...]:
        """All configurations in the order they were added."""
        rows = self._rows(
            "SELECT id, key, training_id, name, settings, current FROM config ORDER BY id"
        )
        return tuple(
            ConfigRecord(
                i, key, training, self._inside(name), self._parsed(settings), bool(current)
            )
            for i, key, training, name, settings, current in rows
        )

    def ranks(self, training_id: int) -> dict[str, ModuleRank]:
        """Rank and scaling by module, in the model's order; empty where they are not settled."""
        query = "SELECT module, rank, scaling FROM module_rank WHERE training_id = ? ORDER BY place"
        return {module: ModuleRank(*rest) for module, *rest in self._rows(query, (training_id,))}

    def runs(self) -> tuple[RunRecord, ...]:
        """All runs in the order of their trainings, then seeds."""
        rows = self._rows(f"{RUNS} ORDER BY training_id, seed")
        return tuple(self._run(*row) for row in rows)

    def run(self, run_id: int) -> RunRecord:
        """One run.

        Raises:
            StoreError: there is none of this id.
        """
        row = self._row(f"{RUNS} WHERE id = ?", (run_id,))
        if row is None:
            raise StoreError(f"{self.folder}: no run {run_id} in this study")
        return self._run(*row)

    def run_id(self, training_key: str, seed: int) -> int:
        """The run of a training with a seed.

        Raises:
            StoreError: there is none.
        """
        place = (training_key, seed)
        if place not in self._run_ids:
            row = self._row(
                "SELECT run.id FROM run JOIN training ON training.id = training_id "
                "WHERE key = ? AND seed = ?",
                place,
            )
            if row is None:
                raise StoreError(
                    f"{self.folder}: no run of training {training_key} with seed {seed}"
                )
            self._run_ids[place] = int(row[0])
        return self._run_ids[place]

    def cohorts(self) -> list[CohortRecord]:
        """The cohorts that were formed and are not done, the one in training first."""
        rows = self._rows("SELECT runs, most_rows, apart, trained FROM cohort ORDER BY place")
        return [
            CohortRecord(tuple(self._parsed(runs)), rows, bool(apart), bool(trained))
            for runs, rows, apart, trained in rows
        ]

    def seconds(self) -> float:
        """What `rankwise run` has taken for this study so far, in all its calls."""
        row = self._row("SELECT seconds FROM study")
        return 0.0 if row is None else float(row[0])

    def adapter_files(self, run_id: int) -> dict[str, FileSum]:
        """The files of a run's adapter as they were written; none for runs of older versions."""
        query = "SELECT name, bytes, sha256 FROM adapter_file WHERE run_id = ? ORDER BY name"
        return {name: FileSum(*rest) for name, *rest in self._rows(query, (run_id,))}

    def steps(self, run_id: int) -> tuple[Step, ...]:
        """A run's logged steps, in order."""
        query = "SELECT step, loss, grad_norm, learning_rate FROM step WHERE run_id = ?"
        rows = self._rows(f"{query} ORDER BY step", (run_id,))
        return tuple(Step(step, *map(from_number, values)) for step, *values in rows)

    def last_step(self, run_id: int) -> int:
        """The last step that a run made; 0 before the first."""
        row = self._row("SELECT MAX(step) FROM step WHERE run_id = ?", (run_id,))
        return 0 if row is None or row[0] is None else int(row[0])

    def examples(self, split: Split) -> ExamplesRecord | None:
        """The examples of a split, or None where it has none."""
        row = self._row("SELECT hashes, groups, weights FROM examples WHERE split = ?", (split,))
        if row is None:
            return None
        return ExamplesRecord(
            split, tuple(self._parsed(row[0])), self._array(row[1]), self._array(row[2])
        )

    def evaluations(self, run_id: int, split: Split = "validation") -> tuple[Evaluation, ...]:
        """A run's evaluations with per-example losses, by step."""
        rows = self._rows(
            "SELECT step, losses, correct FROM evaluation WHERE run_id = ? AND split = ? "
            "ORDER BY step",
            (run_id, split),
        )
        return tuple(self._evaluation(run_id, split, *row) for row in rows)

    def evaluation_at(self, run_id: int, step: int, split: Split = "validation") -> Evaluation:
        """One evaluation of a run.

        Raises:
            StoreError: there is none at this step.
        """
        row = self._row(
            "SELECT step, losses, correct FROM evaluation "
            "WHERE run_id = ? AND split = ? AND step = ?",
            (run_id, split, step),
        )
        if row is None:
            raise StoreError(
                f"{self.folder}: run {run_id} has no {split} evaluation at step {step}"
            )
        return self._evaluation(run_id, split, *row)

    def _evaluation(
        self, run_id: int, split: Split, step: int, losses: bytes, correct: bytes | None
    ) -> Evaluation:
        query = "SELECT name, value FROM metric WHERE run_id = ? AND split = ? AND step = ?"
        rows = self._rows(f"{query} ORDER BY place", (run_id, split, step))
        metrics = {name: from_number(value) for name, value in rows}
        right = None if correct is None else self._array(correct)
        return Evaluation(run_id, split, step, self._array(losses), right, metrics)

    def evaluation_metrics(
        self, run_id: int, split: Split = "validation"
    ) -> list[dict[str, float]]:
        """A run's evaluations without the examples: a dict a step (with `step`), in order."""
        found: dict[int, dict[str, float]] = {}
        query = "SELECT step, name, value FROM metric WHERE run_id = ? AND split = ?"
        for step, name, value in self._rows(f"{query} ORDER BY step, place", (run_id, split)):
            found.setdefault(step, {"step": step})[name] = from_number(value)
        return list(found.values())

    def costs(self) -> dict[int, CostRecord]:
        """What a run costs alone, by training."""
        rows = self._rows(
            "SELECT training_id, step_seconds, eval_seconds, memory_bytes, path FROM cost"
        )
        return {training: CostRecord(*rest) for training, *rest in rows}

    def sample(self) -> list[tuple[list[int], Any]]:
        """Token ids and labels of the first validation examples; none in older studies."""
        row = self._row("SELECT sample FROM examples WHERE split = 'validation'", ())
        return (
            [] if row is None or row[0] is None else [(ids, to) for ids, to in self._parsed(row[0])]
        )

    def reloads(self) -> dict[int, Reload]:
        """What adapters loaded from disk gave, by run."""
        rows = self._rows("SELECT run_id, rows, stored, loss, agrees FROM reload ORDER BY run_id")
        return {
            run: Reload(count, from_number(stored), from_number(loss), bool(agrees))
            for run, count, stored, loss, agrees in rows
        }

    def merged(self) -> dict[int, float | None]:
        """Validation loss of runs over a quantised base, merged into the base as it was before.

        None where memory did not hold that base; runs that were not tried are not there.
        """
        return dict(self._rows("SELECT run_id, loss FROM merged ORDER BY run_id"))

    def answers(self) -> tuple[AnswersRecord, ...]:
        """All generated answers, the base's first."""
        found: dict[tuple[int, int | None], list[Answer]] = {}
        rows = self._rows(
            "SELECT config_id, run_id, prompt, reference, text, ids, measures FROM answer "
            "ORDER BY run_id IS NOT NULL, id"
        )
        for config, run, prompt, reference, text, ids, measures in rows:
            answer = Answer(
                prompt, reference, text, tuple(self._parsed(ids)), self._parsed(measures)
            )
            found.setdefault((config, run), []).append(answer)
        return tuple(AnswersRecord(*place, tuple(said)) for place, said in found.items())

    def facts(self) -> tuple[Fact, ...]:
        """All facts for the report, in the order they were noted."""
        rows = self._rows("SELECT kind, data FROM fact ORDER BY id")
        return tuple(Fact(kind, self._parsed(data)) for kind, data in rows)


RUNS = (
    "SELECT id, training_id, seed, state, best_step, folder, dropped, "
    "not_finite, bad_step, bad_learning_rate, error, traceback FROM run"
)
