"""Charts from Vega-Lite: one style for all; SVG for files and pages, and the script for pages."""

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
GREY = "#8c8c8c"
SHAPES = ["circle", "diamond", "triangle-up", "square", "cross"]
WIDTH = 620


def shape(name: str, domain: Sequence[str]) -> Any:
    """Shapes with the same domain as the colours, so that one legend shows both."""
    import altair

    scale = altair.Scale(domain=list(domain), range=SHAPES[: len(domain)])
    return altair.Shape(f"{name}:N", title=None, scale=scale)


def colour(name: str, domain: Sequence[str], colours: Sequence[str]) -> Any:
    import altair

    scale = altair.Scale(domain=list(domain), range=list(colours[: len(domain)]))
    return altair.Color(f"{name}:N", title=None, scale=scale)


def finished(chart: Any, name: str, alt: str, height: int) -> dict[str, Any]:
    """The chart with the common style, as a dictionary independent of charts drawn before."""
    spec: dict[str, Any] = (
        chart.properties(width=WIDTH, height=height, name=name, description=alt)
        .configure(font="sans-serif", padding=4)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor="currentColor",
            titleColor="currentColor",
            domainColor=GREY,
            tickColor=GREY,
            gridColor=GREY,
            gridOpacity=0.25,
            labelFontSize=11,
            titleFontSize=11,
            titleFontWeight="normal",
            labelLimit=190,
        )
        .configure_legend(
            orient="bottom",
            columns=2,
            labelColor="currentColor",
            titleColor="currentColor",
            labelLimit=240,
            symbolOpacity=1,
        )
        .to_dict()
    )
    spec["config"]["background"] = None  # altair cannot set this
    rounded: dict[str, Any] = _rounded(spec)
    return rounded


def _rounded(value: Any) -> Any:
    """Floats rounded to seven digits: the last bits of a sum depend on the number of threads."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


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
