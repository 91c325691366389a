"""Duplicate rows: equal texts, and texts that share nearly all their word 3-grams.

Near duplicates are found exactly, not by sampling hashes: an inverted index over the rarest
3-grams of each held-out text (prefix filtering: Chaudhuri, Ganti and Kaushik 2006, "A Primitive
Operator for Similarity Joins in Data Cleaning") leaves few enough pairs to compare them all.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

# Scripts written without spaces: there a character stands for a word.
UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")

Shingle = tuple[str, ...]


def words_of(text: str) -> list[str]:
    """The words of a text without case and punctuation; a text without words is its own word."""
    return WORD.findall(text.casefold()) or [text.strip()]


def shingles_of(text: str) -> frozenset[Shingle]:
    """The set of word 3-grams of a text; for fewer than three words the words together."""
    words = words_of(text)
    if len(words) < 3:
        return frozenset([tuple(words)])
    return frozenset(zip(words, words[1:], words[2:], strict=False))


class Repeats(NamedTuple):
    """Places of texts that repeat another, ascending; a place is in one list at most.

    `exact` equal an earlier text but for case, punctuation and spacing, `near` share nearly all
    word 3-grams with one, `within` equal a text before them in the list itself.
    """

    exact: list[int]
    near: list[int]
    within: list[int]


def repeated(texts: Sequence[str], earlier: Sequence[str], distance: float) -> Repeats:
    """Which of `texts` repeat one of `earlier`, or one another.

    Args:
        texts: the held-out texts.
        earlier: the texts they are compared with.
        distance: Jaccard distance of the word 3-grams below which two texts are near duplicates;
            0 means that only equal texts count.
    """
    known = {tuple(words_of(text)) for text in earlier}
    own: set[tuple[str, ...]] = set()
    exact: list[int] = []
    within: list[int] = []
    rest: list[int] = []
    for at, text in enumerate(texts):
        words = tuple(words_of(text))
        kind = exact if words in known else within if words in own else rest
        kind.append(at)
        own.add(words)
    near = _near([shingles_of(texts[at]) for at in rest], earlier, 1 - distance) if distance else []
    return Repeats(exact, [rest[at] for at in near], within)


def _near(held: list[frozenset[Shingle]], earlier: Sequence[str], threshold: float) -> list[int]:
    """Positions of `held` whose Jaccard similarity with one of `earlier` exceeds `threshold`.

    If the similarity of x and y is at least t, they share at least t*|x| and t*|y| elements, so
    in any common order the first |x| - ceil(t*|x|) + 1 of x and the same of y share one.
    """
    counts = Counter(shingle for shingles in held for shingle in shingles)
    index: dict[Shingle, list[int]] = defaultdict(list)
    for at, shingles in enumerate(held):
        for shingle in _rarest(shingles, len(shingles), counts, threshold):
            index[shingle].append(at)
    found: set[int] = set()
    for text in earlier:
        shingles = shingles_of(text)
        # 3-grams that no held-out text has are the rarest of all and fill the prefix first
        seen = [shingle for shingle in shingles if shingle in counts]
        if len(seen) < threshold * len(shingles):
            continue
        prefix = _rarest(seen, len(shingles), counts, threshold)
        candidates = {at for shingle in prefix for at in index.get(shingle, ())}
        found.update(at for at in candidates - found if _jaccard(held[at], shingles) > threshold)
    return sorted(found)


def _rarest(
    shingles: Sequence[Shingle] | frozenset[Shingle],
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
