"""Predicted parameters are those of the trained model to the last one."""

import pytest

from rankwise.adapters.adapter import resolve_adapter
from rankwise.adapters.memory import footprint
from rankwise.adapters.targets import resolve_targets
from rankwise.base.skeleton import skeleton
from rankwise.spec.models import ModelSpec
from skeletons import PAIRS, arm_of, counts, peft_like, tiny

SETTINGS = [
    {"lora.r": 3},
    {"lora.bias": "lora_only"},
    {"lora.bias": "all"},
    {"lora.use_dora": True},
    {"lora.bias": "all", "lora.use_dora": True, "lora.target_modules": "attention", "lora.r": 2},
    {"ranks.strategy": "linear_decay", "lora.r": 4, "lora.lora_alpha": "2r"},
    {"ranks.strategy": "attention_heavy", "lora.r": 3, "lora.lora_alpha": "sqrt"},
    {"lora.layers_to_transform": [1], "lora.rank_pattern": {r".*\.1\..*": 5}},
    {"lora.target_modules": "mlp", "lora.use_rslora": True},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: "-".join(map(str, c.values())))
@pytest.mark.parametrize(("kind", "task"), PAIRS)
def test_parameters_are_those_of_pefts_model(kind, task, changes):
    model = tiny(kind, task)
    arm = arm_of(task, **changes)
    adapter = resolve_adapter(model, arm, task)
    theirs = peft_like(model, task, adapter)
    found = footprint(model, adapter)
    assert (found.trainable, found.total) == counts(theirs)
    for name, module in adapter.modules.items():
        theirs_here = theirs.base_model.model.get_submodule(name)
        assert theirs_here.r["default"] == module.rank
        assert theirs_here.scaling["default"] == pytest.approx(module.scaling, rel=1e-15)


def test_further_modules_trained_in_full_are_counted():
    model = tiny("bert", "SEQ_CLS")
    arm = arm_of("SEQ_CLS", **{"lora.modules_to_save": ["pooler"], "lora.bias": "all",
                               "lora.target_modules": ["query"]})  # fmt: skip
    adapter = resolve_adapter(model, arm, "SEQ_CLS")
    found = footprint(model, adapter)
    assert (found.trainable, found.total) == counts(peft_like(model, "SEQ_CLS", adapter))
    assert found.heads == (16 * 16 + 16) + (16 * 3 + 3)


@pytest.mark.parametrize(("kind", "task"), PAIRS)
def test_full_fine_tuning_trains_every_weight_once(kind, task):
    model = tiny(kind, task)
    found = footprint(model, None)
    assert (found.trainable, found.total) == counts(model)


def test_gpt2_with_rank_8_on_c_attn_trains_294912_of_124734720():
    model = skeleton(ModelSpec(config={"model_type": "gpt2"}), "CAUSAL_LM")
    arm = arm_of("CAUSAL_LM", **{"lora.r": 8, "lora.target_modules": ["c_attn"]})
    found = footprint(model, resolve_adapter(model, arm, "CAUSAL_LM"))
    assert (found.base, found.trainable, found.total) == (124_439_808, 294_912, 124_734_720)
    assert f"{found.share:.4%}" == "0.2364%"


@pytest.mark.parametrize(("r", "trainable"), [(8, 3_145_728), (16, 6_291_456)])
def test_gpt2_medium_trains_what_the_report_on_ranks_says(r, trainable):
    # c_proj is the name of two modules in each layer, attention's and the MLP's; both count.
    config = {"model_type": "gpt2", "n_layer": 24, "n_embd": 1024, "n_head": 16}
    model = skeleton(ModelSpec(config=config), "CAUSAL_LM")
    names = ["c_attn", "c_proj", "c_fc"]
    arm = arm_of("CAUSAL_LM", **{"lora.r": r, "lora.target_modules": names})
    found = footprint(model, resolve_adapter(model, arm, "CAUSAL_LM"))
    assert (found.base, found.trainable) == (354_823_168, trainable)
    for strategy in ("linear_decay", "attention_heavy"):
        changes = {"lora.r": r, "lora.target_modules": names, "ranks.strategy": strategy}
        arm = arm_of("CAUSAL_LM", **changes)
        spent = footprint(model, resolve_adapter(model, arm, "CAUSAL_LM")).trainable
        assert spent == pytest.approx(trainable, rel=0.01)


@pytest.mark.parametrize(
    ("targets", "adapter", "share"),
    [
        (["q_lin"], 36_864, "0.06%"),
        (["q_lin", "v_lin"], 73_728, "0.11%"),
        (["q_lin", "k_lin", "v_lin"], 110_592, "0.17%"),
    ],
)
def test_distilbert_trains_what_the_guide_says(targets, adapter, share):
    model = skeleton(ModelSpec(config={"model_type": "distilbert"}), "SEQ_CLS", 2)
    arm = arm_of("SEQ_CLS", **{"lora.r": 4, "lora.target_modules": targets})
    found = footprint(model, resolve_adapter(model, arm, "SEQ_CLS"))
    assert found.adapter == adapter
    assert f"{adapter / (found.base - found.heads):.2%}" == share
    assert found.heads == 768 * 768 + 768 + 2 * 768 + 2


def test_ranks_that_await_their_importance_cost_what_they_will_cost():
    model = tiny("llama", "CAUSAL_LM")
    arm = arm_of("CAUSAL_LM", **{"ranks.strategy": "empirical", "lora.r": 4})
    awaited = resolve_adapter(model, arm, "CAUSAL_LM")
    importance = {t.name: 1.0 + n for n, t in enumerate(resolve_targets(model, arm.lora))}
    measured = resolve_adapter(model, arm, "CAUSAL_LM", importance)
    assert (awaited.provisional, measured.provisional) == (True, False)
    assert measured.ranks != awaited.ranks
    assert footprint(model, measured).adapter == pytest.approx(
        footprint(model, awaited).adapter, rel=0.01
    )


def test_a_full_arm_has_no_adapter_to_resolve():
    with pytest.raises(ValueError, match="has no adapter"):
        resolve_adapter(tiny("bert", "SEQ_CLS"), arm_of("SEQ_CLS", method="full"), "SEQ_CLS")
