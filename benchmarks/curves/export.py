"""Write PROBLEM.parquet from the runs of a study that have ended; the study may still be running.

    python benchmarks/curves/export.py reviews FOLDER_OF_THE_STUDY

Only losses and numbers are written, no text of the data.
"""

import argparse
import itertools
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from curves import HERE, KEY, SCHEMA

from rankwise.store.reader import Reader
from rankwise.store.schema import ENDED, CostRecord, Evaluation, RunRecord, StudyRecord

SETTINGS = {
    "learning_rate": "training.learning_rate",
    "r": "lora.r",
    "target_modules": "lora.target_modules",
    "lr_scheduler_type": "training.lr_scheduler_type",
    "max_steps": "training.max_steps",
}


def export(problem: str, study: Path, folder: Path = HERE) -> Path:
    """The runs of a study that have ended, in one file.

    Args:
        problem: Name of the file.
        study: Its folder.
        folder: Where the file goes; an older one there is replaced.

    Raises:
        ValueError: no run has ended yet.
    """
    with Reader(study) as store:
        rows, known = collect(problem, store)
    schema = SCHEMA.with_metadata({KEY: json.dumps(known)})
    path = folder / f"{problem}.parquet"
    pq.write_table(
        pa.Table.from_pylist(rows, schema), path, compression="zstd", compression_level=19
    )
    return path


def collect(problem: str, store: Reader) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows, and what goes into the metadata."""
    runs = [run for run in store.runs() if run.state in ENDED]
    examples = store.examples("validation")
    if not runs or examples is None:
        raise ValueError(f"{store.folder}: no run has ended yet")
    configs = described(store)
    rows: list[dict[str, Any]] = []
    ended = []
    for config, run in itertools.product(store.configs(), runs):
        if run.training_id != config.training_id:
            continue
        rows += rows_of(configs[config.name], run, finite_evaluations(store, run))
        end = {"config": config.name, "seed": run.seed, "status": run.state}
        ended.append(end | failure_of(run))
    study = store.study()
    known = {
        "problem": problem,
        "configs": list(configs.values()),
        "seeds": study.spec["seeds"],
        "steps": sorted({row["step"] for row in rows}),
        "has_correct": any(row["correct"] is not None for row in rows),
        "groups": examples.groups.tolist(),
        "weights": examples.weights.tolist(),
        "runs": ended,
        "base": base_of(study, store.base_metrics()),
        "versions": study.versions,
        "device": study.device,
        "threads": study.threads,
        "data_fingerprint": study.data_fingerprint,
    }
    return rows, known


def described(store: Reader) -> dict[str, dict[str, Any]]:
    """Of each configuration, in the order of the spec: what it is, and what it costs alone."""
    params = {training.id: training.trainable_params for training in store.trainings()}
    costs, unknown = store.costs(), CostRecord(None, None, None)
    found = {}
    for config in store.configs():
        cost = costs.get(config.training_id, unknown)
        found[config.name] = {
            "config": config.name,
            **{name: config.settings[dotted] for name, dotted in SETTINGS.items()},
            "trainable_params": params[config.training_id],
            "step_seconds": cost.step_seconds,
            "eval_seconds": cost.eval_seconds,
        }
    return found


def base_of(study: StudyRecord, metrics: dict[str, float]) -> dict[str, Any]:
    """The base with its fingerprint; of a folder on this machine only the last part of its name."""
    name = study.base.name
    known = Path(name).name if Path(name).is_absolute() else name
    return asdict(study.base) | {"name": known, "metrics": metrics}


def finite_evaluations(store: Reader, run: RunRecord) -> list[Evaluation]:
    """What a run showed before it diverged, or to its end."""
    return [one for one in store.evaluations(run.id) if np.isfinite(one.losses).all()]


def failure_of(run: RunRecord) -> dict[str, Any]:
    """Of a run that diverged: the step, and what was not finite or too large."""
    why = run.failure
    return {} if why.not_finite is None else {"bad_step": why.step, "bad": why.not_finite}


def rows_of(
    config: dict[str, Any], run: RunRecord, evaluations: list[Evaluation]
) -> list[dict[str, Any]]:
    """A row for each evaluation."""
    shared = {name: config[name] for name in (*SETTINGS, "config", "trainable_params")}
    shared["target_modules"] = in_words(config["target_modules"])
    shared |= {"seed": run.seed, "status": run.state, "seconds": seconds_of(config, evaluations)}
    return [
        {
            **shared,
            "step": one.step,
            "loss": one.losses.astype(np.float32),
            "correct": None if one.correct is None else one.correct.astype(np.int8),
        }
        for one in evaluations
    ]


def in_words(target_modules: str | list[str]) -> str:
    """As one text."""
    return target_modules if isinstance(target_modules, str) else " ".join(target_modules)


def seconds_of(config: dict[str, Any], evaluations: list[Evaluation]) -> float | None:
    """Seconds of a run alone up to its last evaluation, from the measured price of its parts."""
    step, once = config["step_seconds"], config["eval_seconds"]
    if step is None or once is None or not evaluations:
        return None
    total = evaluations[-1].step * step + len(evaluations) * once
    return float(total) if math.isfinite(total) else None


def main() -> None:
    """Export one problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem")
    parser.add_argument("study", type=Path, help="folder of the study")
    options = parser.parse_args()
    path = export(options.problem, options.study)
    print(f"{path}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
