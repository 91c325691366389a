"""Damage of a study's database: finding it, and a new database out of what is left.

Nothing is overwritten: the damaged file stays beside the new one, under another name.
"""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rankwise.errors import DamagedError
from rankwise.files import full_disk_told, sum_of, to_disk
from rankwise.store import seal
from rankwise.store.connect import connect, open_read_only, store_error, transaction
from rankwise.store.migrations import MIGRATIONS
from rankwise.store.schema import ADAPTERS, ENDED, FILE, OF_RUN, from_blob
from rankwise.store.seal import BACKUP, is_sealed, not_as_sealed, sums, wal_of
from rankwise.text import count

OF_STUDY = (  # in the order of their references
    "study", "version", "base_metric", "base_file", "training", "module_rank", "config", "cost",
    "examples", "fact",
)  # fmt: skip
JSON = {"study": 2, "training": 6, "config": 4, "examples": 1, "fact": 2}  # column of a table
NUMBERED = ("fact", "answer")  # tables whose first column only counts
BROKEN = (sqlite3.DatabaseError, UnicodeDecodeError)  # the latter where SQLite quotes damaged text
FIXED = {  # what does not change any more once a run has ended: condition by columns and table
    "* FROM {}.step": "run_id",
    "* FROM {}.metric": "run_id",
    "* FROM {}.evaluation": "run_id",
    "id, training_id, seed, state, best_step, folder FROM {}.run": "id",
}


@dataclass(frozen=True)
class Repair:
    """What a repair did.

    Attributes:
        why: What was wrong with `study.db`.
        kept: Name of the damaged file now; None where the file was missing.
        backup: When the backup was made that was used, local time; None where there was none.
        from_backup: Runs that are not trained again, from the backup.
        salvaged: Such runs from the damaged file.
        lost: Runs that will be trained again.
    """

    why: str
    kept: str | None
    backup: str | None
    from_backup: int
    salvaged: int
    lost: int

    def words(self) -> str:
        """As the user reads it."""
        kept = "" if self.kept is None else f"; kept as {self.kept}"
        if not (self.from_backup or self.salvaged or self.lost):
            return f"{FILE} was damaged ({self.why}){kept}: nothing is left, the study begins anew"
        parts = [f"{count(self.salvaged, 'run')} could still be read in it"]
        if self.backup is None:
            parts.append("there was no backup")
        else:
            parts.insert(0, f"{count(self.from_backup, 'run')} from the backup of {self.backup}")
        again = f"{count(self.lost, 'run')} will be trained again"
        return f"{FILE} was damaged ({self.why}){kept}: {', '.join(parts)}, {again}"


def damage_of(folder: Path) -> str | None:
    """What is wrong with a study's database; None where it is whole, or none is there."""
    why, path = not_as_sealed(folder), folder / FILE
    if why is not None or not path.is_file() or is_sealed(folder):
        return why
    try:
        with closing(open_read_only(path)) as db:
            return _broken(db) or (_unlike_backup(db, folder) if _whole_backup(folder) else None)
    except UnicodeDecodeError:
        return "text in it is damaged"
    except sqlite3.DatabaseError as error:
        if isinstance(store_error(path, error), DamagedError):
            return str(error)
        raise store_error(path, error) from error


def _broken(db: sqlite3.Connection) -> str | None:
    """What SQLite's own check finds, missing tables, and arrays whose checksum differs."""
    found = [str(row[0]) for row in db.execute("PRAGMA quick_check(1)")]
    if found != ["ok"]:
        return found[0].splitlines()[-1]
    (version,) = db.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if (version >= len(MIGRATIONS)) != (tables >= {*OF_STUDY, "run", *OF_RUN}):
        return "its tables are not those of its version"
    if version != len(MIGRATIONS):
        return None
    arrays = db.execute("SELECT losses, correct FROM evaluation")
    return None if all(_sound("evaluation", row) for row in arrays) else "arrays are damaged"


def _unlike_backup(db: sqlite3.Connection, folder: Path) -> str | None:
    """Rows of ended runs that the backup has and the database has otherwise.

    A run that was trained again since has another adapter, or none yet, and is left out.
    """
    address = f"{(folder / BACKUP).absolute().as_uri()}?mode=ro&immutable=1"
    db.execute("ATTACH ? AS backup", (address,))
    if db.execute("PRAGMA backup.user_version").fetchone()[0] != len(MIGRATIONS):
        return None
    marks = ", ".join("?" * len(ENDED))
    ended = f"SELECT id FROM backup.run WHERE state IN ({marks}) ORDER BY id"
    for (run,) in db.execute(ended, ENDED).fetchall():
        files = [
            db.execute(f"SELECT * FROM {one}.adapter_file WHERE run_id = ?", (run,)).fetchall()
            for one in ("main", "backup")
        ]
        if not files[1] or files[0] != files[1]:
            continue
        for rows, which in FIXED.items():
            then, now = (
                f"SELECT {rows.format(one)} WHERE {which} = ?" for one in ("backup", "main")
            )
            if db.execute(f"{then} EXCEPT {now}", (run, run)).fetchone() is not None:
                return f"what it holds of run {run} is not what the backup holds"
    return None


def repair(folder: Path) -> Repair | None:
    """Put a new database in the place of a damaged one; None where nothing is wrong.

    It is the backup, where that is whole, with every finished run beside it that is whole in
    the damaged file. The caller holds the lock of the folder.

    Raises:
        DiskFullError: there is no room for it; nothing was changed.
    """
    why, path = damage_of(folder), folder / FILE
    if why is None:
        return None
    aside = folder / f"{FILE}.new"
    try:
        with full_disk_told(path):
            done, folders = _made(folder, why, aside)
            kept = _keep(folder, folders)
            aside.rename(path)
            to_disk(folder)
            seal.unseal(folder)
            with closing(connect(path, held=True)) as db:
                seal.back_up(db, folder)
                seal.seal(db, folder)
    except sqlite3.DatabaseError as error:
        raise store_error(path, error) from error
    finally:
        for left in (aside, wal_of(aside)):
            left.unlink(missing_ok=True)
    return replace(done, kept=kept)


def _made(folder: Path, why: str, aside: Path) -> tuple[Repair, set[str]]:
    """The new database, in `aside`; the folders of the adapters that it knows."""
    path, backup = folder / FILE, _whole_backup(folder)
    for left in (aside, wal_of(aside)):
        left.unlink(missing_ok=True)
    if backup is not None:
        shutil.copyfile(folder / BACKUP, aside)
    with closing(connect(aside, held=True)) as db:
        before = _ended(db)
        if path.is_file() and not (backup and is_sealed(folder)):  # such a backup has it all
            _salvage(path, db)
        ended = _ended(db)
        (runs,) = db.execute("SELECT count(*) FROM run").fetchone()
        folders = {name for (name,) in db.execute("SELECT folder FROM run")}
        lost = runs - len(ended)
        fact = json.dumps({"again": lost, "kept": len(ended), "why": why})
        _insert(db, "fact", [(None, "repaired", fact)])
        db.execute("UPDATE study SET settled = NULL")
    to_disk(aside)
    return Repair(why, None, backup, len(before), len(ended - before), lost), folders


def _whole_backup(folder: Path) -> str | None:
    """When the backup was made; None where there is none that is whole."""
    path, recorded = folder / BACKUP, sums(folder).get(BACKUP)
    if not path.is_file():
        return None
    if recorded is not None:
        whole = sum_of(path).sha256 == recorded
    else:
        try:
            with closing(open_read_only(path)) as db:
                whole = _broken(db) is None
        except BROKEN:
            whole = False
    made = datetime.fromtimestamp(path.stat().st_mtime)
    return made.isoformat(sep=" ", timespec="seconds") if whole else None


def _ended(db: sqlite3.Connection) -> set[int]:
    """The runs that are not trained again."""
    marks = ", ".join("?" * len(ENDED))
    return {i for (i,) in db.execute(f"SELECT id FROM run WHERE state IN ({marks})", ENDED)}


def _keep(folder: Path, folders: set[str]) -> str | None:
    """Give the damaged file, and adapters of runs that are not known now, other names."""
    path, number = folder / FILE, 1
    while any((folder / f"{name}.damaged-{number}").exists() for name in (FILE, ADAPTERS)):
        number += 1
    unknown = [one for one in folder.glob(f"{ADAPTERS}/run-*") if one.name not in folders]
    for one in unknown:  # their names may be given to other runs
        other = folder / f"{ADAPTERS}.damaged-{number}"
        other.mkdir(exist_ok=True)
        one.rename(other / one.name)
    path.with_name(f"{FILE}-shm").unlink(missing_ok=True)
    if not path.is_file():
        wal_of(path).unlink(missing_ok=True)
        return None
    kept = folder / f"{FILE}.damaged-{number}"
    if wal_of(path).is_file():
        wal_of(path).rename(wal_of(kept))
    path.rename(kept)
    return kept.name


def _salvage(path: Path, new: sqlite3.Connection) -> None:
    """Copy what is whole in a damaged database and not in the new one."""
    with closing(open_read_only(path)) as old:
        try:
            (version,) = old.execute("PRAGMA user_version").fetchone()
        except BROKEN:
            return
        if version != len(MIGRATIONS):
            return
        with transaction(new):
            for table in OF_STUDY:
                found = _readable(old, f"SELECT * FROM {table}")
                _insert(new, table, [row for row in found if _sound(table, row)])
            known = _ended(new)
            for run in _readable(old, "SELECT * FROM run"):
                if run[0] not in known:
                    _copy_run(old, new, run)


def _readable(db: sqlite3.Connection, query: str) -> list[tuple[Any, ...]]:
    """The rows before a damaged place and those behind it."""
    found: list[tuple[Any, ...]] = []
    for order in ("", " ORDER BY rowid DESC"):
        with suppress(*BROKEN):
            for row in db.execute(query + order):
                found.append(row)
    return list(dict.fromkeys(found))


def _sound(table: str, row: tuple[Any, ...]) -> bool:
    """Whether the arrays and the JSON of a row are what they must be."""
    try:
        for value in row:
            if isinstance(value, bytes):
                from_blob(value)
        if table in JSON:
            json.loads(row[JSON[table]])
    except (DamagedError, ValueError, TypeError):
        return False
    return True


def _insert(db: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add rows that fit what is there."""
    for row in rows:
        values = (None, *row[1:]) if table in NUMBERED else row
        with suppress(sqlite3.IntegrityError):
            marks = ", ".join("?" * len(row))
            db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", values)


def _copy_run(old: sqlite3.Connection, new: sqlite3.Connection, run: tuple[Any, ...]) -> None:
    """A run with all its rows, or, where some of them are damaged, as one to be trained again."""
    number, state = run[0], run[3]
    try:
        rows = {
            table: old.execute(f"SELECT * FROM {table} WHERE run_id = ?", (number,)).fetchall()
            for table in OF_RUN
        }
        whole = state in ENDED and _is_whole(run, rows)
    except BROKEN:
        whole = False
    if not whole:
        planned = (*run[:3], "planned", None, run[5], *(None for _ in run[6:]))
        _insert(new, "run", [planned])
        return
    for table in OF_RUN:
        new.execute(f"DELETE FROM {table} WHERE run_id = ?", (number,))
    new.execute("DELETE FROM run WHERE id = ?", (number,))
    _insert(new, "run", [run])
    for table, found in rows.items():
        _insert(new, table, found)


def _is_whole(run: tuple[Any, ...], rows: dict[str, list[tuple[Any, ...]]]) -> bool:
    """Whether a run has every step, arrays as they were written, and its best evaluation."""
    steps = [row[1] for row in rows["step"]]
    best = ("validation", run[4])
    evaluated = {row[1:3] for row in rows["evaluation"]} & {row[1:3] for row in rows["metric"]}
    return (
        steps == list(range(1, len(steps) + 1))
        and (run[4] is None or best in evaluated)
        and all(_sound("evaluation", row) for row in rows["evaluation"])
    )
