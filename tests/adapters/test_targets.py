"""Targets: the modules that peft would adapt, and clear words where there are none."""

import pytest

from rankwise.adapters.targets import resolve_targets
from rankwise.base.modules import pattern_for, saved_modules
from rankwise.errors import SpecError
from rankwise.spec.models import LoraSpec
from skeletons import PAIRS, tiny, with_peft

LISTS = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "llama": ["q_proj", "down_proj"],
    "gpt_neox": ["query_key_value", "dense"],
    "bert": ["query", "output.dense"],
    "distilbert": ["q_lin", "lin1"],
    "t5": ["q", "wo"],
    "deberta-v2": ["query_proj", "dense"],
    "roberta": ["query", "dense"],
}
REGEX = r".*\.0\..*(c_attn|query\w*|q_proj|q_lin|\.q)"


def names(model, **lora):
    return [target.name for target in resolve_targets(model, LoraSpec(**lora))]


def refused(model, **lora):
    with pytest.raises(SpecError) as caught:
        resolve_targets(model, LoraSpec(**lora))
    return str(caught.value)


def ends(found):
    return list(dict.fromkeys(name.rpartition(".")[2] for name in found))


@pytest.mark.parametrize(("kind", "task"), PAIRS)
def test_targets_are_those_of_peft(kind, task):
    model = tiny(kind, task)
    some = LISTS[kind]
    settings = [
        {"target_modules": some},
        {"target_modules": some, "layers_to_transform": [1]},
        {"target_modules": some, "exclude_modules": [some[1]]},
        {"target_modules": REGEX},
    ]
    if kind != "distilbert":  # peft has no default for it, and trips over its pre_classifier
        settings += [{}, {"target_modules": "all-linear"}]
    for setting in settings:
        theirs = with_peft(model, task, **setting).base_model.targeted_module_names
        assert names(model, **setting) == theirs, setting


@pytest.mark.parametrize(("kind", "task"), PAIRS)
def test_shapes_are_those_of_the_adapters_that_peft_makes(kind, task):
    model = tiny(kind, task)
    layers = with_peft(model, task, target_modules=LISTS[kind], r=3).base_model.model
    for target in resolve_targets(model, LoraSpec(target_modules=LISTS[kind])):
        layer = layers.get_submodule(target.name)
        assert layer.lora_A["default"].weight.shape == (3, target.in_features)
        assert layer.lora_B["default"].weight.shape == (target.out_features, 3)
        assert (layer.base_layer.bias is not None) == target.has_bias


@pytest.mark.parametrize(("kind", "task"), PAIRS)
def test_modules_trained_in_full_are_those_of_peft(kind, task):
    model = tiny(kind, task)
    more = ["bert.pooler"] if kind == "bert" else []
    adapted = with_peft(model, task, target_modules=LISTS[kind], modules_to_save=[*more])
    theirs = [
        name.removeprefix("base_model.model.")
        for name, module in adapted.named_modules()
        if type(module).__name__ == "ModulesToSaveWrapper"
    ]
    assert list(saved_modules(model, LoraSpec(modules_to_save=more), task)) == theirs


def test_the_head_of_distilbert_has_two_layers():
    model = tiny("distilbert", "SEQ_CLS")
    assert saved_modules(model, LoraSpec(), "SEQ_CLS") == ("pre_classifier", "classifier")


def test_all_linear_leaves_out_the_whole_head():
    found = ends(names(tiny("distilbert", "SEQ_CLS"), target_modules="all-linear"))
    assert found == ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"]


@pytest.mark.parametrize(
    ("kind", "task", "preset", "wanted"),
    [
        ("gpt2", "CAUSAL_LM", "query", ["c_attn"]),
        ("gpt2", "CAUSAL_LM", "attention", ["c_attn", "c_proj"]),
        ("gpt2", "CAUSAL_LM", "mlp", ["c_fc", "c_proj"]),
        ("gpt_neox", "CAUSAL_LM", "attention-qkv", ["query_key_value"]),
        ("gpt_neox", "CAUSAL_LM", "attention", ["query_key_value", "dense"]),
        ("gpt_neox", "CAUSAL_LM", "mlp", ["dense_h_to_4h", "dense_4h_to_h"]),
        ("llama", "CAUSAL_LM", "query", ["q_proj"]),
        ("llama", "CAUSAL_LM", "attention-qkv", ["q_proj", "k_proj", "v_proj"]),
        ("llama", "SEQ_CLS", "attention", ["q_proj", "k_proj", "v_proj", "o_proj"]),
        ("llama", "CAUSAL_LM", "mlp", ["gate_proj", "up_proj", "down_proj"]),
        ("bert", "SEQ_CLS", "attention", ["query", "key", "value", "dense"]),
        ("distilbert", "SEQ_CLS", "mlp", ["lin1", "lin2"]),
        ("t5", "SEQ_2_SEQ_LM", "attention", ["q", "k", "v", "o"]),
        ("t5", "SEQ_2_SEQ_LM", "mlp", ["wi", "wo"]),
        ("deberta-v2", "SEQ_CLS", "attention-qkv", ["query_proj", "key_proj", "value_proj"]),
    ],
)
def test_a_preset_asks_for_what_the_architecture_has(kind, task, preset, wanted):
    model = tiny(kind, task)
    found = names(model, target_modules=preset)
    assert ends(found) == wanted
    assert all(".0." in name or ".1." in name for name in found)
    theirs = with_peft(model, task, target_modules=found).base_model.targeted_module_names
    assert theirs == found


def test_attention_and_mlp_share_no_module_and_are_all_of_a_layer():
    for kind, task in PAIRS:
        model = tiny(kind, task)
        attention = names(model, target_modules="attention")
        mlp = names(model, target_modules="mlp")
        inside = [n for n in names(model, target_modules="all-linear") if ".0." in n or ".1." in n]
        assert sorted(attention + mlp) == sorted(inside)


def test_presets_and_all_linear_keep_to_the_layers_asked_for():
    model = tiny("llama", "CAUSAL_LM")
    for preset in ("query", "all-linear"):
        found = names(model, target_modules=preset, layers_to_transform=1)
        assert found
        assert all(".layers.1." in name for name in found)


def test_an_unknown_name_lists_the_nearest():
    message = refused(tiny("llama", "CAUSAL_LM"), target_modules=["q_prj"])
    assert message == (
        'lora.target_modules: "q_prj" matches no module of llama; nearest: q_proj. Linear modules: '
        "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head"
    )


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"target_modules": ["query_key_value"]}, '"query_key_value" matches no module of llama'),
        ({"target_modules": ["q_proj", "vv"]}, '"vv" matches no module of llama'),
        ({"target_modules": ["query"]}, "as a preset write target_modules: query, without"),
        ({"target_modules": "q_proj"}, "write it as a list: [q_proj]"),
        ({"target_modules": "attn"}, '"attn" matches no module of llama'),
        ({"target_modules": "("}, '"(" is not a valid regular expression'),
        ({"target_modules": []}, "the list is empty"),
        ({"target_modules": ["embed_tokens"]}, '"model.embed_tokens" is of kind Embedding'),
        ({"target_modules": ["self_attn"]}, "is of kind LlamaAttention"),
        ({"target_modules": ["q_proj"], "layers_to_transform": 7}, "no layer 7; layers are 0 to 1"),
        ({"target_modules": ".*q_proj", "layers_to_transform": 1}, "not with a regular expression"),
        ({"target_modules": ["q_proj"], "exclude_modules": ["q_prj"]}, "nearest: q_proj"),
        ({"target_modules": ["q_proj"], "exclude_modules": "q_proj"}, "matches no full name"),
        ({"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]}, "leave nothing to adapt"),
        ({"target_modules": "query", "exclude_modules": ["q_proj"]}, "leave nothing to adapt"),
        ({"target_modules": ["q_proj"], "rank_pattern": {"q_prj": 4}}, "nearest: q_proj"),
        (
            {"target_modules": ["q_proj"], "alpha_pattern": {"[": 4}},
            "is not a valid regular expression",
        ),
    ],
)
def test_what_comes_to_nothing_is_refused(lora, words):
    assert words in refused(tiny("llama", "CAUSAL_LM"), **lora)


def test_a_module_that_is_trained_in_full_takes_no_adapter():
    model = tiny("distilbert", "SEQ_CLS")
    assert "is trained in full" in refused(model, target_modules=["pre_classifier"])
    assert "is trained in full" in refused(model, target_modules=["q_lin", "classifier"])


def test_a_head_by_another_name_is_asked_for():
    model = tiny("t5", "SEQ_CLS")
    with pytest.raises(SpecError, match="no head called classifier or score"):
        saved_modules(model, LoraSpec(), "SEQ_CLS")
    lora = LoraSpec(modules_to_save=["classification_head"])
    assert saved_modules(model, lora, "SEQ_CLS") == ("classification_head",)
    with pytest.raises(SpecError, match="nearest: classification_head"):
        saved_modules(model, LoraSpec(modules_to_save=["clasification_head"]), "SEQ_CLS")


def test_an_unknown_kind_of_model_needs_its_targets_named():
    assert "peft has no default for distilbert" in refused(tiny("distilbert", "SEQ_CLS"))


def test_patterns_match_as_in_peft():
    from peft.utils.other import get_pattern_key

    name = "model.layers.1.self_attn.q_proj"
    for patterns in (["q_proj"], ["_proj"], ["layers.1.*"], ["k_proj", ".*q_proj"], [name], []):
        assert (pattern_for(name, dict.fromkeys(patterns, 1)) or name) == get_pattern_key(
            patterns, name
        )
