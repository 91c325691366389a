"""The rows of a table as runs: which configuration, which seed, and how each run ended."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rankwise.errors import DataError
from rankwise.results.columns import Columns
from rankwise.results.records import RunFacts
from rankwise.results.role_names import bare, unit_of_cost
from rankwise.spec.tasks import lower_is_better
from rankwise.text import setting, shorten

Rows = Sequence[Mapping[str, Any]]
DONE = ("", "done", "success", "ok", "finished", "completed", "complete", "stopped_early")
OPEN = {"running": "running", "pending": "planned", "queued": "planned", "scheduled": "planned"}
FAILURES = {  # part of a state name used elsewhere -> the state here
    "memory": "out_of_memory",
    "oom": "out_of_memory",
    "nan": "diverged",
    "diverg": "diverged",
    "prun": "pruned",
    "interrupt": "interrupted",
    "kill": "interrupted",
    "preempt": "interrupted",
    "cancel": "interrupted",
}
GAPS = ("nan", "n/a", "na", "-", "inf", "infinity", "-infinity")


@dataclass(frozen=True, eq=False)
class Table:
    """A table with what its columns mean.

    naming  the settings that vary between runs with a result, in all of the table: a run that
            failed early may lack some
    """

    rows: Rows
    columns: Columns
    path: Path
    naming: tuple[str, ...]

    @property
    def metric(self) -> str:
        """What the metric is called: its column without the prefix of a tracker."""
        return bare(self.columns.metric).replace("/", "_")

    @property
    def lower(self) -> bool:
        """Whether a lower metric is better."""
        given = self.columns.lower_is_better
        return lower_is_better(self.metric) if given is None else given


Settings = dict[str, dict[str, Any]]
Costs = dict[str, list[dict[str, float]]]


def read_rows(table: Table) -> tuple[list[RunFacts], Settings, Costs, list[str]]:
    """Runs, the settings and costs of each arm, and notes. Without a seed column rows number it."""
    columns, path = table.columns, table.path
    runs: list[RunFacts] = []
    settings: Settings = {}
    costs: Costs = {}
    notes: list[str] = []
    whole: set[str] = set()  # arms whose settings are those of a run with a result
    for number, row in enumerate(table.rows):
        own = {bare(name): row[name] for name in columns.factors or () if row[name] is not None}
        arm = _arm_name(row, own, table)
        result = row[columns.metric] is not None
        if arm not in settings or (result and arm not in whole):
            settings[arm] = own
        whole |= {arm} if result else set()
        if result and settings[arm] != own:
            notes.append(f"{arm}: its rows have different settings; the first are shown")
        costs.setdefault(arm, []).append(_row_costs(row, columns))
        runs.append(_run(row, arm, _seed(row, columns, number, path), table))
    if columns.seed is not None and columns.replicate is not None:
        runs = _averaged(runs, table.metric)
    return runs, settings, costs, notes


def _averaged(runs: Sequence[RunFacts], metric: str) -> list[RunFacts]:
    """Reruns of one configuration and seed as one run with their mean."""
    found: dict[tuple[str, int], list[RunFacts]] = {}
    for run in runs:
        found.setdefault((run.arm, run.seed), []).append(run)
    merged = []
    for (arm, seed), own in found.items():
        done = [run.value for run in own if run.finished and run.value is not None]
        if len(own) == 1 or not done:
            merged.append(replace(own[0], id=f"{arm}/seed-{seed}"))
        else:
            mean = statistics.fmean(done)
            merged.append(run_facts(arm, seed, f"{arm}/seed-{seed}", "done", None, mean, metric))
    return merged


def _arm_name(row: Mapping[str, Any], own: Mapping[str, Any], table: Table) -> str:
    """Its name in the table, or its settings that vary."""
    column = table.columns.arm
    if column is not None:
        if row[column] is None:
            raise DataError(f"{table.path}: a row has no name in column {shorten(repr(column))}")
        return str(row[column])
    parts = [f"{name}={_spelled(own[name])}" for name in table.naming if name in own]
    return " ".join(parts) or ("all rows" if not table.naming else "no settings")


def _spelled(value: Any) -> str:
    """A setting as the user would type it, with all digits where that takes some away."""
    text = setting(value)
    return repr(value) if isinstance(value, float) and float(text) != value else text


def _seed(row: Mapping[str, Any], columns: Columns, number: int, path: Path) -> int:
    if columns.seed is None:
        return number
    value = row[columns.seed]
    if isinstance(value, float) and value.is_integer():  # as in a column with gaps
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        held = f"{path}: column {shorten(repr(columns.seed))} holds {shorten(repr(value))}"
        raise DataError(f"{held}; seeds are whole numbers")
    return value


def _run(row: Mapping[str, Any], arm: str, seed: int, table: Table) -> RunFacts:
    columns, path = table.columns, table.path
    value = row[columns.metric]
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() not in GAPS):
        held = f"{path}: column {shorten(repr(columns.metric))} holds {shorten(repr(value))}"
        raise DataError(f"{held}, which is not a number")
    number = None if value is None or isinstance(value, str) else float(value)
    state, cause = _outcome(row, columns, number, value)
    name = f"{arm}/seed-{seed}"
    if columns.replicate is not None:
        name = f"{arm}/{setting(row[columns.replicate])}"
        name += "" if columns.seed is None else f"/seed-{seed}"
    result = number if state == "done" else None
    return run_facts(arm, seed, name, state, cause, result, table.metric)


def run_facts(
    arm: str, seed: int, name: str, state: str, cause: str | None, value: float | None, metric: str
) -> RunFacts:
    return RunFacts(
        id=name,
        arm=arm,
        seed=seed,
        state=state,
        cause=cause,
        value=value,
        best_step=None,
        last_step=None,
        validation={} if value is None else {metric: value},
        test={},
        curve=(),
        train_curve=(),
    )


def _outcome(
    row: Mapping[str, Any], columns: Columns, number: float | None, value: Any
) -> tuple[str, str | None]:
    held = None if columns.state is None else row[columns.state]
    said = "" if held is None else str(held).strip().lower()
    if said in OPEN:
        return OPEN[said], None
    if said not in DONE:
        known = [state for piece, state in FAILURES.items() if piece in said]
        return (known or ["crashed"])[0], f"state in the table: {said}"
    if number is not None and math.isfinite(number):
        return "done", None
    if value is None:
        return "crashed", f"the table has no {columns.metric} for it"
    return "diverged", f"{columns.metric} in the table is {value}"


def _row_costs(row: Mapping[str, Any], columns: Columns) -> dict[str, float]:
    found = {name: row[column] for name, column in columns.costs.items()}
    return {
        name: float(value) * unit_of_cost(columns.costs[name])
        for name, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
