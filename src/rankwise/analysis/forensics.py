"""Why a run ended without a result: cause, evidence and remedy, read from its records.

A diagnosis claims no more than the numbers it quotes. Thresholds are here, with their reasons.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from rankwise.text import number

# A gradient norm this many times the median before it counts as an outlier. A chosen limit, stated
# with the ratio itself in the evidence, so that a reader can judge it.
SPIKE = 10.0
# Norms that grow by this factor over the last steps, each above the one before, count as an
# explosion: by chance alone four values stand in rising order once in 24.
GROWTH = 3.0
TREND_STEPS = 4
# Beyond this a float16 is infinite.
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
    planned   optimizer steps it was to make; None if unknown
    warmup    steps of learning-rate warm-up
    max_grad_norm  the clipping norm; None for none
    dtype     of the frozen base, such as "float16"
    batch     what was in the batch of the last step (row numbers or hashes), if recorded
    bad_step  the step that was not finite, where `steps` holds only those before it
    """

    state: str
    message: str = ""
    steps: tuple[StepRecord, ...] = ()
    planned: int | None = None
    warmup: int = 0
    max_grad_norm: float | None = None
    dtype: str | None = None
    batch: tuple[str, ...] = ()
    bad_step: int | None = None


@dataclass(frozen=True)
class Diagnosis:
    """Cause, evidence and remedy, each a short sentence or a few.

    certain   the records prove the cause; False where it is the likeliest of those that fit
    bad_step  first step whose loss or gradient norm is not finite; None if none is recorded
    """

    state: str
    cause: str
    evidence: tuple[str, ...]
    remedy: str
    certain: bool
    bad_step: int | None


def diagnose(ending: Ending) -> Diagnosis:
    """The diagnosis of one run; a run in good order gets one as well, which says so."""
    if ending.state == "diverged" or (ending.state == "crashed" and _bad_step(ending)):
        return _diverged(ending)
    plain = {
        "out_of_memory": _out_of_memory,
        "crashed": _crashed,
        "pruned": _pruned,
        "stopped_early": _stopped_early,
        "interrupted": _interrupted,
    }.get(ending.state)
    if plain is not None:
        return plain(ending)
    return Diagnosis(
        ending.state, "No failure is recorded.", _progress(ending), "None.", True, None
    )


def _bad_step(ending: Ending) -> StepRecord | None:
    """The first step on record with a loss or gradient norm that is not a number."""
    return next(
        (s for s in ending.steps if not (math.isfinite(s.loss) and math.isfinite(s.grad_norm))),
        None,
    )


def _diverged(ending: Ending) -> Diagnosis:
    bad = _bad_step(ending)
    before = [s for s in ending.steps if bad is None or s.step < bad.step]
    evidence = [*_bad_words(ending, bad), *_before_words(before)]
    cause, remedy, certain = _divergence_cause(ending, bad, before)
    step = bad.step if bad else ending.bad_step
    return Diagnosis(ending.state, cause, tuple(evidence), remedy, certain, step)


def _divergence_cause(
    ending: Ending, bad: StepRecord | None, before: Sequence[StepRecord]
) -> tuple[str, str, bool]:
    """(cause, remedy, whether the records prove it), the most telling sign first."""
    if not before and (bad is not None or ending.bad_step == 1):
        return (
            "The very first step was not finite, before any weight had moved.",
            "Look at the data (an example without target tokens, a label out of range) and at the "
            "precision of the base; a lower learning rate cannot help.",
            True,
        )
    largest = max((s.grad_norm for s in before), default=0.0)
    if ending.dtype in ("float16", "fp16") and largest < FLOAT16_MAX and not _grew(before):
        return (
            "Overflow of float16 is likely: the run was steady and then not finite at once.",
            "Compute in bfloat16 or float32.",
            False,
        )
    if _grew(before):
        lr = before[-1].learning_rate
        clip = " and set max_grad_norm (0.3 to 1)" if ending.max_grad_norm is None else ""
        warm = " or a longer warm-up" if before[-1].step <= ending.warmup * 1.5 else ""
        return (
            f"The gradients exploded step by step, at a learning rate of {lr:.3g}.",
            f"A learning rate of {lr / 3:.1g}{warm}{clip}.",
            True,
        )
    if before and before[-1].grad_norm > SPIKE * median(s.grad_norm for s in before):
        rows = f" ({', '.join(ending.batch[:4])})" if ending.batch else ""
        return (
            "One batch gave an outlying gradient, and the step it caused broke the run.",
            f"Look at the examples of that batch{rows}; clip gradients; lower the learning rate.",
            False,
        )
    return (
        "The loss ceased to be a number without warning in loss or gradient norm.",
        "Look at the batch of that step; run it again in float32; then lower the learning rate.",
        False,
    )


def _grew(before: Sequence[StepRecord]) -> bool:
    """Whether loss or gradient norm rose at each of the last steps, threefold in all."""
    tail = before[-TREND_STEPS:]
    if len(tail) < TREND_STEPS:
        return False
    for values in ([s.grad_norm for s in tail], [s.loss for s in tail]):
        rising = all(b > a for a, b in pairwise(values))
        if rising and values[0] > 0 and values[-1] >= GROWTH * values[0]:
            return True
    return False


def _bad_words(ending: Ending, bad: StepRecord | None) -> list[str]:
    said = [ending.message] if ending.message else []
    if bad is None:
        return said
    what = "gradient norm" if math.isfinite(bad.loss) else "loss"
    value = bad.grad_norm if math.isfinite(bad.loss) else bad.loss
    words = [
        f"The {what} of step {bad.step} was {value}, at learning rate {bad.learning_rate:.3g}."
    ]
    if ending.batch:
        words.append(f"Its batch: {', '.join(ending.batch[:8])}.")
    return words


def _before_words(before: Sequence[StepRecord]) -> list[str]:
    if not before:
        return []
    tail = before[-TREND_STEPS:]
    norms = ", ".join(number(s.grad_norm) for s in tail)
    losses = ", ".join(number(s.loss) for s in tail)
    words = [f"Last gradient norms {norms}; last losses {losses}."]
    middle = median(s.grad_norm for s in before)
    if middle > 0:
        ratio = before[-1].grad_norm / middle
        words.append(f"The last gradient norm was {number(ratio)} times the median before it.")
    return words


def _out_of_memory(ending: Ending) -> Diagnosis:
    return Diagnosis(
        ending.state,
        "Memory ran out.",
        _said(ending),
        "Fewer rows a step with more gradient accumulation (the same batch in sum), shorter "
        "max_length, fewer runs in a cohort, or a quantised base.",
        True,
        None,
    )


def _crashed(ending: Ending) -> Diagnosis:
    return Diagnosis(
        ending.state,
        "The program raised an error.",
        _said(ending),
        "The message above names it; the other arms are not affected.",
        bool(ending.message),
        None,
    )


def _pruned(ending: Ending) -> Diagnosis:
    return Diagnosis(
        ending.state,
        "Stopped at a comparison, being behind the other runs; this is no failure.",
        _said(ending),
        "None. Its score is that of an unfinished run and is not ranked.",
        True,
        None,
    )


def _stopped_early(ending: Ending) -> Diagnosis:
    return Diagnosis(
        ending.state,
        "Early stopping: validation had not improved for as long as the patience allows.",
        _said(ending),
        "None. Its best evaluation counts.",
        True,
        None,
    )


def _interrupted(ending: Ending) -> Diagnosis:
    return Diagnosis(
        ending.state,
        "Interrupted from outside.",
        _said(ending),
        "Run the study again: it goes on with the runs that have no result.",
        True,
        None,
    )


def _said(ending: Ending) -> tuple[str, ...]:
    return (*((ending.message,) if ending.message else ()), *_progress(ending))


def _progress(ending: Ending) -> tuple[str, ...]:
    if not ending.steps:
        return ("No step is recorded.",)
    last = ending.steps[-1].step
    of = f" of {ending.planned}" if ending.planned else ""
    return (f"It made {last}{of} steps; the last loss was {number(ending.steps[-1].loss)}.",)
