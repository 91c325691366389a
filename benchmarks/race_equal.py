"""A/A: races in which all configurations are equal. How often does one win, and do intervals hold?

Simulated curves: arms, seeds and examples differ by chance alone, along the whole schedule. The
race runs as a study runs it, with rounds of seeds up to the last, and a look at each round.
"""

from dataclasses import replace

import numpy as np
from curves.curves import Curves
from numpy.typing import NDArray
from race_ours import Raced, race
from race_replay import Replay
from simulated_curves import simulated_curves

ARMS, SEEDS, EXAMPLES = 6, 8, 60


def equal_curves(number: int) -> Curves:
    """Six equal arms of three learning rates."""
    every = simulated_curves(number, SEEDS, EXAMPLES, equal=True)
    kept = range(0, len(every.configs), len(every.configs) // ARMS)
    names = tuple(every.configs[a] for a in kept)
    return replace(every, configs=names, x_ASTE=every.x_ASTE[list(kept)])


def equal_race(number: int) -> tuple[Replay, Raced]:
    """One study of equal arms, all examples deciding, in the order of the study."""
    curves = equal_curves(number)
    all_E = np.arange(EXAMPLES)
    replay = Replay(curves, curves.configs, curves.seeds, all_E, all_E, number)
    return replay, race(replay, budget=float("inf"))


def covered(replay: Replay) -> NDArray[np.bool_]:
    """Whether zero is within the 95 % interval of each pair of arms that have two seeds."""
    done = [key for key, run in replay.seen().runs.items() if run.finished]
    arms = [arm for arm in replay.order if sum(one == arm for one, _ in done) > 1]
    if len(arms) < 2:
        return np.zeros(0, dtype=bool)
    table = replay.verdict(done).pairs
    at = [table.arms.index(arm) for arm in arms]
    low_P, high_P = (
        bound_AA[np.ix_(at, at)][np.triu_indices(len(at), 1)]
        for bound_AA in (table.low_AA, table.high_AA)
    )
    return np.asarray((low_P <= 0) & (high_P >= 0))


def equal_arms(studies: int) -> str:
    """The figures of so many studies."""
    winners, inside, stopped, budget = 0, [], 0, []
    for number in range(studies):
        replay, done = equal_race(number)
        winners += done.winner is not None
        inside.append(covered(replay))
        stopped += len(done.stopped)
        budget.append(done.budget)
    held = np.concatenate(inside)
    return (
        f"{studies} studies of {ARMS} equal configurations, up to {SEEDS} seeds: a winner in "
        f"{winners / studies:.1%}; 95 % intervals of {len(held)} pairs hold zero in "
        f"{held.mean():.1%}; stopped {stopped / studies / ARMS:.1%} of configurations; "
        f"{np.mean(budget):.1f} runs of {ARMS * SEEDS}"
    )
