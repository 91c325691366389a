"""Events of training become records of the store and adapters on disk; nothing else does."""

from collections.abc import Iterable

from rankwise.adapters.peft_files import AdapterWriter
from rankwise.spec.arms import Run
from rankwise.store.schema import Failure
from rankwise.store.writer import Store
from rankwise.train.bank import WholeModel
from rankwise.train.cohort import Cohort, Member
from rankwise.train.events import Ended, Evaluated, Event, Improved, Stepped


def run_id(store: Store, run: Run) -> int:
    """The store's number of a run: of its training with its seed."""
    return store.run_id(run.arm.training_id, run.seed)


def record(events: Iterable[Event], cohort: Cohort, store: Store, writer: AdapterWriter) -> None:
    """Write down what happened to the runs of a cohort, in its order.

    An adapter is on disk before its step is called the best, and before its run is called done.
    """
    members = {member.id: member for member in cohort.members}
    numbers = {member.id: run_id(store, member.state.run) for member in cohort.members}
    for event in events:
        match event:
            case Stepped(run, step, loss, grad_norm, learning_rate):
                store.log(numbers[run], step, loss, grad_norm, learning_rate)
            case Evaluated(run, split, step, found):
                losses, correct = found.losses_E, found.correct_E
                store.save_evaluation(numbers[run], step, split, losses, correct, found.metrics())
            case Improved(run, step):
                _save_adapter(members[run], cohort, writer, store.run(numbers[run]).folder)
                store.set_best(numbers[run], step)
            case Ended(run, state, facts):
                failure = Failure(
                    not_finite=facts.get("what"),
                    step=facts.get("step"),
                    learning_rate=facts.get("learning_rate"),
                )
                store.set_state(numbers[run], state, failure)


def _save_adapter(member: Member, cohort: Cohort, writer: AdapterWriter, folder: str) -> None:
    bank, place = cohort.bank, member.place
    adapter = None if isinstance(bank, WholeModel) else bank.plans[place]
    writer.save(folder, adapter, member.state.best_weights, bank.start_of(place))
