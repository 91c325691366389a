"""Results from elsewhere: a table with a row per run, or PEFT's folder of JSON files.

They become the same `Records` as a study and get the same verdicts and the same report.
"""

import hashlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rankwise.errors import DataError, SpecError
from rankwise.results.records import (
    ArmFacts,
    Cost,
    Records,
    RunFacts,
    by_run,
    is_failure,
    varying_settings,
)
from rankwise.results.tables import PEFT_COLUMNS, csv_rows, peft_rows
from rankwise.spec.read_yaml import read_yaml_file
from rankwise.spec.tasks import lower_is_better
from rankwise.store.schema import Fact
from rankwise.text import columns_words, shorten

CostName = Literal["trainable_params", "memory", "time", "storage"]
UNITS = {"trainable_params": "parameters", "memory": "bytes", "time": "seconds", "storage": "bytes"}
KNOWN_METRICS = ("eval_loss", "val_loss", "eval_accuracy", "accuracy", "test_accuracy", "loss")
DONE = ("", "done", "success", "ok", "finished", "completed", "stopped_early")
FAILURES = {  # part of a state name used elsewhere -> the state here
    "memory": "out_of_memory",
    "oom": "out_of_memory",
    "nan": "diverged",
    "diverg": "diverged",
    "prun": "pruned",
    "interrupt": "interrupted",
    "kill": "interrupted",
}


class Columns(BaseModel):
    """Which column of a table means what. Columns not named here are not read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str = Field(description="Column of the objective metric.")
    lower_is_better: bool | None = Field(
        None, description="Direction; read from the metric's name where not given."
    )
    arm: str | None = Field(None, description="Column of the configuration's name.")
    seed: str | None = Field(None, description="Column of the seed.")
    factors: tuple[str, ...] | None = Field(
        None, description="Columns of settings; all that have no other meaning where not given."
    )
    state: str | None = Field(None, description="Column with the state of a run.")
    costs: dict[CostName, str] = Field(default_factory=dict, description="Columns of costs.")
    cost: CostName = Field("trainable_params", description="Cost to keep low among equals.")
    test_size: int | str | None = Field(
        None, description="Test items behind each metric (an accuracy), or their column."
    )
    title: str | None = Field(None, description="Title of the report.")


def read_outside(path: Path, mapping: Mapping[str, Any] | Path | None = None) -> Records:
    """Outside results as Records. Arguments and errors as for `write_outside_report`."""
    if isinstance(mapping, Path):
        mapping = _mapping_file(mapping)
    if path.is_dir():
        rows, columns = peft_rows(path), _columns(PEFT_COLUMNS | dict(mapping or {}), path)
    else:
        rows = csv_rows(path)
        columns = _columns(mapping if mapping else _guess(rows[0], path), path)
    _check_columns(columns, rows[0], path)
    return _records(rows, columns, path)


def _mapping_file(path: Path) -> dict[str, Any]:
    try:
        found = read_yaml_file(path)
    except SpecError as error:
        raise DataError(f"mapping: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds no mapping; write lines such as `metric: eval_loss`")
    return found


def _columns(mapping: Mapping[str, Any], path: Path) -> Columns:
    try:
        return Columns.model_validate(dict(mapping))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "mapping"
        fields = ", ".join(Columns.model_fields)
        raise DataError(
            f"mapping of {path.name}: {place}: {first['msg']}; the fields are {fields}"
        ) from None


def _guess(row: Mapping[str, Any], path: Path) -> dict[str, Any]:
    found = [name for name in KNOWN_METRICS if name in row]
    if not found:
        first = shorten(next(iter(row)), 60)
        raise DataError(
            f"{path}: name the column of the objective metric, such as metric={first}; the columns "
            f"are {columns_words(row)}"
        )
    guess: dict[str, Any] = {"metric": found[0]}
    guess |= {name: name for name in ("arm", "seed", "state") if name in row}
    guess["costs"] = {name: name for name in UNITS if name in row}
    if "test_size" in row:
        guess["test_size"] = "test_size"
    return guess


def _check_columns(columns: Columns, row: Mapping[str, Any], path: Path) -> None:
    named = [columns.metric, columns.arm, columns.seed, columns.state, *columns.costs.values()]
    named += list(columns.factors or ())
    if isinstance(columns.test_size, str):
        named.append(columns.test_size)
    for name in named:
        if name is not None and name not in row:
            raise DataError(f"{path}: no column {name!r}; the columns are {columns_words(row)}")


def _records(rows: Sequence[Mapping[str, Any]], columns: Columns, path: Path) -> Records:
    runs, settings, costs, said = _read_rows(rows, columns, path)
    _check_twice(runs, path)
    if columns.seed is None and len(settings) == len(rows):
        runs = [replace(run, seed=0, id=f"{run.arm}/seed-0") for run in runs]
    elif columns.seed is None:
        said.append(UNPAIRED)
    low = _lower(columns)
    by_arm = {arm: tuple(run for run in runs if run.arm == arm) for arm in settings}
    arms = tuple(_arm(arm, own, by_arm[arm], costs[arm], low) for arm, own in settings.items())
    seeds = tuple(sorted({run.seed for run in runs}))
    return Records(
        title=columns.title or path.stem,
        origin=path.name,
        metric=columns.metric,
        lower_is_better=low,
        cost=columns.cost,
        study={
            "source": path.name,
            "sha256": _digest(path),
            "rows": len(rows),
            "mapping": columns.model_dump(mode="json", exclude_none=True),
        },
        varying=varying_settings([arm.settings for arm in arms]),
        seeds=seeds,
        arms=arms,
        runs=tuple(run for arm in by_arm.values() for run in sorted(arm, key=lambda r: r.seed)),
        answers=(),
        notes=tuple(Fact("text", {"about": "table", "text": text}) for text in dict.fromkeys(said)),
        x_AS=by_run(arms, seeds, runs),
        x_ASE=None,
        groups_E=None,
        weights_E=None,
        test_size=_test_size(rows, columns, path),
        extra_ASE={},
    )


UNPAIRED = (
    "no column holds the seed: rows of one configuration count as runs with different seeds, which "
    "cannot be paired across configurations"
)
Settings = dict[str, dict[str, Any]]
Costs = dict[str, list[dict[str, float]]]


def _read_rows(
    rows: Sequence[Mapping[str, Any]], columns: Columns, path: Path
) -> tuple[list[RunFacts], Settings, Costs, list[str]]:
    """Runs, the settings and costs of each arm, and notes. Without a seed column rows number it."""
    factors = _factors(rows[0], columns)
    runs: list[RunFacts] = []
    settings: Settings = {}
    costs: Costs = {}
    notes: list[str] = []
    for number, row in enumerate(rows):
        own = {name: row[name] for name in factors if row[name] is not None}
        arm = _arm_name(row, columns, own, settings, path)
        if settings.setdefault(arm, own) != own:
            notes.append(f"{arm}: its rows have different settings; the first are shown")
        costs.setdefault(arm, []).append(_row_costs(row, columns))
        runs.append(_run(row, arm, _seed(row, columns, number, path), columns, path))
    return runs, settings, costs, notes


def _factors(row: Mapping[str, Any], columns: Columns) -> tuple[str, ...]:
    if columns.factors is not None:
        return columns.factors
    taken = {columns.metric, columns.arm, columns.seed, columns.state, columns.test_size}
    return tuple(name for name in row if name not in taken | set(columns.costs.values()))


def _lower(columns: Columns) -> bool:
    if columns.lower_is_better is not None:
        return columns.lower_is_better
    return lower_is_better(columns.metric)


def _arm_name(
    row: Mapping[str, Any],
    columns: Columns,
    own: dict[str, Any],
    settings: Mapping[str, dict[str, Any]],
    path: Path,
) -> str:
    if columns.arm is not None:
        if row[columns.arm] is None:
            raise DataError(f"{path}: a row has no name in column {columns.arm!r}")
        return str(row[columns.arm])
    same = [name for name, known in settings.items() if known == own]
    return same[0] if same else " ".join(f"{k}={v}" for k, v in own.items()) or "all rows"


def _seed(row: Mapping[str, Any], columns: Columns, number: int, path: Path) -> int:
    if columns.seed is None:
        return number
    value = row[columns.seed]
    if isinstance(value, bool) or not isinstance(value, int):
        held = f"{path}: column {columns.seed!r} holds {shorten(repr(value))}"
        raise DataError(f"{held}; seeds are whole numbers")
    return value


def _run(row: Mapping[str, Any], arm: str, seed: int, columns: Columns, path: Path) -> RunFacts:
    value = row[columns.metric]
    if isinstance(value, str) and value.lower() not in ("nan", "n/a", "na", "-"):
        held = f"{path}: column {columns.metric!r} holds {shorten(repr(value))}"
        raise DataError(f"{held}, which is not a number")
    number = None if value is None or isinstance(value, str) else float(value)
    state, cause = _outcome(row, columns, number, value)
    done = state == "done" and number is not None
    return RunFacts(
        id=f"{arm}/seed-{seed}",
        arm=arm,
        seed=seed,
        state=state,
        cause=cause,
        value=number if done else None,
        best_step=None,
        last_step=None,
        validation={columns.metric: number} if done and number is not None else {},
        test={},
        curve=(),
        train_curve=(),
    )


def _outcome(
    row: Mapping[str, Any], columns: Columns, number: float | None, value: Any
) -> tuple[str, str | None]:
    said = "" if columns.state is None else str(row[columns.state] or "").strip().lower()
    if said not in DONE:
        known = [state for piece, state in FAILURES.items() if piece in said]
        return (known or ["crashed"])[0], f"state in the table: {said}"
    if number is not None and math.isfinite(number):
        return "done", None
    if value is None:
        return "crashed", f"the table has no {columns.metric} for it"
    return "diverged", f"{columns.metric} in the table is {value}"


def _check_twice(runs: Sequence[RunFacts], path: Path) -> None:
    seen: set[str] = set()
    for run in runs:
        if run.id in seen:
            raise DataError(
                f"{path}: two rows are {shorten(run.id, 200)}; name the columns that distinguish "
                "them under `factors`, or the one that holds the seed under `seed`"
            )
        seen.add(run.id)


def _row_costs(row: Mapping[str, Any], columns: Columns) -> dict[str, float]:
    found = {name: row[column] for name, column in columns.costs.items()}
    return {n: float(v) for n, v in found.items() if isinstance(v, int | float)}


def _arm(
    name: str,
    settings: dict[str, Any],
    runs: Sequence[RunFacts],
    costs: Sequence[Mapping[str, float]],
    low: bool,
) -> ArmFacts:
    done = [run for run in runs if run.finished]
    values = [run.value for run in done if run.value is not None]
    known = {n: [row[n] for row in costs if n in row] for n in UNITS}
    return ArmFacts(
        id=name,
        name=name,
        method=str(settings.get("method", "")),
        settings=settings,
        costs={
            n: Cost(statistics.fmean(v), UNITS[n], "from the table, not measured by rankwise")
            for n, v in known.items()
            if v
        },
        seeds_done=tuple(run.seed for run in done),
        failed=tuple(run.id for run in runs if is_failure(run)),
        open=(),
        mean=statistics.fmean(values) if values else None,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        best=(min(values) if low else max(values)) if values else None,
        validation={},
        test={},
        test_spread={},
    )


def _test_size(rows: Sequence[Mapping[str, Any]], columns: Columns, path: Path) -> int | None:
    if not isinstance(columns.test_size, str):
        return columns.test_size
    sizes = {row[columns.test_size] for row in rows}
    if len(sizes) != 1 or not isinstance(next(iter(sizes)), int):
        held = columns_words(sorted(map(str, sizes)))
        raise DataError(
            f"{path}: column {columns.test_size!r} holds {held}; rows can only be compared with "
            "one test size for all of them"
        )
    return int(next(iter(sizes)))


def _digest(path: Path) -> str:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
