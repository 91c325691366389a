"""More training rows, made from those there are; held-out rows are only compared with them.

Word-level operations are those of EDA (Wei and Zou 2019, "EDA: Easy Data Augmentation Techniques
for Boosting Performance on Text Classification Tasks", section 2): random swap and random
deletion, each on a share of the words. `insert` puts punctuation marks between words (AEDA: Karimi,
Rossi and Prati 2021). Spaces and line ends between words stay as they are.
"""

import copy
import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.data.messages import normal_row
from rankwise.data.rows import full_texts, repeated, words_of
from rankwise.data.sources import FUNCTION, function_of, load_function, user_error
from rankwise.data.split import Part
from rankwise.data.tables import Row, find_path
from rankwise.errors import DataError
from rankwise.reading import Malformed
from rankwise.spec.models import AugmentSpec, DataSpec, columns_of
from rankwise.text import columns_words, shorten

MARKS = (".", ";", "?", ":", "!", ",")  # those of AEDA
PARTS = re.compile(r"\S+|\s+")
Change = Callable[[Row, np.random.Generator], Row]
HERE = Path()


def augment_rows(
    train: Part,
    augment: AugmentSpec,
    data: DataSpec,
    held_out: Sequence[Row],
    base_dir: Path = HERE,
) -> tuple[Part, list[str]]:
    """The training rows followed by `factor - 1` changed copies of each, and notes.

    A copy depends on the seed, its number, and its row and place alone. Copies that repeat a
    held-out row (as `data.near_duplicates` has it) are dropped and counted, as are copies that
    are equal to the row they were made from.

    Args:
        train: the training part; copies take the group of their row.
        augment: what to do.
        data: which columns hold text. Of prompt and completion, or input and target, only the
            prompt or input is changed; of conversations only the user's messages.
        held_out: validation and test rows.
        base_dir: where a relative FILE.py of `augment.function` lies.

    Raises:
        DataError: a template names a column that does not exist, or a function cannot be found,
            fails, or returns no row.
    """
    change = _change(augment, data, base_dir)
    made: list[Row] = []
    groups: list[int] = []
    same = 0
    for number in range(1, augment.factor):
        for at, (row, group) in enumerate(zip(train.rows, train.groups, strict=True)):
            # one generator for each copy of each row, so that no copy depends on another
            rng = np.random.Generator(np.random.SFC64([augment.seed, number, at]))
            new = change(row, rng)
            if new == row:
                same += 1
                continue
            made.append(new)
            groups.append(int(group))
    leaked = _leaked(made, held_out, data)
    kept = [at for at in range(len(made)) if at not in leaked]
    part = Part(
        (*train.rows, *(made[at] for at in kept)),
        np.concatenate([train.groups, np.array([groups[at] for at in kept], dtype=np.int64)]),
    )
    return part, [_told(train, part, augment, same, len(leaked))]


def check_augment(augment: AugmentSpec, data: DataSpec, base_dir: Path = HERE) -> None:
    """Refuse what `augment_rows` could not do, before any row or model is loaded.

    Raises:
        DataError: a function cannot be found, or a template does not fit the factor or the shape
            of the data.
    """
    if augment.factor > 1:
        _change(augment, data, base_dir)


def _told(train: Part, part: Part, augment: AugmentSpec, same: int, leaked: int) -> str:
    note = f"train: {len(train)} rows augmented to {len(part)} (factor {augment.factor})"
    if same:
        note += f"; {same} copies equal to their row left out"
    if leaked:
        note += f"; {leaked} copies that repeat a held-out row left out"
    return note


def _leaked(made: Sequence[Row], held_out: Sequence[Row], data: DataSpec) -> set[int]:
    """Places of copies that repeat a held-out row."""
    new = list(full_texts(made, data))
    found = repeated(new, full_texts(held_out, data), data.near_duplicates)
    # of equal copies `near` names the first one only
    gone = {tuple(words_of(new[at])) for at in (*found.exact, *found.near)}
    return {at for at, text in enumerate(new) if tuple(words_of(text)) in gone}


def _change(augment: AugmentSpec, data: DataSpec, base_dir: Path) -> Change:
    if augment.function is not None:
        return _by_function(augment.function, data, base_dir)
    if augment.template is not None:
        return _by_template(augment, data)

    def change_row(row: Row, rng: np.random.Generator) -> Row:
        operation = augment.operations[int(rng.integers(len(augment.operations)))]

        def change_text(text: str) -> str:
            return change_words(text, operation, augment.share, rng)

        return _with_texts(row, data, change_text)

    return change_row


def _changed_column(data: DataSpec) -> str | None:
    """The column that is changed: the text, the prompt or the input; None for conversations."""
    return data.text or data.prompt or data.input


def _with_texts(row: Row, data: DataSpec, change: Callable[[str], str]) -> Row:
    column = _changed_column(data)
    if column is not None:
        return {**row, column: change(row[column])}
    assert data.messages is not None
    messages = [
        {**message, "content": change(message["content"])} if message["role"] == "user" else message
        for message in row[data.messages]
    ]
    return {**row, data.messages: messages}


def change_words(
    text: str,
    operation: str,
    share: float,
    rng: np.random.Generator,
) -> str:
    """`text` with one operation applied to `share` of its words, at least one.

    A text with too few words for the operation comes back as it was.
    """
    parts = PARTS.findall(text)
    words = [at for at, part in enumerate(parts) if not part.isspace()]
    times = max(1, round(share * len(words)))
    return OPERATIONS[operation](parts, words, times, rng)


def _swap(parts: list[str], words: list[int], times: int, rng: np.random.Generator) -> str:
    """Two words drawn at random change places, `times` times."""
    for _time in range(times if len(words) > 1 else 0):
        one, other = (words[int(at)] for at in rng.choice(len(words), size=2, replace=False))
        parts[one], parts[other] = parts[other], parts[one]
    return "".join(parts)


def _drop(parts: list[str], words: list[int], times: int, rng: np.random.Generator) -> str:
    """`times` words are removed, each with a space beside it; one word always stays."""
    times = min(times, len(words) - 1)
    for at in sorted(words[int(at)] for at in rng.choice(len(words), times, replace=False)):
        parts[at] = ""
        # the space before it, or after it at the start of a line; never a line end
        for near in (at - 1, at + 1):
            if 0 <= near < len(parts) and parts[near] and "\n" not in parts[near]:
                parts[near] = ""
                break
    return "".join(parts)


def _insert(parts: list[str], words: list[int], times: int, rng: np.random.Generator) -> str:
    """Before each of `times` words a punctuation mark of AEDA's six."""
    for at in rng.choice(len(words), min(times, len(words)), replace=False):
        mark = MARKS[int(rng.integers(len(MARKS)))]
        parts[words[int(at)]] = f"{mark} {parts[words[int(at)]]}"
    return "".join(parts)


OPERATIONS: dict[str, Callable[[list[str], list[int], int, np.random.Generator], str]] = {
    "swap": _swap,
    "drop": _drop,
    "insert": _insert,
}


def _by_template(augment: AugmentSpec, data: DataSpec) -> Change:
    template = augment.template
    column = _changed_column(data)
    assert template is not None
    if column is None:
        raise DataError(
            "data.augment.template: conversations (data.messages) have no column for the new text; "
            "use data.augment.function"
        )
    if augment.factor > 2:
        raise DataError(
            f"data.augment.factor: {augment.factor} with a template, which makes one new row of "
            "each row; use factor: 2"
        )

    def change_row(row: Row, rng: np.random.Generator) -> Row:
        try:
            return {**row, column: template.format_map(row)}
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise DataError(
                f"data.augment.template: {shorten(template)}: {type(error).__name__}: {error}; "
                f"columns of the row: {columns_words(row)}"
            ) from error

    return change_row


def _by_function(name: str, data: DataSpec, base_dir: Path) -> Change:
    function = _user_function(name, base_dir)

    def change_row(row: Row, rng: np.random.Generator) -> Row:
        try:
            new = function(copy.deepcopy(row), rng)
        except Exception as error:
            raise DataError(f"data.augment.function: {name}: {user_error(error)}") from error
        if not isinstance(new, dict):
            raise DataError(
                f"data.augment.function: {name} returned {type(new).__name__}, not a row (a dict)"
            )
        for field in columns_of(data):
            column = getattr(data, field)
            if type(new.get(column)) is not type(row[column]):
                raise DataError(
                    f"data.augment.function: {name} returned {shorten(new.get(column))} "
                    f"in column {column}, where the row had {shorten(row[column])}"
                )
        if data.label is not None and new[data.label] != row[data.label]:
            raise DataError(
                f"data.augment.function: {name} changed the label; only text may change"
            )
        try:
            return normal_row(new, data)
        except Malformed as error:
            raise DataError(f"data.augment.function: a row that {name} returned: {error}") from None

    return change_row


def _user_function(name: str, base_dir: Path) -> Callable[..., Any]:
    in_file = FUNCTION.fullmatch(name)
    if in_file:
        return load_function(find_path(in_file["file"], base_dir), in_file["name"])
    module_name, colon, function_name = name.partition(":")
    if not colon:
        raise DataError(
            f"data.augment.function: {name} is neither module:function nor FILE.py:function"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise DataError(f"data.augment.function: {name}: {error}") from error
    return function_of(module, function_name, f"data.augment.function: {module_name}")
