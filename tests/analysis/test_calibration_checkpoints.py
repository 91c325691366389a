"""The calibration of how steps are chosen, run small: the bounds hold within chance."""

import importlib
import importlib.util

import numpy as np
import pytest

from benchmark_scripts import script


@pytest.fixture(scope="module")
def calibration():
    with script("calibration_checkpoints") as module:
        yield module


def missed(rows):
    found = importlib.import_module("calibration_rows")
    return [what for what, *values in rows if not found.row(what, *values).met(slack=3.0)]


def test_curves_are_ranked_fairly_within_chance(calibration):
    rows = calibration.checkpoint_rows(studies=20, seed=1)
    assert missed(rows) == []
    assert {len(values) for _, values, _, _ in rows} == {20}


def test_steps_that_are_read_where_they_were_chosen_would_be_caught(calibration, monkeypatch):
    def on_all(x_TE, fold_E, weights_E, lower_is_better):
        return np.full(fold_E.max() + 1, np.argmin(x_TE.mean(1)))

    monkeypatch.setattr(calibration, "chosen_without", on_all)
    curves, rng = calibration.Curves(volatile=3.0), np.random.default_rng(1)
    rows = calibration.rows_of_case("volatile", curves, 40, rng)
    assert any("looks best" in line for line in missed(rows))


def test_the_true_difference_of_equal_curves_is_none_and_of_a_noisy_choice_is_its_loss(calibration):
    shape = calibration.Shape(3, 100, 1, 0.0, 0.0, "falls and rises")
    draws = [
        calibration.true_difference(np.random.default_rng(n), shape, calibration.Curves(volatile))
        for n in range(20)
        for volatile in (1.0, 3.0)
    ]
    assert abs(np.mean(draws[::2])) < 0.001
    assert np.mean(draws[1::2]) > 0.005
