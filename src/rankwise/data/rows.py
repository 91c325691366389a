"""Which rows can be used: their columns, text and labels, and whether they repeat another row.

Rows that are left out are counted in a note; a column or label that is missing is a `DataError`.
Near duplicates are found exactly, not by sampling hashes: an inverted index over the rarest
3-grams of each held-out text (prefix filtering: Chaudhuri, Ganti and Kaushik 2006, "A Primitive
Operator for Similarity Joins in Data Cleaning").
"""

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from typing import Any, NamedTuple

from rankwise.data.formats import columns_of_formats
from rankwise.data.labels import Classes, find_classes, label_of, listing
from rankwise.data.messages import TOOLS, normal_row, seen_of
from rankwise.data.sources import Rows
from rankwise.data.tables import Row, missing
from rankwise.errors import DataError
from rankwise.reading import Faults, Malformed
from rankwise.spec.models import AugmentSpec, DataSpec, columns_of
from rankwise.text import columns_words, nearest, shorten


def usable_rows(rows: Rows, data: DataSpec) -> Rows:
    """`rows` without those that are malformed, have an empty text, or a label that is not kept.

    Conversations come out in normal form (`messages.py`), with the classes of the labels.

    Raises:
        DataError: a column or a label of the spec is not in the data, a larger share of the rows
            than `data.malformed_rows` is malformed, or nothing is left.
    """
    notes = list(rows.notes)
    _check_columns(rows, data)
    parts = _well_formed(rows, data, notes)
    for name, part in parts.items():
        parts[name] = _with_text(part, data, _of(rows, name), notes)
    classes = None
    if data.label is not None and any(parts.values()):
        values = [row.get(data.label) for part in parts.values() for row in part]
        where = f"column {data.label} of {rows.source}"
        classes = find_classes(where, values, data.labels, notes)
        for name, part in parts.items():
            parts[name] = _with_label(part, data.label, classes, _of(rows, name), notes)
    if not any(parts.values()):
        raise DataError(f"data: no row of {rows.source} can be used: {'; '.join(notes)}")
    return replace(rows, parts=parts, numbers=None, notes=tuple(notes), classes=classes)


def _of(rows: Rows, part: str) -> str:
    return "" if len(rows.parts) == 1 else f"{part}: "


def _check_columns(rows: Rows, data: DataSpec) -> None:
    """Refuse a spec that names a column which no row has."""
    every = (column for part in rows.parts.values() for row in part for column in row)
    found = list(dict.fromkeys(every) if rows.columns is None else rows.columns)
    for field, column in _named_columns(data).items():
        if column in found or not found:
            continue
        hint = shorten(nearest(column, found, most=3), 200)
        if len(found) == 1 and any(mark in found[0] for mark in ";\t|"):
            hint = "; the suffix of the file seems wrong: its fields have another delimiter"
        raise DataError(
            f"data.{field}: {rows.source} has no column {column}; "
            f"its columns: {columns_words(found)}{hint}"
        )


def needed_columns(data: DataSpec, augments: Iterable[AugmentSpec]) -> frozenset[str] | None:
    """The columns that a study reads; None for all: a template or a function may read any."""
    if any(augment.template or augment.function for augment in augments):
        return None
    return frozenset([*_named_columns(data).values(), TOOLS, *columns_of_formats(data)])


def hash_of(rows: Rows) -> str:
    """The sha256 of the rows as they were read, with their numbers in the source."""
    digest = hashlib.sha256(json.dumps([rows.source, rows.faults.count]).encode())
    encode = json.JSONEncoder(sort_keys=True, default=str).encode
    for name, part in rows.parts.items():
        numbers = rows.numbers[name] if rows.numbers is not None else range(1, len(part) + 1)
        for number, row in zip(numbers, part, strict=True):
            digest.update(f"{name} {number} {encode(row)}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _named_columns(data: DataSpec) -> dict[str, str]:
    """The columns that the spec names, by the field that names them."""
    named = {field: getattr(data, field) for field in columns_of(data)}
    return named if data.split.by is None else {**named, "split.by": data.split.by}


def _well_formed(rows: Rows, data: DataSpec, notes: list[str]) -> dict[str, list[Row]]:
    """The rows without malformed ones, conversations in normal form; where few enough are so.

    Raises:
        DataError: A larger share than `data.malformed_rows` is malformed.
    """
    faults = Faults(rows.faults.count, list(rows.faults.first))
    texts = [getattr(data, field) for field in columns_of(data) if field not in UNLIKE_TEXT]
    needed = list(_named_columns(data).values())
    parts: dict[str, list[Row]] = {}
    total = faults.count + sum(map(len, rows.parts.values()))
    for name, part in rows.parts.items():
        unit = rows.unit if len(rows.parts) == 1 else f"{name}, {rows.unit}"
        kept = parts[name] = []
        numbers = range(1, len(part) + 1) if rows.numbers is None else rows.numbers[name]
        for number, row in zip(numbers, part, strict=True):
            try:
                _check_row(row, needed, texts)
                kept.append(normal_row(row, data))
            except Malformed as error:
                faults.add(f"{unit} {number}", error)
    _judge(rows.source, faults, total, data.malformed_rows, notes)
    return parts


UNLIKE_TEXT = ("label", "messages")


def _check_row(row: Row, needed: Sequence[str], texts: Sequence[str]) -> None:
    for column in needed:
        if column not in row:
            raise Malformed(f"no column {column}, only {shorten(', '.join(row)) or 'none'}")
    for column in texts:
        value = row[column]
        if not isinstance(value, str) and not missing(value):
            kind = type(value).__name__
            raise Malformed(f"column {column} holds {kind} {shorten(value)}, not text")


def _judge(source: str, faults: Faults, total: int, share: float, notes: list[str]) -> None:
    """Refuse too many malformed rows; note those that are left out."""
    if not faults.count:
        return
    found = f"{faults.count:,} of {total:,} rows {'is' if faults.count == 1 else 'are'} malformed"
    if faults.count > share * total:
        least = math.ceil(1e4 * faults.count / total) / 1e4
        remedy = f"or set data.malformed_rows: {least:g} to leave them out" if least < 1 else ""
        allowed = f" (data.malformed_rows allows a share of {share:g})"
        raise DataError(
            f"data.source: {source}, {faults.told()}: {found}{allowed}; mend the rows"
            + (f", {remedy}" if remedy else "")
        )
    notes.append(f"{found} and left out (data.malformed_rows: {share:g}): {faults.told()}")


def _with_text(rows: list[Row], data: DataSpec, of: str, notes: list[str]) -> list[Row]:
    if data.messages is not None:
        filled = [row for row in rows if row[data.messages]]
    else:
        texts = [getattr(data, field) for field in columns_of(data) if field != "label"]
        filled = [row for row in rows if all(_has_text(row[column]) for column in texts)]
    if len(filled) < len(rows):
        notes.append(
            f"{of}{len(rows) - len(filled)} of {len(rows)} rows with an empty text left out"
        )
    return filled


def _has_text(value: Any) -> bool:
    return isinstance(value, str) and not (not value or value.isspace())


def _with_label(
    rows: list[Row], column: str, classes: Classes, of: str, notes: list[str]
) -> list[Row]:
    labelled = [row for row in rows if classes.number(row.get(column)) is not None]
    others = Counter(
        label_of(row.get(column)) or "no label"
        for row in rows
        if classes.number(row.get(column)) is None
    )
    if others:
        notes.append(
            f"{of}{len(rows) - len(labelled)} of {len(rows)} rows left out by label: "
            f"{listing(others)}"
        )
    return labelled


def full_texts(rows: Iterable[Row], data: DataSpec) -> Iterator[str]:
    """All the text of each row that a model reads or writes, for comparing rows."""
    if data.messages is not None:
        yield from (seen_of(row, data) for row in rows)
        return
    columns = [getattr(data, field) for field in columns_of(data) if field != "label"]
    for row in rows:
        yield "\n".join(row[column] for column in columns)


# Scripts written without spaces: there a character stands for a word.
UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")

Shingle = tuple[str, ...]


def words_of(text: str) -> list[str]:
    """The words of a text without case and punctuation; a text without words is its own word."""
    return WORD.findall(text.casefold()) or [text.strip()]


def shingles_of(words: Shingle) -> frozenset[Shingle]:
    """The set of word 3-grams of a text; for fewer than three words the words together."""
    if len(words) < 3:
        return frozenset([words])
    return frozenset(zip(words, words[1:], words[2:], strict=False))


class Repeats(NamedTuple):
    """Places of texts that repeat another, ascending; a place is in one list at most.

    `exact` equal an earlier text but for case, punctuation and spacing, `near` share nearly all
    word 3-grams with one, `within` equal a text before them in the list itself.
    """

    exact: list[int]
    near: list[int]
    within: list[int]


def repeated(texts: Iterable[str], earlier: Iterable[str], distance: float) -> Repeats:
    """Which of `texts` repeat one of `earlier`, or one another; see `Comparison`."""
    held = Comparison(texts, distance)
    for text in earlier:
        words = tuple(words_of(text))
        held.see(words, shingles_of(words))
    return held.repeats()


class Comparison:
    """Held-out texts, compared with earlier texts that are seen one by one and not kept.

    Args:
        texts: The held-out texts.
        distance: Jaccard distance of the word 3-grams below which two texts are near duplicates;
            0 means that only equal texts count.
    """

    def __init__(self, texts: Iterable[str], distance: float) -> None:
        self.threshold = 1 - distance
        self.places: dict[Shingle, list[int]] = defaultdict(list)
        for at, text in enumerate(texts):
            self.places[tuple(words_of(text))].append(at)
        self.known: set[Shingle] = set()
        self.near: set[Shingle] = set()
        self.sets = {words: shingles_of(words) for words in self.places if distance}
        self.counts = Counter(shingle for shingles in self.sets.values() for shingle in shingles)
        self.index: dict[Shingle, list[Shingle]] = defaultdict(list)
        for words, shingles in self.sets.items():
            for shingle in _rarest(shingles, len(shingles), self.counts, self.threshold):
                self.index[shingle].append(words)

    def see(self, words: Shingle, shingles: frozenset[Shingle]) -> None:
        """Compare with an earlier text, its words and its 3-grams.

        If the similarity of x and y is at least t, they share at least t*|x| and t*|y| elements,
        so in any common order the first |x| - ceil(t*|x|) + 1 of x and the same of y share one.
        """
        if words in self.places:
            self.known.add(words)
        # 3-grams that no held-out text has are the rarest of all and fill the prefix first
        seen = self.counts.keys() & shingles
        if not seen or len(seen) < self.threshold * len(shingles):
            return
        for shingle in _rarest(seen, len(shingles), self.counts, self.threshold):
            for held in self.index.get(shingle, ()):
                if held not in self.near and _jaccard(self.sets[held], shingles) > self.threshold:
                    self.near.add(held)

    def repeats(self) -> Repeats:
        """Which of the held-out texts repeat one that was seen, or one another."""
        found = Repeats([], [], [])
        for words, places in self.places.items():
            if words in self.known:
                found.exact.extend(places)
                continue
            found.within.extend(places[1:])
            if words in self.near:
                found.near.append(places[0])
        for kind in found:
            kind.sort()
        return found


def _rarest(
    shingles: Set[Shingle],
    size: int,
    counts: Counter[Shingle],
    threshold: float,
) -> list[Shingle]:
    """The part of `shingles` that lies in the prefix of a set of `size`, rarest first."""
    # 1e-9: the product may be a whole number that rounding error lifts above itself
    length = size - math.ceil(threshold * size - 1e-9) + 1 - (size - len(shingles))
    return sorted(shingles, key=lambda shingle: (counts[shingle], shingle))[: max(length, 0)]


def _jaccard(x: frozenset[Shingle], y: frozenset[Shingle]) -> float:
    shared = len(x & y)
    return shared / (len(x) + len(y) - shared)
