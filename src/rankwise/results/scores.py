"""Scores of all runs as arrays: A arms, S seeds, E examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.results.records import ArmFacts, Floats, RunFacts
from rankwise.spec.metrics import weighs_targets
from rankwise.store.schema import Evaluation, ExamplesRecord


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
    best: Mapping[int, Evaluation],
    examples: ExamplesRecord | None,
) -> dict[str, Floats]:
    """Losses, and correctness where every finished run has it, as (A, S, E) arrays."""
    done = [
        (run, best[run.run])
        for run in runs
        if run.finished and run.run is not None and run.run in best
    ]
    if not done or examples is None:
        return {}
    shape = (len(arms), len(seeds), len(examples.weights))
    place = _place(arms, seeds, runs)
    scores = {"eval_loss": np.full(shape, np.nan)}
    if all(one.correct is not None for _, one in done):
        scores["eval_accuracy"] = np.full(shape, np.nan)
    for run, evaluation in done:
        scores["eval_loss"][place[run.id]] = evaluation.losses
        if "eval_accuracy" in scores:
            scores["eval_accuracy"][place[run.id]] = evaluation.correct
    return scores


def weights_of(weights: NDArray[Any] | None, metric: str, x_ASE: Floats | None) -> Floats | None:
    """Weights of examples in the mean of a metric; None where it weighs all alike."""
    if weights is None or x_ASE is None or not weighs_targets(metric):
        return None
    return np.asarray(weights, dtype=np.float64)
