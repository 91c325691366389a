"""The records that every part of the report is computed from, whoever made the results.

Array suffixes: A arms, S seeds, E examples.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankwise.analysis.curves import StepRecord
from rankwise.results.race import Race
from rankwise.spec.tasks import weighs_targets
from rankwise.store.schema import FINISHED, Fact, Reload

Floats = NDArray[np.float64]
StepChoice = Literal["cross-fitted", "one evaluation", "not by example", "one group", "unknown"]


@dataclass(frozen=True)
class RunFacts:
    """One run. `value` is the deciding metric as it is ranked; None where nothing was evaluated.

    best_step    that of the adapter that is kept: chosen on all validation examples
    fold_steps   the step at which each fold of the validation examples was read for the ranking,
                 chosen on the other folds; empty where `value` is that of the best step
    crossfitted  the metrics of that reading; `value` is one of them
    curve        (step, deciding metric) of every validation
    train_curve  (step, mean training loss of the steps up to it), at most TRAIN_POINTS
    tail         the last steps of a run that ended without a result
    validation   all validation metrics at the best step; last: at the last evaluation, with its
                 step; test: those of the test read
    cause        what was raised, or what a table says of a run without a result
    not_finite   as in the store's `Failure`, with the step and the learning rate where that was
    run, folder  its number in the store, and where in `adapters` its adapter is; a run that is
                 trained once stands here once for each arm that shares it
    """

    id: str
    arm: str
    seed: int
    state: str
    cause: str | None
    value: float | None
    best_step: int | None
    last_step: int | None
    validation: dict[str, float]
    test: dict[str, float]
    curve: tuple[tuple[int, float], ...]
    train_curve: tuple[tuple[int, float], ...]
    fold_steps: tuple[int, ...] = ()
    crossfitted: dict[str, float] = field(default_factory=dict)
    tail: tuple[StepRecord, ...] = ()
    last: dict[str, float] = field(default_factory=dict)
    not_finite: str | None = None
    bad_step: int | None = None
    bad_learning_rate: float | None = None
    traceback: str | None = None
    run: int | None = None
    folder: str | None = None

    @property
    def ranked(self) -> dict[str, float]:
        """All validation metrics, cross-fitted where they can be, else at the best step."""
        return self.validation | self.crossfitted

    @property
    def finished(self) -> bool:
        """Whether the run may be ranked."""
        return self.state in FINISHED and self.value is not None and math.isfinite(self.value)


@dataclass(frozen=True)
class Cost:
    """A cost: value in `unit`, and how it was determined ("counted", "measured alone", ...)."""

    value: float
    unit: str
    path: str


@dataclass(frozen=True)
class ArmFacts:
    """One arm: settings, costs by name, plain mean and spread over its finished seeds.

    spread is the sample standard deviation over seeds, None with fewer than two. validation has the
    means of `RunFacts.ranked`. twin_of names the
    arm whose training this one shares, as the two differ in generation alone; None for that arm.
    stopped has the runs that a race has ended before their last step.
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
    adapter: dict[str, Any] = field(default_factory=dict)
    twin_of: str | None = None
    stopped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A generated answer and its measures, of a run or of the untrained base (arm "base").

    asked_as names the arms with whose generation settings the base answered.
    """

    arm: str
    seed: int | None
    prompt: str
    reference: str | None
    answer: str
    measures: dict[str, float]
    asked_as: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Block:
    """One block of a table: rows that are compared with one another, such as one model and task.

    name     its context in words; context: the values of the columns that make it
    """

    name: str
    context: dict[str, Any]
    records: "Records"


@dataclass(frozen=True, eq=False)
class Records:
    """All of a study (or of a table of outside results) in one reading.

    x_ASE      deciding metric by example, NaN where a run is not finished; None where the metric
               is not a mean over examples or no record goes that deep
    x_AS       deciding metric by run
    extra_ASE, test_ASE  other metrics by example, all of them on the test part at the best step
    steps      how the step was chosen at which runs are read on the validation part: cross-fitted;
               there was one; the best on the same examples, as the metric is not kept example by
               example or all of them form one group; or it is not known
    test_size  items behind each x_AS where no record by example exists, else None
    tolerance  differences up to this do not matter: a number, or a share of the best mean ("1%")
    groups_E, weights_E  of the validation examples, with x_ASE
    reloads    by run id, what adapters gave that were loaded from disk
    blocks     of a table: each with records of its own; here a "run" is then the mean of an arm in
               a block, and a "seed" the number of a block
    race       how the study was raced; None where every run is trained to its end
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
    notes: tuple[Fact, ...]
    x_AS: Floats
    x_ASE: Floats | None
    groups_E: NDArray[Any] | None
    weights_E: Floats | None
    test_size: int | None
    extra_ASE: dict[str, Floats]
    test_ASE: dict[str, Floats] = field(default_factory=dict)
    test_groups_E: NDArray[Any] | None = None
    test_weights_E: Floats | None = None
    reloads: Mapping[str, Reload] = field(default_factory=dict)
    steps: StepChoice = "unknown"
    blocks: tuple[Block, ...] = ()
    tolerance: float | str | None = None
    race: Race | None = None

    def arm(self, name: str) -> ArmFacts:
        """The arm of this name (StopIteration where there is none)."""
        return next(arm for arm in self.arms if arm.name == name)

    def runs_of(self, name: str) -> tuple[RunFacts, ...]:
        """The runs of an arm, by seed."""
        return self._by_arm.get(name, ())

    @cached_property
    def _by_arm(self) -> dict[str, tuple[RunFacts, ...]]:
        found: dict[str, list[RunFacts]] = {}
        for run in self.runs:
            found.setdefault(run.arm, []).append(run)
        return {name: tuple(runs) for name, runs in found.items()}


def own_runs(records: Records) -> tuple[RunFacts, ...]:
    """The runs as they are in the store or in the table, those of all blocks included."""
    if not records.blocks:
        return records.runs
    return tuple(
        replace(run, id=f"{block.name}: {run.id}")
        for block in records.blocks
        for run in block.records.runs
    )


def best_run(records: Records, name: str, seed: int | None = None) -> RunFacts | None:
    """The finished run of an arm with the best deciding metric, or the one of a seed, if any.

    By the metric at the best step, on all validation examples: that is the adapter to hand out.
    """
    done = [run for run in records.runs_of(name) if run.finished and seed in (None, run.seed)]
    sign, metric = 1 if records.lower_is_better else -1, records.metric

    def order(run: RunFacts) -> tuple[float, int]:
        return sign * run.validation.get(metric, run.value or 0.0), run.seed

    return min(done, key=order, default=None)


def distinct(records: Records) -> Records:
    """Every training once: without the arms that share another's, whose scores are its copies."""
    keep = [a for a, arm in enumerate(records.arms) if arm.twin_of is None]
    if len(keep) == len(records.arms):
        return records
    arms = tuple(records.arms[a] for a in keep)
    names = {arm.name for arm in arms}
    return replace(
        records,
        arms=arms,
        runs=tuple(run for run in records.runs if run.arm in names),
        x_AS=records.x_AS[keep],
        x_ASE=None if records.x_ASE is None else records.x_ASE[keep],
        extra_ASE={name: x_ASE[keep] for name, x_ASE in records.extra_ASE.items()},
        test_ASE={name: x_ASE[keep] for name, x_ASE in records.test_ASE.items()},
    )


def varying_settings(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the settings in which arms differ, in the order in which they first appear."""
    names = dict.fromkeys(name for one in settings for name in one)

    def spellings(name: str) -> set[str]:
        return {json.dumps(one.get(name, "absent"), sort_keys=True) for one in settings}

    return tuple(name for name in names if len(spellings(name)) > 1)


def is_failure(run: RunFacts) -> bool:
    """Whether a run ended without a result that may be ranked, interrupted ones included.

    One that the race of its study has stopped is none.
    """
    return run.state not in ("planned", "running") and not run.finished and not is_stopped(run)


def is_stopped(run: RunFacts) -> bool:
    """Whether the race of its study has ended a run before its last step: no result, no failure.

    A run that another tool has pruned is told among those without a result.
    """
    return run.state == "pruned" and run.run is not None


def generation_of(settings: Mapping[str, Any]) -> str:
    """An arm's generation settings as a text that is equal where they are."""
    own = {name: value for name, value in settings.items() if name.startswith("generation.")}
    return json.dumps(own, sort_keys=True)


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of the metrics that every row has."""
    names = [name for name in (rows[0] if rows else {}) if all(name in row for row in rows)]
    return {name: statistics.fmean(row[name] for row in rows) for name in names}


def spreads(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sample standard deviations over rows of the metrics that every row has; none for one row."""
    if len(rows) < 2:
        return {}
    return {name: statistics.stdev(row[name] for row in rows) for name in means(rows)}


def _place(
    arms: Sequence[ArmFacts], seeds: Sequence[int], runs: Sequence[RunFacts]
) -> dict[str, tuple[int, int]]:
    row = {arm.name: a for a, arm in enumerate(arms)}
    column = {seed: s for s, seed in enumerate(seeds)}
    return {run.id: (row[run.arm], column[run.seed]) for run in runs}


def by_run(arms: Sequence[ArmFacts], seeds: Sequence[int], runs: Sequence[RunFacts]) -> Floats:
    """The deciding metric of finished runs (A, S), NaN for the others."""
    x_AS = np.full((len(arms), len(seeds)), np.nan)
    place = _place(arms, seeds, runs)
    for run in runs:
        if run.finished:
            x_AS[place[run.id]] = run.value
    return x_AS


def by_example(
    arms: Sequence[ArmFacts],
    seeds: Sequence[int],
    runs: Sequence[RunFacts],
    scores: Mapping[int, Mapping[str, Floats]],
) -> dict[str, Floats]:
    """By metric the scores of finished runs (A, S, E), of metrics that all of them have.

    `scores` has, by the number of the run in the store, one value an example (E,) for each metric.
    """
    done = {
        run.id: scores[run.run]
        for run in runs
        if run.finished and run.run is not None and run.run in scores
    }
    if not done:
        return {}
    place = _place(arms, seeds, runs)
    found = {}
    for name, x_E in next(iter(done.values())).items():
        if all(name in one for one in done.values()):
            found[name] = np.full((len(arms), len(seeds), len(x_E)), np.nan)
            for run, one in done.items():
                found[name][place[run]] = one[name]
    return found


def weights_of(weights: NDArray[Any] | None, metric: str, x_ASE: Floats | None) -> Floats | None:
    """Weights of examples in the mean of a metric; None where it weighs all alike."""
    if weights is None or x_ASE is None or not weighs_targets(metric):
        return None
    return np.asarray(weights, dtype=np.float64)
