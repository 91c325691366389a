"""The race: who was stopped, where and on what evidence, what it saved, and how often it erred."""

from dataclasses import dataclass

from rankwise.report.document import Block, Paragraph, Section, clean, code, table
from rankwise.results.audit import Audit, audit_of
from rankwise.results.judge import Judgement, words
from rankwise.results.race import Race, RaceDecision, Round
from rankwise.search.rounds import outcome
from rankwise.spec.tasks import decimals_of
from rankwise.text import MISSING, amount, bounds, count, names, number, percent


@dataclass(frozen=True)
class RaceReport:
    """A `Race` with what the report computes from it.

    saved    share of the full grid that was not spent; rounds_ended: why no further seeds are given
    """

    race: Race
    audit: Audit
    saved: float
    rounds_ended: str
    sentence: str


NEVER = 0.001
HEAD = ("configuration", "stopped at", "leader", "behind there", "forecast at the end")
EVIDENCE = (*HEAD, "90 % interval", "chance")
EVIDENCE_WORDS = (
    "Stopped at: the share of its steps that a configuration had made. Behind there: how much "
    "worse it was than the leader at that share, on the same seed and examples. Forecast at the "
    "end: how far behind the leader it was expected to end, with its interval (a one-sided 95 % "
    "bound on each side). Chance: of ending among the best, as far as a full study could tell. "
    "The values are those at the decision; they are no results."
)


def race(judgement: Judgement) -> Section | None:
    """How the study was raced; None where every run was trained to its end."""
    found = judgement.records.race
    if found is None:
        return None
    blocks: list[Block] = [Paragraph(f"{sentence(judgement, found)} {_how(judgement, found)}")]
    blocks += _stopped(judgement, found)
    blocks += _unbegun(judgement, found)
    blocks += _audit(judgement, found)
    blocks += _rounds(judgement, found)
    return Section("Race", "race", tuple(blocks))


def sentence(judgement: Judgement, found: Race) -> str:
    """The race in one sentence: what it took, whom it stopped, what the audit says."""
    of = "" if found.budget is None else f" of {amount(found.budget)}"
    unit = "full runs" if found.unit == "runs" else "training tokens"
    parts = [f"{amount(found.spent)}{of} {unit} spent (a full grid: {amount(found.grid)})"]
    told = []
    if found.stopped:
        told.append(f"{count(len(found.stopped), 'configuration')} stopped early")
    if found.unbegun:
        what = "" if found.stopped else f" configuration{'s' * (len(found.unbegun) > 1)}"
        told.append(f"{len(found.unbegun)}{what} not begun{'' if found.ended else ' yet'}")
    parts.append(", ".join(told) or "no configuration stopped early")
    audit = audit_of(judgement.records, found, judgement.verdict.tie_group)
    if audit.arms:
        parts.append(f"{_checked(audit)} among the best")
    return f"{'; '.join(parts)}."


def race_report(judgement: Judgement) -> RaceReport | None:
    """The facts of the race; None where there was none."""
    found = judgement.records.race
    if found is None:
        return None
    return RaceReport(
        race=found,
        audit=audit_of(judgement.records, found, judgement.verdict.tie_group),
        saved=saved(found),
        rounds_ended=clean(ending(judgement, found)),
        sentence=clean(sentence(judgement, found)),
    )


def saved(found: Race) -> float:
    """Share of every configuration with every seed that was not spent."""
    return 1 - found.spent / found.grid if found.grid else 0.0


def _checked(audit: Audit) -> str:
    tied, of = len(audit.tied), len(audit.arms)
    if of == 1:
        return f"the one that ran on as a check {'ended' if tied else 'did not end'}"
    return f"{tied} of the {of} that ran on as a check ended"


def label(found: Race | None, arm: str) -> str:
    """What the ranking says of a configuration that the race has stopped or not begun, if so."""
    if found is None:
        return ""
    stop = found.stop_of(arm)
    if stop is not None:
        return f"stopped at {percent(stop.share, 0)}"
    return "not begun" if found.unbegun_of(arm) else ""


def _how(judgement: Judgement, found: Race) -> str:
    """By what configurations were compared, where, and what that saved."""
    rungs = (judgement.records.study.get("spec", {}).get("race") or {}).get("rungs")
    where = "at every evaluation"
    if rungs is not None:
        where = f"at {names([percent(rung, 0) for rung in rungs])} of their steps"
    where = where if rungs is None or rungs else "only before they began"
    text = f"Configurations were compared by {words(found.metric)} in pairs, {where}. "
    if found.unit == "runs":
        text += "A full run is one of the configuration whose run is of median cost. "
    if found.ended and saved(found) > 0:
        text += f"Against every configuration with every seed {percent(saved(found), 0)} was saved."
    if found.left is not None and found.left > 0:
        text += f" Of the budget {amount(found.left)} are left."
    return text.strip()


def _stopped(judgement: Judgement, found: Race) -> list[Block]:
    if not found.stopped:
        return []
    rows = [_evidence(judgement, found, one) for one in found.stopped]
    numeric = (1, *range(3, len(EVIDENCE)))
    return [
        Paragraph(f"{count(len(rows), 'configuration')} stopped before the last step:"),
        table(EVIDENCE, rows, numeric, caption=EVIDENCE_WORDS),
    ]


def _evidence(judgement: Judgement, found: Race, one: RaceDecision) -> tuple[str, ...]:
    digits = digits_of(judgement, found)
    return (
        code(one.arm),
        percent(one.share, 0),
        code(one.leader) or MISSING,
        number(one.difference, digits),
        number(one.forecast, digits),
        bounds(one.low, one.high, digits),
        chance(one.p),
    )


def digits_of(judgement: Judgement, found: Race) -> int:
    """Decimals of the raced metric."""
    own = found.metric == judgement.records.metric
    return judgement.digits if own else decimals_of(found.metric)


def chance(p: float) -> str:
    """A chance as a percentage, never as 0."""
    return f"<{percent(NEVER)}" if p < NEVER else percent(p)


def _unbegun(judgement: Judgement, found: Race) -> list[Block]:
    if not found.unbegun:
        return []
    judged = [one.decision for one in found.unbegun if one.decision is not None]
    others = [code(one.arm) for one in found.unbegun if one.decision is None]
    blocks: list[Block] = []
    if judged:
        rows = [_evidence(judgement, found, one) for one in judged]
        keep = [0, 2, 4, 5, 6]
        text = "Not begun, as the settings that they share with others left them no chance:"
        head = [EVIDENCE[i] for i in keep]
        cells = [[row[i] for i in keep] for row in rows]
        blocks += [Paragraph(text), table(head, cells, (2, 3, 4))]
    if others:
        why = "the budget did not reach for them" if found.ended else "others came first so far"
        blocks.append(Paragraph(f"Not begun, as {why}: {names(others)}."))
    return blocks


def _audit(judgement: Judgement, found: Race) -> list[Block]:
    """How the runs ended that were to be stopped and ran on."""
    audit = audit_of(judgement.records, found, judgement.verdict.tie_group)
    share = (judgement.records.study.get("spec", {}).get("race") or {}).get("audit", 0.1)
    if not found.audited:
        text = (
            f"Of those to be stopped, a random {percent(share, 0)} run on as a check; none did "
            "here, so how often this race is wrong was not measured."
        )
        return [Paragraph(text)] if found.stopped else []
    text = f"{count(len(found.audited), 'configuration')} would have been stopped and ran on as a "
    text += f"check: {names([code(one.arm) for one in found.audited])}. "
    if audit.arms:
        hits = f" ({names([code(arm) for arm in audit.tied])})" if audit.tied else ""
        text += (
            f"{len(audit.tied)} of {len(audit.arms)}{hits} ended among the best (95 % interval of "
            f"the share {percent(audit.low, 0)} to {percent(audit.high, 0)})."
        )
    if audit.open:
        text += f" Not at the end yet: {names([code(arm) for arm in audit.open])}."
    return [Paragraph(text.strip()), _audited(judgement, found)]


def _audited(judgement: Judgement, found: Race) -> Block:
    place = {one.arm: one.place for one in judgement.verdict.arms}
    tied = judgement.verdict.tie_group
    rows = []
    for one in found.audited:
        ended = MISSING if place.get(one.arm) is None else f"place {place[one.arm]}"
        ended += ", among the best" * (one.arm in tied)
        rows.append((*_evidence(judgement, found, one), ended))
    head = (EVIDENCE[0], "to be stopped at", *EVIDENCE[2:], "ended")
    return table(head, rows, (1, *range(3, len(EVIDENCE))))


def _rounds(judgement: Judgement, found: Race) -> list[Block]:
    """The rounds of further seeds, and why they ended."""
    if found.most_seeds < 2:
        return []
    why = ending(judgement, found)
    if not found.rounds:
        return [Paragraph(f"No configuration got a further seed: {why}.")]
    rows = [
        (str(one.number), _seeds(one), names([code(arm) for arm in one.arms], 12))
        for one in found.rounds
    ]
    return [
        Paragraph(f"{count(len(rows), 'round')} of further seeds, for those that may be best:"),
        table(("round", "seed", "configurations"), rows, (0,)),
        Paragraph(f"After that: {why}."),
    ]


def _seeds(one: Round) -> str:
    return names([str(seed) for seed in one.seeds])


def ending(judgement: Judgement, found: Race) -> str:
    """Why the rounds of seeds ended."""
    verdict, records = judgement.verdict, judgement.records
    if not found.ended:
        return "runs are still to be done"
    left = [arm for arm in verdict.tie_group if found.stop_of(arm) is None]
    told = outcome(verdict, left)
    if told == "winner":
        return f"{code(str(verdict.winner))} is better than all others"
    if told == "shown equal":
        return "all that may be best are shown equal within the tolerance"
    if told == "one left":
        return "one is left that may be best" if left else "no run has finished"
    fewest = min(len(records.arm(arm).seeds_done) for arm in left)
    if fewest >= found.most_seeds:
        return "those that may be best have all seeds of the spec"
    if not found.rounds and found.left is not None and found.left >= len(left):
        return "by forecast no other may be best"
    return "the budget has no room for another round"
