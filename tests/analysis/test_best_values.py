"""Where a numeric setting is best, what is set aside, and structures at their own best rates."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from rankwise.analysis.additive import Errors
from rankwise.analysis.curvature import between_levels, could_be_best, fieller
from rankwise.analysis.effects import factor_effects
from rankwise.analysis.factors import find_factors, on_scale
from rankwise.analysis.interactions import interactions
from rankwise.analysis.rates import learning_rate_flags
from rankwise.analysis.scores import Scores
from rankwise.analysis.shapes import shapes
from rankwise.analysis.tuned import cross_fitted_choice, distance, tune
from rankwise.analysis.variance import components

RATE = "training.learning_rate"


def scores_of(settings, mean_A, seeds=3, examples=200, noise=0.3, seed=0):
    """Losses by example with these true means."""
    rng = np.random.default_rng(seed)
    x_ASE = noise * rng.standard_normal((len(settings), seeds, examples))
    x_ASE += np.asarray(mean_A)[:, None, None] + rng.standard_normal((1, 1, examples))
    return Scores("eval_loss", tuple(settings), tuple(range(seeds)), x_ASE)


def sweep(*rates, **others):
    return {f"{others} {rate:g}": {RATE: rate, **others} for rate in rates}


class Known:
    """Stands for `Errors` with values and a covariance that are given."""

    def __init__(self, value, cov, df):
        self.value, self.cov, self.df = np.array(value), np.array(cov), df

    def estimates(self, c_KA):
        value = c_KA @ self.value
        error = np.sqrt(np.diagonal(c_KA @ self.cov @ c_KA.T))
        return type("E", (), {"value": value, "error": error, "df": np.full(len(value), self.df)})

    def covariance(self, c_KA):
        return c_KA @ self.cov @ c_KA.T, self.df


def test_fieller_s_interval_is_where_the_slope_may_be_zero():
    errors = Known([-1.2, 0.9], [[0.010, -0.004], [-0.004, 0.006]], 12.0)
    best, low, high = fieller(errors, np.eye(2))
    assert best == pytest.approx(1.2 / 1.8)
    z = np.linspace(-2, 3, 500_001)
    slope = -1.2 + 2 * 0.9 * z
    error = np.sqrt(0.010 + 2 * 2 * z * -0.004 + 4 * z**2 * 0.006)
    flat = z[np.abs(slope) <= stats.t.ppf(0.975, 12.0) * error]
    assert [low, high] == pytest.approx([flat[0], flat[-1]], abs=2e-5)


def test_fieller_s_interval_is_that_of_the_ratio_of_two_means():
    """Equal to the usual form of Fieller's theorem for a ratio a/b of two normal means."""
    a, b, v11, v12, v22, df = 1.2, 1.8, 0.02, 0.003, 0.01, 20.0
    _, low, high = fieller(
        Known([-a, b / 2], [[v11, -v12 / 2], [-v12 / 2, v22 / 4]], df), np.eye(2)
    )
    t = stats.t.ppf(0.975, df)
    g = t**2 * v22 / b**2
    half = t / b * np.sqrt(v11 - 2 * a / b * v12 + (a / b) ** 2 * v22 - g * (v11 - v12**2 / v22))
    middle = a / b - g * v12 / v22
    expected = [(middle - half) / (1 - g), (middle + half) / (1 - g)]
    assert [low, high] == pytest.approx(expected)


def test_without_significant_curvature_there_is_no_lowest_point():
    assert fieller(Known([-0.1, 0.05], [[0.01, 0], [0, 0.01]], 12.0), np.eye(2)) is None
    assert fieller(Known([0.1, -2.0], [[0.01, 0], [0, 0.01]], 12.0), np.eye(2)) is None


def test_a_level_is_ruled_out_as_by_one_sided_t_tests_with_bonferroni():
    settings = sweep(1e-4, 1e-3, 1e-2)
    parts = components(scores_of(settings, [0.3, 0.0, 0.03]))
    pairs = parts.pairs()
    p_AA = stats.t.sf(pairs.value / np.where(pairs.error == 0, 1, pairs.error), pairs.df)
    out = [(p_AA[a, [b for b in range(3) if b != a]] < 0.05 / 2).any() for a in range(3)]
    kept = could_be_best(between_levels(Errors(parts, "noise"), np.eye(3)), 1.0)
    assert kept.tolist() == [not one for one in out]
    assert not kept[0]


def test_the_best_value_lies_between_the_levels_that_are_ruled_out():
    settings = sweep(1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    parts = components(scores_of(settings, [0.9, 0.3, 0.0, 0.3, 0.9]))
    (flag,) = learning_rate_flags(settings, parts)
    assert flag.kind == "inside"
    assert (flag.optimum.above, flag.optimum.below) == (1e-4, 1e-2)


def test_a_steep_rise_above_the_best_rate_gives_no_parabola():
    settings = sweep(1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    parts = components(scores_of(settings, [0.3, 0.2, 0.0, 2.0, 9.0]))
    (flag,) = learning_rate_flags(settings, parts)
    assert flag.kind == "inside"
    assert flag.optimum.value is None


def test_a_parabola_is_found_on_the_log_scale_of_the_learning_rate():
    rates = 10.0 ** np.linspace(-5, -2, 7)
    settings = sweep(*rates)
    parts = components(scores_of(settings, (np.log10(rates) + 3.3) ** 2))
    (flag,) = learning_rate_flags(settings, parts)
    assert np.log10(flag.optimum.value) == pytest.approx(-3.3, abs=0.05)
    assert flag.optimum.low < 10**-3.3 < flag.optimum.high


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("training.learning_rate", (1e-4, 1e-3), "log"),
        ("lora.r", (4, 16), "log"),
        ("lora.lora_dropout", (0.05, 0.1), "linear"),
        ("training.weight_decay", (0.0, 0.1), "linear"),
    ],
)
def test_each_setting_has_its_own_scale(name, values, scale):
    settings = {str(v): {name: v} for v in values}
    (factor,) = find_factors(tuple(settings), settings).varied
    assert factor.scale == scale
    assert np.diff(on_scale(values, scale)) == pytest.approx(np.diff(factor.position_L))


def test_a_u_over_single_learning_rates_is_an_effect():
    rates = 10.0 ** np.linspace(-5, -2, 7)
    settings = sweep(*rates)
    parts = components(scores_of(settings, 0.05 * (np.log10(rates) + 3.5) ** 2))
    effects = factor_effects("eval_loss", parts, settings)
    (shape,) = shapes(parts, settings, effects)
    assert shape.kind == "turning"
    assert shape.p_adjusted < 0.001
    assert shape.optimum.above < 10**-3.5 < shape.optimum.below


FULL = {
    f"r{r} {rate:g} {target}": {"lora.r": r, RATE: rate, "lora.target_modules": target}
    for r in (4, 16)
    for rate in (1e-3, 5e-3)
    for target in ("qv", "all")
}
# One configuration of eight fails to learn: all effects are those of the other seven.
CROSSED = [0.67, 0.56, 0.53, 0.51, 0.54, 0.53, 0.54, 0.72]


def test_averages_keep_the_error_of_the_noise_where_effects_are_not_additive():
    parts = components(scores_of(FULL, CROSSED))
    effects = factor_effects("eval_loss", parts, FULL)
    assert effects.additive is False
    for difference in (d for f in effects.factors for d in f.differences):
        each = parts.pairs()
        rows = [(parts.arms.index(h), parts.arms.index(w)) for w, h in difference.pairs]
        mean = np.mean([each.value[row] for row in rows])
        assert difference.basis == "noise"
        assert difference.value == pytest.approx(mean)
        width = difference.high_bound - difference.low_bound
        narrowest = min(2 * stats.t.ppf(0.975, each.df[row]) * each.error[row] for row in rows)
        assert width < narrowest


def test_an_arm_set_aside_leaves_the_averages_over_the_pairs_that_are_left():
    kept = dict(list(FULL.items())[:-1])
    parts = components(scores_of(kept, CROSSED[:-1]))
    effects = factor_effects("eval_loss", parts, FULL, collapsed=(list(FULL)[-1],))
    assert (effects.combinations, effects.complete) == (8, False)
    (rank,) = next(f for f in effects.factors if "lora.r" in f.factor.settings).differences
    assert rank.by_pairs
    assert len(rank.pairs) == 3


def test_simple_effects_are_those_of_the_two_way_model():
    parts = components(scores_of(FULL, CROSSED))
    found = interactions(parts, FULL)
    simple = next(
        one for one in found.simple if (one.factor, one.other, one.at) == ("lora.r", RATE, "0.005")
    )
    value = dict(zip(parts.arms, parts.fitted_A, strict=True))
    both = [value[f"r16 0.005 {t}"] - value[f"r4 0.005 {t}"] for t in ("qv", "all")]
    assert simple.value == pytest.approx(np.mean(both))
    assert found.misfit_p is not None


def test_a_fraction_is_known_as_one_and_a_full_factorial_is_not():
    half = {arm: FULL[arm] for arm in list(FULL)[::2] + list(FULL)[1:4:2]}
    parts = components(scores_of(half, np.arange(len(half)) * 0.01))
    assert not factor_effects("eval_loss", parts, half).complete
    parts = components(scores_of(FULL, np.arange(8) * 0.01))
    assert factor_effects("eval_loss", parts, FULL).complete


def test_ranges_that_share_one_rate_decide_nothing_at_that_rate():
    settings = sweep(1e-4, 3e-4, 1e-3, target="qv") | sweep(1e-3, 3e-3, 1e-2, target="all")
    scores = scores_of(settings, [0.3, 0.0, 0.3, 0.0, 0.3, 0.9])
    effects = factor_effects("eval_loss", components(scores), settings)
    (target,) = next(f for f in effects.factors if "target" in f.factor.settings).differences
    assert target.p_adjusted < 0.001
    assert target.narrow == (RATE,)
    assert not target.decided


def test_settings_varied_one_at_a_time_decide_at_what_they_share():
    """Only the first arm has its dropout varied; the ranks are compared at the common one."""
    plain = {"lora.r": 16, "lora.lora_dropout": 0.1}
    settings = {
        "plain": plain,
        "low": {**plain, "lora.r": 4},
        "high": {**plain, "lora.r": 32},
        "drop": {**plain, "lora.lora_dropout": 0.3},
    }
    effects = factor_effects(
        "eval_loss", components(scores_of(settings, [0.0, 0.9, 0.0, 0.0])), settings
    )
    found = {
        (d.low, d.high): d
        for f in effects.factors
        if "lora.r" in f.factor.settings
        for d in f.differences
    }
    assert found["4", "16"].decided
    assert all(d.narrow == () for d in found.values())


def test_a_rate_that_failed_counts_as_tried():
    settings = sweep(1e-4, 1e-3, target="qv") | sweep(1e-4, 1e-3, 1e-2, 1e-1, target="all")
    lost = [arm for arm, own in settings.items() if own[RATE] > 1e-3]
    kept = {arm: own for arm, own in settings.items() if arm not in lost}
    parts = components(scores_of(kept, [0.3, 0.0, 0.3, 0.0]))
    narrow = [
        d.narrow
        for given in (kept, settings)
        for f in factor_effects("eval_loss", parts, given).factors
        if "target" in f.factor.settings
        for d in f.differences
    ]
    assert narrow == [(), (RATE,)]


def test_numbers_of_a_random_search_are_factors_of_their_own():
    rng = np.random.default_rng(0)
    settings = {
        f"t{i}": {"lr": float(a), "decay": float(b), "alpha": 2 * float(a), "name": f"t{i}"}
        for i, (a, b) in enumerate(rng.uniform(0.1, 1, (12, 2)))
    }
    factors = find_factors(tuple(settings), settings)
    assert [set(f.settings) for f in factors.varied] == [{"lr", "alpha", "name"}, {"decay"}]


def test_what_is_read_had_no_part_in_the_choice():
    """Changing the scores of one seed and fold changes no choice that is read there."""
    rng = np.random.default_rng(3)
    x_MSE = rng.standard_normal((4, 3, 20))
    fold_E = np.arange(20) % 5
    before = cross_fitted_choice(x_MSE, np.ones(20), fold_E)
    for s, f in ((0, 0), (1, 3), (2, 4)):
        changed = x_MSE.copy()
        changed[:, s] = rng.standard_normal((4, 20)) * 9
        changed[:, :, fold_E == f] = rng.standard_normal((4, 3, 4)) * 9
        assert cross_fitted_choice(changed, np.ones(20), fold_E)[s, f] == before[s, f]


def test_the_corrected_value_is_not_too_good_where_the_plain_one_is():
    settings = sweep(*10.0 ** np.linspace(-4, -2, 5), target="qv") | sweep(1e-3, target="all")
    plain, corrected = [], []
    for seed in range(40):
        scores = scores_of(settings, [0.0] * 6, examples=60, noise=1.0, seed=seed)
        rows = tune(scores, components(scores), settings, RATE)
        one, five = sorted(rows, key=lambda row: len(row.rates))
        plain.append(five.mean - one.mean)
        corrected.append(five.corrected - one.corrected)
    error = np.std(corrected) / np.sqrt(40)
    assert np.mean(plain) < -4 * np.std(plain) / np.sqrt(40)
    assert abs(np.mean(corrected)) < 3 * error


def test_the_distance_of_two_single_arms_is_their_interval():
    settings = sweep(1e-3, target="qv") | sweep(1e-3, target="all")
    parts = components(scores_of(settings, [0.0, 0.1]))
    low, high = distance(parts, parts.pairs(), [parts.arms[0]], [parts.arms[1]], 1.0)
    expected = parts.contrasts(np.array([[1.0, -1.0]])).interval()
    assert [low, high] == pytest.approx([float(bound[0]) for bound in expected])


def test_more_rates_widen_the_distance_and_a_better_structure_is_still_found():
    rates = (1e-4, 3e-4, 1e-3)
    settings = sweep(*rates, target="qv") | sweep(*rates, target="all")
    scores = scores_of(settings, [0.3, 0.2, 0.4, 0.5, 0.0, 0.5])
    first, last = tune(scores, components(scores), settings, RATE)
    assert (first.best, last.worse) == (True, True)
    assert (first.chosen, first.share) == (3e-4, 1.0)


def test_one_seed_without_scores_by_example_gives_no_tuned_comparison():
    settings = sweep(1e-4, 1e-3, target="qv") | sweep(1e-4, 1e-3, target="all")
    x_AS = np.array([[0.1], [0.2], [0.3], [0.4]])
    scores = Scores("eval_loss", tuple(settings), (0,), x_AS=x_AS)
    assert tune(scores, components(scores), settings, RATE) == ()


def test_steps_of_a_shape_are_neighbours():
    settings = {f"r{r}": {"lora.r": r} for r in (4, 8, 16)}
    parts = components(scores_of(settings, [0.5, 0.2, 0.1]))
    (shape,) = shapes(parts, settings, factor_effects("eval_loss", parts, settings))
    assert [(s.low, s.high) for s in shape.steps] == list(pairwise((4, 8, 16)))
