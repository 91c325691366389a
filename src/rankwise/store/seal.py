"""The backup of a study's database, and the checksums by which damage is found.

`study.sha256` has one line for each file, as `sha256sum -c` reads it. That of `study.db` is there
only while nothing is written: it goes before the first write and comes back at the end. So do those
of the report, which is made from the database alone and need not be made again while they hold.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from rankwise.files import stays_inside, sum_of, to_disk, write_whole
from rankwise.store.schema import ADAPTERS, FILE

BACKUP = f"{FILE}.bak"
SUMS = "study.sha256"


def sums(folder: Path) -> dict[str, str]:
    """The recorded sha256 of `study.db` and of its backup, those that are recorded."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _write_sums(folder: Path, found: Mapping[str, str]) -> None:
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(found.items()))
    write_whole(folder / SUMS, text)


def unseal(folder: Path) -> None:
    """Take back the checksums of `study.db`, which will change, and of what was made of it."""
    found = sums(folder)
    if FILE in found:
        _write_sums(folder, {name: one for name, one in found.items() if name == BACKUP})


def back_up(db: sqlite3.Connection, folder: Path) -> None:
    """Make `study.db.bak` a copy of the database as it is now, in place of the one before.

    SQLite reads every row for that, so that damage of the file raises sqlite3.DatabaseError and
    the backup before it stays.
    """
    aside = folder / f"{BACKUP}.new"
    aside.unlink(missing_ok=True)
    try:
        db.execute("VACUUM INTO ?", (str(aside),))
        to_disk(aside)
        digest = sum_of(aside).sha256
        others = {name: one for name, one in sums(folder).items() if name != BACKUP}
        _write_sums(folder, others)
        aside.replace(folder / BACKUP)
        to_disk(folder)
        _write_sums(folder, {**others, BACKUP: digest})
    finally:
        aside.unlink(missing_ok=True)


def seal(db: sqlite3.Connection, folder: Path) -> None:
    """Put all of the database into `study.db` itself and note its checksum.

    Left out while others read it, since their view may still need the write-ahead log.
    """
    busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if not busy:
        _write_sums(folder, {**sums(folder), FILE: sum_of(folder / FILE).sha256})


def seal_made(folder: Path, paths: Iterable[Path]) -> None:
    """Note the checksums of files that were made of the database as it is."""
    if is_sealed(folder):
        made = {path.relative_to(folder).as_posix(): sum_of(path).sha256 for path in paths}
        _write_sums(folder, {**sums(folder), **made})


def made_is_whole(folder: Path) -> bool:
    """Whether such files are noted, and are as they were made of the database as it is."""
    made = {name: one for name, one in sums(folder).items() if name not in (FILE, BACKUP)}
    return (
        bool(made)
        and is_sealed(folder)
        and all(
            stays_inside(name) and (folder / name).is_file() and sum_of(folder / name).sha256 == one
            for name, one in made.items()
        )
    )


def wal_of(path: Path) -> Path:
    """SQLite's write-ahead log of a database."""
    return path.with_name(f"{path.name}-wal")


def is_sealed(folder: Path) -> bool:
    """Whether `study.db` has a checksum, and nothing was written since."""
    wal = wal_of(folder / FILE)
    return FILE in sums(folder) and not (wal.is_file() and wal.stat().st_size)


def not_as_sealed(folder: Path) -> str | None:
    """What is wrong with `study.db` by name, size and checksum; None where that shows nothing.

    A database that is being written, or was not closed properly, has no checksum.
    """
    path, backup = folder / FILE, folder / BACKUP
    if not path.is_file():
        return "it is missing, and its backup is there" if backup.is_file() else None
    if path.stat().st_size == 0 and (backup.is_file() or (folder / ADAPTERS).is_dir()):
        return "it is empty"
    recorded = sums(folder).get(FILE) if is_sealed(folder) else None
    if recorded is None or sum_of(path).sha256 == recorded:
        return None
    if sums(folder).get(FILE) != recorded:  # a process has begun to write it meanwhile
        return None
    return "its checksum is not that of what was written"
