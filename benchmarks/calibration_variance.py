"""Rows of the calibration: 95 % intervals of differences where the noise is hard to estimate."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from calibration_rows import COVERED, FREE, Values
from simulated import study

from rankwise.analysis.scores import Scores
from rankwise.analysis.variance import components

# With two seeds and three arms or more, arms that may be less stable have wide intervals.
WIDE = (0.935, 0.98)


def variance_rows(studies: int, seed: int) -> Iterator[Values]:
    """Few arms and seeds, arms of unequal noise, groups of unequal size."""
    rng = np.random.default_rng([seed, 10])
    for arms, seeds in ((2, 2), (2, 3), (3, 2)):
        what = f"interval of a difference, {arms} equal arms, {seeds} seeds"
        asked = COVERED if arms == 2 else WIDE
        for sd, effect, bounds in ((5.0, "seed effects dominate", asked), (0.0, "none", FREE)):
            make = _maker(rng, seeds, [sd] * arms)
            yield (
                f"{what}, {effect}" if sd else f"- {what}, no seed effect",
                *_covered(make, 4 * studies if sd else studies, bounds),
            )
    for arms, seeds in ((4, 2), (12, 2), (8, 3)):
        make = _maker(rng, seeds, [30.0, *[3.0] * (arms - 1)])
        what = f"interval, one of {arms} arms 10 times noisier, {seeds} seeds: its differences"
        yield what, *_covered(make, studies, (0.9, 1.0), of=0)
    make = _maker(rng, 2, [3.0] * 8)
    yield "interval, 8 equal arms, 2 seeds", *_covered(make, studies, WIDE)
    make = _maker(rng, 3, [3.0] * 8)
    yield "interval, 8 equal arms, 3 seeds", *_covered(make, studies, COVERED)
    for arms in (4, 8):
        make = _maker(rng, 3, [10.0] * (arms // 2) + [2.0] * (arms // 2))
        what = f"interval, half of {arms} arms 5 times noisier, 3 seeds"
        yield what, *_covered(make, studies, (0.92, 1.0))
    for together in (0.1, 0.5, 0.9):
        what = f"interval, 19 groups of very unequal size, share in common {together}"
        make = _grouped(rng, together)
        yield what, *_covered(make, studies, COVERED)


def _maker(
    rng: np.random.Generator, seeds: int, seed_sd_A: Sequence[float]
) -> Callable[[], Scores]:
    return lambda: study(rng, seeds, seed_sd_A)


def _grouped(rng: np.random.Generator, together: float) -> Callable[[], Scores]:
    """Sizes log-normal: the largest group has a quarter of the examples, or so."""

    def make() -> Scores:
        sizes = np.maximum(1, np.round(20 * np.exp(rng.standard_normal(19)))).astype(int)
        return study(rng, 3, [1.0] * 4, arm_sd=0.7, sizes=sizes.tolist(), together=together)

    return make


def _covered(
    make: Callable[[], Scores], studies: int, bounds: tuple[float, float], of: int | None = None
) -> tuple[list[float], float, float]:
    """Share of all pairs, or of those `of` an arm, whose interval holds zero, by study."""
    found = []
    for _ in range(studies):
        low_AA, high_AA = components(make()).pairs().interval()
        if np.isnan(low_AA).any():  # no interval is printed
            continue
        holds_AA = (low_AA <= 0) & (high_AA >= 0)
        upper = np.triu_indices(len(holds_AA), 1)
        shown = holds_AA[upper] if of is None else np.delete(holds_AA[of], of)
        found.append(float(shown.mean()))
    return found, *bounds
