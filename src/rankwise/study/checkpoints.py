"""Checkpoints: the states of runs in training, on disk, so that a study goes on inside a run.

One file holds the states of all runs of a cohort at one moment, so that the same cohort goes on
from there with the same numbers. It is written aside, synced and renamed; its name carries a
checksum. Of every run that still needs one the two newest files are kept, so that one that is
damaged costs one interval.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from rankwise.files import full_disk_told, sum_of, to_disk
from rankwise.spec.arms import Run
from rankwise.store.reader import Reader
from rankwise.train.run_state import (
    Key,
    RunState,
    key_of,
    load_run_states,
    save_run_states,
    saved_facts,
)

FOLDER = "checkpoints"
KEPT = 2
COST = 0.02  # share of the time between two checkpoints that writing one may take
Found = TypeVar("Found")


class Checkpoints:
    """The checkpoints of a study.

    Args:
        folder: Of the study.
        seconds: Between two checkpoints, at least; 0: at every opportunity.

    Attributes:
        damaged: Files that could not be read so far, and why; they are left where they are.
        unreported: Those of them that the user was not told of yet.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder / FOLDER
        self.damaged: dict[str, str] = {}
        self.unreported: list[str] = []
        self._seconds, self._took = seconds, 0.0
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for another one: so late that its cost stays small."""
        wait = max(self._seconds, self._took / COST) if self._seconds else 0.0
        return time.monotonic() - self._saved >= wait

    def save(self, states: Sequence[RunState]) -> None:
        """Write the states of a cohort; of runs that have ended, what is still asked of them.

        Raises:
            DiskFullError: there is no room; the checkpoints before it stay.
        """
        started = time.monotonic()
        aside = self.folder / ".new"
        with full_disk_told(self.folder):
            self.folder.mkdir(exist_ok=True)
            save_run_states([_needed(state) for state in states], aside)
            to_disk(aside)
            aside.replace(self.folder / f"{self._next():06d}-{_checksum(aside)}.safetensors")
            to_disk(self.folder)
        self._saved = time.monotonic()
        self._took = self._saved - started

    def load(self, runs: Iterable[Run]) -> dict[Run, RunState]:
        """The newest state of each of these runs; those without one are left out."""
        return self._newest(runs, load_run_states)

    def steps(self, store: Reader, runs: Iterable[Run]) -> dict[Run, int]:
        """The steps from which these runs would go on; those that begin anew are left out."""

        def facts(here: Sequence[Run], path: Path) -> dict[Run, dict[str, Any]]:
            every = self._facts(path)
            return {run: every[key_of(run)] for run in here}

        found = {}
        for run, one in self._newest(runs, facts).items():
            number, step = store.run_id(*key_of(run)), int(one["step"])
            if is_recorded(store, number, step, None if one["best"] is None else one["best_step"]):
                found[run] = step
        return found

    def _newest(
        self, runs: Iterable[Run], read: Callable[[Sequence[Run], Path], Mapping[Run, Found]]
    ) -> dict[Run, Found]:
        missing = {key_of(run): run for run in runs}
        found: dict[Run, Found] = {}
        for path in reversed(self._files()):
            here = [missing[key] for key in self._facts(path) if key in missing]
            if here and self._is_whole(path):
                found |= read(here, path)
                missing = {key: run for key, run in missing.items() if run not in found}
        return found

    def keep(self, runs: Iterable[Run]) -> None:
        """Remove the files that none of these runs, which are still to be trained, may need."""
        left = dict.fromkeys(map(key_of, runs), KEPT)
        for path in reversed(self._files()):
            needed = [key for key in self._facts(path) if left.get(key, 0) > 0]
            for key in needed:
                left[key] -= 1
            if not needed and path.name not in self.damaged:
                path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("*.safetensors"))

    def _next(self) -> int:
        files = self._files()
        return 1 + int(files[-1].name.partition("-")[0]) if files else 1

    def _facts(self, path: Path) -> dict[Key, dict[str, Any]]:
        try:
            return saved_facts(path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            self._note(path, str(error))
            return {}

    def _is_whole(self, path: Path) -> bool:
        if path.stem.endswith(f"-{_checksum(path)}"):
            return True
        self._note(path, "its content does not have the checksum that its name says")
        return False

    def _note(self, path: Path, why: str) -> None:
        if path.name not in self.damaged:
            self.damaged[path.name] = why
            self.unreported.append(path.name)


def is_recorded(store: Reader, run_id: int, step: int, best_step: int | None) -> bool:
    """Whether the store has all that a run had recorded by a checkpoint at this step.

    A database that was repaired has less, and so has a run that is trained anew; then the
    checkpoint cannot be used.
    """
    made = sum(one.step <= step for one in store.steps(run_id))
    best = best_step is None or best_step in {
        int(one["step"]) for one in store.evaluation_metrics(run_id)
    }
    return made == step and best


def _needed(state: RunState) -> RunState:
    """Of a run that has ended, only its best weights are asked for again."""
    if state.status == "running":
        return state
    return replace(state, weights={}, optimizer={}, gradients={})


def _checksum(path: Path) -> str:
    return sum_of(path).sha256[:16]
