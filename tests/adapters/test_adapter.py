"""An adapter is resolved once, and peft reads the same ranks and scalings off what it is told."""

import itertools

import pytest
from peft import LoraConfig, get_peft_model
from torch import nn

from rankwise.adapters.adapter import Adapter, adapted_module, resolve_adapter, target_words
from rankwise.adapters.peft_files import peft_config, peft_settings
from rankwise.base.modules import linear_modules
from rankwise.spec.models import LoraSpec
from skeletons import arm_of, tiny, with_peft

NAMES = ["c_attn", "c_proj", "c_fc"]


@pytest.mark.parametrize(
    "setting",
    [
        {"r": 4, "lora_alpha": 6},
        {"r": 4, "rank_pattern": {"c_attn": 2, r"h\.1\..*": 7}, "alpha_pattern": {"c_fc": 5}},
        {"r": 4, "rank_pattern": {r"h.0.mlp.c_proj": 3}, "use_rslora": True},
        {"r": 4, "rank_pattern": {r"^transformer\.h\.0\.attn\.c_proj": 2}},
    ],
)
def test_ranks_and_scalings_are_those_of_peft(setting):
    model = tiny("gpt2", "CAUSAL_LM")
    layers = with_peft(model, "CAUSAL_LM", target_modules=NAMES, **setting).base_model.model
    given = {f"lora.{name}": value for name, value in setting.items()}
    arm = arm_of("CAUSAL_LM", **{"lora.target_modules": NAMES, **given})
    adapter = resolve_adapter(model, arm, "CAUSAL_LM")
    assert len(adapter.modules) == 8
    for name, module in adapter.modules.items():
        layer = layers.get_submodule(name)
        assert module.rank == layer.r["default"]
        assert module.alpha == layer.lora_alpha["default"]
        assert module.scaling == pytest.approx(layer.scaling["default"], rel=1e-15)


def test_a_rule_for_alpha_holds_at_the_rank_of_each_module():
    changes = {"lora.r": 4, "lora.lora_alpha": "2r", "lora.rank_pattern": {"h.1.*": 16}}
    arm = arm_of("CAUSAL_LM", **{"lora.target_modules": ["c_attn"], **changes})
    adapter = resolve_adapter(tiny("gpt2", "CAUSAL_LM"), arm, "CAUSAL_LM")
    assert [module.alpha for module in adapter.modules.values()] == [8, 32]
    assert [module.scaling for module in adapter.modules.values()] == [2, 2]


def test_a_full_arm_has_no_adapter_to_resolve():
    with pytest.raises(ValueError, match="has no adapter"):
        resolve_adapter(tiny("bert", "SEQ_CLS"), arm_of("SEQ_CLS", method="full"), "SEQ_CLS")


def test_ranks_that_are_known_are_taken_as_they_are():
    model = tiny("llama", "CAUSAL_LM")
    arm = arm_of("CAUSAL_LM", **{"ranks.strategy": "empirical", "lora.lora_alpha": "2r"})
    awaited = resolve_adapter(model, arm, "CAUSAL_LM")
    known = {name: 1 + number % 5 for number, name in enumerate(awaited.modules)}
    found = resolve_adapter(model, arm, "CAUSAL_LM", ranks=known)
    assert (awaited.provisional, found.provisional) == (True, False)
    assert found.ranks == known
    assert {module.scaling for module in found.modules.values()} == {2}


def nested(*names):
    """A model that has a linear module of each of these dotted names."""
    root = nn.Module()
    for name in names:
        *parents, leaf = name.split(".")
        here = root
        for part in parents:
            if not hasattr(here, part):
                here.add_module(part, nn.Module())
            here = getattr(here, part)
        here.add_module(leaf, nn.Linear(64, 64))
    return root


ALIKE = [
    ("layers.0.q", "model.layers.0.q", "model.layers.0.k"),  # the end of another name
    ("a.1.1", "a.111", "a.1.2"),  # a dot of an expression matches any letter
    ("q", "b.q", "b.c.q"),
    ("a.q+", "a.qq", "a.q"),
]


@pytest.mark.parametrize("names", ALIKE, ids=" ".join)
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("in_file", [False, True])
def test_peft_gives_each_module_its_own_rank_and_scaling(names, rslora, in_file):
    model = nested(*names)
    lora = LoraSpec(lora_alpha="3r", use_rslora=rslora)
    targets = linear_modules(model)
    ranks = list(range(2, 2 + len(targets)))
    for order, rising in itertools.product((1, -1), (1, -1)):
        pairs = list(zip(targets, ranks[::rising], strict=True))[::order]
        modules = {target.name: adapted_module(target, rank, lora) for target, rank in pairs}
        words = target_words(model, set(modules))
        adapter = Adapter(modules, rslora=rslora, target_modules=words)
        config = (
            peft_config(adapter, "CAUSAL_LM", "base", doubled=False)
            if in_file
            else LoraConfig(**peft_settings(adapter, "CAUSAL_LM"))
        )
        config.task_type = config.base_model_name_or_path = None
        config.inference_mode = False
        adapted = get_peft_model(nested(*names), config).base_model.model
        for name, module in modules.items():
            layer = adapted.get_submodule(name)
            assert layer.r["default"] == module.rank
            assert layer.scaling["default"] == pytest.approx(module.scaling, rel=1e-15)


@pytest.mark.parametrize("names", ALIKE, ids=" ".join)
def test_the_words_for_some_modules_mean_no_others(names):
    every = set(names)
    for left_out in names:
        chosen = every - {left_out}
        config = LoraConfig(target_modules=target_words(nested(*names), chosen))
        adapted = get_peft_model(nested(*names), config)
        assert set(adapted.base_model.targeted_module_names) == chosen


def test_a_name_that_stands_for_itself_alone_is_written_as_it_is():
    model = tiny("llama", "CAUSAL_LM")
    arm = arm_of("CAUSAL_LM", **{"ranks.strategy": "linear_decay", "lora.r": 4})
    adapter = resolve_adapter(model, arm, "CAUSAL_LM")
    told = peft_settings(adapter, "CAUSAL_LM")
    assert set(told["rank_pattern"]) <= set(adapter.modules)
    assert told["target_modules"] == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
