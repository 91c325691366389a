"""Figures of cells: the rank of each layer, and the state of each run."""

from collections.abc import Sequence
from typing import Any

from rankwise.report.figure_style import GREY, colour, finished
from rankwise.report.figures import MOST_ARMS, ROW

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
