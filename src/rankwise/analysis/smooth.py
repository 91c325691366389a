"""A second estimate, if settings act smoothly: arms predicted from their settings.

It stands beside the verdict and never in its place: the verdict takes every arm for itself, this
one lets arms with like settings inform each other (`smooth_model`), which is right only as far as
they are alike. Array suffixes: A arms, G grid points, D draws.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from rankwise.analysis.additive import LEVEL
from rankwise.analysis.smooth_model import Posterior, SmoothModel, draw
from rankwise.analysis.variance import Components


@dataclass(frozen=True)
class Prediction:
    """One arm, by its settings and its result: value, 95 % interval, probability to be the best.

    The interval is of its difference from the mean of all arms, added to that mean.
    """

    arm: str
    value: float
    low: float
    high: float
    p_best: float


@dataclass(frozen=True)
class Smooth:
    """What the arms show if settings act smoothly.

    deviation, deviation_low, deviation_high  standard deviation of combinations beyond additive
                effects, with its 95 % interval
    noise       standard error of the difference of two arms, the middle one
    predictions all arms, the best first
    best        the fewest arms that hold the best one with a probability of 95 %
    misfit_p    of the arm that fits worst when it is left out and predicted (Bonferroni over arms);
                below 5 % the model is refuted
    misfit_arm  that arm
    """

    deviation: float
    deviation_low: float
    deviation_high: float
    noise: float
    predictions: tuple[Prediction, ...]
    best: tuple[str, ...]
    misfit_p: float
    misfit_arm: str

    @property
    def refuted(self) -> bool:
        """Whether the arms contradict the model."""
        return self.misfit_p < LEVEL


def smooth(model: SmoothModel, parts: Components, lower_is_better: bool) -> Smooth:
    """Predictions of all arms, the set of the best, and whether the arms contradict the model."""
    sign = 1.0 if lower_is_better else -1.0
    loss_DA = draw(model)
    level = float(model.loss_A.mean())
    relative_DA = loss_DA - loss_DA.mean(axis=1, keepdims=True) + level
    p_A = np.bincount(loss_DA.argmin(axis=1), minlength=len(parts.arms)) / len(loss_DA)
    value_A = relative_DA.mean(axis=0)
    low_A, high_A = np.sort(sign * np.quantile(relative_DA, (0.025, 0.975), axis=0), axis=0)
    order = np.argsort(-p_A, kind="stable")
    fewest = int(np.searchsorted(np.cumsum(p_A[order]), 1 - LEVEL)) + 1
    columns = (sign * value_A, low_A, high_A, p_A)
    predictions = tuple(
        Prediction(parts.arms[a], *(float(column[a]) for column in columns))
        for a in np.argsort(value_A, kind="stable")
    )
    p_misfit, worst = misfit(model.posterior)
    off = ~np.eye(len(parts.arms), dtype=bool)
    size, low, high = _size(model)
    return Smooth(
        deviation=size,
        deviation_low=low,
        deviation_high=high,
        noise=float(np.median(parts.pairs().error[off])),
        predictions=predictions,
        best=tuple(parts.arms[a] for a in order[:fewest]),
        misfit_p=p_misfit,
        misfit_arm=parts.arms[worst],
    )


def _size(model: SmoothModel) -> tuple[float, float, float]:
    """Median and 95 % interval of the size of deviations."""
    order = np.argsort(model.grid.size_G, kind="stable")
    share = np.cumsum(model.posterior.weight_G[order])
    at = np.minimum(np.searchsorted(share, (0.5, 0.025, 0.975)), len(order) - 1)
    middle, low, high = (float(size) for size in model.grid.size_G[order][at])
    return middle, low, high


def misfit(found: Posterior) -> tuple[float, int]:
    """p of the arm that is predicted worst by all others, times their number; and that arm.

    The weight of a grid point without the arm is that with it, over the density of its residual.
    """
    log_GA = found.log_G[:, None] - 0.5 * np.log(found.own_GA) + 0.5 * found.off_GA**2
    without_GA = np.exp(log_GA - special.logsumexp(log_GA, axis=0))
    p_A = (without_GA * 2 * stats.norm.sf(np.abs(found.off_GA))).sum(axis=0)
    worst = int(np.argmin(p_A))
    return float(min(1.0, p_A[worst] * len(p_A))), worst
