"""What a study's records say before any judgement: runs, arms, costs, curves, and score arrays.

`outside.py` builds the same `Records` from a table.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rankwise.analysis.failures import StepRecord
from rankwise.results.records import (
    Answer,
    ArmFacts,
    Cost,
    Records,
    RunFacts,
    generation_of,
    is_failure,
    lower_is_better,
    means,
    spreads,
    varying_settings,
)
from rankwise.results.scores import by_example, by_run, weights_of
from rankwise.store.writer import FINISHED, ArmRecord, Evaluation, RunRecord, Store

__all__ = ["Records", "RunFacts", "read_records"]

TRAIN_POINTS = 60
TAIL_STEPS = 40


def read_records(store: Store) -> Records:
    """Everything of a study, read once.

    Raises:
        StoreError: no study was begun in the folder.
    """
    study = store.study()
    objective = study.spec.get("objective", {})
    metric = str(objective.get("metric", "eval_loss"))
    arm_records, run_records = store.arms(), store.runs()
    names = {arm.id: arm.name for arm in arm_records}
    best: dict[str, Evaluation] = {}
    on_test: dict[str, Evaluation] = {}
    runs = tuple(
        _run_facts(store, run, names[run.arm_id], metric, best, on_test) for run in run_records
    )
    probes, twins = store.probes(), _twins(arm_records, runs)
    arms = tuple(
        replace(
            _arm_facts(arm, [r for r in runs if r.arm == arm.name], probes.get(arm.id, {}), metric),
            twin_of=twins.get(arm.name),
        )
        for arm in arm_records
    )
    seeds = tuple(sorted({run.seed for run in runs})) or tuple(study.spec.get("seeds", (0,)))
    examples = store.examples("validation")
    scores = by_example(arms, seeds, runs, best, examples)
    deciding = scores.get(metric)
    test_examples = store.examples("test")
    return Records(
        title=str(study.spec.get("study", store.folder.name)),
        origin="study",
        metric=metric,
        lower_is_better=lower_is_better(metric),
        cost=str(objective.get("cost", "trainable_params")),
        study={
            "spec_yaml": study.spec_yaml,
            "spec": study.spec,
            "versions": study.versions,
            "device": study.device,
            "model": study.model,
            "data": study.data,
        },
        varying=varying_settings([arm.settings for arm in arms]),
        seeds=seeds,
        arms=arms,
        runs=runs,
        answers=_answers(store, {run.id: run for run in runs}, arm_records),
        notes=store.notes(),
        x_AS=by_run(arms, seeds, runs),
        x_ASE=deciding,
        groups_E=None if examples is None or deciding is None else examples.groups,
        weights_E=weights_of(examples.weights if examples else None, metric, deciding),
        test_size=None,
        extra_ASE={name: x for name, x in scores.items() if name != metric},
        test_ASE=by_example(arms, seeds, runs, on_test, test_examples),
        test_groups_E=None if test_examples is None else test_examples.groups,
        test_weights_E=None if test_examples is None else test_examples.weights,
    )


def _twins(arms: Sequence[ArmRecord], runs: Sequence[RunFacts]) -> dict[str, str]:
    """Arm to the arm that stands for its training: of equals the first with most finished runs."""
    finished = {arm.name: sum(r.arm == arm.name and r.finished for r in runs) for arm in arms}
    found = {}
    for arm in arms:
        same = [other.name for other in arms if other.training_id == arm.training_id]
        first = max(same, key=lambda name: finished[name])
        if arm.name != first:
            found[arm.name] = first
    return found


def _run_facts(
    store: Store,
    run: RunRecord,
    arm: str,
    metric: str,
    best: dict[str, Evaluation],
    on_test: dict[str, Evaluation],
) -> RunFacts:
    evaluations = store.evaluation_metrics(run.id)
    step = store.best_step(run.id, metric)
    at_best: dict[str, float] = {}
    if step is not None:
        best[run.id] = store.evaluation_at(run.id, step)
        at_best = _finite(best[run.id].metrics)
    logged = store.metrics(run.id, ("loss",))
    test = store.evaluations(run.id, "test")[-1:]
    on_test.update((run.id, one) for one in test)
    return RunFacts(
        id=run.id,
        arm=arm,
        seed=run.seed,
        state=run.state,
        cause=run.cause,
        evidence=run.evidence,
        value=at_best.get(metric),
        best_step=step,
        last_step=_last_step(logged, evaluations),
        validation=at_best,
        test=_finite(test[0].metrics) if test else {},
        curve=tuple((int(e["step"]), e[metric]) for e in evaluations if metric in e),
        train_curve=thinned([(int(row["step"]), row["loss"]) for row in logged]),
        tail=() if run.state in ("planned", "running", *FINISHED) else _tail(store, run),
    )


def _tail(store: Store, run: RunRecord) -> tuple[StepRecord, ...]:
    """The last logged steps, and the bad one, which a diverged run stops before logging."""
    names = ("loss", "grad_norm", "learning_rate")
    rows = store.metrics(run.id, names)[-TAIL_STEPS:]
    last = int(rows[-1]["step"]) if rows else 0
    if run.state == "diverged" and int(run.evidence.get("step", 0)) > last:
        rows.append({**run.evidence, "step": run.evidence["step"]})
    nan = math.nan
    return tuple(
        StepRecord(int(row["step"]), *(float(row.get(name, nan)) for name in names)) for row in rows
    )


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _last_step(*rows: Sequence[Mapping[str, float]]) -> int | None:
    steps = [int(row["step"]) for some in rows for row in some[-1:]]
    return max(steps) if steps else None


def thinned(
    points: Sequence[tuple[int, float]], most: int = TRAIN_POINTS
) -> tuple[tuple[int, float], ...]:
    """At most `most` points: each the last step and the mean value of its stretch of steps."""
    if len(points) <= most:
        return tuple(points)
    edges = np.linspace(0, len(points), most + 1).round().astype(int)
    return tuple(
        (points[stop - 1][0], statistics.fmean(value for _, value in points[start:stop]))
        for start, stop in itertools.pairwise(edges)
    )


def _arm_facts(
    arm: ArmRecord, runs: Sequence[RunFacts], probe: Mapping[str, Any], metric: str
) -> ArmFacts:
    done = [run for run in runs if run.finished]
    values = [run.value for run in done if run.value is not None]
    best = min if lower_is_better(metric) else max
    return ArmFacts(
        id=arm.id,
        name=arm.name,
        method=str(arm.settings.get("method", "lora")),
        settings=arm.settings,
        costs=_costs(arm, runs, probe),
        seeds_done=tuple(run.seed for run in done),
        failed=tuple(run.id for run in runs if is_failure(run)),
        open=tuple(run.id for run in runs if run.state in ("planned", "running")),
        mean=statistics.fmean(values) if values else None,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        best=best(values) if values else None,
        validation=means([run.validation for run in done]),
        test=means([run.test for run in done]),
        test_spread=spreads([run.test for run in done]),
        ranks=arm.ranks or _ranks(arm.settings),
        adapter=arm.adapter,
    )


def _costs(arm: ArmRecord, runs: Sequence[RunFacts], probe: Mapping[str, Any]) -> dict[str, Cost]:
    costs: dict[str, Cost] = {}
    for name in ("trainable_params", "total_params"):
        if name in arm.costs:
            costs[name] = Cost(arm.costs[name], "parameters", "counted from the configuration")
    if "storage_bytes" in arm.costs:
        storage = arm.costs["storage_bytes"]
        costs["storage"] = Cost(storage, "bytes", "counted from the configuration")
    if "memory_bytes" in probe:
        path = f"each arm alone, {probe.get('path', 'measured')}"
        costs["memory"] = Cost(float(probe["memory_bytes"]), "bytes", path)
    elif "memory_bytes" in arm.costs:
        costs["memory"] = Cost(arm.costs["memory_bytes"], "bytes", "predicted, not measured")
    if "step_seconds" in probe:
        costs |= _times(probe, [run for run in runs if run.finished])
    return costs


def _times(probe: Mapping[str, Any], done: Sequence[RunFacts]) -> dict[str, Cost]:
    """Seconds of a step, and of a whole run where one has finished."""
    seconds = float(probe["step_seconds"])
    costs = {"step_time": Cost(seconds, "seconds", "each arm alone, timed in a short trial")}
    if done:
        steps = max(run.last_step or 0 for run in done)
        evaluations = max(len(run.curve) for run in done)
        total = seconds * steps + float(probe.get("eval_seconds", 0)) * evaluations
        path = "each arm alone, time of a step and of an evaluation in a short trial times their "
        costs["time"] = Cost(total, "seconds", f"{path}number")
    return costs


def _ranks(settings: Mapping[str, Any]) -> dict[str, int]:
    """Ranks written in the settings, for arms whose modules were not recorded."""
    pattern = settings.get("lora.rank_pattern") or {}
    return {str(module): int(rank) for module, rank in pattern.items()}


def _answers(
    store: Store, runs: Mapping[str, RunFacts], arms: Sequence[ArmRecord]
) -> tuple[Answer, ...]:
    kind = {arm.id: generation_of(arm.settings) for arm in arms}
    found = []
    for record in store.answers():
        asked = kind.get(record.arm_id)
        alike = tuple(arm.name for arm in arms if kind[arm.id] == asked)
        run = runs.get(record.run_id)
        for one in record.answers:
            measures = {k: float(v) for k, v in one.items() if isinstance(v, int | float)}
            nested = one.get("measures", {})
            measures.update({k: float(v) for k, v in nested.items()} if nested else {})
            found.append(
                Answer(
                    arm="base" if run is None else run.arm,
                    seed=None if run is None else run.seed,
                    prompt=str(one.get("prompt", "")),
                    reference=None if one.get("reference") is None else str(one["reference"]),
                    answer=str(one.get("answer", "")),
                    measures=measures,
                    asked_as=alike if run is None else (),
                )
            )
    return tuple(found)
