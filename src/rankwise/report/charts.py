"""Charts from Vega-Lite: one style for all; SVG for files and pages, and the script for pages."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
GREY = "#8c8c8c"
SHAPES = ["circle", "diamond", "triangle-up", "square", "cross"]
WIDTH = 620
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.4.1.json"
CONFIG = {
    "font": "sans-serif",
    "padding": 4,
    "background": None,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "domainColor": GREY,
        "tickColor": GREY,
        "gridColor": GREY,
        "gridOpacity": 0.25,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelLimit": 190,
    },
    "legend": {
        "orient": "bottom",
        "columns": 2,
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "labelLimit": 240,
        "symbolOpacity": 1,
    },
}


def name(field: str, **more: Any) -> dict[str, Any]:
    """A channel that shows a field of names."""
    return {"field": field, "type": "nominal", **more}


def number(field: str, **more: Any) -> dict[str, Any]:
    """A channel that shows a field of numbers."""
    return {"field": field, "type": "quantitative", **more}


def scaled(field: str, domain: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """A value for each name of a field. Channels of one domain share a legend."""
    scale = {"domain": list(domain), "range": list(values[: len(domain)])}
    return name(field, title=None, scale=scale)


def layer(kind: str, channels: Mapping[str, Any], **look: Any) -> dict[str, Any]:
    """Marks of one kind, and what each of their channels shows."""
    return {"mark": {"type": kind, **look}, "encoding": dict(channels)}


def finished(
    layers: Sequence[dict[str, Any]],
    values: Sequence[dict[str, Any]],
    name: str,
    alt: str,
    height: int,
) -> dict[str, Any]:
    """A chart of layers over `values`, unless they bring their own, with the common style."""
    spec = {
        "$schema": SCHEMA,
        "config": CONFIG,
        "name": name,
        "description": alt,
        "width": WIDTH,
        "height": height,
        "data": {"values": values},
        "layer": layers,
    }
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
    return _own_ids(_drawn(json.dumps(spec)), prefix)


@lru_cache(maxsize=64)
def _drawn(spec: str) -> str:
    """The picture of a specification: drawn once for the file and for the page."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(spec, vl_version="6.4")
    return svg


def _own_ids(svg: str, prefix: str) -> str:
    """Ids of clips and gradients numbered per figure; the library numbers them per process."""
    numbers: dict[str, str] = {}
    for found in re.findall(r'\bid="([^"]+)"', svg):
        numbers.setdefault(found, f"{prefix}-{len(numbers)}")
    for old, new in numbers.items():
        svg = svg.replace(f'id="{old}"', f'id="{new}"').replace(f"url(#{old})", f"url(#{new})")
    return svg
