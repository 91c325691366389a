"""runs.csv: a row for each configuration and seed."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rankwise.report.remarks import cause_of
from rankwise.results.records import ArmFacts, Records, RunFacts
from rankwise.store.reader import Reader

COUNTED = ("trainable_params", "total_params", "storage_bytes", "memory_bytes")


def write_runs_csv(store: Reader, records: Records, path: Path) -> None:
    """Writes settings, costs, and metrics at the best and the last step and on the test part."""
    costs = _costs(store)
    rows = [_row(run, records.arm(run.arm), costs[run.arm]) for run in records.runs]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _costs(store: Reader) -> dict[str, dict[str, Any]]:
    """What is counted before a run, and what was measured of it alone, by configuration."""
    trainings, probes = {one.id: asdict(one) for one in store.trainings()}, store.costs()
    found = {}
    for config in store.configs():
        row = {name: trainings[config.training_id][name] for name in COUNTED}
        if config.training_id in probes:
            probe = asdict(probes[config.training_id])
            row |= {f"probe_{name}": value for name, value in probe.items()}
        found[config.name] = {name: value for name, value in row.items() if value is not None}
    return found


def _row(run: RunFacts, arm: ArmFacts, costs: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run": run.id,
        "arm": arm.name,
        "seed": run.seed,
        "state": run.state,
        "cause": cause_of(run),
    }
    for name, value in arm.settings.items():
        plain = isinstance(value, str | int | float)
        row[name] = value if plain else json.dumps(value, ensure_ascii=False)
    row |= costs
    if run.best_step is not None:
        row["best_step"] = run.best_step
    row |= {f"best_{name}": value for name, value in run.validation.items()}
    row |= {f"last_{name}": value for name, value in run.last.items()}
    if run.test:
        row["test_step"] = run.best_step
    return row | {f"test_{name}": value for name, value in run.test.items()}
