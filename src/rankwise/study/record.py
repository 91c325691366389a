"""What a study tells, and how events of training become records and adapters on disk.

Nothing else writes results into the store.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rankwise.adapters.peft_files import AdapterWriter
from rankwise.files import sums_of
from rankwise.spec.arms import Run
from rankwise.store.schema import Failure
from rankwise.store.writer import Store
from rankwise.train.bank import WholeModel
from rankwise.train.cohort import Cohort, Member
from rankwise.train.loop import Ended, Evaluated, Event, Improved, Stepped


@dataclass(frozen=True)
class CohortFormed:
    """Runs begin to train together.

    Attributes:
        number: Of the cohort, from 1.
        of: How many cohorts there are, as far as is known.
        steps: Steps of each run, by its name.
        metric: The validation metric that decides.
        done: Steps that runs have already made.
    """

    number: int
    of: int
    steps: Mapping[str, int]
    metric: str
    done: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyBegun:
    """What is to be done in this call.

    Attributes:
        steps: Steps of each run that will be trained, by its name.
        work_per_token: Floating-point operations of one training token, about.
        peak: Operations a second of a large product on this device, measured; None: unknown.
    """

    steps: Mapping[str, int]
    work_per_token: float
    peak: float | None


@dataclass(frozen=True)
class Remark:
    """A sentence for whoever watches."""

    text: str


StudyEvent = Event | CohortFormed | StudyBegun | Remark


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
                folder = store.run(numbers[run]).folder
                files = sums_of(save_best_weights(members[run], cohort, writer, folder))
                store.set_best(numbers[run], step, files)
            case Ended(run, state, facts):
                failure = Failure(
                    not_finite=facts.get("what"),
                    step=facts.get("step"),
                    learning_rate=facts.get("learning_rate"),
                )
                store.set_state(numbers[run], state, failure)


def save_best_weights(member: Member, cohort: Cohort, writer: AdapterWriter, folder: str) -> Path:
    """Write the adapter of a run's best step into its folder, which is returned."""
    bank, place = cohort.bank, member.place
    adapter = None if isinstance(bank, WholeModel) else bank.plans[place]
    return writer.save(folder, adapter, member.state.best_weights, bank.start_of(place))
