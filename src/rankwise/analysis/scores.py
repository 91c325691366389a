"""The input of the verdict: one metric by arm, seed and example, and its finished runs.

Array suffixes: A arms, S seeds, E examples, G groups of examples, R finished runs.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric of a study. Give `x_ASE`, or `x_AS` where no record by example exists.

    x_ASE      (arms, seeds, examples), NaN throughout for a run that is missing or failed
    x_AS       (arms, seeds), means of runs, NaN for a run that is missing or failed
    groups_E   one label per example; examples of a group are not independent (same movie)
    weights_E  one positive weight per example, such as its number of target tokens
    test_size  number of test items behind each mean in `x_AS`, which must then be an accuracy

    Raises DataError where the shapes do not fit or a value is impossible.
    """

    metric: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    x_ASE: Floats | None = None
    x_AS: Floats | None = None
    groups_E: Sequence[Hashable] | None = None
    weights_E: Sequence[float] | None = None
    test_size: int | None = None
    lower_is_better: bool = True

    def __post_init__(self) -> None:
        _check_names(self)
        if (self.x_ASE is None) == (self.x_AS is None):
            raise DataError(f"{self.metric}: give scores by example or by run, one of the two")
        if self.x_ASE is not None:
            _check_examples(self, np.asarray(self.x_ASE))
        if self.x_AS is not None:
            _check_runs(self, np.asarray(self.x_AS))


@dataclass(frozen=True, eq=False)
class Runs:
    """The finished runs of `Scores`, one row each.

    arm_R, seed_R  positions in `Scores.arms` and `Scores.seeds`
    mean_R         the metric of each run
    u_RG           None without a record by example; else one value per run and group whose plain
                   mean over groups is `mean_R`, so that groups can be treated as the sampled units
    share_G        the weight of each group in the mean, summing to 1; None where all are equal
    binary         every score by example is 0 or 1
    """

    arm_R: Ints
    seed_R: Ints
    mean_R: Floats
    u_RG: Floats | None
    share_G: Floats | None
    binary: bool


def finished_runs(scores: Scores) -> Runs:
    """The runs with a finite score; a run with any score that is not finite counts as failed.

    u_RG is the linearised ratio mean: with weights w, groups g and run mean m,
    u_g = m + (G / sum w) * sum_{e in g} w_e (x_e - m). Its mean over g is m and its spread over g
    is the one that the usual cluster variance of a ratio uses (Cochran, Sampling Techniques, 1977,
    eq. 6.13 and section 9A). With no groups and equal weights, u is x itself.
    """
    if scores.x_ASE is None:
        x_AS = np.asarray(scores.x_AS, dtype=np.float64)
        arm_R, seed_R = np.nonzero(np.isfinite(x_AS))
        return Runs(arm_R, seed_R, x_AS[arm_R, seed_R], None, None, False)
    x_ASE = np.asarray(scores.x_ASE, dtype=np.float64)
    arm_R, seed_R = np.nonzero(np.isfinite(x_ASE).all(axis=2))
    x_RE = x_ASE[arm_R, seed_R]
    w_E = _weights(scores, x_RE.shape[1])
    mean_R = x_RE @ w_E / w_E.sum()
    binary = bool(np.isin(x_RE, (0.0, 1.0)).all())
    u_RG, share_G = _by_group(x_RE, mean_R, w_E, scores.groups_E)
    return Runs(arm_R, seed_R, mean_R, u_RG, share_G, binary)


def _weights(scores: Scores, examples: int) -> Floats:
    if scores.weights_E is None:
        return np.ones(examples)
    return np.asarray(scores.weights_E, dtype=np.float64)


def _by_group(
    x_RE: Floats, mean_R: Floats, w_E: Floats, groups_E: Sequence[Hashable] | None
) -> tuple[Floats, Floats | None]:
    """u_RG and share_G of `Runs`."""
    if groups_E is None and np.all(w_E == w_E[0]):
        return x_RE, None
    deviation_RE = w_E * (x_RE - mean_R[:, None])
    if groups_E is None:
        share_E = w_E / w_E.sum()
        return np.asarray(mean_R[:, None] + deviation_RE * (len(w_E) / w_E.sum())), share_E
    numbers = {label: g for g, label in enumerate(dict.fromkeys(groups_E))}
    group_E = np.array([numbers[label] for label in groups_E])
    order_E = np.argsort(group_E, kind="stable")
    starts_G = np.searchsorted(group_E[order_E], np.arange(len(numbers)))
    sums_RG = np.add.reduceat(deviation_RE[:, order_E], starts_G, axis=1)
    share_G = np.bincount(group_E, weights=w_E) / w_E.sum()
    return np.asarray(mean_R[:, None] + sums_RG * (len(numbers) / w_E.sum())), share_G


def _check_names(scores: Scores) -> None:
    if not scores.arms or not scores.seeds:
        raise DataError(f"{scores.metric}: at least one arm and one seed are needed")
    for what, names in (("arm", scores.arms), ("seed", scores.seeds)):
        twice = sorted({str(name) for name in names if list(names).count(name) > 1})
        if twice:
            raise DataError(f"{scores.metric}: {what} {twice[0]} is named twice")


def _check_examples(scores: Scores, x_ASE: Floats) -> None:
    head = (len(scores.arms), len(scores.seeds))
    if x_ASE.ndim != 3 or x_ASE.shape[:2] != head or x_ASE.shape[2] < 1:
        raise DataError(
            f"{scores.metric}: scores by example have shape {x_ASE.shape}; "
            f"expected {head} and then the number of examples"
        )
    if scores.test_size is not None:
        raise DataError(f"{scores.metric}: test_size is for results without scores by example")
    for what, given in (("groups_E", scores.groups_E), ("weights_E", scores.weights_E)):
        if given is not None and len(given) != x_ASE.shape[2]:
            raise DataError(
                f"{scores.metric}: {what} has {len(given)} entries for {x_ASE.shape[2]} examples"
            )
    if scores.weights_E is not None and not all(0 < w < np.inf for w in scores.weights_E):
        raise DataError(f"{scores.metric}: every weight must be positive and finite")


def _check_runs(scores: Scores, x_AS: Floats) -> None:
    shape = (len(scores.arms), len(scores.seeds))
    if x_AS.shape != shape:
        raise DataError(f"{scores.metric}: scores have shape {x_AS.shape}; expected {shape}")
    if scores.groups_E is not None or scores.weights_E is not None:
        raise DataError(f"{scores.metric}: groups and weights need scores by example")
    if scores.test_size is None:
        return
    if scores.test_size < 1:
        raise DataError(f"{scores.metric}: test_size is {scores.test_size}; it must be 1 or more")
    known = x_AS[np.isfinite(x_AS)]
    if np.any((known < 0) | (known > 1)):
        raise DataError(
            f"{scores.metric}: with a test_size the scores must be shares from 0 to 1; "
            f"found {known[(known < 0) | (known > 1)][0]:g} (divide percentages by 100)"
        )
