"""Per-layer ranks: what holds for every strategy on every architecture."""

import itertools
import random

import pytest
from peft.utils.other import get_pattern_key

from rankwise.adapters.adapter import Adapter, adapted_module
from rankwise.adapters.peft_files import peft_settings
from rankwise.adapters.ranks import allocate, budget_of, cost_of
from rankwise.base.modules import Target, role_of
from rankwise.errors import SpecError
from rankwise.spec.models import LoraSpec, RanksSpec


def layers(count, stem, shapes):
    return tuple(
        Target(f"{stem}.{n}.{name}", i, o, "linear", n, role_of(f"{stem}.{n}.{name}"), True)
        for n in range(count)
        for name, (i, o) in shapes.items()
    )


ARCHITECTURES = {
    "gpt2-medium": layers(24, "transformer.h", {
        "attn.c_attn": (1024, 3072), "attn.c_proj": (1024, 1024),
        "mlp.c_fc": (1024, 4096), "mlp.c_proj": (4096, 1024)}),
    "smollm": layers(30, "model.layers", {
        "self_attn.q_proj": (576, 576), "self_attn.k_proj": (576, 192),
        "self_attn.v_proj": (576, 192), "self_attn.o_proj": (576, 576),
        "mlp.gate_proj": (576, 1536), "mlp.up_proj": (576, 1536), "mlp.down_proj": (1536, 576)}),
    "minilm": layers(6, "bert.encoder.layer", {
        "attention.self.query": (384, 384), "attention.self.value": (384, 384),
        "output.dense": (1536, 384)}),
    "t5": layers(6, "encoder.block", {
        "layer.0.SelfAttention.q": (512, 512), "layer.1.DenseReluDense.wi": (512, 2048)})
    + layers(8, "decoder.block", {
        "layer.0.SelfAttention.q": (512, 512), "layer.1.EncDecAttention.v": (512, 512),
        "layer.2.DenseReluDense.wo": (2048, 512)}),
    "neox": layers(6, "gpt_neox.layers", {
        "attention.query_key_value": (512, 1536), "mlp.dense_h_to_4h": (512, 2048)}),
    "tiny": layers(2, "distilbert.transformer.layer", {
        "attention.q_lin": (16, 16), "ffn.lin1": (16, 24)}),
}  # fmt: skip
STRATEGIES = [
    RanksSpec(strategy="linear_decay"),
    RanksSpec(strategy="linear_decay", direction="up", ratio=16),
    RanksSpec(strategy="attention_heavy"),
    RanksSpec(strategy="attention_heavy", ratio=0.2),
    RanksSpec(strategy="empirical"),
]
CASES = [
    pytest.param(kind, ranks, id=f"{kind}-{ranks.strategy}-{n}")
    for kind in ARCHITECTURES
    for n, ranks in enumerate(STRATEGIES)
]


def importance_of(targets, seed):
    draw = random.Random(seed)
    return {target.name: draw.lognormvariate(0, 2) for target in targets}


def spent(targets, found):
    return sum(cost_of(target, found[target.name]) for target in targets)


@pytest.mark.parametrize(("kind", "ranks"), CASES)
def test_the_budget_of_a_uniform_rank_is_held_and_no_rank_is_out_of_bounds(kind, ranks):
    targets = ARCHITECTURES[kind]
    for seed, r in enumerate((4, 8, 16) if kind != "tiny" else (4, 8)):
        lora, importance = LoraSpec(r=r), importance_of(targets, seed)
        found = allocate(targets, ranks, lora, importance)
        assert list(found) == [target.name for target in targets]
        assert all(1 <= found[t.name] <= min(t.in_features, t.out_features) for t in targets)
        budget = sum(cost_of(target, r) for target in targets)
        assert abs(spent(targets, found) - budget) <= 0.01 * budget
        assert allocate(targets, ranks, lora, dict(reversed(importance.items()))) == found


@pytest.mark.parametrize("seed", range(40))
def test_a_budget_of_ones_own_is_held_by_every_strategy(seed):
    draw = random.Random(seed)
    kind = draw.choice([kind for kind in ARCHITECTURES if kind != "tiny"])
    targets = ARCHITECTURES[kind]
    least = spent(targets, dict.fromkeys((t.name for t in targets), 1))
    most = sum(cost_of(t, min(t.in_features, t.out_features)) for t in targets)
    budget = int(least * (most / least) ** draw.uniform(0.25, 1))
    strategy = draw.choice(["uniform", "linear_decay", "attention_heavy", "empirical"])
    ranks = RanksSpec(strategy=strategy, budget=budget, ratio=draw.uniform(0.1, 20))
    found = allocate(targets, ranks, LoraSpec(), importance_of(targets, seed))
    assert abs(spent(targets, found) - budget) <= 0.01 * budget
    assert all(1 <= found[t.name] <= min(t.in_features, t.out_features) for t in targets)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_uniform_is_the_rank_of_the_spec_and_costs_the_budget_exactly(kind):
    targets = ARCHITECTURES[kind]
    assert set(allocate(targets, RanksSpec(), LoraSpec(r=8)).values()) == {8}
    budget = budget_of(targets, RanksSpec(), LoraSpec(r=8))
    assert set(allocate(targets, RanksSpec(budget=budget), LoraSpec(r=2)).values()) == {8}


@pytest.mark.parametrize(("direction", "sign"), [("down", -1), ("up", 1)])
def test_linear_decay_is_linear_in_depth(direction, sign):
    targets = ARCHITECTURES["gpt2-medium"]
    ranks = RanksSpec(strategy="linear_decay", direction=direction, ratio=4)
    found = allocate(targets, ranks, LoraSpec(r=32))
    by_layer = [found[f"transformer.h.{n}.attn.c_attn"] for n in range(24)]
    steps = [sign * (b - a) for a, b in itertools.pairwise(by_layer)]
    assert min(steps) >= 0
    assert max(steps) - min(steps) <= 2  # a slope, but for rounding
    assert max(by_layer) / min(by_layer) == pytest.approx(4, rel=0.1)


def test_an_encoder_and_a_decoder_decay_each_over_their_own_depth():
    found = allocate(ARCHITECTURES["t5"], RanksSpec(strategy="linear_decay"), LoraSpec(r=16))
    last = [
        found[f"{stack}.layer.0.SelfAttention.q"]
        for stack in ("encoder.block.5", "decoder.block.7")
    ]
    assert abs(last[0] - last[1]) <= 1


def test_attention_heavy_gives_attention_the_ratio():
    targets = ARCHITECTURES["smollm"]
    found = allocate(targets, RanksSpec(strategy="attention_heavy", ratio=4), LoraSpec(r=16))
    attention = [found[t.name] for t in targets if t.role != "mlp"]
    mlp = [found[t.name] for t in targets if t.role == "mlp"]
    mean = sum(attention) / len(attention), sum(mlp) / len(mlp)
    assert mean[0] / mean[1] == pytest.approx(4, rel=0.1)


def test_a_more_important_module_gets_no_smaller_rank():
    targets = layers(12, "h", {"attn.q": (256, 256)})
    importance = importance_of(targets, 3)
    found = allocate(targets, RanksSpec(strategy="empirical"), LoraSpec(r=8), importance)
    order = sorted(found, key=lambda name: importance[name])
    assert [found[name] for name in order] == sorted(found.values())
    assert max(found.values()) > 3 * min(found.values())


def test_importance_in_other_units_is_the_same_importance():
    targets = ARCHITECTURES["minilm"]
    importance = importance_of(targets, 5)
    ranks = RanksSpec(strategy="empirical")
    scaled = {name: 2.0**60 * value for name, value in importance.items()}
    assert allocate(targets, ranks, LoraSpec(), importance) == allocate(
        targets, ranks, LoraSpec(), scaled
    )


def test_custom_ranks_are_taken_as_they_are_or_scaled_to_a_budget():
    targets = ARCHITECTURES["minilm"]
    custom = {"query": 12, r"layer\.0\..*": 4}
    plain = allocate(targets, RanksSpec(strategy="custom", custom=custom), LoraSpec(r=6))
    first = "bert.encoder.layer.0"
    assert plain[f"{first}.attention.self.query"] == 12  # the first pattern that matches
    assert plain[f"{first}.output.dense"] == 4
    assert plain["bert.encoder.layer.3.attention.self.value"] == 6
    budget = 2 * spent(targets, plain)
    found = allocate(
        targets, RanksSpec(strategy="custom", custom=custom, budget=budget), LoraSpec(r=6)
    )
    assert found == {name: 2 * rank for name, rank in plain.items()}


@pytest.mark.parametrize(
    ("kind", "ranks", "importance", "words"),
    [
        ("neox", {"budget": 10}, {}, "these 12 modules; give 27,648 (rank 1 everywhere) to"),
        ("tiny", {"budget": 10**9}, {}, "2,304 (the largest ranks)"),
        ("tiny", {"budget": 150}, {}, "cannot be met within 1 % by whole ranks"),
        ("neox", {"strategy": "custom", "custom": {"qkv": 3}}, {}, '"qkv" matches no adapted'),
        ("neox", {"strategy": "custom", "custom": {"(": 3}}, {}, "not a valid regular expression"),
        ("tiny", {"strategy": "custom", "custom": {"q_lin": 17}}, {}, "of 16 by 16 can hold"),
        ("neox", {"strategy": "empirical"}, None, "needs an importance measured"),
        ("neox", {"strategy": "empirical"}, {}, "is nan; it must be a finite number"),
    ],
)  # fmt: skip
def test_what_cannot_be_spent_is_refused(kind, ranks, importance, words):
    with pytest.raises(SpecError) as caught:
        allocate(ARCHITECTURES[kind], RanksSpec(**ranks), LoraSpec(), importance)
    assert words in str(caught.value)


def test_a_strategy_with_nothing_to_tell_apart_is_refused():
    one_layer = ARCHITECTURES["neox"][:2]
    with pytest.raises(SpecError, match="more than one layer"):
        allocate(one_layer, RanksSpec(strategy="linear_decay"), LoraSpec())
    with pytest.raises(SpecError, match="all adapted modules are attention modules"):
        allocate(one_layer[:1], RanksSpec(strategy="attention_heavy"), LoraSpec())
    zero = dict.fromkeys((t.name for t in one_layer), 0.0)
    with pytest.raises(SpecError, match="importance is zero"):
        allocate(one_layer, RanksSpec(strategy="empirical"), LoraSpec(), zero)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("rule", ["2r", "sqrt", 24])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_peft_is_told_says_the_same_and_keeps_the_rule_of_alpha(kind, rule, rslora):
    targets = ARCHITECTURES[kind]
    lora = LoraSpec(r=6, lora_alpha=rule, use_rslora=rslora)
    found = allocate(targets, RanksSpec(strategy="linear_decay"), lora)
    modules = {t.name: adapted_module(t, found[t.name], lora) for t in targets}
    told = peft_settings(Adapter(modules, rslora=rslora), "CAUSAL_LM")
    for name, module in modules.items():
        rank = found[name]
        wanted = {"2r": 2 * rank, "sqrt": rank**0.5, 24: 24}[rule]
        assert read_by_peft(told, "rank_pattern", "r", name) == rank
        assert read_by_peft(told, "alpha_pattern", "lora_alpha", name) == wanted
        assert module.scaling == pytest.approx(wanted / (rank**0.5 if rslora else rank), rel=1e-15)


def read_by_peft(told, patterns, default, name):
    known = told.get(patterns, {})
    return known.get(get_pattern_key(known.keys(), name), told[default])
