"""Simulated scores of a study of a given shape, for the rows of the calibration.

Array suffixes: A arms, S seeds, E examples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankwise.analysis.scores import Scores

Floats = NDArray[np.float64]


def study(
    rng: np.random.Generator,
    seeds: int,
    seed_sd_A: Sequence[float],
    truth_A: Sequence[float] | None = None,
    examples: int = 200,
    arm_sd: float = 0.3,
    sizes: Sequence[int] | None = None,
    together: float = 0.3,
) -> Scores:
    """Losses of arms by seed and example, with normal effects.

    Args:
        rng: Draws everything.
        seeds: Of each arm.
        seed_sd_A: Standard deviation of a run of each arm over seeds, in units of what the
            examples make of it: the residual's, 1, over the root of their number.
        truth_A: True means in the same unit; equal where not given.
        examples: Their number.
        arm_sd: Standard deviation of arm by example; the residual's is 1.
        sizes: Examples of each group, where examples come in groups.
        together: Share of the variance of (arm by) example that a group has in common.
    """
    group_E = None if sizes is None else np.repeat(np.arange(len(sizes)), sizes)
    examples = examples if group_E is None else len(group_E)
    head, unit = (len(seed_sd_A), seeds), 1 / np.sqrt(examples)

    def by_example(size: tuple[int, ...]) -> Floats:
        own = rng.standard_normal((*size, examples))
        if group_E is None or sizes is None:
            return own
        shared = rng.standard_normal((*size, len(sizes)))[..., group_E]
        return np.sqrt(together) * shared + np.sqrt(1 - together) * own

    x_ASE = by_example((1, 1)) + arm_sd * by_example((head[0], 1)) + 0.3 * by_example((1, seeds))
    x_ASE = x_ASE + rng.standard_normal((*head, examples))
    own_AS = rng.standard_normal(head) * np.asarray(seed_sd_A, dtype=np.float64)[:, None]
    x_ASE += unit * own_AS[:, :, None]
    if truth_A is not None:
        x_ASE += unit * np.asarray(truth_A, dtype=np.float64)[:, None, None]
    return Scores(
        metric="eval_loss",
        arms=tuple(f"arm {a}" for a in range(head[0])),
        seeds=tuple(range(seeds)),
        x_ASE=x_ASE,
        groups_E=None if group_E is None else group_E.tolist(),
    )
