"""The training loop: a cohort from the batch it is at to its last evaluation, and its events.

It reads top to bottom: evaluate, batch, loss, backward, step, tell. The runs move through batches
together, each at its own step; a run takes its optimizer step when its own accumulation window
closes. A run that ends, by its last step, early stopping or divergence, is left out of the batches
that follow, and the others do not notice.

Legend: K runs in training, N rows of a run.
"""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rankwise.data.examples import Example
from rankwise.spec.tasks import TASKS
from rankwise.store.schema import TOO_LARGE
from rankwise.tasks.by_name import row_losses
from rankwise.train.batch import Part, chosen_rows, parts_of
from rankwise.train.cohort import Cohort, Member
from rankwise.train.evaluate import Evaluation, evaluating
from rankwise.train.generate import likeness_to_targets
from rankwise.train.neftune import noisy_embeddings


@dataclass(frozen=True)
class Batched:
    """One batch of the cohort went through the model and back.

    Attributes:
        runs: The runs in it.
        tokens: Tokens of all their rows.
        padded: The same with the padding that was computed as well.
        seconds: What it took, optimizer steps included.
    """

    runs: tuple[str, ...]
    tokens: int
    padded: int
    seconds: float


@dataclass(frozen=True)
class Stepped:
    """A run took an optimizer step.

    Attributes:
        step: Its number, from 1.
        loss: Mean loss over the targets of the step, before it.
        grad_norm: Norm of the run's gradient, before clipping.
        learning_rate: That of the step (of A, where LoRA+ gives B another one).
    """

    run: str
    step: int
    loss: float
    grad_norm: float
    learning_rate: float


@dataclass(frozen=True)
class Evaluating:
    """An evaluation is under way; the runs are as they were before it.

    Attributes:
        done: Examples that every run has been through.
        of: Examples in all.
    """

    done: int
    of: int


@dataclass(frozen=True)
class Evaluated:
    """A run was evaluated on a split, with the weights of this step."""

    run: str
    split: Literal["validation", "test"]
    step: int
    evaluation: Evaluation


@dataclass(frozen=True)
class Improved:
    """The run's best validation so far; its weights are in the run's state."""

    run: str
    step: int
    value: float


@dataclass(frozen=True)
class Ended:
    """A run has no further step.

    Attributes:
        state: done, stopped_early or diverged.
        facts: Of a divergence: `what` was not finite or too large (loss, gradient norm or
            validation metric), the `step` and its `learning_rate`, and the steps `before`.
    """

    run: str
    state: str
    facts: dict[str, Any] = field(default_factory=dict)


Event = Batched | Stepped | Evaluating | Evaluated | Improved | Ended
DIVERGED = 100.0
"""A run is ended when its loss passes this many times that of its first step (at least 1).

A cross-entropy of 100 is a probability of e^-100 for the right token. The limit is a choice.
"""


def train(cohort: Cohort) -> Iterator[tuple[Event, ...]]:
    """Train a cohort to its end; yields what happened, after every batch and every evaluation.

    Whoever takes the events may stop after any of the tuples, and take the runs out: within an
    evaluation they are as they were before it.
    """
    task = cohort.task
    while True:
        # Evaluate the runs that have come to one of their evaluation steps.
        due = [member for member in cohort.members if member.evaluation_due()]
        if due:
            yield from _evaluated(cohort, due)
        active = [member for member in cohort.members if member.running]
        if not active:
            return

        # Batch: the rows of each run at its own batch number, cut into parts of similar length.
        started = time.perf_counter()
        seeds_K = [member.state.run.seed for member in active]
        batches_K = [member.state.batches for member in active]
        rows = active[0].training.per_device_train_batch_size
        chosen_KN = chosen_rows([m.examples for m in active], seeds_K, rows, batches_K)
        for member in active:
            member.open_window(task.name)

        # Loss and backward: each run's loss is a mean over its own targets in its own window.
        losses_K = np.zeros(len(active))
        padded = 0
        for part in parts_of(chosen_KN, seeds_K, batches_K, task, cohort.most_rows):
            losses_K += _loss_and_backward(cohort, part, active, chosen_KN)
            padded += part.batch.input_ids.numel()

        # Step: clipping, AdamW and schedule are each run's own.
        events: list[Event] = []
        for member, loss in zip(active, losses_K, strict=True):
            member.state.losses += float(loss)
            norm = member.clip() if member.window_closes() else 0.0
            if not (math.isfinite(loss) and math.isfinite(norm)):
                what = "gradient norm" if math.isfinite(loss) else "loss"
                events.append(_diverged(member, what, member.state.step + 1))
            elif member.window_closes() and member.loss_is_too_large(DIVERGED):
                events.append(Stepped(member.id, member.state.step + 1, **member.note_step(norm)))
                events.append(_diverged(member, TOO_LARGE, member.state.step + 1))
            elif member.window_closes():
                values = member.note_step(norm)  # before the schedule moves on
                member.update()
                events.append(Stepped(member.id, member.state.step, **values))
            member.state.batches += 1

        # Tell.
        tokens = sum(len(example.input_ids) for chosen in chosen_KN for example in chosen)
        seconds = time.perf_counter() - started
        yield (*events, Batched(tuple(m.id for m in active), tokens, padded, seconds))


def _loss_and_backward(
    cohort: Cohort,
    part: Part,
    active: Sequence[Member],
    chosen_KN: Sequence[Sequence[Example]],
) -> NDArray[np.float64]:
    """Add this part's gradients; the runs' shares of their windows' mean losses, (K,)."""
    rows = len(part.key.rows[0])
    smoothing_N = [m.training.label_smoothing_factor for m in active for _ in range(rows)]
    alphas = [member.training.neftune_noise_alpha or 0.0 for member in active]
    with (
        cohort.bank.running([member.place for member in active], part.key) as model,
        noisy_embeddings(model, part.key, alphas, part.batch.attention_mask),
    ):
        losses = row_losses(model, cohort.task.name, part.batch, smoothing_N)
    total_KN = losses.total.view(len(active), -1)
    weights_KN = [
        [member.weight_of(chosen[i]) for i in places]
        for member, chosen, places in zip(active, chosen_KN, part.key.rows, strict=True)
    ]
    windows_K = total_KN.new_tensor([member.state.window for member in active])
    loss_K = (total_KN * total_KN.new_tensor(weights_KN)).sum(1) / windows_K
    torch.autograd.backward(loss_K.sum())
    shares_K: NDArray[np.float64] = loss_K.detach().double().cpu().numpy()
    return shares_K


def _evaluated(cohort: Cohort, due: Sequence[Member]) -> Iterator[tuple[Event, ...]]:
    """Evaluate runs on the validation part; the best weights so far are kept in their states."""
    events: list[Event] = []
    results = yield from evaluate_runs(cohort, due, cohort.validation)
    for member, result in zip(due, results, strict=True):
        state, metrics = member.state, result.metrics()
        events.append(Evaluated(member.id, "validation", state.step, result))
        if member.note_validation(metrics):
            state.best_weights = cohort.bank.state_of(member.place)
            events.append(Improved(member.id, state.step, metrics[member.metric]))
        if state.best is None:
            events.append(_diverged(member, "validation metric", state.step))
        elif state.step == state.max_steps or member.out_of_patience():
            state.status = "done" if state.step == state.max_steps else "stopped_early"
            events.append(Ended(member.id, state.status))
    yield tuple(events)


def load_best_weights(cohort: Cohort) -> list[Member]:
    """The members that ended with a result, now with their best weights in the bank."""
    ended = [m for m in cohort.members if m.state.status in ("done", "stopped_early")]
    for member in ended:
        cohort.bank.load_state(member.place, member.state.best_weights)
    return ended


def read_test(
    cohort: Cohort, members: Sequence[Member], test: Sequence[Example]
) -> Iterator[tuple[Event, ...]]:
    """The test part, with the weights that the bank holds: those of each run's best step."""
    results = yield from evaluate_runs(cohort, members, test)
    yield tuple(
        Evaluated(member.id, "test", member.state.best_step, result)
        for member, result in zip(members, results, strict=True)
    )


def evaluate_runs(
    cohort: Cohort, members: Sequence[Member], examples: Sequence[Example]
) -> Generator[tuple[Event, ...], None, list[Evaluation]]:
    """These runs, with the weights that the bank holds, on the same examples, in their order."""
    bank, task, places = cohort.bank, cohort.task, [member.place for member in members]
    rows = max(member.training.per_device_eval_batch_size for member in members)
    passing = evaluating(bank, places, examples, task, min(rows, cohort.most_rows or rows))
    while True:
        try:
            yield (Evaluating(next(passing), len(examples)),)
        except StopIteration as end:
            results: list[Evaluation] = end.value
            break
    if not TASKS[task.name].compares_texts or cohort.tokenizer is None:
        return results
    likeness = likeness_to_targets(bank, places, examples, task, cohort.tokenizer)
    return [replace(one, likeness=like) for one, like in zip(results, likeness, strict=True)]


def _diverged(member: Member, what: str, step: int) -> Ended:
    """End a run one of whose numbers is not finite, with what led there."""
    state = member.state
    state.status = "diverged"
    state.why = {"what": what, "step": step, "learning_rate": member.learning_rate}
    return Ended(member.id, state.status, {**state.why, "before": list(state.seen)})
