"""Accuracies with their test size: what the spread between seeds holds is not counted again."""

import numpy as np
import pytest

from benchmark_scripts import script
from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import judge


@pytest.fixture(scope="module")
def calibration():
    with script("calibration_outside") as module:
        yield module


def accuracies(x_AS, test_size):
    names = tuple(f"arm{a}" for a in range(len(x_AS)))
    seeds = tuple(range(x_AS.shape[1]))
    return judge(
        Scores(
            "accuracy", names, seeds, x_AS=x_AS, test_size=test_size, lower_is_better=False
        )
    )  # fmt: skip


def test_with_two_seeds_the_test_size_widens_no_interval_and_claims_no_other_items():
    x_AS = np.array([[0.70, 0.72, 0.71], [0.74, 0.755, 0.75]])
    with_size, without = accuracies(x_AS, 1000), accuracies(x_AS, None)
    assert with_size.claim == without.claim == "seeds"
    assert with_size.difference("arm0", "arm1") == without.difference("arm0", "arm1")
    assert (with_size.examples, with_size.unit) == (1000, "test items")


def test_intervals_of_accuracies_cover_as_often_as_they_say_on_the_same_items(calibration):
    same, _, twice, equal = calibration.accuracy_rows(studies=60, seed=0)
    assert 0.88 < np.mean(same[1]) < 0.99
    assert np.mean(twice[1]) > 0.97
    assert np.mean(equal[1]) < 0.1
