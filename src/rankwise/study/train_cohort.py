"""One cohort from its frozen base to its test part: tried, trained, asked and priced.

Its runs go on from their checkpoints, where they have any. What a run has recorded is never older
than its checkpoint, and its end is recorded after it is in one; so a process that is killed at any
moment leaves what the next one needs, and nothing that it would not repeat.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from rankwise.adapters.peft_files import AdapterWriter, read_adapter
from rankwise.base.load import Base
from rankwise.base.origin import base_name, locate_model
from rankwise.errors import StoreError
from rankwise.files import sums_of
from rankwise.spec.arms import Run
from rankwise.spec.models import GenerationSpec
from rankwise.store.schema import ENDED, FINISHED, CostRecord, RunRecord
from rankwise.study.answering import ask_runs
from rankwise.study.begin import Study, parts_of_one, with_measured_ranks
from rankwise.study.checkpoints import is_recorded
from rankwise.study.race import stops
from rankwise.study.record import (
    CohortFormed,
    Remark,
    StudyEvent,
    record,
    run_id,
    save_best_weights,
)
from rankwise.study.search import begin_more
from rankwise.study.waiting import Waiting
from rankwise.text import first_line
from rankwise.train.bank import Bank, Trainable
from rankwise.train.cohort import Cohort, Member, form_cohort, new_states, take_out
from rankwise.train.loop import (
    Ended,
    Evaluated,
    Evaluating,
    Event,
    load_best_weights,
    read_test,
    train,
)
from rankwise.train.prepare import first_rows, make_bank
from rankwise.train.probe import probe_cost, probe_together
from rankwise.train.run_state import RunState

PROBE_ROWS = 2
PRICE_TRIALS = 3


class TrainApart(Exception):
    """Together these runs would not get the numbers that each gets alone.

    Attributes:
        why: The facts of it: the largest relative `difference` of a loss, or the `failure`.
    """

    def __init__(self, **why: Any) -> None:
        super().__init__(str(why))
        self.why = why


class BudgetSpent(Exception):
    """The hours of `budget` are over; what was in training is saved."""


def train_cohort(study: Study, waiting: Waiting) -> Iterator[tuple[StudyEvent, ...]]:
    """Train the first cohort, read the test part, put the prompts, and price its configurations.

    Runs that an earlier call has trained get what they still lack. Once a run is called done,
    nothing that fails later changes that. Where runs end and others wait, these take their
    places, and nothing follows: the first cohort that waits is then another one.

    Raises:
        TrainApart: on this model, each of the runs must train alone.
        BudgetSpent: as said.
    """
    first, plan = waiting.cohorts[0], study.plan
    runs = first.runs
    base, bank = _load(study, runs)
    try:
        _check_together(study, bank, runs, base)
        states = _states(study, runs)
        yield tuple(_damaged(study))
        cohort = form_cohort(
            bank,
            states,
            study.task,
            plan.train,
            plan.data.validation,
            plan.spec.objective.metric,
            plan.tokenizer,
            first.most_rows,
        )
        writer = adapter_writer(study, base)
        _go_on_from(study, cohort, writer)
        if _refilled(study, cohort, waiting):  # an earlier process died before it could
            return
        yield (_formed(study, cohort, waiting),)
        yield from _train(study, cohort, waiting, writer)
        if any(member.running for member in cohort.members):
            return
        yield from _after_training(study, cohort, base, writer)
        waiting.done()
    finally:
        if isinstance(bank, Bank):
            bank.take_apart()


def _damaged(study: Study) -> Iterator[Remark]:
    """Name the checkpoints that were found damaged."""
    checkpoints = study.checkpoints
    for name in checkpoints.unreported:
        yield Remark(
            f"{checkpoints.folder / name}: damaged ({checkpoints.damaged[name]}); going on from "
            f"the checkpoint before it, or from the start where there is none"
        )
    checkpoints.unreported.clear()


def _formed(study: Study, cohort: Cohort, waiting: Waiting) -> CohortFormed:
    study.cohort += 1
    steps = {member.id: member.state.max_steps for member in cohort.members}
    done = {member.id: member.state.step for member in cohort.members}
    count = study.cohort + len(waiting.cohorts) - 1
    return CohortFormed(study.cohort, count, steps, study.plan.spec.objective.metric, done)


def _train(
    study: Study, cohort: Cohort, waiting: Waiting, writer: AdapterWriter
) -> Iterator[tuple[StudyEvent, ...]]:
    """Train to the end, or until waiting runs have taken the places of some that ended."""
    saved = True
    try:
        for events in train(cohort):
            ends = [event for event in events if isinstance(event, Ended)]
            record([event for event in events if event not in ends], cohort, study.store, writer)
            stopped = _stopped(study, cohort, events)
            ends, events = ends + stopped, (*events, *stopped)
            saved = saved and all(isinstance(event, Evaluating) for event in events)
            if ends or (not saved and study.checkpoints.due()):
                save(study, cohort, waiting)
                saved = True
            record(ends, cohort, study.store, writer)
            refilled = bool(ends) and _refilled(study, cohort, waiting)
            yield events
            if study.out_of_time():
                raise BudgetSpent
            if refilled:
                return
    except (GeneratorExit, BudgetSpent):  # the caller stops here, or the budget is spent
        if not saved:
            save(study, cohort, waiting)
        raise


def _refilled(study: Study, cohort: Cohort, waiting: Waiting) -> bool:
    """Let others take the places of ended runs, where some still train; whether there were any.

    Noted before anything else happens: a process that dies here goes on as this one would have.
    """
    still = [member.state.run for member in cohort.members if member.running]
    if not still or len(still) == len(cohort.members):
        return False
    more = begin_more(study, len(still) + waiting.behind)
    waiting.plan = study.plan
    waiting.add(more)
    return waiting.refill(still)


def _stopped(study: Study, cohort: Cohort, events: Sequence[Event]) -> list[Ended]:
    """The runs that a race stops after these events."""
    evaluated = [event for event in events if isinstance(event, Evaluated)]
    members = {member.id: member for member in cohort.members}
    return stops(study.plan, study.store, evaluated, members) if evaluated else []


def save(study: Study, cohort: Cohort, waiting: Waiting) -> None:
    """Write a checkpoint; what was recorded is on disk before it."""
    study.store.set_seconds(study.seconds())
    study.store.sync()
    study.checkpoints.save(take_out(cohort))
    study.checkpoints.keep(waiting.runs)


def adapter_writer(study: Study, base: Base) -> AdapterWriter:
    """Writes adapters of this study over this base."""
    model = study.plan.spec.model
    name = base_name(model) if model.name is None else locate_model(model.name).folder
    return AdapterWriter(
        study.folder / "adapters", name, study.task.name, base.model, study.plan.data.label_names
    )


def _load(study: Study, runs: Sequence[Run]) -> tuple[Base, Trainable]:
    """The base of these runs with their bank in it; ranks by importance are settled here."""
    arm, seeds = runs[0].arm, [run.seed for run in runs]
    if arm.method == "full":
        base = study.bases.whole()
        return base, make_bank(base, [None], seeds)
    base = study.bases.frozen(arm.quantization)
    study.plan = with_measured_ranks(study.plan, base, arm.quantization, study.task, study.store)
    adapters = [study.plan.adapters[run.arm.id] for run in runs]
    return base, make_bank(base, adapters, seeds)


def _states(study: Study, runs: Sequence[Run]) -> list[RunState]:
    """Runs where they are: at their last checkpoint, at their end, or before their first step."""
    saved = study.checkpoints.load(runs)
    states = []
    for run in runs:
        found = study.store.run(run_id(study.store, run))
        state = saved.get(run)
        if state is not None and is_recorded(study.store, found.id, state.step, _best_of(state)):
            states.append(state)
        elif found.state in FINISHED:
            states.append(_finished(study, run, found))
        else:
            (new,) = new_states([run], study.plan.train)
            if found.state in ENDED:
                new.status = found.state
            states.append(new)
    return states


def _best_of(state: RunState) -> int | None:
    return None if state.best is None else state.best_step


def _finished(study: Study, run: Run, record: RunRecord) -> RunState:
    adapter = study.plan.adapters[run.arm.id]
    weights = read_adapter(study.folder / "adapters" / record.folder, adapter)
    assert record.best_step is not None
    steps = study.plan.steps(run.arm)
    return RunState(
        run, steps, best_weights=weights, best_step=record.best_step, status=record.state
    )


def _go_on_from(study: Study, cohort: Cohort, writer: AdapterWriter) -> None:
    """Bring the records of a cohort's runs to where its runs are: forget what came after."""
    store = study.store
    for member in cohort.members:
        state, number = member.state, run_id(store, member.state.run)
        found = store.run(number)
        if found.state in ENDED:
            continue
        best = state.best_step if state.best_weights else None
        store.rewind_run(number, state.step, state.evaluated, best)
        if best is not None:  # the one on disk may be that of a later step
            files = sums_of(save_best_weights(member, cohort, writer, found.folder))
            store.set_best(number, best, files)
        if member.running:
            store.set_state(number, "running")
            if state.step and study.task.device.type != "cpu":
                store.add_fact("resumed", runs=[member.id], device=study.task.device.type)
        else:
            record([Ended(member.id, state.status, state.why)], cohort, store, writer)


def _check_together(study: Study, bank: Trainable, runs: Sequence[Run], base: Base) -> None:
    """Try whether these runs may train together."""
    if len(runs) == 1 or not isinstance(bank, Bank):
        return
    batch = first_rows(parts_of_one(study, runs[0]), PROBE_ROWS)
    agreement = probe_together(bank, study.task.name, batch, base.dtype)
    if agreement.failure is not None:
        raise TrainApart(failure=agreement.failure)
    if not agreement.exact:
        raise TrainApart(difference=agreement.difference)


def _after_training(
    study: Study, cohort: Cohort, base: Base, writer: AdapterWriter
) -> Iterator[tuple[StudyEvent, ...]]:
    """The test part, the answers and the costs; a failure here is noted and costs no run."""
    members = load_best_weights(cohort)
    for what, step in (("test", _test), ("answers", _ask), ("cost", _price)):
        try:
            yield from step(study, cohort, members, base, writer)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  the runs are trained, whatever comes after
            runs, why = [member.id for member in members], first_line(error)
            study.store.add_fact("not_done", what=what, runs=runs, error=why)
            yield (Remark(f"no {what} of {', '.join(runs)}: {why}"),)


def _test(
    study: Study, cohort: Cohort, members: Sequence[Member], base: Base, writer: AdapterWriter
) -> Iterator[tuple[StudyEvent, ...]]:
    """Read the test part with each run's best weights.

    All of the cohort, where one run lacks it: so the numbers of a run do not depend on whether
    the process died between two records.
    """
    test = study.plan.data.test
    if test and any(
        not study.store.evaluations(run_id(study.store, member.state.run), "test")
        for member in members
    ):
        for events in read_test(cohort, members, test):
            record(events, cohort, study.store, writer)
            yield events


def _ask(
    study: Study, cohort: Cohort, members: Sequence[Member], base: Base, writer: AdapterWriter
) -> Iterator[tuple[StudyEvent, ...]]:
    """Put the prompts to the best weights, for every configuration that shares the training.

    To all of the cohort, where an answer of one run is lacking.
    """
    plan = study.plan
    known = {(record.config_id, record.run_id) for record in study.store.answers()}
    configs = {config.key: config.id for config in study.store.configs()}
    answering: dict[GenerationSpec, list[tuple[int, Run]]] = {}
    for member in members:
        for run in study.sharing[member.id]:
            if run.arm.generation in plan.questions:
                answering.setdefault(run.arm.generation, []).append((member.place, run))
    for asked, pairs in answering.items():
        runs = [run for _, run in pairs]
        if all((configs[run.arm.id], run_id(study.store, run)) in known for run in runs):
            continue
        places, questions = [place for place, _ in pairs], plan.questions[asked]
        ask_runs(
            cohort.bank, places, runs, asked, questions, study.task, plan.tokenizer, study.store
        )
        yield ()


def _price(
    study: Study, cohort: Cohort, members: Sequence[Member], base: Base, writer: AdapterWriter
) -> Iterator[tuple[StudyEvent, ...]]:
    """What each configuration of the cohort costs alone, by a short trial of its first run."""
    known = study.store.costs()
    for member in cohort.members:
        training = study.store.run(run_id(study.store, member.state.run)).training_id
        if training in known:
            continue
        cost = probe_cost(
            cohort.bank,
            member.place,
            study.task,
            parts_of_one(study, member.state.run),
            member.training.gradient_accumulation_steps,
            base.nbytes,
            cohort.validation,
            PRICE_TRIALS,
            member.training.optim,
        )
        known[training] = CostRecord(**cost.as_dict())
        study.store.save_cost(training, known[training])
        yield ()
