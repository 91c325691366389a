"""One cohort from its frozen base to its test part: tried, trained, asked and priced."""

from collections.abc import Iterator, Sequence
from typing import Any

from rankwise.adapters.peft_files import AdapterWriter, read_adapter
from rankwise.base.load import Base
from rankwise.base.skeleton import base_name, locate_model
from rankwise.errors import StoreError
from rankwise.spec.arms import Run
from rankwise.spec.models import GenerationSpec
from rankwise.store.schema import FINISHED, CostRecord, RunRecord
from rankwise.study.answering import ask_runs
from rankwise.study.begin import Study, parts_of_one, with_measured_ranks
from rankwise.study.record import CohortFormed, Remark, StudyEvent, record, run_id
from rankwise.text import first_line
from rankwise.train.bank import Bank, Trainable
from rankwise.train.cohort import Cohort, Member, form_cohort, new_states
from rankwise.train.loop import load_best_weights, read_test, train
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


def train_cohort(study: Study, runs: Sequence[Run]) -> Iterator[tuple[StudyEvent, ...]]:
    """Train runs together, read the test part, put the prompts, and price their configurations.

    Runs that an earlier call has trained get what they still lack. Once a run is called done,
    nothing that fails later changes that.

    Raises:
        TrainApart: on this model, each of the runs must train alone.
    """
    base, bank = _load(study, runs)
    try:
        _check_together(study, bank, runs, base)
        plan = study.plan
        cohort = form_cohort(
            bank,
            _states(study, runs),
            study.task,
            plan.train,
            plan.data.validation,
            plan.spec.objective.metric,
            plan.tokenizer,
        )
        study.cohort += 1
        steps = {member.id: member.state.max_steps for member in cohort.members}
        metric = plan.spec.objective.metric
        for member in cohort.members:
            if member.running:
                study.store.set_state(run_id(study.store, member.state.run), "running")
        yield (CohortFormed(study.cohort, study.cohorts, steps, metric),)
        writer = adapter_writer(study, base)
        for events in train(cohort):
            record(events, cohort, study.store, writer)
            yield events
        yield from _after_training(study, cohort, base, writer)
    finally:
        if isinstance(bank, Bank):
            bank.take_apart()


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
    """Runs before their first step, or where an earlier call has trained them, at their end."""
    records = [study.store.run(run_id(study.store, run)) for run in runs]
    if not all(record.state in FINISHED for record in records):
        return new_states(runs, study.plan.train)
    return [_finished(study, run, record) for run, record in zip(runs, records, strict=True)]


def _finished(study: Study, run: Run, record: RunRecord) -> RunState:
    adapter = study.plan.adapters[run.arm.id]
    weights = read_adapter(study.folder / "adapters" / record.folder, adapter)
    assert record.best_step is not None
    steps = study.plan.steps(run.arm)
    return RunState(
        run, steps, best_weights=weights, best_step=record.best_step, status=record.state
    )


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
            step(study, cohort, members, base, writer)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  the runs are trained, whatever comes after
            runs, why = [member.id for member in members], first_line(error)
            study.store.add_fact("not_done", what=what, runs=runs, error=why)
            yield (Remark(f"no {what} of {', '.join(runs)}: {why}"),)


def _test(
    study: Study, cohort: Cohort, members: Sequence[Member], base: Base, writer: AdapterWriter
) -> None:
    """Read the test part once, with each run's best weights."""
    test = study.plan.data.test
    unread = [
        member
        for member in members
        if not study.store.evaluations(run_id(study.store, member.state.run), "test")
    ]
    if test and unread:
        record(read_test(cohort, unread, test), cohort, study.store, writer)


def _ask(
    study: Study, cohort: Cohort, members: Sequence[Member], base: Base, writer: AdapterWriter
) -> None:
    """Put the prompts to the best weights, for every configuration that shares the training."""
    plan = study.plan
    known = {(record.config_id, record.run_id) for record in study.store.answers()}
    configs = {config.key: config.id for config in study.store.configs()}
    answering: dict[GenerationSpec, list[tuple[int, Run]]] = {}
    for member in members:
        for run in study.sharing[member.id]:
            answered = (configs[run.arm.id], run_id(study.store, run)) in known
            if run.arm.generation in plan.questions and not answered:
                answering.setdefault(run.arm.generation, []).append((member.place, run))
    for asked, pairs in answering.items():
        places, runs = [place for place, _ in pairs], [run for _, run in pairs]
        questions = plan.questions[asked]
        ask_runs(
            cohort.bank, places, runs, asked, questions, study.task, plan.tokenizer, study.store
        )


def _price(
    study: Study, cohort: Cohort, members: Sequence[Member], base: Base, writer: AdapterWriter
) -> None:
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
        )
        known[training] = CostRecord(**cost.as_dict())
        study.store.save_cost(training, known[training])
