"""Is a configuration with a volatile or long curve ranked fairly? Simulated studies of equal arms.

Rows of `verdict_calibration.py`.

Every study has 4 arms of one true curve, 3 to 5 seeds, 100 to 1,000 examples, in one of three in
groups. A run is evaluated several times; an evaluation has the true loss of its step and, example
by example, noise of its own. The curve falls, or falls and rises again, or is flat. Seed effects
are absent, like the noise of the examples, or two to six times that. The step is chosen as the
report chooses it (`rankwise.analysis.crossfit`); means and intervals are those of the verdict.
The true difference is that of the steps which such a choice gives on average: a noisy choice finds
the minimum of a curve less often.

Array suffixes: A arms, S seeds, T evaluations, E examples, F folds, B simulated runs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.analysis.crossfit import FOLDS, chosen_without, fold_of, read_at
from rankwise.analysis.scores import Scores
from rankwise.analysis.variance import Components, components

Floats = NDArray[np.float64]
ARMS = ("first", "second", "third", "fourth")
NOISE = 0.5
RESIDUAL = 0.5
RUNS = 300
Row = tuple[str, list[float], float, float]


@dataclass(frozen=True)
class Curves:
    """What distinguishes the first arm, which is as good as the others.

    volatile   its noise between evaluations, as a multiple of the others'
    first      its number of evaluations; others: theirs
    patience   evaluations without improvement after which its runs stop; 0: none
    jumps      standard deviation of jumps that all examples of an evaluation share, in all arms:
               then checkpoints differ in truth
    """

    volatile: float = 1.0
    first: int = 6
    others: int = 6
    patience: int = 0
    jumps: float = 0.0


@dataclass(frozen=True)
class Shape:
    """One study: seeds, examples, examples in a group, and standard deviations."""

    seeds: int
    examples: int
    group: int
    seed_sd: float
    arm_sd: float
    curve: str


def draw_shape(rng: np.random.Generator) -> Shape:
    """A study as one meets them; see the top of this file."""
    examples = round(float(np.exp(rng.uniform(np.log(100), np.log(1000)))))
    factor = rng.choice([0.0, rng.uniform(0.3, 1.5), rng.uniform(2, 6)])
    return Shape(
        seeds=int(rng.integers(3, 6)),
        examples=examples,
        group=int(rng.integers(2, 6)) if rng.random() < 1 / 3 else 1,
        seed_sd=float(factor) / np.sqrt(examples),
        arm_sd=rng.uniform(0, 0.7),
        curve=str(rng.choice(["flat", "falls", "falls and rises"])),
    )


def true_curve(kind: str, evaluations: int) -> Floats:
    """The true loss (T,) beyond that of the arm; its minimum is about the same for all arms."""
    share_T = np.arange(1, evaluations + 1) / evaluations
    if kind == "flat":
        return np.zeros(evaluations)
    if kind == "falls":
        return np.asarray(0.3 * np.exp(-8 * share_T))
    return np.asarray(0.3 * (share_T - 0.5) ** 2)


def per_example(rng: np.random.Generator, shape: Shape, head: tuple[int, ...]) -> Floats:
    """Normal effects (*head, E) of variance 1, half of it shared within groups."""
    own = rng.standard_normal((*head, shape.examples))
    if shape.group == 1:
        return own
    groups = -(-shape.examples // shape.group)
    shared = np.repeat(rng.standard_normal((*head, groups)), shape.group, axis=-1)
    return np.asarray((own + shared[..., : shape.examples]) / np.sqrt(2))


def true_difference(rng: np.random.Generator, shape: Shape, curves: Curves) -> float:
    """First arm minus others: the true loss at the steps that are chosen, on average over runs."""
    # half of the noise is shared within groups, so that a mean over examples has this variance
    spread = np.sqrt((1 + shape.group) / 2 / shape.examples)
    first, other = (
        true_loss_chosen(
            rng, true_curve(shape.curve, evaluations), noise * spread, curves, patience
        )
        for evaluations, noise, patience in (
            (curves.first, NOISE * curves.volatile, curves.patience),
            (curves.others, NOISE, 0),
        )
    )
    return first - other


def true_loss_chosen(
    rng: np.random.Generator, curve_T: Floats, noise: float, curves: Curves, patience: int
) -> float:
    """The mean over `RUNS` runs; `noise`: standard deviation of a mean over all examples."""
    true_BT = curve_T + curves.jumps * rng.standard_normal((RUNS, len(curve_T)))
    folds_BTF = rng.standard_normal((RUNS, len(curve_T), FOLDS)) * noise * np.sqrt(FOLDS)
    mean_BT = true_BT + folds_BTF.mean(2)
    others_BTF = true_BT[..., None] + (folds_BTF.sum(2, keepdims=True) - folds_BTF) / (FOLDS - 1)
    if patience:
        for b in range(RUNS):
            others_BTF[b, stop_at(mean_BT[b], patience) :] = np.inf
    chosen_BF = others_BTF.argmin(1)
    return float(np.take_along_axis(true_BT, chosen_BF, 1).mean())


def draw_study(rng: np.random.Generator, shape: Shape, curves: Curves) -> tuple[Scores, Scores]:
    """Scores of one study: as they are ranked, and at the best step on the same examples."""
    size = (len(ARMS), shape.seeds, shape.examples)
    crossed, same = np.empty(size), np.empty(size)
    groups_E = np.arange(shape.examples) // shape.group
    fold_E = fold_of(groups_E)
    hard_E = np.exp(0.6 * per_example(rng, shape, ()))
    shared_S = shape.seed_sd * rng.standard_normal(shape.seeds)
    for a in range(len(ARMS)):
        level_E = hard_E + shape.arm_sd * per_example(rng, shape, ())
        noise = NOISE * (curves.volatile if a == 0 else 1.0)
        curve_T = true_curve(shape.curve, curves.first if a == 0 else curves.others)
        for s in range(shape.seeds):
            jumps_T = curves.jumps * rng.standard_normal(len(curve_T))
            x_TE = (curve_T + jumps_T)[:, None] + noise * per_example(rng, shape, curve_T.shape)
            if a == 0 and curves.patience:
                x_TE = x_TE[: stop_at(x_TE.mean(1), curves.patience)]
            seed = shared_S[s] + shape.seed_sd * rng.standard_normal()
            x_TE = x_TE + level_E + RESIDUAL * per_example(rng, shape, ()) + seed
            same[a, s] = x_TE[np.argmin(x_TE.mean(1))]
            chosen_F = chosen_without(x_TE, fold_E, None, lower_is_better=True)
            crossed[a, s] = read_at(x_TE, chosen_F, fold_E)
    groups = groups_E.tolist() if shape.group > 1 else None
    seeds = tuple(range(shape.seeds))
    return (
        Scores("eval_loss", ARMS, seeds, x_ASE=crossed, groups_E=groups),
        Scores("eval_loss", ARMS, seeds, x_ASE=same, groups_E=groups),
    )


def stop_at(mean_T: Floats, patience: int) -> int:
    """How many evaluations a run has that stops after so many without improvement."""
    best, waited = np.inf, 0
    for t, value in enumerate(mean_T):
        waited = 0 if value < best else waited + 1
        best = min(best, value)
        if waited == patience:
            return t + 1
    return len(mean_T)


def covered(parts: Components, truth: float) -> float:
    """Share of the first arm's 95 % intervals against the others that hold the true difference."""
    low_AA, high_AA = parts.pairs().interval()
    return float(np.mean((low_AA[0, 1:] <= truth) & (truth <= high_AA[0, 1:])))


def rows_of_case(what: str, curves: Curves, studies: int, rng: np.random.Generator) -> list[Row]:
    """Of one kind of curves: as they are ranked, and for comparison read where they were chosen."""
    holds: tuple[list[float], list[float]] = ([], [])
    best: tuple[list[float], list[float]] = ([], [])
    for _ in range(studies):
        shape = draw_shape(rng)
        truth = true_difference(rng, shape, curves)
        for way, scores in enumerate(draw_study(rng, shape, curves)):
            parts = components(scores)
            holds[way].append(covered(parts, truth))
            best[way].append(float(parts.fitted_A.argmin() == 0))
    return [
        (f"{what}: 95 % interval of its differences", holds[0], 0.935, 0.965),
        (f"{what}: it looks best", best[0], 0.0, 0.35),
        ("- read on the examples that chose: interval", holds[1], 0.0, 1.0),
        ("- read on the examples that chose: it looks best", best[1], 0.0, 1.0),
    ]


def checkpoint_rows(studies: int, seed: int) -> list[Row]:
    """Rows (what, one value a study, lower bound, upper bound); bounds 0 and 1: nothing is asked.

    Args:
        studies: Simulated studies for each kind of curves.
        seed: Of the simulation.
    """
    cases = (
        ("curves alike, 6 evaluations", Curves()),
        ("curve 3 x as volatile, 6 evaluations", Curves(volatile=3.0)),
        ("40 evaluations against 4", Curves(first=40, others=4)),
        ("40, stopped after 3 without gain, against 40", Curves(first=40, others=40, patience=3)),
        ("curves alike that jump in truth", Curves(jumps=0.1)),
        ("curve 3 x as volatile, all jump in truth", Curves(volatile=3.0, jumps=0.1)),
    )
    rows: list[Row] = []
    for number, (what, curves) in enumerate(cases):
        rows += rows_of_case(what, curves, studies, np.random.default_rng([seed, number]))
    return rows
