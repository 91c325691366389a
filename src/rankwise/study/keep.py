"""Adapters on disk: which are lost and must be trained again, and which are dropped by choice."""

import shutil
from collections.abc import Iterator, Mapping, Sequence

from rankwise.adapters.peft_files import unreadable
from rankwise.files import refuse_links, unlike
from rankwise.results.from_store import read_records
from rankwise.results.judge import Choice, judge_records
from rankwise.spec.arms import Run
from rankwise.store.links import link_names
from rankwise.store.reader import ADAPTERS, Reader
from rankwise.store.schema import ENDED, FINISHED, RunRecord
from rankwise.store.writer import Store
from rankwise.study.plan import StudyPlan, shared_trainings
from rankwise.study.settled import LARGE
from rankwise.text import count


def lost_runs(
    plan: StudyPlan, store: Reader, incomplete: Sequence[Run], train_dropped: bool = False
) -> dict[Run, str]:
    """The trained runs of a plan that must be trained again for their adapter, and why.

    A run whose adapter was dropped is one of them only where the adapter is needed, for a test
    part or for answers that it lacks, or asked for.

    Args:
        plan: The study.
        store: Its records.
        incomplete: Trained runs that lack something.
        train_dropped: Whether dropped adapters that `keep_adapters` keeps today are asked for.
    """
    known = {training.id: training.key for training in store.trainings()}
    records = {(known[run.training_id], run.seed): run for run in store.runs()}
    kept = _kept_trainings(plan, store) if train_dropped else set()
    found = {}
    for run in shared_trainings(plan.runs):
        record = records.get((run.arm.training_id, run.seed))
        if record is None or record.state not in FINISHED or record.best_step is None:
            continue
        if record.dropped is None:
            why = what_is_lost(store, record)
        elif run in incomplete or record.training_id in kept:
            why = f"it was dropped by keep_adapters: {record.dropped}, and is needed now"
        else:
            why = None
        if why is not None:
            found[run] = why
    return found


def what_is_lost(store: Reader, run: RunRecord) -> str | None:
    """What is missing or damaged of a run's adapter; large files are compared by size alone."""
    folder, written = store.folder / ADAPTERS / run.folder, store.adapter_files(run.id)
    if not folder.is_dir():
        return f"{folder} is missing"
    return unlike(folder, written, LARGE) if written else unreadable(folder)


def lost_words(lost: Mapping[Run, str]) -> Iterator[str]:
    """A sentence for each run that is trained again."""
    for run, why in lost.items():
        yield f"{run.id} is trained again for its adapter: {why}"


def _kept_trainings(plan: StudyPlan, store: Reader) -> set[int]:
    """The trainings whose adapters `keep_adapters` keeps, as the runs are judged now."""
    keep, trainings = plan.spec.keep_adapters, {one.name: one for one in store.configs()}
    if keep == "all":
        return {one.training_id for one in trainings.values()}
    judgement = judge_records(read_records(store))
    names = {judgement.choice.arm} if judgement.choice.arm else set()
    if keep == "tied":
        names |= set(judgement.verdict.tie_group)
    return {trainings[name].training_id for name in names}


def drop_adapters(plan: StudyPlan, store: Store) -> Iterator[str]:
    """Remove the adapters that `keep_adapters` does not keep; yields what was done, in sentences.

    Only those of the spec's own configurations, and only where every run of it is done and one
    configuration is recommended. A run is marked first and its folder removed after that, so that
    a kill in between leaves nothing that looks lost.
    """
    keep = plan.spec.keep_adapters
    before = [run for run in store.runs() if run.dropped is not None]
    kept = _kept_trainings(plan, store)
    back = [run for run in before if run.training_id in kept]
    if back:
        yield (
            f"{count(len(back), 'adapter')} that keep_adapters: {keep} keeps were dropped before; "
            "`rankwise run SPEC --train-dropped` trains these runs again"
        )
    if keep == "all":
        return
    why = _undecided(plan, store)
    if why is not None:
        yield f"keep_adapters: {keep} has dropped no adapter yet: {why}"
        return
    ours = _trainings_of(plan, store)
    losers = [
        run
        for run in store.runs()
        if run.training_id in ours - kept and (store.folder / ADAPTERS / run.folder).is_dir()
    ]
    for run in losers:
        store.set_dropped(run.id, run.dropped or keep)
        folder = store.folder / ADAPTERS / run.folder
        refuse_links(folder, store.folder / ADAPTERS)  # a foreign study's folder may be a link
        shutil.rmtree(folder)
    link_names(store)
    if losers:
        yield f"keep_adapters: {keep} has dropped {count(len(losers), 'adapter')}"


def _trainings_of(plan: StudyPlan, store: Reader) -> set[int]:
    keys = {arm.training_id for arm in plan.arms}
    return {one.id for one in store.trainings() if one.key in keys}


def _undecided(plan: StudyPlan, store: Reader) -> str | None:
    """Why nothing may be dropped yet; None where it may."""
    ours = _trainings_of(plan, store)
    open_runs = [run for run in store.runs() if run.training_id in ours and run.state not in ENDED]
    if open_runs:
        return f"{count(len(open_runs), 'run')} not done"
    choice: Choice = judge_records(read_records(store)).choice
    if choice.arm is None or choice.basis == "look":
        return "no configuration is recommended"
    return None
