"""The story of a study: spec -> plan -> cohorts -> store.

What the store already has is not done again, and what has been measured is never lost: a run goes
on from its last checkpoint, and an error in one run is written down with its cause, and the others
go on.
"""

import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rankwise.base.origin import base_name
from rankwise.errors import StoreError, is_shortage
from rankwise.results.from_store import read_records
from rankwise.results.looks import KIND, look_to_note
from rankwise.spec.arms import Run
from rankwise.spec.load import dump_spec
from rankwise.store.links import link_names
from rankwise.store.lock import Lock
from rankwise.store.schema import AGAIN, Failure
from rankwise.store.writer import Store
from rankwise.study.answering import rate_answers, unrated
from rankwise.study.begin import (
    Study,
    begin,
    open_study,
    reference_base,
    with_measured_ranks,
    with_stored_ranks,
    write_configurations,
)
from rankwise.study.changes import changes_words, compare
from rankwise.study.export import measure_merged, unmerged
from rankwise.study.keep import drop_adapters, lost_words
from rankwise.study.outlook import incomplete_runs, missing_runs, what_is_left
from rankwise.study.plan import StudyPlan
from rankwise.study.race import next_round
from rankwise.study.record import Remark, StudyBegun, StudyEvent, run_id
from rankwise.study.reload import check_adapters, refuse_unloadable, unchecked
from rankwise.study.search import begin_more, sharing_of, with_stored_proposals
from rankwise.study.settled import made_of
from rankwise.study.space import refuse_without_memory, refuse_without_room
from rankwise.study.train_cohort import BudgetSpent, TrainApart, train_cohort
from rankwise.study.waiting import Together, Waiting
from rankwise.text import count, first_line
from rankwise.train.evaluate import Untouched
from rankwise.train.probe import product_peak


def run_study(
    plan: StudyPlan, folder: Path, lock: Lock | None = None, train_dropped: bool = False
) -> Generator[tuple[StudyEvent, ...], None, None]:
    """Train what is missing; yields what happens, in tuples between which it may be stopped.

    To stop it, close the iterator: what is in training is saved first.

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
        plan = with_stored_ranks(with_stored_proposals(plan, store), store)
        study = open_study(plan, folder, store)
        alike = _divided_alike(plan, store)
        yield from _renew(study)
        if store.begun() and not missing_runs(plan, store):
            _begin_next(study)
            plan = study.plan
        left = what_is_left(plan, store, train_dropped)
        yield tuple(Remark(said) for said in lost_words(left.lost))
        refuse_without_room(plan, left.to_train, folder)
        refuse_without_memory(plan, left.to_train)
        if left.to_train or left.incomplete:
            for run in left.lost:
                store.restart_run(run_id(store, run))
            yield from _train(study, left.to_train, left.incomplete, alike)
        else:
            store.save_cohorts([])
            study.checkpoints.keep([])
        if study.out_of_time():
            yield (_budget_is_spent(study),)
        else:
            yield from _at_the_end(study)
        _note_look(store)
        if not study.out_of_time():
            yield from _drop(study)
        store.set_seconds(study.seconds())


def _renew(study: Study) -> Iterator[tuple[StudyEvent, ...]]:
    """Bring a study that was begun before to the spec of today, and say what that changes."""
    plan, store = study.plan, study.store
    if not store.begun():
        return
    store.take_lock()
    changes = compare(plan, store)
    store.set_spec(dump_spec(plan.spec), plan.spec.model_dump(mode="json", warnings=False))
    if changes.base_files:  # other times of the same bytes: they need not be read once more
        store.save_base_files(changes.base_files)
    store.drop_facts("budget")
    moved = write_configurations(study)
    link_names(store)
    yield tuple(Remark(said) for said in changes_words(changes, moved))
    killed = [run for run in store.runs() if run.state == "running"]
    for run in killed:
        store.set_state(run.id, "interrupted")
    if killed:
        yield (
            Remark(
                f"the last call was killed with {count(len(killed), 'run')} in training; if memory "
                f"was too small, set hardware.memory_gb or hardware.max_runs"
            ),
        )


def _at_the_end(study: Study) -> Iterator[tuple[StudyEvent, ...]]:
    """What is asked of the study as a whole, once its runs are trained."""
    plan, store = study.plan, study.store
    if unrated(store, plan.arms):
        yield (Remark("rating the answers by the untouched base"),)
        base = Untouched(reference_base(study).model)
        rate_answers(base, plan.arms, plan.questions, study.task, store)
    study.bases.let_go()
    yield from check_adapters(study)
    for found in measure_merged(plan, store, study.folder, study.task):
        yield (Remark(found),)


def _note_look(store: Store) -> None:
    """Note that these results are looked at: what is read of them now leaves less for later."""
    look = look_to_note(read_records(store))
    if look is not None:
        store.add_fact(KIND, **look)


def _drop(study: Study) -> Iterator[tuple[StudyEvent, ...]]:
    """Drop adapters by choice; a study with nothing left to do or to say is settled."""
    plan, store = study.plan, study.store
    said = list(drop_adapters(plan, store))
    yield tuple(map(Remark, said))
    made = made_of(plan.spec, plan.arms, plan.rows_sha256)
    open_ends = (
        missing_runs(plan, store),
        incomplete_runs(plan, store),
        unrated(store, plan.arms),
        unmerged(plan, store),
        unchecked(plan, store),
    )
    if made is not None and not said and not any(open_ends):
        store.settle(made)


def _budget_is_spent(study: Study) -> Remark:
    """Note what the budget has left undone."""
    hours, store = study.plan.spec.budget.hours, study.store
    left = len(missing_runs(study.plan, store))
    store.add_fact("budget", hours=hours, left=left)
    return Remark(
        f"the budget of {hours:g} hours is spent; {count(left, 'run')} not done, saved as they are"
    )


def _divided_alike(plan: StudyPlan, store: Store) -> bool:
    """Whether cohorts that were formed before would be formed so today, as far as settings tell."""
    now = plan.spec.hardware.model_dump(mode="json")
    before = store.study().spec.get("hardware", {}) if store.begun() else now
    return all(before.get(name) == now[name] for name in ("device", "max_runs", "memory_gb"))


def _train(
    study: Study, missing: Sequence[Run], incomplete: Sequence[Run], alike: bool
) -> Iterator[tuple[StudyEvent, ...]]:
    """Train the missing runs, and give the incomplete ones what they lack, cohort by cohort."""
    plan, store = study.plan, study.store
    study.sharing = sharing_of(plan)
    yield (Remark(f"loading {base_name(plan.spec.model)}"),)
    begin(study)
    quantization = plan.runs[0].arm.quantization  # of the base that is loaded
    base = reference_base(study)
    study.plan = with_measured_ranks(plan, base, quantization, study.task, store)
    if plan.spec.check_export and missing:
        refuse_unloadable(study, missing)
    waiting = Waiting(study.plan, store, (missing, incomplete), study.task.device, alike)
    yield (_what_is_to_do(study, missing),)
    while waiting.cohorts and not study.out_of_time():
        runs = waiting.cohorts[0].runs
        try:
            yield from train_cohort(study, waiting)
        except BudgetSpent:
            return
        except TrainApart as apart:
            yield from _train_apart(study, waiting, runs, apart.why)
        except StoreError:  # nothing can be written down
            raise
        except Exception as error:  # noqa: BLE001  one run's failure must not cost the others
            yield from _after_failure(study, waiting, error)
        finally:
            _mark_interrupted(study, runs)
            link_names(store)
        store.back_up()
        if not waiting.cohorts:
            more = _begin_next(study)
            waiting.plan = study.plan
            waiting.add(more)
    study.checkpoints.keep(waiting.runs)


def _begin_next(study: Study) -> list[Run]:
    """The next runs of a race, once no run is under way; seeds are given by a look at results.

    What a search keeps for them and they do not need goes to further configurations.
    """
    runs = begin_more(study, 0)
    if not runs:
        runs = next_round(study.plan, study.store)
        if runs:
            _note_look(study.store)
        else:
            runs = begin_more(study, 0, for_seeds=0.0)
    return runs


def _what_is_to_do(study: Study, runs: Sequence[Run]) -> StudyBegun:
    plan, device = study.plan, study.task.device
    steps = {run.id: plan.steps(run.arm) for run in runs}
    dtype = reference_base(study).dtype
    work = max((plan.work_per_token(run.arm) for run in runs), default=0.0)
    return StudyBegun(steps, work, product_peak(dtype, device))


def _train_apart(
    study: Study,
    waiting: Waiting,
    runs: Sequence[Run],
    why: dict[str, Any],
    behind: Together | None = None,
) -> Iterator[tuple[StudyEvent, ...]]:
    """Let each of these runs train alone, next, from where it is."""
    rows = waiting.cohorts[0].most_rows
    alone = [Together((run,), rows, apart=True) for run in runs]
    waiting.replace_first(*alone, *([behind] if behind else ()))
    study.store.add_fact("fallback", runs=[run.id for run in runs], **why)
    yield (Remark(f"training {len(runs)} runs one by one: {_why_apart(why)}"),)


def _why_apart(why: dict[str, Any]) -> str:
    if "difference" in why:
        return f"together, a loss would change by {why['difference']:.2g} of its value"
    return str(why.get("failure") or why.get("error"))


def _after_failure(
    study: Study, waiting: Waiting, error: Exception
) -> Iterator[tuple[StudyEvent, ...]]:
    """What becomes of the runs of a cohort that failed; those that had ended keep their results.

    Too little memory: the others go on from their last checkpoint in two halves; a run alone, with
    fewer rows at once; and what does not fit even so is given up. Another failure may be the fault
    of one: each goes on alone, and one that fails alone is given up.
    """
    first, store = waiting.cohorts[0], study.store
    states = {run: store.run(run_id(store, run)).state for run in first.runs}
    unfinished = [run for run in first.runs if states[run] in AGAIN]
    runs = unfinished or list(first.runs)
    ended = tuple(run for run in first.runs if run not in runs)
    behind = Together(ended, first.most_rows, first.apart, trained=True)
    if is_shortage(error) and (len(runs) > 1 or _fewer_rows(first)):
        yield from _with_less_memory(study, waiting, runs, behind)
    elif len(unfinished) > 1:
        yield from _train_apart(study, waiting, runs, {"error": _cause(error)}, behind)
    else:
        state = "out_of_memory" if is_shortage(error) else "crashed"
        trace = "".join(traceback.format_exception(error))[-4000:]
        failure = Failure(error=_cause(error), traceback=trace)
        for run in unfinished:
            store.set_state(run_id(store, run), state, failure)
        waiting.replace_first(behind)
        yield (Remark(f"{state.replace('_', ' ')}: {_cause(error)}"),)


def _with_less_memory(
    study: Study, waiting: Waiting, runs: Sequence[Run], behind: Together
) -> Iterator[tuple[StudyEvent, ...]]:
    """Let these runs go on in two halves; a run alone, with half of the rows at once."""
    first, middle = waiting.cohorts[0], len(runs) // 2
    if study.task.device.type == "cuda":
        torch.cuda.empty_cache()
    if middle:
        halves = tuple(runs[:middle]), tuple(runs[middle:])
        waiting.replace_first(*(replace(first, runs=half) for half in halves), behind)
        study.store.add_fact("memory", runs=len(first.runs))
        yield (Remark(f"out of memory with {len(first.runs)} runs together; going on in halves"),)
    else:
        rows = _fewer_rows(first)
        waiting.replace_first(replace(first, runs=tuple(runs), most_rows=rows), behind)
        study.store.add_fact("memory_rows", run=runs[0].id, rows=rows)
        yield (Remark(f"out of memory with {runs[0].id} alone; going on with {rows} rows at once"),)


def _fewer_rows(cohort: Together) -> int | None:
    """Half of the rows that a run of the cohort has at once; None where that is one row."""
    rows = cohort.most_rows or cohort.runs[0].arm.training.per_device_train_batch_size
    return (rows + 1) // 2 if rows > 1 else None


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _mark_interrupted(study: Study, runs: Sequence[Run]) -> None:
    """Runs that are still marked as running when their cohort is left were interrupted."""
    for run in runs:
        record = study.store.run(run_id(study.store, run))
        if record.state == "running":
            study.store.set_state(record.id, "interrupted")
