"""Where rows come from: a file, a file inside a package, a Python function, or the hub.

Nothing here needs a tokenizer, torch or transformers; `datasets` is imported only for a hub id.
"""

import hashlib
import importlib.util
import json
import re
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rankwise.data.labels import Classes
from rankwise.data.tables import (
    READERS,
    TEXTS,
    Row,
    check_characters,
    find_path,
    format_of,
    read_file,
    without_gaps,
)
from rankwise.errors import DataError
from rankwise.files import PKG, exists
from rankwise.spec.models import DataSpec
from rankwise.text import closest, shorten

FUNCTION = re.compile(r"(?P<file>.+\.py):(?P<name>\w+)")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
WHOLE = "all"


@dataclass(frozen=True)
class Rows:
    """The rows of a source, before any are left out.

    Attributes:
        source: the source as the spec names it, for messages.
        parts: rows by the name of their hub split; a file or function is one part, `all`.
        sha256: hash of the rows as JSON; equal for a file and its compressed copy.
        one_text: True for a txt file, whose single row is cut into regions instead of drawn.
        notes: facts for the report.
        classes: those of the label column, once the rows were looked at (`usable_rows`).
    """

    source: str
    parts: dict[str, list[Row]]
    sha256: str
    one_text: bool = False
    notes: tuple[str, ...] = ()
    classes: Classes | None = None


def read_rows(data: DataSpec, base_dir: Path) -> Rows:
    """The rows of `data.source`, with relative paths taken from `base_dir` (the spec's folder).

    Raises:
        DataError: the source is missing, cannot be read, or has no rows.
    """
    source = data.source
    function = FUNCTION.fullmatch(source)
    if data.subset is not None and (function or _is_file(source, base_dir)):
        raise DataError(
            f"data.subset: only hub data sets have subsets, and {source} is not one; "
            f"remove {data.subset}"
        )
    one_text = False
    if function:
        path = _find(function["file"], base_dir)
        parts = {WHOLE: _call(load_function(path, function["name"]), source)}
    elif _is_file(source, base_dir):
        path = _find(source, base_dir)
        parts = {WHOLE: read_file(path, data.text)}
        one_text = format_of(path)[0] in TEXTS
    elif HUB_ID.fullmatch(source):
        parts = _load_hub(source, data.subset)
    else:
        raise DataError(
            f"data.source: {source} is neither an existing file, nor pkg://PACKAGE/path, "
            "nor FILE.py:function, nor a hub id such as owner/name"
        )
    if not any(parts.values()):
        raise DataError(f"data.source: {source} has no rows")
    return Rows(source, parts, _hash(parts), one_text)


def _find(name: str, base_dir: Path) -> Path:
    try:
        return find_path(name, base_dir)
    except DataError as error:
        raise DataError(f"data.source: {error}") from error


def _is_file(source: str, base_dir: Path) -> bool:
    looks_like_one = source.startswith((PKG, ".", "/", "~"))
    known = format_of(Path(source))[0] in (*READERS, *TEXTS)
    return looks_like_one or known or exists(base_dir / source)


def _hash(parts: dict[str, list[Row]]) -> str:
    digest = hashlib.sha256()
    for name, rows in sorted(parts.items()):
        digest.update(json.dumps([name, rows], sort_keys=True, default=str).encode())
    return digest.hexdigest()


def load_function(path: Path, name: str) -> Callable[..., Any]:
    """The function `name` of the Python file `path`, which is run to define it.

    Raises:
        DataError: the file cannot be run, or has no such function.
    """
    spec = importlib.util.spec_from_file_location(f"rankwise_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"{path}: {user_error(error)}") from error
    return function_of(module, name, str(path))


def function_of(module: ModuleType, name: str, where: str) -> Callable[..., Any]:
    """The function `name` of a loaded module; DataError with the nearest names if it is missing."""
    function = getattr(module, name, None)
    if callable(function):
        return function  # type: ignore[no-any-return]
    names = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
    hint = ", ".join(closest(name, names, most=3) or names) or "none"
    raise DataError(f"{where}: no function {name}; functions there: {hint}")


def user_error(error: Exception) -> str:
    """The user's own exception on one line, with the line of code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: " if frames else ""
    return f"{where}{type(error).__name__}: {shorten(error, 200)}"


def _call(function: Callable[..., Any], source: str) -> list[Row]:
    try:
        result = function()
        rows = list(result) if isinstance(result, Iterable) else result
    except Exception as error:
        raise DataError(f"data.source: {source} failed: {user_error(error)}") from error
    if not isinstance(rows, list):
        raise DataError(f"data.source: {source} returned {type(rows).__name__}, not rows (dicts)")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not all(isinstance(column, str) for column in row):
            raise DataError(
                f"data.source: {source} returned a {type(row).__name__} as row {number}, "
                f"not a dict with names of columns: {shorten(row)}"
            )
    check_characters(f"data.source: {source}", "row", list(enumerate(rows, start=1)))
    return rows


def _load_hub(source: str, subset: str | None) -> dict[str, list[Row]]:
    import datasets

    _check_reachable(source, Path(datasets.config.HF_DATASETS_CACHE))
    try:
        loaded = datasets.load_dataset(source, subset)
    except (OSError, ValueError, ImportError, RuntimeError, datasets.exceptions.DatasetsError) as e:
        raise DataError(f"data.source: hub data set {source}: {shorten(e, 300)}") from e
    return {str(name): rows_of(part) for name, part in loaded.items()}


def _check_reachable(source: str, cache: Path) -> None:
    """Ask the hub once, briefly: `load_dataset` alone retries for half a minute when offline."""
    import huggingface_hub

    try:
        huggingface_hub.HfApi().dataset_info(source, timeout=5)
    except huggingface_hub.errors.RepositoryNotFoundError as error:
        raise DataError(
            f"data.source: there is no hub data set {source} (or it is private: `hf auth login`), "
            "and no file of that name"
        ) from error
    except Exception as error:
        if not exists(cache / source.replace("/", "___")):
            raise DataError(
                f"data.source: no file {shorten(source)}, and the hub could not be asked for a "
                f"data set of that name: {shorten(error, 200)}; nor is it in the cache {cache}"
            ) from error


def rows_of(part: Any) -> list[Row]:
    """The rows of one `datasets.Dataset`, with class numbers turned into their names.

    Objects inside a row come without the fields that are None (see `without_gaps`).
    """
    rows = [{name: without_gaps(value) for name, value in row.items()} for row in part.to_list()]
    for column, feature in part.features.items():
        names = getattr(feature, "names", None)
        if names is None:
            continue
        for row in rows:
            number = row[column]
            # -1 is how the hub marks a row whose label is withheld
            row[column] = names[number] if number is not None and number >= 0 else None
    return rows
