"""Groups of arms, ranks by layer, and what the trained models answer."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.analysis.answers import arm_measures
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
from rankwise.report.numbers import MISSING, count, interval, listing, number, plural, signed
from rankwise.results.judge import Judgement, prices_of, ranked, trained, words
from rankwise.results.records import Answer, ArmFacts, distinct, generation_of
from rankwise.text import setting

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
    arms = [arm for arm in ranked(judgement) if any(one.arm == arm.name for one in found)]
    arms = arms or ranked(judgement)
    blocks: list[Block] = [measures_table(speakers(found, arms))]
    shown = speakers(found, arms[:MOST_ANSWERS])
    prompts = list(dict.fromkeys(answer.prompt for answer in found))
    quotes = [quotes_of(shown, prompt) for prompt in prompts[:MOST_PROMPTS]]
    blocks += quotes[:2]
    if quotes[2:]:
        blocks.append(Details(plural(len(quotes) - 2, "more prompt"), tuple(quotes[2:])))
    if len(arms) > MOST_ANSWERS:
        text = f"Shown are the first {MOST_ANSWERS} arms of the ranking, each at its first seed."
        blocks.append(Paragraph(text, "small"))
    return Section("Sample answers", "answers", tuple(blocks))


@dataclass(frozen=True)
class Speaker:
    """An arm, or the untrained base with some arms' generation settings, and what it answered."""

    title: str
    answers: tuple[Answer, ...]


def speakers(found: Sequence[Answer], arms: Sequence[ArmFacts]) -> list[Speaker]:
    """The base, once for every generation setting that these arms have, and the arms."""
    alike: dict[str, list[str]] = {}
    for arm in arms:
        alike.setdefault(generation_of(arm.settings), []).append(arm.name)
    spoken = [
        Speaker(_base_title(names if len(alike) > 1 else []), tuple(_base(found, names)))
        for names in alike.values()
    ]
    for arm in arms:
        own = tuple(one for one in found if one.arm == arm.name)
        spoken.append(Speaker(code(arm.name), own))
    return [one for one in spoken if one.answers]


def _base(found: Sequence[Answer], names: Sequence[str]) -> list[Answer]:
    """What the base answered with the generation settings of these arms."""
    base = [one for one in found if one.arm == "base"]
    return [one for one in base if not one.asked_as or set(one.asked_as) & set(names)]


def _base_title(names: Sequence[str]) -> str:
    asked = f", asked as {listing([code(name) for name in names], 4)}" if names else ""
    return f"Untrained base{asked}"


def measures_table(found: Sequence[Speaker]) -> Block:
    """Means of every measure of the answers, and how varied the answers of a run are."""
    measured = [_measures(speaker.answers) for speaker in found]
    names = list(dict.fromkeys(name for one in measured for name in one))
    names.sort(key=lambda name: name.startswith("distinct"))
    rows = [
        (one.title, str(len(one.answers)), *(number(means.get(name), 3) for name in names))
        for one, means in zip(found, measured, strict=True)
    ]
    head = ("arm", "answers", *(clean(name).replace("_", " ") for name in names))
    caption = (
        "Means over answers and seeds. Distinct 1 and 2: different words, and pairs of words, by "
        "all words that a run answered; they fall as answers grow longer. They describe style; "
        "they rank nothing here."
    )
    return table(head, rows, numeric=range(1, len(head)), caption=caption)


def _measures(own: Sequence[Answer]) -> dict[str, float]:
    """`arm_measures` of each seed apart, lest more seeds look less varied; their means."""
    seeds = dict.fromkeys(one.seed for one in own)
    of_seeds = [[one for one in own if one.seed == seed] for seed in seeds]
    rows = [arm_measures([o.answer for o in s], [o.measures for o in s]) for s in of_seeds]
    names = dict.fromkeys(name for row in rows for name in row if name != "answers")
    return {name: statistics.fmean(row[name] for row in rows if name in row) for name in names}


def quotes_of(found: Sequence[Speaker], prompt: str) -> Quotes:
    """The answers to one prompt, each speaker's at its first seed, the reference first."""
    own = [
        (speaker.title, next((one for one in speaker.answers if one.prompt == prompt), None))
        for speaker in found
    ]
    said = [(title, one) for title, one in own if one is not None]
    references = [("Reference", one.reference) for _, one in said if one.reference is not None]
    return Quotes(prompt, (*references[:1], *((title, one.answer) for title, one in said)))
