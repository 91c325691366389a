"""What a call of `rankwise run` will do in a folder: what is kept, what goes on, what is trained.

Told by the plan and the folder alone: nothing is loaded, and nothing is written.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankwise.spec.arms import Run
from rankwise.store.lock import Holder, held_by, refuse_unheld
from rankwise.store.reader import Reader
from rankwise.store.schema import AGAIN, ENDED, FILE, FINISHED, RunRecord
from rankwise.store.seal import BACKUP
from rankwise.store.study_writer import moved_names
from rankwise.study.begin import with_stored_ranks
from rankwise.study.changes import Changes, changes_words, compare
from rankwise.study.checkpoints import Checkpoints
from rankwise.study.keep import lost_runs, lost_words
from rankwise.study.plan import StudyPlan, shared_trainings
from rankwise.study.race import STOPPED, wanted_runs
from rankwise.study.space import needed_bytes, refuse_without_memory, refuse_without_room
from rankwise.text import count, names, size


def run_states(store: Reader) -> dict[tuple[str, int], RunRecord]:
    """The stored runs by (key of the training, seed)."""
    keys = {training.id: training.key for training in store.trainings()}
    return {(keys[run.training_id], run.seed): run for run in store.runs()}


def missing_runs(plan: StudyPlan, store: Reader) -> list[Run]:
    """The wanted runs of the plan that are not trained, one for each training and seed."""
    stored = run_states(store)

    def state_of(run: Run) -> str:
        found = stored.get((run.arm.training_id, run.seed))
        return "planned" if found is None else found.state

    return [run for run in wanted_runs(plan, store) if state_of(run) in AGAIN]


def incomplete_runs(plan: StudyPlan, store: Reader) -> list[Run]:
    """The trained runs that lack the test part, or answers to what a configuration asks.

    So do all of a cohort that a process has left before it was done.
    """
    stored = run_states(store)
    configs = {config.key: config.id for config in store.configs()}
    left = {number for cohort in store.cohorts() for number in cohort.runs}
    answered = {(record.config_id, record.run_id) for record in store.answers()}
    found = []
    for run, together in shared_trainings(plan.runs).items():
        record = stored.get((run.arm.training_id, run.seed))
        if record is None or record.state not in FINISHED:
            continue
        untested = bool(plan.data.test) and not store.evaluation_metrics(record.id, "test")
        asking = [one for one in together if one.arm.generation in plan.questions]
        silent = any((configs.get(one.arm.id), record.id) not in answered for one in asking)
        if untested or silent or record.id in left:
            found.append(run)
    return found


@dataclass(frozen=True)
class Left:
    """What a study lacks.

    Attributes:
        missing: Runs that are not trained.
        incomplete: Trained runs that lack the test part or answers.
        lost: Trained runs that must be trained again for their adapter, and why.
    """

    missing: tuple[Run, ...] = ()
    incomplete: tuple[Run, ...] = ()
    lost: Mapping[Run, str] = field(default_factory=dict)

    @property
    def to_train(self) -> tuple[Run, ...]:
        """All that will be trained."""
        return (*self.missing, *self.lost)


def what_is_left(plan: StudyPlan, store: Reader, train_dropped: bool = False) -> Left:
    """What the plan asks for and the store does not have.

    Args:
        plan: The study.
        store: Its records.
        train_dropped: As for `lost_runs`; judged by the configurations that are current in the
            store.
    """
    incomplete = incomplete_runs(plan, store)
    lost = lost_runs(plan, store, incomplete, train_dropped)
    rest = tuple(run for run in incomplete if run not in lost)
    return Left(tuple(missing_runs(plan, store)), rest, lost)


@dataclass(frozen=True)
class Outlook:
    """What a call will do in a folder.

    Attributes:
        folder: Of the study.
        begun: Whether it holds a study.
        holder: The process that writes it now.
        changes: What the spec changes in that study.
        moved: New names of configurations that give theirs to others, by the old ones.
        outside: Configurations with results that the spec does not have, by their new names.
        seeds_outside: Such seeds.
        states: States of the runs of the plan that are in the store.
        left: What the study lacks.
        steps: The steps from which runs go on.
        dropped: Runs whose adapters were dropped by choice, and are not trained again.
        bytes: What will be written, about.
    """

    folder: Path
    begun: bool
    holder: Holder | None
    changes: Changes
    moved: Mapping[str, str]
    outside: tuple[str, ...]
    seeds_outside: tuple[int, ...]
    states: Mapping[Run, str]
    left: Left
    steps: Mapping[Run, int]
    dropped: tuple[Run, ...]
    bytes: int

    @property
    def done(self) -> tuple[Run, ...]:
        """Runs with results that are kept."""
        return self._ended(FINISHED)

    @property
    def failed(self) -> tuple[Run, ...]:
        """Runs that ended without a result, and would again."""
        return self._ended(tuple(s for s in ENDED if s not in FINISHED and s != STOPPED))

    @property
    def stopped(self) -> tuple[Run, ...]:
        """Runs that the race has ended before their last step."""
        return self._ended((STOPPED,))

    def _ended(self, states: Sequence[str]) -> tuple[Run, ...]:
        lost = self.left.lost
        return tuple(r for r, state in self.states.items() if state in states and r not in lost)

    @property
    def fresh(self) -> tuple[Run, ...]:
        """Runs that never began."""
        return tuple(r for r in self.left.missing if self.states.get(r, "planned") == "planned")

    @property
    def again(self) -> tuple[Run, ...]:
        """Runs that began, and have no checkpoint from which they could go on."""
        known = {*self.fresh, *self.steps}
        return tuple(run for run in self.left.missing if run not in known)


def look_ahead(plan: StudyPlan, folder: Path, train_dropped: bool = False) -> Outlook:
    """What a call will do in a folder; not a byte of it changes, and no lock is kept.

    Raises:
        WrongFolderError: it holds another study.
        StoreError: its records are damaged.
    """
    holder = held_by(folder)
    with ExitStack() as opened:
        store = None
        if (folder / FILE).exists() or (folder / BACKUP).exists():
            found = opened.enter_context(Reader(folder, untouched=holder is None))
            store = found if found.begun() else None
        if store is None:
            runs = tuple(wanted_runs(plan, None))
            new = Changes(new=tuple(arm.name for arm in plan.arms), seeds_new=plan.spec.seeds)
            room = needed_bytes(plan, runs)
            return Outlook(folder, False, holder, new, {}, (), (), {}, Left(runs), {}, (), room)
        return _in_study(plan, folder, store, holder, train_dropped)


def _in_study(
    plan: StudyPlan, folder: Path, store: Reader, holder: Holder | None, train_dropped: bool
) -> Outlook:
    plan = with_stored_ranks(plan, store)
    changes, left = compare(plan, store), what_is_left(plan, store, train_dropped)
    configs, stored = store.configs(), run_states(store)
    keys = {arm.id: arm.name for arm in plan.arms}
    moved = moved_names(keys, [(config.key, config.name) for config in configs])
    of_runs = {
        run: stored[run.arm.training_id, run.seed]
        for run in shared_trainings(plan.runs)
        if (run.arm.training_id, run.seed) in stored
    }
    started = [run for run in left.missing if run in of_runs]
    return Outlook(
        folder,
        True,
        holder,
        changes,
        moved,
        tuple(moved.get(one.name, one.name) for one in configs if one.key not in keys),
        tuple(sorted({run.seed for run in store.runs()} - set(plan.spec.seeds))),
        {run: record.state for run, record in of_runs.items()},
        left,
        Checkpoints(folder, 0).steps(store, started),
        tuple(r for r, record in of_runs.items() if record.dropped and r not in left.lost),
        needed_bytes(plan, left.to_train),
    )


def refuse_as_run_would(plan: StudyPlan, outlook: Outlook) -> None:
    """Raise what `rankwise run` would raise before it loads anything.

    Raises:
        InUseError, WrongFolderError: the folder cannot be written, or is being written.
        UserError: there is no room for the results.
    """
    refuse_unheld(outlook.folder)
    refuse_without_room(plan, outlook.left.to_train, outlook.folder)
    refuse_without_memory(plan, outlook.left.to_train)


def outlook_words(outlook: Outlook, plan: StudyPlan) -> Iterator[str]:
    """What a call will do, in sentences."""
    if outlook.holder is not None:
        yield f"{outlook.folder}: run by {outlook.holder.words()}"
    if not outlook.begun:
        yield f"{outlook.folder}: no study there yet"
    else:
        yield f"{outlook.folder}: its study, beside this spec"
        yield from changes_words(outlook.changes, outlook.moved)
        yield from _kept_words(outlook)
    yield from _training_words(outlook, plan)


def _kept_words(outlook: Outlook) -> Iterator[str]:
    failed, dropped = outlook.failed, outlook.dropped
    if outlook.done:
        yield f"kept: {count(len(outlook.done), 'run')} done"
    if failed:
        yield f"kept: {count(len(failed), 'run')} that ended without a result ({_ids(failed)})"
    if outlook.stopped:
        stopped = count(len(outlook.stopped), "run")
        yield f"kept: {stopped} that the race has stopped ({_ids(outlook.stopped)})"
    if outlook.outside:
        yield f"kept, outside the ranking: configurations {names(outlook.outside)}"
    if outlook.seeds_outside:
        seeds = names([str(seed) for seed in outlook.seeds_outside])
        yield f"kept, outside the ranking: runs with seeds {seeds}"
    if dropped:
        yield f"dropped by keep_adapters, and not trained again: {_ids(dropped)}"


def _training_words(outlook: Outlook, plan: StudyPlan) -> Iterator[str]:
    left, fresh, again = outlook.left, outlook.fresh, outlook.again
    for run, step in outlook.steps.items():
        yield f"{run.id} goes on from its checkpoint at step {step} of {plan.steps(run.arm)}"
    for run in again:
        state = outlook.states[run].replace("_", " ")
        yield f"{run.id} begins again: it is {state}, and no checkpoint of it can be used"
    if fresh:
        yield f"to be trained: {count(len(fresh), 'run')} that never began ({_ids(fresh)})"
    yield from lost_words(left.lost)
    if left.incomplete:
        yield f"trained, and lack test part or answers: {_ids(left.incomplete)}"
    if left.to_train:
        yield (
            f"in all {count(len(left.to_train), 'run')} to be trained, about "
            f"{size(outlook.bytes)} to be written"
        )
    elif not left.incomplete:
        yield "nothing is left to be trained"


def _ids(runs: Sequence[Run]) -> str:
    return names([run.id for run in runs])


def outlook_facts(outlook: Outlook) -> dict[str, Any]:
    """What a call will do, JSON-ready."""
    changes, left = outlook.changes, outlook.left
    return {
        "folder": str(outlook.folder),
        "begun": outlook.begun,
        "held": outlook.holder is not None,
        "unchanged": list(changes.unchanged),
        "new": list(changes.new),
        "renamed": dict(changes.renamed),
        "changed": {
            name: {key: {"was": old, "now": now} for key, (old, now) in differing.items()}
            for name, differing in changes.changed.items()
        },
        "moved": dict(outlook.moved),
        "removed": list(changes.removed),
        "outside": list(outlook.outside),
        "seeds_new": list(changes.seeds_new),
        "seeds_outside": list(outlook.seeds_outside),
        "done": [run.id for run in outlook.done],
        "failed": [run.id for run in outlook.failed],
        "stopped": [run.id for run in outlook.stopped],
        "go_on": {run.id: step for run, step in outlook.steps.items()},
        "begin_again": [run.id for run in outlook.again],
        "begin": [run.id for run in outlook.fresh],
        "train_again": {run.id: why for run, why in left.lost.items()},
        "incomplete": [run.id for run in left.incomplete],
        "dropped": [run.id for run in outlook.dropped],
        "bytes": outlook.bytes,
    }
