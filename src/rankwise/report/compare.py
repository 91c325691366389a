"""Two configurations of a study compared, as Markdown and as numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import judge
from rankwise.errors import DataError
from rankwise.report.chapters.answers import measures_table, quotes_of, speakers
from rankwise.report.document import (
    Block,
    Bullets,
    Document,
    Paragraph,
    Section,
    clean,
    code,
    strong,
    table,
    to_markdown,
)
from rankwise.report.steps import read_where
from rankwise.report.words import cost_text
from rankwise.results.from_store import records_with
from rankwise.results.judge import scores_of, scores_on_test, words
from rankwise.results.records import ArmFacts, Floats, Records, distinct
from rankwise.spec.tasks import decimals_of, lower_is_better
from rankwise.store.reader import Reader
from rankwise.text import (
    MISSING,
    count,
    decimals_for,
    interval,
    names,
    number,
    setting,
    signed,
)

MOST_PROMPTS = 5


@dataclass(frozen=True)
class MetricDifference:
    """One metric of both arms on one part of the data; difference is first minus second.

    low, high and p hold for all pairs of the study at once, 95 %; None where the noise is unknown.
    better names an arm only where the interval excludes zero.
    """

    metric: str
    part: str
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    better: str | None
    claim: str


def one_training(a: ArmFacts, b: ArmFacts) -> bool:
    """Whether two arms differ only in generation settings and were trained once."""
    return (a.twin_of or a.name) == (b.twin_of or b.name)


def differing(a: ArmFacts, b: ArmFacts) -> tuple[list[str], list[str]]:
    """Names of the settings in which two arms differ, and of those in which they agree."""
    names = list(dict.fromkeys([*a.settings, *b.settings]))
    differ = [n for n in names if a.settings.get(n, MISSING) != b.settings.get(n, MISSING)]
    return differ, [n for n in names if n not in differ]


def _joint_note(differ: Sequence[str]) -> str:
    if not differ:
        return "The two configurations have the same recorded settings: any difference is chance."
    if len(differ) == 1:
        return (
            f"They differ only in {code(differ[0])}, so a significant difference is the effect of "
            "this setting."
        )
    return (
        f"They differ in {count(len(differ), 'setting')} at once "
        f"({names([code(n) for n in differ], 12)}). Every difference below is the joint effect "
        "of all of them; it cannot be attributed to one setting."
    )


def pair_document(
    records: Records, arms: tuple[ArmFacts, ArmFacts], metrics: list[MetricDifference]
) -> Document:
    """The two configurations side by side."""
    a, b = arms
    differ, agree = differing(a, b)
    lead: list[Block] = [
        Paragraph(_headline(records, arms, metrics)),
        Paragraph(_joint_note(differ)),
    ]
    rows = [(code(n), _setting(a, n), _setting(b, n)) for n in differ]
    blocks: list[Block] = []
    if rows:
        blocks.append(table(("setting", code(a.name), code(b.name)), rows))
    same = [f"{code(n)} = {_setting(a, n)}" for n in agree]
    blocks.append(Bullets((f"The same in both: {names(same, 60) if same else 'nothing'}.",)))
    sections = [
        Section("Settings", "settings", tuple(blocks)),
        Section("Metrics", "metrics", _metric_blocks(records, arms, metrics)),
        Section("Costs", "costs", (_cost_table(arms),)),
    ]
    answers = _answers(records, arms)
    if answers:
        sections.append(Section("Answers", "answers", answers))
    return Document(f"{code(a.name)} and {code(b.name)} compared", tuple(lead), tuple(sections))


def _headline(
    records: Records, arms: tuple[ArmFacts, ArmFacts], metrics: list[MetricDifference]
) -> str:
    if one_training(*arms):
        return (
            f"{strong('One training:')} {code(arms[0].name)} and {code(arms[1].name)} differ only "
            "in generation settings, so their losses come from the same runs. Only their answers "
            "can differ."
        )
    found = next((m for m in metrics if m.metric == records.metric), None)
    if found is None:
        without = [code(arm.name) for arm in arms if not arm.seeds_done]
        return f"{strong('No comparison possible:')} no finished run of {names(without)}."
    digits = _digits(found)
    bounds = interval(found.low, found.high, digits)
    what = (
        f"{words(records.metric)} {number(found.first, digits)} against "
        f"{number(found.second, digits)}, difference {signed(found.difference, digits)}"
    )
    if found.low is None:
        return f"{strong('Cannot tell:')} {what}; the noise is unknown."
    if found.better is None:
        return f"{strong('No significant difference:')} {what} (95 % interval {bounds})."
    better = f"{code(found.better)} is better"
    return f"{strong('Significant difference:')} {better}, {what} (95 % interval {bounds})."


def _digits(found: MetricDifference) -> int:
    if found.low is None or found.high is None:
        return decimals_of(found.metric)
    return min(6, decimals_for((found.high - found.low) / 2))


def _setting(arm: ArmFacts, name: str) -> str:
    return code(setting(arm.settings[name])) if name in arm.settings else MISSING


def _metric_blocks(
    records: Records, arms: tuple[ArmFacts, ArmFacts], metrics: list[MetricDifference]
) -> tuple[Block, ...]:
    if one_training(*arms):
        return (Paragraph("Both configurations have the same runs and the same scores."),)
    if not metrics:
        return (Paragraph("They have no metric in common."),)
    rows = []
    for one in metrics:
        digits = _digits(one)
        rows.append(
            (
                words(one.metric) if one.part == "validation" else f"test {_bare(one.metric)}",
                number(one.first, digits),
                number(one.second, digits),
                signed(one.difference, digits),
                interval(one.low, one.high, digits),
                "cannot tell" if one.low is None else _better(one),
                one.claim,
            )
        )
    head = (
        "metric",
        code(arms[0].name),
        code(arms[1].name),
        "difference",
        "95 % interval",
        "better",
        "holds for",
    )
    caption = (
        f"Means over seeds. Validation: {read_where(records)}. Test: each run at its best step. "
        "Difference is the first minus the second. The noise is estimated from the whole study. "
        "The intervals hold for all pairs of configurations of the study at once, as these two may "
        "have been picked for their results; they are not adjusted for the number of metrics."
    )
    return (table(head, rows, numeric=(1, 2, 3, 4), caption=caption),)


def _bare(metric: str) -> str:
    return words(metric).removeprefix("validation ")


def _better(one: MetricDifference) -> str:
    return "not significant" if one.better is None else code(one.better)


def _cost_table(arms: tuple[ArmFacts, ArmFacts]) -> Block:
    known_costs = list(dict.fromkeys(name for arm in arms for name in arm.costs))
    rows = []
    for name in known_costs:
        costs = [arm.costs.get(name) for arm in arms]
        known = next(cost for cost in costs if cost is not None)
        cells = [MISSING if c is None else cost_text(c) for c in costs]
        rows.append((words(name), *cells, clean(known.path)))
    return table(("cost", *(code(arm.name) for arm in arms), "source"), rows, numeric=(1, 2))


def _answers(records: Records, arms: tuple[ArmFacts, ArmFacts]) -> tuple[Block, ...]:
    both = [arm.name for arm in arms]
    own = [answer for answer in records.answers if answer.arm in ("base", *both)]
    if not any(answer.arm != "base" for answer in own):
        return ()
    shown = speakers(own, [arm for arm in arms if any(one.arm == arm.name for one in own)])
    prompts = list(dict.fromkeys(answer.prompt for answer in own))[:MOST_PROMPTS]
    return (measures_table(shown), *(quotes_of(shown, prompt) for prompt in prompts))


def compare_arms(folder: Path, first: str, second: str) -> tuple[str, dict[str, Any]]:
    """Two configurations side by side, as Markdown and as a JSON-ready dict.

    The noise is estimated from the whole study, not from these two configurations alone.

    Raises:
        StoreError: no study in the folder.
        DataError: a configuration that the study does not have, or the same one twice.
    """
    with Reader(folder) as store:
        records = records_with(store, [first, second])
    known = [arm.name for arm in records.arms]
    for name in (first, second):
        if name not in known:
            raise DataError(
                f"{folder}: no configuration {name!r}; the configurations are {names(known, 40)}"
            )
    if first == second:
        raise DataError(
            f"{first}: given twice; name two different configurations of {names(known, 40)}"
        )
    arms = records.arm(first), records.arm(second)
    metrics = _metrics(distinct(records), *arms)
    return to_markdown(pair_document(records, arms, metrics)), _facts(records, arms, metrics)


def _metrics(records: Records, a: ArmFacts, b: ArmFacts) -> list[MetricDifference]:
    """Validation first, beginning with the objective metric; then the test part.

    Empty for arms that share a training, whose scores are equal. `records` has each training once.
    """
    if one_training(a, b):
        return []
    names = list(dict.fromkeys([records.metric, *a.validation]))
    found = [
        _difference(records, "validation", name, a, b)
        for name in names
        if name in a.validation and name in b.validation
    ]
    found += [_difference(records, "test", name, a, b) for name in a.test if name in b.test]
    return found


def _difference(
    records: Records, part: str, metric: str, a: ArmFacts, b: ArmFacts
) -> MetricDifference:
    first, second = a.twin_of or a.name, b.twin_of or b.name
    verdict = judge(_scores(records, part, metric))
    found = verdict.difference(first, second)
    means = {arm.arm: float(arm.mean or 0.0) for arm in verdict.arms if arm.mean is not None}
    return MetricDifference(
        metric=metric,
        part=part,
        first=means[first],
        second=means[second],
        difference=found.value,
        low=found.low,
        high=found.high,
        p=found.p,
        better={None: None, first: a.name, second: b.name}[found.better],
        claim=verdict.claim,
    )


def _scores(records: Records, part: str, metric: str) -> Scores:
    if part == "validation" and metric == records.metric:
        return scores_of(records)
    if part == "test" and metric in records.test_ASE:
        return scores_on_test(records, metric)
    deep = records.extra_ASE.get(metric) if part == "validation" else None
    return Scores(
        metric=metric,
        arms=tuple(arm.name for arm in records.arms),
        seeds=records.seeds,
        x_ASE=deep,
        x_AS=None if deep is not None else _by_run(records, part, metric),
        groups_E=None if deep is None or records.groups_E is None else records.groups_E.tolist(),
        lower_is_better=lower_is_better(metric),
    )


def _by_run(records: Records, part: str, metric: str) -> Floats:
    x_AS = np.full((len(records.arms), len(records.seeds)), np.nan)
    names = [arm.name for arm in records.arms]
    for run in records.runs:
        values = run.test if part == "test" else run.ranked
        if run.finished and metric in values:
            x_AS[names.index(run.arm), records.seeds.index(run.seed)] = values[metric]
    return x_AS


def _facts(
    records: Records, arms: tuple[ArmFacts, ArmFacts], metrics: list[MetricDifference]
) -> dict[str, Any]:
    a, b = arms
    differ, agree = differing(a, b)
    own = [answer for answer in records.answers if answer.arm in (a.name, b.name)]
    return {
        "arms": [a.name, b.name],
        "differ": {n: [a.settings.get(n), b.settings.get(n)] for n in differ},
        "agree": {n: a.settings.get(n) for n in agree},
        "one_setting_differs": len(differ) == 1,
        "metrics": [asdict(one) for one in metrics],
        "costs": {arm.name: {n: asdict(c) for n, c in arm.costs.items()} for arm in arms},
        "answers": [asdict(answer) for answer in own],
    }
