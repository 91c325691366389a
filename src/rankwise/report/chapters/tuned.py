"""Structures compared each at its own best learning rate, in words."""

from rankwise.analysis.effects import LevelDifference
from rankwise.analysis.tuned import Tuned, TunedStructure
from rankwise.report.document import Block, Paragraph, Section, code, table
from rankwise.results.judge import Judgement, words
from rankwise.text import interval, names, number, p_value, percent, signed, significant

MOST_ROWS = 30


def tuned(judgement: Judgement) -> Section | None:
    """Each combination of the other settings at its own best learning rate."""
    found = judgement.tuned
    if found is None:
        return None
    blocks: list[Block] = [Paragraph(_method(found)), _table(judgement, found)]
    effects = [d for f in found.effects.factors for d in f.differences if d.separable]
    if effects:
        blocks.append(_effects(judgement, effects))
    return Section("Each at its own best learning rate", "tuned", tuple(blocks))


def _method(found: Tuned) -> str:
    tied = [row for row in found.structures if row.tied]
    text = (
        "Each combination of the other settings is read at the learning rate that is best for it. "
        "The choice is corrected for: it is made on other seeds and other examples than those that "
        "are read, so a value may be slightly too bad, but is not too good for having been chosen."
    )
    if len(tied) == 1:
        return f"{text} {_name(tied[0])} is significantly better than all others."
    return f"{text} {len(tied)} of {len(found.structures)} combinations are tied for best."


def _name(row: TunedStructure) -> str:
    return names([code(f"{key} = {value}") for key, value in row.structure], 6)


def _table(judgement: Judgement, found: Tuned) -> Block:
    digits = judgement.digits
    rows = [
        (
            _name(row),
            significant(row.chosen),
            percent(row.share, 0),
            str(len(row.rates)),
            number(row.value, digits),
            signed(row.difference, digits),
            interval(row.low, row.high, digits),
            p_value(row.p_adjusted),
            "tied" if row.tied else "worse",
        )
        for row in found.structures[:MOST_ROWS]
    ]
    caption = (
        "Chosen: the best learning rate on all data, and how many of the choices on a part of the "
        "data fell on it. Rates: how many have a result."
    )
    if len(found.structures) > MOST_ROWS:
        caption += f" The first {MOST_ROWS} of {len(found.structures)}."
    metric = words(judgement.verdict.metric)
    head = (
        "combination", "chosen", "choices", "rates", metric, "from best", "95 % interval", "p",
        "verdict",
    )  # fmt: skip
    return table(head, rows, numeric=(1, 2, 3, 4, 5, 6, 7), caption=caption)


def _effects(judgement: Judgement, effects: list[LevelDifference]) -> Block:
    digits = judgement.digits
    rows = [
        (
            code(d.factor),
            code(d.low),
            code(d.high),
            signed(d.value, digits),
            interval(d.low_bound, d.high_bound, digits),
            p_value(d.p_adjusted),
            _said(judgement, d),
        )
        for d in effects[:MOST_ROWS]
    ]
    caption = (
        "Effects of the other settings where each combination has its own best learning rate. p: "
        "adjusted (Holm) over all rows."
    )
    change = f"change in {words(judgement.verdict.metric)}"
    head = ("setting", "from", "to", change, "95 % interval", "p", "effect")
    return table(head, rows, numeric=(3, 4, 5), caption=caption)


def _said(judgement: Judgement, d: LevelDifference) -> str:
    if d.low_bound is None or d.value is None:
        return "cannot tell"
    if not d.decided:
        return "not significant"
    return "better" if (d.value < 0) == judgement.verdict.lower_is_better else "worse"
