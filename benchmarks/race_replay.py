"""A study replayed from recorded curves: who asks for a run up to a share gets it, and pays.

Half of the groups of held-out examples decide; the other half is what a recommendation is judged
on, so that a choice does not grade itself. A run's result is read at the step that its deciding
examples choose in a cross-fitted way, as `rankwise run` does it. Array suffixes: A arms, S seeds,
T evaluations, E examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from curves.curves import Curves
from numpy.typing import NDArray

from rankwise.analysis.crossfit import chosen_without, fold_of, read_at
from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import Verdict, judge
from rankwise.search.seen import Run, Schedule, Seen

Floats = NDArray[np.float64]


@dataclass(eq=False)
class Replay:
    """One repetition: an order of arms and of seeds, and examples that decide.

    order, seeds  arms and seeds as this repetition has them
    decide_E      positions of the examples that decide; judge_E of those that judge
    """

    curves: Curves
    order: tuple[str, ...]
    seeds: tuple[int, ...]
    decide_E: NDArray[np.intp]
    judge_E: NDArray[np.intp]
    number: int
    trained: dict[tuple[str, int], float] = field(default_factory=dict)

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """The share of the schedule at each evaluation."""
        last = self.curves.steps[-1]
        return tuple(step / last for step in self.curves.steps)

    @cached_property
    def schedules(self) -> dict[str, Schedule]:
        """By arm, in the order of this repetition."""
        found = {}
        for arm in self.order:
            own = self.curves.settings[arm]
            found[arm] = Schedule(str(own["lr_scheduler_type"]), 0.1, int(str(own["max_steps"])))
        return found

    @cached_property
    def settings(self) -> dict[str, dict[str, object]]:
        """What varies between arms, by arm."""
        names = ("learning_rate", "r", "target_modules", "lr_scheduler_type", "max_steps")
        return {arm: {n: self.curves.settings[arm][n] for n in names} for arm in self.order}

    @property
    def budget(self) -> float:
        """What was trained so far, in full runs."""
        return sum(self.trained.values())

    def train(self, arm: str, seed: int, share: float) -> None:
        """Train a run up to a share."""
        self.trained[arm, seed] = max(self.trained.get((arm, seed), 0.0), share)

    def losses(self, arm: str, seed: int) -> Floats:
        """Losses of a run (T, E) on the examples that decide; NaN after it diverged."""
        a, s = self._at(arm, seed)
        return np.asarray(self.curves.x_ASTE[a, s][:, self.decide_E])

    def mean(self, arm: str, seed: int, share: float) -> float:
        """The weighted mean loss at a share, infinite after a run diverged."""
        at = int(np.argmin(np.abs(np.array(self.shares) - share)))
        value = float(self.losses(arm, seed)[at] @ self.weights_E)
        return value if np.isfinite(value) else np.inf

    @cached_property
    def weights_E(self) -> Floats:
        """Weights of the deciding examples, summing to 1."""
        w_E = self.curves.weights_E[self.decide_E]
        return np.asarray(w_E / w_E.sum())

    @cached_property
    def fold_E(self) -> NDArray[np.intp]:
        """Folds of the deciding examples."""
        return fold_of(self.curves.groups_E[self.decide_E])

    def result(self, arm: str, seed: int) -> Floats:
        """What a finished run is ranked by (E,); NaN where it diverged."""
        x_TE = self.losses(arm, seed)
        if not np.isfinite(x_TE).all():
            return np.full(x_TE.shape[1], np.nan)
        chosen_F = chosen_without(x_TE, self.fold_E, self.weights_E, True)
        return read_at(x_TE, chosen_F, self.fold_E)

    def seen(self) -> Seen:
        """Everything trained so far."""
        runs = {key: self._run(*key, share) for key, share in self.trained.items()}
        return Seen(
            runs=runs,
            schedules=self.schedules,
            settings=self.settings,
            groups_E=self.curves.groups_E[self.decide_E].tolist(),
            weights_E=self.curves.weights_E[self.decide_E].tolist(),
        )

    def _run(self, arm: str, seed: int, share: float) -> Run:
        x_TE = self.losses(arm, seed)
        finite_T = np.isfinite(x_TE).all(axis=1)
        curve = {
            at: x_TE[t]
            for t, at in enumerate(self.shares)
            if at <= share + 1e-9 and finite_T[: t + 1].all()
        }
        reached_T = np.array(self.shares) <= share + 1e-9
        diverged = not finite_T[reached_T].all()
        finished = share > 1 - 1e-9 and not diverged
        final = self.result(arm, seed) if finished else None
        return Run(curve, final, finished, diverged)

    def verdict(self, runs: Sequence[tuple[str, int]], share: float = 1.0) -> Verdict:
        """The verdict on finished runs, by the deciding examples."""
        arms = tuple(arm for arm in self.order if any(arm == one for one, _ in runs))
        seeds = tuple(sorted({seed for _, seed in runs}))
        x_ASE = np.full((len(arms), len(seeds), len(self.decide_E)), np.nan)
        for arm, seed in runs:
            x_ASE[arms.index(arm), seeds.index(seed)] = self.result(arm, seed)
        scores = Scores(
            metric="loss",
            arms=arms,
            seeds=seeds,
            x_ASE=x_ASE,
            groups_E=self.curves.groups_E[self.decide_E].tolist(),
            weights_E=self.curves.weights_E[self.decide_E].tolist(),
        )
        return judge(scores, share=share)

    @cached_property
    def truth(self) -> dict[str, float]:
        """Mean over all seeds of each arm on the judging examples, at the step its run is read."""
        w_E = self.curves.weights_E[self.judge_E]
        return {
            arm: float(np.mean([self._judged(arm, seed, w_E) for seed in self.curves.seeds]))
            for arm in self.order
        }

    def _judged(self, arm: str, seed: int, w_E: Floats) -> float:
        a, s = self._at(arm, seed)
        if not np.isfinite(self.curves.x_ASTE[a, s]).all():
            return np.inf
        step = int(np.argmin(self.losses(arm, seed) @ self.weights_E))
        return float(self.curves.x_ASTE[a, s, step][self.judge_E] @ w_E / w_E.sum())

    def _at(self, arm: str, seed: int) -> tuple[int, int]:
        return self.curves.configs.index(arm), self.curves.seeds.index(seed)


def repetition(curves: Curves, number: int) -> Replay:
    """The replay of this number: order, seeds and examples are drawn from it alone."""
    rng = np.random.default_rng([number, 29])
    labels = rng.permutation(np.unique(curves.groups_E))
    deciding = np.isin(curves.groups_E, labels[: (len(labels) + 1) // 2])
    order = tuple(curves.configs[a] for a in rng.permutation(len(curves.configs)))
    seeds = tuple(curves.seeds[s] for s in rng.permutation(len(curves.seeds)))
    return Replay(curves, order, seeds, np.flatnonzero(deciding), np.flatnonzero(~deciding), number)
