"""The figures as Vega-Lite specifications, made with altair.

Names of fields are fixed; user data are only values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.report.charts import GREY, OKABE_ITO, colour, finished, shape

GROUP_COLOURS = (OKABE_ITO[0], OKABE_ITO[4], OKABE_ITO[1], GREY)
DASHES = [[1, 0], [6, 2], [2, 2], [8, 3, 2, 3], [4, 4], [10, 2]]
CLAIMS = ("interval excludes zero", "interval includes zero")
MOST_ARMS = 40
MOST_LINES = len(OKABE_ITO)
ROW = 24


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
    import altair

    rows = rows[:MOST_ARMS]
    order = [row.arm for row in rows]
    groups = list(dict.fromkeys(row.group for row in rows))
    base = altair.Chart(altair.Data(values=[_with_numbers(row) for row in rows])).encode(
        y=altair.Y("configuration:N", sort=order, title=None),
        color=colour("group", groups, GROUP_COLOURS),
        tooltip=["configuration:N", "value:Q", "low:Q", "high:Q", "group:N"],
    )
    x = altair.X("value:Q", title=axis, scale=altair.Scale(zero=False))
    line = (
        altair.Chart(altair.Data(values=[{"best": rows[0].value}]))
        .mark_rule(strokeDash=[4, 3], color="currentColor", opacity=0.6)
        .encode(x="best:Q")
    )
    layers = [line, _run_ticks(rows, order, axis)]
    if any(math.isfinite(row.low) for row in rows):
        layers.append(base.mark_rule(strokeWidth=2).encode(x=altair.X("low:Q"), x2="high:Q"))
    layers.append(
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x, shape=shape("group", groups))
    )
    return finished(altair.layer(*layers), "ranking", alt, height=ROW * len(order) + 10)


def _run_ticks(rows: Sequence[RankRow], order: Sequence[str], axis: str) -> Any:
    import altair

    runs = [
        {"configuration": row.arm, "run": value, "seed": seed}
        for row in rows
        for value, seed in zip(row.runs, row.seeds, strict=True)
    ]
    return (
        altair.Chart(altair.Data(values=runs))
        .mark_tick(thickness=1.5, height=10, color=GREY, opacity=0.9)
        .encode(
            x=altair.X("run:Q", title=axis),
            y=altair.Y("configuration:N", sort=order),
            tooltip=["configuration:N", "run:Q", "seed:Q"],
        )
    )


def curves(
    points: Sequence[CurvePoint], highlighted: Sequence[str], axis: str, alt: str
) -> dict[str, Any]:
    """Learning curves: the highlighted arms in colour with bands, all others in grey."""
    import altair

    shown = list(highlighted[:MOST_LINES])
    rows = [
        {"configuration": p.arm, "step": p.step, "value": p.value, "low": p.low, "high": p.high}
        for p in points
        if math.isfinite(p.value)
    ]
    front = [row for row in rows if row["configuration"] in shown]
    behind = [row for row in rows if row["configuration"] not in shown]
    x = altair.X("step:Q", title="step", axis=altair.Axis(tickMinStep=1))
    y = altair.Y("value:Q", title=axis, scale=altair.Scale(zero=False))
    of_arm = altair.Color(
        "configuration:N",
        title=None,
        sort=shown,
        scale=altair.Scale(domain=shown, range=list(OKABE_ITO[: len(shown)])),
    )
    tooltip = ["configuration:N", "step:Q", "value:Q", "low:Q", "high:Q"]
    layers = []
    if behind:
        layers.append(
            altair.Chart(altair.Data(values=behind))
            .mark_line(color=GREY, strokeWidth=1, opacity=0.6)
            .encode(x=x, y=y, detail="configuration:N", tooltip=tooltip)
        )
    base = altair.Chart(altair.Data(values=front)).encode(x=x, color=of_arm, tooltip=tooltip)
    layers.append(base.mark_area(opacity=0.15).encode(y=altair.Y("low:Q", title=axis), y2="high:Q"))
    layers.append(
        base.mark_line(strokeWidth=2, point=altair.OverlayMarkDef(size=30)).encode(
            y=y,
            strokeDash=altair.StrokeDash(
                "configuration:N",
                sort=shown,
                title=None,
                scale=altair.Scale(domain=shown, range=DASHES),
            ),
        )
    )
    return finished(altair.layer(*layers), "curves", alt, height=260)


def effects(rows: Sequence[EffectRow], axis: str, alt: str) -> dict[str, Any]:
    """What each level of a factor changes, with its interval; zero is a line."""
    import altair

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
    base = altair.Chart(altair.Data(values=values)).encode(
        y=altair.Y("label:N", sort=order, title=None),
        color=colour("claim", CLAIMS, (OKABE_ITO[0], GREY)),
        tooltip=["label:N", "value:Q", "low:Q", "high:Q"],
    )
    zero = (
        altair.Chart(altair.Data(values=[{"zero": 0}]))
        .mark_rule(strokeDash=[4, 3], color="currentColor", opacity=0.6)
        .encode(x="zero:Q")
    )
    bars = base.mark_rule(strokeWidth=2).encode(x=altair.X("low:Q", title=axis), x2="high:Q")
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=altair.X("value:Q", title=axis),
        shape=shape("claim", CLAIMS),
    )
    return finished(altair.layer(zero, bars, dots), "effects", alt, height=ROW * len(order) + 10)


def quality_cost(points: Sequence[FrontPoint], axes: tuple[str, str], alt: str) -> dict[str, Any]:
    """Quality against cost; colour and shape show which arms are on the front."""
    import altair

    costs = [point.cost for point in points]
    groups = list(dict.fromkeys(point.front for point in points))
    spread = min(costs) > 0 and max(costs) / min(costs) > 20
    x = altair.X(
        "cost:Q",
        title=axes[0],
        scale=altair.Scale(type="log") if spread else altair.Scale(zero=False, padding=20),
        axis=altair.Axis(format="~s", tickCount=6),
    )
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
    base = altair.Chart(altair.Data(values=values)).encode(
        x=x,
        color=colour("front", groups, GROUP_COLOURS),
        tooltip=["configuration:N", "cost:Q", "value:Q", "low:Q", "high:Q"],
    )
    y = altair.Y("value:Q", title=axes[1], scale=altair.Scale(zero=False))
    layers = [base.mark_rule().encode(y=altair.Y("low:Q", title=axes[1]), y2="high:Q")]
    layers.append(
        base.mark_point(filled=True, size=70, opacity=1).encode(y=y, shape=shape("front", groups))
    )
    if len(points) <= 12:
        layers.append(
            base.mark_text(
                align="left",
                dx=7,
                dy=-7,
                fontSize=10,
                limit=150,
                # On a narrow screen the names would overlap; the tooltip shows them.
                opacity=altair.expr("width < 400 ? 0 : 1"),
            ).encode(y=y, text="configuration:N", color=altair.value("currentColor"))
        )
    return finished(altair.layer(*layers), "front", alt, height=280)


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
    "interrupted": "#F0E442",
    "stopped early": "#009E73",
    "done": "#bdbdbd",
}


def ranks_by_layer(cells: Sequence[tuple[str, str, int, float]], alt: str) -> dict[str, Any]:
    """Rank of each layer as a coloured number: cells are (arm, module, layer, rank)."""
    import altair

    rows = list(dict.fromkeys(f"{arm}: {module}" for arm, module, _, _ in cells))[:MOST_ARMS]
    values: list[dict[str, Any]] = [
        {"row": f"{arm}: {module}", "layer": layer, "rank": rank}
        for arm, module, layer, rank in cells
        if f"{arm}: {module}" in rows
    ]
    middle = (min(v["rank"] for v in values) + max(v["rank"] for v in values)) / 2
    base = altair.Chart(altair.Data(values=values)).encode(
        x=altair.X("layer:O", title="layer", axis=altair.Axis(labelAngle=0, labelOverlap=True)),
        y=altair.Y("row:N", sort=rows, title=None),
        tooltip=["row:N", "layer:O", "rank:Q"],
    )
    shades = base.mark_rect().encode(
        color=altair.Color("rank:Q", scale=altair.Scale(scheme="cividis"), legend=None)
    )
    layers = len({v["layer"] for v in values})
    numbers = base.mark_text(fontSize=10).encode(
        text=altair.Text("rank:Q", format=".3~g"),
        color=altair.condition(
            f"datum.rank > {middle}", altair.value("#000000"), altair.value("#ffffff")
        ),
        # With too many layers for the width, only the colour and the tooltip show the rank.
        opacity=altair.value(1 if layers <= MOST_NUMBERS else 0),
    )
    height = ROW * len(rows) + 10
    return finished(altair.layer(shades, numbers), "ranks", alt, height=height)


def outcomes(cells: Sequence[tuple[str, int, str]], alt: str) -> dict[str, Any]:
    """The state of each run, a cell per (arm, seed, state); a letter where it is not done."""
    import altair

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
    base = altair.Chart(altair.Data(values=values)).encode(
        x=altair.X("seed:N", title="seed", axis=altair.Axis(labelAngle=0)),
        y=altair.Y("configuration:N", sort=arms, title=None),
        tooltip=["configuration:N", "seed:N", "state:N"],
    )
    cellsmark = base.mark_rect(stroke="currentColor", strokeWidth=0.5).encode(
        color=colour("state", states, colours)
    )
    letters = base.mark_text(color="#000000", fontWeight="bold").encode(text="letter:N")
    height = ROW * len(arms) + 10
    return finished(altair.layer(cellsmark, letters), "outcomes", alt, height=height)
