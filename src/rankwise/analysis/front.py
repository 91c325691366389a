"""Quality against cost: the Pareto front, and the recommended arm."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rankwise.analysis.best import contest, p_best_among
from rankwise.analysis.variance import Components
from rankwise.analysis.verdict import LEVEL, Difference, Distance, Verdict

# Costs that differ by less count as equal: measured ones vary by as much from run to run.
SAME_COST = 0.02


@dataclass(frozen=True)
class Dominated:
    """An arm off the front, and of those that cost no more the one that is most clearly better."""

    arm: str
    by: str


@dataclass(frozen=True)
class Front:
    """Arms by cost, cheapest first, and those off the front.

    The front has the arms that may be the best of all that cost no more: for each cost the 95 %
    confidence set of the best, as the tie group is for all arms. So an arm that is ruled out by
    others of equal or lower cost is off the front, and an arm that is tied with them is on it.
    `unpriced`: arms whose cost is not known.
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


def front(
    verdict: Verdict, parts: Components, cost: str, price: Mapping[str, float | None]
) -> Front:
    """The quality-against-cost front; `price` maps arms to the cost named `cost`.

    `parts` are those that the verdict was made of.
    """
    priced = {arm: p for arm in verdict.pairs.arms if (p := price.get(arm)) is not None}
    ordered = sorted(priced, key=lambda arm: (priced[arm], _place(verdict, arm)))
    found = _dominated(verdict, parts, priced)
    return Front(
        cost=cost,
        front=tuple(arm for arm in ordered if arm not in found),
        dominated=tuple(Dominated(arm, found[arm]) for arm in ordered if arm in found),
        unpriced=tuple(arm for arm in verdict.pairs.arms if arm not in priced),
    )


def _dominated(verdict: Verdict, parts: Components, priced: Mapping[str, float]) -> dict[str, str]:
    """Arms ruled out as the best of those that cost no more, and the one that is clearest."""
    if len(priced) < 2 or verdict.claim == "nothing":
        return {}
    game, found = contest(parts, verdict.lower_is_better), {}
    for arm, own in priced.items():
        rivals = [a for a, p in priced.items() if a != arm and p <= own * (1 + SAME_COST)]
        row, rival_J = parts.arms.index(arm), np.array([parts.arms.index(a) for a in rivals], int)
        if p_best_among(game, row, rival_J) / verdict.share < LEVEL:
            found[arm] = rivals[int(np.argmax(game.t_AA[row, rival_J]))]
    return found


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
    saves = _cost(price, cheapest) * (1 + SAME_COST) < _cost(price, arm)
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
    """The best placed of the arms that cost least, or so little more that it counts as equal."""
    most = (1 + SAME_COST) * min(_cost(price, arm) for arm in arms)
    return min((a for a in arms if _cost(price, a) <= most), key=lambda a: _place(verdict, a))


def _cost(price: Mapping[str, float | None], arm: str) -> float:
    known = price.get(arm)
    return math.inf if known is None else known


def _place(verdict: Verdict, arm: str) -> int:
    return next(a.place or len(verdict.arms) for a in verdict.arms if a.arm == arm)


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
