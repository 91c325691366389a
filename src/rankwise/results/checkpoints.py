"""At which step a run is read: what ranks it, out of its evaluations in the store.

Array suffixes: T evaluations of one run, E examples, F folds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rankwise.analysis.crossfit import chosen_without, fold_of, read_at
from rankwise.results.records import Floats, StepChoice
from rankwise.spec.tasks import lower_is_better, metric_of, weighs_targets
from rankwise.store.schema import Evaluation, ExamplesRecord

LOSS, ACCURACY, PERPLEXITY = "eval_loss", "eval_accuracy", "eval_perplexity"


def raced_metric(metric: str) -> str:
    """The metric by which runs are compared example by example: the deciding one, or the loss."""
    return metric if metric in (LOSS, ACCURACY) else LOSS


@dataclass(frozen=True, eq=False)
class Chooser:
    """How the step of a run is chosen; the same for all runs of a study.

    metric     that decides
    fold_E     the fold of each validation example; None where nothing can be cross-fitted
    weights_E  number of targets of each example; None where it is not known
    """

    metric: str
    fold_E: np.ndarray | None
    weights_E: Floats | None


@dataclass(frozen=True, eq=False)
class Reading:
    """What ranks a run.

    steps    the step at which each fold is read; empty where the folds were not used
    metrics  values of the whole validation part as they are ranked; none where not cross-fitted
    scores   by metric, one value an example (E,)
    """

    steps: tuple[int, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, Floats] = field(default_factory=dict)


def chooser_of(metric: str, examples: ExamplesRecord | None) -> Chooser:
    """How steps are chosen in a study with this metric and these validation examples."""
    known = metric_of(metric)
    if examples is None or known is None or not known.by_example:
        return Chooser(metric, None, None if examples is None else _floats(examples.weights))
    fold_E = fold_of(examples.groups)
    several = len(fold_E) > 0 and fold_E.max() > 0
    return Chooser(metric, fold_E if several else None, _floats(examples.weights))


def choice_of(chooser: Chooser, evaluations: Iterable[int]) -> StepChoice:
    """How the steps of a study were chosen, from the number of evaluations of each of its runs."""
    if max(evaluations, default=0) < 2:
        return "one evaluation"
    if chooser.fold_E is not None:
        return "cross-fitted"
    known = metric_of(chooser.metric)
    return "one group" if known is not None and known.by_example else "not by example"


def read_run(evaluations: Sequence[Evaluation], best: Evaluation, chooser: Chooser) -> Reading:
    """What ranks a run: its evaluations as chosen fold by fold; `best` where there are no folds.

    An evaluation whose deciding metric is not finite is never chosen, as in training.
    """
    metric, fold_E = chooser.metric, chooser.fold_E
    usable = [one for one in evaluations if math.isfinite(one.metrics.get(metric, math.nan))]
    each = [scores_of(one) for one in usable]
    if fold_E is None or len(usable) < 2 or any(metric not in one for one in each):
        return Reading(scores=scores_of(best))
    chosen_F = chosen_without(
        np.stack([one[metric] for one in each]),
        fold_E,
        chooser.weights_E if weighs_targets(metric) else None,
        lower_is_better(metric),
    )
    steps = tuple(usable[t].step for t in chosen_F)
    if len(set(steps)) == 1:  # what was recorded there, to the last digit
        t = int(chosen_F[0])
        names = (*each[t], PERPLEXITY)
        recorded = {name: usable[t].metrics[name] for name in names if name in usable[t].metrics}
        return Reading(steps, recorded, each[t])
    scores = {
        name: read_at(np.stack([one[name] for one in each]), chosen_F, fold_E)
        for name in each[0]
        if all(name in one for one in each)
    }
    return Reading(steps, _means(scores, chooser.weights_E, usable[0].metrics), scores)


def scores_of(one: Evaluation) -> dict[str, Floats]:
    """What an evaluation has example by example: losses, and correctness where it was recorded."""
    scores = {LOSS: _floats(one.losses)}
    if one.correct is not None:
        scores[ACCURACY] = _floats(one.correct)
    return scores


def _means(
    scores: Mapping[str, Floats], weights_E: Floats | None, recorded: Mapping[str, float]
) -> dict[str, float]:
    """Metrics of the whole part from scores by example; perplexity where it is recorded."""
    found = {
        name: float(np.average(x_E, weights=weights_E if weighs_targets(name) else None))
        for name, x_E in scores.items()
    }
    if PERPLEXITY in recorded:
        found[PERPLEXITY] = math.exp(min(found[LOSS], 700.0))
    return found


def _floats(values: np.ndarray) -> Floats:
    return np.asarray(values, dtype=np.float64)
