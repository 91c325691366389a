"""Rows come from wherever they are, and every mistake is told with its place, without torch."""

import gzip
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from rankwise.data.rows import usable_rows
from rankwise.data.sources import read_rows
from rankwise.data.tables import find_path
from rankwise.errors import DataError
from rankwise.files import find_pkg_path
from rankwise.spec.models import DataSpec

Write = Callable[[str, Any], Path]
ROWS = [{"text": "one, two", "label": "a"}, {"text": 'he said "no"', "label": "b"}]
CSV = 'text,label\n"one, two",a\n"he said ""no""",b\n'


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def spec(source: object, **more: Any) -> DataSpec:
    return DataSpec(source=str(source), **{"text": "text", **more})


def refusal(source: object, base: Path, **more: Any) -> str:
    data = spec(source, **more)
    with pytest.raises(DataError) as caught:
        usable_rows(read_rows(data, base), data)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("packed", ["", ".gz", ".bz2", ".xz"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", CSV),
        ("r.tsv", CSV.replace(",", "\t").replace("one\t two", "one, two")),
        ("r.jsonl", ROWS),
        ("r.json", json.dumps(ROWS)),
    ],
)
def test_every_format_gives_the_same_rows_packed_or_not(
    name: str, content: Any, packed: str, write: Write, tmp_path: Path
) -> None:
    write(name + packed, content)
    rows = read_rows(spec(name + packed), tmp_path)
    assert rows.parts == {"all": ROWS}
    assert not rows.one_text


def test_parquet_gives_rows(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "r.parquet")
    assert read_rows(spec("r.parquet"), tmp_path).parts["all"] == ROWS


def test_a_text_is_one_row_in_the_column_that_the_spec_calls_its_text(
    write: Write, tmp_path: Path
) -> None:
    write("book.txt.gz", "A line.\r\nAnother.")
    rows = read_rows(spec("book.txt.gz", text="passage"), tmp_path)
    assert rows.parts["all"] == [{"passage": "A line.\r\nAnother."}]
    assert rows.one_text


def test_a_byte_order_mark_and_blank_lines_are_no_part_of_a_table(
    write: Write, tmp_path: Path
) -> None:
    write("r.csv", "\ufeff" + CSV.replace("a\n", "a\n\n"))
    assert read_rows(spec("r.csv"), tmp_path).parts["all"] == ROWS


def test_a_file_inside_a_package_is_read_without_running_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "explosive"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "r.csv").write_text(CSV)
    monkeypatch.syspath_prepend(tmp_path)
    assert read_rows(spec("pkg://explosive/r.csv"), Path()).parts["all"] == ROWS
    assert "r.csv" in refusal("pkg://explosive/s.csv", Path())
    assert "not installed" in refusal("pkg://no_such_thing/s.csv", Path())


def test_a_missing_file_is_told_with_the_nearest_there_is(write: Write, tmp_path: Path) -> None:
    write("reviews.csv", CSV)
    message = refusal("revews.csv", tmp_path)
    assert message.startswith("data.source: revews.csv: no such file")
    assert "reviews.csv" in message
    assert str(tmp_path) in refusal("folder/deeper/revews.csv", tmp_path)


def test_a_csv_row_with_too_many_fields_is_told_with_its_line(write: Write, tmp_path: Path) -> None:
    write("r.csv", 'text,label\n"two\nlines",a\none,two,b\n')
    message = refusal("r.csv", tmp_path)
    for part in ("r.csv, line 4", "3 fields", "header has 2", "text, label", "one,two,b"):
        assert part in message


def test_an_open_quotation_mark_is_told_with_the_line_it_starts_on(
    write: Write, tmp_path: Path
) -> None:
    write("r.csv", 'text,label\nfine,a\n"never closed,b\nmore,a\n')
    assert "line 3: the row that starts here" in refusal("r.csv", tmp_path)


def test_broken_files_are_told_with_their_place(write: Write, tmp_path: Path) -> None:
    write("r.jsonl", '{"text": "a"}\n{"text": oops}\n')
    assert "r.jsonl, line 2: not JSON" in refusal("r.jsonl", tmp_path)
    write("l.jsonl", '["a"]\n')
    assert "l.jsonl, line 1: not an object" in refusal("l.jsonl", tmp_path)
    write("r.json", '{"text": "a"}')
    assert "one list of objects" in refusal("r.json", tmp_path)
    write("latin.csv", "text,label\nfine,a\ncaf\u00e9,b\n".encode("latin-1"))
    assert "latin.csv, line 3: byte 0xe9 is not UTF-8" in refusal("latin.csv", tmp_path)
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(CSV.encode())[:20])
    assert "r.csv.gz: cannot be read" in refusal("r.csv.gz", tmp_path)
    write("r.parquet", b"not at all")
    assert "not a parquet file" in refusal("r.parquet", tmp_path)
    write("twice.csv", "text,text\na,b\n")
    assert "occurs twice" in refusal("twice.csv", tmp_path)
    write("none.csv", "")
    assert "is empty" in refusal("none.csv", tmp_path)
    write("head.csv", "text,label\n")
    assert "has no rows" in refusal("head.csv", tmp_path)
    write("r.xlsx", b"PK")
    assert "cannot read files of the kind .xlsx" in refusal("./r.xlsx", tmp_path)
    assert "is a folder; name one file in it" in refusal(tmp_path, tmp_path)
    assert "neither an existing file" in refusal("what is this?", tmp_path)
    message = refusal("r.csv", tmp_path, subset="en")
    assert "only hub data sets have subsets, and r.csv is not one; remove en" in message


def test_a_function_beside_the_spec_gives_rows(write: Write, tmp_path: Path) -> None:
    code = (
        "def rows():\n    yield {'text': 'one', 'label': 'a'}\n"
        "def broken():\n    return 1 / 0\n"
        "def number():\n    return 3\n"
        "def lists():\n    return [['a']]\n"
        "def keys():\n    return [{0: 'a'}]\n"
    )
    write("make.py", code)
    assert read_rows(spec("make.py:rows"), tmp_path).parts["all"] == [{"text": "one", "label": "a"}]
    assert "make.py, line 4: ZeroDivisionError" in refusal("make.py:broken", tmp_path)
    assert "returned int, not rows" in refusal("make.py:number", tmp_path)
    assert "returned a list as row 0" in refusal("make.py:lists", tmp_path)
    assert "not a dict with names of columns" in refusal("make.py:keys", tmp_path)
    assert "no function row; functions there: rows" in refusal("make.py:row", tmp_path)
    assert "has make.py" in refusal("made.py:rows", tmp_path)
    write("bad.py", "def rows(:\n")
    assert "SyntaxError" in refusal("bad.py:rows", tmp_path)


def test_a_hub_data_set_keeps_its_splits_and_the_names_of_its_classes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    part = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features)
    asked = []

    def load_dataset(*args: object) -> datasets.DatasetDict:
        asked.append(args)
        return datasets.DatasetDict({"train": part, "test": part})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *args, **more: None)
    rows = read_rows(spec("someone/reviews", subset="en"), tmp_path)
    assert asked == [("someone/reviews", "en")]
    assert list(rows.parts) == ["train", "test"]
    assert [row["label"] for row in rows.parts["train"]] == ["pos", "neg", None]


def test_a_hub_that_cannot_be_asked_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*args: object, **more: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    message = refusal("someone/no-such-set", tmp_path)
    assert "no file someone/no-such-set, and the hub could not be asked" in message


def test_a_hub_data_set_that_fails_to_load_is_the_users_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load_dataset(*args: object) -> None:
        raise ValueError("Config name is missing. Please pick one among: ['en', 'de']")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *args, **more: None)
    assert "Please pick one among" in refusal("someone/reviews", tmp_path)


def test_mistakes_are_told_without_loading_torch_or_transformers(
    write: Write, tmp_path: Path
) -> None:
    write("r.csv", CSV)
    code = (
        "import sys; from pathlib import Path; from rankwise.spec.models import DataSpec\n"
        "from rankwise.data.sources import read_rows; from rankwise.data.split import split_rows\n"
        "data = DataSpec(source='r.csv', text='text', label='label',"
        " split={'validation': 5})\n"
        "try: split_rows(read_rows(data, Path(sys.argv[1])), data)\n"
        "except ValueError as error: print(error)\n"
        "print({'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
    assert "has 2 usable rows" in done.stdout


def test_the_corpus_of_the_example_becomes_pairs_chats_and_texts() -> None:
    needs("chatterbot_corpus")
    examples = Path(__file__).parents[2] / "examples"
    data = DataSpec(source="chatterbot.py:pairs", prompt="prompt", completion="completion")
    rows = read_rows(data, examples).parts["all"]
    assert len(rows) > 2000
    assert {"prompt": "Tell me a joke\n", "category": "humor"}.items() <= next(
        row for row in rows if row["question"] == "Tell me a joke"
    ).items()
    chats = read_rows(DataSpec(source="chatterbot.py:chats", messages="messages"), examples)
    assert [row["question"] for row in chats.parts["all"]] == [row["question"] for row in rows]
    texts = read_rows(DataSpec(source="chatterbot.py:texts", text="text"), examples).parts["all"]
    assert len(texts) == len({row["text"] for row in texts}) > 500
    lines = {row["text"].split("\n")[0] for row in texts}
    assert {row["question"] for row in texts if "\n" not in row["question"]} <= lines


def test_paths_are_found_relative_to_the_spec(write: Write, tmp_path: Path) -> None:
    path = write("r.csv", CSV)
    assert find_path("r.csv", tmp_path) == path
    assert find_path(str(path), Path("/elsewhere")) == path
    assert find_pkg_path("pkg://rankwise/errors.py").name == "errors.py"
