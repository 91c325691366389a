"""A document as Markdown and as one self-contained HTML page."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise.report.charts import page_script, page_spec, svg_inline
from rankwise.report.document import (
    CODE,
    END_CODE,
    END_STRONG,
    STRONG,
    Block,
    Bullets,
    CodeBlock,
    Details,
    Document,
    Figure,
    Paragraph,
    Quotes,
    Table,
    clean,
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
        case Details(summary, inner):
            body = "\n\n".join(_blocks(inner, folder))
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
    template = environment.get_template("page.html")
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    page: str = template.render(document=document, style=style, script=page_script())
    return page + "\n"


def _marked(text: str) -> Any:
    """Escaped text with its marks as tags."""
    from markupsafe import Markup, escape

    return Markup(_MARK.sub(lambda mark: _TAGS[mark[0]], str(escape(text))))


def _spec(figure: Figure) -> str:
    """The specification as JSON that cannot end the script element around it."""
    text = json.dumps(page_spec(figure.spec), sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
