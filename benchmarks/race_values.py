"""Which value of an unfinished run says most about its end? Measured on toy problems.

    python benchmarks/race_values.py        minutes on one core

Compared at several shares of the schedule: the loss of the weights as they are; the loss of the
running average of the adapter's weights (arXiv:2405.18392), over the last third of the steps so
far; the loss after a short branch in which the learning rate falls to zero, a tenth of the schedule
long; and the loss extrapolated to the end, straight in the logarithm of the step through the last
two evaluations. All within one schedule, as a race compares them.

Array suffixes: A arms.
"""

import copy
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from toy_curves import EVERY, STEPS, Pair, Problem, ToyRun, toy_problem

Floats = NDArray[np.float64]
PROBLEMS = 12
SHARES = (0.3, 0.5, 0.7)
BRANCH = STEPS // 10
WHAT = ("as it is", "running average", "decay branch", "extrapolated")


def values_of(problem: Problem, one: dict[str, object], seed: int) -> tuple[Floats, float]:
    """The values of one run (shares, kinds), and its final loss."""
    run = ToyRun(problem, one, seed)
    weights: list[dict[int, Pair]] = []
    before, found = np.nan, []
    for step in range(STEPS):
        run.train(step, run.factor(step))
        weights.append(
            {n: (a.detach().clone(), b.detach().clone()) for n, (a, b) in run.pairs.items()}
        )
        if (step + 1) % EVERY:
            continue
        loss = float(run.losses().mean())
        if round((step + 1) / STEPS, 3) in SHARES:
            slope = (loss - before) / np.log((step + 1) / (step + 1 - EVERY))
            last = loss + slope * np.log(STEPS / (step + 1))
            found.append([loss, _averaged(run, weights), _branched(run, step), last])
        before = loss
    return np.array(found), float(run.losses().mean())


def _averaged(run: ToyRun, weights: list[dict[int, Pair]]) -> float:
    """The loss of the mean of the adapter's weights over the last third of the steps."""
    last = weights[-max(len(weights) // 3, 1) :]
    mean = {
        n: (sum(one[n][0] for one in last) / len(last), sum(one[n][1] for one in last) / len(last))
        for n in run.pairs
    }
    return float(run.losses(mean).mean())  # type: ignore[arg-type]


def _branched(run: ToyRun, step: int) -> float:
    """The loss after `BRANCH` more steps in which the learning rate falls to zero."""
    branch = copy.deepcopy(run)
    now = run.factor(step)
    for more in range(BRANCH):
        branch.train(step + 1 + more, now * (1 - (more + 1) / (BRANCH + 1)))
    return float(branch.losses().mean())


def compared() -> Iterator[tuple[str, float, str, float, float]]:
    """(schedule, share, value, Spearman's correlation with the end, error) as means over problems.

    The error is how far a final difference from the best arm is from what the best multiple of the
    present difference predicts: the median over arms, in units of the spread of final losses.
    """
    found: dict[tuple[str, float, str], list[tuple[float, float]]] = {}
    for number in range(PROBLEMS):
        problem = toy_problem(number)
        for schedule in ("linear", "constant_with_warmup"):
            arms = [o for o in problem.settings.values() if o["lr_scheduler_type"] == schedule]
            runs = [values_of(problem, one, 0) for one in arms]
            end_A = np.array([end for _, end in runs])
            for s, share in enumerate(SHARES):
                for w, what in enumerate(WHAT):
                    value_A = np.array([values[s, w] for values, _ in runs])
                    found.setdefault((schedule, share, what), []).append(_said(value_A, end_A))
    for key, own in found.items():
        yield (*key, *np.mean(own, axis=0).tolist())


def _said(value_A: Floats, end_A: Floats) -> tuple[float, float]:
    best = int(np.argmin(value_A))
    now_A, final_A = value_A - value_A[best], end_A - end_A[best]
    keep = float(np.median(final_A[now_A > 0] / now_A[now_A > 0]))
    error = float(np.median(np.abs(final_A - keep * now_A)) / end_A.std(ddof=1))
    return float(stats.spearmanr(value_A, end_A).statistic), error


def main() -> None:
    """Print the table."""
    print("| schedule | share | value | order | error |\n|---|---|---|---|---|")
    for schedule, share, what, order, error in compared():
        print(f"| {schedule} | {share:.0%} | {what} | {order:.2f} | {error:.2f} |")


if __name__ == "__main__":
    main()
