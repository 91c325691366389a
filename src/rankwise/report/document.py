"""The content of a report, sections of blocks; and it as Markdown and as one HTML page.

Every string is plain text, user data included, and is escaped by each renderer. Only `code` and
`strong` give a piece of text a format; their marks are private-use characters, which are removed
from user data.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rankwise.report.charts import page_script, page_spec, svg_inline

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
    """Blocks folded away under a summary; in Markdown only where `folds`, else they stand open."""

    summary: str
    blocks: tuple["Block", ...]
    folds: bool = True


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


_PIECES = re.compile(f"{CODE}(.*?){END_CODE}", re.DOTALL)
# An underscore inside a word is no emphasis in GFM, so `eval_loss` may stay readable.
_SPECIAL = re.compile(r"([\\`*\[\]<>|~$]|(?<![^\W_])_|_(?![^\W_])|(?<=\w)://)")


def to_markdown(document: Document, figure_folder: str = "figures") -> str:
    """The whole report; figures are linked as FOLDER/NAME.svg."""
    parts = [f"# {_text(document.title)}", *_blocks(document.lead, figure_folder)]
    for section in document.sections:
        parts += [f"## {_text(section.title)}", *_blocks(section.blocks, figure_folder)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _blocks(blocks: Sequence[Block], folder: str) -> list[str]:
    return [_block(block, folder) for block in blocks]


def _block(block: Block, folder: str) -> str:
    match block:
        case Paragraph(text, kind):
            prefix = "> **Note.** " if kind == "warning" else ""
            return prefix + _line_start(_text(text))
        case Bullets(items):
            return "\n".join(f"- {_line_start(_text(item))}" for item in items)
        case Table():
            return _table(block)
        case Figure(name, caption, alt, _):
            return f"![{_text(alt)}]({folder}/{name}.svg)\n\n*{_text(caption)}*"
        case CodeBlock(text, language):
            return _fenced(text, language)
        case Quotes(prompt, answers):
            parts = [f"Prompt:\n\n{_fenced(prompt, 'text')}"]
            parts += [f"{_text(title)}:\n\n{_fenced(text, 'text')}" for title, text in answers]
            return "\n\n".join(parts)
        case Details(summary, inner, folds):
            body = "\n\n".join(_blocks(inner, folder))
            if not folds:
                return f"{_line_start(_text(summary))}:\n\n{body}"
            return f"<details><summary>{_html_text(summary)}</summary>\n\n{body}\n\n</details>"


def _table(block: Table) -> str:
    if not block.rows:
        return ""
    marks = ["---:" if i in block.numeric else "---" for i in range(len(block.head))]
    lines = [_row(block.head), "| " + " | ".join(marks) + " |"]
    lines += [_row(row) for row in block.rows]
    caption = f"\n\n*{_text(block.caption)}*" if block.caption else ""
    return "\n".join(lines) + caption


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_text(cell, in_table=True).replace("\n", " ") for cell in cells) + " |"


def _text(text: str, in_table: bool = False) -> str:
    """Escaped plain text with code spans and strong pieces."""
    parts = []
    for place, piece in enumerate(_PIECES.split(text)):
        parts.append(_code_span(piece, in_table) if place % 2 else _plain(piece))
    return "".join(parts)


def _plain(text: str) -> str:
    escaped = _SPECIAL.sub(
        lambda found: "&#58;//" if found[0] == "://" else "\\" + found[0],
        text.replace("&", "&amp;"),
    )
    return escaped.replace(STRONG, "**").replace(END_STRONG, "**")


def _code_span(text: str, in_table: bool) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    # In a table the bar ends the cell even inside a code span, unless escaped.
    inner = text.replace("|", "\\|") if in_table else text
    return f"{ticks}{pad}{inner}{pad}{ticks}"


def _html_text(text: str) -> str:
    plain = re.sub(f"[{CODE}{END_CODE}{STRONG}{END_STRONG}]", "", text)
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _line_start(text: str) -> str:
    """One line that does not begin a heading or a list."""
    line = re.sub(r"^(#+|[+-])(?=\s)", r"\\\1", text.replace("\n", " "))
    return re.sub(r"^(\d+)([.)])(?=\s)", r"\1\\\2", line)


def _fenced(text: str, language: str) -> str:
    body = clean(text).strip("\n")
    longest = max((len(run) for run in re.findall("`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{body}\n{fence}"


TEMPLATES = Path(__file__).parent / "templates"
_TAGS = {CODE: "<code>", END_CODE: "</code>", STRONG: "<strong>", END_STRONG: "</strong>"}
_MARK = re.compile("[\ue000-\ue003]")


def to_html(document: Document) -> str:
    """The whole page; all text is escaped, figures are SVG with their specification."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    page: str = _template().render(document=document, style=style, script=page_script())
    return page + "\n"


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        marked=_marked,
        plain=lambda text: _MARK.sub("", text),
        bare=clean,
        kind=lambda block: type(block).__name__,
        svg=lambda figure: svg_inline(figure.spec, figure.name),
        spec=_spec,
    )
    return environment.get_template("page.html")


def _marked(text: str) -> Any:
    """Escaped text with its marks as tags."""
    from markupsafe import Markup, escape

    return Markup(_MARK.sub(lambda mark: _TAGS[mark[0]], str(escape(text))))


def _spec(figure: Figure) -> str:
    """The specification as JSON that cannot end the script element around it."""
    text = json.dumps(page_spec(figure.spec), sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
