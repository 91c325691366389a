"""Runs in company, alone and in peft, and their comparison."""

import numpy as np
import torch

from peft_loop import peft_model, plain_loop, trained_weights
from rankwise.spec.arms import Run
from rankwise.spec.models import alpha_of
from tiny import TASKS, tiny_arms, tiny_cohort, tiny_examples, tiny_model

STEPS = 10


def runs_of(kind, changes, **training):
    """Three runs, the last one with another seed."""
    steps = {"max_steps": None if "training.num_train_epochs" in changes[0] else STEPS}
    settings = {"eval_steps": 100, **steps, **training}  # evaluated at the last step alone
    arms = tiny_arms(
        kind, [{"name": f"arm{n}", **change} for n, change in enumerate(changes)], **settings
    )
    return [Run(arm, seed) for arm, seed in zip(arms, (0, 0, 1), strict=True)]


def trained(kind, base, runs, folder):
    """A cohort trained to its end, what it told, and the weights that its runs started from."""
    cohort, told = tiny_cohort(kind, runs, folder, base)
    starts = [cohort.bank.state_of(place) for place in range(len(runs))]
    return cohort, told.train(cohort), starts


def check(kind, runs, folder, loss_of=None):
    """Every run equals itself alone, and the same run in peft: losses and trained weights."""
    base = tiny_model(kind)
    cohort, told, starts = trained(kind, base, runs, folder / "together")
    for place, (run, start) in enumerate(zip(runs, starts, strict=True)):
        _, alone, _ = trained(kind, base, [run], folder / run.arm.name)
        together = told.steps(run)
        np.testing.assert_allclose(together, alone.steps(run), rtol=0, atol=1e-5)
        model = started_peft(kind, base, run, start)
        examples, training = tiny_examples(TASKS[kind]), run.arm.training
        expected = plain_loop(
            model, TASKS[kind], training, run.seed, examples, len(together), loss_of
        )
        np.testing.assert_allclose(together, expected, rtol=0, atol=1e-5)
        final = cohort.bank.state_of(place)
        for name, weight in trained_weights(model).items():
            moved = (weight - start[name]).norm()
            assert moved > 0, name
            assert (final[name] - weight).norm() < 0.01 * moved + 1e-5, name


def started_peft(kind, base, run, start):
    """The run's arm in peft, at the run's own start where that is random, else at peft's."""
    lora = run.arm.lora
    model = peft_model(kind, base, lora, lora_alpha=alpha_of(lora.lora_alpha, lora.r))
    weights = trained_weights(model)
    assert weights.keys() == start.keys()
    drawn = lora.init_lora_weights not in ("pissa", "olora")
    for name, weight in weights.items():
        if (drawn or ".lora_" not in name) and not name.endswith("magnitude_vector"):
            weight.data.copy_(start[name])
    for name, weight in weights.items():
        if name.endswith("magnitude_vector"):  # peft's belongs to its own draw of A and B
            layer = model.base_model.model.get_submodule(name.rpartition(".")[0])
            delta = layer.get_delta_weight("default")
            base_weight = layer.get_base_layer().weight.detach()
            weight.data.copy_((base_weight + delta).norm(dim=0 if kind == "gpt2" else 1))
        torch.testing.assert_close(start[name], weight.detach(), rtol=0, atol=2e-6)
    return model
