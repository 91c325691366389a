"""The calibration of the verdict, run small: the bounds hold within chance."""

import numpy as np
import pytest

from benchmark_scripts import script
from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import judge


@pytest.fixture(scope="module")
def calibration():
    with script("verdict_calibration") as module:
        yield module


def test_the_verdict_is_as_sure_as_it_says_within_chance(calibration, capsys):
    assert calibration.main(["--quick", "--seed", "1"]) == 0
    printed = capsys.readouterr().out
    assert "a winner is declared" in printed
    assert "at least 90.0%" in printed


def test_a_verdict_with_intervals_of_half_the_width_would_be_caught(calibration, monkeypatch):
    honest = calibration._pairs_covered

    def shrunk(low_AA, high_AA):
        middle, half = (low_AA + high_AA) / 2, (high_AA - low_AA) / 4
        return honest(middle - half, middle + half)

    monkeypatch.setattr(calibration, "_pairs_covered", shrunk)
    covered = calibration.coverage_rows(studies=30, checked=1, seed=0)[0]
    assert not covered.met(slack=3.0)


def test_the_bootstrap_agrees_with_the_interval_where_seeds_are_many(calibration):
    rng = np.random.default_rng(2)
    x_ASE = rng.standard_normal((2, 25, 200)) + 0.1 * rng.standard_normal((2, 25, 1))
    scores = Scores("eval_loss", ("a", "b"), tuple(range(25)), x_ASE)
    (check,) = calibration.bootstrap_against(scores, "b", draws=4000)
    found = judge(scores).difference("a", "b")
    assert check.value == pytest.approx(found.value)
    assert [check.low, check.high] == pytest.approx([found.low, found.high], abs=0.015)
