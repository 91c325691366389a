"""Malformed rows are all counted, the first shown with their line, and left out where allowed."""

import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rankwise.data.rows import needed_columns, usable_rows
from rankwise.data.sources import Rows, read_rows
from rankwise.errors import DataError
from rankwise.reading import read_csv
from rankwise.spec.models import AugmentSpec, DataSpec

Write = Callable[[str, Any], Path]
GOOD = [json.dumps({"text": f"row {at}", "label": "ab"[at % 2]}) for at in range(96)]
LINES = {  # line -> what stands there, what is said of it
    5: ('{"text": oops}', "not JSON: Expecting value at column 10"),
    8: ("[1, 2]", "not an object {...}: [1, 2]"),
    20: ('{"text": "cut \\ud83d", "label": "a"}', "column text holds half of a surrogate pair"),
    30: ('{"label": "a"}', "no column text, only label"),
    40: ('{"text": ["a"], "label": "a"}', "column text holds list ['a'], not text"),
    50: ('{"text": ' + "[" * 200 + "]" * 200 + ', "label": "a"}', "nested more than 100 deep"),
    60: (b'{"text": "caf\xe9", "label": "a"}', "byte 0xe9 is not UTF-8"),
}


def mixed(lines: dict[int, tuple[Any, str]]) -> bytes:
    made: list[bytes] = [row.encode() for row in GOOD]
    for line, (row, _) in lines.items():
        made.insert(line - 1, row if isinstance(row, bytes) else row.encode())
    return b"\n".join(made) + b"\n"


def spec(source: str, **more: Any) -> DataSpec:
    return DataSpec(source=source, **{"text": "text", "label": "label", **more})


def usable(source: str, base: Path, **more: Any) -> Rows:
    data = spec(source, **more)
    return usable_rows(read_rows(data, base), data)


def refusal(source: str, base: Path, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        usable(source, base, **more)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_all_kinds_of_malformed_rows_are_counted_together(write: Write, tmp_path: Path) -> None:
    write("r.jsonl", mixed(LINES))
    message = refusal("r.jsonl", tmp_path)
    assert message.startswith("data.source: r.jsonl, line ")
    assert "7 of 103 rows are malformed" in message
    assert "; and 4 more" in message
    assert "set data.malformed_rows: 0.068 to leave them out" in message
    assert usable("r.jsonl", tmp_path, malformed_rows=0.068).parts["all"]
    assert "allows a share of 0.067)" in refusal("r.jsonl", tmp_path, malformed_rows=0.067)


@pytest.mark.parametrize("line", LINES)
def test_each_is_told_with_its_line_and_may_be_left_out(
    line: int, write: Write, tmp_path: Path
) -> None:
    write("r.jsonl", mixed({line: LINES[line]}))
    message = refusal("r.jsonl", tmp_path)
    assert f"r.jsonl, line {line}: " in message
    assert LINES[line][1] in message
    assert "1 of 97 rows is malformed" in message
    rows = usable("r.jsonl", tmp_path, malformed_rows=0.02)
    assert rows.parts["all"] == [json.loads(row) for row in GOOD]
    assert rows.notes[0].startswith(
        f"1 of 97 rows is malformed and left out (data.malformed_rows: 0.02): line {line}: "
    )


def test_of_an_open_quotation_mark_one_line_is_lost(write: Write, tmp_path: Path) -> None:
    rows = [f"row {at},a" for at in range(20)]
    rows[4] = '"row 4,a'
    rows[9] = '"two\nlines",a'
    rows[12] = '"row 12" b,a'
    rows[15] = "one,two,b"
    rows[17] = '"open to the end,a'
    write("r.csv", "text,label\n" + "\n".join(rows) + "\n")
    message = refusal("r.csv", tmp_path)
    assert "r.csv, line 6: the row that starts here cannot be read" in message
    assert "line 15: the row that starts here" in message
    assert "line 18: 3 fields where the header has 2 (text, label): one,two,b" in message
    assert "and 1 more: 4 of 20 rows are malformed" in message
    found = usable("r.csv", tmp_path, malformed_rows=0.2, label=None).parts["all"]
    kept = [at for at in range(20) if at not in (4, 12, 15, 17)]
    assert [row["text"] for row in found] == [
        "two\nlines" if at == 9 else f"row {at}" for at in kept
    ]


def test_bytes_that_are_not_utf_8_cost_their_row_alone(write: Write, tmp_path: Path) -> None:
    write("r.csv", b'text,label\n"caf\xe9\n two",a\ncaf\xc3\xa9,b\n')
    assert "r.csv, line 2: byte 0xe9 is not UTF-8" in refusal("r.csv", tmp_path)
    rows = usable("r.csv", tmp_path, malformed_rows=0.5, label=None)
    assert [row["text"] for row in rows.parts["all"]] == ["café"]
    column = pyarrow.array([b"fine", b"cut \xed\xa0\xbd", b"good"]).view(pyarrow.binary())
    text = pyarrow.Array.from_buffers(pyarrow.string(), 3, column.buffers())
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), tmp_path / "r.parquet")
    rows = usable("r.parquet", tmp_path, malformed_rows=0.4, label=None)
    assert [row["text"] for row in rows.parts["all"]] == ["fine", "good"]
    assert "row 2: column text: byte 0xed is not UTF-8" in rows.notes[0]


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_parquet_is_read_in_parts_and_bytes_that_are_text_are_text(
    packed: str, write: Write, tmp_path: Path
) -> None:
    held = [f"caf\u00e9 {at}".encode() for at in range(2500)]
    held[1200] = b"\xff\xd8 a picture"
    made = io.BytesIO()
    table = pyarrow.table({"text": pyarrow.array(held, pyarrow.binary())})
    pyarrow.parquet.write_table(table, made, row_group_size=700)
    write(f"r.parquet{packed}", made.getvalue())
    rows = usable(f"r.parquet{packed}", tmp_path, malformed_rows=0.001, label=None)
    assert rows.notes[0].endswith(
        r"row 1201: column text holds bytes b'\xff\xd8 a picture', not text"
    )
    assert [row["text"] for row in rows.parts["all"]] == [
        f"caf\u00e9 {at}" for at in range(2500) if at != 1200
    ]
    write("cut.parquet", made.getvalue()[:300] + b"\0" * 300 + made.getvalue()[600:])
    assert "cut.parquet: not a parquet file" in refusal("cut.parquet", tmp_path, label=None)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.json", "r.txt", "r.tsv.gz"])
def test_other_encodings_are_named(encoding: str, name: str, write: Write, tmp_path: Path) -> None:
    write(name, "text,label\na,b\n".encode(encoding))
    found = "UTF-32" if encoding == "utf-32" else "UTF-16"
    assert f"{name}: is {found}" in refusal(name, tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_first_column(write: Write, tmp_path: Path) -> None:
    write("r.jsonl", b"\xef\xbb\xbf" + GOOD[0].encode() + b"\r\n" + GOOD[1].encode())
    write("r.json", "\ufeff[" + ",".join(GOOD[:2]) + "]")
    write("r.csv", "\ufefftext,label\r\nrow 0,a\rrow 1,b")
    for name in ("r.jsonl", "r.json", "r.csv"):
        assert usable(name, tmp_path).parts["all"] == [json.loads(row) for row in GOOD[:2]]


def test_no_row_at_all_is_a_message_even_where_all_may_be_left_out(
    write: Write, tmp_path: Path
) -> None:
    write("r.jsonl", "oops\n")
    message = refusal("r.jsonl", tmp_path, malformed_rows=0.99)
    assert "line 1: not JSON" in message
    assert "set data.malformed_rows" not in message


def test_malformed_results_are_counted_too() -> None:
    with pytest.raises(DataError, match=r"t.csv, line 2: 1 fields .*; line 4: .*: 2 of 3 rows"):
        read_csv(Path("t.csv"), b"a,b\n1\n1,2\n3\n")


def test_a_large_table_is_read_in_the_memory_of_the_columns_that_are_kept(tmp_path: Path) -> None:
    """Beside the rows there is neither the file's content nor a copy of it."""
    other = "x" * 6000
    with (tmp_path / "r.csv").open("w") as file:
        file.write("text,label,other\n")
        file.writelines(f"row {at},a,{other}\n" for at in range(5000))
    size = (tmp_path / "r.csv").stat().st_size
    data = spec("r.csv")
    only = needed_columns(data, [AugmentSpec()])
    assert only is not None
    tracemalloc.start()
    try:
        rows = read_rows(data, tmp_path, only)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(rows.parts["all"]) == 5000
    assert rows.columns == ("text", "label", "other")
    assert kept < 0.25 * size
    assert peak < kept + 2e6 < size / 2
    assert needed_columns(data, [AugmentSpec(factor=2, template="{other}")]) is None
