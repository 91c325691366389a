"""The right to write a study: a lock of the operating system, and who has it.

The lock ends with its process, however that ends, so that one left by a dead process is no
obstacle. `study.lock` says in JSON who holds it.
"""

import errno
import json
import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

from rankwise.errors import InUseError, StoreError, WrongFolderError
from rankwise.files import full_disk_told

if sys.platform != "win32":
    import fcntl

LOCK = "study.lock"
TRIES, PAUSE = 5, 0.05  # `held_by` has the lock for a moment, too
TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@dataclass(frozen=True)
class Holder:
    """The process that writes a study; None where `study.lock` does not say it.

    Attributes:
        pid: Its number.
        host: Name of its machine.
        since: When it took the lock, local time, ISO 8601.
    """

    pid: int | None = None
    host: str | None = None
    since: str | None = None

    def words(self) -> str:
        """As the user reads it."""
        if self.pid is None:
            return f"a process that {LOCK} does not name"
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lock:
    """The right to write a study, until `close` or the end of the process."""

    def __init__(self, folder: Path, file: TextIO, made: tuple[Path, ...]) -> None:
        self.folder = folder
        self._file = file
        self._made = made  # folders that were not there before, the innermost first

    def close(self) -> None:
        """Gives the lock back; a folder that was made for it and holds nothing else goes, too."""
        with suppress(OSError, ValueError):
            self._file.truncate(0)
        if self._made and {path.name for path in self.folder.iterdir()} == {LOCK}:
            with suppress(OSError):
                (self.folder / LOCK).unlink()
                for folder in self._made:
                    folder.rmdir()
        self._file.close()


def hold(folder: Path) -> Lock:
    """Take the right to write a study; the folder is made where there is none.

    Raises:
        InUseError: another process has it; says which.
        WrongFolderError: the folder cannot be made or written.
        StoreError: the file system knows no locks.
    """
    made = tuple(path for path in (folder, *folder.parents) if not path.exists())
    try:
        with full_disk_told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "no permission to write")
            lock = Lock(folder, _locked(folder), made)
            _sign(lock._file)
    except OSError as error:
        raise _not_written(folder, error) from error
    return lock


def refuse_unheld(folder: Path) -> None:
    """Raise what `hold` would raise now, as far as that shows without writing.

    Raises:
        InUseError, WrongFolderError: as `hold`.
    """
    holder = held_by(folder)
    if holder is not None:
        raise _in_use(folder, holder)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise _not_written(folder, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(there, os.W_OK | os.X_OK):
        raise _not_written(folder, PermissionError(errno.EACCES, "no permission to write"))


def _not_written(folder: Path, error: OSError) -> WrongFolderError:
    why = error.strerror or str(error)
    return WrongFolderError(f"{folder}: cannot be written ({why}); use another --out")


def _locked(folder: Path) -> TextIO:
    """`study.lock`, open and locked."""
    path, holder = folder / LOCK, Holder()
    if path.is_symlink():  # a foreign folder's; what it leads to would be emptied
        path.unlink()
    for _ in range(TRIES):
        file = path.open("a+", encoding="utf-8")
        if _try(file, exclusive=True):
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
            file.close()  # removed by the process that had it, between opening and locking
        else:
            holder = _read(file)
            file.close()
            time.sleep(PAUSE)
    raise _in_use(folder, holder)


def _in_use(folder: Path, holder: Holder) -> InUseError:
    return InUseError(
        f"{folder}: another process is running this study ({holder.words()}); wait for it, "
        "stop it, or use another --out"
    )


def _try(file: TextIO, exclusive: bool) -> bool:
    """Whether the lock was to be had at once."""
    if sys.platform == "win32":  # no advisory lock; SQLite's own still keeps the file whole
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        file.close()
        raise StoreError(
            f"{file.name}: this file system knows no locks ({error.strerror}); put the study on a "
            "local disk"
        ) from error
    return True


def _sign(file: TextIO) -> None:
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    file.truncate(0)
    json.dump(asdict(Holder(os.getpid(), socket.gethostname(), now)), file)
    file.flush()


def _read(file: TextIO) -> Holder:
    try:
        file.seek(0)
        return Holder(**json.loads(file.read()))
    except (OSError, ValueError, TypeError):
        return Holder()


def held_by(folder: Path) -> Holder | None:
    """The process that writes a study now; None where none does."""
    try:
        file = (folder / LOCK).open(encoding="utf-8")
    except OSError:
        return None
    with file:
        return None if _try(file, exclusive=False) else _read(file)
