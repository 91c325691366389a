"""The calibration of what is said of settings, run small: the bounds hold within chance."""

import importlib
import importlib.util

import numpy as np
import pytest

from benchmark_scripts import script


@pytest.fixture(scope="module")
def calibration():
    with script("calibration_factors") as module:
        yield module


def test_what_is_said_of_settings_is_as_sure_as_it_says_within_chance(calibration):
    rows = importlib.import_module("calibration_rows")
    found = [rows.row(*values) for values in calibration.factor_rows(studies=30, seed=1)]
    assert any("an edge is named" in one.what for one in found)
    assert [one.what for one in found if not one.met(slack=3.0)] == []


def test_a_claim_from_the_one_shared_rate_would_be_caught(calibration, monkeypatch):
    from rankwise.analysis import effects

    monkeypatch.setattr(effects, "narrow_factors", lambda _, asked, __: [()] * len(asked))
    rng = np.random.default_rng(1)
    claimed = [calibration.overlapping_ranges(rng)[0] for _ in range(60)]
    assert np.mean(claimed) > 0.25
