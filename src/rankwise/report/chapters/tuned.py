"""Structures compared each at its own best learning rate, in words."""

from rankwise.analysis.tuned import TunedStructure
from rankwise.report.document import Paragraph, Section, code, table
from rankwise.results.judge import Judgement, words
from rankwise.text import interval, names, number, percent, signed, significant

MOST_ROWS = 30


def tuned(judgement: Judgement) -> Section | None:
    """Each combination of the other settings at its own best learning rate."""
    rows = judgement.tuned
    if not rows:
        return None
    digits = judgement.digits
    cells = [
        (
            _name(row),
            significant(row.chosen),
            percent(row.share, 0),
            str(len(row.rates)),
            number(row.mean, digits),
            number(row.corrected, digits),
            signed(row.behind, digits),
            interval(row.low, row.high, digits),
            _said(row),
        )
        for row in rows[:MOST_ROWS]
    ]
    metric = words(judgement.verdict.metric)
    head = (
        "combination", "best rate", "choices", "rates", metric, "corrected", "behind",
        "95 % interval", "verdict",
    )  # fmt: skip
    shown = table(head, cells, numeric=range(1, 8), caption=_caption(rows))
    blocks = (Paragraph(_method(rows)), shown)
    return Section("Each at its own best learning rate", "tuned", blocks)


def _method(rows: tuple[TunedStructure, ...]) -> str:
    text = (
        "Each combination of the other settings is taken at the learning rate that is best for it. "
        "The best of several looks better than it is, so the intervals allow for the choice. "
    )
    if rows[0].low is None:
        return f"{text}The noise is unknown, so nothing is decided."
    if rows[0].best:
        return f"{text}{_name(rows[0])} is significantly better than all others."
    worse = sum(row.worse for row in rows)
    if not worse:
        return f"{text}No combination is significantly worse than the best of the others."
    return f"{text}{worse} of {len(rows)} are significantly worse than the best of the others."


def _caption(rows: tuple[TunedStructure, ...]) -> str:
    text = (
        "Choices: how many of the choices on a part of the data fell on that rate. Rates: how many "
        "have a result. Corrected: read on other seeds and examples than those that chose the "
        "rate; slightly too bad, since the choice has less data. Behind: its best configuration "
        "against the best of all other combinations; positive is worse."
    )
    return text if len(rows) <= MOST_ROWS else f"{text} The first {MOST_ROWS} of {len(rows)}."


def _name(row: TunedStructure) -> str:
    return names([code(f"{key} = {value}") for key, value in row.structure], 6)


def _said(row: TunedStructure) -> str:
    if row.low is None:
        return "cannot tell"
    return "best" if row.best else "worse" if row.worse else "tied"
