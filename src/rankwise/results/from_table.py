"""Results from elsewhere: a table with a row per run, or PEFT's folder of JSON files.

They become the same `Records` as a study and get the same verdicts and the same report. Where
columns are blocks (`context`), each block has records of its own, and the whole has a mean of each
configuration in each block.
"""

import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rankwise.errors import DataError
from rankwise.results.columns import UNITS, Columns, mapping_file
from rankwise.results.records import (
    ArmFacts,
    Block,
    Cost,
    Records,
    RunFacts,
    by_run,
    is_failure,
    varying_settings,
)
from rankwise.results.roles import bare, direction_words, guess_roles, unit_of_cost
from rankwise.results.tables import PEFT_COLUMNS, peft_rows, table_rows
from rankwise.spec.tasks import lower_is_better
from rankwise.store.schema import Fact
from rankwise.text import columns_words, count, setting, shorten

Rows = Sequence[Mapping[str, Any]]
MOST_ARMS = 2000  # every pair of configurations of a contest has a place in tables of pairs
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
class _Table:
    """A table with what its columns mean; `naming` are the settings that vary in all of it."""

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


def read_outside(path: Path, mapping: Mapping[str, Any] | Path | None = None) -> Records:
    """Outside results as Records. Arguments and errors as for `write_outside_report`."""
    given = mapping_file(mapping) if isinstance(mapping, Path) else dict(mapping or {})
    if path.is_dir():
        rows = peft_rows(path)
        given = PEFT_COLUMNS | given
    else:
        rows = table_rows(path)
    columns, roles = guess_roles(rows, given, path)
    naming = tuple(
        bare(name) for name in columns.factors or () if len({repr(row[name]) for row in rows}) > 1
    )
    records = _records(_Table(rows, columns, path, naming))
    return replace(
        records,
        origin=path.name,
        study={
            "source": path.name,
            "sha256": _digest(path),
            "rows": len(rows),
            "mapping": columns.model_dump(mode="json", exclude_none=True),
            "direction": direction_words(columns),
            "roles": [vars(role) for role in roles],
        },
    )


def _records(table: _Table) -> Records:
    """Records of one contest, or of all blocks with an own one for each."""
    blocks = _by_context(table)
    if len(blocks) < 2:
        return _contest(table)
    return _over_blocks(table, [_block(context, rows, table) for context, rows in blocks])


def _by_context(table: _Table) -> list[tuple[dict[str, Any], list[Mapping[str, Any]]]]:
    """The rows of each block, in the order of the table, with the values of its context."""
    found: dict[str, tuple[dict[str, Any], list[Mapping[str, Any]]]] = {}
    for row in table.rows:
        context = {name: row[name] for name in table.columns.context}
        found.setdefault(repr(context), (context, []))[1].append(row)
    return list(found.values())


def _block(context: dict[str, Any], rows: Rows, table: _Table) -> Block:
    name = ", ".join(f"{key} {setting(value)}" for key, value in context.items())
    return Block(name, context, replace(_contest(replace(table, rows=rows)), title=name))


def _over_blocks(table: _Table, blocks: Sequence[Block]) -> Records:
    """The mean of each configuration in each block, in the places of runs and seeds."""
    names = list(dict.fromkeys(arm.name for block in blocks for arm in block.records.arms))
    runs = [
        _mean_run(name, place, block)
        for name in names
        for place, block in enumerate(blocks)
        if any(arm.name == name for arm in block.records.arms)
    ]
    held: dict[str, list[ArmFacts]] = {name: [] for name in names}
    for block in blocks:
        for arm in block.records.arms:
            held[arm.name].append(arm)
    of: dict[str, list[RunFacts]] = {name: [] for name in names}
    for run in runs:
        of[run.arm].append(run)
    said = [note for block in blocks for note in block.records.notes]
    arms = tuple(
        _arm(name, held[name][0].settings, of[name], _mean_costs(held[name]), table.lower)
        for name in names
    )
    seeds = tuple(range(len(blocks)))
    return replace(
        blocks[0].records,
        title=table.columns.title or table.path.stem,
        varying=varying_settings([arm.settings for arm in arms]),
        seeds=seeds,
        arms=arms,
        runs=tuple(runs),
        notes=tuple({str(note.data): note for note in said}.values()),
        x_AS=by_run(arms, seeds, runs),
        test_size=None,
        blocks=tuple(blocks),
    )


def _mean_run(name: str, place: int, block: Block) -> RunFacts:
    """A configuration in a block: the mean of its finished runs there."""
    own = block.records.runs_of(name)
    values = [run.value for run in own if run.finished and run.value is not None]
    state = "done" if values else Counter(run.state for run in own).most_common(1)[0][0]
    value = statistics.fmean(values) if values else None
    cause = None if values else f"none of its {count(len(own), 'run')} there has a result"
    return _run_facts(
        name, place, f"{name}/{block.name}", state, cause, value, block.records.metric
    )


def _mean_costs(arms: Sequence[ArmFacts]) -> list[dict[str, float]]:
    return [{name: cost.value for name, cost in arm.costs.items()} for arm in arms]


def _contest(table: _Table) -> Records:
    """Records of rows that are compared with one another."""
    columns = table.columns
    runs, settings, costs, said = _read_rows(table)
    if len(settings) > MOST_ARMS:
        raise DataError(
            f"{table.path}: {len(settings):,} different configurations in {len(table.rows):,} "
            f"rows; {MOST_ARMS:,} can be compared with one another. Name the columns that are no "
            "settings in the mapping: `seed` or `replicate`, and `context` for models and tasks"
        )
    _check_twice(runs, columns, table.path)
    if columns.seed is None and len(settings) == len(runs):
        runs = [replace(run, seed=0, id=f"{run.arm}/seed-0") for run in runs]
    elif columns.seed is None:
        said.append(RERUNS if columns.replicate else UNPAIRED)
    by_arm: dict[str, list[RunFacts]] = {arm: [] for arm in settings}
    for run in runs:
        by_arm[run.arm].append(run)
    arms = tuple(
        _arm(arm, own, by_arm[arm], costs[arm], table.lower) for arm, own in settings.items()
    )
    seeds = tuple(sorted({run.seed for run in runs}))
    return Records(
        title=columns.title or table.path.stem,
        origin=table.path.name,
        metric=table.metric,
        lower_is_better=table.lower,
        cost=columns.cost,
        study={},
        varying=varying_settings([arm.settings for arm in arms]),
        seeds=seeds,
        arms=arms,
        runs=tuple(run for own in by_arm.values() for run in sorted(own, key=lambda r: r.seed)),
        answers=(),
        notes=tuple(Fact("text", {"about": "table", "text": text}) for text in dict.fromkeys(said)),
        x_AS=by_run(arms, seeds, runs),
        x_ASE=None,
        groups_E=None,
        weights_E=None,
        test_size=_test_size(table),
        extra_ASE={},
    )


UNPAIRED = (
    "no column holds the seed: rows of one configuration count as runs with different seeds, which "
    "cannot be paired across configurations"
)
RERUNS = "reruns with the same number are not paired: the number is not a seed"
Settings = dict[str, dict[str, Any]]
Costs = dict[str, list[dict[str, float]]]


def _read_rows(table: _Table) -> tuple[list[RunFacts], Settings, Costs, list[str]]:
    """Runs, the settings and costs of each arm, and notes. Without a seed column rows number it."""
    columns, path = table.columns, table.path
    runs: list[RunFacts] = []
    settings: Settings = {}
    costs: Costs = {}
    notes: list[str] = []
    for number, row in enumerate(table.rows):
        own = {bare(name): row[name] for name in columns.factors or () if row[name] is not None}
        arm = _arm_name(row, own, table)
        if settings.setdefault(arm, own) != own:
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
            merged.append(_run_facts(arm, seed, f"{arm}/seed-{seed}", "done", None, mean, metric))
    return merged


def _arm_name(row: Mapping[str, Any], own: Mapping[str, Any], table: _Table) -> str:
    """Its name in the table, or its settings that vary."""
    column = table.columns.arm
    if column is not None:
        if row[column] is None:
            raise DataError(f"{table.path}: a row has no name in column {column!r}")
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
        held = f"{path}: column {columns.seed!r} holds {shorten(repr(value))}"
        raise DataError(f"{held}; seeds are whole numbers")
    return value


def _run(row: Mapping[str, Any], arm: str, seed: int, table: _Table) -> RunFacts:
    columns, path = table.columns, table.path
    value = row[columns.metric]
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() not in GAPS):
        held = f"{path}: column {columns.metric!r} holds {shorten(repr(value))}"
        raise DataError(f"{held}, which is not a number")
    number = None if value is None or isinstance(value, str) else float(value)
    state, cause = _outcome(row, columns, number, value)
    name = f"{arm}/seed-{seed}"
    if columns.replicate is not None:
        name = f"{arm}/{setting(row[columns.replicate])}"
        name += "" if columns.seed is None else f"/seed-{seed}"
    result = number if state == "done" else None
    return _run_facts(arm, seed, name, state, cause, result, table.metric)


def _run_facts(
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


def _check_twice(runs: Sequence[RunFacts], columns: Columns, path: Path) -> None:
    seen: set[str] = set()
    hint = "" if columns.context else ", those that are blocks (model, task) under `context`"
    for run in runs:
        if run.id in seen:
            raise DataError(
                f"{path}: two rows are {shorten(run.id, 200)}; name the columns that distinguish "
                f"them under `factors`{hint}, or the one that holds the seed under `seed`, or that "
                "numbers reruns under `replicate`"
            )
        seen.add(run.id)


def _row_costs(row: Mapping[str, Any], columns: Columns) -> dict[str, float]:
    found = {name: row[column] for name, column in columns.costs.items()}
    return {
        name: float(value) * unit_of_cost(columns.costs[name])
        for name, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


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
        open=tuple(run.id for run in runs if run.state in OPEN.values()),
        mean=statistics.fmean(values) if values else None,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        best=(min(values) if low else max(values)) if values else None,
        validation={},
        test={},
        test_spread={},
    )


def _test_size(table: _Table) -> int | None:
    column = table.columns.test_size
    if not isinstance(column, str):
        return column
    sizes = {row[column] for row in table.rows}
    if len(sizes) != 1 or not isinstance(next(iter(sizes)), int):
        held = columns_words(sorted(map(str, sizes)))
        raise DataError(
            f"{table.path}: column {column!r} holds {held}; rows can only be compared with one "
            "test size for all of them (in each block)"
        )
    return int(next(iter(sizes)))


def _digest(path: Path) -> str:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
