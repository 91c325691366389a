"""The content of a report, before it is Markdown or HTML: sections of blocks.

Every string is plain text, user data included, and is escaped by each renderer. Only `code` and
`strong` give a piece of text a format; their marks are private-use characters, which are removed
from user data.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CODE, END_CODE, STRONG, END_STRONG = "\ue000", "\ue001", "\ue002", "\ue003"
_MARKS = re.compile("[\ue000-\ue003]")
# Control characters would break the file or hide text; tab and newline are kept.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


def clean(text: object) -> str:
    """`text` without marks and control characters."""
    return _CONTROL.sub("\ufffd", _MARKS.sub("", str(text)))


def code(text: object) -> str:
    """`text` marked as code (names, settings); an empty text stays empty."""
    inner = " ".join(clean(text).split())
    return f"{CODE}{inner}{END_CODE}" if inner else ""


def strong(text: str) -> str:
    """`text`, which may hold code, marked as strong."""
    return f"{STRONG}{text}{END_STRONG}"


@dataclass(frozen=True)
class Paragraph:
    """Running text; `kind` is "", "verdict", "warning" or "small"."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of short remarks."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table; `numeric` holds the columns to align right, `marked` the rows to highlight."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()
    caption: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart: file stem, caption, alternative text, Vega-Lite specification."""

    name: str
    caption: str
    alt: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class CodeBlock:
    """Text to be copied as it stands."""

    text: str
    language: str = ""


@dataclass(frozen=True)
class Quotes:
    """Texts side by side, each with its title (sample answers)."""

    prompt: str
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Details:
    """Blocks that may be folded away under a summary."""

    summary: str
    blocks: tuple["Block", ...]


Block = Paragraph | Bullets | Table | Figure | CodeBlock | Quotes | Details


@dataclass(frozen=True)
class Section:
    """A heading and its blocks; `anchor` is its id for links."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A whole report: title, the verdict at the top, and the sections."""

    title: str
    lead: tuple[Block, ...]
    sections: tuple[Section, ...]


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    numeric: Sequence[int] = (),
    marked: Sequence[int] = (),
    caption: str = "",
) -> Table:
    """A Table of these rows, without the columns that are empty in every row."""
    assert all(len(row) == len(head) for row in rows), head
    keep = [i for i in range(len(head)) if any(row[i] not in ("", "–") for row in rows)]
    return Table(
        tuple(head[i] for i in keep),
        tuple(tuple(row[i] for i in keep) for row in rows),
        frozenset(place for place, i in enumerate(keep) if i in set(numeric)),
        frozenset(marked),
        caption,
    )


def figures_of(document: Document) -> tuple[Figure, ...]:
    """All figures of a report, in order."""

    def walk(blocks: Sequence[Block]) -> list[Figure]:
        found = []
        for block in blocks:
            if isinstance(block, Figure):
                found.append(block)
            elif isinstance(block, Details):
                found += walk(block.blocks)
        return found

    return tuple(
        figure
        for blocks in (document.lead, *(section.blocks for section in document.sections))
        for figure in walk(blocks)
    )
