"""Opening a study's database in its newest form, and the right to write it."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rankwise.errors import StoreError
from rankwise.store.migrations import MIGRATIONS

try:
    import fcntl
except ImportError:  # Windows: no advisory lock, SQLite's own still keeps the file whole
    fcntl = None  # type: ignore[assignment]

LOCK = "study.lock"


def connect(path: Path) -> sqlite3.Connection:
    """An open database in its newest form, autocommitting outside `transaction`.

    Raises:
        StoreError: the file is no database, was written by a newer rankwise, or has an old form
            and is in use.
    """
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        _migrate(db, path)
        db.execute("PRAGMA foreign_keys=ON")
    except sqlite3.DatabaseError as error:
        db.close()
        raise StoreError(
            f"{path}: not readable as a study ({error}); restore it or use another --out"
        ) from error
    except StoreError:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection, path: Path) -> int:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: written by a newer rankwise (records version {version}, this one knows "
            f"{len(MIGRATIONS)}); upgrade rankwise"
        )
    return version


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    version = _version(db, path)
    if version == len(MIGRATIONS):
        return
    lock = hold(path.parent) if version else None  # an older rankwise may be writing it
    try:
        for number in range(version + 1, len(MIGRATIONS) + 1):
            with transaction(db):
                if _version(db, path) < number:  # unless another process was faster
                    MIGRATIONS[number - 1](db)
                    db.execute(f"PRAGMA user_version={number}")
    finally:
        if lock is not None:
            lock.close()


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All that is written inside, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def hold(folder: Path) -> TextIO:
    """The right to write a study, until the file returned is closed or the process ends.

    Raises:
        StoreError: another process has it.
    """
    lock = (folder / LOCK).open("w")
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StoreError(
            f"{folder}: another process is running this study; wait for it, or use another --out"
        ) from None
    return lock
