"""A/A: races in which the best configurations are equal. How often does one win?

Simulated curves. Equal arms differ by chance alone, along the whole schedule. Either all arms are
equal, or some worse ones race with them, which can be stopped. The race runs as a study runs it,
with rounds of seeds up to the last, and a look at each round.
"""

from dataclasses import replace

import numpy as np
from curves.curves import Curves
from numpy.typing import NDArray
from race_ours import Raced, race
from race_replay import Replay
from simulated_curves import simulated_curves

EQUAL, WORSE, SEEDS, EXAMPLES = 6, 6, 8, 60


def equal_curves(number: int, worse: int) -> Curves:
    """Six equal arms of three learning rates, and so many others between them in the grid."""
    equal = range(0, 24, 24 // EQUAL)
    every = simulated_curves(number, SEEDS, EXAMPLES, equal)
    kept = sorted([*equal, *range(2, 24, 24 // WORSE)]) if worse else list(equal)
    names = tuple(every.configs[a] for a in kept)
    return replace(every, configs=names, x_ASTE=every.x_ASTE[kept])


def equal_race(number: int, worse: int = 0) -> tuple[Replay, Raced]:
    """One study of six equal arms and so many worse ones, all examples deciding."""
    curves = equal_curves(number, worse)
    all_E = np.arange(EXAMPLES)
    replay = Replay(curves, curves.configs, curves.seeds, all_E, all_E, number)
    return replay, race(replay, budget=float("inf"))


def covered(replay: Replay, equal: tuple[str, ...]) -> NDArray[np.bool_]:
    """Whether zero is within the 95 % interval of each pair of equal arms that have two seeds."""
    done = [key for key, run in replay.seen().runs.items() if run.finished]
    arms = [arm for arm in equal if sum(one == arm for one, _ in done) > 1]
    if len(arms) < 2:
        return np.zeros(0, dtype=bool)
    table = replay.verdict(done).pairs
    at = [table.arms.index(arm) for arm in arms]
    low_P, high_P = (
        bound_AA[np.ix_(at, at)][np.triu_indices(len(at), 1)]
        for bound_AA in (table.low_AA, table.high_AA)
    )
    return np.asarray((low_P <= 0) & (high_P >= 0))


def equal_arms(studies: int, worse: int = 0) -> str:
    """The figures of so many studies."""
    winners, inside, stopped, lost, budget = 0, [], 0, 0, []
    equal = equal_curves(0, 0).configs
    for number in range(studies):
        replay, done = equal_race(number, worse)
        winners += done.winner is not None
        inside.append(covered(replay, equal))
        stopped += len(done.stopped - set(equal))
        lost += len(done.stopped & set(equal))
        budget.append(done.budget)
    held = np.concatenate(inside)
    others = f" and {worse} others" if worse else ""
    return (
        f"{studies} studies of {EQUAL} equal configurations{others}, up to {SEEDS} seeds: a winner "
        f"in {winners / studies:.1%}; 95 % intervals of {len(held)} pairs of equal ones hold zero "
        f"in {held.mean():.1%}; stopped {lost / studies / EQUAL:.1%} of the equal ones and "
        f"{stopped / studies / max(worse, 1):.1%} of the others; "
        f"{np.mean(budget):.1f} runs of {(EQUAL + worse) * SEEDS}"
    )
