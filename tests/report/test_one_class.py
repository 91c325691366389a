"""A run that answers one class only is found by its metrics, and said to have learned nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankwise.analysis.answers import accuracy, macro_f1, matthews
from rankwise.report.document import to_markdown
from rankwise.report.write import tell
from rankwise.results.collapsed import predicts_one_class
from rankwise.results.from_store import read_records
from rankwise.results.judge import judge_records
from rankwise.store.writer import Store
from stored import labels

RNG = np.random.default_rng(0)


def metrics(labels: Any, predicted: Any) -> dict[str, float]:
    labels, predicted = np.array(labels), np.array(predicted)
    return {
        "eval_accuracy": accuracy(labels, predicted),
        "eval_macro_f1": macro_f1(labels, predicted),
        "eval_matthews": matthews(labels, predicted),
    }


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_constant_guess_is_known_by_its_metrics_whatever_the_balance(classes: int) -> None:
    for _ in range(20):
        labels = RNG.integers(0, classes, 300)
        guess = np.full(300, RNG.integers(0, classes))
        assert predicts_one_class(metrics(labels, guess))
        guess[0] = (guess[0] + 1) % classes
        assert not predicts_one_class(metrics(labels, guess))


def test_a_correlation_of_zero_by_chance_is_not_a_constant_guess() -> None:
    found = metrics([0, 0, 1, 1], [0, 1, 0, 1])
    assert found["eval_matthews"] == 0
    assert not predicts_one_class(found)
    assert not predicts_one_class({"eval_loss": 0.7})


def give(folder: Path, run: str, more: dict[str, float]) -> None:
    """Adds metrics to every validation of a run."""
    with Store(folder) as store:
        run_id = labels(store)[run]
        for old in store.evaluations(run_id, "validation"):
            store.save_evaluation(
                run_id, old.step, "validation", old.losses, old.correct, {**old.metrics, **more}
            )


def test_the_report_says_which_arm_never_learned(make_study: Any) -> None:
    folder = make_study(examples=50)
    labels = np.repeat([0, 1], [29, 21])
    flat, fair = metrics(labels, np.ones(50, int)), metrics(labels, np.arange(50) // 25)
    for arm, seeds in (("r4_lr0.001_q", (0, 1)), ("r4_lr0.005_q", (0,))):
        for seed in seeds:
            give(folder, f"{arm}/seed-{seed}", flat)
    give(folder, "r4_lr0.005_q/seed-1", fair)
    with Store(folder) as store:
        text = to_markdown(tell(judge_records(read_records(store))))
    curves = text.split("## Learning curves")[1].split("\n## ")[0]
    assert curves.count("did not learn") == 2
    assert "2 of 2 runs of `r4_lr0.001_q` did not learn" in curves
    assert "1 of 2 runs of `r4_lr0.005_q` did not learn" in curves
    assert "An accuracy of 42.0 % is only the share of that class" in curves
