"""What the recorded files hold, as the tables of README.md.

    python benchmarks/curves/describe.py             print them
    python benchmarks/curves/describe.py --write     renew them in README.md

Array suffixes as in `curves.py`: A configurations, S seeds, T evaluations.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from curves import HERE, NOT_RECORDED, Curves, load, problems
from numpy.typing import NDArray
from scipy.stats import rankdata

SHARES = (0.3, 0.5, 0.8)
"""Of the schedule, at which the order is compared with the final one."""
RECORDED = [
    "problem",
    "configurations",
    "seeds",
    "runs",
    "of them diverged",
    "steps of a run",
    "evaluations",
    "held-out examples",
    "in groups",
    "kB",
]
MEASURED = [
    "problem",
    "base",
    "best",
    "median",
    "worst",
    "best configuration",
    *(f"order at {share:.0%}" for share in SHARES),
]
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->"


@dataclass(frozen=True)
class Description:
    """One problem in numbers.

    Attributes:
        runs: Recorded ones.
        diverged: How many of them diverged.
        seeds: Those with all configurations recorded; what follows is of the means over them.
        base: Loss of the untouched base; None for a task whose head is new.
        best: The configuration of the lowest final loss.
        final: Lowest, median and highest final loss among configurations without a diverged run.
        correlations: Spearman's, of the order at each of `SHARES` with the final order. A
            configuration with a run that has ended by then comes last.
    """

    runs: int
    diverged: int
    seeds: tuple[int, ...]
    base: float | None
    best: str
    final: tuple[float, float, float]
    correlations: tuple[float, ...]


def mean_AT(curves: Curves) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Mean loss over the seeds with all configurations; infinite from where a run has ended."""
    whole_S = (curves.status_AS != NOT_RECORDED).all(axis=0)
    loss_AST = curves.loss_AST[:, whole_S]
    seeds = tuple(seed for seed, whole in zip(curves.seeds, whole_S, strict=True) if whole)
    return np.where(np.isnan(loss_AST), np.inf, loss_AST).mean(axis=1), seeds


def describe(curves: Curves) -> Description:
    """A problem in numbers.

    Raises:
        ValueError: no seed has all configurations.
    """
    loss_AT, seeds = mean_AT(curves)
    if not seeds:
        raise ValueError(f"{curves.problem}: no seed with all configurations is recorded")
    final_A = loss_AT[:, -1]
    whole = final_A[np.isfinite(final_A)]
    recorded_AS = curves.status_AS != NOT_RECORDED
    return Description(
        runs=int(recorded_AS.sum()),
        diverged=int((curves.status_AS == "diverged").sum()),
        seeds=seeds,
        base=curves.base["metrics"].get("eval_loss"),
        best=curves.configs[int(final_A.argmin())],
        final=(float(whole.min()), float(np.median(whole)), float(whole.max())),
        correlations=tuple(spearman(loss_AT[:, at(curves, s)], final_A) for s in SHARES),
    )


def at(curves: Curves, share: float) -> int:
    """The last evaluation within a share of the schedule."""
    return int(np.searchsorted(curves.steps, share * curves.steps[-1] + 1e-9, side="right")) - 1


def spearman(one_A: NDArray[np.float64], other_A: NDArray[np.float64]) -> float:
    """Rank correlation; infinities are ties in the last place."""
    return float(np.corrcoef(rankdata(one_A), rankdata(other_A))[0, 1])


def tables(folder: Path = HERE) -> str:
    """Two tables in Markdown: what is recorded, and how the curves are."""
    found = {name: load(name, folder) for name in problems(folder)}
    told = {name: describe(curves) for name, curves in found.items()}
    sizes = {name: (folder / f"{name}.parquet").stat().st_size for name in found}
    recorded = [recorded_row(found[name], told[name], sizes[name]) for name in found]
    measured = [measured_row(name, told[name]) for name in found]
    return f"{markdown(RECORDED, recorded)}\n{markdown(MEASURED, measured)}"


def recorded_row(curves: Curves, told: Description, size: int) -> list[str]:
    """What is recorded of a problem."""
    numbers = [len(curves.configs), len(curves.seeds), told.runs, told.diverged]
    numbers += [curves.steps[-1], len(curves.steps), curves.x_ASTE.shape[3]]
    numbers += [len(set(curves.groups_E.tolist())), round(size / 1000)]
    return [curves.problem, *map(str, numbers)]


def measured_row(name: str, told: Description) -> list[str]:
    """How the curves of a problem are."""
    losses = [f"{loss:.3f}" for loss in told.final]
    base = "-" if told.base is None else f"{told.base:.3f}"
    order = [f"{value:.2f}" for value in told.correlations]
    return [name, base, *losses, f"`{told.best}`", *order]


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Print the tables, or renew them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew README.md")
    if not parser.parse_args().write:
        print(tables())
        return
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    readme.write_text(f"{before}{BEGIN}{tables()}{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
