"""The runs of a store as facts, read at the steps by which they are ranked.

Array suffix: E examples.
"""

import itertools
import math
import statistics
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rankwise.analysis.curves import StepRecord
from rankwise.results.checkpoints import Chooser, Reading, choice_of, read_run, scores_of
from rankwise.results.records import Floats, RunFacts, StepChoice
from rankwise.store.reader import Reader
from rankwise.store.schema import FINISHED, ConfigRecord, Evaluation, RunRecord, Step

TRAIN_POINTS = 60
TAIL_STEPS = 40


@dataclass(frozen=True, eq=False)
class StoredRuns:
    """Runs as the configurations share them, and their scores.

    facts             one for each configuration and seed, in order
    validation, test  by the run's number in the store and metric, one value an example (E,)
    steps             how their steps were chosen
    """

    facts: tuple[RunFacts, ...]
    validation: Mapping[int, Mapping[str, Floats]]
    test: Mapping[int, Mapping[str, Floats]]
    steps: StepChoice


@dataclass(frozen=True, eq=False)
class _StoredRun:
    """One run: facts as yet without the configuration whose view it is, and its scores."""

    facts: RunFacts
    validation: Mapping[str, Floats]
    test: Mapping[str, Floats]


def read_runs(
    store: Reader,
    configs: Sequence[ConfigRecord],
    seeds: Container[int] | None,
    chooser: Chooser,
) -> StoredRuns:
    """The runs of these configurations with these seeds (None: all of them)."""
    ours = {config.training_id for config in configs}
    of_training: dict[int, list[_StoredRun]] = {}
    for run in store.runs():
        if run.training_id in ours and (seeds is None or run.seed in seeds):
            of_training.setdefault(run.training_id, []).append(_read(store, run, chooser))
    every = {one.facts.run: one for runs in of_training.values() for one in runs}
    return StoredRuns(
        facts=tuple(
            replace(one.facts, id=f"{config.name}/seed-{one.facts.seed}", arm=config.name)
            for config in configs
            for one in of_training.get(config.training_id, ())
        ),
        validation={run: one.validation for run, one in every.items() if run and one.validation},
        test={run: one.test for run, one in every.items() if run and one.test},
        steps=choice_of(chooser, [len(one.facts.curve) for one in every.values()]),
    )


def _read(store: Reader, run: RunRecord, chooser: Chooser) -> _StoredRun:
    at_best: dict[str, float] = {}
    reading = Reading()
    if run.best_step is not None:
        best = store.evaluation_at(run.id, run.best_step)
        at_best = _finite(best.metrics)
        # where nothing can be cross-fitted, the other evaluations are not needed
        others = [] if chooser.fold_E is None else store.evaluations(run.id)
        reading = read_run(others, best, chooser)
    test = store.evaluations(run.id, "test")[-1:]
    facts = _run_facts(store, run, chooser.metric, at_best, reading, test)
    return _StoredRun(facts, reading.scores, scores_of(test[0]) if test else {})


def _run_facts(
    store: Reader,
    run: RunRecord,
    metric: str,
    at_best: dict[str, float],
    reading: Reading,
    test: Sequence[Evaluation],
) -> RunFacts:
    evaluations = store.evaluation_metrics(run.id)
    steps = store.steps(run.id)
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
        value=reading.metrics.get(metric, at_best.get(metric)),
        best_step=run.best_step,
        last_step=max(last, default=None),
        validation=at_best,
        test=_finite(test[0].metrics) if test else {},
        last=dict(evaluations[-1]) if evaluations else {},
        curve=tuple((int(e["step"]), e[metric]) for e in evaluations if metric in e),
        train_curve=thinned([(step.step, step.loss) for step in steps]),
        tail=() if run.state in ("planned", "running", *FINISHED) else _tail(steps, run),
        fold_steps=reading.steps,
        crossfitted=dict(reading.metrics),
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
