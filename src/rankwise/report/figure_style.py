"""The common style of the figures.

Colours are those of Okabe and Ito (Color Universal Design, 2008), which readers with colour
blindness can distinguish; shape or dash repeats the information. Lines and text use
`currentColor`, so that the same figure works in dark mode.
"""

from collections.abc import Sequence
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
