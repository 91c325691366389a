"""Class labels: one normal form for csv, JSON and parquet, and the classes that they make.

A label is a text without spaces around it. Numbers are written without decimals (1.0 is 1),
truth values as true and false; labels that differ in letter case alone are one class.
"""

import ast
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from rankwise.data.tables import missing
from rankwise.errors import DataError
from rankwise.text import names as joined
from rankwise.text import nearest, shorten

MAX_CLASSES = 1000
LISTED = 12
WHOLE = re.compile(r"-?[0-9]{1,300}")
DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,299})(\.[0-9]+)?")
FLOAT = (float, np.floating)
GENERIC = re.compile(r"LABEL_[0-9]+")  # what transformers calls classes without a name


def label_of(value: Any) -> str | None:
    """A label in normal form; None where it is missing or blank."""
    if type(value) is str:
        return _normal(value)
    if missing(value):
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, FLOAT) and float(value).is_integer():
        value = int(value)
    return _normal(str(value))


@lru_cache(maxsize=4096)
def _normal(text: str) -> str | None:
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    if text.casefold() in ("true", "false"):
        return text.casefold()
    if DECIMAL.fullmatch(text):
        whole, _, decimals = text.partition(".")
        return text if decimals.strip("0") else str(int(whole))
    return text or None


@dataclass(frozen=True)
class Classes:
    """The classes of a study.

    Attributes:
        names: In the order of their numbers.
        numbers: The number of the class of each label, in the form that `label_of` gives it.
    """

    names: tuple[str, ...]
    numbers: Mapping[str, int]

    def number(self, value: Any) -> int | None:
        """The class of a label as the data have it; None where it is of none."""
        label = label_of(value)
        return None if label is None else self.numbers.get(label)


def find_classes(
    where: str, values: Sequence[Any], labels: Sequence[str] | None, notes: list[str]
) -> Classes:
    """The classes that the values of a label column make.

    Args:
        where: Column and source, for messages.
        values: As the data have them.
        labels: The labels to keep, in order (`data.labels`); all of them where None.
        notes: Is told of labels that were spelled in several ways.

    Raises:
        DataError: The column holds lists or numbers that are not whole, a label of the spec does
            not occur or is named twice, or there are fewer than 2 or more than 1,000.
    """
    listed = tuple(label_of(name) or name for name in labels or ())
    _refuse_lists(where, values)
    _refuse_fractions(where, values, listed)
    found = Counter(label for value in values if (label := label_of(value)) is not None)
    name_of = _spelled(found, listed)
    counts: Counter[str] = Counter()
    for label, n in found.items():
        counts[name_of[label]] += n
    told = listing(counts) or "no label at all"
    unknown = [name for name in listed if name not in counts]
    if unknown:
        raise DataError(
            f"data.labels: {where} has no {joined(unknown)}; found: {told}"
            + nearest(unknown[0], counts)
        )
    if len(set(listed)) < len(listed):
        raise DataError(f"data.labels: a label is named twice in {', '.join(listed)}")
    names = listed or in_order(counts)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            f"data.label: {where} gives {len(names)} labels ({told}); "
            f"classification needs 2 to {MAX_CLASSES}"
        )
    numbers = {label: names.index(name) for label, name in name_of.items() if name in names}
    _note_spellings(Classes(names, numbers), values, notes)
    return Classes(names, numbers)


def listing(counts: Counter[str]) -> str:
    """Labels with their counts, the commonest first."""
    told = ", ".join(f"{shorten(name, 40)} ({n})" for name, n in counts.most_common(LISTED))
    return f"{told} and {len(counts) - LISTED} more" if len(counts) > LISTED else told


def in_order(found: Iterable[str]) -> tuple[str, ...]:
    """The distinct labels in the order of their class ids: numbers by value, else by text."""
    names = sorted(set(found))
    if all(WHOLE.fullmatch(name) for name in names):
        names.sort(key=int)
    return tuple(names)


def _spelled(found: Iterable[str], listed: Sequence[str]) -> dict[str, str]:
    """The name of each label: as it is listed, or else as it is first spelled."""
    first: dict[str, str] = {}
    for name in (*listed, *found):
        first.setdefault(name.casefold(), name)
    return {name: name if name in listed else first[name.casefold()] for name in found}


def _refuse_lists(where: str, values: Sequence[Any]) -> None:
    held = [value for value in values if _is_list(value)]
    if held:
        raise DataError(
            f"data.label: {where} holds lists or objects in {len(held)} of {len(values)} rows, "
            f"such as {shorten(held[0])}; several labels for a row (multi-label classification) "
            "are not supported; give one label for each row"
        )


def _is_list(value: Any) -> bool:
    if isinstance(value, str):  # as a csv file holds a list
        text = value.strip()
        if not (text.startswith("[") and text.endswith("]")):
            return False
        try:
            return isinstance(ast.literal_eval(text), list)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return False
    return not isinstance(value, bytes) and hasattr(value, "__len__")


def _refuse_fractions(where: str, values: Sequence[Any], listed: Sequence[str]) -> None:
    found = Counter(
        label
        for value in values
        if (label := label_of(value)) is not None
        and not WHOLE.fullmatch(label)
        and (DECIMAL.fullmatch(label) or isinstance(value, FLOAT))
        and label not in listed
    )
    if found:
        raise DataError(
            f"data.label: {where} holds numbers that are not whole in {found.total()} of "
            f"{len(values)} rows: {listing(found)}; predicting a number (regression) is "
            "not supported; if these are names of classes, list them in data.labels"
        )


def _note_spellings(classes: Classes, values: Sequence[Any], notes: list[str]) -> None:
    """Say which labels were written in several ways."""
    written: dict[int, Counter[str]] = {}
    for value in values:
        number = classes.number(value)
        if number is not None:
            shown = repr(value) if isinstance(value, str) else str(value)
            written.setdefault(number, Counter())[shorten(shown, 40)] += 1
    for number, ways in sorted(written.items()):
        if len(ways) > 1:
            notes.append(
                f"label {shorten(classes.names[number], 40)}: written in {len(ways)} ways, "
                f"taken as one class: {listing(ways)}"
            )


def as_in_base(classes: Classes, own: Sequence[str], notes: list[str], listed: bool) -> Classes:
    """The classes with the names and numbers of the base's own classifier, where these agree.

    Args:
        classes: Of the data.
        own: The names of the base's classes by number, as many as the data have.
        notes: Is told what was done, or how the two differ.
        listed: Whether the user gave the order (`data.labels`), which then stays.
    """
    place = {(label_of(name) or name).casefold(): number for number, name in enumerate(own)}
    ours = [name.casefold() for name in classes.names]
    told = joined([shorten(name, 40) for name in own], most=LISTED)
    if set(place) != set(ours) or len(place) < len(own):
        if classes.names == tuple(map(str, range(len(own)))):
            notes.append(f"the labels are read as the class numbers of the base: {told}")
        elif not all(GENERIC.fullmatch(name) for name in own):
            notes.append(
                f"the base's configuration names other classes ({told}): its classifier is "
                "trained further, with the class names of the data"
            )
        return classes
    if listed and [place[name] for name in ours] != list(range(len(ours))):
        notes.append(
            f"data.labels gives the classes another order than the base has ({told}): the names "
            "in the base's own configuration do not fit what is trained"
        )
        return classes
    if tuple(own) == classes.names:
        return classes
    notes.append(f"classes have the names and the order of the base's own: {told}")
    return Classes(
        tuple(own), {label: place[ours[number]] for label, number in classes.numbers.items()}
    )
