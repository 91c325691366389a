"""Every setting of an arm means in company what it means alone, and what it means to peft."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from peft_loop import peft_model, plain_loop, trained_weights
from rankwise.cohort.loop import train
from rankwise.plan.cohorts import Run
from rankwise.spec import TrainingSpec, alpha_of
from tiny import TARGETS, TASKS, tiny_arms, tiny_cohort, tiny_examples, tiny_model

STEPS = 10
BERT_LAYER = "bert.encoder.layer.{}"
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
        {"lora.init_lora_weights": "pissa"},
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
        {"training.max_grad_norm": 0.05},
        {"training.max_grad_norm": 1, "training.learning_rate": 1e-3},
    ],
    "accumulation": [
        {"training.gradient_accumulation_steps": 2},
        {"training.gradient_accumulation_steps": 3, "training.max_steps": 5},
        {"training.gradient_accumulation_steps": 1},
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
    "epochs": ("llama", "bert"),
}


def logged(store, run, name="loss"):
    return np.array([row[name] for row in store.metrics(run.id) if name in row])


def runs_of(kind, changes, **training):
    """Three runs, the last one with another seed."""
    steps = {"max_steps": None if "training.num_train_epochs" in changes[0] else STEPS}
    settings = {"eval_steps": 100, **steps, **training}  # evaluated at the last step alone
    arms = tiny_arms(
        kind, [{"name": f"arm{n}", **change} for n, change in enumerate(changes)], **settings
    )
    return [Run(arm, seed) for arm, seed in zip(arms, (0, 0, 1), strict=True)]


def trained(kind, base, runs, folder):
    """A cohort trained to its end, its store, and the weights that its runs started from."""
    cohort, store = tiny_cohort(kind, runs, folder, base)
    starts = [cohort.bank.state_of(place) for place in range(len(runs))]
    for _ in train(cohort, store):
        pass
    return cohort, store, starts


def check(kind, runs, folder, loss_of=None):
    """Every run equals itself alone, and the same run in peft: losses and trained weights."""
    base = tiny_model(kind)
    cohort, store, starts = trained(kind, base, runs, folder / "together")
    for place, (run, start) in enumerate(zip(runs, starts, strict=True)):
        _, alone, _ = trained(kind, base, [run], folder / run.arm.name)
        together = logged(store, run)
        np.testing.assert_allclose(together, logged(alone, run), rtol=0, atol=1e-5)
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


@pytest.mark.parametrize(
    ("case", "kind"), [(case, kind) for case, kinds in KINDS.items() for kind in kinds]
)
def test_a_setting_means_the_same_in_company_alone_and_in_peft(case, kind, tmp_path):
    check(kind, runs_of(kind, CASES[case]), tmp_path)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(
    ("kind", "modules"),
    [("gpt2", ["lm_head", "ln_f", "ln_1"]), ("bert", ["pooler", "word_embeddings", "LayerNorm"])],
)
def test_modules_trained_in_full_are_each_runs_own(kind, modules, tmp_path):
    changes = [{"lora.modules_to_save": [name], "training.weight_decay": 0.1} for name in modules]
    check(kind, runs_of(kind, changes), tmp_path)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "t5"])
def test_runs_of_a_cohort_may_adapt_different_modules(kind, tmp_path):
    first, *others = TARGETS[kind]
    changes = [
        {"lora.target_modules": [first]},
        {"lora.target_modules": others, "lora.bias": "lora_only"},
        {"lora.target_modules": [first, others[-1]], "lora.r": 3},
    ]
    check(kind, runs_of(kind, changes), tmp_path)


def test_one_run_may_train_in_full_what_another_adapts(tmp_path):
    changes = [
        {"lora.modules_to_save": ["pooler"], "training.learning_rate": 1e-3},
        {"lora.target_modules": ["query", "pooler.dense"]},
        {"lora.bias": "all", "lora.r": 3},
    ]
    check("bert", runs_of("bert", changes), tmp_path)


def test_a_bank_taken_apart_leaves_the_model_as_it_was(tmp_path):
    base = tiny_model("bert")
    changes = [{"lora.modules_to_save": ["pooler"]}, {"lora.target_modules": ["pooler.dense"]},
               {"lora.bias": "all"}]  # fmt: skip
    cohort, _ = tiny_cohort("bert", runs_of("bert", changes), tmp_path, base)
    model = cohort.bank.model
    assert len(list(model.modules())) > len(list(base.modules()))
    cohort.bank.take_apart()
    kinds = [(name, type(module)) for name, module in base.named_modules()]
    assert [(name, type(module)) for name, module in model.named_modules()] == kinds
    for (_, weight), (_, before) in zip(
        model.named_parameters(), base.named_parameters(), strict=True
    ):
        assert torch.equal(weight, before)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_dropout_does_not_depend_on_what_neighbours_adapt(kind, tmp_path):
    base = tiny_model(kind)
    first, *others = TARGETS[kind]
    changes = [
        {"lora.target_modules": names, "lora.lora_dropout": 0.3}
        for names in (others, [first], [first, *others])
    ]
    runs = runs_of(kind, changes)
    _, store, _ = trained(kind, base, runs, tmp_path / "together")
    for run in runs:
        _, alone, _ = trained(kind, base, [run], tmp_path / run.arm.name)
        np.testing.assert_allclose(logged(store, run), logged(alone, run), rtol=0, atol=1e-5)


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


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("init", [True, "pissa"])
def test_dora_with_dropout_does_not_notice_its_neighbours(kind, init, tmp_path):
    base = tiny_model(kind)
    changes = [
        {"lora.use_dora": True, "lora.lora_dropout": share, "lora.init_lora_weights": init}
        for share in (0.1, 0.5, 0.0)
    ]
    runs = runs_of(kind, changes)
    _, store, _ = trained(kind, base, runs, tmp_path / "together")
    for run in runs:
        _, alone, _ = trained(kind, base, [run], tmp_path / run.arm.name)
        np.testing.assert_allclose(logged(store, run), logged(alone, run), rtol=0, atol=1e-5)
    assert np.abs(logged(store, runs[0]) - logged(store, runs[1])).max() > 1e-4


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_adapters_made_from_the_weight_leave_the_model_as_it_was(kind, dora, init, tmp_path):
    base = tiny_model(kind)
    (arm,) = tiny_arms(kind, [{"lora.use_dora": dora, "lora.init_lora_weights": init}])
    ids = torch.arange(3, 15).view(2, 6)
    expected = base(input_ids=ids).logits
    cohort, _ = tiny_cohort(kind, [Run(arm, 0)], tmp_path, base)
    start = cohort.bank.state_of(0)
    assert all(value.norm() > 0.1 for name, value in start.items() if "lora_" in name)
    if kind == "bert":  # its head is drawn anew for the run
        expected = base.bert(input_ids=ids).last_hidden_state
        found = cohort.bank.model.bert(input_ids=ids).last_hidden_state
    else:
        found = cohort.bank.model(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


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
    _, store, _ = trained(kind, base, runs, tmp_path / "together")
    states = {record.id: record.state for record in store.runs()}
    assert states == {
        runs[0].id: "stopped_early", runs[1].id: "done", runs[2].id: "stopped_early"
    }  # fmt: skip
    for run in runs:
        _, alone, _ = trained(kind, base, [run], tmp_path / run.arm.name)
        np.testing.assert_allclose(logged(store, run), logged(alone, run), rtol=0, atol=1e-5)
        found = {e.step: e.metrics["eval_loss"] for e in store.evaluations(run.id)}
        assert max(found) == stop_of(found, run.arm.training)
        (test,) = store.evaluations(run.id, "test")
        assert test.step == min(found, key=lambda step: found[step])
        assert len(logged(store, run)) == max(found)


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


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "t5"])
@pytest.mark.parametrize("dora", [False, True])
def test_every_setting_works_over_a_bfloat16_base(kind, dora, tmp_path):
    base = tiny_model(kind).to(torch.bfloat16)
    whole = {"bert": ["embeddings.LayerNorm"], "gpt2": ["ln_1"], "t5": ["layer_norm"]}
    changes = [
        {"lora.modules_to_save": whole.get(kind, ["norm"]), "lora.bias": "all"},
        {"lora.init_lora_weights": "pissa", "lora.bias": "lora_only"},
        {"lora.lora_dropout": 0.1, "lora.target_modules": "all-linear"},
    ]
    runs = runs_of(kind, [{"lora.use_dora": dora, **change} for change in changes], max_steps=3)
    cohort, store, starts = trained(kind, base, runs, tmp_path / "together")
    for place, (run, start) in enumerate(zip(runs, starts, strict=True)):
        _, alone, _ = trained(kind, base, [run], tmp_path / run.arm.name)
        np.testing.assert_allclose(logged(store, run), logged(alone, run), rtol=0, atol=0.05)
        final = cohort.bank.state_of(place)
        assert {weight.dtype for weight in final.values()} == {torch.float32}
        assert all((final[name] - weight).norm() > 0 for name, weight in start.items())
