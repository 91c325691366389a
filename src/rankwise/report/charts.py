"""From a Vega-Lite specification to bytes: SVG for files, SVG for pages, the script for pages.

The same specification gives the same bytes in every process.
"""

import json
import re
from functools import cache
from typing import Any

DARK = "#24292f"
WHITE = "#ffffff"


def svg_file(spec: dict[str, Any]) -> str:
    """A figure for a file: dark on its own white background."""
    svg = _draw(spec, "f").replace("currentColor", DARK)
    head, rest = svg.split(">", 1)
    return f'{head}><rect width="100%" height="100%" fill="{WHITE}"/>{rest}'


def svg_inline(spec: dict[str, Any], name: str) -> str:
    """A figure inside a page: in the text colour of the page, with ids that are unique."""
    return _draw(spec, name)


def page_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """The specification for the page's script: as wide as its column."""
    return {**spec, "width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}


@cache
def page_script() -> str:
    """Vega, Vega-Lite and vega-embed as one script, so that a page needs no network."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle(vl_version="6.4")  # type: ignore[call-arg]
    # Inside <script> only these end or hide it; both occur only in strings.
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _draw(spec: dict[str, Any], prefix: str) -> str:
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(json.dumps(spec), vl_version="6.4")
    return _own_ids(svg, prefix)


def _own_ids(svg: str, prefix: str) -> str:
    """Ids of clips and gradients numbered per figure; the library numbers them per process."""
    numbers: dict[str, str] = {}
    for found in re.findall(r'\bid="([^"]+)"', svg):
        numbers.setdefault(found, f"{prefix}-{len(numbers)}")
    for old, new in numbers.items():
        svg = svg.replace(f'id="{old}"', f'id="{new}"').replace(f"url(#{old})", f"url(#{new})")
    return svg
