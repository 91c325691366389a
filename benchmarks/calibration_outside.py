"""Are results from elsewhere judged as surely as it is said? Simulated tables with a known truth.

    python benchmarks/calibration_outside.py            under two minutes on one core
    python benchmarks/calibration_outside.py --studies 100

Tables of accuracies with the size of the test set; of reruns that cannot be paired; of blocks, such
as models and tasks. Ends with 1 where a bound is missed by more than two standard errors.

Array suffixes: A arms, S seeds, N test items, K blocks.
"""

import argparse
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rankwise.analysis.blocks import ByBlock, compare_blocks
from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import Verdict, judge

Floats = NDArray[np.float64]
Row = tuple[str, list[float], float, float]
COVERED = (0.935, 0.965)
FREE = (0.0, 1.0)
AT_MOST_6 = (0.0, 0.06)


@dataclass(frozen=True, eq=False)
class Answers:
    """Shares of right answers x_AS on common items.

    truth_A   of each arm, over all seeds, on these items
    run_AS    of each run, on all items
    """

    x_AS: Floats
    truth_A: Floats
    run_AS: Floats
    items: int


def draw_answers(rng: np.random.Generator, seeds: int, arm_sd: float) -> Answers:
    """Right or wrong by a normal score: item, arm by item (`arm_sd`), seed, residual of sd 1.

    All arms are equal over all items; on the items drawn they differ where arm_sd > 0. Seed effects
    from none to several times the noise of the answers.
    """
    arms, items = int(rng.integers(2, 9)), int(np.exp(rng.uniform(np.log(200), np.log(2000))))
    seed_sd = float(rng.choice([0.0, rng.uniform(0.3, 1.5), rng.uniform(2, 6)])) / np.sqrt(items)
    shared_sd = seed_sd * rng.uniform(0, 2)
    level = rng.uniform(-0.5, 1.5)
    fixed_AN = level + 1.5 * rng.standard_normal(items)
    fixed_AN = fixed_AN + arm_sd * rng.standard_normal((arms, items))
    truth_AN = stats.norm.cdf(fixed_AN / np.sqrt(1 + seed_sd**2 + shared_sd**2))
    seed_AS = seed_sd * rng.standard_normal((arms, seeds))
    seed_AS = seed_AS + shared_sd * rng.standard_normal(seeds)
    score_ASN = fixed_AN[:, None] + seed_AS[:, :, None]
    score_ASN = score_ASN + rng.standard_normal((arms, seeds, items))
    run_AS = stats.norm.cdf((level + seed_AS) / np.sqrt(1 + 1.5**2 + arm_sd**2))
    return Answers((score_ASN > 0).mean(axis=2), truth_AN.mean(axis=1), run_AS, items)


def _scores(x_AS: Floats, test_size: int | None = None) -> Scores:
    arms, seeds = x_AS.shape
    return Scores(
        metric="accuracy",
        arms=tuple(f"arm {a}" for a in range(arms)),
        seeds=tuple(range(seeds)),
        x_AS=x_AS,
        test_size=test_size,
        lower_is_better=False,
    )


def _covered(verdict: Verdict, truth_A: Floats) -> float:
    """The share of all pairs whose 95 % interval holds the true difference."""
    pairs = verdict.pairs
    true_AA = truth_A[:, None] - truth_A
    holds_AA = (pairs.low_AA <= true_AA) & (true_AA <= pairs.high_AA)
    return float(holds_AA[np.triu_indices(len(truth_A), 1)].mean())


def accuracy_rows(studies: int, seed: int) -> list[Row]:
    """Two seeds or more, with the size of the test set."""
    rng = np.random.default_rng([seed, 0])
    same, other, older, false = [], [], [], []
    for _ in range(studies):
        drawn = draw_answers(rng, int(rng.integers(3, 6)), rng.uniform(0, 0.7))
        verdict = judge(_scores(drawn.x_AS, drawn.items))
        same.append(_covered(verdict, drawn.truth_A))
        other.append(_covered(verdict, np.zeros(len(drawn.truth_A))))
        older.append(_twice(drawn))
        equal = draw_answers(rng, int(rng.integers(2, 6)), 0.0)
        false.append(float(judge(_scores(equal.x_AS, equal.items)).winner is not None))
    what = "accuracy and test size, 3 to 5 seeds: interval of a difference"
    return [
        (f"{what}, on the same items", same, *COVERED),
        ("- the same, on other items (not claimed; configurations differ by item)", other, *FREE),
        ("- had p(1-p)/n been added, on other items", older, *FREE),
        ("accuracy and test size, 2 to 5 seeds, equal: a winner is declared", false, *AT_MOST_6),
    ]


def _twice(drawn: Answers) -> float:
    """Coverage on other items of intervals with the spread of seeds and p(1-p)/n for each arm."""
    arms, seeds = drawn.x_AS.shape
    rest_AS = drawn.x_AS - drawn.x_AS.mean(axis=1, keepdims=True)
    rest_AS -= rest_AS.mean(axis=0)
    square = float((rest_AS**2).sum()) / (arms - 1) / (seeds - 1)
    p_A = drawn.x_AS.mean(axis=1)
    own_A = p_A * (1 - p_A) / drawn.items
    half_AA = 1.96 * np.sqrt(2 * square / seeds + own_A[:, None] + own_A)
    holds_AA = np.abs(p_A[:, None] - p_A) <= half_AA
    return float(holds_AA[np.triu_indices(arms, 1)].mean())


def single_run_rows(studies: int, seed: int) -> list[Row]:
    """One seed each: without the answers nothing pairs the items, and intervals are bounds."""
    rng = np.random.default_rng([seed, 1])
    found = []
    for _ in range(studies):
        drawn = draw_answers(rng, 1, rng.uniform(0, 0.7))
        verdict = judge(_scores(drawn.x_AS, drawn.items))
        found.append(_covered(verdict, drawn.run_AS[:, 0]))
    what = "accuracy and test size, 1 seed, these runs on other items: interval (a bound)"
    return [(what, found, 0.935, 1.0)]


def rerun_rows(studies: int, seed: int) -> list[Row]:
    """Reruns without a seed: every run in a column of its own, as `from_table` puts them."""
    rng = np.random.default_rng([seed, 2])
    covered = []
    for _ in range(studies):
        arms, runs = int(rng.integers(2, 9)), int(rng.integers(3, 6))
        x_AS = np.full((arms, arms * runs), np.nan)
        for a in range(arms):
            x_AS[a, a * runs : (a + 1) * runs] = rng.standard_normal(runs)
        covered.append(_covered(judge(_scores(x_AS)), np.zeros(arms)))
    return [("reruns without a seed, 3 to 5: interval of a difference", covered, *COVERED)]


def draw_blocks(
    rng: np.random.Generator, interaction: float
) -> tuple[list[Floats], list[dict[str, int]], Floats]:
    """Runs x_AS of each block, its context, and the true mean of each arm in each block (A, K).

    2 to 3 models by 3 to 5 tasks; blocks differ by far more than arms, in level and in noise;
    `interaction` is the standard deviation of arm by block in units of the noise of a mean.
    """
    arms, seeds = int(rng.integers(2, 9)), int(rng.integers(3, 6))
    models, tasks = int(rng.integers(2, 4)), int(rng.integers(3, 6))
    contexts = [{"model": m, "task": t} for m in range(models) for t in range(tasks)]
    sd_K = np.exp(rng.uniform(-0.5, 0.5, len(contexts)))
    truth_AK = rng.normal(0, 20, len(contexts))
    own = interaction * sd_K.mean() / np.sqrt(seeds)
    truth_AK = truth_AK + own * rng.standard_normal((arms, len(contexts)))
    found = []
    for k, sd in enumerate(sd_K):
        shared = rng.standard_normal(seeds) * sd * rng.uniform(0, 2)
        found.append(truth_AK[:, k, None] + shared + sd * rng.standard_normal((arms, seeds)))
    return found, contexts, truth_AK


def judge_blocks(runs: list[Floats], contexts: list[dict[str, int]]) -> tuple[Verdict, ByBlock]:
    """Blocks judged as a table of them is."""
    means = _scores(np.stack([x_AS.mean(axis=1) for x_AS in runs], axis=1))
    verdict = judge(means)
    scores = [_scores(x_AS) for x_AS in runs]
    names = [str(context) for context in contexts]
    return verdict, compare_blocks(names, contexts, scores, verdict, means)


def equal_block_rows(studies: int, seed: int) -> list[Row]:
    """No arm differs in any block."""
    rng = np.random.default_rng([seed, 3])
    seen: dict[str, list[float]] = {}
    for _ in range(studies):
        verdict, found = judge_blocks(*draw_blocks(rng, 0.0)[:2])
        nearest = found.order[0]
        for what, value in (
            ("a winner over all", verdict.winner is not None),
            ("a given one is ruled out", 1 - len(verdict.tie_group) / len(verdict.arms)),
            ("'not the same in all blocks', of the two best", (nearest.p or 0.0) < 0.05),
            ("some block is said to reverse the two best surely", nearest.surely_better > 0),
            ("a value is named in which another is better", bool(found.reversals)),
        ):
            seen.setdefault(f"blocks of equal configurations: {what}", []).append(float(value))
    return [(what, values, *AT_MOST_6) for what, values in seen.items()]


def block_rows(studies: int, seed: int) -> list[Row]:
    """Arms differ from block to block, and are equal on average over all such blocks."""
    rng = np.random.default_rng([seed, 4])
    sample, these = [], []
    for _ in range(studies):
        runs, contexts, truth_AK = draw_blocks(rng, rng.uniform(0, 3))
        verdict, _ = judge_blocks(runs, contexts)
        sample.append(_covered(verdict, np.zeros(len(truth_AK))))
        these.append(_covered(verdict, truth_AK.mean(axis=1)))
    what = "order differs between blocks: interval of a difference"
    return [
        (f"{what}, for all blocks of which these are a sample", sample, *COVERED),
        (f"{what}, on average for these blocks", these, 0.935, 1.0),
    ]


def main() -> None:
    """Print the rows as a table; 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("| simulated tables | measured | ± 2 s.e. | required |\n|---|---|---|---|")
    missed = False
    rows = (accuracy_rows, single_run_rows, rerun_rows, equal_block_rows, block_rows)
    found = [one for make in rows for one in make(given.studies, given.seed)]
    for what, values, low, high in found:
        rate, error = float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))
        asked = "" if (low, high) == FREE else f"{low:.1%} to {high:.1%}"
        print(f"| {what} | {rate:.1%} | {2 * error:.1%} | {asked} |")
        missed |= not low - 2 * error <= rate <= high + 2 * error
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
