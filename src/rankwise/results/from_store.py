"""What a study's records say before any judgement: runs, arms, costs, curves, and score arrays.

The store has one run for each training and seed; here every configuration has its own view of the
runs of its training. `from_table.py` builds the same `Records` from a table.
"""

import itertools
import math
import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from rankwise.analysis.curves import StepRecord
from rankwise.results.records import (
    Answer,
    ArmFacts,
    Cost,
    Records,
    RunFacts,
    by_example,
    by_run,
    generation_of,
    is_failure,
    means,
    spreads,
    varying_settings,
    weights_of,
)
from rankwise.spec.tasks import lower_is_better
from rankwise.store.reader import Reader
from rankwise.store.schema import (
    FINISHED,
    AnswersRecord,
    ConfigRecord,
    CostRecord,
    Evaluation,
    Fact,
    Reload,
    RunRecord,
    Step,
    StudyRecord,
    TrainingRecord,
)

__all__ = ["Records", "RunFacts", "read_records"]

TRAIN_POINTS = 60
TAIL_STEPS = 40


def read_records(store: Reader, every: bool = False) -> Records:
    """Everything of a study, read once: of the spec with which it was last run.

    Args:
        store: Its records.
        every: Of all configurations and seeds that the folder has results of.

    Raises:
        StoreError: no study was begun in the folder.
    """
    study = store.study()
    objective = study.spec.get("objective", {})
    metric = str(objective.get("metric", "eval_loss"))
    configs = [config for config in store.configs() if every or config.current]
    asked = set(study.spec.get("seeds", ())) or {run.seed for run in store.runs()}
    best: dict[int, Evaluation] = {}
    on_test: dict[int, Evaluation] = {}
    runs = _runs(store, configs, None if every else asked, metric, best, on_test)
    arms = _arms(store, configs, runs, metric)
    seeds = tuple(sorted({run.seed for run in runs})) or tuple(study.spec.get("seeds", (0,)))
    examples = store.examples("validation")
    scores = by_example(arms, seeds, runs, best, examples)
    deciding = scores.get(metric)
    test_examples = store.examples("test")
    known = store.reloads()
    reloads = {run.id: known[run.run] for run in runs if run.run in known}
    return Records(
        title=str(study.spec.get("study", store.folder.name)),
        origin="study",
        metric=metric,
        lower_is_better=lower_is_better(metric),
        cost=str(objective.get("cost", "trainable_params")),
        tolerance=objective.get("tolerance"),
        study=_study(study, store.base_metrics()),
        varying=varying_settings([arm.settings for arm in arms]),
        seeds=seeds,
        arms=arms,
        runs=runs,
        answers=_answers(store, runs, configs),
        notes=(
            *store.facts(),
            *_not_in_spec(store, configs, asked),
            *_merged(store, runs, arms),
            *_reloads(reloads),
        ),
        x_AS=by_run(arms, seeds, runs),
        x_ASE=deciding,
        groups_E=None if examples is None or deciding is None else examples.groups,
        weights_E=weights_of(examples.weights if examples else None, metric, deciding),
        test_size=None,
        extra_ASE={name: x for name, x in scores.items() if name != metric},
        test_ASE=by_example(arms, seeds, runs, on_test, test_examples),
        test_groups_E=None if test_examples is None else test_examples.groups,
        test_weights_E=None if test_examples is None else test_examples.weights,
        reloads=reloads,
    )


def _runs(
    store: Reader,
    configs: Sequence[ConfigRecord],
    seeds: Container[int] | None,
    metric: str,
    best: dict[int, Evaluation],
    on_test: dict[int, Evaluation],
) -> tuple[RunFacts, ...]:
    """The runs of these configurations with these seeds (None: all of them), in order.

    Their best evaluations and those on the test part are put into `best` and `on_test`.
    """
    of_training: dict[int, list[RunFacts]] = {}
    for run in store.runs():
        if seeds is None or run.seed in seeds:
            facts = _run_facts(store, run, metric, best, on_test)
            of_training.setdefault(run.training_id, []).append(facts)
    return tuple(
        replace(run, id=f"{config.name}/seed-{run.seed}", arm=config.name)
        for config in configs
        for run in of_training.get(config.training_id, ())
    )


def records_with(store: Reader, arms: Iterable[str]) -> Records:
    """As `read_records`; of the whole folder where the spec of today lacks one of these arms."""
    records = read_records(store)
    known = {arm.name for arm in records.arms}
    stored = {config.name for config in store.configs()}
    return read_records(store, every=True) if (set(arms) - known) & stored else records


def _study(study: StudyRecord, base_metrics: Mapping[str, float]) -> dict[str, Any]:
    return {
        "spec_yaml": study.spec_yaml,
        "spec": study.spec,
        "versions": study.versions,
        "device": {"device": study.device, "threads": study.threads},
        "model": asdict(study.base),
        "base_metrics": dict(base_metrics),
        "data": {"fingerprint": study.data_fingerprint, "label_names": study.label_names},
    }


def _arms(
    store: Reader, configs: Sequence[ConfigRecord], runs: Sequence[RunFacts], metric: str
) -> tuple[ArmFacts, ...]:
    trainings = {training.id: training for training in store.trainings()}
    costs = store.costs()
    first: dict[int, str] = {}
    for config in configs:
        first.setdefault(config.training_id, config.name)
    return tuple(
        replace(
            _arm_facts(
                config,
                trainings[config.training_id],
                [run for run in runs if run.arm == config.name],
                costs.get(config.training_id),
                metric,
            ),
            ranks=_ranks(store, config),
            twin_of=None if first[config.training_id] == config.name else first[config.training_id],
        )
        for config in configs
    )


def _run_facts(
    store: Reader,
    run: RunRecord,
    metric: str,
    best: dict[int, Evaluation],
    on_test: dict[int, Evaluation],
) -> RunFacts:
    """A run's facts, as yet without the configuration whose view it is."""
    evaluations = store.evaluation_metrics(run.id)
    at_best: dict[str, float] = {}
    if run.best_step is not None:
        best[run.id] = store.evaluation_at(run.id, run.best_step)
        at_best = _finite(best[run.id].metrics)
    steps = store.steps(run.id)
    test = store.evaluations(run.id, "test")[-1:]
    on_test.update((run.id, one) for one in test)
    last = [int(e["step"]) for e in evaluations[-1:]] + [step.step for step in steps[-1:]]
    failure = run.failure
    return RunFacts(
        id="",
        arm="",
        seed=run.seed,
        state=run.state,
        cause=failure.error,
        not_finite=failure.not_finite,
        bad_step=failure.step,
        bad_learning_rate=failure.learning_rate,
        traceback=failure.traceback,
        run=run.id,
        folder=run.folder,
        value=at_best.get(metric),
        best_step=run.best_step,
        last_step=max(last, default=None),
        validation=at_best,
        test=_finite(test[0].metrics) if test else {},
        last=dict(evaluations[-1]) if evaluations else {},
        curve=tuple((int(e["step"]), e[metric]) for e in evaluations if metric in e),
        train_curve=thinned([(step.step, step.loss) for step in steps]),
        tail=() if run.state in ("planned", "running", *FINISHED) else _tail(steps, run),
    )


def _tail(steps: Sequence[Step], run: RunRecord) -> tuple[StepRecord, ...]:
    """The last logged steps, and the bad one, which a diverged run stops before logging."""
    rows = [StepRecord(s.step, s.loss, s.grad_norm, s.learning_rate) for s in steps[-TAIL_STEPS:]]
    last, failure = rows[-1].step if rows else 0, run.failure
    if run.state == "diverged" and failure.step is not None and failure.step > last:
        nan, rate = math.nan, failure.learning_rate
        rows.append(StepRecord(failure.step, nan, nan, nan if rate is None else rate))
    return tuple(rows)


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


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
    config: ConfigRecord,
    training: TrainingRecord,
    runs: Sequence[RunFacts],
    cost: CostRecord | None,
    metric: str,
) -> ArmFacts:
    done = [run for run in runs if run.finished]
    values = [run.value for run in done if run.value is not None]
    best = min if lower_is_better(metric) else max
    return ArmFacts(
        id=config.key,
        name=config.name,
        method=str(config.settings.get("method", "lora")),
        settings=config.settings,
        costs=_costs(training, runs, cost),
        seeds_done=tuple(run.seed for run in done),
        failed=tuple(run.id for run in runs if is_failure(run)),
        open=tuple(run.id for run in runs if run.state in ("planned", "running")),
        mean=statistics.fmean(values) if values else None,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        best=best(values) if values else None,
        validation=means([run.validation for run in done]),
        test=means([run.test for run in done]),
        test_spread=spreads([run.test for run in done]),
        adapter=training.adapter,
    )


def _costs(
    training: TrainingRecord, runs: Sequence[RunFacts], cost: CostRecord | None
) -> dict[str, Cost]:
    costs: dict[str, Cost] = {}
    for name, value, unit in (
        ("trainable_params", training.trainable_params, "parameters"),
        ("total_params", training.total_params, "parameters"),
        ("storage", training.storage_bytes, "bytes"),
    ):
        if value is not None:
            costs[name] = Cost(value, unit, "counted from the configuration")
    if cost is not None and cost.memory_bytes is not None:
        costs["memory"] = Cost(cost.memory_bytes, "bytes", f"each configuration alone, {cost.path}")
    elif training.memory_bytes is not None:
        costs["memory"] = Cost(training.memory_bytes, "bytes", "predicted, not measured")
    if cost is not None and cost.step_seconds is not None:
        done = [run for run in runs if run.finished]
        costs |= _times(cost.step_seconds, cost.eval_seconds or 0.0, done)
    return costs


def _times(step: float, evaluation: float, done: Sequence[RunFacts]) -> dict[str, Cost]:
    """Seconds of a step, and of a whole run where one has finished."""
    costs = {"step_time": Cost(step, "seconds", "each configuration alone, timed in a short trial")}
    if done:
        steps = max(run.last_step or 0 for run in done)
        evaluations = max(len(run.curve) for run in done)
        path = "each configuration alone, seconds of a step and of an evaluation times their "
        costs["time"] = Cost(step * steps + evaluation * evaluations, "seconds", f"{path}number")
    return costs


def _ranks(store: Reader, config: ConfigRecord) -> dict[str, int]:
    """Rank by module, where they are not all `lora.r`; else as written in the settings."""
    ranks = {module: one.rank for module, one in store.ranks(config.training_id).items()}
    if set(ranks.values()) - {config.settings.get("lora.r")}:
        return ranks
    pattern = config.settings.get("lora.rank_pattern") or {}
    return {str(module): int(rank) for module, rank in pattern.items()}


def _merged(store: Reader, runs: Sequence[RunFacts], arms: Sequence[ArmFacts]) -> list[Fact]:
    """What merging into the unquantised base does to a loss, as facts for the report."""
    merged = store.merged()
    held = {arm.name: arm.settings.get("model.quantization") for arm in arms if not arm.twin_of}
    return [
        Fact(
            "merged",
            {
                "run": run.id,
                "quantization": held[run.arm],
                "before": run.validation.get("eval_loss"),
                "after": merged[run.run],
            },
        )
        for run in runs
        if run.run in merged and run.arm in held
    ]


def _not_in_spec(
    store: Reader, configs: Sequence[ConfigRecord], seeds: Container[int]
) -> list[Fact]:
    """What the folder has results of and the spec of today does not have, for the report."""
    ids = {config.id for config in configs}
    gone = [config.name for config in store.configs() if config.id not in ids]
    ours = {config.training_id for config in configs}
    others = {r.seed for r in store.runs() if r.training_id in ours and r.seed not in seeds}
    if not gone and not others:
        return []
    return [Fact("not_in_spec", {"configs": gone, "seeds": sorted(others)})]


def _reloads(reloads: Mapping[str, Reload]) -> list[Fact]:
    """What adapters gave that were loaded from disk, as facts for the report."""
    return [Fact("reload", {"run": run, **asdict(found)}) for run, found in reloads.items()]


def _answers(
    store: Reader, runs: Sequence[RunFacts], configs: Sequence[ConfigRecord]
) -> tuple[Answer, ...]:
    kind = {config.id: generation_of(config.settings) for config in store.configs()}
    names = {config.id: config.name for config in configs}
    seeds = {run.run: run.seed for run in runs}

    def is_ours(record: AnswersRecord) -> bool:
        if record.run_id is None:  # the base's are kept with the first that asked so
            return any(kind[c.id] == kind[record.config_id] for c in configs)
        return record.config_id in names and record.run_id in seeds

    return tuple(
        Answer(
            arm="base" if record.run_id is None else names[record.config_id],
            seed=None if record.run_id is None else seeds[record.run_id],
            prompt=one.prompt,
            reference=one.reference,
            answer=one.text,
            measures={name: float(value) for name, value in (one.measures or {}).items()},
            asked_as=()
            if record.run_id is not None
            else tuple(c.name for c in configs if kind[c.id] == kind[record.config_id]),
        )
        for record in store.answers()
        if is_ours(record)
        for one in record.answers
    )
