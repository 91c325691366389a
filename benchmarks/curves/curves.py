"""Recorded learning curves as arrays, for replays.

    from curves import load
    reviews = load("reviews")

A file `PROBLEM.parquet` has one row for each evaluation of each run; what holds for all rows (the
configurations in order, groups and weights of the held-out examples, how each run ended) is JSON
in its metadata. `export.py` writes it.

Array suffixes: A arms (configurations), S seeds, T evaluations (at `steps`), E held-out examples.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
KEY = b"rankwise_curves"
"""Of the metadata."""
NOT_RECORDED = ""
SCHEMA = pa.schema(
    [
        ("config", pa.string()),
        ("seed", pa.int32()),
        ("step", pa.int32()),
        ("max_steps", pa.int32()),
        ("learning_rate", pa.float64()),
        ("r", pa.int32()),
        ("target_modules", pa.string()),
        ("lr_scheduler_type", pa.string()),
        ("trainable_params", pa.int64()),
        ("seconds", pa.float64()),
        ("status", pa.string()),
        ("loss", pa.list_(pa.float32())),
        ("correct", pa.list_(pa.int8())),
    ]
)


@dataclass(frozen=True)
class Curves:
    """The runs of one problem.

    Attributes:
        problem: Its name.
        configs: Names of the A configurations, in the order of the spec.
        settings: By configuration: learning_rate, r, target_modules (a list, or "all-linear"),
            lr_scheduler_type, max_steps, trainable_params, step_seconds and eval_seconds (of one
            training step and one evaluation of the run alone; None where not measured).
        seeds: The S seeds.
        steps: The T steps at which runs are evaluated; the last one is the end of the schedule.
        x_ASTE: Validation loss, the mean over the targets of each example. NaN after a run ended,
            and all of a run that is not recorded.
        correct_ASTE: 1 where the example was classified rightly, 0 where not, NaN as above; None
            where the task has no classes.
        groups_E: Examples of equal number come from one source (a film, a question).
        weights_E: Targets of each example. The metric `eval_loss` is the mean with these weights.
        params_A: Trainable parameters.
        status_AS: How each run ended ("done", "diverged"); "" where it is not recorded.
        base: Of the untouched base: its metrics, name and fingerprint.
    """

    problem: str
    configs: tuple[str, ...]
    settings: dict[str, dict[str, object]]
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    x_ASTE: NDArray[np.float64]
    correct_ASTE: NDArray[np.float64] | None
    groups_E: NDArray[np.int64]
    weights_E: NDArray[np.float64]
    params_A: NDArray[np.int64]
    status_AS: NDArray[np.str_]
    base: dict[str, Any]

    @property
    def loss_AST(self) -> NDArray[np.float64]:
        """The metric `eval_loss`: mean over all targets; NaN where a run has no value."""
        return np.asarray(self.x_ASTE @ (self.weights_E / self.weights_E.sum()))


def load(problem: str, folder: Path = HERE) -> Curves:
    """The recorded runs of a problem.

    Args:
        problem: Such as "reviews".
        folder: Where PROBLEM.parquet is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file of recorded curves.
    """
    path = folder / f"{problem}.parquet"
    table = pq.read_table(path)
    if KEY not in (table.schema.metadata or {}):
        raise ValueError(f"{path}: no recorded curves (no {KEY.decode()} in its metadata)")
    known: dict[str, Any] = json.loads(table.schema.metadata[KEY])
    settings = {one.pop("config"): one for one in known["configs"]}
    configs, seeds = tuple(settings), tuple(known["seeds"])
    steps = tuple(known["steps"])
    where = _places(table, configs, seeds, steps)
    shape = (len(configs), len(seeds), len(steps), len(known["groups"]))
    status_AS = np.full(shape[:2], NOT_RECORDED, dtype="U32")
    for run in known["runs"]:
        status_AS[configs.index(run["config"]), seeds.index(run["seed"])] = run["status"]
    return Curves(
        problem=known["problem"],
        configs=configs,
        settings=settings,
        seeds=seeds,
        steps=steps,
        x_ASTE=_filled(shape, where, table["loss"]),
        correct_ASTE=_filled(shape, where, table["correct"]) if known["has_correct"] else None,
        groups_E=np.array(known["groups"], dtype=np.int64),
        weights_E=np.array(known["weights"], dtype=np.float64),
        params_A=np.array([settings[name]["trainable_params"] for name in configs]),
        status_AS=status_AS,
        base=known["base"],
    )


def problems(folder: Path = HERE) -> tuple[str, ...]:
    """The problems that are recorded in a folder."""
    return tuple(sorted(path.stem for path in folder.glob("*.parquet")))


def _places(
    table: pa.Table, configs: tuple[str, ...], seeds: tuple[int, ...], steps: tuple[int, ...]
) -> tuple[list[int], ...]:
    """Of each row, its arm, seed and evaluation."""
    columns = zip((configs, seeds, steps), ("config", "seed", "step"), strict=True)
    return tuple([known.index(v) for v in table[name].to_pylist()] for known, name in columns)


def _filled(
    shape: tuple[int, ...], where: tuple[list[int], ...], column: pa.ChunkedArray
) -> NDArray[np.float64]:
    """Rows of a column at their places, NaN elsewhere."""
    x_ASTE = np.full(shape, np.nan)
    if len(column):
        x_ASTE[where] = np.array(column.to_pylist(), dtype=np.float64)
    return x_ASTE
