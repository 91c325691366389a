"""How often the order changes between the blocks of a table, where, and each block alone."""

from rankwise.analysis.blocks import ByBlock, OrderOfPair, Reversal
from rankwise.analysis.verdict import LEVEL
from rankwise.report.document import (
    Block,
    Bullets,
    Details,
    Paragraph,
    Section,
    code,
    table,
)
from rankwise.results.judge import Judgement, words
from rankwise.results.records import is_failure, own_runs
from rankwise.text import MISSING, count, interval, names, number, p_equals, p_value, setting

MOST_BLOCKS = 300
MOST_FAILURES = 100
FEW_VALUES = 4


def by_block_of(judgement: Judgement) -> ByBlock:
    """What is known block by block; only for records that have blocks."""
    assert judgement.by_block is not None
    return judgement.by_block


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
        return f"{text}: the difference is not the same in all blocks (p {p_equals(pair.p)})."
    return f"{text}: no sign that the difference is not the same in all blocks."


def order(judgement: Judgement) -> Section | None:
    """How often the order of each configuration and the best changes between blocks."""
    by_block = by_block_of(judgement)
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
        f"({interval(one.low, one.high, digits)}; adjusted p {p_equals(one.p_adjusted)})."
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
    by_block, records = by_block_of(judgement), judgement.records
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
    by_block, records = by_block_of(judgement), judgement.records
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
