"""A run gives the numbers that peft gives, alone or in company."""

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import get_scheduler

from rankwise.data.order import pad, rows_at
from rankwise.spec.arms import Run
from rankwise.train.cohort import take_out
from tiny import HEADS, LENGTH, TARGETS, TASKS, tiny_arms, tiny_cohort, tiny_examples, tiny_model

STEPS = 20
ARMS = [
    {"name": "small", "lora.r": 2, "lora.lora_alpha": 4, "training.learning_rate": 5e-3},
    {
        "name": "large",
        "lora.r": 8,
        "lora.lora_alpha": 8,
        "training.lr_scheduler_type": "cosine",
        "training.warmup_steps": 4,
        "training.max_grad_norm": 0.3,
    },
    {
        "name": "decayed",
        "lora.r": 5,
        "lora.lora_alpha": 3,
        "training.learning_rate": 2e-2,
        "training.weight_decay": 0.1,
        "training.lr_scheduler_type": "constant",
        "training.max_grad_norm": 0.05,
    },
]


def train_with_peft(kind, base, run, start):
    """The same run as people write it: one peft model, one optimizer, one schedule."""
    task, training, lora = TASKS[kind], run.arm.training, run.arm.lora
    model = get_peft_model(
        copy.deepcopy(base),
        LoraConfig(
            task_type=task,
            r=lora.r,
            lora_alpha=lora.lora_alpha,
            target_modules=list(TARGETS[kind]),
            modules_to_save=list(HEADS.get(kind, ())),
            fan_in_fan_out=kind == "gpt2",
        ),
    ).eval()
    trained = {
        name.replace("base_model.model.", "")
        .replace(".default", "")
        .replace(".modules_to_save", ""): p
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    assert trained.keys() == start.keys()
    for name, parameter in trained.items():
        parameter.data.copy_(start[name])
    optimizer = torch.optim.AdamW(
        trained.values(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    no_decay = [p for n, p in trained.items() if n.endswith("bias")]
    optimizer.param_groups[0]["params"] = [p for n, p in trained.items() if not n.endswith("bias")]
    if no_decay:
        optimizer.add_param_group({"params": no_decay, "weight_decay": 0.0})
    schedule = get_scheduler(training.lr_scheduler_type, optimizer, training.warmup_steps, STEPS)
    examples = tiny_examples(task)
    losses = []
    for step in range(STEPS):
        rows = [examples[i] for i in rows_at(len(examples), 4, run.seed, step)]
        arrays = pad(rows, 0, LENGTH, task=task)
        loss = model(**{name: torch.from_numpy(array) for name, array in arrays.items()}).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), training.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return np.array(losses), {name: p.detach() for name, p in trained.items()}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "bert", "distilbert", "t5"])
def test_a_cohort_of_three_equals_three_peft_trainings(kind, tmp_path):
    base = tiny_model(kind)
    runs = [Run(arm, seed) for arm, seed in zip(tiny_arms(kind, ARMS), (0, 0, 1), strict=True)]
    cohort, told = tiny_cohort(kind, runs, tmp_path, base)
    starts = [cohort.bank.state_of(place) for place in range(3)]
    told.train(cohort)
    assert [state.step for state in take_out(cohort)] == [STEPS] * 3
    final = [state.weights for state in take_out(cohort)]
    for place, run in enumerate(runs):
        expected, weights = train_with_peft(kind, base, run, starts[place])
        np.testing.assert_allclose(told.steps(run), expected, rtol=0, atol=1e-5)
        for name, weight in weights.items():
            distance = (final[place][name] - weight).norm() / weight.norm()
            assert distance < 1e-4, name
            assert (weight - starts[place][name]).norm() > 1e-2, name
