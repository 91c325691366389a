"""Rows of the calibration: the advice on how many seeds and examples would settle a tie."""

from collections.abc import Iterator

import numpy as np
from calibration_rows import FREE, Values
from simulated import study

from rankwise.analysis.planning import Settlement, power_of_t
from rankwise.analysis.variance import components
from rankwise.analysis.verdict import judge, with_settlements

EXAMPLES, ARM_SD, SEED_SD = 100, 0.5, 2.0


def advice_rows(studies: int, seed: int) -> Iterator[Values]:
    """Two tied arms; the true noise says whether the observed difference would be found."""
    rng = np.random.default_rng([seed, 50])
    for seeds in (3, 10):
        none, alone, found = [], [], []
        for _ in range(studies // 2):
            tie = _tie(rng, seeds, float(rng.uniform(0.5, 3)))
            if tie is None:
                continue
            if _power(20 * seeds, 20 * EXAMPLES, abs(tie.difference)) >= 0.9:
                none.append(tie.seeds is None)
            alone.append(tie.only_seeds is None and tie.only_examples is None)
            if tie.seeds is not None and tie.examples is not None:
                found.append(_power(tie.seeds, tie.examples, abs(tie.difference)))
        what = f"2 arms, {seeds} seeds"
        yield f"{what}: no numbers are found for a tie that 20 x 20 would decide", none, 0, 0.1
        yield f"- {what}: neither seeds alone nor examples alone decide it", alone, *FREE
        least = 0.8 if seeds > 3 else 0.0
        yield (
            f"{what}: what is advised for 90 % decides it, were the observed difference true",
            found,
            least,
            1.0,
        )


def _tie(rng: np.random.Generator, seeds: int, difference: float) -> Settlement | None:
    scores = study(rng, seeds, [SEED_SD] * 2, [0.0, difference], EXAMPLES, ARM_SD)
    verdict = with_settlements(judge(scores), components(scores))
    return verdict.settlements[0] if verdict.settlements else None


def _power(seeds: int, examples: int, difference: float) -> float:
    """Power of a study of this size for this difference, from the true noise."""
    variance = 2 * (SEED_SD**2 / EXAMPLES / seeds + ARM_SD**2 / examples + 1 / seeds / examples)
    effect = np.array(difference / np.sqrt(variance))
    return float(power_of_t(np.minimum(effect, 1000), np.array(float(seeds - 1)), 0.05))
