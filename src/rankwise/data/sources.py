"""Where rows come from: a file, a file inside a package, a Python function, or the hub.

Nothing here needs a tokenizer, torch or transformers; `datasets` is imported only for a hub id.
"""

import importlib.util
import re
import sys
import traceback
from array import array
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from rankwise.data.labels import Classes
from rankwise.data.tables import (
    READERS,
    TEXTS,
    Row,
    checked,
    find_path,
    format_of,
    rows_in,
    unit_of,
    without_gaps,
)
from rankwise.errors import DataError
from rankwise.files import PKG, exists
from rankwise.reading import Faults, Malformed
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
        one_text: True for a txt file, whose single row is cut into regions instead of drawn.
        notes: facts for the report.
        classes: those of the label column, once the rows were looked at (`usable_rows`).
        columns: the names of all columns there are; None where the rows have all of them.
        numbers: for each part the numbers of its rows in the source; None: from 1.
        unit: what they count, lines or rows.
        faults: rows that could not be read.
    """

    source: str
    parts: dict[str, list[Row]]
    one_text: bool = False
    notes: tuple[str, ...] = ()
    classes: Classes | None = None
    columns: tuple[str, ...] | None = None
    numbers: Mapping[str, Sequence[int]] | None = None
    unit: str = "row"
    faults: Faults = field(default_factory=Faults)


def read_rows(data: DataSpec, base_dir: Path, only: Container[str] | None = None) -> Rows:
    """The rows of `data.source`, with relative paths taken from `base_dir` (the spec's folder).

    Args:
        data: The source, and the columns that matter.
        base_dir: The folder of the spec.
        only: The columns that rows are to keep; all of them where None.

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
    one_text, unit = False, "row"
    sources: dict[str, Iterable[tuple[int, Row | Malformed]]]
    if function:
        path = _find(function["file"], base_dir)
        made = _call(load_function(path, function["name"]), source)
        sources = {WHOLE: enumerate(map(checked, made), start=1)}
    elif _is_file(source, base_dir):
        path = _find(source, base_dir)
        sources = {WHOLE: rows_in(path, data.text)}
        one_text, unit = format_of(path)[0] in TEXTS, unit_of(path)
    elif HUB_ID.fullmatch(source):
        loaded = _load_hub(source, data.subset)
        sources = {name: enumerate(part, start=1) for name, part in loaded.items()}
    else:
        raise DataError(
            f"data.source: {source} is neither an existing file, nor pkg://PACKAGE/path, "
            "nor FILE.py:function, nor a hub id such as owner/name"
        )
    taken = _Taken(data, only)
    for name, numbered in sources.items():
        taken.take(name, numbered, f"{name}, {unit}" if len(sources) > 1 else unit)
    if not any(taken.parts.values()) and not taken.faults.count:
        raise DataError(f"data.source: {source} has no rows")
    return Rows(
        source,
        taken.parts,
        one_text,
        columns=tuple(taken.columns),
        numbers=taken.numbers,
        unit=unit,
        faults=taken.faults,
    )


class _Taken:
    """The rows of a source as they come: counted, and without what is not needed."""

    def __init__(self, data: DataSpec, only: Container[str] | None) -> None:
        self.only = only
        self.repeating = [name for name in (data.label, data.split.by) if name is not None]
        self.parts: dict[str, list[Row]] = {}
        self.numbers: dict[str, array[int]] = {}
        self.columns: dict[str, None] = {}
        self.faults = Faults()

    def take(self, name: str, numbered: Iterable[tuple[int, Row | Malformed]], unit: str) -> None:
        """Take in the rows of one part."""
        rows, numbers = self.parts.setdefault(name, []), self.numbers.setdefault(name, array("q"))
        for number, row in numbered:
            if isinstance(row, Malformed):
                self.faults.add(f"{unit} {number}", row)
                continue
            rows.append(self._slim(row))
            numbers.append(number)

    def _slim(self, row: Row) -> Row:
        """The row with the columns to keep; a value that many rows share is held once."""
        self.columns.update(dict.fromkeys(row))
        if self.only is not None:
            row = {sys.intern(name): row[name] for name in row if name in self.only}
        for name in self.repeating:
            if type(row.get(name)) is str:
                row[name] = sys.intern(row[name])
        return row


def _find(name: str, base_dir: Path) -> Path:
    try:
        return find_path(name, base_dir)
    except DataError as error:
        raise DataError(f"data.source: {error}") from error


def _is_file(source: str, base_dir: Path) -> bool:
    looks_like_one = source.startswith((PKG, ".", "/", "~"))
    known = format_of(Path(source))[0] in (*READERS, *TEXTS)
    return looks_like_one or known or exists(base_dir / source)


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
