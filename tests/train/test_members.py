"""Runs of a cohort may train different parts of the base, in any precision, and not notice."""

import numpy as np
import pytest
import torch

from company import check, runs_of, trained
from rankwise.errors import ModelError
from rankwise.spec.arms import Run
from tiny import TARGETS, tiny_arms, tiny_cohort, tiny_model


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


def test_a_module_of_many_inputs_cannot_be_trained_in_full(tmp_path):
    (arm,) = tiny_arms("bert", [{"lora.modules_to_save": ["layer.1.attention"],
                                 "lora.layers_to_transform": [0]}])  # fmt: skip
    cohort, told = tiny_cohort("bert", [Run(arm, 0)], tmp_path)
    with pytest.raises(ModelError, match="a BertAttention takes more than one input"):
        told.train(cohort)


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
    _, told, _ = trained(kind, base, runs, tmp_path / "together")
    for run in runs:
        _, alone, _ = trained(kind, base, [run], tmp_path / run.arm.name)
        np.testing.assert_allclose(told.steps(run), alone.steps(run), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("init", [True, "pissa"])
def test_dora_with_dropout_does_not_notice_its_neighbours(kind, init, tmp_path):
    base = tiny_model(kind)
    changes = [
        {"lora.use_dora": True, "lora.lora_dropout": share, "lora.init_lora_weights": init}
        for share in (0.1, 0.5, 0.0)
    ]
    runs = runs_of(kind, changes)
    _, told, _ = trained(kind, base, runs, tmp_path / "together")
    for run in runs:
        _, alone, _ = trained(kind, base, [run], tmp_path / run.arm.name)
        np.testing.assert_allclose(told.steps(run), alone.steps(run), rtol=0, atol=1e-5)
    assert np.abs(told.steps(runs[0]) - told.steps(runs[1])).max() > 1e-4


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
        with cohort.bank.running([0]) as model:
            found = model.bert(input_ids=ids).last_hidden_state
    else:
        with cohort.bank.running([0]) as model:
            found = model(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


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
    cohort, told, starts = trained(kind, base, runs, tmp_path / "together")
    for place, (run, start) in enumerate(zip(runs, starts, strict=True)):
        _, alone, _ = trained(kind, base, [run], tmp_path / run.arm.name)
        np.testing.assert_allclose(told.steps(run), alone.steps(run), rtol=0, atol=0.05)
        final = cohort.bank.state_of(place)
        assert {weight.dtype for weight in final.values()} == {torch.float32}
        assert all((final[name] - weight).norm() > 0 for name, weight in start.items())
