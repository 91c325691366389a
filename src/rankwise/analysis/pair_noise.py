"""The noise of differences of two arms in pairs, and which differences a design could find with it.

A difference at one seed and one example is d_se = true + seed_s + example_e + residual_se; the two
last have a part that examples of a group share. The parts are found by the usual mean squares: the
residual from what is left of d_se without its row and column means, the examples from the mean over
seeds, the seeds from the means over examples, each freed of the residual that it holds.

Array suffixes: A arms, S seeds, E examples, G groups, P pairs, 5 parts of their variance.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from rankwise.analysis.scores import Floats, Ints, Scores
from rankwise.analysis.verdict import judge

# Arms that hardly trained have no noise between them, and arms that failed to learn have much: the
# middle half of the pairs, in the order of their noise over examples, stands for all.
MIDDLE = (0.25, 0.75)
FEWEST_ARMS = 3
MOST_PAIRS = 60
# Studies that are drawn for a prediction; larger ones are drawn with fewer arms and groups.
STUDIES = 5
MOST_ARMS, MOST_GROUPS = 16, 400


@dataclass(frozen=True)
class Spread:
    """Standard deviations of single examples: within their group, and of the group's mean."""

    within: float
    between: float

    def of_groups(self, size_G: Floats) -> Floats:
        """Standard deviations (G,) of the means of groups of these sizes."""
        return np.asarray(np.sqrt(self.between**2 + self.within**2 / size_G))


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
    done_AS = np.asarray(np.isfinite(x_ASE).all(axis=2))
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
    # Not by the noise of seeds: so few degrees of freedom would order the pairs by chance.
    size = np.array([0, 1 / len(group_E), 1 / groups, 1 / len(group_E), 1 / groups])
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
    within, between, square = np.mean([_nested(row_E, group_E) for row_E in left_SE], axis=0)
    own_within, own_between, _ = _nested(common_E, group_E)
    return (
        max(float(mean_S.var(ddof=1)) - float(square) / examples, 0.0),
        float(within),
        float(between),
        max(own_within - float(within) / seeds, 0.0),
        max(own_between - float(between) / seeds, 0.0),
    )


def _nested(z_E: Floats, group_E: Ints) -> tuple[float, float, float]:
    """Variance within groups and between their means, of values that sum to 0; the mean square.

    The latter over the number of examples is the variance of the mean, without the bias of a
    variance that is not allowed to be below 0.
    """
    sizes_G = np.bincount(group_E).astype(float)
    examples, groups = len(z_E), len(sizes_G)
    if groups == examples or groups < 2:
        square = float(z_E @ z_E) / max(examples - 1, 1)
        return square, 0.0, square
    mean_G = np.bincount(group_E, weights=z_E) / sizes_G
    within = float(((z_E - mean_G[group_E]) ** 2).sum()) / (examples - groups)
    mean_square = float(sizes_G @ mean_G**2) / (groups - 1)
    size = (examples - float((sizes_G**2).sum()) / examples) / (groups - 1)
    return within, max((mean_square - within) / size, 0.0), mean_square


def detectable_difference(
    noise: PairNoise, arms: int, seeds: int, groups_E: Sequence[Hashable]
) -> float | None:
    """By how much an arm of such a study must be better than all others to be found so.

    The median of what the verdict says (`verdict.DetectableEffect`) of drawn studies of equal arms
    with this noise; found with its probability, 80 %. With one seed that is said of those runs.
    None where nothing can be found: too few examples or groups, or no noise at all.

    Args:
        noise: Of a difference in pairs.
        arms: Of the study.
        seeds: Of each arm.
        groups_E: Of its examples.
    """
    size_G = np.unique(numbered(groups_E), return_counts=True)[1].astype(float)
    if len(size_G) > MOST_GROUPS:
        size_G = np.full(MOST_GROUPS, size_G.sum() / MOST_GROUPS)
        noise = _joined(noise, effective_groups(groups_E) / MOST_GROUPS)
    spreads = (noise.example, noise.residual)
    if not any((noise.seed, *(part for one in spreads for part in (one.within, one.between)))):
        return None
    rng = np.random.default_rng(0)
    found = []
    for _ in range(STUDIES):
        effect = judge(_drawn(noise, min(arms, MOST_ARMS), seeds, size_G, rng)).detectable
        if effect is not None and np.isfinite(effect.value) and effect.value > 0:
            found.append(effect.value)
    return float(np.median(found)) if len(found) == STUDIES else None


def _joined(noise: PairNoise, times: float) -> PairNoise:
    """The noise where so many groups make one: what they share is then less."""

    def less(spread: Spread) -> Spread:
        return replace(spread, between=spread.between / times**0.5)

    return replace(noise, example=less(noise.example), residual=less(noise.residual))


def _drawn(
    noise: PairNoise, arms: int, seeds: int, size_G: Floats, rng: np.random.Generator
) -> Scores:
    """A study of equal arms, the mean of each group as an example of its weight."""
    shape = arms, seeds, len(size_G)
    x_ASG = noise.residual.of_groups(size_G) * rng.standard_normal(shape)
    x_ASG += noise.seed * rng.standard_normal((arms, seeds, 1))
    x_ASG += noise.example.of_groups(size_G) * rng.standard_normal((arms, 1, len(size_G)))
    return Scores(
        metric="eval_loss",
        arms=tuple(map(str, range(arms))),
        seeds=tuple(range(seeds)),
        x_ASE=x_ASG / np.sqrt(2),  # each arm brings half of the variance of a difference
        weights_E=size_G.tolist(),
    )
