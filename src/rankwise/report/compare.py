"""Two configurations of a study compared, as Markdown and as numbers."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import judge
from rankwise.errors import DataError
from rankwise.report.chapters.pair import MetricDifference, differing, one_training, pair_document
from rankwise.report.markdown import to_markdown
from rankwise.results.from_store import read_records
from rankwise.results.judge import scores_of, scores_on_test
from rankwise.results.records import ArmFacts, Floats, Records, distinct
from rankwise.spec.metrics import lower_is_better
from rankwise.store.reader import Reader
from rankwise.text import names


def compare_arms(folder: Path, first: str, second: str) -> tuple[str, dict[str, Any]]:
    """Two configurations side by side, as Markdown and as a JSON-ready dict.

    The noise is estimated from the whole study, not from these two configurations alone.

    Raises:
        StoreError: no study in the folder.
        DataError: a configuration that the study does not have, or the same one twice.
    """
    with Reader(folder) as store:
        records = read_records(store)
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
        values = run.test if part == "test" else run.validation
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
