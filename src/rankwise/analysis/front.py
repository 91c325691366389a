"""Quality against cost: the Pareto front, and the recommended arm."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rankwise.analysis.verdict import Difference, Distance, Verdict


@dataclass(frozen=True)
class Dominated:
    """An arm off the front, and an arm that costs no more and is significantly better."""

    arm: str
    by: str


@dataclass(frozen=True)
class Front:
    """Arms by cost, cheapest first, and those off the front.

    An arm is dominated if another costs no more and is better, by bounds for all pairs at once.
    Arms that are tied in quality do not dominate one another, whatever they cost. `unpriced`: arms
    whose cost is not known.
    """

    cost: str
    front: tuple[str, ...]
    dominated: tuple[Dominated, ...]
    unpriced: tuple[str, ...]


@dataclass(frozen=True)
class Alternative:
    """The arm that needs least memory: of the tie group if one there needs less, else of all.

    memory, saved  its memory, and how much less that is than the recommended arm's
    difference     against the recommended arm; None if `tied`
    """

    arm: str
    memory: float
    saved: float
    tied: bool
    difference: Difference | None


@dataclass(frozen=True)
class Recommendation:
    """The arm to use, how far behind the best it may be, and a cheaper one that may be as good.

    arm         None where nothing can be recommended
    price       its cost named `cost`; None if unknown
    within      whether it is shown to be within the tolerance of the best
    candidates  the arms it was chosen from, best first; unpriced: those without a known cost
    distance    how far it may be behind the best; None where that is unknown
    cheaper     the cheapest arm of the tie group, where that costs less; None otherwise
    """

    arm: str | None
    cost: str
    price: float | None = None
    within: bool = False
    candidates: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()
    distance: Distance | None = None
    cheaper: Distance | None = None
    alternative: Alternative | None = None


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
) -> Recommendation:
    """The recommendation, by the cost named `cost`.

    Where arms are shown to be within the tolerance of the best, the cheapest of them. Otherwise the
    best mean: what is not shown to be as good may be worse by more than is tolerated. Beside it
    stands the cheapest arm of the tie group. `memory` maps arms to peak memory (any unit) for the
    alternative. An arm without a price counts as dear.
    """
    tied = verdict.tie_group
    if not tied or (verdict.claim == "nothing" and len(verdict.pairs.arms) > 1):
        return Recommendation(None, cost, candidates=tied)
    equal = tuple(arm.arm for arm in verdict.arms if arm.equal)
    candidates = tuple(one.arm for one in verdict.distances if one.arm in equal) or tied
    arm = _cheapest(verdict, price, candidates) if equal else str(verdict.best)
    cheapest = _cheapest(verdict, price, tied)
    saves = _cost(price, cheapest) < _cost(price, arm)
    return Recommendation(
        arm=arm,
        cost=cost,
        price=price.get(arm),
        within=arm in equal,
        candidates=candidates,
        unpriced=tuple(a for a in candidates if price.get(a) is None),
        distance=verdict.distance(arm),
        cheaper=verdict.distance(cheapest) if saves else None,
        alternative=_alternative(verdict, arm, memory or {}, tied),
    )


def _cheapest(verdict: Verdict, price: Mapping[str, float | None], arms: tuple[str, ...]) -> str:
    return min(arms, key=lambda arm: (_cost(price, arm), _place(verdict, arm)))


def _cost(price: Mapping[str, float | None], arm: str) -> float:
    known = price.get(arm)
    return math.inf if known is None else known


def _place(verdict: Verdict, arm: str) -> int:
    return next(a.place or len(verdict.arms) for a in verdict.arms if a.arm == arm)


def _dominator(verdict: Verdict, priced: Mapping[str, float], arm: str) -> str | None:
    """The best placed arm that costs no more than `arm` and is significantly better."""
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


def _alternative(
    verdict: Verdict, arm: str, memory: Mapping[str, float | None], candidates: tuple[str, ...]
) -> Alternative | None:
    """None where the recommended arm needs least memory already, or its memory is not known."""
    known = {a: m for a in verdict.pairs.arms if (m := memory.get(a)) is not None}
    if arm not in known:
        return None
    for tied, pool in ((True, candidates), (False, tuple(known))):
        least = min(
            (a for a in known if a in pool),
            key=lambda a: (known[a], _place(verdict, a)),
        )
        saved = known[arm] - known[least]
        if saved > 0:
            against = None if tied else verdict.difference(least, arm)
            return Alternative(least, known[least], saved, tied, against)
    return None
