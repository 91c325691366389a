"""Events of training become records of the store and adapters on disk; nothing else does."""

from collections.abc import Iterable, Mapping
from typing import Any

from rankwise.adapters.peft_files import AdapterWriter
from rankwise.store.writer import Store
from rankwise.train.bank import WholeModel
from rankwise.train.cohort import Cohort, Member
from rankwise.train.events import Ended, Evaluated, Event, Improved, Stepped


def record(events: Iterable[Event], cohort: Cohort, store: Store, writer: AdapterWriter) -> None:
    """Write down what happened to the runs of a cohort, in its order.

    An adapter is on disk before its run is called done.
    """
    members = {member.id: member for member in cohort.members}
    for event in events:
        match event:
            case Stepped(run, step, loss, grad_norm, rate):
                values = {"loss": loss, "grad_norm": grad_norm, "learning_rate": rate}
                store.log(run, step, values)
            case Evaluated(run, split, step, found):
                store.save_evaluation(
                    run, step, split, found.losses_E, found.correct_E, found.metrics()
                )
            case Improved(run):
                _save_adapter(members[run], cohort, writer)
            case Ended(run, state, facts):
                cause = _cause(facts) if facts else None
                store.set_state(run, state, cause, facts)


def _save_adapter(member: Member, cohort: Cohort, writer: AdapterWriter) -> None:
    bank, place = cohort.bank, member.place
    plan = None if isinstance(bank, WholeModel) else bank.plans[place]
    writer.save(member.id, plan, member.state.best_weights, bank.start_of(place))


def _cause(facts: Mapping[str, Any]) -> str:
    return (
        f"the {facts['what']} was not finite at step {facts['step']}, at learning rate "
        f"{facts['learning_rate']:.3g}"
    )
