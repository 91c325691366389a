"""Races and other policies replayed on recorded curves: what each costs, and what it recommends.

    python benchmarks/race.py qa dialogue --repetitions 200    the judging problems (the default)
    python benchmarks/race.py --tune                           fit search/prior.py, tuning problems
    python benchmarks/race.py --equal                          equal arms: false winners, coverage

Every policy but the full grid has the budget that the race used in the same repetition. Half of the
held-out examples (by group) decide, the other half judges what is recommended (`race_replay`).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from curves.curves import Curves, load
from race_equal import WORSE, equal_arms
from race_ours import Raced, race
from race_policies import POLICIES
from race_replay import Replay, repetition
from race_tune import as_source, prior_of
from simulated_curves import simulated_curves
from toy_curves import toy_curves

TUNING = ("reviews", "book", *(f"toy-{n}" for n in range(7)))
JUDGING = ("qa", "dialogue")
# The most that a race may spend, as a share of the full grid.
MOST = 0.25
# The full grid leaves an arm in its tie group that is far behind and very noisy; who stops it is
# right. Arms nearer to the best than this share of the spread between arms are no such case.
NEAR = 0.1


@dataclass(frozen=True)
class Row:
    """One repetition of one policy.

    regret     distance of the recommended arm from the best on the judging examples
    spread     standard deviation of the arms there
    killed     of the full grid's tie group, how many were stopped; `tied` is that group's size
    near       of those, how many are truly behind the best by less than NEAR of the spread
    best_lost  the truly best arm was stopped
    """

    budget: float
    audit: float
    regret: float
    spread: float
    group: int
    tied: int
    killed: int
    near: int
    best_lost: bool


def row_of(replay: Replay, done: Raced, full: Raced) -> Row:
    """The measures of one repetition."""
    truth = replay.truth
    finite = [value for value in truth.values() if np.isfinite(value)]
    best = min(truth, key=lambda arm: truth[arm])
    spread = float(np.std(finite, ddof=1))
    killed = done.stopped & set(full.group)
    return Row(
        budget=done.budget,
        audit=done.audit,
        regret=truth[done.recommended] - truth[best],
        spread=spread,
        group=len(done.group),
        tied=len(full.group),
        killed=len(killed),
        near=sum(truth[arm] - truth[best] < NEAR * spread for arm in killed),
        best_lost=best in done.stopped,
    )


def replayed(curves: Curves, number: int, most: float) -> dict[str, Row]:
    """All policies of one repetition, by name."""
    grid = len(curves.configs) * len(curves.seeds)
    full = POLICIES["full grid"](repetition(curves, number), grid)
    ours = repetition(curves, number)
    done = race(ours, most * grid)
    rows = {"race and rounds": row_of(ours, done, full)}
    for name, policy in POLICIES.items():
        replay = repetition(curves, number)
        rows[name] = row_of(replay, policy(replay, done.budget), full)
    return rows


def table(curves: Curves, rows: dict[str, list[Row]]) -> str:
    """One line a policy."""
    grid = len(curves.configs) * len(curves.seeds)
    lines = [
        f"{curves.problem}: {len(curves.configs)} configurations, {len(curves.seeds)} seeds",
        f"{'policy':20} {'runs':>6} {'of grid':>8} {'regret':>8} {'95 %':>8} {'% spread':>9}"
        f" {'95 %':>7} {'best lost':>9} {'false kills':>11} {'near ones':>9} {'group':>6}",
    ]
    for name, own in rows.items():
        budget = np.mean([row.budget for row in own])
        regret_N = np.array([row.regret for row in own])
        part_N = 100 * regret_N / np.array([row.spread for row in own])
        tied = sum(row.tied for row in own)
        kills, near = (sum(n) / tied for n in ((r.killed for r in own), (r.near for r in own)))
        lines.append(
            f"{name:20} {budget:6.1f} {budget / grid:8.3f} {regret_N.mean():8.4f}"
            f" {np.quantile(regret_N, 0.95):8.4f} {part_N.mean():9.2f}"
            f" {np.quantile(part_N, 0.95):7.2f} {np.mean([r.best_lost for r in own]):9.1%}"
            f" {kills:11.1%} {near:9.1%} {np.mean([row.group for row in own]):6.1f}"
        )
    ours = next(iter(rows.values()))
    lines.append(
        f"the race's audit cost {np.mean([row.audit for row in ours]):.2f} runs of that; "
        f"the full grid's tie group has {np.mean([row.tied for row in ours]):.1f} configurations"
    )
    return "\n".join(lines)


def judged(curves: Curves, repetitions: int, most: float) -> str:
    """The table of one problem."""
    rows: dict[str, list[Row]] = {}
    for number in range(repetitions):
        for name, row in replayed(curves, number, most).items():
            rows.setdefault(name, []).append(row)
    return table(curves, rows)


def problem_of(name: str) -> Curves:
    """A recorded problem, or `simulated-N` or `toy-N`."""
    if name.startswith("simulated-"):
        return simulated_curves(int(name.removeprefix("simulated-")))
    if name.startswith("toy-"):
        return toy_curves(int(name.removeprefix("toy-")))
    return load(name)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", help=f"default: {' '.join(JUDGING)}")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--most", type=float, default=MOST, help="share of the grid for the race")
    parser.add_argument("--tune", action="store_true", help="fit the prior to the tuning problems")
    parser.add_argument("--equal", action="store_true", help="equal arms")
    options = parser.parse_args(arguments)
    if options.equal:
        for worse in (0, WORSE):
            print(equal_arms(options.repetitions, worse), flush=True)
    elif options.tune:
        found = [problem_of(name) for name in options.problems or TUNING]
        print(as_source(prior_of(found, options.repetitions)))
    else:
        for name in options.problems or JUDGING:
            print(judged(problem_of(name), options.repetitions, options.most), flush=True)


if __name__ == "__main__":
    main()
