"""In words: at which step runs are read for the ranking, and what reading them there changes."""

import statistics
from collections.abc import Sequence

from rankwise.report.document import code
from rankwise.results.judge import words
from rankwise.results.records import ArmFacts, Records
from rankwise.text import count, number

READ_AT = {
    "cross-fitted": "each run at steps chosen on other validation examples than it is read on",
    "one evaluation": "each run at its only evaluation",
    "not by example": "each run at its best step, chosen on the same validation examples",
    "one group": "each run at its best step, chosen on the same validation examples",
    "unknown": "",
}
"""At which step runs are read, as a part of a sentence, by `Records.steps`."""
WHY_NOT = {
    "not by example": (
        "{metric} is not kept example by example; with the validation loss as the "
        "objective metric, steps are chosen on other examples"
    ),
    "one group": "all validation examples form one group",
}
TOO_GOOD = (
    "A step that is chosen and read on the same examples looks better than it is, more so where "
    "there are many evaluations or a curve is volatile"
)


def read_where(records: Records) -> str:
    """At which step the validation metrics of runs are read, those too that cannot be divided."""
    read = READ_AT[records.steps]
    if records.steps != "cross-fitted":
        return read
    return f"{read}, where a metric is kept example by example, else at its best step"


def caution(records: Records) -> tuple[str, ...]:
    """Where runs are ranked on the examples that chose their step: that, and why."""
    if records.steps not in WHY_NOT:
        return ()
    why = WHY_NOT[records.steps].format(metric=words(records.metric))
    return (f"{_sentence(READ_AT[records.steps])}: {why}. {TOO_GOOD}.",)


def ranked_and_best(records: Records, arms: Sequence[ArmFacts], digits: int) -> tuple[str, ...]:
    """Why the value in the ranking and the best value of the mean curve are two numbers."""
    curve = (
        "Best: the best value of the mean curve, at one step for all seeds, chosen and read on the "
        "same examples."
    )
    if records.steps != "cross-fitted":
        ranked = f"Ranked: the value in the ranking, {READ_AT[records.steps]}."
        return (f"{ranked} {curve}",) if records.steps in WHY_NOT else ()
    folds = max((len(run.fold_steps) for run in records.runs), default=0)
    return (
        f"Ranked: the value in the ranking. The validation examples are divided into {folds} "
        "parts (groups stay whole). Each part is read at the step that is best on the other parts, "
        f"run by run. {curve}",
        f"{TOO_GOOD}. {_gain(records, arms, digits)} The adapter that is kept of a run is that of "
        "its best step on all validation examples.",
    )


def _gain(records: Records, arms: Sequence[ArmFacts], digits: int) -> str:
    """By how much means would look better, read on the examples that chose the step."""
    gains = {arm.name: _gain_of(records, arm) for arm in arms if arm.mean is not None}
    most = max(gains, key=lambda name: gains[name])
    if set(gains.values()) == {0.0}:
        return "Here it changes nothing: in every run all parts have the same best step."
    return (
        f"Here the means of {count(len(gains), 'configuration')} would look better by "
        f"{number(statistics.fmean(gains.values()), digits + 1)} on average, and by up to "
        f"{number(gains[most], digits + 1)} ({code(most)})."
    )


def _gain_of(records: Records, arm: ArmFacts) -> float:
    sign = 1 if records.lower_is_better else -1
    runs = [run for run in records.runs_of(arm.name) if run.finished]
    return statistics.fmean(
        sign * (float(run.value or 0.0) - run.validation[records.metric]) for run in runs
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
