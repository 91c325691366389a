"""The noise of differences of two arms in pairs, and which differences a design could find with it.

A difference at one seed and one example is d_se = true + seed_s + example_e + residual_se; the two
last have a part that examples of a group share. The parts are found by the usual mean squares: the
residual from what is left of d_se without its row and column means, the examples from the mean over
seeds, the seeds from the means over examples, each freed of the residual that it holds.

Array suffixes: A arms, S seeds, E examples, G groups, P pairs, 5 parts of their variance.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import optimize

from rankwise.analysis.planning import PairVariance, power_of_pair
from rankwise.analysis.scores import Floats, Ints

# Arms that hardly trained have no noise between them, and arms that failed to learn have much: the
# middle half of the pairs, in the order of their noise, stands for all.
MIDDLE = (0.25, 0.75)
FEWEST_ARMS = 3
MOST_PAIRS = 60
# Differences are looked for within this many standard errors.
LARGEST = 200.0


@dataclass(frozen=True)
class Spread:
    """Standard deviations of single examples: within their group, and of the group's mean."""

    within: float
    between: float

    def variance(self, examples: float, groups: float) -> float:
        """Of a mean over so many examples in so many groups of like size."""
        return self.between**2 / groups + self.within**2 / examples


@dataclass(frozen=True)
class PairNoise:
    """Standard deviations of a difference of two arms, in units of the metric.

    seed      of a run over seeds, beyond what its examples explain
    example   over examples, the same at every seed; residual: of one seed at one example
    arms, seeds  behind these numbers; arms give degrees of freedom to the seeds
    """

    seed: float
    example: Spread
    residual: Spread
    arms: int
    seeds: int


@dataclass(frozen=True)
class Design:
    """What a study will have; groups is the number of equal ones that would be as good."""

    arms: int
    seeds: int
    examples: int
    groups: float


def effective_groups(groups_E: Sequence[Hashable]) -> float:
    """Groups of equal size with the same variance of a mean: E^2 / sum of squared sizes."""
    sizes_G = np.unique(numbered(groups_E), return_counts=True)[1].astype(float)
    return float(sizes_G.sum() ** 2 / (sizes_G**2).sum())


def numbered(groups_E: Sequence[Hashable]) -> Ints:
    """Groups as numbers."""
    numbers = {group: g for g, group in enumerate(dict.fromkeys(groups_E))}
    return np.array([numbers[group] for group in groups_E], dtype=np.intp)


def pair_noise(
    x_ASE: Floats,
    groups_E: Sequence[Hashable] | None = None,
    weights_E: Floats | None = None,
) -> PairNoise | None:
    """The noise on average over the middle half of the pairs; None without two seeds of three arms.

    Args:
        x_ASE: The metric by arm, seed and example; NaN where a run is missing.
        groups_E: Of the examples; each its own where not given.
        weights_E: Of the examples in the mean.
    """
    w_E = np.ones(x_ASE.shape[2]) if weights_E is None else weights_E / weights_E.mean()
    done_AS = np.isfinite(x_ASE).all(axis=2)
    arms = np.flatnonzero(done_AS.sum(axis=1) >= 2)
    if len(arms) < FEWEST_ARMS:
        return None
    pairs = [(a, b) for a, b in combinations(arms, 2) if (done_AS[a] & done_AS[b]).sum() >= 2]
    if not pairs:
        return None
    group_E = np.arange(x_ASE.shape[2]) if groups_E is None else numbered(groups_E)
    step = -(-len(pairs) // MOST_PAIRS)
    parts = []
    for a, b in pairs[::step]:
        both_S = done_AS[a] & done_AS[b]
        parts.append(_parts(x_ASE[a][both_S] - x_ASE[b][both_S], group_E, w_E))
    parts_P5 = np.array(parts)
    groups = effective_groups(group_E.tolist())
    size = np.array([1, 1 / len(group_E), 1 / groups, 1 / len(group_E), 1 / groups])
    order = np.argsort(parts_P5 @ size, kind="stable")
    low, high = (round(part * len(order)) for part in MIDDLE)
    middle = order[low : max(high, low + 1)]
    seed, within, between, own_within, own_between = np.sqrt(parts_P5[middle].mean(axis=0))
    return PairNoise(
        seed=float(seed),
        example=Spread(float(own_within), float(own_between)),
        residual=Spread(float(within), float(between)),
        arms=len(arms),
        seeds=int(done_AS.sum(axis=1).max()),
    )


def _parts(d_SE: Floats, group_E: Ints, w_E: Floats) -> tuple[float, ...]:
    """Variances of one pair: seed, residual (within, between), examples (within, between)."""
    seeds, examples = d_SE.shape
    mean_S = (d_SE * w_E).mean(axis=1)
    off_SE = (d_SE - mean_S[:, None]) * w_E  # off the mean of its run, so that each row sums to 0
    common_E = off_SE.mean(axis=0)
    left_SE = (off_SE - common_E) * np.sqrt(seeds / (seeds - 1))
    within, between = np.mean([_nested(row_E, group_E) for row_E in left_SE], axis=0)
    own_within, own_between = _nested(common_E, group_E)
    groups = effective_groups(group_E.tolist())
    noise = Spread(float(np.sqrt(within)), float(np.sqrt(between))).variance(examples, groups)
    return (
        max(float(mean_S.var(ddof=1)) - noise, 0.0),
        float(within),
        float(between),
        max(own_within - float(within) / seeds, 0.0),
        max(own_between - float(between) / seeds, 0.0),
    )


def _nested(z_E: Floats, group_E: Ints) -> tuple[float, float]:
    """Variance within groups and between their means, of values that sum to 0."""
    sizes_G = np.bincount(group_E).astype(float)
    examples, groups = len(z_E), len(sizes_G)
    if groups == examples or groups < 2:
        return float(z_E @ z_E) / max(examples - 1, 1), 0.0
    mean_G = np.bincount(group_E, weights=z_E) / sizes_G
    within = float(((z_E - mean_G[group_E]) ** 2).sum()) / (examples - groups)
    mean_square = float(sizes_G @ mean_G**2) / (groups - 1)
    size = (examples - float((sizes_G**2).sum()) / examples) / (groups - 1)
    return within, max((mean_square - within) / size, 0.0)


def detectable_difference(
    noise: PairNoise, design: Design, level: float, power: float = 0.8
) -> float | None:
    """The difference that such a study finds with this power, by a two-sided test at `level`.

    With one seed, between its runs: the noise of seeds is then not part of the test. None where
    nothing can be found: fewer than two examples or groups, or no noise at all.
    """
    if design.examples < 2 or design.groups <= 1:
        return None
    pair = PairVariance(
        seeds=design.seeds,
        run=0.0 if design.seeds == 1 else noise.seed**2,
        residual=noise.residual.variance(design.examples, design.groups),
        own=noise.example.variance(design.examples, design.groups),
        run_df=design.arms - 1,
        example_df=design.groups - 1,
    )
    error = float(np.sqrt((pair.run + pair.residual) / pair.seeds + pair.own))
    if error == 0 or power_of_pair(pair, LARGEST * error, level) < power:
        return None

    def lacking(value: float) -> float:
        return power_of_pair(pair, value, level) - power

    return float(optimize.brentq(lacking, 0.0, LARGEST * error))
