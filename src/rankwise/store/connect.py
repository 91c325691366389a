"""Opening a study's database, to write it in its newest form or only to read it."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rankwise.errors import DamagedError, StoreError
from rankwise.files import disk_full
from rankwise.store.lock import hold
from rankwise.store.migrations import MIGRATIONS
from rankwise.store.seal import unseal, wal_of

NOT_WRITTEN = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
REPAIR = "`rankwise repair DIR` repairs it, and so does `rankwise run`"


def connect(path: Path, held: bool = False) -> sqlite3.Connection:
    """An open database in its newest form, autocommitting outside `transaction`.

    Args:
        path: The database.
        held: Whether this process holds the lock of its folder.

    Raises:
        StoreError: the file is no database, was written by a newer rankwise, or has an old form
            and is in use.
    """
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        _migrate(db, path, held)
        db.execute("PRAGMA foreign_keys=ON")
    except sqlite3.DatabaseError as error:
        db.close()
        raise store_error(path, error) from error
    except UnicodeDecodeError as error:
        db.close()
        raise DamagedError(f"{path}: text in it is damaged; {REPAIR}") from error
    except StoreError:
        db.close()
        raise
    return db


def connect_to_read(path: Path, untouched: bool = False) -> sqlite3.Connection:
    """An open database to read, where it may be written or not.

    Where it may not (or, `untouched`, shall not), SQLite cannot make the files that its
    write-ahead log needs: the file is opened as one that does not change. Where a log lies beside
    it that must be read as well, or the form is an old one, a copy in memory is brought up to date
    and opened.

    Raises:
        StoreError: as for `connect`.
    """
    if untouched and wal_of(path).exists():  # read with it, SQLite would make a file beside it
        return _in_memory(path)
    if not untouched and os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
        return connect(path)
    db = open_read_only(path)
    usable = False
    try:
        with contextlib.suppress(sqlite3.OperationalError):
            usable = _version(db, path) == len(MIGRATIONS)
        return db if usable else _in_memory(path)
    except sqlite3.DatabaseError as error:
        raise store_error(path, error) from error
    finally:
        if not usable:
            db.close()


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing on disk; without a log beside it, nor needs to."""
    mode = "mode=ro" if wal_of(path).exists() else "mode=ro&immutable=1"
    address = f"{path.absolute().as_uri()}?{mode}"
    return sqlite3.connect(address, timeout=30, isolation_level=None, uri=True)


def _in_memory(path: Path) -> sqlite3.Connection:
    """A copy of a database with its log, in its newest form."""
    with tempfile.TemporaryDirectory() as scratch:
        copied = Path(scratch) / path.name
        for source in (path, wal_of(path)):
            if source.exists():
                shutil.copyfile(source, copied.with_name(source.name))
        with contextlib.closing(connect(copied)) as db:
            found = sqlite3.connect(":memory:", isolation_level=None)
            db.backup(found)
    return found


def store_error(path: Path, error: sqlite3.DatabaseError) -> StoreError:
    """What an error of SQLite means for a study."""
    whole_code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_INTERNAL)
    code = whole_code & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return disk_full(path)
    if whole_code in NOT_WRITTEN:  # SQLite tells no more
        return disk_full(path, "full disk, quota used up, limit on file sizes, or a disk error")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
        return DamagedError(f"{path}: not readable as a study, it is damaged ({error}); {REPAIR}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(f"{path}: another program has it locked ({error}); close that program")
    return StoreError(f"{path}: could not be read or written ({error})")


def _version(db: sqlite3.Connection, path: Path) -> int:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: written by a newer rankwise (records version {version}, this one knows "
            f"{len(MIGRATIONS)}); upgrade rankwise"
        )
    return version


def _migrate(db: sqlite3.Connection, path: Path, held: bool) -> None:
    version = _version(db, path)
    if version == len(MIGRATIONS):
        return
    with contextlib.ExitStack() as locked:
        if version and not held:  # an older rankwise may be writing it
            locked.enter_context(contextlib.closing(hold(path.parent)))
        unseal(path.parent)
        for number in range(version + 1, len(MIGRATIONS) + 1):
            with transaction(db):
                if _version(db, path) < number:  # unless another process was faster
                    MIGRATIONS[number - 1](db)
                    db.execute(f"PRAGMA user_version={number}")


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All that is written inside, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        if db.in_transaction:  # SQLite itself takes it back when the disk is full
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
