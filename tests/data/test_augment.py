"""Augmentation adds to the training part alone, the same every time, and leaks nothing."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankwise.data.augment import augment_rows, change_words, check_augment
from rankwise.data.split import Part
from rankwise.errors import DataError
from rankwise.spec.models import AugmentSpec, DataSpec

TEXT = DataSpec(source="made", text="text", label="label")
SENTENCE = "The old king was dead, but the young cat sat on the mat and slept."
Write = Callable[[str, Any], Path]


def part(n: int = 20) -> Part:
    rows = [{"text": f"{SENTENCE} It was day {at}.", "label": "ab"[at % 2]} for at in range(n)]
    return Part(tuple(rows), np.arange(n, dtype=np.int64) // 2)


def augmented(data: DataSpec = TEXT, train: Part | None = None, **spec: Any) -> Part:
    return augment_rows(train or part(), AugmentSpec(**spec), data, [])[0]


def refusal(data: DataSpec = TEXT, base: Path = Path(), **spec: Any) -> str:
    with pytest.raises(DataError) as caught:
        augment_rows(part(), AugmentSpec(**spec), data, [], base)
    return str(caught.value)


def test_threefold_is_the_rows_and_two_changed_copies_of_each() -> None:
    train = part()
    more = augmented(factor=3)
    assert more.rows[:20] == train.rows
    assert len(more) == 60
    for copy in (1, 2):
        copies = more.rows[20 * copy : 20 * copy + 20]
        assert [row["label"] for row in copies] == [row["label"] for row in train.rows]
        assert all(
            one["text"] != other["text"] for one, other in zip(copies, train.rows, strict=True)
        )
        assert more.groups[20 * copy : 20 * copy + 20].tolist() == train.groups.tolist()
    assert len({row["text"] for row in more.rows}) == 60


def test_copies_depend_on_the_seed_alone() -> None:
    assert augmented(factor=2).rows == augmented(factor=2).rows
    assert augmented(factor=2).rows != augmented(factor=2, seed=1).rows
    # a larger factor goes on where the smaller one stopped
    assert augmented(factor=3).rows[:40] == augmented(factor=2).rows


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_operations_do_what_they_are_called(seed: int, share: float) -> None:
    def changed(operation: str) -> list[str]:
        rng = np.random.default_rng(seed)
        return change_words(SENTENCE, operation, share, rng).split()

    words = SENTENCE.split()
    times = max(1, round(share * len(words)))
    assert Counter(changed("swap")) == Counter(words)
    dropped = changed("drop")
    assert len(dropped) == len(words) - times
    assert not Counter(dropped) - Counter(words)
    inserted = changed("insert")
    assert len(inserted) == len(words) + times
    assert [word for word in inserted if word not in tuple(".;?:!,")] == words


def test_a_single_swap_exchanges_two_words() -> None:
    words = SENTENCE.split()
    new = change_words(SENTENCE, "swap", 0.01, np.random.default_rng(0)).split()
    assert sum(one != other for one, other in zip(words, new, strict=True)) == 2


def test_the_lines_of_a_text_stay() -> None:
    text = "ACT I\n\nFRANCISCO\nWho's there?\n\nBERNARDO\nNay, answer me.\n"
    rng = np.random.default_rng(0)
    for operation in ("swap", "drop", "insert"):
        for _ in range(20):
            new = change_words(text, operation, 0.3, rng)
            assert new.count("\n") == text.count("\n")
            assert "  " not in new
            assert "\n " not in new


def test_a_text_too_short_to_change_makes_no_copy() -> None:
    train = Part(({"text": "yes", "label": "a"}, {"text": "no", "label": "b"}), np.arange(2))
    more, notes = augment_rows(train, AugmentSpec(factor=3), TEXT, [])
    assert more.rows == train.rows
    assert notes == [
        "train: 2 rows augmented to 2 (factor 3); 4 copies equal to their row left out"
    ]


def test_a_copy_that_repeats_a_held_out_row_is_dropped_and_counted() -> None:
    train = Part(({"text": "green eggs and ham", "label": "a"},), np.arange(1))
    function_free = AugmentSpec(factor=9, operations=("drop",), share=0.25)
    free, _ = augment_rows(train, function_free, TEXT, [])
    held = [{"text": "Eggs and ham!", "label": "b"}]
    more, notes = augment_rows(train, function_free, TEXT, held)
    leaked = sum(row["text"] == "eggs and ham" for row in free.rows)
    assert leaked > 0
    assert len(more) == len(free) - leaked
    assert all(row["text"] != "eggs and ham" for row in more.rows)
    assert f"{leaked} copies that repeat a held-out row left out" in notes[0]


def test_a_template_writes_a_new_text_from_the_columns() -> None:
    more = augmented(factor=2, template="Review: {text} ({label})")
    assert more.rows[20]["text"] == f"Review: {SENTENCE} It was day 0. (a)"
    message = refusal(factor=2, template="{txt}")
    assert "KeyError: 'txt'; columns of the row: text, label" in message
    assert "one new row of each row; use factor: 2" in refusal(factor=3, template="{text}")
    chat = DataSpec(source="made", messages="m")
    assert "conversations (data.messages) have no column" in refusal(chat, factor=2, template="{m}")


def test_only_what_is_asked_is_changed() -> None:
    row = {"q": SENTENCE, "a": "the answer stays as it was"}
    pairs = DataSpec(source="made", prompt="q", completion="a")
    (_, new) = augmented(pairs, Part((row,), np.arange(1)), factor=2).rows
    assert new["a"] == row["a"]
    assert new["q"] != row["q"]
    chat = {
        "m": [{"role": "user", "content": SENTENCE}, {"role": "assistant", "content": SENTENCE}]
    }
    data = DataSpec(source="made", messages="m")
    (old, new) = augmented(data, Part((chat,), np.arange(1)), factor=2).rows
    assert old == chat
    assert new["m"][1] == chat["m"][1]
    assert new["m"][0]["content"] != SENTENCE


def test_a_users_function_makes_the_copies(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "def shout(row, rng):\n"
        "    row['text'] = row['text'].upper() + '!' * int(rng.integers(1, 9))\n"
        "    return row\n"
        "def broken(row, rng):\n    return row['nothing']\n"
        "def none(row, rng):\n    pass\n"
        "def relabel(row, rng):\n    return {**row, 'label': 'c'}\n"
        "def lose(row, rng):\n    return {'label': row['label']}\n"
    )
    write("own_changes.py", code)
    train = part()
    spec = AugmentSpec(factor=2, function="own_changes.py:shout")
    more, _ = augment_rows(train, spec, TEXT, [], tmp_path)
    assert train.rows[0]["text"].startswith(SENTENCE)
    assert more.rows[20]["text"].startswith(SENTENCE.upper())
    monkeypatch.syspath_prepend(tmp_path)
    spec = AugmentSpec(factor=2, function="own_changes:shout")
    assert augment_rows(train, spec, TEXT, [])[0].rows == more.rows
    for name, told in {
        "own_changes.py:broken": "own_changes.py, line 5: KeyError",
        "own_changes.py:none": "returned NoneType, not a row",
        "own_changes.py:relabel": "changed the label",
        "own_changes.py:lose": "in column text",
        "own_changes.py:shot": "no function shot; functions there: shout",
        "own_changes:shot": "no function shot; functions there: shout",
        "no_such_module:f": "No module named 'no_such_module'",
        "nothing": "neither module:function nor FILE.py:function",
    }.items():
        assert told in refusal(base=tmp_path, factor=2, function=name)


def test_what_cannot_be_done_is_refused_before_rows_are_read() -> None:
    check_augment(AugmentSpec(factor=3), TEXT)
    check_augment(AugmentSpec(function="no_such_module:f"), TEXT)  # factor 1: it is not used
    for wrong in (
        {"function": "no_such_module:f"},
        {"function": "missing.py:f"},
        {"template": "{text}", "factor": 3},
    ):
        with pytest.raises(DataError):
            check_augment(AugmentSpec(**{"factor": 2, **wrong}), TEXT)
