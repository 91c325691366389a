"""Factor effects: numbers where the arms determine them, else the names of what mixes with them."""

import json
from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.multitest import multipletests

from rankwise.analysis.effects import factor_effects
from rankwise.analysis.factors import find_factors
from rankwise.analysis.interactions import interactions
from rankwise.analysis.rates import learning_rate_flags
from rankwise.analysis.scores import Scores
from rankwise.analysis.shapes import shapes
from rankwise.analysis.variance import components
from rankwise.report.chapters.recommendation import flag_sentence
from rankwise.report.chapters.shapes import SHAPES

SWEEP = {
    "exp3": (24, 64, 0.10, "linear", 1.2727),
    "exp5": (32, 64, 0.05, "linear", 1.2738),
    "exp8": (32, 48, 0.05, "linear", 1.2876),
    "exp1": (16, 64, 0.05, "cosine", 1.3381),
    "exp4": (24, 48, 0.05, "cosine", 1.3385),
}
SWEEP_SETTINGS = {
    arm: {"r": r, "lora_alpha": a, "lora_dropout": d, "lr_scheduler_type": s, "data": "augmented"}
    for arm, (r, a, d, s, _) in SWEEP.items()
}
GRID = {
    f"r{r} lr{lr:g}": {"lora.r": r, "training.learning_rate": lr}
    for r, lr in product((4, 8, 16, 32), (1e-4, 1e-3))
}


def parts_of(x, arms):
    """Components of (arms, seeds) or (arms, seeds, examples)."""
    seeds = tuple(range(x.shape[1]))
    given = {"x_ASE": x} if x.ndim == 3 else {"x_AS": x}
    return components(Scores("eval_loss", tuple(arms), seeds, **given))


def sweep():
    return parts_of(np.array([[row[-1]] for row in SWEEP.values()]), SWEEP)


def grid(loss, seeds=3, noise=0.01, seed=0):
    """(arms, seeds) of GRID with the loss that `loss(r, lr)` gives, plus noise."""
    rng = np.random.default_rng(seed)
    means = np.array([loss(s["lora.r"], s["training.learning_rate"]) for s in GRID.values()])
    shared = 0.05 * rng.standard_normal((1, seeds))
    return parts_of(means[:, None] + shared + noise * rng.standard_normal((8, seeds)), GRID)


def found(effects, name):
    return next(e for e in effects.factors if name in e.factor.settings)


def test_a_schedule_that_never_varies_alone_is_not_separable_and_gets_no_number():
    effects = factor_effects("eval_loss", sweep(), SWEEP_SETTINGS)
    schedule = found(effects, "lr_scheduler_type")
    assert not schedule.separable
    assert schedule.mixed_with == ("r", "lora_dropout")
    assert [d.value for d in schedule.differences] == [None]


def test_a_factor_that_one_pair_isolates_is_said_to_rest_on_it():
    effects = factor_effects("eval_loss", sweep(), SWEEP_SETTINGS)
    (alpha,) = found(effects, "lora_alpha").differences
    assert alpha.pairs == (("exp8", "exp5"),)
    assert alpha.value == pytest.approx(1.2738 - 1.2876)
    assert alpha.low_bound is None


def test_what_never_varies_is_named_and_not_credited():
    effects = factor_effects("eval_loss", sweep(), SWEEP_SETTINGS)
    assert effects.constant == (("data", "augmented"),)
    assert not any("data" in effect.factor.settings for effect in effects.factors)


def test_two_arms_that_differ_in_many_settings_have_one_joint_factor():
    settings = {
        "A": {"r": 4, "lr": 2e-4, "dropout": 0.05},
        "B": {"r": 8, "lr": 5e-4, "dropout": 0.1},
    }
    effects = factor_effects("loss", parts_of(np.array([[1.0], [0.9]]), "AB"), settings)
    (effect,) = effects.factors
    assert effect.factor.settings == ("r", "lr", "dropout")


@pytest.mark.parametrize("lost", [(), ((0, 1), (5, 2))])
def test_effects_are_those_of_least_squares_with_seeds_as_blocks(lost):
    loss = {4: 1.0, 8: 0.8, 16: 0.75, 32: 0.75}
    rng = np.random.default_rng(4)
    x_AS = np.array([[loss[s["lora.r"]]] for s in GRID.values()]) + 0.02 * rng.standard_normal(
        (8, 4)
    )
    for run in lost:
        x_AS[run] = np.nan
    effects = factor_effects("eval_loss", parts_of(x_AS, GRID), GRID)
    assert effects.basis == "noise"
    step = found(effects, "lora.r").differences[0]
    arm_R, seed_R = np.nonzero(np.isfinite(x_AS))
    saturated = np.hstack([np.eye(8)[arm_R], np.eye(4)[seed_R][:, 1:]])
    fit = sm.OLS(x_AS[arm_R, seed_R], saturated).fit()
    contrast = np.zeros(saturated.shape[1])
    contrast[[0, 1]], contrast[[2, 3]] = -0.5, 0.5
    expected = fit.t_test(contrast)
    assert step.value == pytest.approx(float(expected.effect[0]))
    every = [difference for one in effects.factors for difference in one.differences]
    bounds = expected.conf_int(0.05 / len(every))[0].tolist()
    assert [step.low_bound, step.high_bound] == pytest.approx(bounds)
    adjusted = multipletests([one.p for one in every], method="bonferroni")[1]
    assert [one.p_adjusted for one in every] == pytest.approx(adjusted.tolist())
    assert len(every) > 4


def test_one_seed_takes_the_misfit_as_error_as_ordinary_least_squares_does():
    rng = np.random.default_rng(0)
    x_A = rng.standard_normal(8)
    effects = factor_effects("eval_loss", parts_of(x_A[:, None], GRID), GRID)
    design = np.array(
        [
            [1, *(s["lora.r"] == r for r in (8, 16, 32)), s["training.learning_rate"] == 1e-3]
            for s in GRID.values()
        ],
        dtype=float,
    )
    fit = sm.OLS(x_A, design).fit()
    (rate,) = found(effects, "training.learning_rate").differences
    assert effects.basis == "misfit"
    every = sum(len(one.differences) for one in effects.factors)
    assert every > 1
    bounds = fit.conf_int(0.05 / every)[4].tolist()
    assert [rate.low_bound, rate.high_bound] == pytest.approx(bounds)


def test_a_random_search_is_fitted_by_a_quadratic():
    rng = np.random.default_rng(0)
    rates = np.exp(rng.uniform(np.log(1e-5), np.log(1e-2), 10))
    settings = {f"t{i}": {"learning_rate": float(rate)} for i, rate in enumerate(rates)}
    y_A = (np.log10(rates) + 3.5) ** 2 + 0.01 * rng.standard_normal(10)
    effects = factor_effects("loss", parts_of(y_A[:, None], settings), settings)
    assert effects.factors[0].factor.degree == 2
    fit = np.polynomial.Polynomial.fit(np.log10(rates), y_A, 2)
    for difference in effects.factors[0].differences:
        low, high = np.log10([float(difference.low), float(difference.high)])
        assert difference.value == pytest.approx(fit(high) - fit(low), abs=1e-4)
    assert [d.decided for d in effects.factors[0].differences][:2] == [True, True]


def test_a_line_takes_the_place_of_a_quadratic_where_the_arms_are_few():
    rng = np.random.default_rng(0)
    settings = {
        f"t{i}": {"learning_rate": float(a), "weight_decay": float(b), "alpha": float(c)}
        for i, (a, b, c) in enumerate(rng.uniform(0.1, 1, (7, 3)))
    }
    factors = find_factors(tuple(settings), settings)
    assert [factor.degree for factor in factors.varied] == [1, 1, 1]


def test_diminishing_returns_are_said_only_where_a_later_gain_is_smaller_beyond_chance():
    falling = {4: 1.0, 8: 0.7, 16: 0.6, 32: 0.59}
    steady = {4: 1.0, 8: 0.8, 16: 0.6, 32: 0.4}
    kinds = []
    for loss in (falling, steady):
        parts = grid(lambda r, _, loss=loss: loss[r])
        (shape,) = shapes(parts, GRID, factor_effects("eval_loss", parts, GRID))
        kinds.append((shape.kind, "diminishing returns" in SHAPES[shape.kind]))
    assert kinds == [("saturating", True), ("steady", False)]


def test_a_loss_after_a_gain_is_a_turn_and_no_diminishing_return():
    loss = {4: 1.0, 8: 0.9, 16: 0.7, 32: 0.85}
    parts = grid(lambda r, _: loss[r])
    (shape,) = shapes(parts, GRID, factor_effects("eval_loss", parts, GRID))
    assert shape.kind == "turning"
    last = shape.steps[-1]
    assert (last.low, last.high) == (16, 32)
    assert last.gain == pytest.approx(-0.15, abs=0.01)


def test_one_row_a_rank_has_a_shape_that_cannot_be_told():
    settings = {f"r{r}": {"r": r} for r in (4, 16, 32)}
    accuracy = np.array([[0.838], [0.873], [0.842]])
    parts = components(
        Scores("accuracy", tuple(settings), (0,), x_AS=accuracy, lower_is_better=False)
    )
    effects = factor_effects("accuracy", parts, settings, lower_is_better=False)
    (shape,) = shapes(parts, settings, effects)
    assert shape.kind == "cannot tell"
    assert shape.steps[-1].gain == pytest.approx(-0.031)
    assert "returns" not in SHAPES[shape.kind]


def test_settings_that_do_not_add_up_are_found_where_the_grid_is_whole():
    parts = grid(lambda r, lr: 1.0 - 0.2 * (lr == 1e-3) - 0.3 * (lr == 1e-3 and r == 32))
    (one,) = interactions(parts, GRID).tested
    assert one.p < 0.001
    assert one.value == pytest.approx(-0.3, abs=0.05)
    assert (one.high, one.other) == ("32", "0.001")
    assert factor_effects("eval_loss", parts, GRID).additive is False
    assert one.clear


def test_settings_that_add_up_are_seldom_said_not_to():
    wrong = [
        interactions(grid(lambda r, lr: np.log2(r) - 100 * lr, seed=seed), GRID).tested[0].p < 0.05
        for seed in range(200)
    ]
    assert 0.01 < np.mean(wrong) < 0.10


def test_interactions_that_the_arms_do_not_determine_are_named_only():
    crossed = interactions(sweep(), SWEEP_SETTINGS)
    assert crossed.tested == ()
    assert ("r", "lora_alpha") in crossed.not_separable


def test_a_rank_that_full_fine_tuning_lacks_is_no_level_of_the_ladder():
    settings = {f"r{r}": {"method": "lora", "r": r} for r in (4, 8, 16)}
    settings["full"] = {"method": "full"}
    factors = find_factors(tuple(settings), settings)
    rank = next(f for f in factors.varied if "r" in f.settings)
    assert rank.values == (None, 4, 8, 16)
    effects = factor_effects("loss", parts_of(np.arange(4.0)[:, None], settings), settings)
    asked = [(d.low, d.high) for d in found(effects, "r").differences]
    assert asked == [("4", "8"), ("8", "16"), ("4", "16")]
    assert not found(effects, "method").separable


RATES = {f"lr{lr:g}": {"training.learning_rate": lr} for lr in (1e-4, 1e-3, 1e-2)}


def flags_of(settings, score, noise=0.001, seeds=3):
    """Flags of arms with these means; an arm whose mean is None has no run."""
    rng = np.random.default_rng(1)
    means = np.array([[np.nan if score[arm] is None else score[arm]] for arm in settings])
    x_AS = means + noise * rng.standard_normal((len(settings), seeds))
    return learning_rate_flags(settings, parts_of(x_AS, settings))


def test_learning_rate_at_the_edge_is_flagged_and_one_that_failed_beyond_is_no_edge():
    (edge,) = flags_of(RATES, dict(zip(RATES, (1.0, 0.9, 0.8), strict=True)))
    (inside,) = flags_of(RATES, dict(zip(RATES, (1.0, 0.9, None), strict=True)))
    assert edge.kind == "at the highest"
    assert "a higher one may be better" in flag_sentence(edge)
    assert inside.kind == "inside"


def test_the_edge_is_not_blamed_while_an_inner_learning_rate_may_be_the_best():
    (open_,) = flags_of(RATES, dict(zip(RATES, (1.0, 0.81, 0.8), strict=True)), noise=0.05)
    assert open_.best == 1e-2
    assert open_.kind == "open"
    assert 1e-3 in open_.optimum.candidates
    assert "may be better" not in flag_sentence(open_)


def test_a_learning_rate_tuned_for_one_structure_only_is_flagged_for_the_other():
    settings = {
        "lora a": {"method": "lora", "learning_rate": 1e-4},
        "lora b": {"method": "lora", "learning_rate": 1e-3},
        "full": {"method": "full", "learning_rate": 1e-5},
    }
    flags = flags_of(settings, {"lora a": 0.5, "lora b": 0.4, "full": 0.45})
    assert [(flag.arms, flag.kind) for flag in flags] == [
        (("lora a", "lora b"), "at the highest"),
        (("full",), "not varied"),
    ]


def test_effects_are_ready_for_json():
    effects = factor_effects("eval_loss", grid(lambda r, lr: 1 / r), GRID)
    assert json.loads(json.dumps(asdict(effects)))["basis"] == "noise"
