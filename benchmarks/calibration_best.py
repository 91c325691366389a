"""Rows of the calibration: the confidence set of the best, its winner, and the bounds behind it."""

from collections.abc import Iterator, Sequence

import numpy as np
from calibration_rows import Values
from simulated import study

from rankwise.analysis.verdict import Verdict, judge


def equal_arms_rows(studies: int, seed: int) -> Iterator[Values]:
    """Equal arms: a winner is an error, and so is an arm that is ruled out."""
    rng = np.random.default_rng([seed, 20])
    for arms, seeds, times in ((2, 2, 3), (2, 3, 3), (3, 3, 1), (8, 3, 2)):
        found = [judge(study(rng, seeds, [5.0] * arms)) for _ in range(times * studies)]
        what = f"{arms} equal arms, {seeds} seeds, seed effects dominate"
        yield f"{what}: a winner is declared", [v.winner is not None for v in found], 0, 0.06
        kept = ["arm 0" in v.tie_group for v in found]
        yield f"- {what}: one arm is kept in the tie group", kept, 0.935, 1.0


def noisier_winner_rows(studies: int, seed: int) -> Iterator[Values]:
    """An arm of ten times the noise must not win by it."""
    rng = np.random.default_rng([seed, 21])
    for arms in (4, 8):
        found = [judge(study(rng, 2, [30.0] + [3.0] * (arms - 1))) for _ in range(studies)]
        what = f"one of {arms} arms 10 times noisier, 2 seeds: it wins"
        yield what, [v.winner == "arm 0" for v in found], 0, 0.05


def detectable_rows(studies: int, seed: int) -> Iterator[Values]:
    """An arm better than all others by what another study of the same kind calls detectable."""
    rng = np.random.default_rng([seed, 24])
    for arms, seeds in ((2, 2), (2, 3), (3, 2), (3, 3)):
        found = []
        for _ in range(2 * studies):
            stated = judge(study(rng, seeds, [3.0] * arms)).detectable
            assert stated is not None
            planted_A = [-stated.value * np.sqrt(200), *[0.0] * (arms - 1)]
            found.append(judge(study(rng, seeds, [3.0] * arms, planted_A)).winner == "arm 0")
        what = f"what is detectable with 80 % or more is found, {arms} arms, {seeds} seeds"
        yield what, found, 0.78, 1.0


def bounds_rows(studies: int, seed: int) -> Iterator[Values]:
    """Bounds on the distance from the best: right for all arms at once."""
    rng = np.random.default_rng([seed, 22])
    for arms, part in ((8, 1), (30, 2), (100, 20)):
        yield _bounds(rng, f"{arms} equal arms", np.zeros(arms), max(studies // part, 1))
    for arms, part in ((3, 1), (8, 1)):
        steps = np.arange(arms) * 3.0
        yield _bounds(
            rng, f"{arms} arms, each 3 units behind the one before", steps, studies // part
        )


def _bounds(
    rng: np.random.Generator, what: str, truth_A: np.ndarray, studies: int
) -> tuple[str, list[bool], float, float]:
    found = [judge(study(rng, 3, [2.0] * len(truth_A), truth_A)) for _ in range(studies)]
    unit = 1 / np.sqrt(200)
    right = [_all_hold(v, (truth_A - truth_A.min()) * unit) for v in found]
    return (
        f"bounds behind the best, {what}: all rows at once",
        right,
        0.95 if not truth_A.any() else 0.935,
        1.0,
    )


def _all_hold(verdict: Verdict, behind_A: np.ndarray) -> bool:
    true = dict(zip((arm.arm for arm in verdict.arms), behind_A, strict=True))
    return all(
        one.low is not None
        and one.high is not None
        and one.low - 1e-12 <= true[one.arm] <= one.high + 1e-12
        for one in verdict.distances
    )


def tie_group_rows(studies: int, seed: int) -> Iterator[Values]:
    """Size of the tie group, and that the best is in it."""
    rng = np.random.default_rng([seed, 23])
    error = np.sqrt(2 * (1 + 4 + 0.3**2 * 3) / 3)  # of a difference, 3 seeds, in units
    lone = np.r_[0.0, np.full(29, 3 * error)]
    found = [judge(study(rng, 3, [2.0] * 30, lone)) for _ in range(max(studies // 4, 2))]
    yield from _sizes("30 arms, the best by 3 standard errors", found, 15)
    main = np.add.outer(np.add.outer([0.0, 1.5], [0.0, 1.5, 3.0]), [0.0, 1.5, 3.0]).ravel() * error
    found = [judge(study(rng, 3, [2.0] * 18, main)) for _ in range(max(studies // 4, 2))]
    yield from _sizes("factorial of 18 arms, steps of 1.5 standard errors", found, 11)


def _sizes(what: str, found: Sequence[Verdict], most: int) -> Iterator[Values]:
    arms = len(found[0].arms)
    yield f"{what}: the best is kept", [v.arms[0].tied for v in found], 0.95, 1.0
    share = [len(v.tie_group) / arms for v in found]
    yield f"{what}: share of the arms that are tied ({most} of {arms})", share, 0, most / arms
