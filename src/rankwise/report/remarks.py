"""Facts of the store in sentences: why a run has no result, and what else a reader should know."""

from collections.abc import Callable, Mapping
from typing import Any

from rankwise.results.records import Records, RunFacts
from rankwise.store.schema import Fact


def cause_of(run: RunFacts) -> str:
    """Why a run has no result, as it was recorded; empty where nothing was."""
    if run.not_finite is not None:
        at = "" if run.bad_step is None else f" at step {run.bad_step}"
        rate = run.bad_learning_rate
        with_rate = "" if rate is None else f", at learning rate {rate:.3g}"
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


def _alone(data: Mapping[str, Any]) -> str:
    if "error" in data:
        why = f"each tried alone, after an error before the first step ({data['error']})"
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


WORDS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "versions": ("versions", _changed("versions")),
    "device": ("device", _changed("device")),
    "memory": ("memory", _halved),
    "fallback": ("fallback", _alone),
    "likeness": ("generation", _likeness),
    "no_answers": ("generation", _no_answers),
    "not_done": ("after training", _not_done),
    "ranks": ("ranks", _ranks),
    "merged": ("quantization", _merged),
}
