"""Results from elsewhere: a table with a row per run, or PEFT's folder of JSON files.

They become the same `Records` as a study and get the same verdicts and the same report. Where
columns are blocks (`context`), each block has records of its own, and the whole has a mean of each
configuration in each block.
"""

import hashlib
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from rankwise.results.role_names import bare
from rankwise.results.roles import direction_words, guess_roles
from rankwise.results.table_runs import OPEN, Table, read_rows, run_facts
from rankwise.results.tables import PEFT_COLUMNS, peft_rows, table_rows
from rankwise.store.schema import Fact
from rankwise.text import columns_words, count, setting, shorten

Rows = Sequence[Mapping[str, Any]]
MOST_ARMS = 2000  # every pair of configurations of a contest has a place in tables of pairs


def read_outside(path: Path, mapping: Mapping[str, Any] | Path | None = None) -> Records:
    """Outside results as Records. Arguments and errors as for `write_outside_report`."""
    given = mapping_file(mapping) if isinstance(mapping, Path) else dict(mapping or {})
    if path.is_dir():
        rows = peft_rows(path)
        given = PEFT_COLUMNS | given
    else:
        rows = table_rows(path)
    columns, roles = guess_roles(rows, given, path)
    done = [row for row in rows if row[columns.metric] is not None] or rows
    naming = tuple(
        bare(name) for name in columns.factors or () if len({repr(row[name]) for row in done}) > 1
    )
    records = _records(Table(rows, columns, path, naming))
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


def _records(table: Table) -> Records:
    """Records of one contest, or of all blocks with an own one for each."""
    blocks = _by_context(table)
    if len(blocks) < 2:
        return _contest(table)
    return _over_blocks(table, [_block(context, rows, table) for context, rows in blocks])


def _by_context(table: Table) -> list[tuple[dict[str, Any], list[Mapping[str, Any]]]]:
    """The rows of each block, in the order of the table, with the values of its context."""
    found: dict[str, tuple[dict[str, Any], list[Mapping[str, Any]]]] = {}
    for row in table.rows:
        context = {name: row[name] for name in table.columns.context}
        found.setdefault(repr(context), (context, []))[1].append(row)
    return list(found.values())


def _block(context: dict[str, Any], rows: Rows, table: Table) -> Block:
    name = ", ".join(f"{key} {setting(value)}" for key, value in context.items())
    return Block(name, context, replace(_contest(replace(table, rows=rows)), title=name))


def _over_blocks(table: Table, blocks: Sequence[Block]) -> Records:
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
    return run_facts(name, place, f"{name}/{block.name}", state, cause, value, block.records.metric)


def _mean_costs(arms: Sequence[ArmFacts]) -> list[dict[str, float]]:
    return [{name: cost.value for name, cost in arm.costs.items()} for arm in arms]


def _contest(table: Table) -> Records:
    """Records of rows that are compared with one another."""
    columns = table.columns
    runs, settings, costs, said = read_rows(table)
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
        tolerance=columns.tolerance,
        extra_ASE={},
    )


UNPAIRED = (
    "no column holds the seed: rows of one configuration count as runs with different seeds, which "
    "cannot be paired across configurations"
)
RERUNS = "reruns with the same number are not paired: the number is not a seed"


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


def _test_size(table: Table) -> int | None:
    column = table.columns.test_size
    if not isinstance(column, str):
        return column
    sizes = {row[column] for row in table.rows}
    if len(sizes) != 1 or not isinstance(next(iter(sizes)), int):
        held = columns_words(sorted(map(str, sizes)))
        raise DataError(
            f"{table.path}: column {shorten(repr(column))} holds {held}; rows can only be "
            "compared with one test size for all of them (in each block)"
        )
    return int(next(iter(sizes)))


def _digest(path: Path) -> str:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
