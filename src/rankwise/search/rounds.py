"""Seeds where they settle something: after the race, further seeds for the contenders alone.

A round gives every contender one seed more. After each the caller judges the finished runs with
`judge(scores_of(seen), tolerance, looks.share(look))`, so that repeated looks are paid for, and
asks again. It ends when one arm is the winner, when all that are left are shown equal within the
tolerance, or with the budget.

Array suffixes: A arms, S seeds, E examples.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np

from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import Verdict
from rankwise.search.forecast import forecast
from rankwise.search.pairs import runs_of
from rankwise.search.race import RaceRules
from rankwise.search.seen import Seen

__all__ = ["contenders", "next_runs", "outcome", "scores_of"]

Outcome = Literal["open", "winner", "shown equal", "one left"]


def scores_of(seen: Seen, arms: Sequence[str] | None = None) -> Scores | None:
    """The finished runs of these arms (all arms) as the verdict takes them; None without one."""
    done = {
        key: run.result
        for key, run in seen.runs.items()
        if run.result is not None and (arms is None or key[0] in arms)
    }
    if not done:
        return None
    names = [arm for arm in seen.arms if any(key[0] == arm for key in done)]
    seeds = sorted({seed for _, seed in done})
    examples = len(next(iter(done.values())))
    x_ASE = np.full((len(names), len(seeds), examples), np.nan)
    for (arm, seed), losses_E in done.items():
        x_ASE[names.index(arm), seeds.index(seed)] = losses_E
    return Scores("loss", tuple(names), tuple(seeds), x_ASE, None, seen.groups_E, seen.weights_E)


def contenders(
    seen: Seen, verdict: Verdict, rules: RaceRules, stopped: Collection[str] = ()
) -> tuple[str, ...]:
    """The arms that may still be the best, best first: the tie group without stopped arms.

    As long as no arm has a second seed the verdict knows nothing of the noise of seeds. Then the
    forecast decides, which has it from recorded curves.
    """
    finished = {one.arm for one in verdict.arms if one.finished and one.arm not in stopped}
    tied = tuple(arm for arm in verdict.tie_group if arm in finished)
    if verdict.claim in ("seeds", "seeds and examples"):
        return tied
    found = forecast(seen, rules.tolerance, rules.planned)
    if found is None:
        return tied
    p = found.p
    kept = [one.arm for one in verdict.distances if one.arm in finished]
    may_be_best = tuple(arm for arm in kept if p[arm] >= rules.level or arm in tied)
    # One alone would end the study with a claim on its runs only: a second seed of two is enough.
    return may_be_best if len(may_be_best) > 1 else tuple(kept[:2])


def outcome(verdict: Verdict, contending: Sequence[str]) -> Outcome:
    """Whether the question is settled, and how."""
    if verdict.winner is not None:
        return "winner"
    if len(contending) < 2:
        return "one left"
    equal = {one.arm: one.equal for one in verdict.arms}
    if verdict.claim != "examples" and all(equal[arm] for arm in contending):
        return "shown equal"
    return "open"


def next_runs(
    seen: Seen,
    verdict: Verdict,
    rules: RaceRules,
    budget_left: float,
    stopped: Collection[str] = (),
    cost: Mapping[str, float] | None = None,
) -> tuple[tuple[str, int], ...]:
    """The runs (arm, seed) of the next round; () where the question is settled or cannot be paid.

    Contenders with the fewest seeds come first, so that comparisons stay in pairs. Where the budget
    does not reach for all, the best ones get it, two at least. `cost` of a run in units of the
    budget, 1 where not given.
    """
    contending = contenders(seen, verdict, rules, stopped)
    if outcome(verdict, contending) != "open":
        return ()
    done = {arm: _seeds_done(seen, arm) for arm in contending}
    fewest = min(len(own) for own in done.values())
    if fewest >= rules.most_seeds:
        return ()
    wanted = [(arm, _next_seed(seen, rules, arm)) for arm in contending if len(done[arm]) == fewest]
    chosen: list[tuple[str, int]] = []
    for arm, seed in wanted:
        budget_left -= 1.0 if cost is None else cost[arm]
        if budget_left < -1e-9:
            break
        chosen.append((arm, seed))
    return tuple(chosen) if len(chosen) >= min(2, len(wanted)) else ()


def _seeds_done(seen: Seen, arm: str) -> tuple[int, ...]:
    return tuple(seed for seed, run in runs_of(seen, arm).items() if run.finished)


def _next_seed(seen: Seen, rules: RaceRules, arm: str) -> int:
    """The first of the planned seeds that the arm does not have, then the numbers after them."""
    own = set(seen.seeds[arm])
    for seed in rules.seeds:
        if seed not in own:
            return seed
    return max([*rules.seeds, *own, -1]) + 1
