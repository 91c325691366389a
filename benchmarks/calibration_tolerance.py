"""Rows of the calibration: what is recommended, where quality rises with cost."""

from collections.abc import Iterator

import numpy as np
from calibration_rows import FREE, Values
from simulated import study

from rankwise.analysis.front import recommend
from rankwise.analysis.verdict import judge

TOLERANCE = 0.05


def recommended_rows(studies: int, seed: int) -> Iterator[Values]:
    """Six arms, each dearer than the one before and better by a step; tolerance 0.05.

    A seed's standard deviation is from half of a step to three of them.
    """
    rng = np.random.default_rng([seed, 30])
    price = {f"arm {a}": float(a) for a in range(6)}
    for step, noise in ((0.02, 0.01), (0.02, 0.04), (0.05, 0.05), (0.1, 0.1)):
        behind_A = step * np.arange(5, -1, -1)
        worse, within, holds = [], [], []
        for _ in range(studies // 2):
            unit = np.sqrt(500)
            scores = study(rng, 3, [noise * unit] * 6, behind_A * unit, examples=500)
            choice = recommend(judge(scores, TOLERANCE), "time", price)
            behind = float(behind_A[int(str(choice.arm).split()[1])])
            worse.append(behind > TOLERANCE + 1e-9)
            within.append(choice.within)
            assert choice.distance is not None
            assert choice.distance.high is not None
            holds.append(behind <= choice.distance.high + 1e-9)
        what = f"steps of {step}, seeds {noise}"
        # Where noise hides even the next better one, the best mean is often not the best.
        most, mark = (1.0, "- ") if noise > TOLERANCE else (0.1, "")
        yield f"{mark}{what}: recommended though worse by more than 0.05", worse, 0, most
        yield f"- {what}: shown to be within the tolerance", within, *FREE
        yield f"{what}: the recommended is no worse than its bound says", holds, 0.95, 1.0


def equality_rows(studies: int, seed: int) -> Iterator[Values]:
    """An arm that is behind by exactly the tolerance, called equal within it: an error."""
    rng = np.random.default_rng([seed, 31])
    for arms, noise in ((2, 0.01), (4, 0.02)):
        behind_A = np.array([0.0, *[TOLERANCE] * (arms - 1)]) * np.sqrt(500)
        found = []
        for _ in range(studies // 2):
            scores = study(rng, 3, [noise * np.sqrt(500)] * arms, behind_A, examples=500)
            found.append(any(arm.equal for arm in judge(scores, TOLERANCE).arms[1:]))
        what = f"{arms} arms, the others behind by the tolerance: one is called equal"
        yield what, found, 0, 0.06
