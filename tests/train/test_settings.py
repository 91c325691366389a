"""Every setting of an arm means in company what it means alone, and what it means to peft."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from company import check, runs_of, trained
from rankwise.spec.models import TrainingSpec
from rankwise.tasks.by_name import make_batch
from rankwise.train.loop import load_best_weights, read_test
from tiny import LENGTH, TASKS, tiny_examples, tiny_model

CASES = {
    "bias": [{"lora.bias": "lora_only"}, {"lora.bias": "all", "lora.r": 3}, {"lora.bias": "none"}],
    "scaling": [
        {"lora.use_rslora": True, "lora.lora_alpha": 3},
        {"lora.lora_alpha": "2r", "lora.r": 3},
        {"lora.lora_alpha": "sqrt", "lora.use_rslora": True, "lora.r": 5},
    ],
    "dora": [
        {"lora.use_dora": True},
        {"lora.use_dora": True, "lora.r": 3, "lora.bias": "lora_only", "lora.use_rslora": True},
        {"lora.use_dora": True, "training.loraplus_lr_ratio": 4, "training.weight_decay": 0.1},
    ],
    "init": [
        {"lora.init_lora_weights": "gaussian"},
        {"lora.init_lora_weights": False, "lora.r": 3},
        {"lora.init_lora_weights": True, "lora.r": 5},
    ],
    "weight start": [
        {"lora.init_lora_weights": "pissa", "lora.lora_alpha": 24},
        {"lora.init_lora_weights": "olora", "lora.r": 3},
        {"lora.init_lora_weights": True, "lora.r": 5},
    ],
    "weight start of dora": [
        {"lora.use_dora": True, "lora.init_lora_weights": "pissa"},
        {"lora.use_dora": True, "lora.init_lora_weights": False, "lora.r": 3},
        {"lora.use_dora": True, "lora.r": 5},
    ],
    "patterns": [
        {"lora.rank_pattern": {r".*\.1\..*": 5}},
        {"lora.alpha_pattern": {r".*\.0\..*": 3}, "lora.r": 3},
        {"lora.rank_pattern": {r".*\.0\..*": 2}, "lora.alpha_pattern": {r".*\.1\..*": 20}},
    ],
    "layers": [
        {"lora.layers_to_transform": [1]},
        {"lora.layers_to_transform": 0, "lora.r": 3},
        {"lora.exclude_modules": r".*\.1\..*"},
    ],
    "loraplus": [
        {"training.loraplus_lr_ratio": 4, "training.weight_decay": 0.1},
        {"training.loraplus_lr_ratio": 16, "lora.bias": "all", "training.learning_rate": 1e-3},
        {"training.weight_decay": 0.1, "lora.bias": "all"},
    ],
    "schedules": [
        {"training.lr_scheduler_type": "linear", "training.warmup_ratio": 0.25},
        {"training.lr_scheduler_type": "cosine", "training.warmup_steps": 3},
        {
            "training.lr_scheduler_type": "cosine_with_restarts",
            "training.lr_scheduler_kwargs": {"num_cycles": 2},
        },
    ],
    "further schedules": [
        {"training.lr_scheduler_type": "constant"},
        {"training.lr_scheduler_type": "constant_with_warmup", "training.warmup_ratio": 0.3},
        {
            "training.lr_scheduler_type": "warmup_stable_decay",
            "training.warmup_steps": 2,
            "training.lr_scheduler_kwargs": {"num_decay_steps": 3, "min_lr_ratio": 0.1},
        },
    ],
    "clipping": [
        {"training.max_grad_norm": 0},
        {"training.max_grad_norm": 0.02, "training.adam_epsilon": 1e-7},
        {"training.max_grad_norm": 1, "training.learning_rate": 1e-3},
    ],
    "accumulation": [
        {"training.gradient_accumulation_steps": 2},
        {"training.gradient_accumulation_steps": 3, "training.max_steps": 5},
        {"training.gradient_accumulation_steps": 1},
    ],
    "label smoothing": [
        {"training.label_smoothing_factor": 0.1},
        {"training.label_smoothing_factor": 0.4, "training.gradient_accumulation_steps": 2},
        {"lora.r": 3},
    ],
    "label smoothing alike": [
        {"training.label_smoothing_factor": 0.2, "lora.r": rank} for rank in (2, 3, 5)
    ],
    "neftune": [
        {"training.neftune_noise_alpha": 5},
        {"training.neftune_noise_alpha": 15, "training.gradient_accumulation_steps": 2},
        {"lora.r": 3},
    ],
    "neftune of two seeds": [
        {"training.neftune_noise_alpha": 5},
        {"training.neftune_noise_alpha": 50, "lora.lora_alpha": 16},
        {"training.neftune_noise_alpha": 5, "lora.r": 3},
    ],
    "sgd": [
        {"training.optim": "sgd", "training.learning_rate": 0.5, "training.weight_decay": 0.1},
        {"training.optim": "sgd", "training.learning_rate": 2, "lora.r": 3},
        {"training.optim": "sgd", "training.learning_rate": 1, "lora.bias": "all"},
    ],
    "sgd of small gradients": [
        {"training.optim": "sgd", "training.learning_rate": 5, "training.weight_decay": 0.01},
        {"training.optim": "sgd", "training.learning_rate": 10, "lora.r": 3},
        {"training.optim": "sgd", "training.learning_rate": 5, "lora.lora_alpha": 16},
    ],
    "adafactor": [
        {"training.optim": "adafactor"},
        {"training.optim": "adafactor", "training.weight_decay": 0.1, "lora.r": 3},
        {"training.optim": "adafactor", "training.max_grad_norm": 0.02, "lora.r": 5},
    ],
    "optimizers": [
        {"training.optim": "adafactor", "lora.r": 3, "lora.use_rslora": True},
        {"training.optim": "sgd", "training.learning_rate": 10},
        {"training.optim": "adamw_torch", "lora.r": 5},
    ],
    "epochs": [
        {"training.num_train_epochs": 0.5},
        {"training.num_train_epochs": 1, "training.gradient_accumulation_steps": 2},
        {"training.num_train_epochs": 1.2},
    ],
}
KINDS = {
    "bias": ("gpt2", "bert"),
    "scaling": ("llama", "t5"),
    "dora": ("gpt2", "bert", "t5"),
    "init": ("llama", "bert"),
    "weight start": ("llama", "bert"),
    "weight start of dora": ("llama", "bert"),
    "patterns": ("gpt2", "t5"),
    "layers": ("llama", "bert"),
    "loraplus": ("gpt2", "bert"),
    "schedules": ("llama", "bert"),
    "further schedules": ("gpt2", "bert"),
    "clipping": ("llama", "bert"),
    "accumulation": ("gpt2", "bert", "t5"),
    "label smoothing": ("gpt2", "bert", "t5"),
    "label smoothing alike": ("llama", "distilbert"),
    "neftune": ("gpt2", "bert", "t5"),
    "neftune of two seeds": ("llama", "distilbert"),
    "sgd": ("gpt2", "t5"),
    "sgd of small gradients": ("bert",),
    "adafactor": ("gpt2", "bert", "t5"),
    "optimizers": ("llama", "bert"),
    "epochs": ("llama", "bert"),
}


@pytest.mark.parametrize(
    ("case", "kind"), [(case, kind) for case, kinds in KINDS.items() for kind in kinds]
)
def test_a_setting_means_the_same_in_company_alone_and_in_peft(case, kind, tmp_path):
    check(kind, runs_of(kind, CASES[case]), tmp_path)


@pytest.mark.parametrize("kind", KINDS["clipping"])
def test_the_case_of_clipping_clips_at_every_step(kind, tmp_path):
    runs = runs_of(kind, CASES["clipping"])
    _, told, _ = trained(kind, tiny_model(kind), runs, tmp_path)
    assert told.steps(runs[1], "grad_norm").min() > runs[1].arm.training.max_grad_norm


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_balanced_classes_weigh_as_in_torchs_weighted_mean(kind, tmp_path):
    changes = [
        {"training.class_weights": "balanced"},
        {"training.class_weights": "balanced", "training.gradient_accumulation_steps": 2},
        {"training.class_weights": "balanced", "lora.r": 3},
    ]
    labels = torch.tensor([int(e.labels) for e in tiny_examples("SEQ_CLS")])
    counts = torch.bincount(labels)
    assert len(counts.unique()) > 1
    weights = len(labels) / (len(counts) * counts)

    def weighted(model, batch):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return F.cross_entropy(logits, batch["labels"], weight=weights)

    check(kind, runs_of(kind, changes), tmp_path, weighted)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_evaluation_losses_are_not_smoothed(kind, tmp_path):
    """An adapter that hardly moves has the losses that the base model names itself."""
    base = tiny_model(kind)
    still = {"training.learning_rate": 1e-12, "training.label_smoothing_factor": 0.4}
    run = runs_of(kind, [{**still, "lora.r": rank} for rank in (2, 3, 4)])[0]
    _, told, _ = trained(kind, base, [run], tmp_path)
    (evaluated,) = told.evaluations(run)
    examples = tiny_examples(TASKS[kind], 12, seed=1)
    batches = [vars(make_batch(TASKS[kind], [one], 0, LENGTH)) for one in examples]
    expected = [base(**batch).loss.item() for batch in batches]
    np.testing.assert_allclose(evaluated.evaluation.losses_E, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_run_out_of_patience_stops_and_keeps_its_best_step(kind, tmp_path):
    base = tiny_model(kind)
    eager = {"training.learning_rate": 0.3, "lora.r": 8}
    runs = runs_of(
        kind,
        [
            {**eager, "training.early_stopping_patience": 2},
            {"training.learning_rate": 1e-3},
            {**eager, "training.early_stopping_patience": 3,
             "training.early_stopping_threshold": 0.02},
        ],
        eval_steps=2,
        max_steps=24,
    )  # fmt: skip
    cohort, told, _ = trained(kind, base, runs, tmp_path / "together")
    told.take(cohort, read_test(cohort, load_best_weights(cohort), tiny_examples(TASKS[kind], 8)))
    states = {run.id: told.ended(run).state for run in runs}
    assert states == {
        runs[0].id: "stopped_early", runs[1].id: "done", runs[2].id: "stopped_early"
    }  # fmt: skip
    for run in runs:
        _, alone, _ = trained(kind, base, [run], tmp_path / run.arm.name)
        np.testing.assert_allclose(told.steps(run), alone.steps(run), rtol=0, atol=1e-5)
        found = {e.step: e.evaluation.loss for e in told.evaluations(run)}
        assert max(found) == stop_of(found, run.arm.training)
        (test,) = told.evaluations(run, "test")
        assert test.step == min(found, key=lambda step: found[step])
        assert len(told.steps(run)) == max(found)


def stop_of(losses, training):
    """The step at which transformers' EarlyStoppingCallback would stop: its rule, by hand."""
    best, waited = None, 0
    for step, loss in losses.items():
        if best is None or loss < best - training.early_stopping_threshold:
            waited = 0
        else:
            waited += 1
        best = loss if best is None else min(best, loss)
        if training.early_stopping_patience and waited >= training.early_stopping_patience:
            return step
    return training.max_steps


@pytest.mark.parametrize(
    ("kind", "name"), [("linear", "num_cycles"), ("constant", "min_lr_ratio"), ("cosine", "power")]
)
def test_a_schedule_refuses_settings_that_it_does_not_take(kind, name):
    with pytest.raises(ValueError, match=f"lr_scheduler_kwargs`: {kind} takes no {name}"):
        TrainingSpec(lr_scheduler_type=kind, lr_scheduler_kwargs={name: 2})
