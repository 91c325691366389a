"""Groups of arms, ranks by layer, and what the trained models answer."""

import re
import statistics
from collections.abc import Sequence

from rankwise.analysis.groups import (
    Group,
    GroupDifference,
    GroupRun,
    at_equal_budget,
    summarize_groups,
)
from rankwise.report import figures
from rankwise.report.document import (
    Block,
    Bullets,
    Details,
    Figure,
    Paragraph,
    Quotes,
    Section,
    clean,
    code,
    table,
)
from rankwise.report.judgement import Judgement, prices_of, ranked, trained, words
from rankwise.report.numbers import (
    MISSING,
    count,
    interval,
    listing,
    number,
    plural,
    setting,
    signed,
)
from rankwise.report.records import Answer, distinct

MOST_PROMPTS = 8
MOST_ANSWERS = 6
LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


def groups(judgement: Judgement) -> Section | None:
    """Groups compared by count, mean, spread and best of each; equal budgets apart."""
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
        "of arm",
        "trainable parameters",
        "per million",
        "without a result",
    )
    rows = [_group_row(judgement, group) for group in found]
    caption = (
        "Means and best runs are of different things and stand in columns of their own. Spread: "
        "standard deviation over runs, arms and seeds mixed. Per million: mean of the metric "
        "divided by millions of parameters; it falls as the budget grows even where the metric "
        "stays, so it ranks nothing across budgets. Failures are counted, never averaged."
    )
    blocks: list[Block] = [table(head, rows, numeric=(1, 2, 3, 4, 5, 8), caption=caption)]
    equal = at_equal_budget(judgement.parts, member, budget, metric)
    if equal:
        blocks.append(Paragraph("At exactly equal budgets:"))
        blocks.append(Bullets(tuple(_equal_words(judgement, one) for one in equal[:12])))
    elif any(value is not None for value in budget.values()):
        blocks.append(
            Paragraph(
                "No two groups have arms of equal budget, so whatever parts them may be the budget "
                "as well as the group.",
                "warning",
            )
        )
    return Section(f"Groups by {code(key)}", "groups", tuple(blocks))


def _equal_words(judgement: Judgement, one: GroupDifference) -> str:
    digits = judgement.digits
    known = "cannot tell whether by chance" if one.low is None else "95 % interval "
    bounds = "" if one.low is None else interval(one.low, one.high, digits)
    return (
        f"With {count(one.budget)} parameters each, {code(one.first)} less {code(one.second)}: "
        f"{signed(one.value, digits)} ({known}{bounds}; {plural(len(one.first_arms), 'arm')} "
        f"against {len(one.second_arms)})."
    )


def _members(judgement: Judgement, key: str) -> tuple[dict[str, str], dict[str, float | None]]:
    """Group and trainable parameters of each arm."""
    arms = judgement.records.arms
    member = {arm.name: setting(arm.settings.get(key, "not set")) for arm in arms}
    return member, prices_of(judgement.records, "trainable_params")


def group_runs(judgement: Judgement) -> tuple[Group, ...]:
    """A summary of each group of arms; none where no setting makes groups."""
    if judgement.grouping is None:
        return ()
    member, budget = _members(judgement, judgement.grouping)
    runs = [
        GroupRun(run.arm, member[run.arm], run.value, budget[run.arm], run.state)
        for run in distinct(judgement.records).runs
        if run.state not in ("planned", "running")
    ]
    return summarize_groups(runs, judgement.records.lower_is_better)


def _group_row(judgement: Judgement, group: Group) -> tuple[str, ...]:
    digits = judgement.digits
    budgets = [count(value) for value in group.budgets]
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
        listing(budgets) if budgets else MISSING,
        number(group.score_per_million, 4),
        listing(failures) if failures else MISSING,
    )


def ranks(judgement: Judgement) -> Section | None:
    """The rank of each layer and module, for arms whose ranks differ by layer."""
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
        f"Ranks by layer of {listing([arm.name for arm in arms], 4)}: between {lows:g} and "
        f"{highs:g}, over layers {min(c[2] for c in cells)} to {max(c[2] for c in cells)}."
    )
    caption = "Rank by layer, one row a kind of module and arm; the mean where there are several."
    figure = Figure("ranks", caption, alt, figures.ranks_by_layer(cells, alt))
    rows = [
        (
            code(arm.name),
            code(setting(arm.settings.get("ranks.strategy", MISSING))),
            f"{min(arm.ranks.values())} to {max(arm.ranks.values())}",
            count(arm.costs["trainable_params"].value)
            if "trainable_params" in arm.costs
            else MISSING,
        )
        for arm in arms
    ]
    head = ("arm", "strategy", "ranks", "trainable parameters")
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


def answers(judgement: Judgement) -> Section | None:
    """Sample answers beside each other, and the measures of all of them."""
    found = judgement.records.answers
    if not found:
        return None
    order = ["base", *(arm.name for arm in ranked(judgement))]
    names = [name for name in order if any(answer.arm == name for answer in found)]
    blocks: list[Block] = [measures_table(found, names)]
    shown = names[: MOST_ANSWERS + 1]
    prompts = list(dict.fromkeys(answer.prompt for answer in found))
    quotes = [quotes_of(found, prompt, shown) for prompt in prompts[:MOST_PROMPTS]]
    blocks += quotes[:2]
    if quotes[2:]:
        blocks.append(Details(f"{len(quotes) - 2} more prompts", tuple(quotes[2:])))
    if len(names) > len(shown):
        text = f"Shown are the first {len(shown) - 1} arms of the ranking, each at its first seed."
        blocks.append(Paragraph(text, "small"))
    return Section("Sample answers", "answers", tuple(blocks))


def measures_table(found: Sequence[Answer], names: Sequence[str]) -> Block:
    """Mean of every measure of the answers of each arm."""
    measures = list(dict.fromkeys(name for answer in found for name in answer.measures))
    rows = []
    for name in names:
        own = [answer for answer in found if answer.arm == name]
        means = [
            statistics.fmean(values) if values else None
            for values in (
                [answer.measures[m] for answer in own if m in answer.measures] for m in measures
            )
        ]
        label = "untrained base" if name == "base" else code(name)
        rows.append((label, str(len(own)), *(number(mean, 3) for mean in means)))
    head = ("arm", "answers", *(clean(m).replace("_", " ") for m in measures))
    caption = "Means over answers and seeds. They describe style; they rank nothing here."
    return table(head, rows, numeric=range(1, len(head)), caption=caption)


def quotes_of(found: Sequence[Answer], prompt: str, names: Sequence[str]) -> Quotes:
    """The answers of these arms to one prompt, each at its first seed, the reference first."""
    own = [answer for answer in found if answer.prompt == prompt]
    texts = []
    reference = next((answer.reference for answer in own if answer.reference), None)
    if reference is not None:
        texts.append(("Reference", reference))
    for name in names:
        answer = next((answer for answer in own if answer.arm == name), None)
        if answer is not None:
            title = "Untrained base" if name == "base" else code(name)
            texts.append((title, answer.answer))
    return Quotes(prompt, tuple(texts))
