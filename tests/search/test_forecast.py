"""Forecasts: more seen is better known, and arms that went to the end say what to expect."""

import numpy as np
import pytest

from rankwise.analysis.scores import Scores
from rankwise.analysis.variance import components
from rankwise.search.forecast import forecast
from rankwise.search.pairs import pair_of, reference_of
from rankwise.search.seen import Run, Schedule, Seen, mean_of
from search_studies import SHARES, seen_of

CURVES = {f"arm {n}": (0.8, 0.5, 0.4 + 0.01 * n, 0.4 + 0.01 * n) for n in range(4)}

STEADY = [(n, 0.02 * n) for n in range(5)]


def width(found, arm):
    low, _, high = found.distance[arm]
    return high - low


def test_more_of_the_schedule_makes_a_forecast_narrower():
    steady = {f"arm {n}": (0.8 + d, 0.5 + d, 0.4 + d, 0.4 + d) for n, d in STEADY}
    widths = [
        width(forecast(seen_of(steady, reached=dict.fromkeys(steady, share))), "arm 4")
        for share in SHARES[:3]
    ]
    assert widths[0] > widths[1] > widths[2]


def test_arms_that_drifted_far_widen_the_forecast_of_the_others():
    """Two finished studies that differ at their end only; one arm is half-way in both."""
    still = CURVES | {"waits": (0.9, 0.6, 0.5, 0.5)}
    calm = {arm: (m[0], 0.5, 0.4, 0.5 - 0.002 * n) for n, (arm, m) in enumerate(CURVES.items())}
    wild = {arm: (m[0], 0.5, 0.4, 0.5 + 0.2 * n) for n, (arm, m) in enumerate(CURVES.items())}
    narrow, wide = (
        width(forecast(seen_of(still | ends, reached={"waits": 0.5})), "waits")
        for ends in (calm, wild)
    )
    assert wide > 1.5 * narrow


def test_a_curve_that_jumps_is_forecast_with_less_certainty():
    smooth = CURVES | {"arm": (0.9, 0.6, 0.5, 0.5)}
    rough = CURVES | {"arm": (0.6, 0.9, 0.5, 0.5)}
    widths = [width(forecast(seen_of(c, reached={"arm": 0.75})), "arm") for c in (smooth, rough)]
    assert widths[1] > widths[0]


def test_the_error_of_a_difference_is_that_of_the_verdict():
    rng = np.random.default_rng(0)
    x_ASE = rng.normal(size=(2, 1, 60))
    groups_E, weights_E = rng.integers(0, 15, 60).tolist(), rng.uniform(1, 5, 60).tolist()
    for groups, weights in (
        (None, None),
        (groups_E, None),
        (None, weights_E),
        (groups_E, weights_E),
    ):
        pairs = components(Scores("loss", ("a", "b"), (0,), x_ASE, None, groups, weights)).pairs()
        run = Run({0.5: x_ASE[0, 0]})
        seen = Seen({("a", 0): run}, {"a": Schedule("linear", 0, 10)}, {}, groups, weights)
        found = mean_of(x_ASE[0, 0] - x_ASE[1, 0], seen)
        assert found == pytest.approx((pairs.value[0, 1], pairs.error[0, 1]))


def test_pairs_are_on_common_seeds_at_the_last_common_share():
    seen = seen_of(CURVES, reached={"arm 3": 0.75}, seeds=(0, 1), seed_noise=1.0)
    runs = {key: run for key, run in seen.runs.items() if key not in {("arm 0", 0), ("arm 3", 0)}}
    pair = pair_of(Seen(runs, seen.schedules), "arm 3", "arm 0")
    expected = seen.runs["arm 3", 1].curve[0.75] - seen.runs["arm 0", 1].curve[0.75]
    assert pair.share == 0.75
    assert pair.difference == pytest.approx(expected.mean())
    assert pair.final is None


def test_the_reference_is_good_and_went_far():
    many = {f"arm {n}": (0.8, 0.5, 0.4 + 0.01 * n, 0.4 + 0.01 * n) for n in range(8)}
    assert reference_of(seen_of(many), list(many)) == "arm 0"
    assert reference_of(seen_of(many, reached={"arm 0": 0.75}), list(many)) == "arm 1"
    only_the_worst_ended = dict.fromkeys(list(many)[:-1], 0.75)
    assert reference_of(seen_of(many, reached=only_the_worst_ended), list(many)) == "arm 0"


def test_an_arm_that_did_not_start_is_hopeless_where_its_learning_rate_is():
    rates = {"1e-4": 1.5, "1e-3": 0.4, "1e-2": 3.0}
    curves = {f"{r} {k}": (2.0, m, m, m) for r, m in rates.items() for k in ("q", "v", "all")}
    settings = {
        arm: {"training.learning_rate": float(arm.split()[0]), "targets": arm.split()[1]}
        for arm in curves
    }
    absent = {"1e-2 all": 0.0, "1e-3 all": 0.0}
    p = forecast(seen_of(curves, reached=absent, settings=settings)).p
    assert p["1e-2 all"] < 0.25 * p["1e-3 all"]


def test_without_settings_an_arm_that_did_not_start_may_be_the_best():
    assert forecast(seen_of(CURVES, reached={"arm 3": 0.0})).p["arm 3"] == 1.0
