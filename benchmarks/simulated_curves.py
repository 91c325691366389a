"""Simulated learning curves in the form of recorded ones, to develop races on.

The loss of a run falls with the integral of its learning rate, and carries a part that grows with
the present learning rate and goes as the schedule decays: a high rate looks bad until then. Above a
rate of its own an arm does not learn. Array suffixes: A arms, S seeds, T evaluations, E examples.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from curves.curves import Curves
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RATES = (1e-4, 2.5e-4, 6.3e-4, 1.6e-3, 4e-3, 1e-2)
FINE = 200
EVALUATIONS = 10


def simulated_curves(
    seed: int, seeds: int = 3, examples: int = 200, equal: Sequence[int] = ()
) -> Curves:
    """A problem drawn at random; the arms at `equal` all have the expected curve of the best."""
    rng = np.random.default_rng([seed, 17])
    settings = configurations()
    optimum = 10 ** rng.uniform(-3.4, -2.6)
    scale, small = rng.uniform(0.1, 0.5), rng.uniform(0.005, 0.03)
    mean_AT = np.stack([_curve(one, optimum, rng, scale, small) for one in settings.values()])
    if equal:
        mean_AT[list(equal)] = mean_AT[mean_AT[:, -1].argmin()].copy()
    x_ASTE = _by_example(mean_AT, rng, seeds, examples, small)
    group_E = np.arange(examples) // 2
    return Curves(
        problem=f"simulated-{seed}",
        configs=tuple(settings),
        settings=settings,
        seeds=tuple(range(seeds)),
        steps=tuple(range(6, 61, 6)),
        x_ASTE=x_ASTE,
        correct_ASTE=None,
        groups_E=group_E,
        weights_E=np.ones(examples),
        params_A=np.full(len(settings), 1000),
        status_AS=np.full((len(settings), seeds), "done"),
        base={},
    )


def configurations() -> dict[str, dict[str, object]]:
    """The grid of the recorded problems."""
    found: dict[str, dict[str, object]] = {}
    product = itertools.product(enumerate(RATES), enumerate((4, 16)), enumerate(("qv", "all")))
    for (i, rate), (j, rank), (k, where) in product:
        schedule = ("linear", "constant_with_warmup")[(i + j + k) % 2]
        found[f"lr{rate:g}_r{rank}_{where}_{schedule.split('_')[0]}"] = {
            "learning_rate": rate,
            "r": rank,
            "target_modules": where,
            "lr_scheduler_type": schedule,
            "max_steps": 60,
        }
    return found


def _curve(
    one: dict[str, object], optimum: float, rng: np.random.Generator, scale: float, small: float
) -> Floats:
    """The expected loss at each evaluation (T,)."""
    t_F = (np.arange(FINE) + 0.5) / FINE
    factor_F = np.minimum(t_F / 0.1, 1.0)
    if one["lr_scheduler_type"] == "linear":
        factor_F = np.minimum(factor_F, (1 - t_F) / 0.9)
    speed = (2.0 if one["target_modules"] == "all" else 1.0) * np.exp(0.2 * rng.standard_normal())
    rate_F = float(str(one["learning_rate"])) / optimum * speed * factor_F
    done_F = np.cumsum(rate_F) / FINE
    learned_F = scale * (1 + done_F / 0.15) ** -0.7
    recent_F = np.empty(FINE)
    level = 0.0
    for n, rate in enumerate(rate_F):
        level += 0.1 * (rate - level)
        recent_F[n] = level
    noise_F = 0.05 * scale * recent_F**1.3
    broken_F = scale * np.maximum(np.maximum.accumulate(rate_F) - 6, 0) * 0.3
    loss_F = 0.3 + learned_F + noise_F + broken_F + small * rng.standard_normal()
    return np.asarray(loss_F[FINE // EVALUATIONS - 1 :: FINE // EVALUATIONS])


def _by_example(
    mean_AT: Floats, rng: np.random.Generator, seeds: int, examples: int, small: float
) -> Floats:
    """Losses with what examples, arms and seeds add; examples are shared by all arms."""
    arms, evaluations = mean_AT.shape
    difficulty_E = rng.gamma(1.0, 1.0, examples)
    far_AT = mean_AT - mean_AT.min(axis=0)
    x_ASTE = mean_AT[:, None, :, None] * (0.2 + 0.8 * difficulty_E)
    own_AE = rng.standard_normal((arms, 1, 1, examples))
    x_ASTE = x_ASTE + (3 * small + 0.5 * far_AT)[:, None, :, None] * own_AE
    step_ASTE = rng.standard_normal((arms, seeds, evaluations, examples))
    x_ASTE = x_ASTE + 3 * small * (
        0.7 * rng.standard_normal((arms, seeds, 1, examples)) + 0.7 * step_ASTE
    )
    run_AST = rng.standard_normal((arms, seeds, 1)) + 0.5 * rng.standard_normal(
        (arms, seeds, evaluations)
    )
    x_ASTE += (0.4 * small + 0.1 * far_AT)[:, None, :, None] * run_AST[..., None]
    return x_ASTE + 0.3 * small * rng.standard_normal((1, seeds, 1, 1))
