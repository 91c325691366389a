"""What each setting does, and which effects cannot be separated."""

from rankwise.analysis.effects import Effects, FactorEffect, LevelDifference
from rankwise.report import figures
from rankwise.report.chapters.interactions import interactions
from rankwise.report.chapters.shapes import shapes
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
from rankwise.text import count, interval, names, p_equals, p_value, signed

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


def effects(judgement: Judgement) -> Section | None:
    """Effects of the settings, interactions, shapes, and what never varied."""
    found = judgement.effects
    if found is None or not found.factors:
        return None
    separable = [d for f in found.factors for d in f.differences if d.separable]
    blocks: list[Block] = _set_aside(judgement)
    if separable:
        blocks.append(Paragraph(_method(found)))
        blocks.append(_table(judgement, separable))
        figure = _figure(judgement, separable)
        if figure is not None:
            blocks.append(figure)
    blocks += _not_separable(found)
    blocks += shapes(judgement)
    blocks += interactions(judgement)
    if found.constant:
        same = names([f"{code(k)} = {code(v)}" for k, v in found.constant], 60)
        remark = f"The same in every configuration, so their effect is unknown: {same}."
        blocks.append(Details("Settings that did not vary", (Paragraph(remark),)))
    return Section("What each setting does", "effects", tuple(blocks))


def _set_aside(judgement: Judgement) -> list[Block]:
    """The configurations that collapsed: an average with them would be one of two outcomes."""
    said = {
        "learned nothing": "learned nothing",
        "diverged late": "lost again what they had learned",
    }
    if not judgement.collapsed:
        return []
    arms: dict[str, list[str]] = {}
    for arm, how in judgement.collapsed.items():
        arms.setdefault(how, []).append(code(arm))
    groups = [f"{names(own)}, whose runs {said[how]}" for how, own in arms.items()]
    text = (
        f"Set aside: {'; '.join(groups)}. What follows holds for the configurations that learned; "
        "the ranking contains all."
    )
    return [Paragraph(text, "warning")]


def _method(found: Effects) -> str:
    text = [
        "Difference in the metric when one setting changes and the others stay equal.",
        _error(found),
        _additivity(found),
    ]
    curves = [code(f.factor.label) for f in found.factors if f.factor.degree]
    if curves:
        text.append(
            f"For {names(curves)}, whose values rarely repeat, the difference is that of a curve "
            "through all values."
        )
    if found.left_out:
        missing = names([code(a) for a in found.left_out])
        text.append(f"Left out, because they have no result: {missing}.")
    return " ".join(part for part in text if part)


def _error(found: Effects) -> str:
    """What the intervals rest on."""
    separable = [d for f in found.factors for d in f.differences if d.separable]
    if found.basis != "misfit":
        return BASES[found.basis]
    if found.misfit_p is None:
        return BASES["misfit"]
    by_misfit = [code(f"{d.factor}: {d.low} to {d.high}") for d in separable if not d.by_pairs]
    if not by_misfit:
        return BASES["noise"]
    return (
        f"{BASES['noise']} Those of {names(by_misfit)} use the residuals of an additive model, for "
        "no two configurations differ only in that."
    )


def _additivity(found: Effects) -> str:
    """Whether averages over the other settings need that effects are additive, and whether so."""
    if found.additive is False:
        return (
            f"The effects of the settings are not additive (p {p_equals(found.misfit_p or 0.0)}): "
            "the effect of one depends on others. The values are averages over the pairs of "
            "configurations that differ only in the one setting. The interactions are listed below."
        )
    tested = ""
    if found.misfit_p is not None:
        tested = f"A test found no deviation from additive effects (p {p_equals(found.misfit_p)})."
    if found.complete or len(found.factors) < 2:
        return tested
    part = "not all combinations of these settings"
    if found.combinations is not None:
        arms = len(found.factors[0].factor.level_A)
        part = f"{arms} of {found.combinations:,} combinations of these settings"
    return (
        f"The configurations are {part}, so the values assume that effects are additive: that the "
        "effect of one setting does not depend on the others. "
        f"{tested or 'These results cannot test that.'}"
    )


def _table(judgement: Judgement, rows: list[LevelDifference]) -> Block:
    digits = judgement.digits
    depends = _depends_on(judgement)
    cells = [
        (
            code(d.factor),
            code(d.low),
            code(d.high),
            signed(d.value, digits),
            interval(d.low_bound, d.high_bound, digits),
            p_value(d.p_adjusted),
            str(len(d.pairs)) if d.pairs else "0",
            _said(judgement, d, depends.get(d.factor, [])),
        )
        for d in rows[:MOST_ROWS]
    ]
    caption = (
        "Interval and p: of all differences together (Bonferroni), so that in 95 % of studies "
        "every interval is right; better and worse rest on them. Pairs: pairs of "
        "configurations that differ only in this setting; with none, the difference is computed "
        "from several comparisons."
    )
    if any(d.narrow and d.low_bound is not None for d in rows):
        caption += (
            " At other values of: the two were tried at values of that setting of which they share "
            "at most half, and each may be best at one that the other does not have, so the "
            "difference decides nothing between them."
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


def _depends_on(judgement: Judgement) -> dict[str, list[str]]:
    """For each setting the others with which it has a significant interaction."""
    found: dict[str, list[str]] = {}
    for one in judgement.interactions.tested if judgement.interactions else ():
        if one.clear:
            found.setdefault(one.first, []).append(one.second)
            found.setdefault(one.second, []).append(one.first)
    return found


def _said(judgement: Judgement, d: LevelDifference, depends: list[str]) -> str:
    if d.low_bound is None or d.high_bound is None or d.value is None:
        return "cannot tell"
    if d.narrow:
        return f"at other values of {names([code(name) for name in d.narrow])}"
    word = "better" if (d.value < 0) == judgement.verdict.lower_is_better else "worse"
    if not d.decided:
        word = "not significant"
    if depends:
        return f"{word} on average; depends on {names([code(name) for name in depends], 3)}"
    return word


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
        f"Change in {metric} with its 95 % interval, right for all changes at once; {better} of "
        f"the dashed line is better."
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
