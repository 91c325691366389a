"""How runs went: learning curves in numbers, and why a run ended without a result."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

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
        overfitting=None if short else rise > threshold and not rises(training, step_T[at]),
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


def rises(training: Sequence[tuple[float, float]] | None, best_step: float) -> bool:
    """Whether the training loss rises from the best step on, by its least-squares slope.

    `training` is (step, loss). A training loss that rises as well is divergence, not overfitting.
    """
    after = [point for point in training or () if point[0] >= best_step and np.isfinite(point[1])]
    if len(after) < 2:
        return False
    step_T, loss_T = np.array(after).T
    return float(np.polyfit(step_T, loss_T, 1)[0]) > 0


def _reversed(loss_T: Floats) -> float:
    moved = float(np.abs(np.diff(loss_T)).sum())
    return 0.0 if moved == 0 else 1 - abs(float(loss_T[-1] - loss_T[0])) / moved


# A gradient norm this many times the median before it counts as an outlier. The limit is a choice;
# the report prints the ratio itself.
SPIKE = 10.0
# Norms that grow by this factor over the last steps, each above the one before, count as exploding:
# four values are in rising order by chance once in 24.
GROWTH = 3.0
TREND_STEPS = 4
# A loss this many times the first one is no noise of a batch.
LEAP = 10.0
# The largest float16.
FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step saw: mean loss, gradient norm before clipping, learning rate."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    state     "diverged", "out_of_memory", "crashed", "pruned", "stopped_early", "interrupted",
              "done", or any other state of the store
    message   what was raised or recorded, if anything
    steps     the records of its steps, or the last of them, in order
    planned   planned optimizer steps; None if unknown
    warmup    steps of learning-rate warm-up
    max_grad_norm  the clipping norm; None without clipping
    dtype     of the frozen base, such as "float16"
    bad_step  the step that was not finite, where `steps` holds only those before it
    """

    state: str
    message: str = ""
    steps: tuple[StepRecord, ...] = ()
    planned: int | None = None
    warmup: int = 0
    max_grad_norm: float | None = None
    dtype: str | None = None
    bad_step: int | None = None


Kind = Literal[
    "first step",
    "overflow",
    "explosion",
    "leap",
    "outlier",
    "unexplained",
    "out_of_memory",
    "crashed",
    "pruned",
    "stopped_early",
    "interrupted",
    "none",
]


@dataclass(frozen=True)
class Diagnosis:
    """What kind of failure it was, and the steps that show it.

    kind      "first step": not finite before any weight changed; "overflow": of float16;
              "explosion": of the gradients; "leap": of the loss, to many times the first;
              "outlier": of one batch's gradient; "unexplained": diverged without such a sign; the
              state otherwise; "none": no failure
    certain   the records prove it; False where it is only the most likely cause
    bad_step  first step whose loss or gradient norm is not finite; None if none is recorded
    bad       the record of that step, if there is one; before: the records before it
    """

    ending: Ending
    kind: Kind
    certain: bool
    bad_step: int | None = None
    bad: StepRecord | None = None
    before: tuple[StepRecord, ...] = ()


def diagnose(ending: Ending) -> Diagnosis:
    """The diagnosis of one run; a run without a failure has kind "none"."""
    bad = _bad_step(ending)
    match ending.state:
        case "diverged":
            return _diverged(ending, bad)
        case "crashed":
            if bad is not None:
                return _diverged(ending, bad)
            return Diagnosis(ending, "crashed", bool(ending.message))
        case "out_of_memory" | "pruned" | "stopped_early" | "interrupted":
            return Diagnosis(ending, ending.state, True)
    return Diagnosis(ending, "none", True)


def _bad_step(ending: Ending) -> StepRecord | None:
    """The first recorded step whose loss or gradient norm is not finite."""
    return next(
        (s for s in ending.steps if not (math.isfinite(s.loss) and math.isfinite(s.grad_norm))),
        None,
    )


def _diverged(ending: Ending, bad: StepRecord | None) -> Diagnosis:
    before = tuple(s for s in ending.steps if bad is None or s.step < bad.step)
    kind, certain = _divergence(ending, bad, before)
    return Diagnosis(ending, kind, certain, bad.step if bad else ending.bad_step, bad, before)


def _divergence(
    ending: Ending, bad: StepRecord | None, before: Sequence[StepRecord]
) -> tuple[Kind, bool]:
    """(kind, whether the records prove it), the strongest sign first."""
    if not before and (bad is not None or ending.bad_step == 1):
        return "first step", True
    largest = max((s.grad_norm for s in before), default=0.0)
    if _grew(before):
        return "explosion", True
    if before and before[-1].loss > LEAP * max(1.0, before[0].loss):
        return "leap", True
    if ending.dtype in ("float16", "fp16") and largest < FLOAT16_MAX:
        return "overflow", False
    if before and before[-1].grad_norm > SPIKE * median(s.grad_norm for s in before[:-1] or before):
        return "outlier", False
    return "unexplained", False


def _grew(before: Sequence[StepRecord]) -> bool:
    """Whether loss or gradient norm rose at each of the last steps, by a factor of 3 in all."""
    tail = before[-TREND_STEPS:]
    if len(tail) < TREND_STEPS:
        return False
    for values in ([s.grad_norm for s in tail], [s.loss for s in tail]):
        rising = all(b > a for a, b in pairwise(values))
        if rising and values[0] > 0 and values[-1] >= GROWTH * values[0]:
            return True
    return False
