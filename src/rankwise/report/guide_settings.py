"""The guide's sections on settings: findings and their price, literature, and what to do here."""

from collections.abc import Callable, Sequence

from rankwise.report.document import (
    Block,
    Bullets,
    Details,
    Paragraph,
    Section,
    code,
    strong,
    table,
)
from rankwise.report.guide_findings import (
    PRICES,
    Move,
    Observation,
    Price,
    SettingFindings,
    contradictions,
    findings_on,
)
from rankwise.report.literature import Advice, Notes, literature, setting_key
from rankwise.report.words import BASES, cost_text
from rankwise.results.judge import Judgement, words
from rankwise.results.records import Cost
from rankwise.text import MISSING, interval, names, number, signed


def title_of(key: str) -> str:
    """The setting's title."""
    notes = literature().settings.get(key)
    return key.replace("_", " ").capitalize() if notes is None else notes.title


def setting_section(
    key: str, observations: Sequence[Observation], judged: Sequence[Judgement]
) -> Section:
    """What studies found on one setting, what it cost, what is reported, and what to do here."""
    found = findings_on(key, observations)
    blocks: list[Block] = [*_steps(found), *_remarks(found)]
    seen = {one.study for one in found}
    silent = [code(one.records.title) for one in judged if one.records.title not in seen]
    if silent:
        blocks.append(Paragraph(f"Not varied in {names(silent)}.", "small"))
    blocks += reported(key)
    blocks += [Paragraph(text, "warning") for text in contradictions(key, observations)]
    blocks += _what_to_do(key, found)
    return Section(title_of(key), key, tuple(blocks))


def _steps(found: Sequence[SettingFindings]) -> list[Block]:
    """Each step with its benefit and its price."""
    steps = [one for each in found for one in each.steps if one.difference.separable]
    if not steps:
        return []
    head = (
        "study",
        "from",
        "to",
        "change",
        "95 % interval",
        "effect",
        *(words(name) for name in PRICES),
        "pairs",
    )
    rows = [_row(one) for one in steps]
    return [table(head, rows, numeric=(3, 4, 6, 7, 8, 9))]


def _row(one: Observation) -> tuple[str, ...]:
    step = one.difference
    said = (
        {1: "better", -1: "worse", 0: "not significant"}[one.sign] if one.known else "cannot tell"
    )
    if one.known and step.narrow:
        said = f"at other values of {names([code(name) for name in step.narrow])}"
    return (
        code(one.study),
        code(step.low),
        code(step.high),
        signed(step.value, one.digits),
        interval(step.low_bound, step.high_bound, one.digits),
        said,
        *(price_text(one.prices.get(name)) for name in PRICES),
        str(len(step.pairs)),
    )


def price_text(price: Price | None) -> str:
    """`+110,592` or `+110,592 to +221,184`, in the unit that fits; a dash where it is not known."""
    if price is None:
        return MISSING
    ends = [_signed_cost(value, price.unit) for value in (price.low, price.high)]
    return " to ".join(dict.fromkeys(ends))


def _signed_cost(value: float, unit: str) -> str:
    if value == 0:
        return "the same"
    return ("+" if value > 0 else "-") + cost_text(Cost(abs(value), unit, ""))


def _remarks(found: Sequence[SettingFindings]) -> list[Block]:
    """Studies that cannot separate the setting from others, or change it with others."""
    mixed = [
        f"{code(one.study)}: not separable from "
        f"{names([code(n) for n in one.effect.mixed_with]) or 'the other settings'}; "
        "no value is given."
        for one in found
        if one.steps and not one.effect.separable
    ]
    texts = {one.study: _together(one) for one in found if len(one.effect.factor.settings) > 1}
    together = [
        Paragraph(f"In {names([code(s) for s, same in texts.items() if same == text])} {text}")
        for text in dict.fromkeys(texts.values())
    ]
    return [*([Bullets(tuple(mixed))] if mixed else []), *together]


def _together(found: SettingFindings) -> str:
    settings = names([code(name) for name in found.effect.factor.settings])
    if found.steps:
        return f"{settings} change together; the values are their joint effect."
    title = title_of(setting_key(found.leader))
    return f"{settings} change together; their joint effect stands under {title}."


def reported(key: str) -> list[Block]:
    """What the literature reports, and where its sources disagree."""
    notes = literature().settings.get(key)
    if notes is None:
        return [Paragraph("Literature: no general finding is cited.", "small")]
    items = tuple(f"{one.text} ({literature().cite(one)})" for one in notes.statements)
    blocks: list[Block] = [Paragraph("Literature:"), Bullets(items)]
    if notes.disagreement:
        blocks.append(Paragraph(notes.disagreement))
    return blocks


def _what_to_do(key: str, found: Sequence[SettingFindings]) -> list[Block]:
    """Start with, raise when, spend less with: from the studies, then from the literature."""
    notes = literature().settings.get(key)
    shown = [one for one in found if one.steps and one.effect.separable]
    further = "Raise when" if all(one.ordered for one in shown) else "Change when"
    items = (
        _item("Start with", shown, _start, notes.start if notes else None),
        _item(further, shown, _more, notes.more if notes else None),
        _item("Spend less with", shown, _less, notes.less if notes else None),
    )
    return [Paragraph("What to do here:"), Bullets(items)]


def _item(
    title: str,
    found: Sequence[SettingFindings],
    said: Callable[[SettingFindings], str],
    advice: Advice | None,
) -> str:
    texts = {one.study: said(one) for one in found}
    parts = [
        f"In {names([code(study) for study, same in texts.items() if same == text])}: {text}."
        for text in dict.fromkeys(texts.values())
    ]
    if advice is not None:
        parts.append(f"Literature: {literature().advice(advice)}.")
    return f"{strong(f'{title}:')} {' '.join(parts) or 'these studies cannot tell.'}"


def _start(found: SettingFindings) -> str:
    choice = found.judgement.choice
    if found.start is None:
        return f"no start is given ({BASES[choice.basis]})"
    settings = found.effect.factor.settings
    joint = f" ({' / '.join(code(name) for name in settings)})" if len(settings) > 1 else ""
    return (
        f"{code(found.start)}{joint}, as the recommended configuration has it "
        f"({BASES[choice.basis]})"
    )


def _more(found: SettingFindings) -> str:
    """What the study says of going further than the recommended configuration."""
    if found.start is None:
        return "cannot tell"
    if found.ordered and found.start == found.effect.factor.levels[-1]:
        return f"{code(found.start)} is the highest value tried; what is above is not known"
    moves = [one for one in found.moves() if found.is_above(one.level) or not found.ordered]
    better = [one for one in moves if one.sign > 0]
    if not better:
        said = "; ".join(_no_better(found, one) for one in moves)
        return said or f"no step from {code(found.start)} has an interval"
    best = max(better, key=lambda one: one.gain)
    price = f" ({_prices(best.prices)})" if best.prices else ""
    return f"to {code(best.level)}, which is better by {_size(found, best)}{price}"


def _no_better(found: SettingFindings, one: Move) -> str:
    if one.sign < 0:
        return f"not to {code(one.level)}, which is worse by {_size(found, one)}"
    most = number(max(one.most, 0.0), found.judgement.digits)
    return f"to {code(one.level)} no significant change ({most} better at most)"


def _less(found: SettingFindings) -> str:
    """The move that saves most, not worse if there is such a one.

    It saves what the study keeps low, else parameters, else memory. Time is read only where the
    study keeps it low: it is timed in a short trial and varies.
    """
    if found.start is None:
        return "cannot tell"
    for cost in dict.fromkeys((found.judgement.records.cost, "trainable_params", "memory")):
        moves = [one for one in found.moves() if one.saves(cost)]
        if moves:
            fair = [one for one in moves if one.sign >= 0] or moves
            return _saving(found, min(fair, key=lambda one: one.prices[cost].low))
    return f"nothing cheaper was compared with {code(found.start)}"


def _saving(found: SettingFindings, one: Move) -> str:
    text = f"{code(one.level)} ({_prices(one.prices)})"
    if one.sign:
        return f"{text}, which is {'better' if one.sign > 0 else 'worse'} by {_size(found, one)}"
    most = number(max(-one.least, 0.0), found.judgement.digits)
    return f"{text}: no significant change ({most} worse at most)"


def _size(found: SettingFindings, one: Move) -> str:
    """How much better or worse, above zero, with its interval."""
    digits, sign = found.judgement.digits, 1 if one.gain >= 0 else -1
    low, high = sorted((sign * one.least, sign * one.most))
    return f"{number(abs(one.gain), digits)} ({interval(low, high, digits)})"


def _prices(prices: dict[str, Price]) -> str:
    return ", ".join(f"{words(name)} {price_text(price)}" for name, price in prices.items())


def unseen_section(keys: Sequence[str]) -> Section:
    """Settings that none of these studies varied: what the literature advises and reports."""
    left = {key: notes for key, notes in literature().settings.items() if key not in keys}
    intro = Paragraph(
        "None of these studies varied these settings; what stands here is from the literature."
    )
    head = ("setting", "start with", "raise or change when", "spend less with")
    rows = [_advised(notes) for notes in left.values()]
    details = [
        Details(f"{notes.title}: the literature", tuple(reported(key)[1:]))
        for key, notes in left.items()
    ]
    return Section("Not varied in these studies", "unseen", (intro, table(head, rows), *details))


def _advised(notes: Notes) -> tuple[str, ...]:
    three = (literature().advice(one) for one in (notes.start, notes.more, notes.less))
    return (strong(notes.title), *three)


def sources_section() -> Section:
    """The sources, and what of them was read."""
    intro = Paragraph(
        "Statements are in our words. They were compared with the passage or the abstract of their "
        "source in December 2026; where only a quotation by others was found, or nothing, it is "
        "said beside the statement."
    )
    rows = [(one.by, one.title, one.at) for one in literature().sources.values()]
    return Section("Sources", "sources", (intro, table(("source", "title", "where"), rows)))
