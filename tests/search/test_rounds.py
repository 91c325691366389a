"""Rounds of seeds go to contenders, stop when the question is settled, and pay for looks."""

from dataclasses import replace

import pytest

from rankwise.analysis.verdict import judge
from rankwise.results.looks import share
from rankwise.search.race import RaceRules
from rankwise.search.rounds import contenders, next_runs, outcome, scores_of
from search_studies import seen_of

RULES = RaceRules(seeds=(0, 1, 2), most_seeds=6)
CURVES = {
    "best": (0.5, 0.4, 0.3, 0.300),
    "tied": (0.5, 0.4, 0.3, 0.305),
    "far": (0.9, 0.9, 0.9, 0.9),
}


def judged(seen, tolerance=None, look=1):
    return judge(scores_of(seen), tolerance, share(look))


def test_after_one_seed_every_arm_with_a_chance_gets_a_second():
    """The verdict knows nothing of seeds yet, so that its tie group alone would be too small."""
    curves = CURVES | {"near": (0.5, 0.4, 0.3, 0.33)}
    seen = seen_of(curves)
    verdict = judged(seen)
    assert "near" not in verdict.tie_group
    assert next_runs(seen, verdict, RULES, 10) == (("best", 1), ("tied", 1), ("near", 1))


def test_contenders_are_the_tie_group_without_stopped_arms():
    seen = seen_of(CURVES, seeds=(0, 1), seed_noise=0.01)
    verdict = judged(seen)
    assert set(contenders(seen, verdict, RULES)) == {"best", "tied"}
    assert contenders(seen, verdict, RULES, {"best"}) == ("tied",)


def test_contenders_with_fewer_seeds_come_first_and_further_seeds_follow_the_planned_ones():
    seen = seen_of(CURVES, seeds=(0, 1, 2), seed_noise=0.01)
    behind = {key: run for key, run in seen.runs.items() if key != ("tied", 2)}
    less = replace(seen, runs=behind)
    assert next_runs(less, judged(less), RULES, 10) == (("tied", 2),)
    assert set(next_runs(seen, judged(seen), RULES, 10)) == {("best", 3), ("tied", 3)}


def test_rounds_end_when_one_is_set_apart():
    apart = {"best": (0.5, 0.4, 0.3, 0.3), "far": (0.9, 0.9, 0.9, 0.9), "more": (1, 1, 1, 1.0)}
    seen = seen_of(apart, seeds=(0, 1, 2), seed_noise=0.01)
    verdict = judged(seen)
    assert verdict.winner == "best"
    assert next_runs(seen, verdict, RULES, 10) == ()
    assert outcome(verdict, ("best",)) == "winner"


def test_rounds_end_when_all_that_are_left_are_shown_equal():
    seen = seen_of(CURVES, seeds=(0, 1, 2), seed_noise=0.01)
    assert next_runs(seen, judged(seen), RULES, 10)
    verdict = judged(seen, tolerance=0.1)
    assert next_runs(seen, verdict, RULES, 10) == ()
    assert outcome(verdict, contenders(seen, verdict, RULES)) == "shown equal"


def test_rounds_end_with_the_budget_and_never_give_one_contender_a_seed_alone():
    seen = seen_of(CURVES, seeds=(0, 1), seed_noise=0.01)
    verdict = judged(seen)
    assert len(next_runs(seen, verdict, RULES, 2)) == 2
    assert next_runs(seen, verdict, RULES, 1.5) == ()
    assert next_runs(seen, verdict, RULES, 2, cost={"best": 1.0, "tied": 1.5, "far": 1.0}) == ()


def test_rounds_end_at_the_most_seeds():
    seen = seen_of(CURVES, seeds=range(6), seed_noise=0.01)
    verdict = judged(seen)
    assert len(contenders(seen, verdict, RULES)) == 2
    assert next_runs(seen, verdict, RULES, 100) == ()


def test_later_looks_are_paid_for():
    """The same results, judged at a later look, need more to be set apart."""
    curves = {"best": (0.5, 0.4, 0.3, 0.3), "next": (0.5, 0.4, 0.3, 0.339)}
    seen = seen_of(curves, seeds=(0, 1, 2), seed_noise=0.01)
    assert judged(seen).winner == "best"
    assert judged(seen, look=4).winner is None
    assert next_runs(seen, judged(seen, look=4), RULES, 10)


def test_scores_hold_the_finished_runs_alone():
    seen = seen_of(CURVES, reached={"far": 0.75}, seeds=(0, 1))
    scores = scores_of(seen)
    assert scores.arms == ("best", "tied")
    assert scores.x_ASE.mean(axis=(1, 2))[0] == pytest.approx(
        float(seen.runs["best", 0].result.mean() + seen.runs["best", 1].result.mean()) / 2
    )
    assert scores_of(seen_of(CURVES, reached=dict.fromkeys(CURVES, 0.5))) is None
