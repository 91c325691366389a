"""The figures as Vega-Lite specifications.

Names of fields are fixed; user data are only values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.report.charts import (
    GREY,
    OKABE_ITO,
    SHAPES,
    finished,
    layer,
    name,
    number,
    scaled,
)

GROUP_COLOURS = (OKABE_ITO[0], OKABE_ITO[4], OKABE_ITO[1], GREY)
DASHES = [[1, 0], [6, 2], [2, 2], [8, 3, 2, 3], [4, 4], [10, 2]]
CLAIMS = ("interval excludes zero", "interval includes zero")
MOST_ARMS = 40
MOST_LINES = len(OKABE_ITO)
ROW = 24
CROSS = {"shape": "M-1,-1L1,1M1,-1L-1,1", "size": 60, "color": "currentColor", "opacity": 1}
POINT = {"filled": True, "size": 70, "opacity": 1}
BESIDE = {
    "align": "left",
    "dx": 7,
    "dy": -7,
    "fontSize": 10,
    "limit": 150,
    # On a narrow screen the names would overlap; the tooltip shows them.
    "opacity": {"expr": "width < 400 ? 0 : 1"},
}


@dataclass(frozen=True)
class RankRow:
    """One arm in the ranking figure.

    low and high are the interval of its difference from the best plus the best's value; NaN where
    unknown.
    """

    arm: str
    value: float
    low: float
    high: float
    group: str
    runs: tuple[float, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class CurvePoint:
    """One point of a learning curve with its band."""

    arm: str
    step: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EffectRow:
    """One level of a factor against the first one."""

    label: str
    factor: str
    value: float
    low: float
    high: float
    clear: bool


@dataclass(frozen=True)
class FrontPoint:
    """One arm in the figure of quality against cost."""

    arm: str
    cost: float
    value: float
    low: float
    high: float
    front: str


def ranking(rows: Sequence[RankRow], axis: str, alt: str) -> dict[str, Any]:
    """Each arm's mean with the interval of its difference from the first, best on top."""
    rows = rows[:MOST_ARMS]
    order = [row.arm for row in rows]
    groups = list(dict.fromkeys(row.group for row in rows))
    base = {
        "y": name("configuration", sort=order, title=None),
        "color": scaled("group", groups, GROUP_COLOURS),
        "tooltip": [name("configuration"), *map(number, ("value", "low", "high")), name("group")],
    }
    layers = [_line("best", rows[0].value), _run_ticks(rows, order, axis)]
    if any(math.isfinite(row.low) for row in rows):
        ends = {"x": number("low"), "x2": {"field": "high"}}
        layers.append(layer("rule", base | ends, strokeWidth=2))
    mean = {
        "x": number("value", title=axis, scale={"zero": False}),
        "shape": scaled("group", groups, SHAPES),
    }
    layers.append(layer("point", base | mean, **POINT))
    values = [_with_numbers(row) for row in rows]
    return finished(layers, values, "ranking", alt, height=ROW * len(order) + 10)


def _line(field: str, value: float) -> dict[str, Any]:
    """A dashed line from top to bottom."""
    line = layer("rule", {"x": number(field)}, strokeDash=[4, 3], color="currentColor", opacity=0.6)
    return {**line, "data": {"values": [{field: value}]}}


def _run_ticks(rows: Sequence[RankRow], order: Sequence[str], axis: str) -> dict[str, Any]:
    runs = [
        {"configuration": row.arm, "run": value, "seed": seed}
        for row in rows
        for value, seed in zip(row.runs, row.seeds, strict=True)
    ]
    channels = {
        "x": number("run", title=axis),
        "y": name("configuration", sort=order),
        "tooltip": [name("configuration"), number("run"), number("seed")],
    }
    ticks = layer("tick", channels, thickness=1.5, height=10, color=GREY, opacity=0.9)
    return {**ticks, "data": {"values": runs}}


def curves(
    points: Sequence[CurvePoint],
    highlighted: Sequence[str],
    axis: str,
    alt: str,
    stopped: Sequence[CurvePoint] = (),
) -> dict[str, Any]:
    """Learning curves: the highlighted arms in colour with bands, all others in grey.

    A cross at the last point of those that were stopped.
    """
    shown = list(highlighted[:MOST_LINES])
    rows = [
        {"configuration": p.arm, "step": p.step, "value": p.value, "low": p.low, "high": p.high}
        for p in points
        if math.isfinite(p.value)
    ]
    front = [row for row in rows if row["configuration"] in shown]
    behind = [row for row in rows if row["configuration"] not in shown]
    base = {
        "x": number("step", title="step", axis={"tickMinStep": 1}),
        "tooltip": [name("configuration"), *map(number, ("step", "value", "low", "high"))],
    }
    value = {"y": number("value", title=axis, scale={"zero": False})}
    layers = []
    if behind:
        grey = base | value | {"detail": name("configuration")}
        lines = layer("line", grey, color=GREY, strokeWidth=1, opacity=0.6)
        layers.append({**lines, "data": {"values": behind}})
    crosses = [{"configuration": p.arm, "step": p.step, "value": p.value} for p in stopped]
    marks = layer("point", base | value, **CROSS)
    base["color"] = scaled("configuration", shown, OKABE_ITO) | {"sort": shown}
    band = {"y": number("low", title=axis), "y2": {"field": "high"}}
    layers.append(layer("area", base | band, opacity=0.15))
    dashes = {"strokeDash": scaled("configuration", shown, DASHES) | {"sort": shown}}
    layers.append(layer("line", base | value | dashes, strokeWidth=2, point={"size": 30}))
    if crosses:
        layers.append({**marks, "data": {"values": crosses}})
    return finished(layers, front, "curves", alt, height=260)


def effects(rows: Sequence[EffectRow], axis: str, alt: str) -> dict[str, Any]:
    """What each level of a factor changes, with its interval; zero is a line."""
    order = [row.label for row in rows]
    values = [
        {
            "label": row.label,
            "factor": row.factor,
            "value": row.value,
            "low": row.low,
            "high": row.high,
            "claim": CLAIMS[0] if row.clear else CLAIMS[1],
        }
        for row in rows
    ]
    base = {
        "y": name("label", sort=order, title=None),
        "color": scaled("claim", CLAIMS, (OKABE_ITO[0], GREY)),
        "tooltip": [name("label"), *map(number, ("value", "low", "high"))],
    }
    ends = {"x": number("low", title=axis), "x2": {"field": "high"}}
    mean = {"x": number("value", title=axis), "shape": scaled("claim", CLAIMS, SHAPES)}
    layers = [
        _line("zero", 0),
        layer("rule", base | ends, strokeWidth=2),
        layer("point", base | mean, **POINT),
    ]
    return finished(layers, values, "effects", alt, height=ROW * len(order) + 10)


def quality_cost(points: Sequence[FrontPoint], axes: tuple[str, str], alt: str) -> dict[str, Any]:
    """Quality against cost; colour and shape show which arms are on the front."""
    costs = [point.cost for point in points]
    groups = list(dict.fromkeys(point.front for point in points))
    spread = min(costs) > 0 and max(costs) / min(costs) > 20
    scale = {"type": "log"} if spread else {"zero": False, "padding": 20}
    values = [
        {
            "configuration": p.arm,
            "cost": p.cost,
            "value": p.value,
            "low": p.low,
            "high": p.high,
            "front": p.front,
        }
        for p in points
    ]
    base = {
        "x": number("cost", title=axes[0], scale=scale, axis={"format": "~s", "tickCount": 6}),
        "color": scaled("front", groups, GROUP_COLOURS),
        "tooltip": [name("configuration"), *map(number, ("cost", "value", "low", "high"))],
    }
    ends = {"y": number("low", title=axes[1]), "y2": {"field": "high"}}
    value = {"y": number("value", title=axes[1], scale={"zero": False})}
    layers = [
        layer("rule", base | ends),
        layer("point", base | value | {"shape": scaled("front", groups, SHAPES)}, **POINT),
    ]
    if len(points) <= 12:
        text = {"text": name("configuration"), "color": {"value": "currentColor"}}
        layers.append(layer("text", base | value | text, **BESIDE))
    return finished(layers, values, "front", alt, height=280)


def _with_numbers(row: RankRow) -> dict[str, Any]:
    low, high = (None if math.isnan(bound) else bound for bound in (row.low, row.high))
    return {
        "configuration": row.arm,
        "value": row.value,
        "low": low,
        "high": high,
        "group": row.group,
    }


MOST_NUMBERS = 24
STATE_COLOURS = {  # light enough for black letters
    "diverged": "#D55E00",
    "out of memory": "#E69F00",
    "crashed": "#CC79A7",
    "pruned": "#56B4E9",
    "stopped by the race": "#56B4E9",
    "interrupted": "#F0E442",
    "stopped early": "#009E73",
    "done": "#bdbdbd",
}


def ranks_by_layer(cells: Sequence[tuple[str, str, int, float]], alt: str) -> dict[str, Any]:
    """Rank of each layer as a coloured number: cells are (arm, module, layer, rank)."""
    rows = list(dict.fromkeys(f"{arm}: {module}" for arm, module, _, _ in cells))[:MOST_ARMS]
    values: list[dict[str, Any]] = [
        {"row": f"{arm}: {module}", "layer": layer, "rank": rank}
        for arm, module, layer, rank in cells
        if f"{arm}: {module}" in rows
    ]
    middle = (min(v["rank"] for v in values) + max(v["rank"] for v in values)) / 2
    of_layer = {"field": "layer", "type": "ordinal"}
    base = {
        "x": {**of_layer, "title": "layer", "axis": {"labelAngle": 0, "labelOverlap": True}},
        "y": name("row", sort=rows, title=None),
        "tooltip": [name("row"), of_layer, number("rank")],
    }
    shade = {"color": number("rank", scale={"scheme": "cividis"}, legend=None)}
    few = len({v["layer"] for v in values}) <= MOST_NUMBERS
    dark = {"test": f"datum.rank > {middle}", "value": "#000000"}
    text = {
        "text": number("rank", format=".3~g"),
        "color": {"condition": dark, "value": "#ffffff"},
        # With too many layers for the width, only the colour and the tooltip show the rank.
        "opacity": {"value": 1 if few else 0},
    }
    layers = [layer("rect", base | shade), layer("text", base | text, fontSize=10)]
    return finished(layers, values, "ranks", alt, height=ROW * len(rows) + 10)


def outcomes(cells: Sequence[tuple[str, int, str]], alt: str) -> dict[str, Any]:
    """The state of each run, a cell per (arm, seed, state); a letter where it is not done."""
    states = list(dict.fromkeys(state for _, _, state in cells))
    colours = [STATE_COLOURS.get(state, GREY) for state in states]
    arms = list(dict.fromkeys(arm for arm, _, _ in cells))[:MOST_ARMS]
    values = [
        {
            "configuration": arm,
            "seed": str(seed),
            "state": state,
            "letter": "" if state == "done" else state[0].upper(),
        }
        for arm, seed, state in cells
        if arm in arms
    ]
    base = {
        "x": name("seed", title="seed", axis={"labelAngle": 0}),
        "y": name("configuration", sort=arms, title=None),
        "tooltip": [name("configuration"), name("seed"), name("state")],
    }
    state, letter = {"color": scaled("state", states, colours)}, {"text": name("letter")}
    layers = [
        layer("rect", base | state, stroke="currentColor", strokeWidth=0.5),
        layer("text", base | letter, color="#000000", fontWeight="bold"),
    ]
    return finished(layers, values, "outcomes", alt, height=ROW * len(arms) + 10)
