"""The split into training, validation (compares configurations) and test (read once, at the end).

Rows are split before anything else is done to them. Held-out rows that repeat a training row are
removed, so that scores are measured on text that was not trained on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankwise.data.labels import LISTED, Classes, as_in_base
from rankwise.data.order import permutation
from rankwise.data.rows import Comparison, full_texts, shingles_of, usable_rows, words_of
from rankwise.data.sources import WHOLE, Rows
from rankwise.data.tables import Row
from rankwise.errors import DataError
from rankwise.spec.models import DataSpec, SplitSpec
from rankwise.text import names as joined
from rankwise.text import nearest, shorten


def text_regions(text: str, split: SplitSpec) -> tuple[str, str, str]:
    """The regions of `text` by the shares of `split`, cut at line ends; training comes first.

    Raises:
        DataError: a held-out part is no share, validation is 0, or no text is left for training.
    """
    validation, test = _share("validation", split), _share("test", split)
    if not validation:
        raise DataError(
            "data.split.validation: 0; configurations are compared on validation text, so use a "
            "share such as 0.1"
        )
    if validation + test >= 1:
        raise DataError(
            f"data.split: validation {validation} and test {test} leave no text for training; "
            "their sum must be below 1"
        )
    start = _line_end(text, round(len(text) * (1 - (validation + test))))
    middle = _line_end(text, round(len(text) * (1 - test)))
    return text[:start], text[start:middle], text[middle:]


def _share(side: str, split: SplitSpec) -> float:
    share = getattr(split, side)
    if isinstance(share, float) or share == 0:
        return float(share)
    raise DataError(
        f"data.split.{side}: {share} for one text; a text is split by shares such as 0.1"
    )


def _line_end(text: str, near: int) -> int:
    """The position after the last line end at or before `near`, or `near` in a text of one line."""
    return text.rfind("\n", 0, near) + 1 or near


IntArray = NDArray[np.int64]

# Rows of one group are not independent, so few groups give wide intervals however many rows they
# have. A held-out part takes at least this many groups, but at most a fifth of all.
MIN_GROUPS = 10
HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Part:
    """One side of a split: E rows, and `groups` (E,), equal where rows belong together.

    While rows are split, `texts` (E,) is equal where rows have the same words.
    """

    rows: tuple[Row, ...]
    groups: IntArray
    texts: IntArray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: Sequence[int] | IntArray) -> "Part":
        """The rows at `places`, in that order."""
        chosen = np.asarray(places, dtype=np.int64)
        texts = None if self.texts is None else self.texts[chosen]
        return Part(tuple(self.rows[at] for at in chosen), self.groups[chosen], texts)


@dataclass(frozen=True)
class Split:
    """The three parts. `one_text`: each is a single row, a region of one long text."""

    train: Part
    validation: Part
    test: Part
    classes: Classes | None
    one_text: bool
    notes: tuple[str, ...]

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of their numbers; None where there are none."""
        return None if self.classes is None else self.classes.names


def split_rows(rows: Rows, data: DataSpec) -> Split:
    """Leave out what cannot be used, hold rows out, and remove held-out rows seen in training.

    Raises:
        DataError: a column or label is missing, the split asks for more rows than there are, or
            a required part is empty.
    """
    rows = usable_rows(rows, data)
    notes = list(rows.notes)
    if rows.one_text:
        parts = _split_text(rows, data, notes)
    else:
        parts = _split_parts(rows, data, notes)
        parts = _without_repeats(parts, data, notes)
    train, validation, test = parts
    if not len(train):
        raise DataError(f"data.split: no training row is left; {'; '.join(notes)}")
    _note_classes(parts, rows.classes, data, notes)
    return Split(train, validation, test, rows.classes, rows.one_text, tuple(notes))


def with_names_of_base(split: Split, own: Sequence[str], data: DataSpec) -> Split:
    """The split with its classes named and numbered as the base's own, where these agree.

    Args:
        split: As `split_rows` made it.
        own: The names of the base's classes in the order of their numbers; those of another
            number of classes say nothing.
        data: Its `labels` keep their order.
    """
    if split.classes is None or len(own) != len(split.classes.names):
        return split
    notes = list(split.notes)
    classes = as_in_base(split.classes, own, notes, listed=data.labels is not None)
    return replace(split, classes=classes, notes=tuple(notes))


def _split_parts(rows: Rows, data: DataSpec, notes: list[str]) -> tuple[Part, Part, Part]:
    pool_name = _pool_name(rows, data.split)
    group_ids: dict[object, int] = {}
    named = {name: _grouped(part, data, group_ids) for name, part in rows.parts.items()}
    pool = named[pool_name]
    held: dict[str, Part] = {}
    sizes: dict[str, int] = {}
    for side in HELD_OUT:
        asked = getattr(data.split, side)
        if isinstance(asked, str):
            held[side] = _named(rows, named, side, asked, pool_name)
        else:
            sizes[side] = asked if isinstance(asked, int) else round(asked * len(pool))
    _check_sizes(rows.source, sizes, len(pool), data.split)
    unused = sorted(set(named) - {pool_name, *(getattr(data.split, side) for side in HELD_OUT)})
    if unused:
        notes.append(f"splits of {rows.source} that are not used: {', '.join(unused)}")
    left = pool
    for side, size in sizes.items():
        held[side], left = _hold_out(left, size, side, data, notes)
    if data.split.by is not None:
        left = _without_groups(left, held, data.split, notes)
    return left, held["validation"], held["test"]


def _pool_name(rows: Rows, split: SplitSpec) -> str:
    """The hub split that is trained on, or the only part there is."""
    names = list(rows.parts)
    if names == [WHOLE]:
        asked = [
            value for value in (split.train, split.validation, split.test) if isinstance(value, str)
        ]
        if asked:
            raise DataError(
                f"data.split: {rows.source} has no named splits, but the spec names {asked[0]}; "
                "give counts or shares"
            )
        return WHOLE
    pool = split.train or ("train" if "train" in names else names[0])
    if pool not in names or (split.train is None and pool != "train" and len(names) > 1):
        raise DataError(
            f"data.split.train: name the split to train on; {rows.source} has {', '.join(names)}"
        )
    return pool


def _named(rows: Rows, named: dict[str, Part], side: str, split: str, pool: str) -> Part:
    if split not in named:
        raise DataError(
            f"data.split.{side}: {rows.source} has no split {split}; "
            f"its splits: {', '.join(named)}{nearest(split, named)}"
        )
    if split == pool:
        raise DataError(f"data.split.{side}: {split} is the split that is trained on; name another")
    return named[split]


def _grouped(rows: list[Row], data: DataSpec, ids: dict[object, int]) -> Part:
    """Rows with a number for their group: the value of `by`, or each row its own."""
    if data.split.by is None:
        keys: list[object] = list(range(len(ids), len(ids) + len(rows)))
    else:
        keys = [str(row.get(data.split.by)) for row in rows]
    groups = [ids.setdefault(key, len(ids)) for key in keys]
    return Part(tuple(rows), np.array(groups, dtype=np.int64), _text_numbers(rows, data))


def _text_numbers(rows: list[Row], data: DataSpec) -> IntArray:
    """A number for the words of each row, (E,): 64 bits of a hash, for 200,000 texts the same by
    chance with a probability of 1e-9."""
    texts = (" ".join(words_of(text)).encode() for text in full_texts(rows, data))
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def _check_sizes(source: str, sizes: dict[str, int], available: int, split: SplitSpec) -> None:
    total = sum(sizes.values())
    if total >= available:
        asked = " and ".join(f"{side} {getattr(split, side)}" for side in sizes)
        raise DataError(
            f"data.split: {asked} make {total} held-out rows, but {source} has {available} "
            "usable rows, and some must remain for training; hold fewer out"
        )
    if sizes.get("test") == 0 and split.test:
        raise DataError(
            f"data.split.test: {split.test} of {available} rows is less than one row; use a larger "
            "value, or 0 for no test"
        )
    if sizes.get("validation") == 0:
        raise DataError(
            f"data.split.validation: {split.validation} of {available} rows is less than one row; "
            "configurations are compared on validation rows, so use a larger value"
        )


def _hold_out(
    pool: Part, size: int, side: str, data: DataSpec, notes: list[str]
) -> tuple[Part, Part]:
    """Hold out whole units in random order, `size` different texts drawn from them; and the rest.

    A unit is a group of `split.by`, or else all rows of one text, so that a text is never in two
    parts and never counts twice.
    """
    if size == 0:
        return pool.take([]), pool
    assert pool.texts is not None
    texts = _numbered(pool.texts)
    units = texts if data.split.by is None else pool.groups
    names, units = np.unique(units, return_inverse=True)
    key = HELD_OUT.index(side) + 1
    rank = np.argsort(permutation(len(names), data.split.seed, key))[units]
    # rows in the order of their units: a text counts in the unit where it comes first
    by_rank = np.argsort(rank, kind="stable")
    first = by_rank[np.unique(texts[by_rank], return_index=True)[1]]
    reached = np.cumsum(np.bincount(rank[first], minlength=len(names)))
    fewest = max(1, min(MIN_GROUPS, len(names) // 5)) if data.split.by else 1
    taken = max(fewest, int(np.searchsorted(reached, size)) + 1)
    if taken >= len(names):
        what = f"values of {data.split.by}" if data.split.by else "different texts"
        raise DataError(
            f"data.split.{side}: {size} rows would take all {len(names)} {what} that are left "
            f"({len(pool)} rows), and none would remain for training; hold fewer out"
        )
    places = np.sort(first[rank[first] < taken])
    chosen = np.sort(places[permutation(len(places), data.split.seed, key, 1)[:size]])
    rest = np.flatnonzero(rank >= taken)
    dropped = len(pool) - len(rest) - len(chosen)
    if data.split.by is not None:
        notes.append(
            f"{side}: {len(chosen)} rows of {taken} values of {data.split.by}; {dropped} more rows "
            "of these are left out, so that no value is in two parts and no text counts twice"
        )
    elif dropped:
        notes.append(f"{side}: {dropped} further copies of its {len(chosen)} texts left out")
    return pool.take(chosen), pool.take(rest)


def _numbered(keys: IntArray) -> IntArray:
    """The number of each key, in the order of their first places; equal keys have equal numbers."""
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number].astype(np.int64)


def _without_groups(pool: Part, held: dict[str, Part], split: SplitSpec, notes: list[str]) -> Part:
    """Training rows without those whose group is in a held-out part that the user named."""
    shared = np.isin(pool.groups, np.concatenate([part.groups for part in held.values()]))
    if shared.any():
        notes.append(
            f"{int(shared.sum())} of {len(pool)} training rows left out, because their "
            f"{split.by} is in a held-out split"
        )
    return pool.take(np.flatnonzero(~shared))


def _without_repeats(
    parts: tuple[Part, Part, Part], data: DataSpec, notes: list[str]
) -> tuple[Part, Part, Part]:
    """Validation without repeats of training rows, test without repeats of either."""
    train, *held = parts
    every = [Comparison(full_texts(part.rows, data), data.near_duplicates) for part in held]
    for text in full_texts(train.rows, data):
        words = tuple(words_of(text))
        shingles = shingles_of(words)
        for one in every:
            one.see(words, shingles)
    kept: list[Part] = []
    for side, part, compared in zip(HELD_OUT, held, every, strict=True):
        for text in full_texts([row for before in kept for row in before.rows], data):
            words = tuple(words_of(text))
            compared.see(words, shingles_of(words))
        exact, near, within = compared.repeats()
        gone = {*exact, *near, *within}
        if gone:
            against = "training" if side == "validation" else "training or validation"
            notes.append(
                f"{side}: {len(gone)} of {len(part)} rows removed ({len(exact)} repeat a row of "
                f"{against}, {len(near)} nearly, {len(within)} repeat within)"
            )
        if len(part) and len(gone) == len(part):
            raise DataError(
                f"data.split.{side}: all {len(part)} rows repeat training rows "
                f"({len(exact)} exactly, {len(near)} nearly); hold other rows out, or "
                f"lower data.near_duplicates ({data.near_duplicates})"
            )
        kept.append(part.take([at for at in range(len(part)) if at not in gone]))
    return train, kept[0], kept[1]


def _note_classes(
    parts: tuple[Part, Part, Part], classes: Classes | None, data: DataSpec, notes: list[str]
) -> None:
    """Refuse a class that has no training row; note one that has no held-out row."""
    if classes is None or data.label is None:
        return
    for side, part in zip(("train", *HELD_OUT), parts, strict=True):
        found = {classes.number(row[data.label]) for row in part.rows}
        missing = [shorten(n, 40) for at, n in enumerate(classes.names) if at not in found]
        if missing and side == "train":
            raise DataError(
                f"data.split: no training row has the label {joined(missing, most=LISTED)}; "
                "hold fewer rows out, or leave the label out of data.labels"
            )
        if missing and len(part):
            notes.append(f"{side}: no row has the label {joined(missing, most=LISTED)}")


def _split_text(rows: Rows, data: DataSpec, notes: list[str]) -> tuple[Part, Part, Part]:
    """One text in three parts of one row each; an empty part has no row."""
    (row,) = rows.parts[WHOLE]
    assert data.text is not None
    if data.split.train is not None:
        raise DataError(f"data.split.train: {rows.source} is one text and has no named splits")
    regions = text_regions(row[data.text], data.split)
    lengths = zip(("train", *HELD_OUT), map(len, regions), strict=True)
    notes.append(
        "one text, cut into regions in reading order (characters): "
        + ", ".join(f"{side} {length}" for side, length in lengths)
        + "; data.split.seed and data.near_duplicates have no effect"
    )
    one, none = np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64)
    train, validation, test = (
        Part(({data.text: region},), one) if region.strip() else Part((), none)
        for region in regions
    )
    if not len(validation):
        raise DataError(
            f"data.split.validation: {data.split.validation} of this text is empty; use a larger "
            "share"
        )
    return train, validation, test
