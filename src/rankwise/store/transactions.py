"""Writing a study's database: its lock, transactions, the buffer of steps, backup and checksums."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rankwise.errors import StoreError
from rankwise.files import full_disk_told
from rankwise.store import seal
from rankwise.store.connect import connect, store_error, transaction
from rankwise.store.lock import Lock, hold
from rankwise.store.reader import Reader
from rankwise.store.schema import (
    FILE,
    to_number,
)
from rankwise.text import redacted

BUFFER_ROWS = 2000
BUFFER_SECONDS = 2.0


class Transactions(Reader):
    """A study's database, opened for writing; the contract is that of `store.writer`.

    Args:
        folder: Of the study.
        create: A folder without a study becomes one.
        lock: The right to write it, where this process has that already and keeps it.

    Raises:
        StoreError: as for `Reader`.
    """

    def __init__(self, folder: Path, create: bool = False, lock: Lock | None = None) -> None:
        self._lock = lock
        self._own_lock: Lock | None = None
        self._buffer: list[tuple[int, int, float | None, float | None, float | None]] = []
        self._flushed = time.monotonic()
        self._unsealed = self._changed = False
        if create:
            self.folder = Path(folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_sealed()
            self._db = self._connect()
            self._run_ids = {}
        else:
            super().__init__(folder)

    def _connect(self) -> sqlite3.Connection:
        return connect(self.folder / FILE, held=self._lock is not None)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, StoreError):  # writing failed, and would again
            self._buffer, self._unsealed = [], False
        super().__exit__(kind, error, trace)

    def close(self) -> None:
        """Writes what is buffered, makes backup and checksums, and lets go of the file.

        A lock of its own is given back.
        """
        try:
            if self._db.in_transaction:  # a signal came between its beginning and its first write
                self._db.execute("ROLLBACK")
            self.flush()
            if self._unsealed and self._lock is not None:
                self.back_up()
                self._sealing(seal.seal)
        finally:
            super().close()
            if self._own_lock is not None:
                self._own_lock.close()
                self._own_lock = self._lock = None

    def back_up(self) -> None:
        """Makes `study.db.bak` a copy of the records as they are now.

        Raises:
            DiskFullError: there is no room for it.
            DamagedError: the records cannot all be read.
        """
        self.flush()
        if self._changed:
            self._sealing(seal.back_up)
            self._changed = False

    def _sealing(self, make: Callable[[sqlite3.Connection, Path], None]) -> None:
        try:
            with full_disk_told(self.folder / FILE):
                make(self._db, self.folder)
        except sqlite3.DatabaseError as error:
            raise store_error(self.folder / FILE, error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, in which everything buffered is written first."""
        try:
            if not self._unsealed:
                seal.unseal(self.folder)
            self._unsealed = self._changed = True
            with transaction(self._db) as db:
                if self._buffer:
                    query = "INSERT OR REPLACE INTO step VALUES (?, ?, ?, ?, ?)"
                    db.executemany(query, self._buffer)
                yield db
        except sqlite3.DatabaseError as error:
            raise store_error(self.folder / FILE, error) from error
        self._buffer = []
        self._flushed = time.monotonic()

    def _insert(self, query: str, values: Sequence[Any]) -> int:
        """Runs an INSERT that ends in `RETURNING id`."""
        with self._writing() as db:
            return int(db.execute(query, values).fetchone()[0])

    def take_lock(self) -> None:
        """Holds the right to write the folder until `close`.

        Raises:
            InUseError: another process has it.
        """
        if self._lock is None:
            self._lock = self._own_lock = hold(self.folder)

    def log(
        self, run_id: int, step: int, loss: float, grad_norm: float, learning_rate: float
    ) -> None:
        """Records what an optimizer step saw; buffered. The same step again replaces it."""
        row = (run_id, step, to_number(loss), to_number(grad_norm), to_number(learning_rate))
        self._buffer.append(row)
        waited = time.monotonic() - self._flushed
        if len(self._buffer) >= BUFFER_ROWS or waited > BUFFER_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the buffered steps."""
        if self._buffer:
            with self._writing():
                pass

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """As in Reader, with what is still buffered."""
        self.flush()
        return super()._rows(query, values)

    def sync(self) -> None:
        """Writes the buffer and waits until all is on disk, so that a loss of power keeps it."""
        self.flush()
        self._rows("PRAGMA wal_checkpoint(FULL)")

    def add_fact(self, kind: str, **data: Any) -> None:
        """Notes a fact for the report, whose module `remarks` words it; the same one only once."""
        row = (kind, redacted(json.dumps(data, sort_keys=True, ensure_ascii=False)))
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO fact (kind, data) VALUES (?, ?)", row)


def as_text(value: Any) -> str:
    """JSON in the order given, so that a spec or settings read as written, but for secrets."""
    return redacted(json.dumps(value, ensure_ascii=False))
