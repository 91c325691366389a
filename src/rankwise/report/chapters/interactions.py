"""Interactions of two settings in words, and the effect of each where they are significant."""

from rankwise.analysis.interactions import Interaction, Interactions, SimpleEffect
from rankwise.report.document import Block, Details, Paragraph, code, table
from rankwise.results.judge import Judgement, words
from rankwise.text import count, interval, p_value, signed

MOST_ROWS = 40


def interactions(judgement: Judgement) -> list[Block]:
    """What was tested, what is significant, and simple effects where an interaction is."""
    found = judgement.interactions
    if found is None or not (found.tested or found.not_separable):
        return []
    if not found.tested:
        return [
            Paragraph(
                "Interactions cannot be estimated: these configurations do not separate any pair "
                "of settings.",
                "small",
            )
        ]
    shown = _tested(judgement, found)
    clear = [f"{code(one.first)} and {code(one.second)}" for one in found.tested if one.clear]
    if not clear:
        return [Details("Interactions: none is significant", (shown,))]
    blocks: list[Block] = [
        Paragraph(f"Significant interactions: {'; '.join(clear)}.", "warning"),
        shown,
    ]
    if found.simple:
        blocks.append(_simple(judgement, found))
    return blocks


def _tested(judgement: Judgement, found: Interactions) -> Block:
    rows = [_interaction(judgement, one) for one in found.tested[:MOST_ROWS]]
    caption = (
        "How the effect of the first setting changes with the second: the largest difference of "
        "differences, in the metric. Interval and p allow for having chosen the largest, and for "
        "the number of rows."
    )
    if found.not_separable:
        caption += f" Not separable: {count(len(found.not_separable), 'more pair')}."
    head = ("setting", "and", "largest at", "difference of differences", "95 % interval", "p")
    return table(head, rows, numeric=(3, 4, 5), caption=caption)


def _interaction(judgement: Judgement, one: Interaction) -> tuple[str, ...]:
    digits = judgement.digits
    return (
        code(one.first),
        code(one.second),
        f"{code(one.high)}, {code(one.other)}",
        signed(one.value, digits),
        interval(one.low_bound, one.high_bound, digits),
        p_value(one.p_adjusted),
    )


def _simple(judgement: Judgement, found: Interactions) -> Block:
    rows = [_simple_effect(judgement, one) for one in found.simple[:MOST_ROWS]]
    caption = (
        "The effect of a setting at each value of one with which it has a significant interaction, "
        "on average over the others. Interval and p: of all rows together (Bonferroni)."
    )
    if found.misfit_p is not None and found.misfit_p < 0.05:
        caption += (
            f" Even these change with further settings (p {p_value(found.misfit_p)}); single "
            "configurations are compared in the ranking."
        )
    if len(found.simple) > MOST_ROWS:
        caption += f" The first {MOST_ROWS} of {len(found.simple)}."
    change = f"change in {words(judgement.verdict.metric)}"
    head = ("setting", "from", "to", "where", change, "95 % interval", "p", "effect")
    return table(head, rows, numeric=(4, 5, 6), caption=caption)


def _simple_effect(judgement: Judgement, one: SimpleEffect) -> tuple[str, ...]:
    digits = judgement.digits
    return (
        code(one.factor),
        code(one.low),
        code(one.high),
        f"{code(one.other)} = {code(one.at)}",
        signed(one.value, digits),
        interval(one.low_bound, one.high_bound, digits),
        p_value(one.p_adjusted),
        _said(judgement, one),
    )


def _said(judgement: Judgement, one: SimpleEffect) -> str:
    if one.p_adjusted is None:
        return "cannot tell"
    if one.p_adjusted >= 0.05:
        return "not significant"
    return "better" if (one.value < 0) == judgement.verdict.lower_is_better else "worse"
