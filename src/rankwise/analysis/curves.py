"""Learning curves in numbers: how far, still improving, overfitting, oscillation.

Each property is defined by a number; it is None where the curve is too short for it.
Array suffix: T points of a curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankwise.analysis.scores import Floats
from rankwise.errors import DataError

FEWEST_POINTS = 4
LATE = 0.25
STILL = 0.02


@dataclass(frozen=True)
class Curve:
    """One curve of a metric over steps (or epochs). Only finite points count.

    first, best, last         values; best_step and last_step where they were
    improvement               first to best, positive if better
    relative                  improvement / |first|; None if first is zero
    late_share                improvement of the best value within the last quarter of the steps,
                              as a share of `improvement`; None with fewer than 4 points or none
    still_improving           late_share of 2 % or more, and, where a noise is given, that
                              improvement is larger than the noise
    rise                      last minus best, as a loss: positive if the end is worse than the best
    overfitting               rise is larger than the noise (than 2 % of `improvement` where no
                              noise is given) and the training loss, where given, did not rise from
                              the best step on; None with fewer than 4 points
    oscillation               share of all change between neighbouring points that was reversed:
                              1 - |last - first| / sum |differences|; 0 for a monotone curve; None
                              with fewer than 4 points
    """

    points: int
    first: float
    best: float
    best_step: float
    last: float
    last_step: float
    improvement: float
    relative: float | None
    late_share: float | None
    still_improving: bool | None
    rise: float
    overfitting: bool | None
    oscillation: float | None


def describe_curve(
    steps: Sequence[float],
    values: Sequence[float],
    lower_is_better: bool = True,
    noise: float | None = None,
    training: Sequence[tuple[float, float]] | None = None,
) -> Curve:
    """The numbers of one curve.

    `noise` is the typical random difference between two points of the curve, such as the
    verdict's noise floor. `training` is (step, training loss); the steps may be other ones.
    Raises DataError if the lengths differ, the steps do not increase, or no value is finite.
    """
    step_T, value_T = _finite(steps, values)
    loss_T = value_T if lower_is_better else -value_T
    at = int(np.argmin(loss_T))
    improvement = float(loss_T[0] - loss_T[at])
    rise = float(loss_T[-1] - loss_T[at])
    short = len(loss_T) < FEWEST_POINTS
    late = 0.0 if short else _late(step_T, loss_T)
    share = None if short or improvement <= 0 else late / improvement
    threshold = STILL * improvement if noise is None else noise
    return Curve(
        points=len(loss_T),
        first=float(value_T[0]),
        best=float(value_T[at]),
        best_step=float(step_T[at]),
        last=float(value_T[-1]),
        last_step=float(step_T[-1]),
        improvement=improvement,
        relative=None if value_T[0] == 0 else improvement / abs(float(value_T[0])),
        late_share=share,
        still_improving=None if short else (share or 0.0) >= STILL and late > (noise or 0.0),
        rise=rise,
        overfitting=None if short else rise > threshold and not _rises(training, step_T[at]),
        oscillation=None if short else _reversed(loss_T),
    )


def _finite(steps: Sequence[float], values: Sequence[float]) -> tuple[Floats, Floats]:
    step_T, value_T = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if step_T.shape != value_T.shape or step_T.ndim != 1:
        raise DataError(f"a curve has {step_T.size} steps and {value_T.size} values")
    if np.any(np.diff(step_T) <= 0):
        raise DataError("the steps of a curve must increase from point to point")
    keep_T = np.isfinite(value_T)
    if not keep_T.any():
        raise DataError("a curve has no finite value")
    return step_T[keep_T], value_T[keep_T]


def _late(step_T: Floats, loss_T: Floats) -> float:
    """How much lower the best loss is than the best up to the start of the last quarter."""
    start = step_T[0] + (1 - LATE) * (step_T[-1] - step_T[0])
    return float(loss_T[step_T <= start].min() - loss_T.min())


def _rises(training: Sequence[tuple[float, float]] | None, best_step: float) -> bool:
    """Whether the training loss has a positive least-squares slope from the best step on.

    A training loss that rises as well is divergence, not overfitting.
    """
    after = [point for point in training or () if point[0] >= best_step and np.isfinite(point[1])]
    if len(after) < 2:
        return False
    step_T, loss_T = np.array(after).T
    return float(np.polyfit(step_T, loss_T, 1)[0]) > 0


def _reversed(loss_T: Floats) -> float:
    moved = float(np.abs(np.diff(loss_T)).sum())
    return 0.0 if moved == 0 else 1 - abs(float(loss_T[-1] - loss_T[0])) / moved
