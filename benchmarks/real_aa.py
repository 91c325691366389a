"""A/A on real runs: one arm of the quickstart under four names, and how often a winner is seen.

Trains one arm with 20 seeds, evaluated 12 times. The same arm at the same seed is the same run to
the last bit, so the four names get five seeds each. The 20 runs are dealt to the names 1,000 times
over, and each deal is judged as a study of four arms and five seeds would be. There is nothing to
find: a winner may be declared in 5 % of deals, give or take (they share their runs, so they are not
independent).

Runs are read at steps chosen on other examples, as the report does it, and for comparison at the
best step on the same examples. Then once more, where the first name has all 12 evaluations to
choose from and the others every third of them: it should look best in about a quarter of deals.

Usage: real_aa.py [--out FOLDER] [--deals 1000]        (27 minutes on two busy cores; it goes on)

Array suffixes: R runs, T evaluations, E examples.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankwise.analysis.crossfit import chosen_without, fold_of, read_at
from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import judge
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
FEW = slice(2, None, 3)
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
    losses_RTE, groups_E = losses_of(options.out)
    runs, evaluations, examples = losses_RTE.shape
    print(f"{runs} runs of one arm, {examples} examples, {evaluations} evaluations")
    for crossed in (True, False):
        print("steps chosen on " + ("other examples" if crossed else "the same examples"))
        full_RE = np.array([read(x_TE, groups_E, crossed) for x_TE in losses_RTE])
        few_RE = np.array([read(x_TE[FEW], groups_E, crossed) for x_TE in losses_RTE])
        mean_R = full_RE.mean(1)
        print(f"  validation loss {mean_R.mean():.4f}, over seeds {mean_R.std(ddof=1):.4f}")
        for seeds in (2, 3, SEEDS):
            alike = judged(full_RE, full_RE, groups_E, seeds, options.deals)
            print(f"  {NAMES} names x {seeds} seeds: {alike.words()}")
        uneven = judged(full_RE, few_RE, groups_E, SEEDS, options.deals)
        print(f"  12 evaluations against 4, x {SEEDS} seeds: {uneven.words()}")


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
    """Losses (R, T, E) of each run's validations, and the groups (E,) of the examples."""
    with Reader(folder) as store:
        losses = [[one.losses for one in store.evaluations(run.id)] for run in store.runs()]
        examples = store.examples("validation")
    assert examples is not None
    return np.array(losses, dtype=np.float64), examples.groups


def read(losses_TE: np.ndarray, groups_E: np.ndarray, crossed: bool) -> np.ndarray:
    """A run's losses (E,) at steps chosen on other examples, or at the best step on all."""
    if not crossed:
        return losses_TE[np.argmin(losses_TE.mean(1))]
    fold_E = fold_of(groups_E)
    return read_at(losses_TE, chosen_without(losses_TE, fold_E, None, True), fold_E)


@dataclass(frozen=True)
class Shares:
    """Shares of the deals in which a winner is declared, all names are tied, the first is best."""

    winner: float
    tied: float
    first: float

    def words(self) -> str:
        """As it is printed."""
        return (
            f"winner declared in {100 * self.winner:.1f} %, all names tied in "
            f"{100 * self.tied:.1f} %, the first looks best in {100 * self.first:.1f} %"
        )


def judged(
    first_RE: np.ndarray, others_RE: np.ndarray, groups_E: np.ndarray, seeds: int, deals: int
) -> Shares:
    """The verdicts on so many deals; the first name's runs are read as in `first_RE`."""
    draw = np.random.default_rng(0)
    names = tuple(f"name {n}" for n in range(NAMES))
    winners = ties = best = 0
    for _ in range(deals):
        dealt = draw.permutation(len(first_RE))[: NAMES * seeds].reshape(NAMES, seeds)
        x_ASE = np.concatenate([first_RE[dealt[:1]], others_RE[dealt[1:]]])
        scores = Scores("eval_loss", names, tuple(range(seeds)), x_ASE=x_ASE, groups_E=groups_E)
        verdict = judge(scores)
        winners += verdict.winner is not None
        ties += len(verdict.tie_group) == NAMES
        best += verdict.best == names[0]
    return Shares(winners / deals, ties / deals, best / deals)


if __name__ == "__main__":
    main()
