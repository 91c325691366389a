"""Data files at random: bytes, fragments of the formats, and valid files that were damaged.

`try_file` reads one as a study does. `benchmarks/fuzz_data.py` tries thousands, and
`tests/data/test_fuzz.py` a few.
"""

import bz2
import gzip
import io
import json
import lzma
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from hypothesis import strategies as st

from rankwise.data.examples import StudyData, make_examples
from rankwise.data.rows import needed_columns
from rankwise.data.sources import read_rows
from rankwise.data.split import split_rows
from rankwise.errors import DataError
from rankwise.results.from_table import read_outside
from rankwise.spec.models import AugmentSpec, DataSpec

Drawn = tuple[str, bytes, dict[str, Any]]  # name and content of a file, what a spec says of it
COLUMNS = ("text", "label", "prompt", "completion", "messages", "tools", "input", "target", "by")
SHAPES: tuple[dict[str, Any], ...] = (
    {"text": "text"},
    {"text": "text", "label": "label"},
    {"prompt": "prompt", "completion": "completion"},
    {"messages": "messages"},
    {"input": "input", "target": "target"},
    {"text": "text", "label": "label", "labels": ("a", "b")},
)
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt")
PACKED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
FRAGMENTS = (
    *(f'"{name}"' for name in COLUMNS), *COLUMNS, "role", "content", "assistant", "user", "weight",
    '"', '""', "'", ",", "\t", ";", "\n", "\r", "\r\n", "\u2028", "\x00", "\x1a", "\ufeff", ":",
    "{", "}", "[", "]", "[" * 120, "]" * 120, '{"a":' * 300, "null", "true", "NaN", "-Infinity",
    "1e999", "-0.0", "9" * 5000, "\\ud83d", "\\u0000", "\\", "\U0001f600", "caf\u00e9", " ", "a",
)  # fmt: skip
BYTES = (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\xbd", b"\xe9", b"\x00", b"\x80")
WORDS = st.text(st.sampled_from("ab 1\n\"',;\t\u00e9\U0001f600\x00"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.just("cut \ud83d"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "system", "tool"]) | VALUES,
            "content": WORDS | VALUES,
            "weight": st.sampled_from([0, 1, 0.5, None, "1", True]),
            "tool_calls": VALUES,
        },
    )
    | VALUES,
    max_size=4,
)
CELLS = {
    "label": st.sampled_from(["a", "b", 0, 1, True, 0.5, None, ["a"]]),
    "messages": MESSAGES | MESSAGES.map(lambda value: json.dumps(value)) | VALUES,
}
ROWS = st.lists(
    st.fixed_dictionaries({}, optional={name: CELLS.get(name, WORDS | VALUES) for name in COLUMNS}),
    max_size=8,
)
ARROW = st.sampled_from(
    [
        ("text", pyarrow.string(), WORDS),
        ("text", pyarrow.binary(), st.binary(max_size=4)),
        ("text", pyarrow.list_(pyarrow.int32()), st.lists(st.integers(0, 9), max_size=2)),
        ("label", pyarrow.int64(), st.integers(0, 2)),
        ("label", pyarrow.float64(), st.floats()),
        ("label", pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), st.sampled_from("ab")),
        ("by", pyarrow.timestamp("s"), st.integers(-(2**62), 2**62)),
        ("by", pyarrow.map_(pyarrow.string(), pyarrow.int8()), st.just([("a", 1)])),
        ("prompt", pyarrow.large_string(), WORDS),
        ("completion", pyarrow.decimal128(5, 2), st.none()),
    ]
)


@st.composite
def odd_tables(draw: st.DrawFn) -> pyarrow.Table:
    """Columns of many types; a name may occur twice."""
    count = draw(st.integers(0, 6))
    columns = draw(st.lists(ARROW, min_size=1, max_size=4))
    arrays = [
        pyarrow.array(draw(st.lists(values | st.none(), min_size=count, max_size=count)), kind)
        for _, kind, values in columns
    ]
    return pyarrow.Table.from_arrays(arrays, names=[name for name, _, _ in columns])


@st.composite
def parquet_files(draw: st.DrawFn) -> bytes:
    """A valid parquet file; none where Arrow cannot hold what was drawn."""
    made = io.BytesIO()
    packed = draw(st.sampled_from(["none", "snappy"]))
    with suppress(pyarrow.ArrowException, ValueError, OverflowError, TypeError):
        table = draw(odd_tables() | table_rows().map(pyarrow.Table.from_pylist))
        pyarrow.parquet.write_table(table, made, compression=packed)
    return made.getvalue()


def good_rows(seed: int) -> list[dict[str, Any]]:
    """Rows that every shape of data can use."""
    rng, words = (
        random.Random(seed),
        ("a cat", "the dog", "caf\u00e9", "\U0001f600", "two\nlines", "1"),
    )
    rows = []
    for at in range(rng.randint(4, 12)):
        text = " ".join(rng.choices(words, k=rng.randint(1, 9))) + f" {at}"
        said = [{"role": role, "content": text} for role in ("user", "assistant")]
        row = dict.fromkeys(COLUMNS, text)
        rows.append(row | {"label": "ab"[at % 2], "messages": said, "tools": [], "by": at % 4})
    return rows


@st.composite
def table_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Good rows with up to three odd cells, or odd rows."""
    rows = good_rows(draw(st.integers(0, 999)))
    places = st.integers(0, len(rows) - 1), st.sampled_from(COLUMNS)
    for row, column in draw(st.lists(st.tuples(*places), max_size=3)):
        rows[row][column] = draw(CELLS.get(column, VALUES))
    return draw(st.sampled_from([rows, rows, draw(ROWS)]))


@st.composite
def table_files(draw: st.DrawFn, suffix: str) -> bytes:
    """Rows as a writer that knows little would write them."""
    rows = draw(table_rows())
    if suffix == ".json":
        return json.dumps(rows).encode()
    if suffix == ".jsonl":
        return "\n".join(map(json.dumps, rows)).encode()
    if suffix == ".txt":
        return "\n".join(str(row.get("text", "")) for row in rows).encode("utf-8", "surrogatepass")
    mark = "\t" if suffix == ".tsv" else ","
    some = st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=5, unique=True)
    names = draw(st.just(COLUMNS) | some)
    lines = [mark.join(names)]
    for row in rows:
        cells = (str(row.get(name, "")).replace('"', '""') for name in names)
        lines.append(mark.join(f'"{cell}"' for cell in cells))
    return draw(st.sampled_from(["\n", "\r\n", "\r"])).join(lines).encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, files: st.SearchStrategy[bytes]) -> bytes:
    """A file with up to four places cut out, put in, or overwritten."""
    content = draw(files)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        gone = draw(st.sampled_from([0, 1, 2, len(content)]))
        new = draw(
            st.sampled_from(BYTES) | st.binary(max_size=4) | st.sampled_from(FRAGMENTS).map(_bytes)
        )
        content = content[:at] + new + content[at + gone :]
    return content


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@st.composite
def data_files(draw: st.DrawFn) -> Drawn:
    """Files of every format that is read, packed or not."""
    suffix = draw(st.sampled_from(SUFFIXES))
    valid = parquet_files() if suffix == ".parquet" else table_files(suffix)
    pieces = st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join).map(_bytes)
    content = draw(valid | damaged(valid) | damaged(pieces) | st.binary(max_size=200))
    packed = draw(st.sampled_from(["", "", "", *PACKED]))
    content = PACKED[packed](content)
    if packed:
        content = draw(st.just(content) | damaged(st.just(content)))
    data = {
        **draw(st.sampled_from(SHAPES)),
        "malformed_rows": draw(st.sampled_from([0, 0.5, 0.99])),
        "split": {
            "validation": draw(st.sampled_from([1, 0.3])),
            "test": draw(st.sampled_from([0, 1, 0.3])),
            "by": draw(st.sampled_from([None, None, "by"])),
        },
    }
    return f"r{suffix}{packed}", content, data


def try_file(drawn: Drawn, folder: Path, tokenizer: Any) -> StudyData | None:
    """The examples of a file; None where it is refused, by one line that can be printed.

    Files of delimited fields are read as a table of results as well.
    """
    name, content, columns = drawn
    path = folder / name
    path.write_bytes(content)
    if path.suffix in (".csv", ".tsv"):
        for mapping in (None, {"metric": "by", "arm": "label"}):
            try:
                read_outside(path, mapping)
            except DataError as error:
                _check_message(str(error))
    data = DataSpec(source=name, max_length=24, **columns)
    try:
        rows = read_rows(data, folder, needed_columns(data, [AugmentSpec()]))
        examples = make_examples(split_rows(rows, data), data, tokenizer)
    except DataError as error:
        _check_message(str(error))
        return None
    assert examples.train
    assert examples.validation
    return examples


def _check_message(said: str) -> None:
    assert said
    assert len(said) < 1500, said
    assert "\n" not in said, said
    said.encode()
