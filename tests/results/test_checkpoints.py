"""A run is ranked at steps that were chosen on other examples than those it is read on.

Array suffixes: T evaluations of one run, E examples.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankwise.analysis.crossfit import fold_of
from rankwise.results.from_store import read_records
from rankwise.results.records import Records, RunFacts, best_run
from rankwise.spec.tasks import lower_is_better
from rankwise.store.writer import Store
from stored import RECORD

EXAMPLES = 60
WEIGHTS_E = np.random.default_rng(9).integers(1, 30, EXAMPLES).astype(np.float64)


def noisy(seed: int, evaluations: int = 6) -> np.ndarray:
    """Losses (T, E) that differ between evaluations by chance alone."""
    hard_E = np.random.default_rng(8).gamma(1.0, 1.0, EXAMPLES)
    return hard_E + np.random.default_rng(seed).normal(0, 1, (evaluations, EXAMPLES))


def metrics_of(losses_E: np.ndarray) -> dict[str, float]:
    loss = float(np.average(losses_E, weights=WEIGHTS_E))
    right = float((losses_E < 0.7).mean())
    return {
        "eval_loss": loss,
        "eval_perplexity": float(np.exp(loss)),
        "eval_accuracy": right,
        "eval_macro_f1": right - 0.1,
    }


def read(
    folder: Path,
    curves: Sequence[np.ndarray],
    metric: str = "eval_loss",
    groups: Sequence[int] = range(EXAMPLES),
) -> Records:
    """The records of a study of one configuration with these runs (T, E), one a seed."""
    spec = {"study": "s", "objective": {"metric": metric}, "seeds": list(range(len(curves)))}
    with Store(folder, create=True) as store:
        store.begin_study(replace(RECORD, spec=spec))
        hashes = [str(e) for e in range(EXAMPLES)]
        store.save_examples("validation", hashes, np.array(groups), WEIGHTS_E)
        training = store.add_training("t1")
        store.add_config("c1", training, "arm", {})
        for seed, losses_TE in enumerate(curves):
            run = store.add_run(training, seed)
            every = [metrics_of(losses_E) for losses_E in losses_TE]
            for t, (losses_E, found) in enumerate(zip(losses_TE, every, strict=True), start=1):
                right_E = losses_E < 0.7
                store.save_evaluation(run, 10 * t, "validation", losses_E, right_E, found)
            sign = 1 if lower_is_better(metric) else -1
            best = int(np.argmin([sign * one[metric] for one in every]))
            store.set_best(run, 10 * (best + 1))
            store.set_state(run, "done")
        return read_records(store)


def the_run(records: Records) -> RunFacts:
    (run,) = records.runs
    return run


def by_hand(losses_TE: np.ndarray, metric: str, groups: Sequence[int]) -> tuple[list[int], Any]:
    """(step of each fold, scores (E,)), fold after fold."""
    fold_E, steps, read_E = fold_of(np.array(groups)), [], np.empty(EXAMPLES)
    for fold in range(max(fold_E) + 1):
        others, own = fold_E != fold, fold_E == fold
        if metric == "eval_loss":
            values = [np.average(x[others], weights=WEIGHTS_E[others]) for x in losses_TE]
        else:
            values = [-np.mean(x[others] < 0.7) for x in losses_TE]
        best = int(np.argmin(values))
        steps.append(10 * (best + 1))
        read_E[own] = losses_TE[best, own]
    return steps, read_E


@pytest.mark.parametrize("metric", ["eval_loss", "eval_accuracy"])
@pytest.mark.parametrize("grouped", [True, False])
def test_each_fold_is_read_at_the_step_that_is_best_on_the_others(
    tmp_path: Path, metric: str, grouped: bool
) -> None:
    losses_TE = noisy(1)
    groups = [e // 7 for e in range(EXAMPLES)] if grouped else list(range(EXAMPLES))
    records = read(tmp_path / "s", [losses_TE], metric, groups)
    steps, read_E = by_hand(losses_TE, metric, groups)
    run, expected = the_run(records), metrics_of(read_E)
    assert len(set(steps)) > 1
    assert (records.steps, run.fold_steps) == ("cross-fitted", tuple(steps))
    assert run.value == run.crossfitted[metric] == pytest.approx(expected[metric])
    for name in ("eval_loss", "eval_perplexity", "eval_accuracy"):
        assert run.crossfitted[name] == pytest.approx(expected[name])
        assert records.arms[0].validation[name] == run.crossfitted[name]
    every = {**records.extra_ASE, metric: records.x_ASE}
    assert np.array_equal(every["eval_loss"][0, 0], read_E)
    assert np.array_equal(every["eval_accuracy"][0, 0], read_E < 0.7)


def test_the_adapter_is_that_of_the_step_which_is_best_on_all_examples(tmp_path: Path) -> None:
    losses_TE = noisy(1)
    run = the_run(read(tmp_path / "s", [losses_TE]))
    means = [metrics_of(x)["eval_loss"] for x in losses_TE]
    assert run.best_step == 10 * (int(np.argmin(means)) + 1)
    assert run.validation["eval_loss"] == min(means)
    assert run.value is not None
    assert run.value > min(means)


def test_the_seed_to_hand_out_is_the_best_on_all_examples_whatever_ranks_it(
    tmp_path: Path,
) -> None:
    records = read(tmp_path / "s", [noisy(1), noisy(7)])
    by_rank = min(records.runs, key=lambda run: run.value or 0.0)
    by_best = min(records.runs, key=lambda run: run.validation["eval_loss"])
    assert by_rank.seed != by_best.seed
    assert best_run(records, "arm") == by_best


def test_how_a_run_is_read_does_not_depend_on_other_runs(tmp_path: Path) -> None:
    alone = the_run(read(tmp_path / "alone", [noisy(1)]))
    assert read(tmp_path / "both", [noisy(1), noisy(2)]).runs[0] == alone


def test_where_every_fold_takes_one_step_the_ranked_value_is_the_recorded_one(
    tmp_path: Path,
) -> None:
    losses_TE = noisy(1) - 5.0 * np.arange(6)[:, None]
    run = the_run(read(tmp_path / "s", [losses_TE]))
    assert run.fold_steps == (60,) * 5
    assert (run.best_step, run.value) == (60, run.curve[-1][1])


def test_a_single_evaluation_is_read_as_it_is(tmp_path: Path) -> None:
    records = read(tmp_path / "s", [noisy(1, evaluations=1)])
    run = the_run(records)
    assert (records.steps, run.fold_steps, run.crossfitted) == ("one evaluation", (), {})
    assert run.value == run.curve[0][1]


@pytest.mark.parametrize(
    ("metric", "groups", "why"),
    [
        ("eval_macro_f1", range(EXAMPLES), "not by example"),
        ("eval_loss", [3] * EXAMPLES, "one group"),
    ],
)
def test_where_nothing_can_be_cross_fitted_the_best_step_counts_and_it_is_recorded(
    tmp_path: Path, metric: str, groups: Sequence[int], why: str
) -> None:
    records = read(tmp_path / "s", [noisy(1)], metric, groups)
    run = the_run(records)
    best = (min if lower_is_better(metric) else max)(value for _, value in run.curve)
    assert (records.steps, run.fold_steps, run.value) == (why, (), best)


def test_an_evaluation_without_a_finite_metric_is_never_read(tmp_path: Path) -> None:
    losses_TE = noisy(1)
    clean = the_run(read(tmp_path / "clean", [losses_TE]))
    losses_TE = np.insert(losses_TE, 6, -9.0, axis=0)
    losses_TE[6, 0] = np.nan
    run = the_run(read(tmp_path / "s", [losses_TE]))
    assert (run.fold_steps, run.value) == (clean.fold_steps, clean.value)
