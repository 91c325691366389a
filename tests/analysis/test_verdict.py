"""The verdict against scipy and statsmodels, and the claims it must never make."""

import dataclasses
import doctest
import json
import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from rankwise import text as wording
from rankwise.analysis.comparisons import detectable, holm_all_pairs, holm_with_best, power_of_t
from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import judge
from rankwise.errors import DataError
from rankwise.report.document import clean
from rankwise.report.words import deciding, headline, settlement, verdict_sentences


def names(n):
    return tuple(f"arm{i}" for i in range(n))


def by_example(x_ASE, **more):
    return Scores("eval_loss", names(len(x_ASE)), tuple(range(x_ASE.shape[1])), x_ASE, **more)


def by_run(x_AS, **more):
    return Scores("eval_loss", names(len(x_AS)), tuple(range(x_AS.shape[1])), x_AS=x_AS, **more)


def noisy(arms, seeds, examples, seed=0, seed_sd=0.05):
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((1, 1, examples))
    own = seed_sd * rng.standard_normal((arms, seeds, 1))
    return common + own + rng.standard_normal((arms, seeds, examples))


def test_one_seed_gives_the_paired_t_interval_over_examples():
    x_ASE = noisy(2, 1, 60)
    found = judge(by_example(x_ASE)).difference("arm0", "arm1")
    expected = stats.ttest_rel(x_ASE[0, 0], x_ASE[1, 0])
    assert [found.low, found.high] == pytest.approx(list(expected.confidence_interval()))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.df == pytest.approx(59)


def test_two_arms_without_examples_give_the_paired_t_interval_over_seeds():
    x_AS = noisy(2, 5, 1)[:, :, 0]
    found = judge(by_run(x_AS)).difference("arm0", "arm1")
    expected = stats.ttest_rel(x_AS[0], x_AS[1])
    assert [found.low, found.high] == pytest.approx(list(expected.confidence_interval()))


@pytest.mark.parametrize("lost", [(), ((0, 1), (2, 0), (3, 3))])
def test_runs_without_examples_give_the_block_regression_of_statsmodels(lost):
    x_AS = noisy(4, 4, 1, seed=3)[:, :, 0]
    for run in lost:
        x_AS[run] = np.nan
    verdict = judge(by_run(x_AS))
    arm_R, seed_R = np.nonzero(np.isfinite(x_AS))
    design = np.hstack([np.eye(4)[arm_R], np.eye(4)[seed_R][:, 1:]])
    fit = sm.OLS(x_AS[arm_R, seed_R], design).fit()
    for a, b in ((0, 1), (2, 3), (0, 3)):
        contrast = np.zeros(design.shape[1])
        contrast[a], contrast[b] = 1, -1
        expected = fit.t_test(contrast)
        found = verdict.difference(f"arm{a}", f"arm{b}")
        assert found.value == pytest.approx(float(expected.effect[0]))
        assert [found.low, found.high] == pytest.approx(expected.conf_int()[0].tolist())


def test_groups_give_the_cluster_interval_of_statsmodels():
    x_ASE = noisy(2, 1, 90)
    groups = (np.arange(90) ** 2 // 300).tolist()
    found = judge(by_example(x_ASE, groups_E=groups)).difference("arm0", "arm1")
    d_E = x_ASE[0, 0] - x_ASE[1, 0]
    fit = sm.OLS(d_E, np.ones(90)).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(groups), "df_correction": False}
    )
    count = len(set(groups))
    plain = float(fit.bse[0]) / np.sqrt(_statsmodels_correction(90, count))
    error = plain * np.sqrt(count / (count - 1))
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, count - 1) * error)


def _statsmodels_correction(n, groups):
    return groups / (groups - 1) * (n - 1) / (n - 1)


def test_weights_give_the_weighted_mean():
    x_ASE = noisy(1, 1, 20)
    weights = np.linspace(1, 3, 20)
    verdict = judge(by_example(x_ASE, weights_E=weights.tolist()))
    assert verdict.arms[0].mean == pytest.approx(np.average(x_ASE[0, 0], weights=weights))


def test_one_seed_never_declares_a_winner():
    x_ASE = noisy(3, 1, 200)
    x_ASE[1] -= 5
    verdict = judge(by_example(x_ASE))
    assert verdict.winner is None
    assert verdict.stands_out == "arm1"
    assert "no winner is declared" in headline(verdict, 4)


def test_nothing_to_go_on_says_cannot_tell():
    verdict = judge(by_run(np.array([[1.2727], [1.2738], [1.2876]])))
    assert clean(headline(verdict, 4)).startswith("Cannot tell")
    assert "0.0011" in headline(verdict, 4)
    assert verdict.tie_group == ("arm0", "arm1", "arm2")
    assert verdict.detectable is None
    assert verdict.difference("arm0", "arm1").low is None


def test_a_planted_winner_is_named_with_the_sign_that_the_metric_asks_for():
    x_ASE = noisy(4, 3, 300)
    x_ASE[2] += 1
    assert judge(by_example(x_ASE, lower_is_better=False)).winner == "arm2"
    x_ASE[2] -= 2
    verdict = judge(by_example(x_ASE))
    assert verdict.winner == "arm2"
    assert verdict.difference("arm2", "arm0").better == "arm2"


def test_a_failed_arm_is_counted_and_never_ranked():
    x_ASE = noisy(3, 2, 50)
    x_ASE[0] = np.nan
    x_ASE[1, 0, 7] = np.inf
    verdict = judge(by_example(x_ASE))
    failed, partly, whole = verdict.arms
    assert (failed.finished, failed.missing, failed.place, failed.mean) == (0, 2, None, None)
    assert (partly.finished, partly.missing) == (1, 1)
    assert whole.missing == 0
    assert "arm0" not in verdict.tie_group
    assert any(clean(s).startswith("arm0 is not ranked") for s in verdict_sentences(verdict, 4))


def test_no_finished_run_at_all_is_said():
    verdict = judge(by_run(np.full((2, 3), np.nan)))
    assert clean(headline(verdict, 4)).startswith("No run has finished")
    assert verdict.tie_group == ()


def test_arms_without_a_common_seed_are_compared_unpaired():
    nan = np.nan
    x_AS = np.array([[1.0, 1.2, nan, nan], [nan, nan, 1.5, 1.9]])
    verdict = judge(by_run(x_AS))
    expected = stats.ttest_ind(x_AS[0, :2], x_AS[1, 2:]).confidence_interval()
    found = verdict.difference("arm0", "arm1")
    assert not verdict.paired
    assert [found.low, found.high] == pytest.approx(list(expected))


def test_the_same_run_under_two_names_is_a_tie_with_p_one():
    x_ASE = np.repeat(noisy(1, 3, 40), 2, axis=0)
    verdict = judge(by_example(x_ASE))
    assert verdict.difference("arm0", "arm1").p == 1
    assert set(verdict.tie_group) == {"arm0", "arm1"}
    assert "the observed difference is zero" in settlement(verdict, verdict.settlements[0])


def test_equal_answers_on_every_item_do_not_prove_equal_arms():
    x_ASE = np.ones((2, 1, 50))
    found = judge(by_example(x_ASE, lower_is_better=False)).difference("arm0", "arm1")
    assert found.low < 0 < found.high


def test_an_unstable_arm_is_judged_by_its_own_spread():
    x_AS = 0.01 * noisy(6, 4, 1, seed=1)[:, :, 0]
    x_AS[0] += [1.0, -1.0, 0.7, -0.4]
    verdict = judge(by_run(x_AS))
    assert [arm.unstable for arm in verdict.arms] == [True] + [False] * 5
    with_it, without = verdict.difference("arm0", "arm1"), verdict.difference("arm1", "arm2")
    assert with_it.high - with_it.low > 10 * (without.high - without.low)
    clean = judge(by_run(x_AS[1:])).difference("arm0", "arm1")
    assert [without.low, without.high] == pytest.approx([clean.low, clean.high])


def test_an_arm_is_unstable_where_its_f_test_says_so_for_as_many_arms():
    """In the first look; the misfit of an arm is what its runs add to the sum of squares."""
    said = []
    for seed in range(60):
        x_AS = noisy(5, 4, 1, seed=seed, seed_sd=0.0)[:, :, 0]
        x_AS[0] *= 2.5
        everything, df = two_way(x_AS)
        ps = []
        for arm in range(5):
            rest, rest_df = two_way(np.delete(x_AS, arm, axis=0))
            own = (everything * df - rest * rest_df) / (df - rest_df)
            ps.append(stats.f.sf(own / rest, df - rest_df, rest_df))
        unstable = any(arm.unstable for arm in judge(by_run(x_AS)).arms)
        assert unstable == (5 * min(ps) < 0.05)
        said.append((unstable, min(ps) < 0.05))
    assert {(True, True), (False, True), (False, False)} == set(said)


def test_a_test_size_gives_binomial_intervals():
    accuracies = np.array([[0.48], [0.54]])
    verdict = judge(by_run(accuracies, test_size=1319, lower_is_better=False))
    low, high = proportion_confint(0.48 * 1319, 1319, method="wilson")
    assert [verdict.arms[0].low, verdict.arms[0].high] == pytest.approx([low, high])
    found = verdict.difference("arm1", "arm0")
    error = np.sqrt((0.48 * 0.52 + 0.54 * 0.46) / 1319)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.01)
    assert verdict.claim == "examples"


def test_the_verdict_does_not_depend_on_the_order_of_arms_seeds_or_examples():
    x_ASE = noisy(4, 3, 30)
    x_ASE[1, 2] = np.nan
    plain = judge(by_example(x_ASE))
    rng = np.random.default_rng(1)
    a, s, e = (rng.permutation(n) for n in x_ASE.shape)
    other = judge(
        Scores("eval_loss", tuple(np.array(names(4))[a]), (5, 6, 7), x_ASE[a][:, s][:, :, e])
    )
    assert plain.tie_group == other.tie_group
    for one, two in (("arm0", "arm1"), ("arm1", "arm3")):
        first, second = plain.difference(one, two), other.difference(one, two)
        assert [first.low, first.high] == pytest.approx([second.low, second.high])


def test_noise_floor_is_the_pooled_standard_deviation_over_seeds():
    x_AS = noisy(5, 3, 1)[:, :, 0]
    verdict = judge(by_run(x_AS))
    assert verdict.noise.within == pytest.approx(np.sqrt(x_AS.var(axis=1, ddof=1).mean()))
    square, df = two_way(x_AS)
    shared = 10 * x_AS.var(axis=1, ddof=1).mean() - square * df  # with 2 degrees of freedom
    df = (square * df + shared) ** 2 / ((square * df) ** 2 / df + shared**2 / 2)
    bounds = verdict.noise.within * np.sqrt(df / stats.chi2.ppf([0.975, 0.025], df))
    assert [verdict.noise.low, verdict.noise.high] == pytest.approx(bounds.tolist())
    assert verdict.noise.paired == pytest.approx(np.sqrt(square))


def test_comparison_with_the_best_pays_for_having_looked():
    adjusted = holm_with_best(np.array([np.nan, 0.001, 0.04, 0.03]), best=0)
    assert adjusted.tolist() == pytest.approx([1.0, 0.006, 0.09, 0.09])


def test_all_pairs_are_adjusted_as_statsmodels_does():
    p_AA = np.ones((4, 4))
    upper = np.triu_indices(4, 1)
    p_AA[upper] = [0.001, 0.2, 0.012, 0.03, 0.004, 0.6]
    p_AA = np.minimum(p_AA, p_AA.T)
    expected = multipletests(p_AA[upper], method="holm")[1]
    assert holm_all_pairs(p_AA)[upper] == pytest.approx(expected)


def test_detectable_difference_has_the_power_that_statsmodels_computes():
    value = detectable(error=0.5, df=9, level=0.05, power=0.9)
    power = TTestPower().power(effect_size=value / (0.5 * np.sqrt(10)), nobs=10, alpha=0.05)
    assert power == pytest.approx(0.9, abs=1e-6)
    assert power_of_t(value / 0.5, 9, 0.05) == pytest.approx(0.9, abs=1e-6)
    assert detectable(error=1.0, df=np.inf, level=0.05, power=0.8) == pytest.approx(
        2.8016, abs=1e-4
    )


def test_seeds_to_settle_a_tie_agree_with_the_power_of_a_paired_t_test():
    x_AS = np.array([[0.0, 0.4, -0.2, 0.3], [0.3, 0.2, 0.5, 0.1]])
    needed = judge(by_run(x_AS)).settlements[0].seeds
    d_S = x_AS[0] - x_AS[1]
    effect = abs(d_S.mean()) / d_S.std(ddof=1)
    enough = TTestPower().solve_power(effect_size=effect, power=0.9, alpha=0.05)
    assert needed == math.ceil(enough) > 4


def two_way(x_AS):
    """Mean square of what arms and seeds leave, and its degrees of freedom."""
    off_AS = x_AS - x_AS.mean(0) - x_AS.mean(1, keepdims=True) + x_AS.mean()
    df = (x_AS.shape[0] - 1) * (x_AS.shape[1] - 1)
    return (off_AS**2).sum() / df, df


def t_power(difference, error, df, level):
    """Chance that a two-sided t test finds a difference, by scipy."""
    return stats.nct.sf(stats.t.ppf(1 - level / 2, df), df, difference / error)


def test_seeds_to_settle_one_of_many_ties_pay_for_all_of_them():
    x_AS = noisy(4, 5, 1)[:, :, 0]
    verdict = judge(by_run(x_AS))
    assert len(verdict.tie_group) == 4
    square, _ = two_way(x_AS)

    def power(seeds, difference):
        return t_power(difference, np.sqrt(2 * square / seeds), 3 * (seeds - 1), 0.05 / 6)

    for one in verdict.settlements:
        assert one.power == 0.9
        assert power(one.seeds, abs(one.difference)) >= 0.9
        assert power(one.seeds - 1, abs(one.difference)) < 0.9


def test_the_detectable_difference_has_its_power_in_the_strictest_comparison():
    x_AS = noisy(4, 5, 1)[:, :, 0]
    found = judge(by_run(x_AS)).detectable
    square, df = two_way(x_AS)
    assert found.level == pytest.approx(0.05 / 6)
    power = t_power(found.value, np.sqrt(2 * square / 5), df, 0.05 / 6)
    assert power == pytest.approx(0.9, abs=1e-6)


def test_the_detectable_difference_is_found_with_its_chance_or_more():
    """Studies in which one arm is better by what a study of the same kind calls detectable."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(100):
        detectable_now = judge(by_run(rng.standard_normal((4, 4)))).detectable
        x_AS = rng.standard_normal((4, 4))
        x_AS[0] -= detectable_now.value
        found += judge(by_run(x_AS)).winner == "arm0"
    assert detectable_now.power == 0.8
    assert 72 <= found <= 96  # 99 % of draws are no lower where the chance is 80 %


def test_intervals_are_those_of_seeds_and_examples_together():
    """Two arms, three seeds: variance and degrees of freedom by hand, from mean squares."""
    x_ASE = noisy(2, 3, 40, seed=6, seed_sd=0.3)
    d_SE = x_ASE[0] - x_ASE[1]
    d_S, d_E = d_SE.mean(1), d_SE.mean(0)
    off_SE = d_SE - d_S[:, None] - d_E + d_SE.mean()
    rest = (off_SE**2).sum() / (2 * 39)
    parts = np.array([d_S.var(ddof=1) / 3, d_E.var(ddof=1) / 40, rest / 120])
    variance = parts[0] + parts[1] - parts[2]
    assert variance > parts[1]
    df = variance**2 / (parts**2 / [2, 39, 78]).sum()
    found = judge(by_example(x_ASE)).difference("arm0", "arm1")
    assert found.df == pytest.approx(max(df, 2))
    half = stats.t.ppf(0.975, max(df, 2)) * np.sqrt(variance)
    assert [found.low, found.high] == pytest.approx([d_SE.mean() - half, d_SE.mean() + half])


def test_examples_to_settle_a_tie_are_enough_when_they_come():
    verdict = judge(by_example(noisy(2, 1, 100, seed=4)))
    tie = verdict.settlements[0]
    assert tie.seeds is None
    assert "a second seed is needed" in settlement(verdict, tie)
    more = noisy(2, 1, tie.examples, seed=5)
    more -= more.mean(axis=2, keepdims=True)
    more[1] += abs(tie.difference)
    assert judge(by_example(more)).stands_out == "arm0"
    fewer = more[:, :, : tie.examples // 20]
    fewer = fewer - fewer.mean(axis=2, keepdims=True)
    fewer[1] += abs(tie.difference)
    assert judge(by_example(fewer)).stands_out is None


def test_arms_that_nothing_would_settle_are_named_in_one_sentence():
    x_AS = 1e-7 * np.arange(6)[:, None] + np.random.default_rng(3).normal(0, 0.1, (6, 3))
    x_AS += (1e-7 * np.arange(6) - x_AS.mean(axis=1))[:, None]
    x_AS[5] -= x_AS[5].mean() - 0.2
    verdict = judge(by_run(x_AS))
    stuck = [s.arm for s in verdict.settlements if s.seeds is None and s.examples is None]
    assert stuck == list(names(6)[1:5])
    (far, joined) = map(clean, deciding(verdict))
    assert far.startswith(f"{names(6)[5]} against")
    assert joined.startswith(f"{wording.names(stuck)} against {names(6)[0]}: neither 1,000 seeds")
    assert joined.endswith("would be enough to decide any of these comparisons.")


def test_a_verdict_is_ready_for_json():
    verdict = judge(by_example(noisy(3, 2, 20)))
    facts = dataclasses.asdict(verdict)
    del facts["pairs"]
    assert json.loads(json.dumps(facts))["tie_group"] == list(verdict.tie_group)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x_AS": np.zeros((2, 3))}, "expected"),
        ({"x_AS": np.full((2, 2), 54.0), "test_size": 100}, "divide percentages"),
        ({"x_ASE": np.zeros((2, 2, 5)), "groups_E": [1, 2]}, "2 entries for 5 examples"),
        ({"x_ASE": np.zeros((2, 2, 5)), "test_size": 5}, "test_size"),
        ({"x_ASE": np.zeros((2, 2, 1)), "weights_E": [0.0]}, "positive"),
        ({}, "one of the two"),
    ],
)
def test_impossible_input_is_refused_with_the_reason(given, message):
    with pytest.raises(DataError, match=message):
        Scores("accuracy", names(2), (0, 1), **given)


def test_equal_means_over_seeds_give_an_interval_and_no_warning():
    x_AS = np.array([[0.5, 0.5, np.nan], [np.nan, np.nan, 0.6]])
    assert judge(by_run(x_AS)).arms[0].low == pytest.approx(0.5)
    odd = 0.001 * noisy(6, 2, 1, seed=2)[:, :, 0]
    odd += [[0.0, 1.0]]
    odd[0] = 0.5
    verdict = judge(by_run(odd))
    assert verdict.arms[0].unstable
    assert verdict.arms[0].low < 0.5 < verdict.arms[0].high


def test_numbers_are_written_as_the_examples_of_wording_say():
    result = doctest.testmod(wording)
    assert result.attempted > 3
    assert result.failed == 0
