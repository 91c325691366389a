"""The replay that policies are measured on: what is paid, what decides, and who is compared."""

import numpy as np
import pytest

from benchmark_scripts import script


@pytest.fixture(scope="module")
def bench():
    """`benchmarks/race.py`, and a simulated problem of 24 configurations and 3 seeds."""
    with script("race") as module:
        yield module, module.problem_of("simulated-0")


def test_half_of_the_groups_decide_and_the_other_half_judges(bench):
    module, curves = bench
    replay = module.repetition(curves, 3)
    groups_E = curves.groups_E
    decide, judge = set(groups_E[replay.decide_E]), set(groups_E[replay.judge_E])
    assert not decide & judge
    assert decide | judge == set(groups_E)
    assert abs(len(decide) - len(judge)) <= 1


def test_a_repetition_is_the_same_in_every_call_and_others_differ(bench):
    module, curves = bench
    one, again, other = (module.repetition(curves, number) for number in (3, 3, 4))
    assert (one.order, one.seeds) == (again.order, again.seeds)
    np.testing.assert_array_equal(one.decide_E, again.decide_E)
    assert one.order != other.order


def test_a_run_is_paid_for_up_to_where_it_was_trained_and_shows_no_more(bench):
    module, curves = bench
    replay = module.repetition(curves, 0)
    arm, seed = replay.order[0], replay.seeds[0]
    replay.train(arm, seed, 0.3)
    assert replay.budget == pytest.approx(0.3)
    run = replay.seen().runs[arm, seed]
    assert (max(run.curve), run.finished, run.result) == (0.3, False, None)
    replay.train(arm, seed, 1.0)
    assert replay.budget == pytest.approx(1.0)
    assert replay.seen().runs[arm, seed].finished


def test_every_policy_keeps_its_budget_and_recommends_what_it_trained(bench):
    module, curves = bench
    for name, policy in module.POLICIES.items():
        replay = module.repetition(curves, 1)
        done = policy(replay, 12.0)
        whole = 72.0 if name == "full grid" else 12.0
        # Halving pays for a whole rung at a time.
        assert done.budget <= whole + 1.0, name
        assert any(arm == done.recommended for arm, _ in replay.trained), name


def test_a_race_never_spends_more_than_its_budget(bench):
    module, curves = bench
    for budget in (3.0, 9.0, 18.0):
        replay = module.repetition(curves, 1)
        done = module.race(replay, budget)
        assert done.budget <= budget + 1e-9
        assert done.budget == pytest.approx(replay.budget)


def test_the_truth_is_that_of_the_judging_examples_at_the_step_that_the_others_choose(bench):
    module, curves = bench
    replay = module.repetition(curves, 2)
    arm = replay.order[0]
    a = curves.configs.index(arm)
    w_E = curves.weights_E / curves.weights_E.sum()
    expected = []
    for s in range(len(curves.seeds)):
        x_TE = curves.x_ASTE[a, s]
        step = np.argmin(np.average(x_TE[:, replay.decide_E], axis=1, weights=w_E[replay.decide_E]))
        expected.append(np.average(x_TE[step, replay.judge_E], weights=w_E[replay.judge_E]))
    assert replay.truth[arm] == pytest.approx(np.mean(expected))


def test_what_is_stopped_of_the_tie_group_is_counted_and_apart_what_of_it_was_near(bench):
    module, curves = bench
    replay = module.repetition(curves, 5)
    truth = replay.truth
    best = min(truth, key=truth.__getitem__)
    far = max(truth, key=truth.__getitem__)
    tied = module.Raced(best, 72.0, (best, far), frozenset())
    row = module.row_of(replay, module.Raced(far, 9.0, (far,), frozenset({best, far})), tied)
    assert (row.killed, row.near, row.best_lost, row.tied) == (2, 1, True, 2)
    assert row.regret == pytest.approx(truth[far] - truth[best])


def test_equal_configurations_race_without_a_winner_and_worse_ones_are_stopped():
    with script("race_equal") as equal:
        names = equal.equal_curves(0, 0).configs
        assert set(names) <= set(equal.equal_curves(0, equal.WORSE).configs)
        replay, done = equal.equal_race(0, equal.WORSE)
        assert done.winner is None
        assert done.stopped
        assert not done.stopped & set(names)
        assert len(equal.covered(replay, names)) > 0
