"""What each configuration costs, and quality against cost."""

import math
from collections import defaultdict

from rankwise.analysis.front import SAME_COST
from rankwise.report import figures
from rankwise.report.document import (
    Block,
    Bullets,
    Details,
    Figure,
    Paragraph,
    Section,
    clean,
    code,
    table,
)
from rankwise.report.words import cost_text, of_these_runs
from rankwise.results.judge import Judgement, against_best, ranked, words
from rankwise.results.records import ArmFacts
from rankwise.text import MISSING, count, names, number, percent


def costs(judgement: Judgement) -> Section | None:
    """Parameters, memory, time and storage of each configuration, and how each was obtained."""
    records = judgement.records
    if not any(arm.costs for arm in records.arms):
        return None
    rows = [_cost_row(judgement, arm) for arm in ranked(judgement)]
    head = (
        "configuration",
        words(judgement.verdict.metric),
        "trainable parameters",
        "share",
        "memory",
        "per step",
        "per run",
        "storage",
    )
    paths: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for arm in records.arms:
        for name, cost in arm.costs.items():
            paths[name][cost.path].append(arm.name)
    remarks = [
        f"{words(name).capitalize()}: {clean(path)}"
        + ("." if len(found) == 1 else f", for {names([code(a) for a in arms])}.")
        for name, found in paths.items()
        if name != "total_params"
        for path, arms in found.items()
    ]
    return Section(
        "What each configuration costs",
        "costs",
        (table(head, rows, numeric=range(1, 8)), Bullets(tuple(remarks))),
    )


def _cost_row(judgement: Judgement, arm: ArmFacts) -> tuple[str, ...]:
    def text(name: str) -> str:
        return cost_text(arm.costs[name]) if name in arm.costs else MISSING

    share = None
    if "trainable_params" in arm.costs and "total_params" in arm.costs:
        share = arm.costs["trainable_params"].value / arm.costs["total_params"].value
    return (
        code(arm.name),
        number(arm.mean, judgement.digits),
        text("trainable_params"),
        percent(share, 3),
        text("memory"),
        text("step_time"),
        text("time"),
        text("storage"),
    )


def front(judgement: Judgement) -> Section | None:
    """The configurations that may be the best of all that cost no more."""
    found, records = judgement.front, judgement.records
    if len(found.front) + len(found.dominated) < 2:
        return None
    cost = words(found.cost)
    on = names([code(name) for name in found.front], 12)
    blocks: list[Block] = [
        Paragraph(
            f"On the Pareto front of {words(judgement.verdict.metric)} against {cost}, lowest cost "
            f"first: {on}. Each of them may be the best of all that cost no more (for each cost "
            f"the 95 % confidence set of the best{of_these_runs(judgement.verdict)}; costs within "
            f"{percent(SAME_COST, 0)} count as equal). The others are ruled out by configurations "
            "that cost no more" + _but_tied(judgement) + "."
        ),
        _front_figure(judgement),
    ]
    if found.dominated:
        rows = [(code(d.arm), code(d.by)) for d in found.dominated]
        blocks.append(Details("Off the front", (table(("configuration", "ruled out by"), rows),)))
    if found.unpriced:
        unpriced = names([code(name) for name in found.unpriced])
        blocks.append(Paragraph(f"Not shown, because {cost} is not known: {unpriced}.", "small"))
    if records.cost != "trainable_params" and "trainable_params" not in records.arms[0].costs:
        blocks.append(Paragraph("Trainable parameters are not known.", "small"))
    return Section("Quality against cost", "front", tuple(blocks))


def _but_tied(judgement: Judgement) -> str:
    """Why some that are tied in the ranking are off the front; empty where none is."""
    off = [d.arm for d in judgement.front.dominated if d.arm in judgement.verdict.tie_group]
    if not off:
        return ""
    return (
        f"; {names([code(arm) for arm in off], 6)} {'are' if len(off) > 1 else 'is'} tied in the "
        "ranking, where the comparisons with dearer ones count as well"
    )


def _front_figure(judgement: Judgement) -> Figure:
    records, found = judgement.records, judgement.front
    off = {d.arm for d in found.dominated}
    points = []
    for name in (*found.front, *(d.arm for d in found.dominated)):
        value, low, high = against_best(judgement.verdict, name)
        points.append(
            figures.FrontPoint(
                arm=name,
                cost=records.arm(name).costs[found.cost].value,
                value=value,
                low=value if math.isnan(low) else low,
                high=value if math.isnan(high) else high,
                front="off the front" if name in off else "on the front",
            )
        )
    metric, cost = words(judgement.verdict.metric), words(found.cost)
    unit = records.arm(points[0].arm).costs[found.cost].unit
    axis = cost if unit == "parameters" else f"{cost} ({unit})"
    alt = (
        f"{metric.capitalize()} against {cost} for {count(len(points), 'configuration')}. "
        f"On the front, lowest cost first: {names(list(found.front), 6)}."
    )
    caption = (
        f"{metric.capitalize()} against {cost}; bars are the bounds behind the best, as in the "
        "ranking."
    )
    return Figure("front", caption, alt, figures.quality_cost(points, (axis, metric), alt))
