"""The calibration of the verdict, run small: the bounds hold within chance."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import judge

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "verdict_calibration.py"


@pytest.fixture(scope="module")
def calibration():
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("verdict_calibration", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
    sys.path.remove(str(SCRIPT.parent))


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
