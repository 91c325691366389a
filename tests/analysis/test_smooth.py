"""If settings act smoothly: a hierarchical model, compared with published examples and formulas."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats

from rankwise.analysis.proposals import propose
from rankwise.analysis.scores import Scores
from rankwise.analysis.smooth import misfit, smooth
from rankwise.analysis.smooth_model import (
    Grid,
    additive,
    draw,
    grid_of,
    point_of,
    posterior_of,
    predict,
    similarity,
    smooth_model,
)
from rankwise.analysis.variance import components

RATE = "training.learning_rate"
FACTORIAL = {
    f"r{r} {rate:g} {target}": {"lora.r": r, RATE: rate, "lora.target_modules": target}
    for r, rate, target in product((4, 16, 64), (1e-4, 1e-3, 1e-2), ("qv", "all"))
}
# Effects of coaching in eight schools (Rubin 1981; Gelman et al., Bayesian Data Analysis, 5.5).
SCHOOLS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def loss_of(settings):
    """Additive: the highest rank, the middle rate and all modules are best."""
    rank = -0.05 * np.log2(settings["lora.r"])
    rate = 0.2 * (np.log10(settings[RATE]) + 3) ** 2
    return rank + rate - 0.1 * (settings["lora.target_modules"] == "all")


def parts_of(settings, extra=None, seeds=3, noise=0.02, seed=0):
    rng = np.random.default_rng(seed)
    mean_A = np.array([loss_of(own) + (extra or {}).get(arm, 0.0) for arm, own in settings.items()])
    x_AS = mean_A[:, None] + noise * rng.standard_normal((len(settings), seeds))
    x_AS += 0.1 * rng.standard_normal((1, seeds))
    return components(Scores("eval_loss", tuple(settings), tuple(range(seeds)), x_AS=x_AS))


def schools(sizes):
    sizes = np.asarray(sizes, dtype=np.float64)
    none = np.zeros(len(sizes))
    grid = Grid(none, sizes, none + 1, none)
    return posterior_of(grid, np.zeros((8, 8)), np.eye(8), SCHOOLS, np.diag(ERRORS**2))


def test_the_size_of_deviations_has_the_published_posterior_of_the_eight_schools():
    sizes = np.array([0.1, 5.0, 10.0, 20.0])
    expected = []
    for size in sizes:  # Bayesian Data Analysis, equation 5.21, with a flat prior of the size
        variance = ERRORS**2 + size**2
        precision = (1 / variance).sum()
        middle = (SCHOOLS / variance).sum() / precision
        density = stats.norm.pdf(SCHOOLS, middle, np.sqrt(variance))
        expected.append(np.log(density).sum() - 0.5 * np.log(precision))
    found = schools(sizes).log_G
    assert found - found[0] == pytest.approx(np.array(expected) - expected[0])


def test_schools_are_shrunk_as_published():
    """Given a size of 10: Bayesian Data Analysis, figure 5.6, by equations 5.17 and 5.20."""
    mean, cov = predict(100.0 * np.eye(8), np.diag(ERRORS**2), SCHOOLS)
    variance = ERRORS**2 + 100.0
    middle = (SCHOOLS / variance).sum() / (1 / variance).sum()
    share = 100.0 / variance
    assert mean == pytest.approx(share * SCHOOLS + (1 - share) * middle)
    spread = share * ERRORS**2 + (1 - share) ** 2 / (1 / variance).sum()
    assert np.diagonal(cov) == pytest.approx(spread)


def test_prediction_is_generalised_least_squares_with_a_vague_constant():
    model = smooth_model(parts_of(FACTORIAL), FACTORIAL, True)
    h = additive(model.factors, model.points, model.points)
    prior = 0.3 * h + 0.01 * similarity(model.factors, model.points)
    noise = model.cov_AA
    mean, cov = predict(prior, noise, model.loss_A)
    vague = prior + 1e4
    gain = vague @ np.linalg.inv(vague + noise)
    assert mean == pytest.approx(gain @ model.loss_A, abs=1e-5)
    assert cov == pytest.approx(vague - gain @ vague, abs=1e-5)


def test_the_worst_arm_is_that_of_leaving_each_out():
    some = {arm: own for arm, own in FACTORIAL.items() if own["lora.target_modules"] == "qv"}
    parts = parts_of(some, {"r16 0.001 qv": -0.15})
    model = smooth_model(parts, some, True)
    h, k = (
        additive(model.factors, model.points, model.points),
        similarity(model.factors, model.points),
    )
    p_A = []
    for a in range(9):
        keep = np.arange(9) != a
        block = np.ix_(keep, keep)
        left = posterior_of(model.grid, h[block], k[block], model.loss_A[keep], model.cov_AA[block])
        tails = []
        for g, weight in enumerate(left.weight_G):
            grid = model.grid
            prior = grid.main_G[g] ** 2 * h + grid.size_G[g] ** 2 * k
            noise = grid.scale_G[g] * model.cov_AA
            joint = prior + noise
            inverse = np.linalg.inv(joint[block])
            ones = inverse.sum(axis=1)
            constant = ones @ model.loss_A[keep] / ones.sum()
            cross = joint[a, keep] @ inverse
            mean = constant + cross @ (model.loss_A[keep] - constant)
            variance = joint[a, a] - cross @ joint[keep, a] + (1 - cross.sum()) ** 2 / ones.sum()
            z = (model.loss_A[a] - mean) / np.sqrt(variance)
            tails.append(weight * 2 * stats.norm.sf(abs(z)))
        p_A.append(sum(tails))
    found = misfit(model.posterior)
    assert found[1] == int(np.argmin(p_A)) == parts.arms.index("r16 0.001 qv")
    assert found[0] == pytest.approx(min(1.0, 9 * min(p_A)), rel=1e-6)


def test_a_combination_that_its_settings_do_not_explain_refutes_the_model():
    calm = parts_of(FACTORIAL)
    assert not smooth(smooth_model(calm, FACTORIAL, True), calm, True).refuted
    parts = parts_of(FACTORIAL, {"r16 0.001 qv": -0.3})
    found = smooth(smooth_model(parts, FACTORIAL, True), parts, True)
    assert found.refuted
    assert found.misfit_arm == "r16 0.001 qv"


def test_additive_settings_have_small_deviations_and_a_small_set_of_the_best():
    parts = parts_of(FACTORIAL)
    found = smooth(smooth_model(parts, FACTORIAL, True), parts, True)
    assert found.best == ("r64 0.001 all",)
    assert found.deviation < found.noise
    assert found.deviation_low <= found.deviation <= found.deviation_high
    assert sum(one.p_best for one in found.predictions) == pytest.approx(1.0)


def test_a_metric_that_should_be_high_gives_the_same_arms():
    parts = parts_of(FACTORIAL)
    turned = replace(parts, fitted_A=-parts.fitted_A)
    one = smooth(smooth_model(parts, FACTORIAL, True), parts, True)
    two = smooth(smooth_model(turned, FACTORIAL, False), turned, False)
    assert [p.arm for p in one.predictions] == [p.arm for p in two.predictions]
    for left, right in zip(one.predictions, two.predictions, strict=True):
        expected = [-right.value, -right.high, -right.low]
        assert [left.value, left.low, left.high] == pytest.approx(expected)


def test_the_best_combination_that_was_not_tried_is_proposed_first():
    tried = {arm: own for arm, own in FACTORIAL.items() if arm != "r64 0.001 all"}
    parts = parts_of(tried)
    model = smooth_model(parts, tried, True)
    first, *_ = propose(model, smooth(model, parts, True), tried, True)
    values = dict(first.settings)
    assert values["lora.target_modules"] == "all"
    assert float(values["lora.r"]) >= 32
    assert first.p_better > 0.5
    truth = loss_of(FACTORIAL["r64 0.001 all"]) - np.mean([loss_of(o) for o in tried.values()])
    point = point_of(model.factors, FACTORIAL["r64 0.001 all"])
    drawn = draw(model, [point])
    relative = drawn[:, -1] - drawn[:, :-1].mean(axis=1)
    assert np.quantile(relative, 0.025) < truth < np.quantile(relative, 0.975)


def test_nothing_tried_is_proposed_and_nothing_beyond_where_an_arm_was_lost():
    lost = {f"r64 0.1 {t}": {"lora.r": 64, RATE: 0.1, "lora.target_modules": t} for t in ("qv",)}
    steep = {arm: -0.3 * np.log10(own[RATE]) for arm, own in FACTORIAL.items()}
    parts = parts_of(FACTORIAL, steep)
    model = smooth_model(parts, FACTORIAL, True)
    found = smooth(model, parts, True)
    for settings in (FACTORIAL, FACTORIAL | lost):
        proposals = propose(model, found, settings, True, most=50)
        rates = [float(dict(one.settings)[RATE]) for one in proposals]
        assert (max(rates) > 1e-2) == (settings is FACTORIAL)
        known = [{str(v) for v in own.values()} for own in FACTORIAL.values()]
        assert not any({v for _, v in one.settings} in known for one in proposals)
        assert [one.gain for one in proposals] == sorted((o.gain for o in proposals), reverse=True)


def test_the_grid_has_the_half_cauchy_prior_of_each_size():
    """Its distribution function and that of scipy, at every size of the grid."""
    grid = grid_of(2.0, 7.0)
    weight_G = np.exp(grid.prior_G) / np.exp(grid.prior_G).sum()
    for size_G in (grid.main_G, grid.size_G):
        sizes = np.unique(size_G)
        own = np.array([weight_G[np.isclose(size_G, size)].sum() for size in sizes])
        middle = np.cumsum(own) - own / 2
        assert middle == pytest.approx(stats.halfcauchy.cdf(sizes, scale=2.0))
    assert np.median(grid.scale_G) == pytest.approx(7.0 / stats.chi2.median(7.0))


def test_too_few_arms_or_no_noise_give_no_second_estimate():
    few = dict(list(FACTORIAL.items())[:5])
    assert smooth_model(parts_of(few), few, True) is None
    one = parts_of(FACTORIAL, seeds=1)
    assert one.claim == "nothing"
    assert smooth_model(one, FACTORIAL, True) is None
