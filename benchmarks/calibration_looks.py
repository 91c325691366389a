"""Rows of the calibration: a study that is read again after every seed that is added."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from calibration_rows import Values
from simulated import study

from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import judge
from rankwise.results.looks import share


def reading_again_rows(studies: int, seed: int) -> Iterator[Values]:
    """Equal arms, a seed added at a time from 2 to 10, read each time."""
    rng = np.random.default_rng([seed, 40])
    for arms, part in ((2, 1), (4, 3)):
        found = []
        for _ in range(max(2 * studies // part, 4)):
            every = study(rng, 10, [5.0] * arms, examples=50)
            looks = [judge(first(every, n), share=share(n - 1)) for n in range(2, 11)]
            found.append(any(verdict.winner is not None for verdict in looks))
        yield f"{arms} equal arms, read at 2, 3, ... 10 seeds: a winner ever", found, 0, 0.06


def first(scores: Scores, seeds: int) -> Scores:
    """The scores of the first seeds."""
    assert scores.x_ASE is not None
    return replace(scores, seeds=scores.seeds[:seeds], x_ASE=scores.x_ASE[:, :seeds])
