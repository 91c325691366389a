"""Is the verdict as sure as it says? Simulated studies with a known truth, judged by `judge`.

    python benchmarks/verdict_calibration.py            about 15 minutes of CPU time, on all cores
    python benchmarks/verdict_calibration.py --quick    some ten seconds, wide error bars

Prints a Markdown table and ends with 1 if a bound is missed (in --quick: missed by more than chance
allows).

The modules `calibration_*.py` beside this one add rows of their own. Here every study draws its
own shape: 2 to 12 arms, 1 to 5 seeds, 100 to 2,000 examples; losses with
heavy tails (examples log-normal, residuals Student t with 4 degrees of freedom) or right and wrong
answers; seed effects absent, as large as the noise of the examples, or up to six times that, drawn
normal or Student t with 4; in one study of five an arm with four times the seed spread of the
others, in one of five examples in groups, in one of five a tenth of the runs missing.

Array suffixes: A arms, S seeds, E examples, G examples or groups of examples, B draws.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from calibration_rows import Row, row, rows_beside, table
from numpy.typing import NDArray
from scipy import stats

from rankwise.analysis.means import mean_intervals
from rankwise.analysis.scores import Scores, finished_runs
from rankwise.analysis.variance import components
from rankwise.analysis.verdict import judge, judge_parts
from rankwise.errors import DataError

Floats = NDArray[np.float64]
BASE_ACCURACY = 0.7


@dataclass(frozen=True)
class Shape:
    """One study's design and true noise. Standard deviations are in units of the residual's.

    seed_sd      arm by seed, `shared_sd` of a seed for all arms, `arm_sd` arm by example
    tail         degrees of freedom of the seed effects' Student t, inf for a normal
    unstable     factor on the first arm's `seed_sd`
    group        examples a group (1: none)
    missing      share of runs without a result
    """

    arms: int
    seeds: int
    examples: int
    answers: bool
    strength: str
    seed_sd: float
    shared_sd: float
    arm_sd: float
    tail: float
    unstable: float
    group: int
    missing: float


def draw_shape(rng: np.random.Generator, fewest_seeds: int = 1) -> Shape:
    """A study as one meets them; see the top of this file."""
    examples = round(float(np.exp(rng.uniform(np.log(100), np.log(2000)))))
    strength = str(rng.choice(["none", "like examples", "strong"]))
    factor = {"none": 0.0, "like examples": rng.uniform(0.3, 1.5), "strong": rng.uniform(2, 6)}
    seed_sd = factor[strength] / np.sqrt(examples)
    return Shape(
        arms=int(rng.integers(2, 13)),
        seeds=int(rng.integers(fewest_seeds, 6)),
        examples=examples,
        answers=bool(rng.random() < 1 / 3),
        strength=strength,
        seed_sd=seed_sd,
        shared_sd=seed_sd * rng.uniform(0, 2),
        arm_sd=rng.uniform(0, 0.7),
        tail=float(rng.choice([4.0, np.inf])),
        unstable=4.0 if rng.random() < 0.2 else 1.0,
        group=int(rng.integers(2, 6)) if rng.random() < 0.2 else 1,
        missing=0.1 if rng.random() < 0.2 else 0.0,
    )


def draw_study(rng: np.random.Generator, shape: Shape, gain: float = 0.0) -> tuple[Scores, float]:
    """Scores of a study, and the true mean of its equal arms; the last arm is better by `gain`."""
    seed_A = np.full(shape.arms, shape.seed_sd)
    seed_A[0] *= shape.unstable
    x_ASE = _student(rng, (shape.arms, shape.seeds, 1), shape.tail) * seed_A[:, None, None]
    x_ASE = x_ASE + _student(rng, (1, shape.seeds, 1), shape.tail) * shape.shared_sd
    if shape.answers:
        x_ASE, truth = _answers(rng, shape, x_ASE, seed_A, gain)
    else:
        x_ASE, truth = _losses(rng, shape, x_ASE, gain)
    x_ASE[_lost(rng, shape)] = np.nan
    groups = np.arange(shape.examples) // shape.group if shape.group > 1 else None
    names = tuple(f"arm {a}" for a in range(shape.arms))
    scores = Scores(
        metric="accuracy" if shape.answers else "eval_loss",
        arms=names,
        seeds=tuple(range(shape.seeds)),
        x_ASE=x_ASE,
        groups_E=None if groups is None else groups.tolist(),
        lower_is_better=not shape.answers,
    )
    return scores, truth


def _student(rng: np.random.Generator, size: tuple[int, ...], tail: float) -> Floats:
    """Variance 1, Student t with `tail` degrees of freedom."""
    if np.isinf(tail):
        return rng.standard_normal(size)
    return rng.standard_t(tail, size) / np.sqrt(tail / (tail - 2))


def _per_example(rng: np.random.Generator, shape: Shape, head: tuple[int, int]) -> Floats:
    """Normal effects (arms or 1, seeds or 1, examples) of variance 1, half shared in groups."""
    own = rng.standard_normal((*head, shape.examples))
    if shape.group == 1:
        return own
    groups = -(-shape.examples // shape.group)
    shared = np.repeat(rng.standard_normal((*head, groups)), shape.group, axis=2)
    return np.asarray((own + shared[:, :, : shape.examples]) / np.sqrt(2))


def _losses(
    rng: np.random.Generator, shape: Shape, seeds_ASE: Floats, gain: float
) -> tuple[Floats, float]:
    """Losses: log-normal examples, arm by example and seed by example, t residuals."""
    example = np.exp(0.6 * _per_example(rng, shape, (1, 1)))
    arm = shape.arm_sd * _per_example(rng, shape, (shape.arms, 1))
    seed = 0.3 * _per_example(rng, shape, (1, shape.seeds))
    rest = _student(rng, (shape.arms, shape.seeds, shape.examples), 4.0)
    x_ASE = example + arm + seed + rest + seeds_ASE
    x_ASE[-1] -= gain
    return x_ASE, float(np.exp(0.18))


def _answers(
    rng: np.random.Generator, shape: Shape, seeds_ASE: Floats, seed_A: Floats, gain: float
) -> tuple[Floats, float]:
    """Right (1) or wrong (0): a normal score above zero, with the given accuracy on average.

    The seed effects are made normal here, so that the accuracy they average to is known exactly;
    each arm's threshold allows for its own spread.
    """
    size = (shape.arms, shape.seeds, shape.examples)
    own = rng.standard_normal((shape.arms, shape.seeds, 1)) * seed_A[:, None, None]
    shared = rng.standard_normal((1, shape.seeds, 1)) * shape.shared_sd
    score = 1.5 * _per_example(rng, shape, (1, 1)) + own + shared + rng.standard_normal(size)
    score = score + shape.arm_sd * _per_example(rng, shape, (shape.arms, 1))
    spread_A = np.sqrt(1 + 1.5**2 + shape.arm_sd**2 + seed_A**2 + shape.shared_sd**2)
    share_A = np.full(shape.arms, BASE_ACCURACY)
    share_A[-1] += gain
    x_ASE = score + (stats.norm.ppf(share_A) * spread_A)[:, None, None] > 0
    return x_ASE.astype(np.float64), BASE_ACCURACY


def _lost(rng: np.random.Generator, shape: Shape) -> NDArray[np.bool_]:
    """Runs without a result (A, S); every arm keeps at least one."""
    lost = rng.random((shape.arms, shape.seeds)) < shape.missing
    lost[np.arange(shape.arms), rng.integers(0, shape.seeds, shape.arms)] = False
    return lost


@dataclass(frozen=True)
class Outcome:
    """What one study without any true difference showed."""

    shape: Shape
    winner: bool
    stands_out: bool
    someone_out: bool
    pairs_covered: float
    unstable_covered: float
    means_covered: float
    bootstrap_covered: float


@dataclass(frozen=True)
class BootstrapInterval:
    """Arm minus other with the 2.5 and 97.5 % points of its bootstrap draws."""

    arm: str
    other: str
    value: float
    low: float
    high: float
    seeds: int


def bootstrap_against(
    scores: Scores, other: str, draws: int = 2000, seed: int = 0
) -> tuple[BootstrapInterval, ...]:
    """Every arm against `other`: seeds and examples are drawn again, each with replacement.

    The percentile bootstrap of a two-way layout (Owen, Annals of Applied Statistics 1, 2007, the
    "pigeonhole" bootstrap), on the seeds that both arms finished; arms that share none are left
    out. With few seeds it is too narrow (the variance of n drawn seeds is (n - 1)/n of the true
    one, and no t allows for that), so it checks the verdict's interval and does not replace it.

    Raises DataError without scores by example or where `other` has no finished run.
    """
    runs = finished_runs(scores)
    if runs.u_RG is None:
        raise DataError(f"{scores.metric}: the bootstrap needs scores by example")
    if other not in scores.arms or scores.arms.index(other) not in runs.arm_R:
        raise DataError(f"{scores.metric}: {other} has no finished run to compare with")
    reference = scores.arms.index(other)
    rng = np.random.default_rng(seed)
    groups = runs.u_RG.shape[1]
    weight_BG = rng.multinomial(groups, np.full(groups, 1 / groups), size=draws) / groups
    row = {
        (int(a), int(s)): r for r, (a, s) in enumerate(zip(runs.arm_R, runs.seed_R, strict=True))
    }
    intervals = []
    for a, arm in enumerate(scores.arms):
        shared = [s for s in range(len(scores.seeds)) if (a, s) in row and (reference, s) in row]
        if a == reference or not shared:
            continue
        d_SG = np.stack([runs.u_RG[row[a, s]] - runs.u_RG[row[reference, s]] for s in shared])
        low, high = _percentiles(d_SG, weight_BG, rng)
        value = float(d_SG.mean())
        intervals.append(BootstrapInterval(arm, other, value, low, high, len(shared)))
    return tuple(intervals)


def _percentiles(d_SG: Floats, weight_BG: Floats, rng: np.random.Generator) -> tuple[float, float]:
    seeds = len(d_SG)
    weight_BS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(weight_BG)) / seeds
    drawn_B = np.einsum("bs,bs->b", weight_BS, weight_BG @ d_SG.T)
    low, high = np.percentile(drawn_B, [2.5, 97.5])
    return float(low), float(high)


def judge_equal(
    rng: np.random.Generator, shape: Shape, with_bootstrap: bool, whole: bool = False
) -> Outcome:
    """The intervals of one study of equal arms; where it is asked (whole), its verdict too."""
    scores, truth = draw_study(rng, shape)
    parts = components(scores)
    verdict = judge_parts(scores, parts) if whole else None
    covered = float("nan")
    if with_bootstrap:
        last = scores.arms[-1]
        checks = bootstrap_against(scores, last, draws=400, seed=int(rng.integers(2**31)))
        covered = float(np.mean([c.low <= 0 <= c.high for c in checks]))
    low_AA, high_AA = parts.pairs().interval()
    low_A, high_A = mean_intervals(scores, parts)
    return Outcome(
        shape=shape,
        winner=verdict is not None and verdict.winner is not None,
        stands_out=verdict is not None and verdict.stands_out is not None,
        someone_out=verdict is not None and len(verdict.tie_group) < shape.arms,
        pairs_covered=_pairs_covered(low_AA, high_AA),
        unstable_covered=float(np.mean((low_AA[0, 1:] <= 0) & (high_AA[0, 1:] >= 0))),
        means_covered=float(np.mean((low_A <= truth) & (truth <= high_A))),
        bootstrap_covered=covered,
    )


def _pairs_covered(low_AA: Floats, high_AA: Floats) -> float:
    """Share of all pairs whose interval holds zero."""
    upper = np.triu_indices(len(low_AA), 1)
    return float(np.mean((low_AA[upper] <= 0) & (high_AA[upper] >= 0)))


def planted_found(rng: np.random.Generator, shape: Shape, times: float) -> bool | None:
    """Plant `times` what one study states as detectable into a second study of the same shape.

    Found means that the planted arm is alone in the tie group. None where the accuracy has no room.
    """
    stated = judge(draw_study(rng, shape)[0]).detectable.value
    if shape.answers and BASE_ACCURACY + times * stated > 0.98:
        return None
    verdict = judge(draw_study(rng, shape, gain=times * stated)[0])
    return (verdict.winner or verdict.stands_out) == f"arm {shape.arms - 1}"


def equal_rows(studies: int, seed: int) -> list[Row]:
    """Equal arms under different names: what is claimed of them."""
    rng = np.random.default_rng([seed, 1])
    found = [judge_equal(rng, draw_shape(rng), False, True) for _ in range(studies)]
    rows = [
        row("equal arms, 1 to 5 seeds: a winner is declared", [o.winner for o in found], 0, 0.06)
    ]
    for seeds in range(1, 6):
        own = [o for o in found if o.shape.seeds == seeds]
        rows.append(
            row(f"- {seeds} seed{'s' * (seeds > 1)}: a winner is declared", [o.winner for o in own])
        )
    many = [o for o in found if o.shape.seeds > 1]
    rows.append(
        row("- 2 seeds or more: any arm is left out of the tie", [o.someone_out for o in many])
    )
    one = [o for o in found if o.shape.seeds == 1]
    rows.append(
        row("- 1 seed: a run is said to stand out (no winner)", [o.stands_out for o in one])
    )
    return rows


def coverage_rows(studies: int, checked: int, seed: int) -> list[Row]:
    """How often 95 % intervals hold the truth; the bootstrap on the first `checked` studies."""
    rng = np.random.default_rng([seed, 2])
    found = [judge_equal(rng, draw_shape(rng, 3), n < checked) for n in range(studies)]
    low, high = 0.935, 0.965
    rows = [
        row("95 % interval of a difference, 3 to 5 seeds", _pairs(found), low, high),
        row(
            "95 % interval of an arm's mean, 3 to 5 seeds",
            [o.means_covered for o in found],
            low,
            high,
        ),
    ]
    kinds: list[tuple[str, Callable[[Shape], bool]]] = [
        ("3 seeds", lambda s: s.seeds == 3),
        ("4 seeds", lambda s: s.seeds == 4),
        ("5 seeds", lambda s: s.seeds == 5),
        ("no seed effect", lambda s: s.strength == "none"),
        ("seed effect like the examples' noise", lambda s: s.strength == "like examples"),
        ("seed effect 2 to 6 times that", lambda s: s.strength == "strong"),
        ("losses with heavy tails", lambda s: not s.answers),
        ("right and wrong answers", lambda s: s.answers),
        ("examples in groups", lambda s: s.group > 1),
        ("a tenth of the runs missing", lambda s: s.missing > 0),
        ("2 arms", lambda s: s.arms == 2),
        ("8 to 12 arms", lambda s: s.arms >= 8),
        ("one arm with 4 times the seed spread, all pairs", lambda s: s.unstable > 1),
    ]
    for what, holds in kinds:
        rows.append(row(f"- difference, {what}", _pairs([o for o in found if holds(o.shape)])))
    with_check = [o for o in found if np.isfinite(o.bootstrap_covered)]
    rows.append(
        row("- difference, the bootstrap instead", [o.bootstrap_covered for o in with_check])
    )
    rng = np.random.default_rng([seed, 3])
    two = [judge_equal(rng, replace(draw_shape(rng), seeds=2), False) for _ in range(studies // 3)]
    rows.append(row("95 % interval of a difference, 2 seeds", _pairs(two)))
    one = [judge_equal(rng, _as_trained(draw_shape(rng)), False) for _ in range(studies // 3)]
    rows.append(row("95 % interval of a difference, 1 seed, of the runs as trained", _pairs(one)))
    return rows


def unstable_rows(studies: int, seed: int) -> list[Row]:
    """Differences of one arm with four times the seed spread of the others, by number of seeds."""
    rows = []
    for seeds in (2, 3, 5):
        rng = np.random.default_rng([seed, 5, seeds])
        found = [judge_equal(rng, _unstable(rng, seeds), False) for _ in range(studies)]
        what = f"- difference, {seeds} seeds, of an arm with 4 times the seed spread of the others"
        rows.append(row(what, [o.unstable_covered for o in found]))
    return rows


def _unstable(rng: np.random.Generator, seeds: int) -> Shape:
    """Three arms or more and some seed effect, so that one arm can have more of it."""
    shape = draw_shape(rng, seeds)
    factor = rng.uniform(0.3, 6) / np.sqrt(shape.examples)
    return replace(
        shape, arms=max(shape.arms, 3), seeds=seeds, strength="some", seed_sd=factor, unstable=4.0
    )


def _as_trained(shape: Shape) -> Shape:
    """One seed an arm, and no effect of it: the claim is about these runs and no others."""
    return replace(shape, seeds=1, strength="none", seed_sd=0.0, shared_sd=0.0, missing=0.0)


def _pairs(found: Sequence[Outcome]) -> list[float]:
    return [o.pairs_covered for o in found]


def planted_rows(studies: int, seed: int) -> list[Row]:
    """How often a planted difference makes its arm the only one in the tie group."""
    rows = []
    for n, (what, times, single, low) in enumerate(
        (
            ("planted 2 x detectable is found, 2 to 5 seeds", 2.0, False, 0.9),
            ("planted 2 x detectable is found, 1 seed, runs as trained", 2.0, True, 0.9),
            ("planted 1 x detectable is found, 2 to 5 seeds", 1.0, False, 0.0),
        )
    ):
        rng = np.random.default_rng([seed, 4, n])
        shapes = [draw_shape(rng, 2) for _ in range(studies)]
        if single:
            shapes = [_as_trained(shape) for shape in shapes]
        tried = [planted_found(rng, shape, times) for shape in shapes]
        rows.append(row(what, [hit for hit in tried if hit is not None], low))
    return rows


def _own_rows(part: int, seed: int) -> list[Row]:
    return [
        *equal_rows(400 // part, seed),
        *coverage_rows(1500 // part, 150 // part, seed),
        *unstable_rows(300 // part, seed),
        *planted_rows(250 // part, seed),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 if every bound is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a part of the studies")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    part = 40 if given.quick else 1
    if given.quick:
        rows = [*_own_rows(part, given.seed), *rows_beside(400 // part, given.seed)]
    else:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            own = pool.submit(_own_rows, part, given.seed)
            beside = rows_beside(400, given.seed, pool=pool)
            rows = [*own.result(), *beside]
    print(table(rows))
    missed = [r for r in rows if not r.met(slack=3.0 if given.quick else 0.0)]
    for r in missed:
        print(f"MISSED: {r.what}: {r.rate:.1%}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
