"""A cohort: runs that share a bank for a while, each with its optimizer and schedule.

A cohort is formed of run states and gives them back; the runs may be at different steps. To let
runs join or leave, take the states out and form another cohort.

Legend: K runs, E examples.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from rankwise.data.examples import Example
from rankwise.data.order import rows_at
from rankwise.spec.arms import Run
from rankwise.spec.models import TrainingSpec
from rankwise.spec.tasks import gain
from rankwise.tasks.by_name import target_count
from rankwise.train.bank import Trainable
from rankwise.train.batch import Task
from rankwise.train.optimizer import (
    WHOLE,
    evaluation_steps,
    make_optimizer,
    make_schedule,
    resume_optimizer,
    resume_schedule,
    states_of,
    steps_of,
)
from rankwise.train.run_state import RunState

HISTORY = 8  # steps of loss and gradient norm kept as evidence, should the run diverge


@dataclass
class Member:
    """A run in a cohort: its state, and its optimizer and schedule over its view of the bank.

    Attributes:
        state: Its counters are kept here; its weights and moments are in the bank meanwhile.
        place: Its number in the bank.
        examples: Its training examples.
        metric: The validation metric that decides.
        weights: Weight of each class in the loss, where classes weigh differently.
    """

    state: RunState
    place: int
    examples: Sequence[Example]
    metric: str
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    weights: Sequence[float] | None = None

    @property
    def id(self) -> str:
        """The run's name."""
        return self.state.run.id

    @property
    def training(self) -> TrainingSpec:
        """Its training settings."""
        return self.state.run.arm.training

    @property
    def running(self) -> bool:
        """Whether it has steps to go."""
        return self.state.status == "running"

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def evaluation_due(self) -> bool:
        """Whether this is an evaluation step, or the last, and is not evaluated yet."""
        state = self.state
        due = evaluation_steps(self.training, state.max_steps)
        last = state.step == state.max_steps
        return self.running and state.step > state.evaluated and (last or state.step in due)

    def open_window(self, task: str) -> None:
        """Count the targets of the accumulation window that starts at this batch, if one does."""
        state, accumulated = self.state, self.training.gradient_accumulation_steps
        if state.batches % accumulated:
            return
        size = self.training.per_device_train_batch_size
        state.losses = 0.0
        state.window = sum(
            self.weight_of(self.examples[i]) * target_count(self.examples[i], task)
            for offset in range(accumulated)
            for i in rows_at(len(self.examples), size, state.run.seed, state.batches + offset)
        )

    def weight_of(self, example: Example) -> float:
        """What an example's loss weighs: 1, or the weight of its class."""
        return 1.0 if self.weights is None else self.weights[int(example.labels)]

    def window_closes(self) -> bool:
        """Whether the batch under way is the last of its accumulation window."""
        return (self.state.batches + 1) % self.training.gradient_accumulation_steps == 0

    def clip(self) -> float:
        """Clip the run's own gradient in place; its norm before."""
        limit = self.training.max_grad_norm or math.inf
        return float(nn.utils.clip_grad_norm_(self.parameters.values(), limit))

    def note_step(self, norm: float) -> dict[str, float]:
        """What the step under way saw; the last few are kept as evidence."""
        state = self.state
        values = {"loss": state.losses, "grad_norm": norm, "learning_rate": self.learning_rate}
        state.seen = [*state.seen[1 - HISTORY :], {"step": state.step + 1, **values}]
        state.first_loss = state.losses if state.first_loss is None else state.first_loss
        return values

    def loss_is_too_large(self, times: float) -> bool:
        """Whether the loss of the step under way passes so many times the first (at least 1)."""
        first = self.state.losses if self.state.first_loss is None else self.state.first_loss
        return self.state.losses > times * max(1.0, first)

    def update(self) -> None:
        """One optimizer step on the run's own weights, and an empty gradient for the next."""
        self.optimizer.step()
        self.schedule.step()
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                parameter.grad.zero_()
        self.state.step += 1

    def note_validation(self, metrics: Mapping[str, float]) -> bool:
        """Whether this validation is the best so far; counts the evaluations without gain."""
        state, value = self.state, metrics[self.metric]
        state.evaluated = state.step
        if state.best is None:
            better = math.inf if math.isfinite(value) else math.nan
        else:
            better = gain(self.metric, value, state.best)
        enough = better > self.training.early_stopping_threshold
        state.waited = 0 if enough else state.waited + 1
        if better > 0:
            state.best, state.best_step = value, state.step
            return True
        return False

    def out_of_patience(self) -> bool:
        """Whether early stopping ends the run here."""
        patience = self.training.early_stopping_patience
        return patience is not None and self.state.waited >= patience


@dataclass
class Cohort:
    """Runs in one bank, ready to train.

    Attributes:
        members: In the order of their places in the bank.
        validation: What decides, E examples.
        tokenizer: Writes out what models generate, where a metric needs that.
        most_rows: Rows of a run that may go through the model at once; None: all of its batch.
    """

    bank: Trainable
    members: list[Member]
    task: Task
    validation: Sequence[Example]
    tokenizer: Any = None
    most_rows: int | None = None

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs, in the order of their places."""
        return tuple(member.state.run for member in self.members)


def form_cohort(
    bank: Trainable,
    states: Sequence[RunState],
    task: Task,
    train: Mapping[str, Sequence[Example]],
    validation: Sequence[Example],
    metric: str = "eval_loss",
    tokenizer: Any = None,
    most_rows: int | None = None,
) -> Cohort:
    """A cohort of runs, each where its state left off.

    Args:
        bank: With these runs in it, in this order, as they start; changed to where they are.
        states: K states; those without weights start at their first step.
        task: How examples become tensors.
        train: Training examples by training id.
        validation: What decides.
        metric: The validation metric that decides which step is best.
        tokenizer, most_rows: As in `Cohort`.
    """
    members = [
        _member(bank, state, place, train[state.run.arm.training_id], metric)
        for place, state in enumerate(states)
    ]
    return Cohort(bank, members, task, validation, tokenizer, most_rows)


def _member(
    bank: Trainable, state: RunState, place: int, examples: Sequence[Example], metric: str
) -> Member:
    training = state.run.arm.training
    padding = training.optim not in WHOLE
    parameters = bank.parameters_of(place, padding)
    optimizer = make_optimizer(training, parameters)
    schedule = make_schedule(training, optimizer, state.max_steps)
    weights = class_weights(examples) if training.class_weights == "balanced" else None
    if state.weights:
        bank.load_state(place, state.weights)
    if state.gradients:
        bank.load_gradients(place, state.gradients)
    if state.weights and state.step:
        held = _by_kind(state.optimizer)
        if padding:
            held = {kind: bank.padded(place, values) for kind, values in held.items()}
        resume_optimizer(optimizer, parameters, held, state.step)
        resume_schedule(schedule, state.step)
    # The bank holds the tensors from here on; the member keeps the counters.
    mine = replace(state, weights={}, optimizer={}, gradients={}, seen=list(state.seen))
    return Member(mine, place, examples, metric, parameters, optimizer, schedule, weights)


def _by_kind(states: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """What an optimizer keeps, by state and by weight; copies of what is named `state/weight`."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in states.items():
        kind, _, weight = name.partition("/")
        found.setdefault(kind, {})[weight] = value.clone()
    return found


def take_out(cohort: Cohort) -> list[RunState]:
    """The states of a cohort's runs as they are now, K states in their order; copies.

    To be called between two tuples of events, when no run is within a batch.
    """
    return [_taken_out(cohort.bank, member) for member in cohort.members]


def _taken_out(bank: Trainable, member: Member) -> RunState:
    state, place = member.state, member.place
    held = states_of(member.training, member.optimizer, member.parameters)
    if member.training.optim not in WHOLE:
        held = {kind: bank.unpadded(place, values) for kind, values in held.items()}
    within = state.batches % member.training.gradient_accumulation_steps
    grads = {n: p.grad for n, p in member.parameters.items() if p.grad is not None}
    return replace(
        state,
        weights=bank.state_of(place),
        optimizer={
            f"{kind}/{name}": value.to("cpu", copy=True)
            for kind, values in held.items()
            for name, value in values.items()
        },
        gradients=bank.unpadded(place, grads) if within else {},
        seen=list(state.seen),
    )


def new_states(runs: Iterable[Run], train: Mapping[str, Sequence[Example]]) -> list[RunState]:
    """Runs before their first step.

    Args:
        runs: The runs.
        train: Training examples by training id, which give the steps of an epoch.
    """
    return [
        RunState(run, steps_of(run.arm.training, len(train[run.arm.training_id]))) for run in runs
    ]


def class_weights(examples: Sequence[Example]) -> list[float]:
    """Weights in inverse proportion to class counts, mean 1 over the rows (King and Zeng 2001)."""
    labels = [int(example.labels) for example in examples]
    classes = max(labels) + 1
    return [len(labels) / (classes * max(1, labels.count(c))) for c in range(classes)]
