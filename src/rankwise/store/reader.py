"""Reading a study's records; `Store` adds the writing."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.errors import StoreError
from rankwise.store.schema import (
    FILE,
    AnswersRecord,
    ArmRecord,
    Evaluation,
    ExamplesRecord,
    RunRecord,
    Split,
    StudyRecord,
    connect,
    from_blob,
)


class StudyReader:
    """The reading half of `Store`. Every method may raise StoreError on a damaged file."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._db = connect(self.folder / FILE)

    def _row(self, query: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row, or None where there is none."""
        return next(iter(self._rows(query, values)), None)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.folder / FILE}: could not be read ({error})") from error

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
        row = self._row("SELECT spec_yaml, spec, versions, device, model, data FROM study")
        return None if row is None else StudyRecord(row[0], *(json.loads(part) for part in row[1:]))

    def arms(self) -> tuple[ArmRecord, ...]:
        """All arms in the order they were added."""
        rows = self._rows(
            "SELECT id, training_id, name, settings, costs, ranks, adapter FROM arm ORDER BY rowid"
        )
        return tuple(ArmRecord(*row[:3], *map(json.loads, row[3:])) for row in rows)

    def runs(self) -> tuple[RunRecord, ...]:
        """All runs in the order of their arms, then seeds."""
        rows = self._rows(
            "SELECT run.id, arm_id, seed, state, cause, evidence FROM run "
            "JOIN arm ON arm.id = arm_id ORDER BY arm.rowid, seed"
        )
        return tuple(
            RunRecord(i, arm, seed, state, cause, json.loads(evidence or "{}"))
            for i, arm, seed, state, cause, evidence in rows
        )

    def metrics(self, run_id: str, names: Iterable[str] | None = None) -> list[dict[str, float]]:
        """A run's logged metrics, a dict a step (with `step`), in order; all names or these."""
        query = "SELECT step, name, value FROM metric WHERE run_id = ?"
        chosen = None if names is None else tuple(names)
        if chosen is not None:
            query += f" AND name IN ({','.join('?' * len(chosen))})"
        rows: dict[int, dict[str, float]] = {}
        for step, name, value in self._rows(
            query + " ORDER BY step, name", (run_id, *(chosen or ()))
        ):
            row = rows.setdefault(step, {"step": step})
            row[name] = float("nan") if value is None else value
        return list(rows.values())

    def examples(self, split: Split) -> ExamplesRecord | None:
        """The examples of a split, or None where it has none."""
        row = self._row("SELECT hashes, groups, weights FROM examples WHERE split = ?", (split,))
        if row is None:
            return None
        return ExamplesRecord(
            split, tuple(json.loads(row[0])), from_blob(row[1]), from_blob(row[2])
        )

    def evaluations(self, run_id: str, split: Split = "validation") -> tuple[Evaluation, ...]:
        """A run's evaluations with per-example losses, by step."""
        rows = self._rows(
            "SELECT step, losses, correct, metrics FROM evaluation "
            "WHERE run_id = ? AND split = ? ORDER BY step",
            (run_id, split),
        )
        return tuple(_evaluation(run_id, split, *row) for row in rows)

    def evaluation_at(self, run_id: str, step: int, split: Split = "validation") -> Evaluation:
        """One evaluation of a run.

        Raises:
            StoreError: there is none at this step.
        """
        row = self._row(
            "SELECT step, losses, correct, metrics FROM evaluation "
            "WHERE run_id = ? AND split = ? AND step = ?",
            (run_id, split, step),
        )
        if row is None:
            raise StoreError(f"{self.folder}: {run_id} has no {split} evaluation at step {step}")
        return _evaluation(run_id, split, *row)

    def evaluation_metrics(
        self, run_id: str, split: Split = "validation"
    ) -> list[dict[str, float]]:
        """A run's evaluations without the examples: a dict a step (with `step`), in order."""
        rows = self._rows(
            "SELECT step, metrics FROM evaluation WHERE run_id = ? AND split = ? ORDER BY step",
            (run_id, split),
        )
        return [{"step": step, **json.loads(metrics)} for step, metrics in rows]

    def best_step(self, run_id: str, metric: str | None = None) -> int | None:
        """Step of a run's best validation by `metric` (default: the study's objective).

        The earliest of equals; None where nothing finite was evaluated. Losses and perplexities
        are best low, all other metrics best high.
        """
        name = metric or str(self.study().spec.get("objective", {}).get("metric", "eval_loss"))
        sign = 1 if name.endswith(("loss", "perplexity")) else -1
        scored = [
            (sign * row[name], row["step"])
            for row in self.evaluation_metrics(run_id)
            if np.isfinite(row.get(name, np.nan))
        ]
        return int(min(scored)[1]) if scored else None

    def probes(self) -> dict[str, dict[str, Any]]:
        """Solo probes by arm id."""
        return {i: json.loads(p) for i, p in self._rows("SELECT * FROM probe ORDER BY arm_id")}

    def answers(self) -> tuple[AnswersRecord, ...]:
        """All generated answers."""
        rows = self._rows("SELECT * FROM answers ORDER BY run_id != 'base', rowid")
        return tuple(AnswersRecord(run, arm, tuple(json.loads(text))) for run, arm, text in rows)

    def notes(self) -> tuple[tuple[str, str], ...]:
        """All remarks as (kind, text), in the order they were made."""
        return tuple(self._rows("SELECT kind, text FROM note ORDER BY id"))


def _evaluation(
    run_id: str, split: str, step: int, losses: bytes, correct: bytes | None, metrics: str
) -> Evaluation:
    return Evaluation(
        run_id,
        split,
        step,
        from_blob(losses),
        None if correct is None else from_blob(correct),
        json.loads(metrics),
    )
