"""A Document as one self-contained HTML page: it loads nothing and works without scripts."""

import json
import re
from pathlib import Path
from typing import Any

from rankwise.report.charts import page_script, page_spec, svg_inline
from rankwise.report.document import (
    CODE,
    END_CODE,
    END_STRONG,
    STRONG,
    Document,
    Figure,
    clean,
)

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
