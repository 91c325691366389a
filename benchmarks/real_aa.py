"""A/A on real runs: one arm of the quickstart under four names, and how often a winner is seen.

Trains one arm with 20 seeds. The same arm at the same seed is the same run to the last bit, so
the four names get five seeds each. The 20 runs are dealt to the names 1,000 times over, and each
deal is judged as a study of four arms and five seeds would be. There is nothing to find: a winner
may be declared in 5 % of deals, give or take (they share their runs, so they are not independent).

Usage: real_aa.py [--out FOLDER] [--deals 1000]        (a few minutes; goes on where it stopped)
"""

import argparse
from pathlib import Path

import numpy as np

from rankwise.analysis.scores import Scores
from rankwise.analysis.variance import components
from rankwise.analysis.verdict import judge_parts
from rankwise.cli.app import quiet_libraries
from rankwise.cli.interrupt import Stop
from rankwise.cli.progress import show
from rankwise.spec.load import load_spec
from rankwise.spec.models import StudySpec
from rankwise.store.reader import Reader
from rankwise.study.plan import plan_study
from rankwise.study.run import run_study

QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart.yaml"
NAMES, SEEDS = 4, 5
EVAL_STEPS = 10
ARM = {"r": 16, "target_modules": ("query", "value")}


def main() -> None:
    """Train what is missing, deal, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("studies/real-aa"))
    parser.add_argument("--deals", type=int, default=1000)
    options = parser.parse_args()
    quiet_libraries()
    plan = plan_study(one_arm(load_spec(QUICKSTART)), QUICKSTART.parent)
    with Stop().listening() as stop:
        show(run_study(plan, options.out), stop)
    losses_RE, groups_E = losses_of(options.out)
    print(f"{len(losses_RE)} runs of one arm, {losses_RE.shape[1]} examples")
    print(f"validation loss {losses_RE.mean():.4f}, deviation over seeds {spread(losses_RE):.4f}")
    for seeds in (2, 3, SEEDS):
        won, tied = judged(losses_RE, groups_E, seeds, options.deals)
        print(
            f"{NAMES} names x {seeds} seeds: winner declared in {100 * won:.1f} %, "
            f"all names tied in {100 * tied:.1f} % of {options.deals} deals"
        )


def one_arm(spec: StudySpec) -> StudySpec:
    """The quickstart with a single arm and a seed for every run that is dealt."""
    return spec.model_copy(
        update={
            "study": "real-aa",
            "grid": {},
            "lora": spec.lora.model_copy(update=ARM),
            "training": spec.training.model_copy(
                update={"learning_rate": 1e-3, "eval_steps": EVAL_STEPS}
            ),
            "seeds": tuple(range(NAMES * SEEDS)),
        }
    )


def losses_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Losses (R, E) of each run's best validation step, and the groups (E,) of the examples."""
    with Reader(folder) as store:
        rows = []
        for run in store.runs():
            assert run.best_step is not None
            rows.append(store.evaluation_at(run.id, run.best_step).losses)
        examples = store.examples("validation")
    assert examples is not None
    return np.array(rows), examples.groups


def spread(losses_RE: np.ndarray) -> float:
    """Standard deviation of the runs' mean losses."""
    return float(losses_RE.mean(1).std(ddof=1))


def judged(
    losses_RE: np.ndarray, groups_E: np.ndarray, seeds: int, deals: int
) -> tuple[float, float]:
    """Shares of the deals in which a winner is declared, and in which all names are tied."""
    draw = np.random.default_rng(0)
    winners = ties = 0
    for _ in range(deals):
        dealt = draw.permutation(len(losses_RE))[: NAMES * seeds].reshape(NAMES, seeds)
        scores = Scores(
            "eval_loss",
            tuple(f"name {n}" for n in range(NAMES)),
            tuple(range(seeds)),
            x_ASE=losses_RE[dealt],
            groups_E=groups_E,
        )
        verdict = judge_parts(scores, components(scores))
        winners += verdict.winner is not None
        ties += len(verdict.tie_group) == NAMES
    return winners / deals, ties / deals


if __name__ == "__main__":
    main()
