"""Curves and groups."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from rankwise.analysis.curves import describe_curve
from rankwise.analysis.groups import GroupRun, at_equal_budget, summarize_groups
from rankwise.analysis.scores import Scores
from rankwise.analysis.variance import components
from rankwise.errors import DataError

NAN = float("nan")
STRATEGIES = [
    GroupRun("empirical", "empirical", NAN, 3538944),
    GroupRun("linear", "linear decay", 5.10653, 6291456),
    GroupRun("heavy", "attention heavy", None, 5111808, "out_of_memory"),
    GroupRun("rank 8", "baseline", 5.31471, 3145728),
    GroupRun("rank 16", "baseline", 4.89788, 6291456),
]


def test_improvement_is_measured_from_the_first_value():
    curve = describe_curve([1, 15], [1.474, 1.273])
    assert curve.improvement == pytest.approx(0.201)
    assert f"{-curve.relative:.1%}" == "-13.6%"
    assert (curve.still_improving, curve.overfitting, curve.oscillation) == (None, None, None)


def test_a_curve_that_falls_to_its_end_is_still_improving():
    curve = describe_curve(range(9), np.linspace(2, 1, 9))
    assert curve.late_share == pytest.approx(0.25)
    assert curve.still_improving
    assert not curve.overfitting
    assert curve.oscillation == pytest.approx(0)


def test_a_curve_that_levels_off_is_not_still_improving():
    curve = describe_curve(range(9), 1 + 0.5 ** np.arange(9.0))
    assert curve.late_share < 0.02
    assert not curve.still_improving


def test_gains_within_the_noise_do_not_count_as_improving():
    values = np.linspace(2, 1, 9)
    assert not describe_curve(range(9), values, noise=0.3).still_improving
    assert describe_curve(range(9), values, noise=0.2).still_improving


def test_validation_that_turns_while_training_falls_is_overfitting():
    values = [2.0, 1.5, 1.2, 1.4, 1.6]
    falling = [(float(s), 2.0 - 0.3 * s) for s in range(5)]
    rising = [(float(s), 1.0 + 0.3 * s) for s in range(5)]
    assert describe_curve(range(5), values, training=falling).overfitting
    assert not describe_curve(range(5), values, training=rising).overfitting
    assert not describe_curve(range(5), values, noise=0.5, training=falling).overfitting
    assert describe_curve(range(5), [-v for v in values], lower_is_better=False).overfitting


def test_oscillation_is_the_share_of_movement_that_was_undone():
    curve = describe_curve(range(5), [2.0, 1.0, 2.0, 1.0, 1.0])
    assert curve.oscillation == pytest.approx(2 / 3)


def test_a_curve_with_steps_out_of_order_is_refused():
    with pytest.raises(DataError, match="increase"):
        describe_curve([1, 3, 2], [1.0, 1.0, 1.0])


def test_failures_are_counted_apart_and_enter_no_mean():
    groups = {group.group: group for group in summarize_groups(STRATEGIES)}
    assert groups["empirical"].mean is None
    assert groups["empirical"].failures == (("diverged", 1),)
    assert groups["attention heavy"].failures == (("out_of_memory", 1),)


def test_the_mean_of_a_group_is_not_its_best():
    baseline = next(g for g in summarize_groups(STRATEGIES) if g.group == "baseline")
    assert baseline.mean == pytest.approx(5.106295)
    assert baseline.spread == pytest.approx(0.2947, abs=1e-4)
    assert (baseline.best_arm, baseline.best) == ("rank 16", 4.89788)


def test_groups_are_compared_only_where_budgets_are_equal():
    x_AS = np.array([[NAN if r.score is None else r.score] for r in STRATEGIES])
    parts = components(Scores("eval_loss", tuple(r.arm for r in STRATEGIES), (0,), x_AS=x_AS))
    group = {r.arm: r.group for r in STRATEGIES}
    budget = {r.arm: r.budget for r in STRATEGIES}
    (one,) = at_equal_budget(parts, group, budget)
    assert (one.budget, one.first_arms, one.second_arms) == (6291456, ("linear",), ("rank 16",))
    assert one.value == pytest.approx(5.10653 - 4.89788)
    assert one.low is None


def test_facts_are_ready_for_json():
    facts = [
        describe_curve(range(5), [3.0, 2.0, 1.5, 1.2, 1.1]),
        *summarize_groups(STRATEGIES),
    ]
    json.dumps([asdict(fact) for fact in facts], allow_nan=False)
