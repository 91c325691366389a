"""Why a run ended without a result, in words: cause, evidence and remedy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rankwise.analysis.failures import TREND_STEPS, Diagnosis, Ending, StepRecord
from rankwise.text import significant

PLAIN = {
    "first step": (
        "The first step was not finite, before any weight had changed.",
        "Check the data (an example without target tokens, a label out of range) and the "
        "precision of the base; a lower learning rate cannot help.",
    ),
    "overflow": (
        "Overflow of float16: the run was steady, and then a value was not finite.",
        "Compute in bfloat16 or float32.",
    ),
    "unexplained": (
        "The loss became NaN or infinite, without a sign in the losses and gradient norms before.",
        "Check the batch of that step; run again in float32; then lower the learning rate.",
    ),
    "out_of_memory": (
        "Out of memory.",
        "Use fewer rows per step and more gradient accumulation (the same batch size in total), a "
        "smaller max_length, fewer runs in a cohort, or a quantised base.",
    ),
    "crashed": (
        "The program raised an error.",
        "See the message above; the other configurations are not affected.",
    ),
    "pruned": (
        "Stopped at a comparison because it was behind the other runs; this is no failure.",
        "None. Its score is that of an unfinished run and is not ranked.",
    ),
    "stopped_early": (
        "Early stopping: validation had not improved for as long as the patience allows.",
        "None. Its best evaluation counts.",
    ),
    "interrupted": (
        "The run was interrupted.",
        "Run the study again: it continues with the runs that have no result.",
    ),
    "none": ("No failure is recorded.", "None."),
}


@dataclass(frozen=True)
class Explanation:
    """Cause, evidence and remedy in sentences; certain and bad_step as in `Diagnosis`."""

    state: str
    cause: str
    evidence: tuple[str, ...]
    remedy: str
    certain: bool
    bad_step: int | None


def explained(found: Diagnosis) -> Explanation:
    """A diagnosis in words."""
    cause, remedy = _cause(found)
    message = (found.ending.message,) if found.ending.message else ()
    if found.kind == "none":
        evidence = _progress(found.ending)
    elif found.bad is not None:
        evidence = (*_bad(found.bad), *_before(found.before))
    elif found.ending.state == "diverged":
        evidence = (*message, *_before(found.before))
    else:
        evidence = (*message, *_progress(found.ending))
    return Explanation(found.ending.state, cause, evidence, remedy, found.certain, found.bad_step)


def _cause(found: Diagnosis) -> tuple[str, str]:
    """(cause, remedy)."""
    ending, before = found.ending, found.before
    if found.kind == "explosion":
        rate = before[-1].learning_rate
        clip = " and set max_grad_norm (0.3 to 1)" if ending.max_grad_norm is None else ""
        warm = " or a longer warm-up" if before[-1].step <= ending.warmup * 1.5 else ""
        return (
            f"The gradients grew at every step and exploded, at a learning rate of {rate:.3g}.",
            f"Use a learning rate of {rate / 3:.1g}{warm}{clip}.",
        )
    if found.kind == "outlier":
        return (
            "One batch gave an unusually large gradient, and the step it caused broke the run.",
            "Check the examples of that batch; clip gradients; lower the learning rate.",
        )
    return PLAIN[found.kind]


def _bad(bad: StepRecord) -> list[str]:
    what = "gradient norm" if math.isfinite(bad.loss) else "loss"
    value = bad.grad_norm if math.isfinite(bad.loss) else bad.loss
    return [f"The {what} of step {bad.step} was {value}, at learning rate {bad.learning_rate:.3g}."]


def _before(before: Sequence[StepRecord]) -> list[str]:
    if not before:
        return []
    tail = before[-TREND_STEPS:]
    norms = ", ".join(significant(s.grad_norm) for s in tail)
    losses = ", ".join(significant(s.loss) for s in tail)
    said = [f"Last gradient norms {norms}; last losses {losses}."]
    middle = median(s.grad_norm for s in before)
    if middle > 0:
        ratio = significant(before[-1].grad_norm / middle)
        said.append(f"The last gradient norm was {ratio} times the median of all before.")
    return said


def _progress(ending: Ending) -> tuple[str, ...]:
    if not ending.steps:
        return ("No step is recorded.",)
    last = ending.steps[-1]
    of = f" of {ending.planned}" if ending.planned else ""
    return (f"It made {last.step}{of} steps; the last loss was {significant(last.loss)}.",)
