"""What each setting does, and which effects cannot be separated."""

from rankwise.analysis.effects import Effects, FactorEffect, LevelDifference
from rankwise.analysis.interactions import Interaction, Shape
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
from rankwise.results.judge import Judgement, words
from rankwise.text import count, interval, names, p_value, signed

MOST_ROWS = 40
BASES = {
    "noise": "The intervals use the noise between seeds and between examples.",
    "misfit": "There is one seed per configuration, so the intervals use the residuals of an "
    "additive model of the settings.",
    "examples": "There is one seed per configuration and the additive model has no residual "
    "degrees of freedom, so the intervals use the examples alone and hold only for these runs.",
    "nothing": "The noise is unknown, so there are differences but no intervals. Any difference "
    "may be chance.",
}
SHAPES = {
    "saturating": "diminishing returns: the first step improves the metric, and the gain per "
    "doubling is smaller at the end",
    "accelerating": "increasing returns: the gain per doubling is larger at the end",
    "steady": "every step is significant; no change of the gain per doubling was found",
    "turning": "not monotone: one step is an improvement and another makes it worse",
    "trend": "the lowest and the highest value differ significantly; no single step does, or the "
    "steps show no simple shape",
    "not shown": "no significant difference, neither of a step nor between the lowest and the "
    "highest value",
    "cannot tell": "cannot tell: the noise is unknown",
}


def effects(judgement: Judgement) -> Section | None:
    """Effects of the settings, interactions, shapes, and what never varied."""
    found = judgement.effects
    if found is None or not found.factors:
        return None
    separable = [d for f in found.factors for d in f.differences if d.separable]
    blocks: list[Block] = []
    if separable:
        blocks.append(Paragraph(_method(found)))
        blocks.append(_table(judgement, separable))
        figure = _figure(judgement, separable)
        if figure is not None:
            blocks.append(figure)
    blocks += _not_separable(found)
    blocks += _shapes(judgement)
    blocks += _interactions(judgement)
    if found.constant:
        same = names([f"{code(k)} = {code(v)}" for k, v in found.constant], 60)
        remark = f"The same in every configuration, so their effect is unknown: {same}."
        blocks.append(Details("Settings that did not vary", (Paragraph(remark),)))
    return Section("What each setting does", "effects", tuple(blocks))


def _method(found: Effects) -> str:
    text = "Difference in the metric when one setting changes and the others stay equal. "
    if found.basis != "misfit":
        text += BASES[found.basis]
    elif found.misfit_p is None:
        text += BASES["misfit"]
    else:
        text += (
            f"The effects of the settings are not additive (p {_less(found.misfit_p)}): the effect "
            "of one depends on others. The values are averages over the other settings, and the "
            "intervals use the residuals of the additive model. The interactions are listed below."
        )
    if found.basis == "noise" and found.misfit_p is not None:
        text += f" A test found no deviation from additive effects (p {_less(found.misfit_p)})."
    lines = [code(f.factor.label) for f in found.factors if f.factor.on_a_line]
    if lines:
        text += (
            f" For {names(lines)}, whose values rarely repeat, the difference is that of a "
            "straight line through all values (their logarithms, if positive)."
        )
    if found.left_out:
        missing = names([code(a) for a in found.left_out])
        text += f" Left out, because they have no result: {missing}."
    return text


def _less(p: float) -> str:
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"


def _table(judgement: Judgement, rows: list[LevelDifference]) -> Block:
    digits = judgement.digits
    cells = [
        (
            code(d.factor),
            code(d.low),
            code(d.high),
            signed(d.value, digits),
            interval(d.low_bound, d.high_bound, digits),
            p_value(d.p_adjusted),
            str(len(d.pairs)) if d.pairs else "0",
            _said(judgement, d.value, d.low_bound, d.high_bound, d.p_adjusted),
        )
        for d in rows[:MOST_ROWS]
    ]
    caption = (
        "p: adjusted (Holm) over all differences shown. Pairs: pairs of configurations that differ "
        "only in this setting; with none, the difference is computed from several comparisons."
    )
    if len(rows) > MOST_ROWS:
        caption += f" The first {MOST_ROWS} of {len(rows)}; the others are in the JSON facts."
    head = (
        "setting",
        "from",
        "to",
        f"change in {words(judgement.verdict.metric)}",
        "95 % interval",
        "p",
        "pairs",
        "effect",
    )
    return table(head, cells, numeric=(3, 4, 5, 6), caption=caption)


def _said(
    judgement: Judgement,
    value: float | None,
    low: float | None,
    high: float | None,
    p_adjusted: float | None,
) -> str:
    if low is None or high is None or value is None:
        return "cannot tell"
    if low <= 0 <= high:
        return "not significant"
    better = (value < 0) == judgement.verdict.lower_is_better
    word = "better" if better else "worse"
    return word if p_adjusted is not None and p_adjusted < 0.05 else f"possibly {word}"


def _figure(judgement: Judgement, rows: list[LevelDifference]) -> Figure | None:
    known = [d for d in rows if d.low_bound is not None][: figures.MOST_ARMS]
    if not known:
        return None
    marks = [
        figures.EffectRow(
            label=clean(f"{d.factor.split('.')[-1]}: {d.low} → {d.high}"),
            factor=d.factor,
            value=float(d.value or 0.0),
            low=float(d.low_bound or 0.0),
            high=float(d.high_bound or 0.0),
            clear=not (d.low_bound or 0.0) <= 0 <= (d.high_bound or 0.0),
        )
        for d in known
    ]
    metric = words(judgement.verdict.metric)
    clear = [mark.label for mark in marks if mark.clear]
    alt = (
        f"Effects of {count(len(marks), 'change')} of a setting on {metric}. "
        f"Intervals that exclude zero: {names(clear, 6) if clear else 'none'}."
    )
    better = "left" if judgement.verdict.lower_is_better else "right"
    caption = (
        f"Change in {metric} with its 95 % interval, not adjusted for the number of changes; "
        f"{better} of the dashed line is better."
    )
    axis = f"change in {metric}"
    return Figure("effects", caption, alt, figures.effects(marks, axis, alt))


def _not_separable(found: Effects) -> list[Block]:
    mixed = [factor for factor in found.factors if not factor.separable]
    partly = [d for f in found.factors if f.separable for d in f.differences if not d.separable]
    items = [_mixed(factor) for factor in mixed]
    for label in dict.fromkeys(d.factor for d in partly):
        items += _partly_mixed([d for d in partly if d.factor == label])
    together = [f for f in found.factors if len(f.factor.settings) > 1]
    items += [
        f"{names([code(name) for name in f.factor.settings])} always change together, so only "
        "their joint effect is known."
        for f in together
    ]
    if not items:
        return []
    intro = "Effects that these configurations cannot separate:"
    return [Paragraph(intro), Bullets(tuple(items))]


def _mixed(effect: FactorEffect) -> str:
    others = names([code(name) for name in effect.mixed_with]) or "the other settings"
    pairs = sum(len(d.pairs) for d in effect.differences)
    end = "" if pairs else "; no two configurations differ only in it"
    return f"{code(effect.factor.label)}: not separable from {others}{end}."


def _partly_mixed(own: list[LevelDifference]) -> list[str]:
    """The steps of one factor that cannot be separated; one line if there are many."""
    if len(own) > 3:
        mixed = list(dict.fromkeys(name for d in own for name in d.mixed_with))
        return [
            f"{code(own[0].factor)}: {len(own)} of its differences are not separable from "
            f"{names([code(name) for name in mixed])}."
        ]
    return [
        f"{code(d.factor)} from {code(d.low)} to {code(d.high)}: not separable from "
        f"{names([code(name) for name in d.mixed_with])}."
        for d in own
    ]


def _shapes(judgement: Judgement) -> list[Block]:
    return [Paragraph(_shape(judgement, shape)) for shape in judgement.shapes]


def _shape(judgement: Judgement, shape: Shape) -> str:
    digits = judgement.digits
    steps = "; ".join(
        f"{step.low:g} to {step.high:g}: {signed(step.gain, digits)}"
        + (f" ({interval(step.low_bound, step.high_bound, digits)})" if step.p is not None else "")
        for step in shape.steps
    )
    text = f"{code(shape.factor)}: {SHAPES[shape.kind]}. Gains (positive is better): {steps}."
    if shape.drop is not None and shape.drop_low is not None:
        text += (
            f" Gain per doubling of the first step minus that of the last: "
            f"{signed(shape.drop, digits)} ({interval(shape.drop_low, shape.drop_high, digits)})."
        )
    return text


def _interactions(judgement: Judgement) -> list[Block]:
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
    rows = [_interaction(judgement, one) for one in found.tested[:MOST_ROWS]]
    caption = (
        "How the effect of the first setting changes with the second: the largest difference of "
        "differences, in the metric. p (Holm) tests all of them together."
    )
    if found.not_separable:
        caption += f" Not separable: {count(len(found.not_separable), 'more pair')}."
    head = ("setting", "and", "largest at", "difference of differences", "95 % interval", "p")
    shown = table(head, rows, numeric=(3, 4, 5), caption=caption)
    clear = [
        f"{code(one.first)} and {code(one.second)}"
        for one in found.tested
        if one.p_adjusted is not None and one.p_adjusted < 0.05
    ]
    if not clear:
        return [Details("Interactions: none is significant", (shown,))]
    remark = f"Significant interactions: {'; '.join(clear)}."
    return [Paragraph(remark, "warning"), shown]


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
