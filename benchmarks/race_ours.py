"""The race and the rounds of seeds over a replay, as a study runs them."""

import math
from dataclasses import dataclass

from race_replay import Replay

from rankwise.results.looks import share as look_share
from rankwise.search.race import Decision, RaceRules, decide
from rankwise.search.rounds import contenders, next_runs, outcome
from rankwise.search.start import next_starts

COHORT = 8


@dataclass(frozen=True)
class Raced:
    """What a policy ends with.

    group    the arms that it leaves in the tie group
    stopped  arms without a full run, by decision
    """

    recommended: str
    budget: float
    group: tuple[str, ...]
    stopped: frozenset[str]
    audit: float = 0.0
    winner: str | None = None
    outcome: str = ""
    decisions: tuple[Decision, ...] = ()


def race(replay: Replay, budget: float, cohort: int = COHORT, audit: float = 0.1) -> Raced:
    """A race with rounds within a budget of full runs."""
    rules = RaceRules(
        seeds=replay.seeds,
        most_seeds=len(replay.seeds),
        audit=audit,
        seed=replay.number,
    )
    made = _run_race(replay, rules, budget, cohort)
    stopped = frozenset(one.arm for one in made if one.stop)
    audited = {one.arm for one in made if one.audited}
    of_audit = sum(1 - min(o.share for o in made if o.arm == a and o.audited) for a in audited)
    return _run_rounds(replay, rules, budget, stopped, made, of_audit)


def _run_race(replay: Replay, rules: RaceRules, budget: float, cohort: int) -> list[Decision]:
    """Every arm to its end or its stop; free places of the cohort are taken at once."""
    seed = replay.seeds[0]
    made: list[Decision] = []
    active: dict[str, int] = {}
    while True:
        free = min(cohort - len(active), _affordable(replay, budget, active))
        _start(replay, rules, active, free, made, seed)
        if not active:
            return made
        for arm in active:
            replay.train(arm, seed, replay.shares[active[arm]])
        seen = replay.seen()
        for at in sorted(set(active.values()), reverse=True):
            here = [arm for arm, rung in active.items() if rung == at]
            found = decide(seen, rules, replay.shares[at], here, made)
            made.extend(found)
            for one in found:
                if one.stop or at == len(replay.shares) - 1:
                    del active[one.arm]
                else:
                    active[one.arm] = at + 1


def _start(
    replay: Replay,
    rules: RaceRules,
    active: dict[str, int],
    free: int,
    made: list[Decision],
    seed: int,
) -> None:
    """Fill the free places; arms that have no chance any more are not started."""
    seen = replay.seen()
    waiting = [a for a in seen.arms if not seen.seeds[a] and not _out(made, a)]
    if free < 1 or not waiting:
        return
    if replay.trained:
        found = decide(seen, rules, 0.0, waiting, made)
        made.extend(one for one in found if one.stop)
    for arm in next_starts(seen, rules, free, made):
        active[arm] = 0


def _affordable(replay: Replay, budget: float, active: dict[str, int]) -> int:
    """Full runs that the budget has left when all that are active go to their end."""
    left = budget - replay.budget
    left -= sum(1 - replay.trained.get((arm, replay.seeds[0]), 0.0) for arm in active)
    return len(replay.order) if math.isinf(left) else int(max(left, 0.0) + 1e-9)


def _out(made: list[Decision], arm: str) -> bool:
    return any(one.arm == arm and one.stop for one in made)


def _run_rounds(
    replay: Replay,
    rules: RaceRules,
    budget: float,
    stopped: frozenset[str],
    made: list[Decision],
    of_audit: float,
) -> Raced:
    look = 0
    while True:
        done = [key for key, share in replay.trained.items() if share > 1 - 1e-9]
        seen = replay.seen()
        done = [key for key in done if seen.runs[key].finished]
        two = len({seed for _, seed in done}) > 1
        look += two
        verdict = replay.verdict(done, look_share(max(look, 1)))
        more = next_runs(seen, verdict, rules, budget - replay.budget, stopped)
        if not more:
            left = contenders(seen, verdict, rules, stopped)
            best = [one.arm for one in verdict.distances if one.arm in left]
            return Raced(
                recommended=best[0],
                budget=replay.budget,
                group=left,
                stopped=frozenset(replay.order) - {arm for arm, _ in done},
                audit=of_audit,
                winner=verdict.winner,
                outcome=outcome(verdict, left),
                decisions=tuple(made),
            )
        for arm, seed in more:
            replay.train(arm, seed, 1.0)
