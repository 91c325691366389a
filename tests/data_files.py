"""Data files at random: bytes, fragments of the formats, and valid files that were damaged."""

import bz2
import gzip
import io
import json
import lzma
from typing import Any

import pyarrow
import pyarrow.parquet
from hypothesis import strategies as st

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
def parquet_files(draw: st.DrawFn) -> bytes:
    """A valid parquet file; a column name may occur twice."""
    count = draw(st.integers(0, 6))
    columns = draw(st.lists(ARROW, min_size=1, max_size=4))
    arrays = [
        pyarrow.array(draw(st.lists(values | st.none(), min_size=count, max_size=count)), kind)
        for _, kind, values in columns
    ]
    table = pyarrow.Table.from_arrays(arrays, names=[name for name, _, _ in columns])
    made = io.BytesIO()
    pyarrow.parquet.write_table(table, made, compression=draw(st.sampled_from(["none", "snappy"])))
    return made.getvalue()


@st.composite
def table_files(draw: st.DrawFn, suffix: str) -> bytes:
    """Rows as a writer that knows little would write them."""
    rows = draw(ROWS)
    if suffix == ".json":
        return json.dumps(rows).encode()
    if suffix == ".jsonl":
        return "\n".join(map(json.dumps, rows)).encode()
    mark = "\t" if suffix == ".tsv" else ","
    names = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=5, unique=True))
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
def data_files(draw: st.DrawFn) -> tuple[str, bytes, dict[str, Any]]:
    """Name and content of a file, and what a spec says of it."""
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
