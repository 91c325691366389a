"""Data files: finding them, and turning each format (csv, jsonl, parquet, ...) into rows.

A row is a plain dict, column name to value. Readers give rows one by one, each with the number of
its line (of itself, where the format has no lines), and a `Malformed` in place of a row that cannot
be read. They raise `DataError` where nothing of a file can be.
"""

import bz2
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from rankwise.errors import DataError
from rankwise.files import PKG, at_home, exists, find_pkg_path, what_is_there
from rankwise.reading import Malformed, check_encoding, csv_rows, decode, not_utf8
from rankwise.text import columns_words, shorten

Row = dict[str, Any]

Numbered = Iterator[tuple[int, Row | Malformed]]

COMPRESSIONS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
HALF_PAIR = re.compile("[\ud800-\udfff]")
MAX_DEPTH = 100  # of objects in objects; what walks through them must not exhaust the stack
GAPS = ("nan", "NaT", "<NA>")


def missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, or pandas' marks for a gap."""
    held = isinstance(value, str | bytes | list | dict)
    return value is None or (not held and str(value) in GAPS)


def broken_part(value: Any, depth: int = 0) -> str | None:
    """What in a value no tokenizer and no file takes; None where all is right.

    Half of a surrogate pair is no character. Log writers leave it where they cut a text by UTF-16
    units.
    """
    if isinstance(value, str):
        found = HALF_PAIR.search(value)
        half = "half of a surrogate pair"
        return f"{half} (\\u{ord(found[0]):04x}), which is no character" if found else None
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        parts = (*value.keys(), *value.values())
    elif isinstance(value, list | tuple):
        parts = value
    if parts and depth == MAX_DEPTH:
        return f"objects that are nested more than {MAX_DEPTH} deep"
    return next((broken for part in parts if (broken := broken_part(part, depth + 1))), None)


def checked(row: Row) -> Row | Malformed:
    """The row, or what is wrong with its characters."""
    for name, value in row.items():
        broken = broken_part([name, value])
        if broken:
            column = name.encode("ascii", "replace").decode()
            return Malformed(f"column {column} holds {broken}")
    return row


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


def rows_in(path: Path, text_column: str | None = None) -> Numbered:
    """The rows of one file, by its suffix (csv, tsv, jsonl, json, parquet, txt; .gz .bz2 .xz).

    Files of lines are read as a stream. A txt file is one row: its whole content, in the column
    that `data.text` names.

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
    try:
        with COMPRESSIONS[compression](path) if compression else path.open("rb") as stream:
            if suffix in TEXTS:
                yield 1, {text_column or "text": decode(path, stream.read())}
            else:
                yield from READERS[suffix](path, stream)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def unit_of(path: Path) -> str:
    """What the numbers of a file's rows count."""
    return "row" if format_of(path)[0] in (".json", ".parquet") else "line"


def _read_tsv(path: Path, stream: BinaryIO) -> Numbered:
    return csv_rows(path, stream, delimiter="\t")


def _read_jsonl(path: Path, stream: BinaryIO) -> Numbered:
    # bytes split at "\n" alone: str.splitlines also breaks at characters that JSON strings may hold
    for number, content in enumerate(stream, start=1):
        if number == 1:
            check_encoding(path, content[:64])
        try:
            line = content.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield number, Malformed(not_utf8(content[error.start]))
            continue
        if line.strip():
            yield number, _row_of(line)


def _row_of(line: str) -> Row | Malformed:
    try:
        row = _parse_json(line)
    except Malformed as error:
        return error
    if not isinstance(row, dict):
        return Malformed(f"not an object {{...}}: {shorten(line)}")
    return checked(row) if _may_be_broken(line) else row


def _may_be_broken(text: str) -> bool:
    """Whether JSON may hold what `checked` looks for: halves of pairs are written as escapes."""
    return "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH


def _read_json(path: Path, stream: BinaryIO) -> Numbered:
    text = decode(path, stream.read())
    try:
        rows = _parse_json(text)
    except Malformed as error:
        raise DataError(f"{path}: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: must be one list of objects, [{{...}}, {{...}}]")
    look = _may_be_broken(text)
    del text
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield number, checked(row) if look else row
        else:
            yield number, Malformed(f"not an object {{...}}: {shorten(row)}")


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Malformed(
            f"not JSON: {error.msg} at column {error.colno}: {shorten(text)}"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, deep nesting
        raise Malformed(f"cannot be read: {shorten(error)}: {shorten(text)}") from error


def _read_parquet(path: Path, stream: BinaryIO) -> Numbered:
    import pyarrow
    import pyarrow.parquet

    # its parts are not in reading order, and to go back in a packed file is to unpack it again
    plain = isinstance(stream, io.BufferedReader)
    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(stream if plain else io.BytesIO(stream.read()))
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise DataError(f"{path}: a column name occurs twice in {columns_words(names)}")
        for batch in file.iter_batches(batch_size=1000):
            for cells in zip(*map(_cells, batch.columns), strict=True):
                number += 1
                held = dict(zip(names, cells, strict=True))
                bad = next((name for name in names if isinstance(held[name], Malformed)), None)
                yield number, held if bad is None else Malformed(f"column {bad}: {held[bad]}")
    except (pyarrow.ArrowException, OSError) as error:
        after = f", after row {number:,}" if number else ""
        raise DataError(f"{path}{after}: not a parquet file: {shorten(error)}") from error


def _cells(column: Any) -> list[Any]:
    """The values of a part of a parquet column; bytes that are UTF-8 are text, as some store it."""
    try:
        cells = [without_gaps(cell) for cell in column.to_pylist()]
    except (ValueError, OverflowError, KeyError):  # a text that is not UTF-8, a date past 9999
        cells = [_cell(cell) for cell in column]
    for at, cell in enumerate(cells):
        if isinstance(cell, bytes):
            with suppress(UnicodeDecodeError):
                cells[at] = cell.decode()
    return cells


def _cell(cell: Any) -> Any:
    try:
        return without_gaps(cell.as_py())
    except UnicodeDecodeError as error:
        return Malformed(not_utf8(error.object[error.start]))
    except (ValueError, OverflowError, KeyError) as error:
        return Malformed(f"cannot be read: {shorten(error)}")


TEXTS = (".txt",)
READERS: dict[str, Callable[[Path, BinaryIO], Numbered]] = {
    ".csv": csv_rows,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
