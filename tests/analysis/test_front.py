"""The quality-against-cost front and the recommendation."""

import json
from dataclasses import asdict

import numpy as np

from rankwise.analysis.front import front, recommend
from rankwise.analysis.scores import Scores
from rankwise.analysis.variance import components
from rankwise.analysis.verdict import judge


def scored(offsets, seeds=3, examples=200, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    x_ASE = rng.standard_normal((1, 1, examples)) + noise * rng.standard_normal(
        (len(offsets), seeds, examples)
    )
    x_ASE += np.array(offsets)[:, None, None]
    return Scores("eval_loss", tuple("abcdefgh"[: len(offsets)]), tuple(range(seeds)), x_ASE)


def judged(offsets, tolerance=None):
    return judge(scored(offsets), tolerance)


def front_of(scores, price):
    parts = components(scores)
    return front(judge(scores), parts, "time", price)


def test_an_arm_is_off_the_front_only_where_arms_that_cost_no_more_rule_it_out():
    scores = scored([0.0, 0.001, 1.0])
    price = {"a": 2.0, "b": 3.0, "c": 4.0}
    found = front_of(scores, price)
    assert found.front == ("a", "b")
    assert [(d.arm, d.by in ("a", "b")) for d in found.dominated] == [("c", True)]
    assert front_of(scores, price | {"c": 1.0}).front == ("c", "a", "b")
    assert front_of(scores, {"a": 2.0}).unpriced == ("b", "c")


def test_a_ruled_out_arm_is_not_on_the_front_beside_the_best_at_equal_cost():
    """Not even where the bounds for all pairs at once would leave it there."""
    found = 0
    for seed in range(6):
        scores = scored(0.05 * np.arange(5), seeds=2, examples=60, seed=seed)
        verdict = judge(scores)
        costs = front_of(scores, dict.fromkeys(scores.arms, 1.0))
        assert costs.front == tuple(a for a in verdict.tie_group)
        assert len(costs.dominated) == 5 - len(verdict.tie_group)
        best = verdict.pairs.arms.index(str(verdict.best))
        left = [d.arm for d in costs.dominated]
        found += sum(not verdict.pairs.decided_AA[scores.arms.index(a), best] for a in left)
    assert found > 0


def test_an_arm_that_dearer_ones_rule_out_stays_on_the_front():
    scores = scored([0.0, 1.0, 1.0, 1.0])
    price = {"a": 4.0, "b": 1.0, "c": 2.0, "d": 3.0}
    assert judge(scores).tie_group == ("a",)
    assert front_of(scores, price).front == ("b", "c", "d", "a")


def test_costs_that_differ_by_less_than_they_vary_count_as_equal():
    scores = scored([0.0, 1.0])
    assert front_of(scores, {"a": 1.01, "b": 1.0}).front == ("a",)
    assert front_of(scores, {"a": 1.03, "b": 1.0}).front == ("b", "a")
    verdict = judge(scored([0.0, 0.001]))
    best, other = verdict.tie_group
    assert recommend(verdict, "time", {best: 1.01, other: 1.0}).cheaper is None
    assert recommend(verdict, "time", {best: 1.03, other: 1.0}).cheaper.arm == other


def test_nothing_is_off_the_front_where_the_noise_is_unknown():
    scores = Scores("eval_loss", ("a", "b"), (0,), x_AS=np.array([[1.0], [2.0]]))
    assert front_of(scores, {"a": 1.0, "b": 2.0}).front == ("a", "b")


def test_without_a_tolerance_the_best_mean_is_recommended_beside_the_cheapest_of_the_tie():
    verdict = judged([0.0, 0.001, 1.0])
    choice = recommend(verdict, "time", {"a": 5.0, "b": 3.0, "c": 1.0}, {"a": 9, "b": 9, "c": 4})
    assert choice.arm == "a"
    assert choice.cheaper == verdict.distance("b")
    assert choice.distance == verdict.distance("a")
    assert choice.candidates == ("a", "b")
    assert choice.alternative.arm == "c"
    assert not choice.alternative.tied
    assert (choice.alternative.memory, choice.alternative.saved) == (4, 5)
    assert (choice.alternative.difference.arm, choice.alternative.difference.other) == ("c", "a")
    assert choice.alternative.difference.low > 0


def test_the_cheapest_arm_within_the_tolerance_is_recommended_though_it_is_ruled_out():
    price = {"a": 5.0, "b": 3.0, "c": 1.0}
    for tolerance, arm in ((2.0, "c"), (0.9, "b"), (1e-9, "a")):
        verdict = judged([0.0, 0.001, 1.0], tolerance)
        assert "c" not in verdict.tie_group
        assert recommend(verdict, "time", price).arm == arm


def test_a_winner_is_recommended_whatever_it_costs():
    choice = recommend(judged([0.0, 1.0, 1.0]), "time", {"a": 99.0, "b": 1.0, "c": 1.0})
    assert choice.arm == "a"
    assert choice.candidates == ("a",)


def test_nothing_is_recommended_where_nothing_can_be_told():
    scores = Scores("eval_loss", ("a", "b"), (0,), x_AS=np.array([[1.2727], [1.2738]]))
    assert recommend(judge(scores), "time", {"a": 1.0, "b": 2.0}).arm is None


def test_a_recommendation_is_ready_for_json():
    found = recommend(judged([0.0, 0.5]), "time", {"a": 1.0, "b": 2.0})
    json.dumps(asdict(found), allow_nan=False)
