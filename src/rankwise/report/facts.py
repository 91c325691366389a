"""What a study's records say before any judgement: runs, arms, costs, curves, and score arrays.

Everything later in the report is computed from `Records`, whether rankwise made the results or
not (`outside.py` builds the same from a table). Array suffixes: A arms, S seeds, E examples.
"""

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.analysis.forensics import StepRecord
from rankwise.store import FINISHED, ArmRecord, Evaluation, ExamplesRecord, RunRecord, Store

Floats = NDArray[np.float64]
TRAIN_POINTS = 60
TAIL_STEPS = 40
COSTS = ("trainable_params", "memory", "time")


@dataclass(frozen=True)
class RunFacts:
    """One run. `value` is the deciding metric at the best step; None where nothing was evaluated.

    curve        (step, deciding metric) of every validation
    train_curve  (step, mean training loss of the steps up to it), at most TRAIN_POINTS
    tail         the last steps of a run that ended without a result
    validation   all validation metrics at the best step; test: those of the test read
    """

    id: str
    arm: str
    seed: int
    state: str
    cause: str | None
    evidence: dict[str, Any]
    value: float | None
    best_step: int | None
    last_step: int | None
    validation: dict[str, float]
    test: dict[str, float]
    curve: tuple[tuple[int, float], ...]
    train_curve: tuple[tuple[int, float], ...]
    tail: tuple[StepRecord, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the run may be ranked."""
        return self.state in FINISHED and self.value is not None and math.isfinite(self.value)


@dataclass(frozen=True)
class Cost:
    """A price with its origin: value in `unit`, and how it was come by ("solo probe", ...)."""

    value: float
    unit: str
    path: str


@dataclass(frozen=True)
class ArmFacts:
    """One arm: settings, costs by name, plain mean and spread over its finished seeds.

    spread is the sample standard deviation over seeds, None with fewer than two.
    """

    id: str
    name: str
    method: str
    settings: dict[str, Any]
    costs: dict[str, Cost]
    seeds_done: tuple[int, ...]
    failed: tuple[str, ...]
    open: tuple[str, ...]
    mean: float | None
    spread: float | None
    best: float | None
    validation: dict[str, float]
    test: dict[str, float]
    test_spread: dict[str, float]
    ranks: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """A generated answer and its measures, of a run or of the untrained base."""

    arm: str
    seed: int | None
    prompt: str
    reference: str | None
    answer: str
    measures: dict[str, float]


@dataclass(frozen=True, eq=False)
class Records:
    """All of a study (or of a table of outside results) in one reading.

    x_ASE      deciding metric by example at each run's best step, NaN where a run is not finished;
               None where the metric is not a mean over examples or no record goes that deep
    x_AS       deciding metric by run
    extra_ASE, test_ASE  other metrics by example at the best step, all of them on the test part
    test_size  items behind each x_AS where no record by example exists, else None
    groups_E, weights_E  of the validation examples, with x_ASE
    """

    title: str
    origin: str
    metric: str
    lower_is_better: bool
    cost: str
    study: dict[str, Any]
    varying: tuple[str, ...]
    seeds: tuple[int, ...]
    arms: tuple[ArmFacts, ...]
    runs: tuple[RunFacts, ...]
    answers: tuple[Answer, ...]
    notes: tuple[tuple[str, str], ...]
    x_AS: Floats
    x_ASE: Floats | None
    groups_E: NDArray[Any] | None
    weights_E: Floats | None
    test_size: int | None
    extra_ASE: dict[str, Floats]
    test_ASE: dict[str, Floats] = field(default_factory=dict)
    test_groups_E: NDArray[Any] | None = None
    test_weights_E: Floats | None = None

    def arm(self, name: str) -> ArmFacts:
        """The arm of this name (StopIteration where there is none)."""
        return next(arm for arm in self.arms if arm.name == name)

    def runs_of(self, name: str) -> tuple[RunFacts, ...]:
        """The runs of an arm, by seed."""
        return tuple(run for run in self.runs if run.arm == name)


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
    probes = store.probes()
    arms = tuple(
        _arm_facts(arm, [r for r in runs if r.arm == arm.name], probes.get(arm.id, {}), metric)
        for arm in arm_records
    )
    seeds = tuple(sorted({run.seed for run in runs})) or tuple(study.spec.get("seeds", (0,)))
    examples = store.examples("validation")
    by_example = _by_example(arms, seeds, runs, best, examples)
    deciding = by_example.get(metric)
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
        answers=_answers(store, {run.id: run for run in runs}),
        notes=store.notes(),
        x_AS=_by_run(arms, seeds, runs),
        x_ASE=deciding,
        groups_E=None if examples is None or deciding is None else examples.groups,
        weights_E=_weights(examples.weights if examples else None, metric, deciding),
        test_size=None,
        extra_ASE={name: x for name, x in by_example.items() if name != metric},
        test_ASE=_by_example(arms, seeds, runs, on_test, test_examples),
        test_groups_E=None if test_examples is None else test_examples.groups,
        test_weights_E=None if test_examples is None else test_examples.weights,
    )


def lower_is_better(metric: str) -> bool:
    """Losses and perplexities are best low, everything else best high."""
    return metric.endswith(("loss", "perplexity"))


def varying_settings(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the settings in which arms differ, in the order in which they first appear."""
    names = dict.fromkeys(name for one in settings for name in one)

    def spellings(name: str) -> set[str]:
        return {json.dumps(one.get(name, "absent"), sort_keys=True) for one in settings}

    return tuple(name for name in names if len(spellings(name)) > 1)


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
    )


def is_failure(run: RunFacts) -> bool:
    """Whether a run ended without a result that may be ranked (pruned and interrupted included)."""
    return run.state not in ("planned", "running") and not run.finished


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of the metrics that every row has."""
    names = [name for name in (rows[0] if rows else {}) if all(name in row for row in rows)]
    return {name: statistics.fmean(row[name] for row in rows) for name in names}


def spreads(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sample standard deviations over rows of the metrics that every row has; none for one row."""
    if len(rows) < 2:
        return {}
    return {name: statistics.stdev(row[name] for row in rows) for name in means(rows)}


def _costs(arm: ArmRecord, runs: Sequence[RunFacts], probe: Mapping[str, Any]) -> dict[str, Cost]:
    path = str(probe.get("path", "solo probe"))
    costs: dict[str, Cost] = {}
    for name in ("trainable_params", "total_params"):
        if name in arm.costs:
            costs[name] = Cost(arm.costs[name], "parameters", "counted from the configuration")
    if "storage_bytes" in arm.costs:
        costs["storage"] = Cost(arm.costs["storage_bytes"], "bytes", "counted")
    if "memory_bytes" in probe:
        costs["memory"] = Cost(float(probe["memory_bytes"]), "bytes", f"measured, {path}")
    elif "memory_bytes" in arm.costs:
        costs["memory"] = Cost(arm.costs["memory_bytes"], "bytes", "predicted, not measured")
    if "step_seconds" in probe:
        steps = max((run.last_step or 0 for run in runs if run.finished), default=0)
        seconds = float(probe["step_seconds"])
        costs["step_time"] = Cost(seconds, "seconds", f"measured, {path}")
        if steps:
            evaluations = max(len(run.curve) for run in runs if run.finished)
            total = seconds * steps + float(probe.get("eval_seconds", 0)) * evaluations
            costs["time"] = Cost(
                total, "seconds", f"time of a step and an evaluation ({path}) times their number"
            )
    return costs


def _ranks(settings: Mapping[str, Any]) -> dict[str, int]:
    """Ranks written in the settings, for arms whose modules were not recorded."""
    pattern = settings.get("lora.rank_pattern") or {}
    return {str(module): int(rank) for module, rank in pattern.items()}


def _place(
    arms: Sequence[ArmFacts], seeds: Sequence[int], runs: Sequence[RunFacts]
) -> dict[str, tuple[int, int]]:
    row = {arm.name: a for a, arm in enumerate(arms)}
    column = {seed: s for s, seed in enumerate(seeds)}
    return {run.id: (row[run.arm], column[run.seed]) for run in runs}


def _by_run(arms: Sequence[ArmFacts], seeds: Sequence[int], runs: Sequence[RunFacts]) -> Floats:
    x_AS = np.full((len(arms), len(seeds)), np.nan)
    place = _place(arms, seeds, runs)
    for run in runs:
        if run.finished:
            x_AS[place[run.id]] = run.value
    return x_AS


def _by_example(
    arms: Sequence[ArmFacts],
    seeds: Sequence[int],
    runs: Sequence[RunFacts],
    best: Mapping[str, Evaluation],
    examples: ExamplesRecord | None,
) -> dict[str, Floats]:
    """Losses, and correctness where every finished run has it, as (A, S, E) arrays."""
    done = [run for run in runs if run.finished and run.id in best]
    if not done or examples is None:
        return {}
    shape = (len(arms), len(seeds), len(examples.weights))
    place = _place(arms, seeds, runs)
    found = {"eval_loss": np.full(shape, np.nan)}
    if all(best[run.id].correct is not None for run in done):
        found["eval_accuracy"] = np.full(shape, np.nan)
    for run in done:
        found["eval_loss"][place[run.id]] = best[run.id].losses
        if "eval_accuracy" in found:
            found["eval_accuracy"][place[run.id]] = best[run.id].correct
    return found


def _weights(weights: NDArray[Any] | None, metric: str, x_ASE: Floats | None) -> Floats | None:
    if weights is None or x_ASE is None or metric != "eval_loss":
        return None
    return np.asarray(weights, dtype=np.float64)


def _answers(store: Store, runs: Mapping[str, RunFacts]) -> tuple[Answer, ...]:
    found = []
    for record in store.answers():
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
                )
            )
    return tuple(found)


def facts_json(folder: Path) -> dict[str, Any]:
    """Every fact of a folder's report, JSON-ready; the schema is `machine.facts_schema()`.

    Raises:
        StoreError: no study and no kept facts in the folder.
    """
    from rankwise.report.machine import read_facts

    return read_facts(folder)
