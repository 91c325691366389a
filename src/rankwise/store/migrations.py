"""From the databases of older versions to the newest form, one numbered step after the other.

Each runs in one transaction, so a crash leaves the old form or the new one. None is edited once
it is released; another form is another migration.
"""

import json
import math
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

from rankwise.spec.tasks import lower_is_better
from rankwise.store.schema import (
    ADAPTER_TABLES,
    ORIGIN_TABLES,
    PROGRESS_TABLES,
    RELOAD_TABLES,
    TABLES,
    to_number,
)

FIRST_TABLES = """
    CREATE TABLE study (
        one INTEGER PRIMARY KEY CHECK (one = 1), spec_yaml TEXT NOT NULL, spec TEXT NOT NULL,
        versions TEXT NOT NULL, device TEXT NOT NULL, model TEXT NOT NULL, data TEXT NOT NULL);
    CREATE TABLE arm (
        id TEXT PRIMARY KEY, training_id TEXT NOT NULL, name TEXT NOT NULL UNIQUE,
        settings TEXT NOT NULL, costs TEXT NOT NULL);
    CREATE TABLE run (
        id TEXT PRIMARY KEY, arm_id TEXT NOT NULL REFERENCES arm, seed INTEGER NOT NULL,
        state TEXT NOT NULL, cause TEXT, evidence TEXT, UNIQUE (arm_id, seed));
    CREATE TABLE metric (
        run_id TEXT NOT NULL REFERENCES run, step INTEGER NOT NULL, name TEXT NOT NULL,
        value REAL, PRIMARY KEY (run_id, step, name)) WITHOUT ROWID;
    CREATE TABLE examples (
        split TEXT PRIMARY KEY, hashes TEXT NOT NULL, groups BLOB NOT NULL, weights BLOB NOT NULL);
    CREATE TABLE evaluation (
        run_id TEXT NOT NULL REFERENCES run, split TEXT NOT NULL, step INTEGER NOT NULL,
        metrics TEXT NOT NULL, losses BLOB NOT NULL, correct BLOB,
        PRIMARY KEY (run_id, split, step));
    CREATE TABLE probe (arm_id TEXT PRIMARY KEY REFERENCES arm, probe TEXT NOT NULL);
    CREATE TABLE answers (
        run_id TEXT NOT NULL, arm_id TEXT NOT NULL, answers TEXT NOT NULL,
        PRIMARY KEY (run_id, arm_id));
    CREATE TABLE note (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, text TEXT NOT NULL, UNIQUE (kind, text));
"""
OLD = ("study", "arm", "run", "metric", "examples", "evaluation", "probe", "answers", "note")
DERIVED_NOTES = ("sharing", "quantization")  # now read off the tables of trainings and of merging


def run_script(db: sqlite3.Connection, script: str) -> None:
    """Run statements inside the transaction under way (`executescript` would commit it)."""
    for statement in script.split(";"):
        db.execute(statement)


def _first(db: sqlite3.Connection) -> None:
    run_script(db, FIRST_TABLES)


def _ranks(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE arm ADD COLUMN ranks TEXT NOT NULL DEFAULT '{}'")


def _adapter(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE arm ADD COLUMN adapter TEXT NOT NULL DEFAULT '{}'")


def _typed(db: sqlite3.Connection) -> None:
    """Integer ids, one run for each training and seed, columns for what was JSON and English."""
    db.execute("PRAGMA legacy_alter_table=ON")  # or renaming would rewrite the old references
    for name in OLD:
        db.execute(f"ALTER TABLE {name} RENAME TO old_{name}")
    run_script(db, TABLES)
    _copy_study(db)
    configs, trainings = _copy_arms(db)
    runs = _copy_runs(db, trainings)
    _copy_measurements(db, runs)
    _copy_best_steps(db, runs)
    _copy_probes(db, runs, trainings)
    _copy_answers(db, runs, configs)
    db.execute(
        "INSERT INTO examples (split, hashes, groups, weights) "
        "SELECT split, hashes, groups, weights FROM old_examples"
    )
    for name in OLD:
        db.execute(f"DROP TABLE old_{name}")
    db.execute("PRAGMA legacy_alter_table=OFF")


def _copy_study(db: sqlite3.Connection) -> None:
    notes = [
        (kind, text)
        for kind, text in db.execute("SELECT kind, text FROM old_note ORDER BY id")
        if kind not in DERIVED_NOTES
    ]
    query = "SELECT spec_yaml, spec, versions, device, model, data FROM old_study"
    for spec_yaml, spec, *parts in db.execute(query).fetchall():
        versions, device, model, data = map(json.loads, parts)
        labels = data.get("label_names")
        row = (
            *_renamed(spec_yaml, json.loads(spec)),
            str(device.get("device", device.get("name", ""))),
            int(device.get("threads", 0)),
            str(model.get("name", "")),
            str(model.get("sha256", "")),
            str(model.get("dtype", "")),
            str(model.get("attention", "")),
            int(model.get("total_params", 0)),
            str(data.get("fingerprint", "")),
            None if labels is None else _text(labels),
        )
        db.execute(f"INSERT INTO study VALUES (1, {_marks(row)})", row)
        for package, version in versions.items():
            db.execute("INSERT INTO version VALUES (?, ?)", (package, str(version)))
        for name, value in model.items():
            if name.startswith("base_eval_"):
                values = (name.removeprefix("base_"), to_number(value))
                db.execute("INSERT INTO base_metric VALUES (?, ?)", values)
        notes += [("data", note) for note in data.get("notes", ()) if ("data", note) not in notes]
    for about, text in notes:
        fact = ("text", _text({"about": about, "text": text}, sort=True))
        db.execute("INSERT OR IGNORE INTO fact (kind, data) VALUES (?, ?)", fact)


def _renamed(spec_yaml: str, spec: dict[str, Any]) -> tuple[str, str]:
    """The spec with the list of configurations under its present key, and no idle `synonym`."""
    spec["configs"] = spec.pop("arms", [])
    augment = spec.get("data", {}).get("augment", {})
    if "operations" in augment:
        augment["operations"] = [name for name in augment["operations"] if name != "synonym"]
    return re.sub(r"^arms:", "configs:", spec_yaml, flags=re.MULTILINE), _text(spec)


def _copy_arms(db: sqlite3.Connection) -> tuple[dict[str, int], dict[str, int]]:
    """Trainings and configurations; the ids of both by the old id of the arm."""
    configs: dict[str, int] = {}
    trainings: dict[str, int] = {}
    by_key: dict[str, int] = {}
    query = (
        "SELECT id, training_id, name, settings, costs, ranks, adapter FROM old_arm ORDER BY rowid"
    )
    for arm, key, name, settings, costs_json, ranks, adapter in db.execute(query).fetchall():
        if key not in by_key:
            costs = json.loads(costs_json)
            names = ("trainable_params", "total_params", "storage_bytes", "memory_bytes")
            row = (key, adapter, *(None if n not in costs else int(costs[n]) for n in names))
            by_key[key] = _insert(
                db, "training (key, adapter, " + ", ".join(names) + f") VALUES ({_marks(row)})", row
            )
            for place, (module, rank) in enumerate(json.loads(ranks).items()):
                values = (by_key[key], place, module, rank)
                db.execute("INSERT INTO module_rank VALUES (?, ?, ?, ?, NULL)", values)
        trainings[arm] = by_key[key]
        values = (arm, by_key[key], name, settings)
        into = "config (key, training_id, name, settings) VALUES (?, ?, ?, ?)"
        configs[arm] = _insert(db, into, values)
    return configs, trainings


def _copy_runs(db: sqlite3.Connection, trainings: Mapping[str, int]) -> dict[str, int]:
    """One run for each training and seed; by the old ids of all that were copies of it.

    The first that is finished stands for them, else the first.
    """
    query = (
        "SELECT old_run.id, arm_id, seed, state, cause, evidence FROM old_run "
        "JOIN old_arm ON old_arm.id = arm_id "
        "ORDER BY state NOT IN ('done', 'stopped_early'), old_arm.rowid, seed"
    )
    found: dict[str, int] = {}
    kept: dict[tuple[int, int], int] = {}
    for run, arm, seed, state, cause, evidence in db.execute(query).fetchall():
        place = (trainings[arm], seed)
        if place not in kept:
            row = (*place, state, run, *_failure(state, cause, json.loads(evidence or "{}")))
            into = (
                "run (training_id, seed, state, folder, not_finite, bad_step, bad_learning_rate, "
                f"error, traceback) VALUES ({_marks(row)})"
            )
            kept[place] = _insert(db, into, row)
        found[run] = kept[place]
    return found


def _failure(state: str, cause: str | None, evidence: Mapping[str, Any]) -> tuple[Any, ...]:
    """not_finite, step, learning rate, error, traceback. The sentence of a divergence is left."""
    step, rate = evidence.get("step"), evidence.get("learning_rate")
    if state == "diverged":
        what = "gradient norm" if "gradient norm" in (cause or "") else "loss"
        return what, None if step is None else int(step), to_number(rate), None, None
    error = None if state in ("interrupted", "done", "stopped_early") else cause
    return None, None, None, error, evidence.get("traceback")


def _copy_measurements(db: sqlite3.Connection, runs: Mapping[str, int]) -> None:
    """Steps and evaluations of the old runs whose folder the new ones have taken over."""
    folders = dict(db.execute("SELECT folder, id FROM run"))
    for run, number in folders.items():
        db.execute(
            "INSERT INTO step SELECT ?, step, max(CASE name WHEN 'loss' THEN value END), "
            "max(CASE name WHEN 'grad_norm' THEN value END), "
            "max(CASE name WHEN 'learning_rate' THEN value END) "
            "FROM old_metric WHERE run_id = ? GROUP BY step",
            (number, run),
        )
        db.execute(
            "INSERT INTO evaluation SELECT ?, split, step, losses, correct "
            "FROM old_evaluation WHERE run_id = ?",
            (number, run),
        )
        query = "SELECT split, step, metrics FROM old_evaluation WHERE run_id = ?"
        for split, step, metrics in db.execute(query, (run,)).fetchall():
            for place, (name, value) in enumerate(json.loads(metrics).items()):
                values = (number, split, step, place, name, to_number(value))
                db.execute("INSERT INTO metric VALUES (?, ?, ?, ?, ?, ?)", values)


def _copy_best_steps(db: sqlite3.Connection, runs: Mapping[str, int]) -> None:
    """The first best validation by the study's objective, as the version before read it."""
    name, sign = _objective(db)
    for run in sorted(set(runs.values())):
        scored = [
            (sign * value, step)
            for step, value in db.execute(
                "SELECT step, value FROM metric "
                "WHERE run_id = ? AND split = 'validation' AND name = ? AND value IS NOT NULL",
                (run, name),
            )
            if math.isfinite(value)
        ]
        if scored:
            db.execute("UPDATE run SET best_step = ? WHERE id = ?", (min(scored)[1], run))


def _objective(db: sqlite3.Connection) -> tuple[str, int]:
    row = db.execute("SELECT spec FROM study").fetchone()
    spec = {} if row is None else json.loads(row[0])
    name = str(spec.get("objective", {}).get("metric", "eval_loss"))
    return name, 1 if lower_is_better(name) else -1


def _copy_probes(
    db: sqlite3.Connection, runs: Mapping[str, int], trainings: Mapping[str, int]
) -> None:
    noted = [
        text.partition(": ")[0]
        for (text,) in db.execute("SELECT text FROM old_note WHERE kind = 'quantization'")
    ]
    query = "SELECT arm_id, probe FROM old_probe JOIN old_arm ON id = arm_id ORDER BY old_arm.rowid"
    for arm, probe_json in db.execute(query).fetchall():
        probe = json.loads(probe_json)
        if {"step_seconds", "memory_bytes"} & set(probe):
            memory = probe.get("memory_bytes")
            seconds = (to_number(probe.get(name)) for name in ("step_seconds", "eval_seconds"))
            path = str(probe.get("path", "measured"))
            row = (trainings[arm], *seconds, None if memory is None else int(memory), path)
            db.execute("INSERT OR IGNORE INTO cost VALUES (?, ?, ?, ?, ?)", row)
        if "merged_eval_loss" in probe:
            of_arm = db.execute("SELECT id FROM old_run WHERE arm_id = ? ORDER BY seed", (arm,))
            names = [name for (name,) in of_arm]
            # Which run was merged stood in the note alone.
            merged = next((name for name in noted if name in names), (names or [""])[0])
            if merged in runs:
                values = (runs[merged], to_number(probe["merged_eval_loss"]))
                db.execute("INSERT OR IGNORE INTO merged VALUES (?, ?)", values)


def _copy_answers(
    db: sqlite3.Connection, runs: Mapping[str, int], configs: Mapping[str, int]
) -> None:
    query = "SELECT run_id, arm_id, answers FROM old_answers ORDER BY rowid"
    for run, arm, answers in db.execute(query).fetchall():
        config = configs.get(arm, next(iter(configs.values()), None))
        if config is None or (run != "base" and run not in runs):
            continue
        for one in json.loads(answers):
            measures = {k: v for k, v in one.items() if isinstance(v, int | float)}
            measures |= one.get("measures") or {}
            reference = one.get("reference")
            row = (
                config,
                runs.get(run),
                str(one.get("prompt", "")),
                None if reference is None else str(reference),
                str(one.get("answer", "")),
                _text(list(one.get("ids") or ())),
                _text(measures),
            )
            into = "(config_id, run_id, prompt, reference, text, ids, measures)"
            db.execute(f"INSERT INTO answer {into} VALUES ({_marks(row)})", row)


def _insert(db: sqlite3.Connection, into: str, values: tuple[Any, ...]) -> int:
    found = db.execute(f"INSERT INTO {into}", values).lastrowid
    assert found is not None
    return found


def _marks(row: tuple[Any, ...]) -> str:
    return ", ".join("?" * len(row))


def _text(value: Any, sort: bool = False) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=sort)


def _reload(db: sqlite3.Connection) -> None:
    run_script(db, RELOAD_TABLES)


def _progress(db: sqlite3.Connection) -> None:
    run_script(db, PROGRESS_TABLES)


def _adapter_files(db: sqlite3.Connection) -> None:
    run_script(db, ADAPTER_TABLES)


def _origin(db: sqlite3.Connection) -> None:
    run_script(db, ORIGIN_TABLES)


MIGRATIONS = (_first, _ranks, _adapter, _typed, _reload, _progress, _adapter_files, _origin)
"""Number n brings a database of version n-1 to version n."""
