"""Results in blocks: over all of them, how often the order changes, and block by block."""

import math

from rankwise.analysis.blocks import ByBlock, OrderOfPair, Reversal
from rankwise.report import figures
from rankwise.report.document import (
    Block,
    Bullets,
    Details,
    Figure,
    Paragraph,
    Section,
    code,
    strong,
    table,
)
from rankwise.report.words import headline, price_of, reason
from rankwise.results.judge import Judgement, words
from rankwise.results.records import is_failure, own_runs
from rankwise.text import MISSING, count, interval, names, number, p_value, setting, signed

MOST_BLOCKS = 300
MOST_FAILURES = 100
FEW_VALUES = 4
LEVEL = 0.05


def lead(judgement: Judgement) -> tuple[Block, ...]:
    """The verdict over all blocks, how often the order changes, and what to use."""
    by_block = _of(judgement)
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


def _of(judgement: Judgement) -> ByBlock:
    assert judgement.by_block is not None
    return judgement.by_block


def _made_of(by_block: ByBlock) -> str:
    """`2 values of model, 4 of task`."""
    parts = []
    for column in by_block.contexts[0]:
        values = {repr(context[column]) for context in by_block.contexts}
        parts.append(f"{count(len(values), 'value')} of {code(column)}")
    return names(parts)


def _headline(judgement: Judgement) -> str:
    verdict, by_block = judgement.verdict, _of(judgement)
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
    by_block = _of(judgement)
    won = sorted(by_block.won_A.items(), key=lambda item: -item[1])
    shown = [f"{code(arm)} in {times}" for arm, times in won[:4] if times]
    single = sum(verdict.winner is not None for verdict in by_block.verdicts)
    return (
        f"Best mean in a block, of {len(by_block.names)}: {names(shown)}. "
        f"{count(single, 'block')} alone {'shows' if single == 1 else 'show'} a significant winner."
    )


def _nearest(judgement: Judgement) -> str:
    """How often the order of the best and the next one changes."""
    order = _of(judgement).order
    return order_words(order[0]) if order else ""


def _elsewhere(by_block: ByBlock) -> str:
    """The values of context columns in which others are better."""
    places: dict[str, list[str]] = {}
    for one in by_block.reversals:
        place = f"{code(one.column)} {code(one.value)}"
        places.setdefault(place, []).append(code(one.arm))
    if not places:
        return ""
    found = [f"in {place} by {names(arms, 3)}" for place, arms in list(places.items())[:4]]
    more = f" and in {len(places) - 4} more" if len(places) > 4 else ""
    return (
        f"Not everywhere: {code(by_block.reversals[0].other)} is beaten significantly "
        f"{names(found)}{more}."
    )


def _for_others(judgement: Judgement) -> str:
    """The context columns whose values, as the sample, leave more configurations in the tie."""
    tied = len(judgement.verdict.tie_group)
    wider = [one for one in _of(judgement).across if len(one.tie_group) > tied]
    if not wider:
        return ""
    parts = [
        f"{code(one.column)} ({one.values} here; {len(one.tie_group)} configurations could be the "
        "best)"
        for one in wider
    ]
    return f"Not shown to hold for other values of {names(parts)}."


def order_words(pair: OrderOfPair) -> str:
    """How often one configuration is better than the best over all blocks."""
    text = (
        f"{code(pair.arm)} is better than {code(pair.other)} in {pair.better} of "
        f"{count(pair.blocks, 'block')}"
    )
    if pair.by_noise is None or pair.p is None:
        return f"{text}; how many of these are noise is unknown."
    text += f", where noise alone would give about {pair.by_noise:.0f}"
    if pair.p < LEVEL:
        return f"{text}: the difference is not the same in all blocks (p {_less(pair.p)})."
    return f"{text}: no sign that the difference is not the same in all blocks."


def _less(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _use(judgement: Judgement) -> str:
    choice, records = judgement.choice, judgement.records
    if choice.arm is None or len(judgement.parts.arms) < 2:
        return ""
    price = price_of(records.arm(choice.arm), records.cost)
    name = strong(code(choice.arm)) + (f" ({price})" if price else "")
    return f"Use {name}: {reason(judgement)}."


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
    verdict, by_block, digits = judgement.verdict, _of(judgement), judgement.digits
    against = {one.arm: one for one in verdict.with_best}
    pairs = {pair.arm: pair for pair in by_block.order}
    results = sorted(verdict.arms, key=lambda arm: (arm.place is None, arm.place or 0))
    rows = []
    for result in results:
        one, pair = against.get(result.arm), pairs.get(result.arm)
        said = "worse" if not result.tied else "tied" if one else "best mean"
        if verdict.winner == result.arm:
            said = "best"
        rows.append(
            (
                MISSING if result.place is None else str(result.place),
                code(result.arm),
                "no result, not ranked" if result.place is None else said,
                number(result.fitted, digits),
                signed(one.value, digits) if one else MISSING,
                interval(one.low, one.high, digits) if one else MISSING,
                p_value(one.p_adjusted) if one else MISSING,
                number(by_block.rank_A.get(result.arm), 1),
                str(by_block.won_A.get(result.arm, 0)),
                f"{pair.better} of {pair.blocks}" if pair else MISSING,
                str(result.finished),
            )
        )
    metric = words(verdict.metric)
    head = ("", "configuration", "verdict", f"mean {metric}", "from best", "95 % interval", "p",
            "mean rank", "blocks led", "better than the best in", "blocks")  # fmt: skip
    caption = (
        f"{metric.capitalize()}, {'lower' if verdict.lower_is_better else 'higher'} is better; the "
        "mean over blocks of the mean in each block, adjusted for blocks without a result. From "
        "best: difference from the configuration with the best mean, taken inside each block. p is "
        "adjusted for all comparisons with the best. Mean rank: of the means in a block, 1 is best."
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


def _figure(judgement: Judgement) -> Figure:
    """Differences from the best, with one tick a block."""
    verdict, records = judgement.verdict, judgement.records
    best = str(verdict.best)
    place = {arm.name: a for a, arm in enumerate(records.arms)}
    x_AK = records.x_AS
    rows = [_figure_row(best, 0.0, math.nan, math.nan, True, [])]
    tied = set(verdict.tie_group)
    for one in verdict.with_best:
        off_K = x_AK[place[one.arm]] - x_AK[place[best]]
        low, high = (math.nan if bound is None else bound for bound in (one.low, one.high))
        rows.append(_figure_row(one.arm, one.value, low, high, one.arm in tied, off_K.tolist()))
    metric = words(verdict.metric)
    alt = (
        f"Difference of each configuration from {best} in {metric}: mean over blocks, interval, "
        "and a tick for every block."
    )
    caption = (
        f"{metric.capitalize()} minus that of {code(best)}. Point and bar: mean over the blocks "
        "and its 95 % interval. Grey ticks: single blocks; on the other side of the dashed line "
        "the order is reversed."
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
        group="tie group" if tied else "worse",
        runs=tuple(one for _, one in known),
        seeds=tuple(place for place, _ in known),
    )


def order(judgement: Judgement) -> Section | None:
    """How often the order of each configuration and the best changes between blocks."""
    by_block = _of(judgement)
    if not by_block.order:
        return None
    best = by_block.order[0].other
    rows = [_order_row(pair, judgement.digits) for pair in by_block.order]
    head = ("configuration", "better in", "worse in", "equal in", "by noise", "surely better",
            "surely worse", "spread", "p")  # fmt: skip
    caption = (
        f"Blocks in which the mean is better or worse than that of {code(best)}. By noise: blocks "
        "in which noise alone is expected to reverse the order of the averages. Surely: "
        "significant in that block, adjusted for the number of blocks (5 %). Spread: standard "
        "deviation over blocks of the true difference, the noise inside blocks subtracted. p: of "
        "the difference being the same in all blocks. They need two runs in a block or more."
    )
    blocks: list[Block] = [table(head, rows, numeric=range(1, 9), caption=caption)]
    if by_block.reversals:
        blocks.append(Paragraph(f"Where another one is significantly better than {code(best)}:"))
        said = [reversal_words(one, judgement.digits) for one in by_block.reversals]
        blocks.append(Bullets(tuple(said)))
    elif len(by_block.names) > 2:
        blocks.append(
            Paragraph(
                "There is no value of a column of the blocks in which another configuration is "
                f"significantly better than {code(best)} on average."
            )
        )
    blocks += _across(by_block)
    return Section("How often the order changes", "order", tuple(blocks))


def _order_row(pair: OrderOfPair, digits: int) -> tuple[str, ...]:
    return (
        code(pair.arm),
        str(pair.better),
        str(pair.worse),
        str(pair.equal),
        number(pair.by_noise, 0),
        str(pair.surely_better),
        str(pair.surely_worse),
        number(pair.spread, digits),
        p_value(pair.p),
    )


def reversal_words(one: Reversal, digits: int) -> str:
    """In which blocks a configuration is better than the best over all."""
    return (
        f"{code(one.column)} {code(one.value)} ({count(one.blocks, 'block')}): {code(one.arm)} is "
        f"better than {code(one.other)} by {number(one.gain, digits)} "
        f"({interval(one.low, one.high, digits)}; adjusted p {_less(one.p_adjusted)})."
    )


def _across(by_block: ByBlock) -> list[Block]:
    """What holds for other values of each column, which are fewer than the blocks."""
    if not by_block.across:
        return []
    rows = [
        (
            code(one.column),
            str(one.values),
            code(one.winner) if one.winner else f"{len(one.tie_group)} tied",
            names([code(name) for name in one.tie_group], 4),
            names(
                [f"{code(arm)} ({names([v for v, a in one.leaders if a == arm], 3)})"
                 for arm in dict.fromkeys(arm for _, arm in one.leaders)], 3),
        )
        for one in by_block.across
    ]  # fmt: skip
    head = ("for other values of", "values here", "best", "could be the best", "best mean in")
    text = (
        "Blocks with a value in common are not independent. For other values of one column, such "
        "as other tasks, only its values here are the sample:"
    )
    found: list[Block] = [Paragraph(text), table(head, rows, numeric=(1,))]
    few = [code(one.column) for one in by_block.across if one.values < FEW_VALUES]
    if few:
        found.append(
            Paragraph(
                f"Fewer than {FEW_VALUES} values of {names(few)}: too few to know much about other "
                "values.",
                "warning",
            )
        )
    return found


def block_by_block(judgement: Judgement) -> Section:
    """The verdict of each block alone."""
    by_block, records = _of(judgement), judgement.records
    rows = [_block_row(judgement, place) for place in range(min(len(by_block.names), MOST_BLOCKS))]
    head = (*(code(name) for name in by_block.contexts[0]), "configurations", "runs",
            "without a result", "best mean", words(records.metric), "verdict")  # fmt: skip
    single = len(by_block.contexts[0])
    caption = (
        "Each block judged alone, at 5 %: of equal configurations, one block in twenty may show a "
        "winner by chance."
    )
    if len(by_block.names) > MOST_BLOCKS:
        caption += f" The first {MOST_BLOCKS}; all of them are in facts.json."
    numeric = [single, single + 1, single + 2, single + 4]
    blocks: list[Block] = [table(head, rows, numeric=numeric, caption=caption)]
    failed = [run for run in own_runs(records) if is_failure(run)]
    if failed:
        lost = [
            (code(run.id), run.state.replace("_", " "), run.cause or "")
            for run in failed[:MOST_FAILURES]
        ]
        title = f"{count(len(failed), 'run')} without a result"
        if len(failed) > MOST_FAILURES:
            title += f", the first {MOST_FAILURES}"
        blocks.append(Details(title, (table(("run", "state", "cause"), lost),)))
    return Section("Block by block", "blocks", tuple(blocks))


def _block_row(judgement: Judgement, place: int) -> tuple[str, ...]:
    by_block, records = _of(judgement), judgement.records
    verdict, runs = by_block.verdicts[place], records.blocks[place].records.runs
    best = next((arm for arm in verdict.arms if arm.arm == verdict.best), None)
    if best is None:
        said = "no result"
    elif verdict.claim == "nothing":
        said = "cannot tell"
    elif verdict.winner is not None or verdict.stands_out is not None:
        said = "best" if verdict.winner else "best of these runs"
    else:
        said = f"{len(verdict.tie_group)} tied"
    failed = sum(map(is_failure, runs))
    return (
        *(code(setting(value)) for value in by_block.contexts[place].values()),
        str(len(verdict.arms)),
        str(len(runs)),
        str(failed) if failed else MISSING,
        code(verdict.best or ""),
        number(None if best is None else best.mean, judgement.digits),
        said,
    )
