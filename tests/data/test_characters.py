"""Texts that cannot be read are told with their place, whichever file holds them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from rankwise.data.sources import read_rows, rows_of
from rankwise.data.split import split_rows
from rankwise.errors import DataError
from rankwise.spec.models import DataSpec

Write = Callable[[str, Any], Path]
GOOD = {"text": "a \U0001f600 face", "label": "a"}
HALF = "half of a surrogate pair (\\ud83d)"


def refusal(source: str, base: Path, **columns: Any) -> str:
    data = DataSpec(source=source, **{"text": "text", **columns})
    with pytest.raises(DataError) as caught:
        split_rows(read_rows(data, base), data)
    message = str(caught.value)
    assert "\n" not in message
    message.encode()
    return message


def test_half_a_character_is_told_with_its_line_and_counted(write: Write, tmp_path: Path) -> None:
    bad = [{**GOOD, "text": "cut \ud83d"}, {**GOOD, "meta": {"tags": ["fine", "\ud83d\ud83d"]}}]
    write("r.jsonl", [GOOD, bad[0], GOOD, bad[1]])
    message = refusal("r.jsonl", tmp_path)
    assert f"r.jsonl, line 2: column text holds {HALF}" in message
    assert f"line 4: column meta holds {HALF}" in message
    assert "2 of 4 rows are malformed" in message
    write("r.json", json.dumps([GOOD, bad[1]]))
    assert f"r.json, row 2: column meta holds {HALF}" in refusal("r.json", tmp_path)
    write("name.jsonl", [{"te\ud83dxt": "a"}])
    assert "line 1: column te?xt holds half" in refusal("name.jsonl", tmp_path)
    write("make.py", "def rows():\n    return [{'text': 'a'}, {'text': '\\udc00'}]\n")
    assert "make.py:rows, row 2: column text holds half" in refusal("make.py:rows", tmp_path)
    write("r.csv", b"text\nfine\n" + "cut \ud83d\n".encode("utf-8", "surrogatepass"))
    assert "r.csv, line 3: byte 0xed is not UTF-8" in refusal("r.csv", tmp_path)
    write("r.txt", "cut \ud83d".encode("utf-8", "surrogatepass"))
    assert "r.txt, line 1: byte 0xed is not UTF-8" in refusal("r.txt", tmp_path)
    column = pyarrow.array([b"fine", b"cut \xed\xa0\xbd"]).view(pyarrow.binary())
    text = pyarrow.Array.from_buffers(pyarrow.string(), 2, column.buffers())
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), tmp_path / "r.parquet")
    assert "r.parquet, row 2: column text: byte 0xed" in refusal("r.parquet", tmp_path)


def test_whole_characters_of_any_kind_are_read(write: Write, tmp_path: Path) -> None:
    texts = ["\U0001f600", "null \x00 here", "\ufeff mark", "e\u0301", "\u2028 line"]
    rows = [{"text": text} for text in texts]
    write("r.jsonl", rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "r.parquet")
    binary = pyarrow.array([text.encode() for text in texts], pyarrow.binary())
    pyarrow.parquet.write_table(
        pyarrow.table({"text": binary, "picture": [b"\xff\xd8"] * 5}), tmp_path / "b.parquet"
    )
    for name in ("r.jsonl", "r.parquet", "b.parquet"):
        found = read_rows(DataSpec(source=name, text="text"), tmp_path).parts["all"]
        assert [row["text"] for row in found] == texts


def test_files_that_json_or_parquet_cannot_read_are_told(write: Write, tmp_path: Path) -> None:
    write("deep.jsonl", '{"text": ' + "[" * 100_000 + "\n")
    assert "deep.jsonl, line 1: cannot be read" in refusal("deep.jsonl", tmp_path)
    write("long.jsonl", '{"text": ' + "9" * 5000 + "}\n")
    assert "long.jsonl, line 1: cannot be read" in refusal("long.jsonl", tmp_path)
    for name in ("none.jsonl", "none.json", "none.parquet", "none.csv", "none.txt"):
        write(name, "")
        assert "none." in refusal(name, tmp_path)


def test_an_object_from_arrow_has_the_fields_that_it_was_given(tmp_path: Path) -> None:
    """Arrow gives every object the fields of all, None where they are not there."""
    calls = [
        {"name": "find", "arguments": {"animal": "cat"}},
        {"name": "add", "arguments": {"n": 3}},
    ]
    rows = [{"messages": [{"role": "user", "content": "a"}]}, {"messages": calls}]
    table = pyarrow.Table.from_pylist(rows)
    assert None in table.to_pylist()[1]["messages"][0].values()
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    data = DataSpec(source="r.parquet", messages="messages")
    assert read_rows(data, tmp_path).parts["all"] == rows
    assert rows_of(datasets.Dataset.from_list(rows)) == rows


@pytest.mark.parametrize("held", [3, 2.5, True, ["a"], {"a": 1}, b"\xff"], ids=repr)
def test_what_is_no_text_is_told_with_its_row(held: Any, tmp_path: Path) -> None:
    (tmp_path / "make.py").write_text(
        "def rows():\n    return [{'prompt': 'a', 'completion': 'b'}, {'prompt': 'a', "
        f"'completion': {held!r}}}]\n"
    )
    message = refusal("make.py:rows", tmp_path, text=None, prompt="prompt", completion="completion")
    assert f"row 2: column completion holds {type(held).__name__}" in message
    assert "not text" in message


def test_empty_prompts_and_completions_are_left_out_and_counted(
    write: Write, tmp_path: Path
) -> None:
    pairs = [(f"ask {at}", f"answer {at}") for at in range(12)]
    empty: list[tuple[Any, Any]] = [("", "b"), ("a", "  "), (None, "b"), ("a", float("nan"))]
    rows = [{"prompt": one, "completion": other} for one, other in (*pairs, *empty)]
    write("r.jsonl", rows)
    data = DataSpec(source="r.jsonl", prompt="prompt", completion="completion")
    split = split_rows(read_rows(data, tmp_path), data)
    assert split.notes[0] == "4 of 16 rows with an empty text left out"
