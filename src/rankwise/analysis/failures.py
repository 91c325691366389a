"""Why a run ended without a result: the kind of failure, and the steps that show it.

The thresholds are here, with their reasons.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

# A gradient norm this many times the median before it counts as an outlier. The limit is a choice;
# the report prints the ratio itself.
SPIKE = 10.0
# Norms that grow by this factor over the last steps, each above the one before, count as exploding:
# four values are in rising order by chance once in 24.
GROWTH = 3.0
TREND_STEPS = 4
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
              "explosion": of the gradients; "outlier": of one batch's gradient; "unexplained":
              diverged without such a sign; the state otherwise; "none": no failure
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
    if ending.dtype in ("float16", "fp16") and largest < FLOAT16_MAX and not _grew(before):
        return "overflow", False
    if _grew(before):
        return "explosion", True
    if before and before[-1].grad_norm > SPIKE * median(s.grad_norm for s in before):
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
