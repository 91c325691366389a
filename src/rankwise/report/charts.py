"""From a Vega-Lite specification to bytes: SVG for files, SVG for pages, the script for pages.

The same specification gives the same bytes, in whatever process and however often it is drawn.
"""

import json
import re
from functools import cache
from typing import Any

INK = "#24292f"
PAPER = "#ffffff"


def svg_file(spec: dict[str, Any]) -> str:
    """A picture that is legible on any page: dark ink on its own white paper."""
    svg = _draw(spec, "f").replace("currentColor", INK)
    head, rest = svg.split(">", 1)
    return f'{head}><rect width="100%" height="100%" fill="{PAPER}"/>{rest}'


def svg_inline(spec: dict[str, Any], name: str) -> str:
    """A picture for the inside of a page: the page's own ink, ids that no other picture has."""
    return _draw(spec, name)


def page_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """The specification for the page's script: as wide as the column it stands in."""
    return {**spec, "width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}


@cache
def page_script() -> str:
    """Vega, Vega-Lite and vega-embed as one script, so that a page needs no network."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle(vl_version="6.4")  # type: ignore[call-arg]
    # Inside <script> only these end or hide it; neither occurs outside of strings.
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _draw(spec: dict[str, Any], prefix: str) -> str:
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(json.dumps(spec), vl_version="6.4")
    return _own_ids(svg, prefix)


def _own_ids(svg: str, prefix: str) -> str:
    """The ids of clips and gradients, which count up over a process, counted within the picture."""
    numbers: dict[str, str] = {}
    for found in re.findall(r'\bid="([^"]+)"', svg):
        numbers.setdefault(found, f"{prefix}-{len(numbers)}")
    for old, new in numbers.items():
        svg = svg.replace(f'id="{old}"', f'id="{new}"').replace(f"url(#{old})", f"url(#{new})")
    return svg
