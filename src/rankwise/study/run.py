"""The story of a study: spec -> plan -> cohorts -> store.

What the store already has is not done again, and what has been measured is never lost: an error
in one cohort is written down with its cause, and the others go on.
"""

import shutil
import tempfile
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from rankwise.spec.arms import Run
from rankwise.store.schema import FINISHED
from rankwise.store.writer import Store
from rankwise.study.answering import rate_answers, unrated
from rankwise.study.begin import Study, begin, open_study, yardstick
from rankwise.study.events import Remark, StudyBegun, StudyEvent
from rankwise.study.measured_ranks import with_stored_ranks
from rankwise.study.merged_loss import measure_merged
from rankwise.study.plan import Outlook, base_name, shared_trainings
from rankwise.study.train_cohort import TrainApart, train_cohort
from rankwise.text import first_line
from rankwise.train.evaluate import Untouched
from rankwise.train.probe import product_peak

AGAIN = ("planned", "running", "interrupted", "crashed", "out_of_memory")
"""States of a run that a further call does again; `diverged` would only diverge again."""


def run_study(outlook: Outlook, folder: Path) -> Iterator[tuple[StudyEvent, ...]]:
    """Train what is missing; yields what happens, in tuples between which it may be stopped.

    Args:
        outlook: The study, checked.
        folder: Where its results are, or shall be.

    Raises:
        UserError: something that only loading the model can tell.
        StoreError: the folder holds another study, or is in use.
    """
    with Store(folder, create=True) as store:
        outlook = with_stored_ranks(with_stored_names(outlook, store), store)
        study = open_study(outlook, folder, store)
        missing, incomplete = missing_runs(outlook, store), incomplete_runs(outlook, store)
        if missing or incomplete:
            yield from _train(study, missing, incomplete)
        if unrated(store, outlook.arms):
            yield (Remark("rating the answers by the untouched base"),)
            base = Untouched(yardstick(study).model)
            rate_answers(base, outlook.arms, outlook.questions, study.task, store)
        study.bases.let_go()
        for found in measure_merged(outlook, store, folder, study.task):
            yield (Remark(found),)


def with_stored_names(outlook: Outlook, store: Store) -> Outlook:
    """The outlook with the names under which the store knows its arms.

    An arm is named by what varies in its study, so a spec with one more value in its grid would
    name old arms anew, and their runs would seem to be missing.
    """
    known = {arm.id: arm.name for arm in store.arms()}
    arms = {arm.id: replace(arm, name=known.get(arm.id, arm.name)) for arm in outlook.arms}
    runs = tuple(Run(arms[run.arm.id], run.seed) for run in outlook.runs)
    return replace(outlook, arms=tuple(arms.values()), runs=runs)


def missing_runs(outlook: Outlook, store: Store) -> list[Run]:
    """The runs of the plan that the store has not finished."""
    states = {(run.arm_id, run.seed): run.state for run in store.runs()}
    return [run for run in outlook.runs if states.get((run.arm.id, run.seed), "planned") in AGAIN]


def incomplete_runs(outlook: Outlook, store: Store) -> list[Run]:
    """The finished runs that the test part or an answer is missing of."""
    finished = {run.id for run in store.runs() if run.state in FINISHED}
    answered = {record.run_id for record in store.answers()}
    return [
        run
        for run in outlook.runs
        if run.id in finished
        and (
            (outlook.data.test and not store.evaluations(run.id, "test"))
            or (run.arm.generation in outlook.questions and run.id not in answered)
        )
    ]


def _train(
    study: Study, missing: list[Run], incomplete: list[Run]
) -> Iterator[tuple[StudyEvent, ...]]:
    outlook, device = study.outlook, study.task.device
    trainings = shared_trainings(missing)
    study.sharing = {
        run.id: together
        for some in (missing, incomplete)
        for run, together in shared_trainings(some).items()
    }
    yield (Remark(f"loading {base_name(outlook.spec.model)}"),)
    waiting = deque((*outlook.cohorts(missing, device), *outlook.cohorts(incomplete, device)))
    study.cohorts = len(waiting)
    begin(study)
    for run in missing:
        study.store.restart_run(run.id)
    yield (_what_is_to_do(study, list(trainings)),)
    while waiting:
        runs = waiting.popleft()
        try:
            yield from train_cohort(study, runs)
        except TrainApart as why:
            yield from _train_apart(study, runs, waiting, f"trained alone, as {why}")
        except Exception as error:  # noqa: BLE001  one cohort's failure must not cost the others
            yield from _after_failure(study, runs, waiting, error)
        finally:
            _mark_interrupted(study, runs)
            _share_results(study, runs)


def _what_is_to_do(study: Study, runs: Sequence[Run]) -> StudyBegun:
    outlook, device = study.outlook, study.task.device
    steps = {run.id: outlook.steps(run.arm) for run in runs}
    dtype = yardstick(study).dtype
    work = max((outlook.work_per_token(run.arm) for run in runs), default=0.0)
    return StudyBegun(steps, work, product_peak(dtype, device))


def _train_apart(
    study: Study, runs: Sequence[Run], waiting: deque[tuple[Run, ...]], why: str
) -> Iterator[tuple[StudyEvent, ...]]:
    """Let each of these runs train alone, next."""
    waiting.extendleft((run,) for run in reversed(runs))
    study.cohorts += len(runs) - 1
    names = ", ".join(run.id for run in runs)
    study.store.add_note("fallback", f"{why}: {names}")
    yield (Remark(f"{why}: {names}"),)


def _after_failure(
    study: Study, runs: Sequence[Run], waiting: deque[tuple[Run, ...]], error: Exception
) -> Iterator[tuple[StudyEvent, ...]]:
    """What becomes of the runs of a cohort that failed; those that had ended keep their results.

    Too little memory: the others train in two halves, and a run for which there is too little
    even alone is given up. A failure before the first step: each tries alone, for it may be the
    fault of one. A failure in training: those in training have crashed.
    """
    states = {run.id: run.state for run in study.store.runs()}
    running = [run for run in runs if states[run.id] == "running"]
    unfinished = running or [run for run in runs if states[run.id] == "planned"]
    if _is_shortage(error) and len(runs) > 1:
        middle = len(unfinished) // 2
        halves = (tuple(unfinished[:middle]), tuple(unfinished[middle:]))
        waiting.extendleft(half for half in reversed(halves) if half)
        study.cohorts += 2
        for run in unfinished:
            study.store.restart_run(run.id)
        text = f"a cohort of {len(runs)} was too large; halved"
        study.store.add_note("memory", text)
        yield (Remark(text),)
    elif _is_shortage(error):
        for run in unfinished:
            study.store.set_state(run.id, "out_of_memory", first_line(error))
        yield (Remark(f"{runs[0].id}: out of memory: {first_line(error)}"),)
    elif not running and len(unfinished) > 1:
        yield from _train_apart(study, runs, waiting, f"each tried alone, after: {_cause(error)}")
    else:
        lines = "".join(traceback.format_exception(error))[-4000:]
        for run in unfinished:
            study.store.set_state(run.id, "crashed", _cause(error), {"traceback": lines})
        yield (Remark(f"crashed: {_cause(error)}"),)


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _share_results(study: Study, runs: Sequence[Run]) -> None:
    """Give what these runs have come to, to the runs that share their training."""
    adapters = study.folder / "adapters"
    for run in runs:
        for other in study.sharing[run.id]:
            if other.id == run.id:
                continue
            if (adapters / run.id).is_dir():
                _copy_folder(adapters / run.id, adapters / other.id)
            study.store.copy_run(run.id, other.id)


def _copy_folder(source: Path, target: Path) -> None:
    """A copy that appears whole or not at all, in place of what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        ready = shutil.copytree(source, Path(scratch) / "copy")
        shutil.rmtree(target, ignore_errors=True)
        ready.rename(target)


def _is_shortage(error: Exception) -> bool:
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "allocate memory" in str(error)


def _mark_interrupted(study: Study, runs: Sequence[Run]) -> None:
    """Runs that are still marked as running when their cohort is left were interrupted."""
    states = {run.id: run.state for run in study.store.runs()}
    for run in runs:
        if states[run.id] == "running":
            study.store.set_state(run.id, "interrupted", "stopped before its last step")
