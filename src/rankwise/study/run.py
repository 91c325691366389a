"""The story of a study: spec -> plan -> cohorts -> store.

What the store already has is not done again, and what has been measured is never lost: an error
in one cohort is written down with its cause, and the others go on.
"""

import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankwise.base.skeleton import base_name
from rankwise.errors import StoreError
from rankwise.spec.arms import Run
from rankwise.store.lock import Lock
from rankwise.store.reader import link_names
from rankwise.store.schema import FINISHED, Failure, RunRecord
from rankwise.store.writer import Store
from rankwise.study.answering import rate_answers, unrated
from rankwise.study.begin import (
    Study,
    begin,
    open_study,
    reference_base,
    with_measured_ranks,
    with_stored_ranks,
)
from rankwise.study.export import measure_merged
from rankwise.study.keep import drop_adapters, lost_runs, lost_words
from rankwise.study.plan import StudyPlan, shared_trainings
from rankwise.study.record import Remark, StudyBegun, StudyEvent, run_id
from rankwise.study.reload import check_adapters, refuse_unloadable
from rankwise.study.space import refuse_without_room
from rankwise.study.train_cohort import TrainApart, train_cohort
from rankwise.text import first_line
from rankwise.train.evaluate import Untouched
from rankwise.train.prepare import is_shortage
from rankwise.train.probe import product_peak

AGAIN = ("planned", "running", "interrupted", "crashed", "out_of_memory")
"""States of a run that a further call does again; `diverged` would only diverge again."""


def run_study(
    plan: StudyPlan, folder: Path, lock: Lock | None = None, train_dropped: bool = False
) -> Iterator[tuple[StudyEvent, ...]]:
    """Train what is missing; yields what happens, in tuples between which it may be stopped.

    Args:
        plan: The study, checked.
        folder: Where its results are, or shall be.
        lock: The right to write there, where the caller has it already.
        train_dropped: Train runs again whose adapters `keep_adapters` dropped and keeps today.

    Raises:
        UserError: something that only loading the model can tell.
        StoreError: the folder holds another study, or is in use.
    """
    with Store(folder, create=True, lock=lock) as store:
        plan = with_stored_ranks(with_stored_names(plan, store), store)
        study = open_study(plan, folder, store)
        missing, incomplete = missing_runs(plan, store), incomplete_runs(plan, store)
        lost = lost_runs(plan, store, incomplete, train_dropped)
        yield tuple(Remark(said) for said in lost_words(lost))
        missing, incomplete = [*missing, *lost], [run for run in incomplete if run not in lost]
        refuse_without_room(plan, missing, folder)
        if missing or incomplete:
            yield from _train(study, missing, incomplete)
        if unrated(store, plan.arms):
            yield (Remark("rating the answers by the untouched base"),)
            base = Untouched(reference_base(study).model)
            rate_answers(base, plan.arms, plan.questions, study.task, store)
        study.bases.let_go()
        if plan.spec.check_export:
            yield from check_adapters(study)
        for found in measure_merged(plan, store, folder, study.task):
            yield (Remark(found),)
        for said in drop_adapters(plan, store):
            yield (Remark(said),)


def with_stored_names(plan: StudyPlan, store: Store) -> StudyPlan:
    """The plan with the names under which the store knows its arms.

    An arm is named by what varies in its study, so a spec with one more value in its grid would
    name old arms anew, and their runs would seem to be missing.
    """
    known = {config.key: config.name for config in store.configs()}
    arms = {arm.id: replace(arm, name=known.get(arm.id, arm.name)) for arm in plan.arms}
    runs = tuple(Run(arms[run.arm.id], run.seed) for run in plan.runs)
    return replace(plan, arms=tuple(arms.values()), runs=runs)


def run_states(store: Store) -> dict[tuple[str, int], RunRecord]:
    """The stored runs by (key of the training, seed)."""
    keys = {training.id: training.key for training in store.trainings()}
    return {(keys[run.training_id], run.seed): run for run in store.runs()}


def missing_runs(plan: StudyPlan, store: Store) -> list[Run]:
    """The runs of the plan that are not trained, one for each training and seed."""
    stored = run_states(store)

    def state_of(run: Run) -> str:
        found = stored.get((run.arm.training_id, run.seed))
        return "planned" if found is None else found.state

    return [run for run in shared_trainings(plan.runs) if state_of(run) in AGAIN]


def incomplete_runs(plan: StudyPlan, store: Store) -> list[Run]:
    """The trained runs that lack the test part, or answers to what a configuration asks."""
    stored = run_states(store)
    configs = {config.key: config.id for config in store.configs()}
    answered = {(record.config_id, record.run_id) for record in store.answers()}
    found = []
    for run, together in shared_trainings(plan.runs).items():
        record = stored.get((run.arm.training_id, run.seed))
        if record is None or record.state not in FINISHED:
            continue
        untested = bool(plan.data.test) and not store.evaluation_metrics(record.id, "test")
        asking = [one for one in together if one.arm.generation in plan.questions]
        silent = any((configs.get(one.arm.id), record.id) not in answered for one in asking)
        if untested or silent:
            found.append(run)
    return found


def _train(
    study: Study, missing: list[Run], incomplete: list[Run]
) -> Iterator[tuple[StudyEvent, ...]]:
    """Train the missing runs, and give the incomplete ones what they lack, cohort by cohort."""
    plan, device = study.plan, study.task.device
    together = shared_trainings(plan.runs)
    study.sharing = {run.id: runs for run, runs in together.items()}
    yield (Remark(f"loading {base_name(plan.spec.model)}"),)
    waiting = deque((*plan.cohorts(missing, device), *plan.cohorts(incomplete, device)))
    study.cohorts = len(waiting)
    begin(study)
    quantization = plan.runs[0].arm.quantization  # of the base that is loaded
    base = reference_base(study)
    study.plan = with_measured_ranks(plan, base, quantization, study.task, study.store)
    if plan.spec.check_export and missing:
        refuse_unloadable(study, missing)
    for run in missing:
        study.store.restart_run(run_id(study.store, run))
    yield (_what_is_to_do(study, missing),)
    while waiting:
        runs = waiting.popleft()
        try:
            yield from train_cohort(study, runs)
        except TrainApart as apart:
            yield from _train_apart(study, runs, waiting, apart.why)
        except StoreError:  # nothing can be written down
            raise
        except Exception as error:  # noqa: BLE001  one cohort's failure must not cost the others
            yield from _after_failure(study, runs, waiting, error)
        finally:
            _mark_interrupted(study, runs)
            link_names(study.store)
        study.store.back_up()


def _what_is_to_do(study: Study, runs: Sequence[Run]) -> StudyBegun:
    plan, device = study.plan, study.task.device
    steps = {run.id: plan.steps(run.arm) for run in runs}
    dtype = reference_base(study).dtype
    work = max((plan.work_per_token(run.arm) for run in runs), default=0.0)
    return StudyBegun(steps, work, product_peak(dtype, device))


def _train_apart(
    study: Study, runs: Sequence[Run], waiting: deque[tuple[Run, ...]], why: dict[str, Any]
) -> Iterator[tuple[StudyEvent, ...]]:
    """Let each of these runs train alone, next."""
    waiting.extendleft((run,) for run in reversed(runs))
    study.cohorts += len(runs) - 1
    study.store.add_fact("fallback", runs=[run.id for run in runs], **why)
    yield (Remark(f"training {len(runs)} runs one by one: {_why_apart(why)}"),)


def _why_apart(why: dict[str, Any]) -> str:
    if "difference" in why:
        return f"together, a loss would change by {why['difference']:.2g} of its value"
    return str(why.get("failure") or why.get("error"))


def _after_failure(
    study: Study, runs: Sequence[Run], waiting: deque[tuple[Run, ...]], error: Exception
) -> Iterator[tuple[StudyEvent, ...]]:
    """What becomes of the runs of a cohort that failed; those that had ended keep their results.

    Too little memory: the others go on in two halves, and a run for which there is too little
    even alone is given up. So do runs that were trained before and only lack something. A failure
    before the first step: each tries alone, for it may be the fault of one. A failure in
    training: those in training have crashed.
    """
    store = study.store
    states = {run: store.run(run_id(store, run)).state for run in runs}
    running = [run for run in runs if states[run] == "running"]
    unfinished = running or [run for run in runs if states[run] == "planned"]
    again = unfinished or [run for run in runs if states[run] in FINISHED]
    if is_shortage(error) and len(runs) > 1:
        middle = len(again) // 2
        halves = (tuple(again[:middle]), tuple(again[middle:]))
        waiting.extendleft(half for half in reversed(halves) if half)
        study.cohorts += 2
        for run in unfinished:
            store.restart_run(run_id(store, run))
        store.add_fact("memory", runs=len(runs))
        yield (Remark(f"out of memory with {len(runs)} runs together; going on in halves"),)
    elif not running and len(unfinished) > 1:
        yield from _train_apart(study, runs, waiting, {"error": _cause(error)})
    else:
        state = "out_of_memory" if is_shortage(error) else "crashed"
        trace = "".join(traceback.format_exception(error))[-4000:]
        failure = Failure(error=_cause(error), traceback=trace)
        for run in unfinished:
            store.set_state(run_id(store, run), state, failure)
        yield (Remark(f"{state.replace('_', ' ')}: {_cause(error)}"),)


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _mark_interrupted(study: Study, runs: Sequence[Run]) -> None:
    """Runs that are still marked as running when their cohort is left were interrupted."""
    for run in runs:
        record = study.store.run(run_id(study.store, run))
        if record.state == "running":
            study.store.set_state(record.id, "interrupted")
