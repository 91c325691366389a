"""Labels mean the same in every format, and what is no class is refused as what it seems to be."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from rankwise.data.labels import Classes, as_in_base, find_classes, label_of
from rankwise.data.sources import Rows, read_rows
from rankwise.data.split import split_rows, with_names_of_base
from rankwise.errors import DataError
from rankwise.spec.models import DataSpec


def rows_of(labels: list[Any], n: int = 60) -> list[dict[str, Any]]:
    return [{"text": f"text {at}", "label": labels[at % len(labels)]} for at in range(n)]


def spec(source: str = "made", **more: Any) -> DataSpec:
    split = {"validation": 12, "test": 8}
    return DataSpec(
        source=source, text="text", label="label", near_duplicates=0, split=split, **more
    )


def classes_of(values: list[Any], **more: Any) -> tuple[Classes, tuple[str, ...]]:
    split = split_rows(Rows("made", {"all": rows_of(values)}), spec(**more))
    assert split.classes is not None
    return split.classes, split.notes


def refusal(values: list[Any], **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        classes_of(values, **more)
    message = str(caught.value)
    assert "\n" not in message
    return message


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as lines:
            written = csv.DictWriter(lines, ["text", "label"])
            written.writeheader()
            written.writerows(rows)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([True, False], ("false", "true")),
        ([1, 0, 2], ("0", "1", "2")),
        ([1.0, 0.0, 10.0, 2.0], ("0", "1", "2", "10")),
        (["fur ", "wings"], ("fur", "wings")),
        (["fur\n", " wings", "caf\u00e9"], ("caf\u00e9", "fur", "wings")),
        ([0, 1, None], ("0", "1")),
        (["b", "a", ""], ("a", "b")),
        ([-1, 1], ("-1", "1")),
    ],
    ids=str,
)
def test_every_format_gives_the_same_classes(
    labels: list[Any], names: tuple[str, ...], tmp_path: Path
) -> None:
    held = set()
    for suffix in (".csv", ".jsonl", ".parquet"):
        save(tmp_path / f"rows{suffix}", rows_of(labels))
        data = spec(f"rows{suffix}")
        split = split_rows(read_rows(data, tmp_path), data)
        assert split.label_names == names
        assert split.classes is not None
        numbers = [split.classes.number(row["label"]) for row in split.train.rows]
        held.add((tuple(row["text"] for row in split.train.rows), tuple(numbers)))
        assert not any("written in" in note for note in split.notes)
    assert len(held) == 1


def test_parquet_holds_labels_in_many_types(tmp_path: Path) -> None:
    texts = [f"text {at}" for at in range(60)]
    labels = ["fur", "wings", "scales"] * 20
    columns = {
        "text": pyarrow.array(labels),
        "large": pyarrow.array(labels, pyarrow.large_string()),
        "categories": pyarrow.array(labels).dictionary_encode(),
        "bytes": pyarrow.array([label.encode() for label in labels], pyarrow.binary()),
    }
    for name, column in columns.items():
        pyarrow.parquet.write_table(
            pyarrow.table({"text": texts, "label": column}), tmp_path / f"{name}.parquet"
        )
        data = spec(f"{name}.parquet")
        split = split_rows(read_rows(data, tmp_path), data)
        assert split.label_names == ("fur", "scales", "wings")


def test_spellings_of_one_label_are_one_class_and_said() -> None:
    classes, notes = classes_of(["fur", "fur ", "Fur", "wings"])
    assert classes.names == ("fur", "wings")
    assert notes == (
        "label fur: written in 3 ways, taken as one class: 'fur' (15), 'fur ' (15), 'Fur' (15)",
    )
    mixed, notes = classes_of([True, "True", "true", 1, "1", 1.0, "1.0"])
    assert mixed.names == ("1", "true")
    assert [note.partition(":")[0] for note in notes] == ["label 1", "label true"]
    composed, _ = classes_of(["caf\u00e9", "cafe\u0301", "tea"])
    assert composed.names == ("caf\u00e9", "tea")


def test_labels_of_the_spec_give_the_spelling_and_may_differ_in_case() -> None:
    classes, _ = classes_of(["fur", "Wings"], labels=("WINGS", "fur "))
    assert classes.names == ("WINGS", "fur")
    assert classes.number("Wings ") == 0
    apart, notes = classes_of(["m", "M", "x"], labels=("m", "M"))
    assert apart.names == ("m", "M")
    assert [apart.number(label) for label in ("m", "M", "x")] == [0, 1, None]
    assert notes[0] == "20 of 60 rows left out by label: x (20)"
    truths, _ = classes_of([True, False], labels=[False, True])
    assert truths.names == ("false", "true")
    assert "named twice" in refusal(["1", "2"], labels=("1", "1.0"))


def test_what_is_no_class_is_refused_with_what_it_seems_to_be() -> None:
    for labels in ([0.2, 1.0, 3.4], ["0.2", "1", "3.4"], [float("inf"), 1.0], [1e-9, 1]):
        message = refusal(labels)
        assert "numbers that are not whole" in message
        assert "(regression) is not supported" in message
    assert "0.2 (20), 3.4 (20)" in refusal([0.2, 1.0, 3.4])
    listed, _ = classes_of([0.5, 1.0], labels=(0.5, 1.0))
    assert listed.names == ("0.5", "1")
    for lists in ([["fur"], ["fur", "wings"]], ["['fur']", "['fur', 'wings']"], ["[0, 1]", "[1]"]):
        message = refusal(lists)
        assert "holds lists or objects in 60 of 60 rows" in message
        assert "multi-label" in message
    assert "lists or objects" in refusal([np.array([1, 0]), np.array([0, 1])])
    assert "lists or objects" in refusal([{"name": "fur"}, {"name": "wings"}])
    names, _ = classes_of(["[other]", "gpt-3.5", "007", "1e5"])
    assert names.names == ("007", "1e5", "[other]", "gpt-3.5")


def test_gaps_are_no_label() -> None:
    for gap in (None, float("nan"), np.float32("nan"), "", "  "):
        classes, notes = classes_of(["a", "b", gap])
        assert classes.names == ("a", "b")
        assert "20 of 60 rows left out by label: no label (20)" in notes
    assert [label_of(value) for value in (np.int64(3), np.float32(2), np.True_, b"fur ")] == [
        "3",
        "2",
        "true",
        "fur",
    ]


def test_texts_in_the_label_column_are_told_in_a_short_message() -> None:
    message = refusal([f"word {at} " * 200 for at in range(60)])
    assert "no training row has the label" in message
    assert len(message) < 1000
    huge, _ = classes_of(["9" * 5000, "1"])
    assert len(huge.names) == 2


OWN = ("wings", "scales", "fur")


def test_the_base_names_and_numbers_its_classes_where_the_data_have_the_same() -> None:
    split = split_rows(Rows("made", {"all": rows_of(["Fur", "wings", "scales"])}), spec())
    assert split.label_names == ("Fur", "scales", "wings")
    same = with_names_of_base(split, OWN, spec())
    assert same.classes is not None
    assert same.label_names == OWN
    assert [same.classes.number(label) for label in ("wings", "scales", "Fur")] == [0, 1, 2]
    assert same.notes[-1] == (
        "classes have the names and the order of the base's own: wings, scales and fur"
    )
    for own in (("LABEL_0", "LABEL_1", "LABEL_2"), ("wings", "fur"), ()):
        assert with_names_of_base(split, own, spec()) == split
    others = with_names_of_base(split, ("a", "b", "c"), spec())
    assert others.classes == split.classes
    assert "names other classes (a, b and c)" in others.notes[-1]


def test_the_users_order_stays_and_numbers_are_those_of_the_base() -> None:
    notes: list[str] = []
    listed = find_classes("it", ["fur", "wings"], ("fur", "wings"), notes)
    assert as_in_base(listed, ("wings", "fur"), notes, listed=True) == listed
    assert "data.labels gives the classes another order than the base has" in notes[0]
    numbers = find_classes("it", [0, 1, 2], None, notes)
    assert as_in_base(numbers, OWN, notes, listed=False) == numbers
    assert "read as the class numbers of the base: wings, scales and fur" in notes[1]
    truths = find_classes("it", [True, False], None, notes)
    assert as_in_base(truths, ("True", "False"), notes, listed=False).numbers == {
        "true": 0,
        "false": 1,
    }
