"""The optimizer and the learning-rate schedule of one run, over its own weights."""

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
    """A run's optimizer; with LoRA+, B learns faster than A (Hayou et al. 2024, eq. 3).

    As in transformers' Trainer, weight decay leaves biases and normalisation layers alone, SGD has
    no momentum, and Adafactor (Shazeer and Stern 2018) has the learning rate of the schedule.
    """
    ratio = training.loraplus_lr_ratio
    groups = []
    for name, parameter in parameters.items():
        fast = ratio is not None and (name.endswith("lora_B.weight") or parameter.dim() == 1)
        decay = 0.0 if _undecayed(name) else training.weight_decay
        rate = training.learning_rate * (ratio if fast and ratio is not None else 1.0)
        groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
    if training.optim == "sgd":
        return torch.optim.SGD(merged_groups(groups), lr=training.learning_rate)
    if training.optim == "adafactor":
        from transformers.optimization import Adafactor

        settings = {"scale_parameter": False, "relative_step": False}
        factored: torch.optim.Optimizer = Adafactor(
            merged_groups(groups), lr=training.learning_rate, **settings
        )
        return factored
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


WHOLE = ("adafactor",)
"""Optimizers that look at a matrix as a whole: zeros that pad it to another rank would count."""

STATES = {
    "adamw_torch": ("exp_avg", "exp_avg_sq"),
    "sgd": (),
    "adafactor": ("exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_sq"),
}
"""What an optimizer keeps of a weight beside the step; Adafactor the last of a vector alone."""


def states_of(
    training: TrainingSpec, optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Tensor]]:
    """What an optimizer keeps, by state and by weight; nothing before the first step."""
    found: dict[str, dict[str, Tensor]] = {}
    for kind in STATES[training.optim]:
        for name, parameter in parameters.items():
            if kind in optimizer.state.get(parameter, ()):
                found.setdefault(kind, {})[name] = optimizer.state[parameter][kind]
    return found


def resume_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    states: Mapping[str, Mapping[str, Tensor]],
    step: int,
) -> None:
    """Give a fresh optimizer what it kept after `step` steps.

    Args:
        optimizer: Over `parameters`.
        parameters: A run's weights by name.
        states: As `states_of` gave them.
        step: Steps done, which corrections of the first steps need.
    """
    for name, parameter in parameters.items() if states else ():
        held: dict[str, Any] = {k: values[name] for k, values in states.items() if name in values}
        if isinstance(optimizer, torch.optim.AdamW):
            held["step"] = torch.tensor(float(step), device=parameter.device)
        else:  # Adafactor counts in whole numbers, and measures RMS anew at each step
            held |= {"step": step, "RMS": 0}
        optimizer.state[parameter] = held
