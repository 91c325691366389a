"""Results in blocks: the first lines of their report, and the ranking over all blocks."""

import math

from rankwise.analysis.blocks import ByBlock
from rankwise.analysis.verdict import ArmResult
from rankwise.report import figures
from rankwise.report.chapters.block_order import by_block_of, order_words
from rankwise.report.chapters.ranking import standing
from rankwise.report.document import (
    Block,
    Bullets,
    Figure,
    Paragraph,
    Section,
    code,
    strong,
    table,
)
from rankwise.report.words import headline, may_be_worse, price_of, reason
from rankwise.results.judge import Judgement, words
from rankwise.results.records import is_failure, own_runs
from rankwise.text import MISSING, count, interval, names, number, p_value


def lead(judgement: Judgement) -> tuple[Block, ...]:
    """The verdict over all blocks, how often the order changes, and what to use."""
    by_block = by_block_of(judgement)
    items = [_use(judgement), _for_others(judgement), _leaders(judgement), _nearest(judgement)]
    items += [_elsewhere(by_block), _failures(judgement)]
    items.append(
        "Configurations are compared inside blocks only, never across them. The intervals count "
        "what differs between blocks as noise: they hold on average for these "
        f"{count(len(by_block.names), 'block')}, and for other blocks only if these are a sample "
        "of them."
    )
    return (
        Paragraph(_headline(judgement), "verdict"),
        Bullets(tuple(item for item in items if item)),
    )


def _made_of(by_block: ByBlock) -> str:
    """`2 values of model, 4 of task`."""
    parts = []
    for column in by_block.contexts[0]:
        values = {repr(context[column]) for context in by_block.contexts}
        parts.append(f"{count(len(values), 'value')} of {code(column)}")
    return names(parts)


def _headline(judgement: Judgement) -> str:
    verdict, by_block = judgement.verdict, by_block_of(judgement)
    ranked = [arm for arm in verdict.arms if arm.place]
    if len(ranked) < 2:
        return headline(verdict, judgement.digits)
    over = f"{count(len(by_block.names), 'block')} ({_made_of(by_block)})"
    best = next(arm for arm in ranked if arm.arm == verdict.best)
    mean = f"{words(verdict.metric)} {number(best.fitted, judgement.digits)}"
    if verdict.winner is not None:
        title = strong("Best on average over the blocks:")
        return (
            f"{title} {code(best.arm)}, mean {mean}, is significantly better than every other "
            f"configuration over {over}."
        )
    tied = names([code(name) for name in verdict.tie_group], 4)
    title = f"{len(verdict.tie_group)} of {len(ranked)} configurations are tied for best:"
    return (
        f"{strong(title)} {tied}, over {over}. {code(best.arm)} has the best mean ({mean}), but "
        "this may be chance."
    )


def _leaders(judgement: Judgement) -> str:
    """How many blocks each configuration leads, the first four."""
    by_block = by_block_of(judgement)
    won = sorted(by_block.won_A.items(), key=lambda item: -item[1])
    shown = [f"{code(arm)} in {times}" for arm, times in won[:4] if times]
    single = sum(verdict.winner is not None for verdict in by_block.verdicts)
    return (
        f"Best mean in a block, of {len(by_block.names)}: {names(shown)}. "
        f"{count(single, 'block')} alone {'shows' if single == 1 else 'show'} a significant winner."
    )


def _nearest(judgement: Judgement) -> str:
    """How often the order of the best and the next one changes."""
    order = by_block_of(judgement).order
    return order_words(order[0]) if order else ""


def _elsewhere(by_block: ByBlock) -> str:
    """The values of context columns in which others are better."""
    places: dict[str, list[str]] = {}
    for one in by_block.reversals:
        place = f"{code(one.column)} {code(one.value)}"
        places.setdefault(place, []).append(code(one.arm))
    if not places:
        return ""
    found = [f"{names(arms, 3)} in {place}" for place, arms in list(places.items())[:4]]
    more = f", and others in {len(places) - 4} more" if len(places) > 4 else ""
    return (
        f"Not everywhere; significantly better than {code(by_block.reversals[0].other)}: "
        f"{names(found)}{more}."
    )


def _for_others(judgement: Judgement) -> str:
    """The context columns whose values, as the sample, leave more configurations in the tie."""
    tied = len(judgement.verdict.tie_group)
    wider = [one for one in by_block_of(judgement).across if len(one.tie_group) > tied]
    if not wider:
        return ""
    parts = [
        f"{code(one.column)} ({one.values} here; {len(one.tie_group)} configurations could be the "
        "best)"
        for one in wider
    ]
    return f"Not shown to hold for other values of {names(parts)}."


def _use(judgement: Judgement) -> str:
    choice, records = judgement.choice, judgement.records
    if choice.arm is None or len(judgement.parts.arms) < 2:
        return ""
    price = price_of(records.arm(choice.arm), records.cost)
    name = strong(code(choice.arm)) + (f" ({price})" if price else "")
    return f"Use {name}: {reason(judgement)}. {may_be_worse(judgement)}".rstrip()


def _failures(judgement: Judgement) -> str:
    runs = own_runs(judgement.records)
    failed, still = (
        sum(map(is_failure, runs)),
        sum(run.state in ("planned", "running") for run in runs),
    )
    parts = []
    if failed:
        parts.append(f"{count(failed, 'run')} of {len(runs):,} ended without a result.")
    if still:
        parts.append(f"{count(still, 'run')} of {len(runs):,} not finished.")
    return " ".join(parts)


def over_all(judgement: Judgement) -> Section:
    """The ranking over all blocks: means, differences inside blocks, and how often each leads."""
    verdict, by_block = judgement.verdict, by_block_of(judgement)
    results = sorted(verdict.arms, key=lambda arm: (arm.place is None, arm.place or 0))
    rows = [_row(judgement, result) for result in results]
    metric = words(verdict.metric)
    head = ("", "configuration", "verdict", f"mean {metric}", "behind best", "95 % bounds",
            "p", "mean rank", "blocks led", "better than the best in", "blocks")  # fmt: skip
    caption = (
        f"{metric.capitalize()}, {'lower' if verdict.lower_is_better else 'higher'} is better; the "
        "mean over blocks of the mean in each block, adjusted for blocks without a result. Behind "
        "best: from the best mean, taken inside each block; bounds: how far it is at least and at "
        "most behind the truly best configuration, right for all at once. p: the level at which it "
        "is ruled out as the best. Mean rank: of the means in a block, 1 is best."
    )
    marked = [place for place, result in enumerate(results) if result.tied]
    numeric = (0, 3, 4, 5, 6, 7, 8, 9, 10)
    blocks: list[Block] = [table(head, rows, numeric=numeric, marked=marked, caption=caption)]
    if verdict.best is not None and by_block.order:
        blocks.append(_figure(judgement))
    blocks.append(
        Paragraph(
            "In the chapters on settings, costs and groups a block takes the place of a seed: the "
            "noise between seeds is there the noise between blocks."
        )
    )
    return Section("Over all blocks", "ranking", tuple(blocks))


def _row(judgement: Judgement, result: ArmResult) -> tuple[str, ...]:
    verdict, by_block, digits = judgement.verdict, by_block_of(judgement), judgement.digits
    one = next((d for d in verdict.distances if d.arm == result.arm), None)
    pair = next((pair for pair in by_block.order if pair.arm == result.arm), None)
    return (
        MISSING if result.place is None else str(result.place),
        code(result.arm),
        "no result, not ranked" if result.place is None else standing(verdict, result),
        number(result.fitted, digits),
        number(one.value, digits) if one and pair else MISSING,
        interval(one.low, one.high, digits) if one else MISSING,
        p_value(one.p) if one and pair else MISSING,
        number(by_block.rank_A.get(result.arm), 1),
        str(by_block.won_A.get(result.arm, 0)),
        f"{pair.better} of {pair.blocks}" if pair else MISSING,
        str(result.finished),
    )


def _figure(judgement: Judgement) -> Figure:
    """Differences from the best, with one tick a block."""
    verdict, records = judgement.verdict, judgement.records
    best = str(verdict.best)
    place = {arm.name: a for a, arm in enumerate(records.arms)}
    x_AK = records.x_AS
    sign, tied = (1.0 if verdict.lower_is_better else -1.0), set(verdict.tie_group)
    rows = []
    for one in verdict.distances:
        off_K = x_AK[place[one.arm]] - x_AK[place[best]]
        ends = (math.nan if bound is None else sign * bound for bound in (one.low, one.high))
        low, high = sorted(ends)
        off = [] if one.arm == best else off_K.tolist()
        rows.append(_figure_row(one.arm, sign * one.value, low, high, one.arm in tied, off))
    metric = words(verdict.metric)
    alt = (
        f"Difference of each configuration from {best} in {metric}: mean over blocks, interval, "
        "and a tick for every block."
    )
    caption = (
        f"{metric.capitalize()} minus that of {code(best)}. Point: mean over the blocks. Bar: how "
        "much worse than the truly best configuration it is at least and at most; 95 %, right for "
        "all of them at once. Grey ticks: single blocks; on the other side of the dashed line the "
        "order is reversed."
    )
    axis = f"{metric} minus that of {best}"
    return Figure("blocks", caption, alt, figures.ranking(rows, axis, alt))


def _figure_row(
    arm: str, value: float, low: float, high: float, tied: bool, off: list[float]
) -> figures.RankRow:
    known = [(place, one) for place, one in enumerate(off, start=1) if math.isfinite(one)]
    return figures.RankRow(
        arm=arm,
        value=value,
        low=low,
        high=high,
        group="tie group" if tied else "ruled out",
        runs=tuple(one for _, one in known),
        seeds=tuple(place for place, _ in known),
    )
