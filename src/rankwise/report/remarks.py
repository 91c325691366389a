"""Stored facts in sentences: why a run has no result, and what else a reader should know."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rankwise.analysis.curves import TREND_STEPS, Diagnosis, Ending, StepRecord
from rankwise.results.records import Records, RunFacts
from rankwise.store.schema import TOO_LARGE, Fact
from rankwise.text import count, names, reload_words, significant


def cause_of(run: RunFacts) -> str:
    """Why a run has no result, as it was recorded; empty where nothing was."""
    if run.not_finite is not None:
        at = "" if run.bad_step is None else f" at step {run.bad_step}"
        rate = run.bad_learning_rate
        with_rate = "" if rate is None else f", at learning rate {rate:.3g}"
        if run.not_finite == TOO_LARGE:
            return f"the loss was more than 100 times that of the first step{at}{with_rate}"
        return f"the {run.not_finite} was not finite{at}{with_rate}"
    if run.state == "interrupted" and not run.cause:
        return "stopped before its last step"
    return run.cause or ""


def remarks_of(records: Records) -> tuple[tuple[str, str], ...]:
    """(kind, sentence) of every fact of a study, in the order they were noted."""
    return tuple(remark(fact) for fact in records.notes)


def remark(fact: Fact) -> tuple[str, str]:
    """Kind and sentence of one fact; a kind that is not known here is shown value by value."""
    if fact.kind == "text":
        return str(fact.data["about"]), str(fact.data["text"])
    words = WORDS.get(fact.kind)
    if words is None:
        return fact.kind, "; ".join(f"{name} {value}" for name, value in fact.data.items())
    kind, sentence = words
    return kind, sentence(fact.data)


def _changed(what: str) -> Callable[[Mapping[str, Any]], str]:
    def sentence(data: Mapping[str, Any]) -> str:
        before, now = data["before"], data["now"]
        changes = "; ".join(
            f"{name} {before.get(name)} -> {now.get(name)}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        )
        return f"{what} changed within the study: {changes}"

    return sentence


def _halved(data: Mapping[str, Any]) -> str:
    return f"a cohort of {data['runs']} was too large; halved"


def _fewer_rows(data: Mapping[str, Any]) -> str:
    return (
        f"{data['run']} was too large even alone; its batches went through the model "
        f"{count(data['rows'], 'row')} at a time, which changes no number but in its last digits"
    )


def _budget(data: Mapping[str, Any]) -> str:
    return (
        f"the budget of {data['hours']:g} hours was spent before {count(data['left'], 'run')} had "
        f"a result; they are saved as they are, and go on with a larger budget.hours"
    )


def _not_in_spec(data: Mapping[str, Any]) -> str:
    parts = [f"configurations {names(data['configs'])}"] if data["configs"] else []
    parts += [f"seeds {names([str(s) for s in data['seeds']])}"] if data["seeds"] else []
    return (
        f"not in the spec with which the study was last run: {' and '.join(parts)}; their results "
        f"stay in study.db and are left out of this report"
    )


def _resumed(data: Mapping[str, Any]) -> str:
    return (
        f"these runs went on from a checkpoint, and may differ in the last digits from runs that "
        f"were never stopped, as sums on {data['device']} are not always made in one order: "
        f"{', '.join(data['runs'])}"
    )


def _alone(data: Mapping[str, Any]) -> str:
    if "error" in data:
        why = f"each went on alone, after an error in their cohort ({data['error']})"
    elif "failure" in data:
        what = "this model gives its modules more than the batch"
        why = f"trained alone, as {what} ({data['failure']})"
    else:
        change = f"{data['difference']:.2g}"
        why = f"trained alone, as training together would change a loss by {change} of its value"
    return f"{why}: {', '.join(data['runs'])}"


def _likeness(data: Mapping[str, Any]) -> str:
    return (
        f"eval_rougeL and eval_chrf are those of what is written for the first {data['examples']} "
        f"of {data['of']} validation examples, by greedy search and no longer than the longest of "
        "their targets (test likewise)"
    )


def _no_answers(data: Mapping[str, Any]) -> str:
    return f"no answers of {data['who']}: {data['error']}"


def _not_done(data: Mapping[str, Any]) -> str:
    return f"no {data['what']} of {', '.join(data['runs'])}: {data['error']}"


def _ranks(data: Mapping[str, Any]) -> str:
    seed = data["head_seed"]
    head = "" if seed is None else f" under a head as drawn by seed {seed}"
    return (
        f"{data['config']}: ranks {data['low']} to {data['high']} in proportion to the mean of "
        f"|weight x gradient|, read on {data['batches']} training batches of the frozen base"
        f"{head}; the same for every seed of the arm"
    )


def _merged(data: Mapping[str, Any]) -> str:
    before, after = data["before"], data["after"]
    if after is None:
        return f"{data['run']}: memory does not hold the unquantised base, to merge it into"
    change = "" if before is None else f"{before:.4f} over the {data['quantization']} base, "
    by = "" if before is None else f" ({after - before:+.4f})"
    return (
        f"{data['run']}: validation loss {change}{after:.4f}{by} merged into the unquantised "
        "base, as export --merged writes it"
    )


def _reload(data: Mapping[str, Any]) -> str:
    values = {name: value for name, value in data.items() if name != "run"}
    return f"{data['run']}: {reload_words(**values)}"


def _not_checked(data: Mapping[str, Any]) -> str:
    return f"adapters were not loaded again by peft, for lack of memory: {data['error']}"


def _repaired(data: Mapping[str, Any]) -> str:
    return (
        f"study.db was damaged ({data['why']}) and repaired: {count(data['kept'], 'run')} kept, "
        f"{data['again']} to be trained again; the damaged file is kept beside it"
    )


def _look(data: Mapping[str, Any]) -> str:
    return f"look {data['number']} at the results, of {count(data['runs'], 'finished run')}"


def _proposed(data: Mapping[str, Any]) -> str:
    why = f" ({data['why']})" if data["why"] else ""
    return f"proposed {data['name']}: {data['source']}{why}"


WORDS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "versions": ("versions", _changed("versions")),
    "device": ("device", _changed("device")),
    "memory": ("memory", _halved),
    "memory_rows": ("memory", _fewer_rows),
    "budget": ("budget", _budget),
    "not_in_spec": ("spec", _not_in_spec),
    "resumed": ("resumed", _resumed),
    "fallback": ("fallback", _alone),
    "likeness": ("generation", _likeness),
    "no_answers": ("generation", _no_answers),
    "not_done": ("after training", _not_done),
    "ranks": ("ranks", _ranks),
    "merged": ("quantization", _merged),
    "reload": ("export", _reload),
    "not_checked": ("export", _not_checked),
    "repaired": ("study.db", _repaired),
    "look": ("looks", _look),
    "search_proposal": ("search", _proposed),
}


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
    if found.kind == "leap":
        first, last = significant(before[0].loss), significant(before[-1].loss)
        rate = before[-1].learning_rate
        return (
            f"The loss rose from {first} to {last}, at a learning rate of {rate:.3g}.",
            f"Use a learning rate of {rate / 10:.1g} or less.",
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
