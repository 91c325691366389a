"""The training loop: a cohort from its first batch to its last evaluation.

It reads top to bottom: evaluate, save, batch, loss, backward, step, log. The cohort moves through
batches together; a run takes its optimizer step when its own accumulation window closes. A run
that ends, by its own steps, early stopping or divergence, leaves the selection, and those left
do not notice. At the end the best weights of each run read the test part and answer the prompts.

Legend: K runs in training, N rows of a run.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankwise.adapters.peft_files import AdapterWriter
from rankwise.data.examples import Example
from rankwise.spec.arms import Run
from rankwise.spec.models import GenerationSpec
from rankwise.store.schema import Failure, Split
from rankwise.store.writer import Store
from rankwise.study.answering import Questions, ask_runs, likeness_to_targets
from rankwise.train.bank import Trainable, WholeModel
from rankwise.train.batch import Part, Task, chosen_rows, parts_of
from rankwise.train.evaluate import Evaluation, evaluate
from rankwise.train.losses import row_losses
from rankwise.train.trainee import Trainee, start_trainee

HISTORY = 8  # steps of loss and gradient norm kept as evidence, should the run diverge


@dataclass
class Cohort:
    """All that a cohort needs to train: built by the study, spent by the loop.

    Attributes:
        train: Training examples by training id.
        metric: The validation metric that decides which step is best.
        tokenizer: Writes out what models generate; without one nothing is generated.
        sharing: By run id, the runs that its training stands for, itself among them; where a run
            is not named it stands for itself.
        questions: What is asked of arms with these settings; nothing where they are not named.
    """

    runs: Sequence[Run]
    bank: Trainable
    task: Task
    train: Mapping[str, Sequence[Example]]
    validation: Sequence[Example]
    test: Sequence[Example]
    writer: AdapterWriter
    metric: str = "eval_loss"
    tokenizer: Any = None
    sharing: Mapping[str, Sequence[Run]] = field(default_factory=dict)
    questions: Questions = field(default_factory=dict)


def train(cohort: Cohort, store: Store) -> Iterator[list[Trainee]]:
    """Train a cohort; yields its trainees after every batch, and once more at the end.

    Everything measured goes to the store as it is measured, and every best adapter to its
    folder, so that an interruption loses nothing that was already evaluated.
    """
    bank, task = cohort.bank, cohort.task
    trainees = [
        start_trainee(
            run,
            place,
            cohort.train[run.arm.training_id],
            bank.parameters_of(place),
            cohort.metric,
        )
        for place, run in enumerate(cohort.runs)
    ]
    for trainee in trainees:
        store.set_state(_id(store, trainee), "running")
    best: dict[int, dict[str, Tensor]] = {}
    micro_step = 0
    stepped: list[Trainee] = []
    while True:
        # Evaluate the runs that have come to one of their evaluation steps.
        due = [t for t in stepped if t.state == "running" and t.evaluation_due()]
        if due:
            for trainee, result in zip(due, _evaluated(cohort, due, "validation"), strict=True):
                _record(store, trainee, "validation", result)
                if trainee.note_validation(result.metrics()):
                    # Save the best so far, in memory for the test and in its folder for good.
                    best[trainee.place] = bank.state_of(trainee.place)
                    _save(cohort, trainee, best[trainee.place], store)
                _settle(trainee, store)
        active = [t for t in trainees if t.state == "running"]
        if not active:
            break

        # Batch: the rows of each run at this step, cut into parts of similar length.
        bank.select([t.place for t in active])
        seeds = [t.run.seed for t in active]
        chosen_KN = chosen_rows(
            [t.examples for t in active],
            seeds,
            active[0].training.per_device_train_batch_size,
            micro_step,
        )
        for trainee in active:
            trainee.open_window(micro_step, task.name)

        # Loss and backward: each run's loss is a mean over its own targets in its own window.
        sums_K = np.zeros(len(active))
        for part in parts_of(chosen_KN, seeds, micro_step, task):
            sums_K += _loss_and_backward(bank, task, part, active, chosen_KN)

        # Step: clipping, AdamW and schedule are each run's own.
        stepped = []
        for trainee, loss in zip(active, sums_K, strict=True):
            trainee.losses += float(loss)
            if not math.isfinite(loss):
                _diverged(trainee, store, math.nan)
            elif trainee.window_closes(micro_step):
                norm = trainee.clip()
                if not math.isfinite(norm):
                    _diverged(trainee, store, norm)
                    continue
                # Log what this step saw, before the schedule moves on.
                _log_step(trainee, store, norm)
                trainee.update()
                stepped.append(trainee)
        micro_step += 1
        yield trainees

    # The test part is read once, by each run's best weights, which then answer the prompts.
    finished = [t for t in trainees if t.state in ("done", "stopped_early") and t.place in best]
    for trainee in finished:
        bank.load_state(trainee.place, best[trainee.place])
    if cohort.test and finished:
        for trainee, result in zip(finished, _evaluated(cohort, finished, "test"), strict=True):
            _record(store, trainee, "test", result)
    _ask(cohort, finished, store)
    for trainee in finished:
        store.set_state(_id(store, trainee), trainee.state)
    store.flush()
    yield trainees


def _evaluated(cohort: Cohort, trainees: Sequence[Trainee], split: Split) -> list[Evaluation]:
    """These runs on one split, in their order."""
    bank, task = cohort.bank, cohort.task
    bank.select([t.place for t in trainees])
    examples = cohort.validation if split == "validation" else cohort.test
    rows = max(t.training.per_device_eval_batch_size for t in trainees)
    results = evaluate(bank, examples, task, rows)
    if task.name != "SEQ_2_SEQ_LM" or cohort.tokenizer is None:
        return results
    likeness = likeness_to_targets(bank, examples, task, cohort.tokenizer)
    return [replace(one, likeness=like) for one, like in zip(results, likeness, strict=True)]


def _ask(cohort: Cohort, finished: Sequence[Trainee], store: Store) -> None:
    """Put the prompts to the best weights, for each run and for those that share its training."""
    answering: dict[GenerationSpec, list[tuple[int, Run]]] = {}
    for trainee in finished:
        for run in cohort.sharing.get(trainee.run.id, (trainee.run,)):
            if run.arm.generation in cohort.questions:
                answering.setdefault(run.arm.generation, []).append((trainee.place, run))
    bank, task = cohort.bank, cohort.task
    for asked, members in answering.items():
        bank.select([place for place, _ in members])
        runs = [run for _, run in members]
        ask_runs(bank, runs, asked, cohort.questions[asked], task, cohort.tokenizer, store)


def _loss_and_backward(
    bank: Trainable,
    task: Task,
    part: Part,
    active: Sequence[Trainee],
    chosen_KN: Sequence[Sequence[Example]],
) -> NDArray[np.float64]:
    """Add this part's gradients; the runs' shares of their windows' mean losses, (K,)."""
    bank.set_batch(part.key)
    with bank.context():
        total_KN = row_losses(bank.model, task.name, part.batch).total.view(len(active), -1)
    weights_KN = [
        [trainee.weight_of(chosen[i]) for i in places]
        for trainee, chosen, places in zip(active, chosen_KN, part.key.rows, strict=True)
    ]
    windows_K = total_KN.new_tensor([trainee.window for trainee in active])
    loss_K = (total_KN * total_KN.new_tensor(weights_KN)).sum(1) / windows_K
    torch.autograd.backward(loss_K.sum())
    shares_K: NDArray[np.float64] = loss_K.detach().double().cpu().numpy()
    return shares_K


def _id(store: Store, trainee: Trainee) -> int:
    return store.run_id(trainee.run.arm.training_id, trainee.run.seed)


def _save(cohort: Cohort, trainee: Trainee, state: Mapping[str, Tensor], store: Store) -> None:
    plan = None if isinstance(cohort.bank, WholeModel) else cohort.bank.plans[trainee.place]
    start = cohort.bank.start_of(trainee.place)
    run = _id(store, trainee)
    cohort.writer.save(store.run(run).folder, plan, state, start)
    store.set_best(run, trainee.step)


def _log_step(trainee: Trainee, store: Store, norm: float) -> None:
    values = {
        "loss": trainee.losses,
        "grad_norm": norm,
        "learning_rate": float(trainee.schedule.get_last_lr()[0]),
    }
    trainee.seen = [*trainee.seen[1 - HISTORY :], {"step": trainee.step + 1, **values}]
    store.log(_id(store, trainee), trainee.step + 1, **values)


def _record(store: Store, trainee: Trainee, split: Split, result: Evaluation) -> None:
    step = trainee.best_step if split == "test" else trainee.step
    store.save_evaluation(
        _id(store, trainee), step, split, result.losses_E, result.correct_E, result.metrics()
    )


def _settle(trainee: Trainee, store: Store) -> None:
    """Whether this evaluation was the run's last."""
    if trainee.best is None:
        _diverged(trainee, store, math.nan)
    elif trainee.step == trainee.max_steps:
        trainee.state = "done"
    elif trainee.out_of_patience():
        trainee.state = "stopped_early"


def _diverged(trainee: Trainee, store: Store, norm: float) -> None:
    """Take a run out whose loss or gradient is no longer a number, with what led there."""
    trainee.state = "diverged"
    what = "loss" if math.isnan(norm) else "gradient norm"
    rate = trainee.schedule.get_last_lr()[0]
    failure = Failure(what, trainee.step + 1, float(rate))
    store.set_state(_id(store, trainee), "diverged", failure)
