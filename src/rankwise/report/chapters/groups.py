"""Groups of configurations compared, and ranks that differ by layer."""

import re
import statistics

from rankwise.analysis.groups import (
    Group,
    GroupDifference,
    GroupRun,
    at_equal_budget,
    summarize_groups,
)
from rankwise.report.document import Block, Bullets, Figure, Paragraph, Section, code, table
from rankwise.report.figures import ranks_by_layer
from rankwise.report.words import cost_text
from rankwise.results.judge import Judgement, prices_of, trained, words
from rankwise.results.records import distinct, is_stopped
from rankwise.text import MISSING, count, interval, names, number, setting, signed, whole


def groups(judgement: Judgement) -> Section | None:
    """Count, mean, spread and best run of each group, and differences at equal budgets."""
    key, records = judgement.grouping, judgement.records
    if key is None:
        return None
    member, budget = _members(judgement, key)
    found = group_runs(judgement)
    if len(found) < 2:
        return None
    metric = words(records.metric)
    head = (
        key,
        "runs",
        "finished",
        f"mean {metric}",
        "spread",
        "best run",
        "configuration",
        "trainable parameters",
        "per million",
        "without a result",
    )
    rows = [_group_row(judgement, group) for group in found]
    caption = (
        "Best run is a single run, not a mean. Spread: standard deviation over runs of all "
        "configurations and seeds of the group. Per million: mean of the metric divided by "
        "millions of parameters; it falls as the budget grows even if the metric stays the same, "
        "so it cannot rank groups of different budgets. Failures are counted and not averaged."
    )
    blocks: list[Block] = [table(head, rows, numeric=(1, 2, 3, 4, 5, 8), caption=caption)]
    equal = at_equal_budget(judgement.parts, member, budget)
    if equal:
        blocks.append(Paragraph("At exactly equal budgets:"))
        blocks.append(Bullets(tuple(_equal_words(judgement, one) for one in equal[:12])))
    elif any(value is not None for value in budget.values()):
        blocks.append(
            Paragraph(
                "No two groups have configurations with the same budget, so a difference between "
                "groups may come from the budget.",
                "warning",
            )
        )
    return Section(f"Groups by {code(key)}", "groups", tuple(blocks))


def _equal_words(judgement: Judgement, one: GroupDifference) -> str:
    digits = judgement.digits
    known = "cannot tell, the noise is unknown" if one.low is None else "95 % interval "
    bounds = "" if one.low is None else interval(one.low, one.high, digits)
    arms = count(len(one.first_arms), "configuration")
    return (
        f"With {whole(one.budget)} parameters each, {code(one.first)} minus {code(one.second)}: "
        f"{signed(one.value, digits)} ({known}{bounds}; {arms} "
        f"against {len(one.second_arms)})."
    )


def _members(judgement: Judgement, key: str) -> tuple[dict[str, str], dict[str, float | None]]:
    """Group and trainable parameters of each configuration."""
    arms = judgement.records.arms
    member = {arm.name: setting(arm.settings.get(key, "not set")) for arm in arms}
    return member, prices_of(judgement.records, "trainable_params")


def group_runs(judgement: Judgement) -> tuple[Group, ...]:
    """A summary of each group of configurations; none where no setting forms groups."""
    if judgement.grouping is None:
        return ()
    member, budget = _members(judgement, judgement.grouping)
    runs = [
        GroupRun(run.arm, member[run.arm], run.value, budget[run.arm], run.state)
        for run in distinct(judgement.records).runs
        if run.state not in ("planned", "running") and not is_stopped(run)
    ]
    return summarize_groups(runs, judgement.records.lower_is_better)


def _group_row(judgement: Judgement, group: Group) -> tuple[str, ...]:
    digits = judgement.digits
    budgets = [whole(value) for value in group.budgets]
    if len(budgets) > 2:
        budgets = [f"{budgets[0]} to {budgets[-1]}"]
    failures = [f"{n} {state.replace('_', ' ')}" for state, n in group.failures]
    return (
        code(group.group),
        str(group.runs),
        str(group.finished),
        number(group.mean, digits),
        number(group.spread, digits),
        number(group.best, digits),
        code(group.best_arm) if group.best_arm else MISSING,
        names(budgets) if budgets else MISSING,
        number(group.score_per_million, 4),
        names(failures) if failures else MISSING,
    )


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
