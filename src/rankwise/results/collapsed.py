"""Configurations whose runs learned nothing, or lost what they had learned before their end."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from rankwise.analysis.curves import rises
from rankwise.analysis.scores import Scores
from rankwise.results.records import Records, RunFacts

Collapse = Literal["learned nothing", "diverged late"]


def collapsed_arms(records: Records) -> dict[str, Collapse]:
    """The arms of which half of the finished runs or more collapsed, and how most of them did."""
    found: dict[str, Collapse] = {}
    for arm in records.arms:
        runs = [run for run in records.runs_of(arm.name) if run.finished]
        how = [kind for run in runs if (kind := _collapse(records, run)) is not None]
        if how and 2 * len(how) >= len(runs):
            found[arm.name] = max(how, key=how.count)
    return found


def _collapse(records: Records, run: RunFacts) -> Collapse | None:
    if predicts_one_class(run.validation) or not _beats_the_base(records, run):
        return "learned nothing"
    return "diverged late" if _lost_it_again(records, run) else None


def _beats_the_base(records: Records, run: RunFacts) -> bool:
    """Whether the best value is better than that of the untrained base, where that is known."""
    base = records.study.get("base_metrics", {}).get(records.metric)
    if base is None or run.value is None or not math.isfinite(base):
        return True
    return bool(_sign(records) * run.value < _sign(records) * base)


def _lost_it_again(records: Records, run: RunFacts) -> bool:
    """Whether the last evaluation is worse than the first one, and no overfitting explains it.

    Where a model overfits, its training loss goes on falling; where it diverges, that rises too.
    """
    loss = [(step, _sign(records) * value) for step, value in run.curve]
    if len(loss) < 3 or not all(math.isfinite(value) for _, value in loss):
        return False
    best_step = min(loss, key=lambda point: point[1])[0]
    return loss[-1][1] > loss[0][1] and rises(run.train_curve, best_step)


def _sign(records: Records) -> float:
    return 1.0 if records.lower_is_better else -1.0


def without(scores: Scores, arms: Mapping[str, Collapse]) -> Scores:
    """The scores without these arms; with them where fewer than two others have a finished run."""
    keep = [a for a, arm in enumerate(scores.arms) if arm not in arms]
    x = np.asarray(scores.x_AS if scores.x_ASE is None else scores.x_ASE)
    done_AS = np.isfinite(x).reshape(*x.shape[:2], -1).all(axis=2)
    if done_AS[keep].any(axis=1).sum() < 2:
        return scores
    return replace(
        scores,
        arms=tuple(scores.arms[a] for a in keep),
        x_AS=None if scores.x_AS is None else scores.x_AS[keep],
        x_ASE=None if scores.x_ASE is None else scores.x_ASE[keep],
    )


def predicts_one_class(metrics: Mapping[str, float]) -> bool:
    """Whether these are the metrics of a constant prediction.

    Its Matthews correlation is 0, its accuracy p is the share of the class, whose F1 is then
    2 p / (1 + p); the macro F1 is that over the number of classes, two or more, the others' being
    0. A correlation of 0 by chance has another macro F1.
    """
    names = ("eval_accuracy", "eval_macro_f1", "eval_matthews")
    if any(name not in metrics for name in names):
        return False
    p, macro_f1, matthews = (metrics[name] for name in names)
    if matthews != 0 or p <= 0 or macro_f1 <= 0:
        return False
    classes = 2 * p / (1 + p) / macro_f1
    return round(classes) >= 2 and math.isclose(classes, round(classes), rel_tol=1e-9)
