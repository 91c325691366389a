"""Quality against cost: the front, the recommendation, and what would change it.

Array suffix: A arms with a finished run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankwise.analysis.learning_rate import LearningRateFlag
from rankwise.analysis.verdict import Difference, Verdict
from rankwise.analysis.verdict_words import difference_sentence, settling
from rankwise.text import count, names, number


@dataclass(frozen=True)
class Dominated:
    """An arm off the front, and an arm that costs no more and is better beyond chance."""

    arm: str
    by: str


@dataclass(frozen=True)
class Front:
    """Arms by cost, cheapest first, and those off the front.

    An arm is dominated if another costs no more and is better after Holm over all pairs (5 %).
    Arms that are tied in quality never dominate one another, whatever they cost.
    """

    cost: str
    front: tuple[str, ...]
    dominated: tuple[Dominated, ...]
    unpriced: tuple[str, ...]


@dataclass(frozen=True)
class Alternative:
    """The arm that needs least memory: of the tie group if one there needs less, else of all.

    difference  against the recommended arm; None where it is the tie group that allows it
    """

    arm: str
    memory: float
    saved: float
    tied: bool
    difference: Difference | None
    sentence: str


@dataclass(frozen=True)
class Recommendation:
    """The cheapest arm that could be the best, and what would change that.

    arm       None where nothing can be recommended; `sentence` says why
    """

    arm: str | None
    cost: str
    price: float | None
    sentence: str
    alternative: Alternative | None
    would_change: tuple[str, ...]


def front(verdict: Verdict, cost: str, price: Mapping[str, float | None]) -> Front:
    """The quality-against-cost front of `verdict`; `price` maps arms to the cost named `cost`."""
    priced = {arm: p for arm in verdict.pairs.arms if (p := price.get(arm)) is not None}
    ordered = sorted(priced, key=lambda arm: (priced[arm], _place(verdict, arm)))
    dominated = {arm: by for arm in ordered if (by := _dominator(verdict, priced, arm))}
    return Front(
        cost=cost,
        front=tuple(arm for arm in ordered if arm not in dominated),
        dominated=tuple(Dominated(arm, by) for arm, by in dominated.items()),
        unpriced=tuple(arm for arm in verdict.pairs.arms if arm not in priced),
    )


def recommend(
    verdict: Verdict,
    cost: str,
    price: Mapping[str, float | None],
    memory: Mapping[str, float | None] | None = None,
    rates: Sequence[LearningRateFlag] = (),
) -> Recommendation:
    """The recommendation from the tie group, by the cost named `cost`.

    `memory` maps arms to peak memory (any unit) for the alternative; `rates` are the learning-rate
    flags, which enter what would change the answer. An arm without a price is not recommended
    unless no arm of the tie group has one; then the best mean decides. Left out are tied arms whose
    own 95 % interval against the best leaves zero out: adjusting for the number of arms keeps them
    from being called worse, but the odds are against them.
    """
    tied = _eligible(verdict)
    if not tied:
        words = f"Nothing to recommend: no arm has a finite {verdict.metric}."
        return Recommendation(None, cost, None, words, None, ())
    if verdict.claim == "nothing" and len(tied) > 1:
        words = (
            f"Nothing to recommend by {verdict.metric}: the results do not tell how large chance "
            "differences are."
        )
        return Recommendation(None, cost, None, words, None, _would_change(verdict, None, rates))
    priced = {arm: p for arm in tied if (p := price.get(arm)) is not None}
    arm = min(priced, key=lambda a: (priced[a], _place(verdict, a))) if priced else tied[0]
    return Recommendation(
        arm=arm,
        cost=cost,
        price=priced.get(arm),
        sentence=_why(verdict, arm, cost, priced, tied),
        alternative=_alternative(verdict, arm, memory or {}, tied),
        would_change=_would_change(verdict, arm, rates),
    )


def _place(verdict: Verdict, arm: str) -> int:
    return next(a.place or len(verdict.arms) for a in verdict.arms if a.arm == arm)


def _dominator(verdict: Verdict, priced: Mapping[str, float], arm: str) -> str | None:
    """The best placed arm that costs no more than `arm` and is better beyond chance."""
    better = -1.0 if verdict.lower_is_better else 1.0
    column = verdict.pairs.arms.index(arm)
    found = [
        other
        for row, other in enumerate(verdict.pairs.arms)
        if other in priced
        and priced[other] <= priced[arm]
        and verdict.pairs.decided_AA[row, column] == better
    ]
    return min(found, key=lambda other: _place(verdict, other), default=None)


def _eligible(verdict: Verdict) -> tuple[str, ...]:
    """The tie group, less the arms that their own interval places behind the best."""
    behind = {d.arm for d in verdict.with_best if d.better is not None and d.better != d.arm}
    return tuple(arm for arm in verdict.tie_group if arm not in behind)


def _why(
    verdict: Verdict, arm: str, cost: str, priced: Mapping[str, float], tied: tuple[str, ...]
) -> str:
    if verdict.winner == arm:
        return f"{arm}: the only arm that could have the best {verdict.metric}."
    if verdict.stands_out == arm:
        return f"{arm}: the best {verdict.metric} of these runs, each of one seed."
    if len(verdict.pairs.arms) == 1:
        return f"{arm}: the only arm with a finite {verdict.metric}."
    if len(tied) == 1:
        return (
            f"{arm}: the best mean {verdict.metric}; each other arm that is tied with it is behind "
            "by its own 95 % interval, though not once the number of arms is allowed for."
        )
    if arm not in priced:
        return f"{arm}: the best mean of {len(tied)} tied arms; their {cost} is not known."
    unpriced = count(len(tied) - len(priced), "arm")
    rest = "" if len(priced) == len(tied) else f"; {unpriced} of them without a known {cost}"
    return (
        f"{arm}: the lowest {cost} ({number(priced[arm])}) of the {len(tied)} arms that are tied "
        f"for the best {verdict.metric}{rest}."
    )


def _alternative(
    verdict: Verdict, arm: str, memory: Mapping[str, float | None], eligible: tuple[str, ...]
) -> Alternative | None:
    """For little memory: None where the recommended arm needs least already, or none is known."""
    known = {a: m for a in verdict.pairs.arms if (m := memory.get(a)) is not None}
    if arm not in known:
        return None
    for tied, pool in ((True, set(eligible)), (False, set(known))):
        least = min(
            (a for a in known if a in pool),
            key=lambda a: (known[a], _place(verdict, a)),
        )
        saved = known[arm] - known[least]
        if saved > 0:
            share = f"{saved / known[arm]:.0%} less memory than {arm}"
            against = None if tied else verdict.difference(least, arm)
            words = (
                f"{least} needs {share} and is tied with it."
                if against is None
                else f"{least} needs {share}. {difference_sentence(against, verdict.metric)}"
            )
            return Alternative(least, known[least], saved, tied, against, words)
    return None


def _would_change(
    verdict: Verdict, arm: str | None, rates: Sequence[LearningRateFlag]
) -> tuple[str, ...]:
    found = list(settling(verdict, most=2))
    if verdict.claim == "nothing":
        found.append("A second seed of each arm, scores by example, or the size of the test set.")
    elif "seeds" not in verdict.claim:
        found.append("More seeds: with one seed an arm, another seed may give another order.")
    elif verdict.claim == "seeds":
        found.append("Scores by example: whether the order holds on other examples is not known.")
    failed = [a.arm for a in verdict.arms if a.finished == 0]
    if failed:
        found.append(f"A run that finishes, of {names(failed)}: not ranked now.")
    found += [
        flag.sentence
        for flag in rates
        if flag.kind != "inside" and (arm is None or arm in flag.arms)
    ]
    return tuple(found)
