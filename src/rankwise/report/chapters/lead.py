"""The first lines: verdict, noise, detectable difference, recommendation, failures, validity."""

from rankwise.report.document import Block, Bullets, Paragraph, code, strong
from rankwise.report.words import CLAIMS, detectable, headline, noise, price_of, reason
from rankwise.results.judge import Judgement, words
from rankwise.text import count, interval, names, signed


def lead(judgement: Judgement) -> tuple[Block, ...]:
    """The verdict, noise floor, detectable difference, recommendation and failures, in order."""
    verdict, digits = judgement.verdict, judgement.digits
    shared = any(arm.twin_of == verdict.best for arm in judgement.records.arms)
    items = [_failures(judgement)]
    if verdict.best is not None:
        first = [noise(verdict, digits), detectable(verdict, digits), _use(judgement)]
        items = [*first, *items, CLAIMS[verdict.claim]]
    return (
        Paragraph(headline(verdict, digits, shared), "verdict"),
        Bullets(tuple(item for item in items if item)),
    )


def _use(judgement: Judgement) -> str:
    choice, records = judgement.choice, judgement.records
    if choice.arm is None:
        return ""
    price = price_of(records.arm(choice.arm), records.cost)
    name = strong(code(choice.arm)) + (f" ({price})" if price else "")
    if choice.basis == "look":
        return f"No recommendation: {reason(judgement)}. {name} has the best mean."
    return f"Use {name}: {reason(judgement)}{_difference(judgement)}."


def _difference(judgement: Judgement) -> str:
    """How far the recommended configuration is from the best mean; empty if it has that."""
    found = [d for d in judgement.verdict.with_best if d.arm == judgement.choice.arm]
    if not found or found[0].low is None:
        return ""
    digits = judgement.digits
    return (
        f"; its {words(judgement.verdict.metric)} differs from the best by "
        f"{signed(found[0].value, digits)} ({interval(found[0].low, found[0].high, digits)})"
    )


def _failures(judgement: Judgement) -> str:
    records = judgement.records
    failed = [run for run in records.runs if run.id in {f for a in records.arms for f in a.failed}]
    still = [run for run in records.runs if run.state in ("planned", "running")]
    parts = []
    if failed:
        states = dict.fromkeys(run.state for run in failed)
        counts = [f"{sum(r.state == s for r in failed)} {s.replace('_', ' ')}" for s in states]
        parts.append(
            f"{count(len(failed), 'run')} ended without a result ({names(counts)}) and "
            f"{'is' if len(failed) == 1 else 'are'} not ranked."
        )
    if still:
        parts.append(f"{count(len(still), 'run')} of {len(records.runs)} not yet run.")
    return " ".join(parts)
