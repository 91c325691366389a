"""AdamW and the learning-rate schedule of one run, over its own weights."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.spec.models import TrainingSpec


def steps_of(training: TrainingSpec, rows: int) -> int:
    """Optimizer steps of a run: `max_steps`, or what `num_train_epochs` passes come to."""
    if training.max_steps is not None:
        return training.max_steps
    a_step = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return max(1, math.ceil(training.num_train_epochs * rows / a_step))


def evaluation_steps(training: TrainingSpec, steps: int) -> range:
    """The steps of a run at which it is evaluated, but for its last one, which always is."""
    every = training.eval_steps or max(1, steps // 10)
    return range(every, steps, every)


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


def resume_schedule(schedule: Any, step: int) -> None:
    """Set a fresh schedule to where it stands after `step` steps.

    All schedules here are LambdaLR: the rate is a function of the step alone.
    """
    schedule.last_epoch = step
    rates = [
        base * factor(step)
        for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def resume_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    step: int,
) -> None:
    """Give a fresh AdamW the moments that it had after `step` steps.

    Args:
        optimizer: Over `parameters`.
        parameters: A run's weights by name.
        first, second: Moments by the same names and of the same shapes.
        step: Steps done, which AdamW's bias correction needs.
    """
    for name, parameter in parameters.items():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step), device=parameter.device),
            "exp_avg": first[name],
            "exp_avg_sq": second[name],
        }
