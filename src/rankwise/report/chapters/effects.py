"""What each setting does, what cannot be separated, and what the learning rate may hide."""

from rankwise.analysis.effects import Effects, FactorEffect, LevelDifference
from rankwise.analysis.interactions import Interaction
from rankwise.analysis.learning_rate import LearningRateFlag
from rankwise.analysis.shapes import Shape
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
from rankwise.report.numbers import interval, listing, p_value, plural, signed
from rankwise.results.judge import Judgement, words

MOST_ROWS = 40
MOST_FLAGS = 6
BASES = {
    "noise": "The intervals rest on the noise of seeds and examples.",
    "misfit": "There is one seed an arm, so the intervals rest on what adding up leaves over.",
    "examples": "One seed an arm and no arm to spare: the intervals rest on the examples alone "
    "and speak for these very runs.",
    "nothing": "Nothing is known of the noise, so there are differences and no intervals: whether "
    "any of them is more than chance cannot be told.",
}
SHAPES = {
    "saturating": "diminishing returns: the first step is a gain, and a doubling gains less later "
    "than at first",
    "accelerating": "growing returns: a doubling gains more later than at first",
    "steady": "every step counts, and no change of the gain per doubling was found",
    "turning": "it turns back: a step is a gain and another one a loss",
    "trend": "the two ends are told apart; the steps show no simple shape",
    "not shown": "no shape shown: neither a step nor the two ends are told apart",
    "cannot tell": "cannot tell: nothing is known of the noise",
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
        names = listing([f"{code(k)} = {code(v)}" for k, v in found.constant], 60)
        remark = f"Of these nothing can be said, for they are the same in every arm: {names}."
        blocks.append(Details("Settings that never varied", (Paragraph(remark),)))
    return Section("What each setting does", "effects", tuple(blocks))


def _method(found: Effects) -> str:
    text = "Difference in the deciding metric when one setting changes and the others stay equal. "
    if found.basis != "misfit":
        text += BASES[found.basis]
    elif found.misfit_p is None:
        text += BASES["misfit"]
    else:
        text += (
            f"Settings do not simply add up (p {_less(found.misfit_p)}): these are averages over "
            "the other settings, their intervals rest on what adding up leaves over, and what "
            "works together stands below."
        )
    if found.basis == "noise" and found.misfit_p is not None:
        text += (
            f" Whether settings add up was tested: no departure found (p {_less(found.misfit_p)})."
        )
    if found.left_out:
        text += f" Without a result, and so left out: {listing([code(a) for a in found.left_out])}."
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
        "p: Holm over all differences shown. Pairs: arms that differ in this setting alone; with "
        "none, the difference is put together from several comparisons."
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
        "what it does",
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
        return "not shown"
    better = (value < 0) == judgement.verdict.lower_is_better
    word = "better" if better else "worse"
    return word if p_adjusted is not None and p_adjusted < 0.05 else f"maybe {word}"


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
        f"Effects of {plural(len(marks), 'change')} of a setting on {metric}. Clear of zero: "
        f"{listing(clear, 6) if clear else 'none'}."
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
        f"{listing([code(name) for name in f.factor.settings])} always change together: what is "
        "said of one is said of all of them, and no share is any single one's."
        for f in together
    ]
    if not items:
        return []
    intro = "What these arms cannot separate:"
    return [Paragraph(intro), Bullets(tuple(items))]


def _mixed(effect: FactorEffect) -> str:
    others = listing([code(name) for name in effect.mixed_with]) or "the other settings"
    pairs = sum(len(d.pairs) for d in effect.differences)
    end = "" if pairs else "; no two arms differ in it alone"
    return f"{code(effect.factor.label)}: not separable from {others}{end}."


def _partly_mixed(own: list[LevelDifference]) -> list[str]:
    """The steps of one factor that cannot be separated, one line where they are many."""
    if len(own) > 3:
        mixed = list(dict.fromkeys(name for d in own for name in d.mixed_with))
        return [
            f"{code(own[0].factor)}: {len(own)} of its differences are not separable from "
            f"{listing([code(name) for name in mixed])}."
        ]
    return [
        f"{code(d.factor)} from {code(d.low)} to {code(d.high)}: not separable from "
        f"{listing([code(name) for name in d.mixed_with])}."
        for d in own
    ]


def _shapes(judgement: Judgement) -> list[Block]:
    return [Paragraph(_shape(judgement, shape)) for shape in judgement.shapes]


def _shape(judgement: Judgement, shape: Shape) -> str:
    digits = judgement.digits
    steps = "; ".join(
        f"{step.low:g} to {step.high:g} gains {signed(step.gain, digits)}"
        + (f" ({interval(step.low_bound, step.high_bound, digits)})" if step.p is not None else "")
        for step in shape.steps
    )
    text = f"{code(shape.factor)}, {SHAPES[shape.kind]}. Steps: {steps}."
    if shape.drop is not None and shape.drop_low is not None:
        text += (
            f" Gain per doubling of the first step less that of the last: "
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
                "Whether settings work differently together cannot be told: these arms separate "
                f"none of the {plural(len(found.not_separable), 'pair')} of settings.",
                "small",
            )
        ]
    rows = [_interaction(judgement, one) for one in found.tested[:MOST_ROWS]]
    caption = (
        "How the effect of the first setting changes with the second: the largest difference of "
        "differences; p (Holm) tests all of them together."
    )
    if found.not_separable:
        caption += f" Not separable: {plural(len(found.not_separable), 'more pair')}."
    head = ("setting", "and", "largest at", "difference of differences", "95 % interval", "p")
    shown = table(head, rows, numeric=(3, 4, 5), caption=caption)
    clear = [
        f"{code(one.first)} and {code(one.second)}"
        for one in found.tested
        if one.p_adjusted is not None and one.p_adjusted < 0.05
    ]
    if not clear:
        return [Details("Interactions: none found beyond chance", (shown,))]
    remark = f"These work differently together than apart: {'; '.join(clear)}."
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


def learning_rate(judgement: Judgement) -> Section | None:
    """Where the learning rate may be to blame for an arm's place."""
    flags = judgement.rate_flags
    if judgement.verdict.best is None or (not flags and len(judgement.verdict.arms) < 2):
        return None
    if not flags:
        text = (
            "No learning rate is recorded in the settings. Arms that each need another one may "
            "stand in the wrong order, and these results cannot show it."
        )
        return Section("Learning rate", "learning-rate", (Paragraph(text, "warning"),))
    items = [text for kind in RATE_WORDS for text in _flag_words(flags, kind)]
    intro = (
        "A structure compared at a learning rate that does not suit it looks worse than it is. "
        "The ranking marks the arms concerned."
    )
    return Section("Learning rate", "learning-rate", (Paragraph(intro), Bullets(tuple(items))))


RATE_WORDS = {
    "not varied": "only one tried",
    "at the lowest": "best at lower edge",
    "at the highest": "best at upper edge",
    "inside": "",
}


def _flag_words(flags: tuple[LearningRateFlag, ...], kind: str) -> list[str]:
    """The sentences of one kind; one for all of them where they are many."""
    own = [flag for flag in flags if flag.kind == kind]
    if len(own) <= MOST_FLAGS:
        return [clean(flag.sentence) for flag in own]
    arms = [code(arm) for flag in own for arm in flag.arms]
    said = RATE_WORDS[kind] or "the best lies inside the range tried"
    return [f"{plural(len(own), 'structure')}: {said}. Arms: {listing(arms, 12)}."]


def rate_mark(judgement: Judgement, arm: str) -> str:
    """The learning-rate remark that stands beside an arm in the ranking."""
    for flag in judgement.rate_flags:
        if arm in flag.arms:
            return RATE_WORDS[flag.kind]
    return ""
