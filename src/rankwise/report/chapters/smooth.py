"""The second estimate, if settings act smoothly: never in place of the verdict."""

from rankwise.analysis.proposals import Proposal
from rankwise.analysis.smooth import Prediction, Smooth
from rankwise.report.document import Block, Details, Paragraph, Section, code, table
from rankwise.results.judge import Judgement, words
from rankwise.text import count, interval, names, number, p_equals, percent

MOST_ROWS = 30


def smooth(judgement: Judgement) -> Section | None:
    """What follows if combinations deviate little from the effects of single settings."""
    found = judgement.smooth
    if found is None:
        return None
    blocks: list[Block] = [Paragraph(_assumption(judgement, found)), _fit(judgement, found)]
    if not found.refuted:
        blocks.append(Paragraph(_best(judgement, found)))
        if judgement.proposals:
            blocks.append(_next(judgement, judgement.proposals))
        blocks.append(Details("All predictions", (_predictions(judgement, found.predictions),)))
    return Section("If settings act smoothly", "smooth", tuple(blocks))


def _assumption(judgement: Judgement, found: Smooth) -> str:
    digits = judgement.digits
    low, high = (number(bound, digits) for bound in (found.deviation_low, found.deviation_high))
    text = (
        "A second estimate, which rests on an assumption and does not replace the verdict: each "
        "setting has an effect of its own, numbers act along a curve, and combinations deviate "
        "from that at random. Estimated standard deviation of these deviations: "
        f"{number(found.deviation, digits)} (95 % interval {low} to {high}); a difference of two "
        f"configurations has a standard error of {number(found.noise, digits)}."
    )
    if judgement.collapsed:
        text += " Configurations that collapsed are left out, and nothing like them is predicted."
    if not judgement.parts.pools:
        text += " With one seed per configuration this holds only for these runs."
    return text


def _fit(judgement: Judgement, found: Smooth) -> Paragraph:
    tested = f"the largest deviation is that of {code(found.misfit_arm)}"
    if not found.refuted:
        text = (
            "Each configuration was predicted from all others: no significant deviation was found "
            f"({tested}, p {p_equals(found.misfit_p)})."
        )
        return Paragraph(text)
    text = (
        "The assumption is refuted: predicted from all others, "
        f"{code(found.misfit_arm)} deviates significantly (p {p_equals(found.misfit_p)}). So no "
        "predictions are given; the verdict holds as it stands."
    )
    return Paragraph(text, "warning")


def _best(judgement: Judgement, found: Smooth) -> str:
    arms = count(len(found.predictions), "configuration")
    best = names([code(arm) for arm in found.best], 12)
    if len(found.best) == 1:
        return f"Under this assumption {best} is the best of {arms} with a probability of 95 %."
    return (
        f"Under this assumption the best of {arms} is with a probability of 95 % among "
        f"{len(found.best)}: {best}."
    )


def _next(judgement: Judgement, proposals: tuple[Proposal, ...]) -> Block:
    digits = judgement.digits
    labels = [name for name, _ in proposals[0].settings]
    rows = [
        (
            *(code(value) for _, value in one.settings),
            number(one.value, digits),
            interval(one.low, one.high, digits),
            percent(one.p_better, 0),
            number(one.gain, digits),
        )
        for one in proposals
    ]
    caption = (
        "Worth trying next under this assumption, by expected improvement over the best "
        "configuration tried. Better: probability that it is better than all of them."
    )
    if any(one.beyond for one in proposals):
        caption += " A value outside of the range tried is an extrapolation."
    metric = words(judgement.verdict.metric)
    head = (*map(code, labels), f"predicted {metric}", "95 % interval", "better", "improvement")
    return table(head, rows, numeric=range(len(labels), len(head)), caption=caption)


def _predictions(judgement: Judgement, predictions: tuple[Prediction, ...]) -> Block:
    digits = judgement.digits
    rows = [
        (
            code(one.arm),
            number(one.value, digits),
            interval(one.low, one.high, digits),
            percent(one.p_best, 0),
        )
        for one in predictions[:MOST_ROWS]
    ]
    caption = (
        "Intervals are of the difference from the mean of all configurations. Best: probability "
        "to be the best of them."
    )
    if len(predictions) > MOST_ROWS:
        caption += f" The first {MOST_ROWS} of {len(predictions)}."
    head = (
        "configuration",
        f"predicted {words(judgement.verdict.metric)}",
        "95 % interval",
        "best",
    )
    return table(head, rows, numeric=(1, 2, 3), caption=caption)
