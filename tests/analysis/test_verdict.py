"""The verdict against scipy and statsmodels, and the claims it must never make."""

import dataclasses
import doctest
import json

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from rankwise import text as wording
from rankwise.analysis.best import _one_sided, _two_sided, contest, detectable, p_best
from rankwise.analysis.clusters import _variances, spread_of_groups
from rankwise.analysis.comparisons import holm
from rankwise.analysis.planning import _enough, _Goal, _plan, power_of_t
from rankwise.analysis.scores import Scores
from rankwise.analysis.variance import components, symmetric_root
from rankwise.analysis.verdict import judge, with_settlements
from rankwise.errors import DataError
from rankwise.report.changes import deciding, settlement
from rankwise.report.document import clean
from rankwise.report.words import headline, verdict_sentences
from rankwise.text import planned


def names(n):
    return tuple(f"arm{i}" for i in range(n))


def by_example(x_ASE, **more):
    return Scores("eval_loss", names(len(x_ASE)), tuple(range(x_ASE.shape[1])), x_ASE, **more)


def by_run(x_AS, **more):
    return Scores("eval_loss", names(len(x_AS)), tuple(range(x_AS.shape[1])), x_AS=x_AS, **more)


def settled(scores):
    """The verdict with what would decide its ties."""
    return with_settlements(judge(scores), components(scores))


def noisy(arms, seeds, examples, seed=0, seed_sd=0.05):
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((1, 1, examples))
    own = seed_sd * rng.standard_normal((arms, seeds, 1))
    return common + own + rng.standard_normal((arms, seeds, examples))


@dataclasses.dataclass
class Alone:
    """The interval of one pair for itself, as a reference knows it."""

    value: float
    low: float
    high: float
    df: float
    p: float


def alone(verdict, arm, other):
    table = verdict.pairs
    at = table.arms.index(arm), table.arms.index(other)
    rows = (table.value_AA, table.low_AA, table.high_AA, table.df_AA, table.p_AA)
    return Alone(*(float(x_AA[at]) for x_AA in rows))


def test_one_seed_gives_the_paired_t_interval_over_examples():
    x_ASE = noisy(2, 1, 60)
    found = alone(judge(by_example(x_ASE)), "arm0", "arm1")
    expected = stats.ttest_rel(x_ASE[0, 0], x_ASE[1, 0])
    assert [found.low, found.high] == pytest.approx(list(expected.confidence_interval()))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.df == pytest.approx(59)


def test_two_arms_without_examples_give_the_paired_t_interval_over_seeds():
    x_AS = noisy(2, 5, 1)[:, :, 0]
    found = alone(judge(by_run(x_AS)), "arm0", "arm1")
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
        found = alone(verdict, f"arm{a}", f"arm{b}")
        assert found.value == pytest.approx(float(expected.effect[0]))
        assert [found.low, found.high] == pytest.approx(expected.conf_int()[0].tolist())


def test_groups_of_equal_size_give_the_cluster_interval_of_statsmodels():
    x_ASE = noisy(2, 1, 90)
    groups = (np.arange(90) % 15).tolist()
    found = alone(judge(by_example(x_ASE, groups_E=groups)), "arm0", "arm1")
    d_E = x_ASE[0, 0] - x_ASE[1, 0]
    fit = sm.OLS(d_E, np.ones(90)).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(groups), "df_correction": False}
    )
    plain = float(fit.bse[0]) / np.sqrt(_statsmodels_correction(90, 15))
    error = plain * np.sqrt(15 / 14)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 14) * error)


def test_groups_of_unequal_size_count_as_fewer():
    """Factor and degrees of freedom are those of the quadratic form, written out as matrices."""
    rng = np.random.default_rng(0)
    share_G = rng.dirichlet(np.full(12, 0.5))
    s_KG = rng.standard_normal((3, 12)) * share_G
    c_G = _variances(share_G, (s_KG**2).mean(axis=0))
    centre_GG = np.eye(12) - np.outer(share_G, np.ones(12))
    cov_GG = centre_GG @ np.diag(c_G) @ centre_GG.T
    factor, df = spread_of_groups(share_G, s_KG)
    assert factor == pytest.approx(c_G.sum() / np.trace(cov_GG))
    assert df == pytest.approx(max(np.trace(cov_GG) ** 2 / np.trace(cov_GG @ cov_GG), 1))
    assert df < 8
    equal = spread_of_groups(np.full(12, 1 / 12), s_KG)
    assert equal == pytest.approx(spread_of_groups(None, s_KG))
    assert equal == pytest.approx((12 / 11, 11))


def _statsmodels_correction(n, groups):
    return groups / (groups - 1) * (n - 1) / (n - 1)


def test_two_groups_of_examples_say_nothing_of_other_groups():
    x_ASE = noisy(2, 3, 40)
    verdict = judge(by_example(x_ASE, groups_E=[0, 1] * 20))
    assert verdict.claim == "seeds"
    assert any("too few groups" in said for said in verdict_sentences(verdict, 3))
    assert judge(by_example(x_ASE, groups_E=[0, 1, 2, 3] * 10)).claim == "seeds and examples"
    once = judge(by_example(x_ASE[:, :1], groups_E=[0, 1] * 20))
    assert once.claim == "nothing"
    assert any("there are no intervals" in said for said in verdict_sentences(once, 3))


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
    found = alone(verdict, "arm0", "arm1")
    assert not verdict.paired
    assert [found.low, found.high] == pytest.approx(list(expected))


def test_the_same_run_under_two_names_is_a_tie_with_p_one():
    x_ASE = np.repeat(noisy(1, 3, 40), 2, axis=0)
    verdict = settled(by_example(x_ASE))
    assert alone(verdict, "arm0", "arm1").p == 1
    assert set(verdict.tie_group) == {"arm0", "arm1"}
    assert "the observed difference is zero" in settlement(verdict, verdict.settlements[0])


def test_equal_answers_on_every_item_do_not_prove_equal_arms():
    x_ASE = np.ones((2, 1, 50))
    found = alone(judge(by_example(x_ASE, lower_is_better=False)), "arm0", "arm1")
    assert found.low < 0 < found.high


def test_an_unstable_arm_is_judged_by_its_own_spread():
    x_AS = 0.01 * noisy(6, 4, 1, seed=1)[:, :, 0]
    x_AS[0] += [1.0, -1.0, 0.7, -0.4]
    verdict = judge(by_run(x_AS))
    assert [arm.unstable for arm in verdict.arms] == [True] + [False] * 5
    with_it, without = alone(verdict, "arm0", "arm1"), alone(verdict, "arm1", "arm2")
    assert with_it.high - with_it.low > 10 * (without.high - without.low)
    clean = alone(judge(by_run(x_AS[1:])), "arm0", "arm1")
    assert [without.low, without.high] == pytest.approx([clean.low, clean.high])


def test_a_family_of_noisier_arms_shares_its_variance():
    x_AS = 0.01 * noisy(8, 4, 1, seed=1)[:, :, 0]
    x_AS[:3] *= 30
    verdict = judge(by_run(x_AS))
    assert [arm.unstable for arm in verdict.arms] == [True] * 3 + [False] * 5
    everything, df = two_way(x_AS)
    quiet, quiet_df = two_way(x_AS[3:])
    square = (everything * df - quiet * quiet_df) / (df - quiet_df)
    found = alone(verdict, "arm0", "arm1")
    half = stats.t.ppf(0.975, df - quiet_df) * np.sqrt(2 * square / 4)
    assert (found.high - found.low) / 2 == pytest.approx(half)


def test_equal_arms_are_called_noisier_in_one_study_of_twenty():
    rng = np.random.default_rng(0)
    said = [
        any(arm.unstable for arm in judge(by_run(rng.standard_normal((6, 4)))).arms)
        for _ in range(200)
    ]
    assert stats.binomtest(sum(said), 200, 0.05).pvalue > 0.01


def test_two_runs_that_differ_more_than_the_others_make_their_arm_unclear():
    """Its interval is 9.5 standard errors of its own runs, at least."""
    x_AS = noisy(8, 2, 1, seed=4)[:, :, 0]
    x_AS[0] = [1.7, -1.7]
    verdict = judge(by_run(x_AS))
    assert verdict.arms[0].unclear
    assert not verdict.arms[0].unstable
    other = next(arm.arm for arm in verdict.arms if not arm.unclear)
    found = alone(verdict, "arm0", other)
    assert (
        found.high - found.low > 2 * 9.5 * x_AS[0].std(ddof=1) / np.sqrt(2) * np.sqrt(7 / 8) * 0.9
    )


def test_a_test_size_gives_binomial_intervals():
    accuracies = np.array([[0.48], [0.54]])
    verdict = judge(by_run(accuracies, test_size=1319, lower_is_better=False))
    low, high = proportion_confint(0.48 * 1319, 1319, method="wilson")
    assert [verdict.arms[0].low, verdict.arms[0].high] == pytest.approx([low, high])
    found = alone(verdict, "arm1", "arm0")
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
        first, second = alone(plain, one, two), alone(other, one, two)
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


def unpaired(samples):
    """Samples as arms without a common seed."""
    x_AS = np.full((len(samples), sum(map(len, samples))), np.nan)
    starts = np.cumsum([0, *map(len, samples)])
    for a, sample in enumerate(samples):
        x_AS[a, starts[a] : starts[a + 1]] = sample
    return by_run(x_AS)


SAMPLES = [
    np.random.default_rng(9).normal(mean, 1, size)
    for mean, size in ((0.0, 5), (0.8, 6), (1.4, 4), (2.6, 5))
]


def test_all_pairs_have_the_intervals_of_tukey_and_kramer():
    verdict = judge(unpaired(SAMPLES))
    expected = stats.tukey_hsd(*SAMPLES)
    bounds = expected.confidence_interval()
    for a, b in ((0, 1), (0, 3), (2, 3)):
        found = verdict.difference(f"arm{a}", f"arm{b}")
        assert [found.low, found.high] == pytest.approx(
            [bounds.low[a, b], bounds.high[a, b]], rel=0.06
        )
        assert found.p == pytest.approx(expected.pvalue[a, b], abs=0.006)


def test_the_critical_value_of_a_control_is_that_of_dunnett():
    parts = components(unpaired(SAMPLES))
    game = contest(parts, lower_is_better=True)
    others = [SAMPLES[0], SAMPLES[2], SAMPLES[3]]
    expected = stats.dunnett(*others, control=SAMPLES[1], rng=np.random.default_rng(0))
    bounds = expected.confidence_interval()
    error = game.error_AA[[0, 2, 3], 1]
    critical = (bounds.high - bounds.low) / 2 / error
    assert _two_sided(game, 1, 0.95) == pytest.approx(float(critical.mean()), rel=0.02)


def test_an_arm_is_ruled_out_at_a_level_between_one_comparison_and_dunnett():
    parts = components(unpaired(SAMPLES))
    found = p_best(contest(parts, lower_is_better=True))
    for arm in (1, 2, 3):
        others = [sample for a, sample in enumerate(SAMPLES) if a != arm]
        test = stats.dunnett(
            *others, control=SAMPLES[arm], alternative="less", rng=np.random.default_rng(0)
        )
        one = parts.pairs().p_value()[arm, 0] / 2
        assert one <= found[arm] <= float(test.pvalue.min()) + 0.003
    assert found[0] == 1


def test_among_equals_an_arm_is_ruled_out_at_the_level_of_dunnett():
    """Where no arm is shown to be worse, the second step gains nothing."""
    samples = [np.random.default_rng(n).normal(0, 1, 5) for n in range(8)]
    found = p_best(contest(components(unpaired(samples)), lower_is_better=True))
    for arm in np.argsort(found)[:4]:
        others = [sample for a, sample in enumerate(samples) if a != arm]
        test = stats.dunnett(
            *others, control=samples[arm], alternative="less", rng=np.random.default_rng(0)
        )
        assert found[arm] == pytest.approx(float(test.pvalue.min()), rel=0.1, abs=0.005)


def test_arms_far_behind_do_not_make_the_others_harder_to_rule_out():
    """With twenty arms that are nowhere near, p is nearly that of the two alone."""
    x_AS = noisy(22, 6, 1, seed=2, seed_sd=0)[:, :, 0]
    x_AS[1] += 0.9
    x_AS[2:] += 50
    few = judge(by_run(x_AS)).distance("arm1").p
    parts = components(by_run(x_AS))
    one = parts.pairs().p_value()[1, 0] / 2
    assert one <= few <= 1.3 * one
    assert few < 0.3 * 21 * one


def test_a_winner_needs_more_than_to_be_alone_in_the_95_percent_set():
    d_S = np.array([0.0, 1.0, 2.0, 3.0])
    for p, winner in ((0.04, None), (0.02, "arm0")):
        shift = stats.t.isf(p, 3) * d_S.std(ddof=1) / 2 - d_S.mean()
        verdict = judge(by_run(np.array([np.zeros(4), d_S + shift])))
        assert verdict.tie_group == ("arm0",)
        assert verdict.distance("arm1").p == pytest.approx(p)
        assert verdict.winner == winner
        assert ("Nearly decided" in headline(verdict, 3)) == (winner is None)


def test_the_bounds_behind_the_best_are_those_from_every_arm_that_can_be_the_best():
    verdict = judge(by_run(noisy(6, 4, 1, seed=3)[:, :, 0]))
    for one in verdict.distances:
        assert 0 <= one.low <= one.value <= one.high
        assert (one.low == 0) >= (one.arm in verdict.tie_group)
    two = judge(by_run(noisy(2, 5, 1)[:, :, 0]))
    pair = alone(two, two.distances[1].arm, two.best)
    assert two.distances[1].high == pytest.approx(max(pair.high, 0))
    assert two.distances[0].high == pytest.approx(max(-pair.low, 0))


def test_the_bounds_turn_with_the_metric():
    x_ASE = noisy(3, 3, 50)
    low = judge(by_example(x_ASE))
    high = judge(by_example(-x_ASE, lower_is_better=False))
    for one, two in zip(low.distances, high.distances, strict=True):
        assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(two))


def test_equal_within_the_tolerance_is_shown_by_the_bound_and_not_by_the_tie():
    x_ASE = noisy(3, 3, 2000, seed_sd=0.001)
    x_ASE[2] += 1
    tight, wide = judge(by_example(x_ASE), 1e-4), judge(by_example(x_ASE), 0.3)
    assert [arm.equal for arm in tight.arms] == [False, False, False]
    assert [arm.tied for arm in tight.arms] == [True, True, False]
    assert [arm.equal for arm in wide.arms] == [True, True, False]
    assert [arm.equal for arm in judge(by_example(x_ASE)).arms] == [None] * 3


def test_holm_adjusts_as_statsmodels_does():
    p = np.array([0.001, 0.2, 0.012, 0.03, 0.004, 0.6])
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_the_power_is_that_of_statsmodels():
    power = TTestPower().power(effect_size=1.2, nobs=10, alpha=0.05)
    found = power_of_t(np.array(1.2 * np.sqrt(10)), np.array(9.0), 0.05)
    assert float(found) == pytest.approx(power, abs=0.003)


def test_the_detectable_difference_of_two_arms_is_that_of_a_t_test_where_noise_is_known():
    """Nearly so: many runs leave little doubt about the noise."""
    parts = components(by_run(noisy(2, 400, 1)[:, :, 0]))
    game = contest(parts, lower_is_better=True)
    error = float(game.error_AA[0, 1])
    assert _one_sided(game, 0, 0.025) == pytest.approx(1.966, abs=1e-3)
    value, smallest = detectable(game, 0.025, 0.8)
    assert value / error == pytest.approx(1.96 + 0.8416, rel=0.01)
    assert smallest / error == pytest.approx(1.966, abs=1e-3)


def doubtful_power(square, df, difference, seeds, level, df_of_seeds):
    """Chance that a two-sided t test finds a difference, over what the variance may be."""
    factors = df / stats.chi2.ppf((np.arange(15) + 0.5) / 15, df)
    errors = np.sqrt(2 * square * factors / seeds)
    critical = stats.t.ppf(1 - level / 2, df_of_seeds)
    return float(np.mean(stats.nct.sf(critical, df_of_seeds, np.minimum(difference / errors, 500))))


def test_seeds_to_settle_a_tie_have_the_power_of_a_t_test_over_what_the_noise_may_be():
    x_AS = noisy(2, 6, 1, seed=3)[:, :, 0]
    (found,) = settled(by_run(x_AS)).settlements
    assert found.seeds == found.only_seeds
    assert found.examples == 0
    assert found.runs == 2 * (found.seeds - 6)
    square, df = two_way(x_AS)
    power = [
        doubtful_power(square, df, abs(found.difference), seeds, 0.05, seeds - 1)
        for seeds in (found.seeds + 1, found.seeds - 2)
    ]
    assert power[0] > 0.897
    assert power[1] < 0.9


def two_way(x_AS):
    """Mean square of what arms and seeds leave, and its degrees of freedom."""
    off_AS = x_AS - x_AS.mean(0) - x_AS.mean(1, keepdims=True) + x_AS.mean()
    df = (x_AS.shape[0] - 1) * (x_AS.shape[1] - 1)
    return (off_AS**2).sum() / df, df


def test_seeds_to_settle_one_of_many_ties_pay_for_all_of_them():
    x_AS = noisy(4, 5, 1)[:, :, 0]
    verdict = settled(by_run(x_AS))
    assert verdict.settlements
    tied = len(verdict.tie_group) - 1
    assert tied > 1
    square, df = two_way(x_AS)
    for one in verdict.settlements:
        assert one.power == 0.9
        for seeds, holds in ((one.seeds + 1, True), (int(0.97 * one.seeds) - 1, False)):
            power = doubtful_power(
                square, df, abs(one.difference), seeds, 0.05 / tied, 3 * (seeds - 1)
            )
            assert (power > 0.897) == holds


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
    own = np.array([parts[0], parts[1] - parts[2]])
    df = max(variance**2 / (own**2 / [2, 39]).sum(), 2)
    satterthwaite = stats.t.ppf(0.975, df) * np.sqrt(variance)
    howe = np.sqrt((stats.t.ppf(0.975, [2, 39]) ** 2 * own).sum())
    half = satterthwaite + (howe - satterthwaite) * 2 / 3
    found = alone(judge(by_example(x_ASE)), "arm0", "arm1")
    assert stats.t.ppf(0.975, found.df) * np.sqrt(variance) == pytest.approx(half)
    assert [found.low, found.high] == pytest.approx([d_SE.mean() - half, d_SE.mean() + half])


def test_examples_to_settle_a_tie_are_enough_when_they_come():
    verdict = settled(by_example(noisy(2, 1, 100, seed=4)))
    tie = verdict.settlements[0]
    assert tie.seeds is None
    assert tie.runs is None
    assert "a second seed is needed" in settlement(verdict, tie)
    more = noisy(2, 1, tie.only_examples, seed=5)
    more -= more.mean(axis=2, keepdims=True)
    more[1] += abs(tie.difference)
    assert judge(by_example(more)).stands_out == "arm0"
    fewer = more[:, :, : tie.only_examples // 20]
    fewer = fewer - fewer.mean(axis=2, keepdims=True)
    fewer[1] += abs(tie.difference)
    assert judge(by_example(fewer)).stands_out is None


def test_arms_that_nothing_would_settle_are_named_in_one_sentence():
    x_AS = 1e-7 * np.arange(6)[:, None] + np.random.default_rng(3).normal(0, 0.1, (6, 3))
    x_AS += (1e-7 * np.arange(6) - x_AS.mean(axis=1))[:, None]
    x_AS[5] -= x_AS[5].mean() - 0.2
    verdict = settled(by_run(x_AS))
    stuck = [s.arm for s in verdict.settlements if s.seeds is None]
    assert stuck == list(names(6)[1:5])
    (far, joined) = map(clean, deciding(verdict))
    assert far.startswith(f"{names(6)[5]} against")
    assert joined.startswith(f"{wording.names(stuck)} against {names(6)[0]}: 1,000 seeds")
    assert joined.endswith("would not be enough to decide any of these comparisons.")


def test_seeds_and_examples_together_settle_what_neither_would_alone():
    """Seeds and examples both leave more noise than the difference; together neither does."""
    x_ASE = noisy(2, 3, 40, seed=10, seed_sd=0.5)
    x_ASE[1] += 0.8 * np.random.default_rng(1).standard_normal(40)
    x_ASE[1] += x_ASE[0].mean() - x_ASE[1].mean() + 0.06
    verdict = with_settlements(
        judge(by_example(x_ASE)), components(by_example(x_ASE)), {"arm0": 0.5, "arm1": 1.5}
    )
    (found,) = verdict.settlements
    assert found.only_seeds is None
    assert found.only_examples is None
    assert found.seeds > 3
    assert found.examples > 40
    assert found.runs == 2 * found.seeds
    assert found.hours == pytest.approx(found.runs)
    said = settlement(verdict, found)
    seeds, examples = planned(found.seeds), planned(found.examples)
    assert f"{seeds} seeds per configuration instead of 3 on {examples} ex" in said
    assert f"{planned(found.runs)} runs, about" in said
    plan, goal = _plan(components(by_example(x_ASE)), np.array([-1.0, 1.0])), _Goal(0.06, 0.05, 0.9)
    assert _enough(plan, found.seeds, found.examples, goal)
    assert not _enough(plan, found.seeds - 1, found.examples, goal)
    assert not _enough(plan, found.seeds, found.examples // 3, goal)


def test_arms_that_are_almost_the_same_are_told_apart_from_smaller_differences_on():
    x_ASE = noisy(4, 3, 200, seed_sd=0)
    equal = judge(by_example(x_ASE))
    assert equal.detectable.smallest < equal.detectable.value < 4 * equal.detectable.smallest
    assert not any("are distinguished" in said for said in verdict_sentences(equal, 3))
    x_ASE[1] = x_ASE[0] + 0.01 * noisy(1, 3, 200, seed=7, seed_sd=0)[0]
    verdict = judge(by_example(x_ASE[:, :1]))
    assert verdict.detectable.smallest < 0.1 * verdict.detectable.value
    assert any("are distinguished from 0.0" in said for said in verdict_sentences(verdict, 3))


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


def test_the_root_of_a_covariance_is_the_same_on_every_processor():
    rng = np.random.default_rng(0)
    x_BA = rng.standard_normal((4, 6)) @ np.diag([1, 1, 1, 2, 2, 0.5])
    cov_AA = x_BA.T @ x_BA  # of rank 4
    root_AA = symmetric_root(cov_AA)
    assert root_AA @ root_AA == pytest.approx(cov_AA)
    assert root_AA == pytest.approx(root_AA.T), "whatever the signs of the eigenvectors were"
    assert symmetric_root(4 * np.eye(3)) == pytest.approx(2 * np.eye(3)), "and their order"
