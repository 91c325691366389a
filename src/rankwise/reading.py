"""Texts and tables that others wrote: encodings, rows that cannot be read, rows of CSV files."""

import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rankwise.errors import DataError
from rankwise.text import columns_words, shorten

MARKS = {  # the first bytes of files in other encodings, the longer ones first
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of such a byte
MAX_FIELD = 128 << 20  # characters; an open quotation mark would take in the rest of a large file
SHOWN = 3


class Malformed(ValueError):
    """A row that cannot be read, and what is wrong with it."""


@dataclass
class Faults:
    """Malformed rows: how many, and the first of them with their place."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, place: str, what: object) -> None:
        """Count a row, and keep it if it is one of the first."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(f"{place}: {what}")

    def told(self) -> str:
        """The first with what is wrong, and how many more there are."""
        more = self.count - len(self.first)
        return "; ".join(self.first) + (f"; and {more:,} more" if more else "")


def decode(path: Path, content: bytes) -> str:
    """UTF-8 text without its byte order mark.

    Raises:
        DataError: it is in another encoding, with its name or with the line of the first byte.
    """
    check_encoding(path, content[:64])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: {not_utf8(content[error.start])}") from error


def not_utf8(byte: int) -> str:
    """What is said of a byte that is not UTF-8."""
    return f"byte {byte:#04x} is not UTF-8; save the file as UTF-8"


def check_encoding(path: Path, head: bytes) -> None:
    """Refuse a file whose first bytes are those of UTF-16 or UTF-32.

    Raises:
        DataError: With the name of the encoding.
    """
    found = next((name for mark, name in MARKS.items() if head.startswith(mark)), None)
    every_other = len(head) > 3 and (head[::2].strip(b"\0"), head[1::2].strip(b"\0"))
    if found is None and every_other and b"" in every_other and any(every_other):
        found = "UTF-16 without a byte order mark"
    if found:
        raise DataError(f"{path}: is {found}; save the file as UTF-8")


def read_csv(path: Path, content: bytes, delimiter: str = ",") -> list[dict[str, str]]:
    """All rows of a CSV file, as `csv_rows` has them.

    Raises:
        DataError: as `csv_rows`, or a row is malformed, with the first lines and the count.
    """
    rows: list[dict[str, str]] = []
    faults = Faults()
    for line, row in csv_rows(path, io.BytesIO(content), delimiter):
        if isinstance(row, Malformed):
            faults.add(f"line {line}", row)
        else:
            rows.append(row)
    if faults.count:
        raise DataError(
            f"{path}, {faults.told()}: {faults.count:,} of {len(rows) + faults.count:,} rows are "
            "malformed"
        )
    return rows


def csv_rows(
    path: Path, stream: BinaryIO, delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str] | Malformed]]:
    """The rows of a CSV file one by one, header to field, each with the line that it starts on.

    Blank lines are skipped. Malformed are rows with another number of fields, with a byte that is
    not UTF-8, and those with a quotation mark that is not closed: of these the first line alone,
    and the lines after it are read as rows of their own.

    Python's own `csv` rather than pandas: pandas fills short rows silently and does not say on
    which line a row with line ends inside quotes begins.

    Raises:
        DataError: no header, one that cannot be read, a column named twice, or another encoding.
    """
    check_encoding(path, stream.read(64))
    stream.seek(0)
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _records(path, _fields(text, delimiter), delimiter)
    finally:
        text.detach()  # the stream is closed by whoever opened it


def _records(
    path: Path, numbered: Iterator[tuple[int, list[str] | Malformed]], delimiter: str
) -> Iterator[tuple[int, dict[str, str] | Malformed]]:
    """Rows by the names that the first of them gives."""
    _, header = next(numbered, (0, []))
    if isinstance(header, Malformed):
        raise DataError(f"{path}, line 1: {header}")
    if not header:
        raise DataError(f"{path}: is empty; the first line must name the columns")
    if len(set(header)) < len(header):
        raise DataError(f"{path}, line 1: a column name occurs twice in {columns_words(header)}")
    for line, fields in numbered:
        if isinstance(fields, Malformed):
            yield line, fields
        elif len(fields) == len(header):
            yield line, dict(zip(header, fields, strict=True))
        else:
            yield (
                line,
                Malformed(
                    f"{len(fields)} fields where the header has {len(header)} "
                    f"({shorten(', '.join(header))}): {shorten(delimiter.join(fields))}"
                ),
            )


def _fields(text: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str] | Malformed]]:
    """The fields of each row with the line that it starts on; blank lines are skipped."""
    csv.field_size_limit(MAX_FIELD)
    lines = _Lines(text)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    start = 1
    while True:
        lines.taken.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield (
                start,
                Malformed(
                    f"the row that starts here cannot be read: {error} "
                    "(look for a quotation mark that is opened and not closed)"
                ),
            )
            lines.give_back()
            start += 1
            continue
        if bad := lines.not_utf8():
            yield start, Malformed(bad)
        elif fields:
            yield start, fields
        start += len(lines.taken)


class _Lines:
    """The lines of a file for a csv reader; `taken` are those of the row under way."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = iter(lines)
        self.again: deque[str] = deque()
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else next(self.lines)
        self.taken.append(line)
        return line

    def give_back(self) -> None:
        """Have the lines taken read again, without the first of them."""
        self.again.extendleft(reversed(self.taken[1:]))

    def not_utf8(self) -> str | None:
        """What is said of the first byte that is not UTF-8; None where there is none."""
        for line in self.taken:
            found = None if line.isascii() else NOT_UTF8.search(line)
            if found:
                return not_utf8(ord(found[0]) - 0xDC00)
        return None
