"""The cohorts that are still to be trained, in their order.

How runs are divided depends on the memory that was free when it was decided, so the division is
kept in the store: a study that goes on forms the same cohorts, and gets the same numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from rankwise.adapters.memory import cohort_bytes
from rankwise.spec.arms import Run
from rankwise.store.schema import CohortRecord
from rankwise.store.writer import Store
from rankwise.study.cohorts import what_is_shared
from rankwise.study.plan import StudyPlan
from rankwise.study.race import wanted_runs
from rankwise.study.record import run_id


@dataclass(frozen=True)
class Together:
    """Runs that train together; the attributes are those of `CohortRecord`."""

    runs: tuple[Run, ...]
    most_rows: int | None = None
    apart: bool = False
    trained: bool = False


class Waiting:
    """The cohorts that are not done, the one in training first; every change goes to the store.

    Args:
        plan: The study; its attribute is renewed where a search adds to it.
        store: Its records.
        runs: All runs that lack something; those that no stored cohort holds get new ones.
        device: Where they train.
        keep: Whether the stored cohorts are as they would be divided today.
    """

    def __init__(
        self,
        plan: StudyPlan,
        store: Store,
        runs: Sequence[Sequence[Run]],
        device: torch.device,
        keep: bool,
    ) -> None:
        self.plan, self._store, self._device = plan, store, device
        lacking = [run for some in runs for run in some]
        self.cohorts = self._stored(lacking) if keep else []
        known = {run for one in self.cohorts for run in one.runs}
        for some in runs:
            new = [run for run in some if run not in known]
            self.cohorts += [Together(cohort) for cohort in plan.cohorts(new, device)]
        self._write()

    def _stored(self, lacking: Sequence[Run]) -> list[Together]:
        """The stored cohorts of runs that the plan still has, but those that lack nothing."""
        runs = {run_id(self._store, run): run for run in wanted_runs(self.plan, self._store)}
        found = []
        for record in self._store.cohorts():
            here = tuple(runs[number] for number in record.runs if number in runs)
            if any(run in lacking for run in here):
                found.append(Together(here, record.most_rows, record.apart, record.trained))
        return found

    @property
    def runs(self) -> list[Run]:
        """All runs that are still in a cohort."""
        return [run for one in self.cohorts for run in one.runs]

    @property
    def behind(self) -> int:
        """Runs that are still to be trained in cohorts behind the first one."""
        return sum(len(one.runs) for one in self.cohorts[1:] if not one.trained)

    def add(self, runs: Sequence[Run]) -> None:
        """Let these runs wait behind the others, in cohorts of their own."""
        self.cohorts += [Together(cohort) for cohort in self.plan.cohorts(runs, self._device)]
        self._write()

    def done(self) -> None:
        """The first cohort is done."""
        self.replace_first()

    def replace_first(self, *cohorts: Together) -> None:
        """Put these in the place of the first one."""
        self.cohorts[:1] = [one for one in cohorts if one.runs]
        self._write()

    def refill(self, running: Iterable[Run]) -> bool:
        """Let waiting runs take the places of those that have ended; whether there were any.

        Those that have ended go into a cohort of their own, behind, for what comes after training.
        Whoever joins shares the base and the batch size, and memory is that of the first cohort
        as it was.
        """
        first, still = self.cohorts[0], tuple(running)
        joining = self._joining(first, still)
        if not joining:
            return False
        ended = tuple(run for run in first.runs if run not in still)
        rest = [
            replace(one, runs=tuple(r for r in one.runs if r not in joining))
            for one in self.cohorts[1:]
        ]
        if rest and rest[0].trained:
            ended += rest.pop(0).runs
        together = replace(first, runs=self.plan.in_order((*still, *joining)))
        behind = Together(self.plan.in_order(ended), first.most_rows, trained=True)
        self.cohorts = [together, behind, *(one for one in rest if one.runs)]
        self._write()
        return True

    def _joining(self, first: Together, running: tuple[Run, ...]) -> tuple[Run, ...]:
        if first.apart or first.most_rows is not None or not running:
            return ()
        limit = self._bytes(first.runs)
        joined: tuple[Run, ...] = ()
        for one in self.cohorts[1:]:
            if one.apart or one.trained or one.most_rows is not None:
                continue
            for run in one.runs:
                free = len(first.runs) - len(running) - len(joined)
                if not free or what_is_shared(run) != what_is_shared(running[0]):
                    break
                if self._bytes((*running, *joined, run)) <= limit:
                    joined += (run,)
        return joined

    def _bytes(self, runs: Iterable[Run]) -> int:
        return cohort_bytes([self.plan.memory(run.arm, self._device) for run in runs])

    def _write(self) -> None:
        self._store.save_cohorts(
            [
                CohortRecord(
                    tuple(run_id(self._store, run) for run in one.runs),
                    one.most_rows,
                    one.apart,
                    one.trained,
                )
                for one in self.cohorts
            ]
        )
