"""A run does not notice its neighbours."""

import math

import numpy as np
import pytest
import torch
from peft import PeftModel

from rankwise.spec.arms import Run
from rankwise.train.batch import Task, collate
from rankwise.train.loop import train
from rankwise.train.losses import row_losses
from rankwise.train.probe import probe_company
from tiny import LENGTH, TASKS, tiny_arms, tiny_cohort, tiny_examples, tiny_model

DROPPING = [
    {"name": "one", "lora.r": 4, "lora.lora_dropout": 0.2},
    {"name": "two", "lora.r": 2, "lora.lora_dropout": 0.5},
    {"name": "three", "lora.r": 8, "lora.lora_dropout": 0.0},
    {"name": "four", "lora.r": 6, "lora.lora_dropout": 0.2, "training.learning_rate": 3e-2},
    {"name": "five", "lora.r": 3, "training.gradient_accumulation_steps": 3},
]


def losses(store, run, name="loss"):
    return np.array([row[name] for row in store.metrics(run.id) if name in row])


def trained(kind, runs, folder):
    cohort, store = tiny_cohort(kind, runs, folder)
    for _ in train(cohort, store):
        pass
    return cohort, store


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_a_run_does_not_notice_its_neighbours_or_which_they_are(kind, tmp_path):
    one, two, three, four, five = tiny_arms(kind, DROPPING)
    run = Run(one, 0)
    companies = {
        "alone": [run],
        "two neighbours": [Run(two, 0), run, Run(three, 1)],
        "two others": [Run(four, 2), Run(five, 0), run],
    }
    found = {}
    for name, runs in companies.items():
        _, store = trained(kind, runs, tmp_path / name)
        found[name] = losses(store, run)
        best = store.evaluations(run.id, "validation")[-1].losses
        found[name] = np.concatenate([found[name], best])
    np.testing.assert_allclose(found["two neighbours"], found["alone"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["two others"], found["alone"], rtol=0, atol=1e-5)


def test_dropout_drops(tmp_path):
    one, _, three, *_ = tiny_arms("gpt2", DROPPING)
    runs = [Run(one, 0), Run(three, 0)]
    _, store = trained("gpt2", runs, tmp_path)
    _, quiet = trained("gpt2", [Run(tiny_arms("gpt2", [{"lora.r": 4}])[0], 0)], tmp_path / "q")
    assert np.abs(losses(store, runs[0]) - losses(quiet, quiet.runs()[0]))[1:].max() > 1e-4


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
    _, store = trained("gpt2", [doomed, run], tmp_path / "together")
    np.testing.assert_allclose(losses(store, run), losses(alone, run), rtol=0, atol=1e-5)
    states = {record.id: record for record in store.runs()}
    assert states[run.id].state == "done"
    assert states[doomed.id].state == "diverged"
    assert "not finite at step 2" in states[doomed.id].cause
    assert states[doomed.id].evidence["before"]


def test_an_arm_that_ends_early_leaves_the_others_their_numbers(tmp_path):
    short, long = tiny_arms(
        "gpt2", [{"name": "short", "training.max_steps": 5}, {"name": "long", "lora.r": 4}]
    )
    _, alone = trained("gpt2", [Run(long, 0)], tmp_path / "alone")
    _, store = trained("gpt2", [Run(short, 0), Run(long, 0)], tmp_path / "together")
    np.testing.assert_allclose(losses(store, Run(long, 0)), losses(alone, Run(long, 0)), atol=1e-5)
    assert len(losses(store, Run(short, 0))) == 5


def company_of(kind, count=3):
    arms = tiny_arms(kind, [{"name": f"r{r}", "lora.r": r} for r in range(2, 2 + count)])
    return [Run(arm, seed) for seed, arm in enumerate(arms)]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "bert", "distilbert", "t5"])
def test_the_probe_finds_these_models_exact(kind, tmp_path):
    cohort, _ = tiny_cohort(kind, company_of(kind), tmp_path)
    before = cohort.bank.state_of(1)
    batch = collate(tiny_examples(TASKS[kind], 2), cohort.task)
    agreement = probe_company(cohort.bank, TASKS[kind], batch, torch.float32)
    assert agreement.exact, agreement
    for name, value in cohort.bank.state_of(1).items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("count", [2, 3])
def test_the_probe_catches_a_target_that_gets_more_than_the_batch(count, tmp_path):
    """DeBERTa-v2 sends position embeddings through query_proj: 16 of them, which 2 divides."""
    cohort, _ = tiny_cohort("deberta-v2", company_of("deberta-v2", count), tmp_path)
    batch = collate(tiny_examples("SEQ_CLS", 2), cohort.task)
    assert not probe_company(cohort.bank, "SEQ_CLS", batch, torch.float32).exact


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "t5"])
def test_an_adapter_at_its_start_changes_nothing(kind, tmp_path):
    base = tiny_model(kind)
    cohort, _ = tiny_cohort(kind, company_of(kind), tmp_path, base)
    task = Task(TASKS[kind], 0, LENGTH, torch.device("cpu"))
    batch = collate(tiny_examples(TASKS[kind], 3), task)
    with torch.no_grad():
        expected = row_losses(base, TASKS[kind], batch).total
        for place in range(3):
            cohort.bank.select([place])
            found = row_losses(cohort.bank.model, TASKS[kind], batch).total
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "bert", "distilbert", "t5"])
def test_an_exported_adapter_gives_the_same_losses_in_peft(kind, tmp_path):
    base = tiny_model(kind)
    runs = company_of(kind)
    cohort, store = tiny_cohort(kind, runs, tmp_path, base)
    for _ in train(cohort, store):
        pass
    batch = collate(tiny_examples(TASKS[kind], 5, seed=3), cohort.task)
    for place, run in enumerate(runs):
        cohort.bank.select([place])
        loaded = PeftModel.from_pretrained(tiny_model(kind), tmp_path / "adapters" / run.id)
        with torch.no_grad():
            ours = row_losses(cohort.bank.model, TASKS[kind], batch).total
            theirs = row_losses(loaded.base_model.model.eval(), TASKS[kind], batch).total
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def test_the_best_step_is_kept_and_the_test_part_read_with_it(tmp_path):
    wild = {"lora.r": 8, "training.learning_rate": 0.3}
    every = {"eval_steps": 2, "lr_scheduler_type": "constant"}
    run = Run(tiny_arms("bert", [wild], **every)[0], 0)
    cohort, store = trained("bert", [run], tmp_path)
    found = store.evaluations(run.id, "validation")
    losses_at = {one.step: one.metrics["eval_loss"] for one in found}
    best = min(losses_at, key=lambda step: losses_at[step])
    (test,) = store.evaluations(run.id, "test")
    assert test.step == best < max(losses_at)
    loaded = PeftModel.from_pretrained(tiny_model("bert"), tmp_path / "adapters" / run.id).eval()
    with torch.no_grad():
        batch = collate(tiny_examples("SEQ_CLS", 8, seed=2), cohort.task)
        read = row_losses(loaded.base_model.model, "SEQ_CLS", batch).total
    np.testing.assert_allclose(test.losses, read, rtol=0, atol=1e-4)
    assert math.isfinite(test.metrics["eval_accuracy"])
