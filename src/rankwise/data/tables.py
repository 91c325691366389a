"""Data files: finding them, and turning each format (csv, jsonl, parquet, ...) into rows.

A row is a plain dict, column name to value. Every reader raises `DataError` with the file, the
line where there is one, and what was found there.
"""

import bz2
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rankwise.errors import DataError
from rankwise.files import PKG, at_home, decode, exists, find_pkg_path, read_csv, what_is_there
from rankwise.text import names, shorten

Row = dict[str, Any]

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}
HALF_PAIR = re.compile("[\ud800-\udfff]")
GAPS = ("nan", "NaT", "<NA>")


def missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, or pandas' marks for a gap."""
    held = isinstance(value, str | bytes | list | dict)
    return value is None or (not held and str(value) in GAPS)


def broken_character(value: Any) -> str | None:
    """What is wrong with the characters of a value; None where they are all right.

    Half of a surrogate pair is no character: no tokenizer and no file takes it. Log writers leave
    it where they cut a text by UTF-16 units.
    """
    if isinstance(value, str):
        found = HALF_PAIR.search(value)
        return f"half of a surrogate pair (\\u{ord(found[0]):04x})" if found else None
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        parts = (*value.keys(), *value.values())
    elif isinstance(value, list | tuple):
        parts = value
    return next((broken for part in parts if (broken := broken_character(part))), None)


def check_characters(source: str, unit: str, rows: Sequence[tuple[int, Row]]) -> None:
    """Refuse rows with a text that holds half of a character.

    Args:
        source: Names the file or function.
        unit: What the numbers count: lines or rows.
        rows: Each with its number.

    Raises:
        DataError: With the first such row and how many there are.
    """
    bad = [(number, row) for number, row in rows if broken_character(row)]
    if not bad:
        return
    number, row = bad[0]
    column = next(name for name, value in row.items() if broken_character([name, value]))
    more = "" if len(bad) == 1 else f" ({unit}s {names([str(at) for at, _ in bad])})"
    raise DataError(
        f"{source}, {unit} {number}: column {column.encode('ascii', 'replace').decode()} holds "
        f"{broken_character([column, row[column]])}, which is no character; {len(bad)} of "
        f"{len(rows)} rows are so{more}: write whole characters, or remove it"
    )


def without_gaps(value: Any) -> Any:
    """Nested objects without the fields that are None.

    Arrow (parquet, hub data sets) gives every object of a column the fields of all of them, so
    that a None inside an object says that it has no such field.
    """
    if isinstance(value, dict):
        return {name: without_gaps(part) for name, part in value.items() if part is not None}
    return [without_gaps(part) for part in value] if isinstance(value, list) else value


def find_path(name: str, base_dir: Path) -> Path:
    """The existing path that `name` stands for.

    Args:
        name: `pkg://PACKAGE/path` for a file inside an installed package, which is not imported;
            or a path, taken relative to `base_dir`.
        base_dir: the folder of the spec.

    Raises:
        DataError: there is no such package or path; the nearest existing names are listed.
    """
    if name.startswith(PKG):
        return find_pkg_path(name, DataError)
    path = base_dir / at_home(name)
    if not exists(path):
        raise DataError(f"{shorten(name)}: no such file; {what_is_there(path)}")
    return path


def format_of(path: Path) -> tuple[str, str]:
    """The format suffix and the compression suffix ('' for none), both in lower case."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return (suffixes[-1] if suffixes else ""), compression


def read_file(path: Path, text_column: str | None = None) -> list[Row]:
    """The rows of one file, by its suffix (csv, tsv, jsonl, json, parquet, txt; .gz .bz2 .xz).

    A txt file is one row: its whole content, in the column that `data.text` names.

    Raises:
        DataError: the suffix is unknown, or the content is not what the suffix says.
    """
    suffix, compression = format_of(path)
    if path.is_dir():
        files = ", ".join(sorted(entry.name for entry in path.iterdir())[:8])
        raise DataError(f"{path} is a folder; name one file in it: {files or '(it is empty)'}")
    if suffix not in READERS and suffix not in TEXTS:
        raise DataError(
            f"{path}: cannot read files of the kind {suffix or '(no suffix)'}; rankwise reads "
            f"{', '.join((*READERS, *TEXTS))}, each also with {', '.join(COMPRESSIONS)}"
        )
    content = _read_bytes(path, compression)
    if suffix in TEXTS:
        return [{text_column or "text": decode(path, content)}]
    return READERS[suffix](path, content)


def _read_bytes(path: Path, compression: str) -> bytes:
    try:
        content = path.read_bytes()
        return COMPRESSIONS[compression](content) if compression else content
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _read_tsv(path: Path, content: bytes) -> list[Row]:
    return list(read_csv(path, content, delimiter="\t"))


def _read_csv(path: Path, content: bytes) -> list[Row]:
    return list(read_csv(path, content))


def _read_jsonl(path: Path, content: bytes) -> list[Row]:
    # split on "\n" alone: str.splitlines also breaks at characters that JSON strings may hold.
    rows = []
    for number, line in enumerate(decode(path, content).split("\n"), start=1):
        if not line.strip():
            continue
        row = _parse_json(f"{path}, line {number}", line)
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not an object {{...}}: {shorten(line)}")
        rows.append((number, row))
    check_characters(str(path), "line", rows)
    return [row for _, row in rows]


def _read_json(path: Path, content: bytes) -> list[Row]:
    rows = _parse_json(str(path), decode(path, content))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: must be one list of objects, [{{...}}, {{...}}]")
    check_characters(str(path), "row", list(enumerate(rows, start=1)))
    return rows


def _parse_json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not JSON: {error.msg} at column {error.colno}: {shorten(text)}"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, deep nesting
        raise DataError(f"{where}: cannot be read: {shorten(error)}: {shorten(text)}") from error


def _read_parquet(path: Path, content: bytes) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a parquet file: {shorten(error)}") from error
    columns = {name: _cells(path, name, table[name]) for name in table.column_names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _cells(path: Path, name: str, column: Any) -> list[Any]:
    """The values of a parquet column; bytes that are UTF-8 are text, as some writers store it."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        with suppress(pyarrow.ArrowInvalid):
            column = column.cast(pyarrow.large_string())
    try:
        return [without_gaps(cell) for cell in column.to_pylist()]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, row {_bad_row(column)}: column {name}: "
            f"byte {error.object[error.start]:#04x} is not UTF-8"
        ) from error


def _bad_row(column: Any) -> int | None:
    for number, cell in enumerate(column, start=1):
        try:
            cell.as_py()
        except UnicodeDecodeError:
            return number
    return None


TEXTS = (".txt",)
READERS: dict[str, Callable[[Path, bytes], list[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
