"""Configurations in blocks: differences are taken inside them, and a changing order is noticed."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from rankwise.analysis.blocks import compare_blocks, order_of_pair
from rankwise.analysis.design import fit_design
from rankwise.analysis.scores import Scores
from rankwise.analysis.variance import components
from rankwise.analysis.verdict import judge

CONTEXTS = [{"model": model, "task": task} for model, task in product("ab", "uvwxyz")]


def scores(x_AS):
    names = tuple(f"arm{a}" for a in range(len(x_AS)))
    return Scores("eval_loss", names, tuple(range(x_AS.shape[1])), x_AS=x_AS)


def judged(runs, contexts=CONTEXTS):
    """The verdict over all blocks and the blocks; `runs` holds (arms, seeds) of each."""
    means = scores(np.stack([x_AS.mean(axis=1) for x_AS in runs], axis=1))
    verdict = judge(means)
    names = [str(context) for context in contexts]
    return verdict, compare_blocks(names, contexts, [scores(x) for x in runs], verdict, means)


def drawn(gain_AK, seeds=4, seed=0, sd=1.0):
    """Runs of blocks of very different level, with these true means of each arm in each."""
    rng = np.random.default_rng(seed)
    level_K = rng.normal(0, 100, gain_AK.shape[1])
    return [
        level + gain_A[:, None] + sd * rng.standard_normal((len(gain_A), seeds))
        for level, gain_A in zip(level_K, gain_AK.T, strict=True)
    ]


def test_two_configurations_over_blocks_get_the_paired_t_interval_of_the_block_means():
    runs = drawn(np.zeros((2, 12)))
    verdict, _ = judged(runs)
    first_K, second_K = np.stack([x_AS.mean(axis=1) for x_AS in runs], axis=1)
    found = verdict.difference("arm0", "arm1")
    expected = stats.ttest_rel(first_K, second_K)
    assert [found.low, found.high] == pytest.approx(list(expected.confidence_interval()))


def test_a_small_difference_inside_blocks_is_found_though_blocks_differ_by_far_more():
    gain_AK = np.zeros((3, 12))
    gain_AK[1] = -3.0
    verdict, found = judged(drawn(gain_AK))
    assert verdict.winner == "arm1"
    assert found.won_A["arm1"] == 12
    assert found.rank_A["arm1"] == 1.0
    assert found.reversals == ()


def test_an_order_that_turns_in_one_task_is_counted_tested_and_located():
    gain_AK = np.zeros((2, 12))
    gain_AK[1] = 4.0
    of_task = [k for k, context in enumerate(CONTEXTS) if context["task"] == "z"]
    gain_AK[1, of_task] = -4.0
    verdict, found = judged(drawn(gain_AK, sd=0.5))
    (pair,) = found.order
    assert verdict.best == "arm0"
    assert (pair.better, pair.worse, pair.blocks) == (2, 10, 12)
    assert pair.surely_better == 2
    assert pair.by_noise < 0.1
    assert pair.p < 0.001
    assert pair.spread == pytest.approx(np.std(gain_AK[1], ddof=1), rel=0.15)
    (place,) = found.reversals
    assert (place.column, place.value, place.arm) == ("task", "z", "arm1")
    assert place.low < 4 < place.high


def test_equal_configurations_change_order_as_often_as_noise_says():
    _, found = judged(drawn(np.zeros((2, 12)), seed=3))
    (pair,) = found.order
    assert pair.surely_better == pair.surely_worse == 0
    assert pair.p > 0.05
    assert 2 < pair.by_noise <= 6


def test_many_sizes_of_one_model_are_no_sample_of_models():
    contexts = [{"model": m, "n": n} for m, n in product("ab", range(12))]
    gain_AK = np.zeros((2, 24))
    gain_AK[1, :12], gain_AK[1, 12:] = 1.0, 5.0  # the sizes agree; the two models do not
    _, found = judged(drawn(gain_AK, sd=0.1), contexts)
    by_model, by_size = found.across
    assert (by_model.column, by_model.values, by_model.winner) == ("model", 2, None)
    assert (by_size.column, by_size.values, by_size.winner) == ("n", 12, "arm0")


def test_without_reruns_a_block_decides_nothing_and_the_blocks_together_do():
    gain_AK = np.zeros((2, 12))
    gain_AK[1] = 3.0
    verdict, found = judged(drawn(gain_AK, seeds=1))
    assert {one.claim for one in found.verdicts} == {"nothing"}
    assert found.order[0].by_noise is None
    assert found.order[0].surely_worse == 0
    assert verdict.winner == "arm0"


def test_an_arm_that_is_missing_where_all_are_bad_gains_nothing_by_that():
    gain_AK = np.zeros((3, 6))
    contexts = [{"task": k} for k in range(6)]
    runs = drawn(gain_AK, sd=0.1)
    worst = int(np.argmax([x_AS.mean() for x_AS in runs]))
    runs[worst][1] = np.nan
    means = scores(np.stack([x_AS.mean(axis=1) for x_AS in runs], axis=1))
    verdict = judge(means)
    found = compare_blocks(
        [str(c) for c in contexts], contexts, [scores(x) for x in runs], verdict, means
    )
    fitted = {arm.arm: arm.fitted for arm in verdict.arms}
    assert fitted["arm1"] == pytest.approx(fitted["arm0"], abs=0.5)
    assert {pair.blocks for pair in found.order if "arm1" in (pair.arm, pair.other)} == {5}


def test_the_test_of_one_difference_is_f_where_all_blocks_are_equally_noisy():
    rng = np.random.default_rng(1)
    x_AS = rng.standard_normal((2, 5))
    gains = rng.standard_normal(6)
    parts = [components(scores(x_AS + np.array([[0.0], [gain]]))) for gain in gains]
    differences = [part.fitted_A[1] - part.fitted_A[0] for part in parts]
    within = np.var(x_AS[1] - x_AS[0], ddof=1) / 5
    expected = stats.f.sf(np.var(differences, ddof=1) / within, 5, 6 * 4)
    assert order_of_pair(parts, "arm1", "arm0").p == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(40))
def test_the_fit_of_arms_and_seeds_is_that_of_the_pseudo_inverse(seed):
    rng = np.random.default_rng(seed)
    there_AS = rng.random(rng.integers(1, 9, size=2)) < rng.uniform(0.2, 1)
    there_AS[np.arange(len(there_AS)), rng.integers(0, there_AS.shape[1], len(there_AS))] = True
    arm_R, seed_R = np.nonzero(there_AS)
    arms_RA = np.eye(len(there_AS))[arm_R]
    seeds_RS = np.eye(there_AS.shape[1])[seed_R][:, there_AS.any(axis=0)]
    both = np.hstack([arms_RA, seeds_RS])
    paired = np.linalg.matrix_rank(both) == both.shape[1] - 1
    design = both if paired else arms_RA
    inverse = np.linalg.pinv(design)
    coef_AR = inverse[: len(there_AS)]
    if paired:
        coef_AR = coef_AR + inverse[len(there_AS) :].mean(axis=0)
    found = fit_design(arm_R, seed_R)
    assert found.paired == paired
    assert found.df == len(arm_R) - np.linalg.matrix_rank(design)
    np.testing.assert_allclose(found.coef_AR, coef_AR, atol=1e-12)
    rest_RR = found.block(np.arange(len(arm_R)))
    np.testing.assert_allclose(rest_RR, np.eye(len(arm_R)) - design @ inverse, atol=1e-12)
    y_RX = rng.standard_normal((len(arm_R), 3))
    np.testing.assert_allclose(found.residuals(y_RX), rest_RR @ y_RX, atol=1e-12)
