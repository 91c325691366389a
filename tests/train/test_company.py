"""A run does not notice its neighbours."""

import math

import numpy as np
import pytest
import torch
from peft import PeftModel

from rankwise.spec.arms import Run
from rankwise.tasks.by_name import row_losses
from rankwise.train.batch import Task, collate
from rankwise.train.loop import load_best_weights, read_test
from rankwise.train.probe import probe_together
from tiny import LENGTH, TASKS, tiny_arms, tiny_cohort, tiny_examples, tiny_model

DROPPING = [
    {"name": "one", "lora.r": 4, "lora.lora_dropout": 0.2},
    {"name": "two", "lora.r": 2, "lora.lora_dropout": 0.5},
    {"name": "three", "lora.r": 8, "lora.lora_dropout": 0.0},
    {"name": "four", "lora.r": 6, "lora.lora_dropout": 0.2, "training.learning_rate": 3e-2},
    {"name": "five", "lora.r": 3, "training.gradient_accumulation_steps": 3},
]


def trained(kind, runs, folder):
    cohort, told = tiny_cohort(kind, runs, folder)
    return cohort, told.train(cohort)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_a_run_does_not_notice_its_neighbours_or_which_they_are(kind, tmp_path):
    one, two, three, four, five = tiny_arms(kind, DROPPING, max_steps=8, eval_steps=4)
    run = Run(one, 0)
    companies = {
        "alone": [run],
        "two neighbours": [Run(two, 0), run, Run(three, 1)],
        "two others": [Run(four, 2), Run(five, 0), run],
    }
    found = {}
    for name, runs in companies.items():
        _, told = trained(kind, runs, tmp_path / name)
        found[name] = told.steps(run)
        best = told.evaluations(run)[-1].evaluation.losses_E
        found[name] = np.concatenate([found[name], best])
    np.testing.assert_allclose(found["two neighbours"], found["alone"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["two others"], found["alone"], rtol=0, atol=1e-5)


def test_dropout_drops(tmp_path):
    one, _, three, *_ = tiny_arms("gpt2", DROPPING)
    runs = [Run(one, 0), Run(three, 0)]
    _, told = trained("gpt2", runs, tmp_path)
    dry = Run(tiny_arms("gpt2", [{"lora.r": 4}])[0], 0)
    _, quiet = trained("gpt2", [dry], tmp_path / "q")
    assert np.abs(told.steps(runs[0]) - quiet.steps(dry))[1:].max() > 1e-4


def test_a_neighbour_that_becomes_nan_changes_nothing_for_the_others(tmp_path):
    wild = {
        "name": "wild",
        "lora.r": 4,
        "training.learning_rate": 1e30,
        "training.max_grad_norm": 0,
    }
    calm, wild_arm = tiny_arms("gpt2", [DROPPING[0], wild])
    run, doomed = Run(calm, 0), Run(wild_arm, 0)
    _, alone = trained("gpt2", [run], tmp_path / "alone")
    _, told = trained("gpt2", [doomed, run], tmp_path / "together")
    np.testing.assert_allclose(told.steps(run), alone.steps(run), rtol=0, atol=1e-5)
    assert told.ended(run).state == "done"
    assert told.ended(doomed).state == "diverged"
    assert told.ended(doomed).facts["step"] == 2
    assert told.ended(doomed).facts["before"]


def test_an_arm_that_ends_early_leaves_the_others_their_numbers(tmp_path):
    short, long = tiny_arms(
        "gpt2", [{"name": "short", "training.max_steps": 5}, {"name": "long", "lora.r": 4}]
    )
    _, alone = trained("gpt2", [Run(long, 0)], tmp_path / "alone")
    _, told = trained("gpt2", [Run(short, 0), Run(long, 0)], tmp_path / "together")
    np.testing.assert_allclose(told.steps(Run(long, 0)), alone.steps(Run(long, 0)), atol=1e-5)
    assert len(told.steps(Run(short, 0))) == 5


def company_of(kind, count=3):
    arms = tiny_arms(kind, [{"name": f"r{r}", "lora.r": r} for r in range(2, 2 + count)])
    return [Run(arm, seed) for seed, arm in enumerate(arms)]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "bert", "distilbert", "t5"])
def test_the_probe_finds_these_models_exact(kind, tmp_path):
    cohort, _ = tiny_cohort(kind, company_of(kind), tmp_path)
    before = cohort.bank.state_of(1)
    batch = collate(tiny_examples(TASKS[kind], 2), cohort.task)
    agreement = probe_together(cohort.bank, TASKS[kind], batch, torch.float32)
    assert agreement.exact, agreement
    for name, value in cohort.bank.state_of(1).items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("count", [2, 3])
def test_the_probe_catches_a_target_that_gets_more_than_the_batch(count, tmp_path):
    """DeBERTa-v2 sends position embeddings through query_proj: 16 of them, which 2 divides."""
    cohort, _ = tiny_cohort("deberta-v2", company_of("deberta-v2", count), tmp_path)
    batch = collate(tiny_examples("SEQ_CLS", 2), cohort.task)
    assert not probe_together(cohort.bank, "SEQ_CLS", batch, torch.float32).exact


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "t5"])
def test_an_adapter_at_its_start_changes_nothing(kind, tmp_path):
    base = tiny_model(kind)
    cohort, _ = tiny_cohort(kind, company_of(kind), tmp_path, base)
    task = Task(TASKS[kind], 0, LENGTH, torch.device("cpu"))
    batch = collate(tiny_examples(TASKS[kind], 3), task)
    with torch.no_grad():
        expected = row_losses(base, TASKS[kind], batch).total
        for place in range(3):
            with cohort.bank.running([place]) as model:
                found = row_losses(model, TASKS[kind], batch).total
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "bert", "distilbert", "t5"])
def test_an_exported_adapter_gives_the_same_losses_in_peft(kind, tmp_path):
    base = tiny_model(kind)
    runs = company_of(kind)
    cohort, told = tiny_cohort(kind, runs, tmp_path, base)
    told.train(cohort)
    load_best_weights(cohort)
    batch = collate(tiny_examples(TASKS[kind], 5, seed=3), cohort.task)
    for place, run in enumerate(runs):
        loaded = PeftModel.from_pretrained(tiny_model(kind), tmp_path / "adapters" / run.id)
        with torch.no_grad(), cohort.bank.running([place]) as model:
            ours = row_losses(model, TASKS[kind], batch).total
            theirs = row_losses(loaded.base_model.model.eval(), TASKS[kind], batch).total
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def test_the_best_step_is_kept_and_the_test_part_read_with_it(tmp_path):
    (arm,) = tiny_arms("bert", [{"lora.r": 8, "training.learning_rate": 0.3}], eval_steps=2)
    run = Run(arm, 0)
    cohort, told = tiny_cohort("bert", [run], tmp_path)
    held_out = tiny_examples("SEQ_CLS", 12, seed=1)  # the same as validation
    told.train(cohort)
    losses_at = {one.step: one.evaluation.loss for one in told.evaluations(run)}
    best = min(losses_at, key=lambda step: losses_at[step])
    assert best != max(losses_at), "or the last weights would do as well"
    told.take(cohort, read_test(cohort, load_best_weights(cohort), held_out))
    (test,) = told.evaluations(run, "test")
    assert test.step == best
    assert test.evaluation.loss == pytest.approx(losses_at[best], rel=1e-6)
    assert math.isfinite(test.evaluation.metrics()["eval_accuracy"])
