"""One run in training: its optimizer, schedule, and how far it has come."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from rankwise.data.examples import Example
from rankwise.data.order import rows_at
from rankwise.spec.arms import Run
from rankwise.spec.models import TrainingSpec
from rankwise.train.batch import target_count


@dataclass
class Trainee:
    """A run's own optimizer and schedule over its view of the bank, and its progress.

    Attributes:
        place: Its number in the bank.
        step: Optimizer steps done.
        window: Targets in the accumulation window under way, over which its loss is a mean.
        losses: Loss sums of that window's batches so far.
        metric: The validation metric that decides; a loss is best low, all others high.
        best: Best value of it so far, None before there was a number; it came at `best_step`.
    """

    run: Run
    place: int
    examples: Sequence[Example]
    max_steps: int
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    weights: Sequence[float] | None = None
    step: int = 0
    window: float = 1.0
    losses: float = 0.0
    metric: str = "eval_loss"
    best: float | None = None
    best_step: int = -1
    waited: int = 0
    state: str = "running"
    seen: list[dict[str, float]] = field(default_factory=list)

    @property
    def training(self) -> TrainingSpec:
        """The arm's training settings."""
        return self.run.arm.training

    @property
    def eval_steps(self) -> int:
        """Steps between two evaluations."""
        return self.training.eval_steps or max(1, self.max_steps // 10)

    def evaluation_due(self) -> bool:
        """Whether this step is one to evaluate at; the last one always is."""
        return self.step > 0 and (self.step % self.eval_steps == 0 or self.step == self.max_steps)

    def open_window(self, micro_step: int, task: str) -> None:
        """Count the targets of the accumulation window that starts at this batch."""
        if micro_step % self.training.gradient_accumulation_steps:
            return
        size = self.training.per_device_train_batch_size
        self.losses = 0.0
        self.window = sum(
            self.weight_of(self.examples[i]) * target_count(self.examples[i], task)
            for offset in range(self.training.gradient_accumulation_steps)
            for i in rows_at(len(self.examples), size, self.run.seed, micro_step + offset)
        )

    def weight_of(self, example: Example) -> float:
        """What an example's loss weighs: 1, or the weight of its class."""
        return 1.0 if self.weights is None else self.weights[int(example.labels)]

    def window_closes(self, micro_step: int) -> bool:
        """Whether this batch is the last of its accumulation window."""
        return (micro_step + 1) % self.training.gradient_accumulation_steps == 0

    def clip(self) -> float:
        """Clip the run's own gradient in place; its norm before."""
        limit = self.training.max_grad_norm or math.inf
        return float(nn.utils.clip_grad_norm_(self.parameters.values(), limit))

    def update(self) -> None:
        """One optimizer step on the run's own weights, and an empty gradient for the next."""
        self.optimizer.step()
        self.schedule.step()
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                parameter.grad.zero_()
        self.step += 1

    def note_validation(self, metrics: Mapping[str, float]) -> bool:
        """Whether this validation is the best so far; counts the evaluations without gain."""
        value = metrics[self.metric]
        if self.best is None:
            gain = math.inf if math.isfinite(value) else math.nan
        else:
            gain = self.best - value if self.metric.endswith("loss") else value - self.best
        enough = gain > self.training.early_stopping_threshold
        self.waited = 0 if enough else self.waited + 1
        if gain > 0:
            self.best, self.best_step = value, self.step
            return True
        return False

    def out_of_patience(self) -> bool:
        """Whether early stopping ends the run here."""
        patience = self.training.early_stopping_patience
        return patience is not None and self.waited >= patience


def start_trainee(
    run: Run,
    place: int,
    examples: Sequence[Example],
    parameters: dict[str, nn.Parameter],
    metric: str = "eval_loss",
) -> Trainee:
    """A run at step 0, with its optimizer and schedule."""
    steps = steps_of(run.arm.training, len(examples))
    optimizer = make_optimizer(run.arm.training, parameters)
    weights = class_weights(examples) if run.arm.training.class_weights == "balanced" else None
    schedule = make_schedule(run.arm.training, optimizer, steps)
    return Trainee(
        run, place, examples, steps, parameters, optimizer, schedule, weights, metric=metric
    )


def steps_of(training: TrainingSpec, rows: int) -> int:
    """Optimizer steps of a run: `max_steps`, or what `num_train_epochs` passes come to."""
    if training.max_steps is not None:
        return training.max_steps
    a_step = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return max(1, math.ceil(training.num_train_epochs * rows / a_step))


def make_optimizer(
    training: TrainingSpec, parameters: dict[str, nn.Parameter]
) -> torch.optim.Optimizer:
    """AdamW over a run's weights; with LoRA+, B learns faster than A (Hayou et al. 2024, eq. 3).

    As in transformers' Trainer, weight decay leaves biases and normalisation layers alone.
    """
    ratio = training.loraplus_lr_ratio
    groups = []
    for name, parameter in parameters.items():
        fast = ratio is not None and (name.endswith("lora_B.weight") or parameter.dim() == 1)
        decay = 0.0 if _undecayed(name) else training.weight_decay
        rate = training.learning_rate * (ratio if fast and ratio is not None else 1.0)
        groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(
        merged_groups(groups),
        lr=training.learning_rate,
        betas=(training.adam_beta1, training.adam_beta2),
        eps=training.adam_epsilon,
        fused=True,
    )


def _undecayed(name: str) -> bool:
    """Whether transformers' Trainer leaves a weight of this name without weight decay."""
    layer = name.rpartition(".")[0].rpartition(".")[2].lower()
    return "bias" in name or "norm" in layer or layer.startswith("ln_")


def merged_groups(groups: list[dict[str, object]]) -> list[dict[str, object]]:
    """Parameter groups of equal settings as one."""
    merged: dict[tuple[object, object], list[object]] = {}
    for group in groups:
        params = group["params"]
        assert isinstance(params, list)
        merged.setdefault((group["lr"], group["weight_decay"]), []).extend(params)
    return [{"params": p, "lr": lr, "weight_decay": wd} for (lr, wd), p in merged.items()]


def make_schedule(
    training: TrainingSpec, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning-rate schedule, by transformers."""
    from transformers import get_scheduler

    warmup = training.warmup_steps or math.ceil(training.warmup_ratio * steps)
    settings: dict[str, float | int] = dict(training.lr_scheduler_kwargs)
    if training.lr_scheduler_type == "warmup_stable_decay":
        settings.setdefault("num_decay_steps", max(1, steps // 10))
    for name in ("num_decay_steps", "num_stable_steps"):
        if name in settings:
            settings[name] = int(settings[name])
    schedule: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        training.lr_scheduler_type,
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=steps,
        scheduler_specific_kwargs=settings,
    )
    return schedule


def class_weights(examples: Sequence[Example]) -> list[float]:
    """Weights in inverse proportion to class counts, mean 1 over the rows (King and Zeng 2001)."""
    labels = [int(example.labels) for example in examples]
    classes = max(labels) + 1
    return [len(labels) / (classes * max(1, labels.count(c))) for c in range(classes)]
