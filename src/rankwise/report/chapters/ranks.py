"""Ranks that differ by layer."""

import re
import statistics

from rankwise.report.document import Figure, Section, code, table
from rankwise.report.figure_grids import ranks_by_layer
from rankwise.report.words import cost_text
from rankwise.results.judge import Judgement, trained
from rankwise.text import MISSING, names, setting

LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


def ranks(judgement: Judgement) -> Section | None:
    """The rank of each layer and module, for configurations whose ranks differ by layer."""
    arms = [arm for arm in trained(judgement) if len(set(arm.ranks.values())) > 1]
    cells = [
        (arm.name, module, layer, rank)
        for arm in arms
        for module, layer, rank in _layers(arm.ranks)
    ]
    if not cells:
        return None
    lows, highs = min(c[3] for c in cells), max(c[3] for c in cells)
    alt = (
        f"Ranks by layer of {names([arm.name for arm in arms], 4)}: between {lows:g} and "
        f"{highs:g}, over layers {min(c[2] for c in cells)} to {max(c[2] for c in cells)}."
    )
    caption = (
        "Rank by layer, a row per configuration and kind of module; the mean if there are several."
    )
    figure = Figure("ranks", caption, alt, ranks_by_layer(cells, alt))
    rows = [
        (
            code(arm.name),
            code(setting(arm.settings.get("ranks.strategy", MISSING))),
            f"{min(arm.ranks.values())} to {max(arm.ranks.values())}",
            cost_text(arm.costs["trainable_params"])
            if "trainable_params" in arm.costs
            else MISSING,
        )
        for arm in arms
    ]
    head = ("configuration", "strategy", "ranks", "trainable parameters")
    return Section("Ranks by layer", "ranks", (figure, table(head, rows, numeric=(3,))))


def _layers(pattern: dict[str, int]) -> list[tuple[str, int, float]]:
    """(kind of module, layer, mean rank) from module names; those without a number are left out."""
    found: dict[tuple[str, int], list[int]] = {}
    for name, rank in pattern.items():
        layer = LAYER.search(name.replace("\\.", "."))
        if layer is not None:
            module = name.rpartition(".")[2].strip("$^()")
            found.setdefault((module, int(layer[1])), []).append(rank)
    return [(m, layer, statistics.fmean(r)) for (m, layer), r in sorted(found.items())]
