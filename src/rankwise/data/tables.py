"""Data files: finding them, and turning each format (csv, jsonl, parquet, ...) into rows.

A row is a plain dict, column name to value. Every reader raises `DataError` with the file, the
line where there is one, and what was found there.
"""

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rankwise.errors import DataError
from rankwise.files import PKG, decode, find_pkg_path, read_csv, what_is_there
from rankwise.text import shorten

Row = dict[str, Any]

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}


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
    path = base_dir / Path(name).expanduser()
    if not path.exists():
        raise DataError(f"{name}: no such file; {what_is_there(path)}")
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
        rows.append(row)
    return rows


def _read_json(path: Path, content: bytes) -> list[Row]:
    rows = _parse_json(str(path), decode(path, content))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: must be one list of objects, [{{...}}, {{...}}]")
    return rows


def _parse_json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not JSON: {error.msg} at column {error.colno}: {shorten(text)}"
        ) from error


def _read_parquet(path: Path, content: bytes) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a parquet file: {shorten(error)}") from error
    rows: list[Row] = table.to_pylist()
    return rows


TEXTS = (".txt",)
READERS: dict[str, Callable[[Path, bytes], list[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
