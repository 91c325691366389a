"""Predicted parameters are those of the trained model to the last one; memory is about right."""

import pytest
import torch
import transformers

from rankwise.adapters.memory import (
    Memory,
    cohort_bytes,
    footprint,
    max_runs,
    predict_memory,
    resolve_adapter,
    weight_bytes,
)
from rankwise.adapters.targets import resolve_targets
from rankwise.base.skeleton import skeleton
from rankwise.errors import SpecError
from rankwise.spec.arms import make_arms
from rankwise.spec.models import ModelSpec, StudySpec
from skeletons import PAIRS, SIZES, counts, tiny, with_peft

COLUMNS = {
    "CAUSAL_LM": {"text": "text"},
    "SEQ_CLS": {"text": "text", "label": "label"},
    "SEQ_2_SEQ_LM": {"input": "input", "target": "target"},
}
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


def arm_of(task, **changes):
    spec = {
        "study": "s",
        "model": {"name": "m"},
        "task": task,
        "data": {"source": "x", **COLUMNS[task]},
        "lora": {"target_modules": "all-linear"},
        "configs": [changes or {"name": "plain"}],
    }
    (arm,) = make_arms(StudySpec.model_validate(spec))
    return arm


def peft_like(model, task, adapter):
    """peft's model from nothing but what an adapter's file would say."""
    lora = adapter.lora
    return with_peft(
        model,
        task,
        target_modules=[target.name for target in adapter.targets],
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        bias=lora.bias,
        use_dora=lora.use_dora,
        use_rslora=lora.use_rslora,
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern=dict(lora.alpha_pattern),
        modules_to_save=list(lora.modules_to_save) or None,
    )


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: "-".join(map(str, c.values())))
@pytest.mark.parametrize(("kind", "task"), PAIRS)
def test_parameters_are_those_of_pefts_model(kind, task, changes):
    model = tiny(kind, task)
    arm = arm_of(task, **changes)
    adapter = resolve_adapter(model, arm, task)
    theirs = peft_like(model, task, adapter)
    found = footprint(model, arm, task, adapter)
    assert (found.trainable, found.total) == counts(theirs)
    assert found == footprint(model, arm, task)
    for target in adapter.targets:
        assert (
            theirs.base_model.model.get_submodule(target.name).r["default"]
            == (adapter.ranks[target.name])
        )


def test_further_modules_trained_in_full_are_counted():
    model = tiny("bert", "SEQ_CLS")
    arm = arm_of("SEQ_CLS", **{"lora.modules_to_save": ["pooler"], "lora.bias": "all",
                               "lora.target_modules": ["query"]})  # fmt: skip
    adapter = resolve_adapter(model, arm, "SEQ_CLS")
    found = footprint(model, arm, "SEQ_CLS", adapter)
    assert (found.trainable, found.total) == counts(peft_like(model, "SEQ_CLS", adapter))
    assert found.heads == (16 * 16 + 16) + (16 * 3 + 3)


@pytest.mark.parametrize(("kind", "task"), PAIRS)
def test_full_fine_tuning_trains_every_weight_once(kind, task):
    model = tiny(kind, task)
    found = footprint(model, arm_of(task, method="full"), task)
    assert (found.trainable, found.total) == counts(model)


def test_gpt2_with_rank_8_on_c_attn_trains_294912_of_124734720():
    model = skeleton(ModelSpec(config={"model_type": "gpt2"}), "CAUSAL_LM")
    arm = arm_of("CAUSAL_LM", **{"lora.r": 8, "lora.target_modules": ["c_attn"]})
    found = footprint(model, arm, "CAUSAL_LM")
    assert (found.base, found.trainable, found.total) == (124_439_808, 294_912, 124_734_720)
    assert f"{found.share:.4%}" == "0.2364%"


@pytest.mark.parametrize(("r", "trainable"), [(8, 3_145_728), (16, 6_291_456)])
def test_gpt2_medium_trains_what_the_report_on_ranks_says(r, trainable):
    # c_proj is the name of two modules in each layer, attention's and the MLP's; both count.
    config = {"model_type": "gpt2", "n_layer": 24, "n_embd": 1024, "n_head": 16}
    model = skeleton(ModelSpec(config=config), "CAUSAL_LM")
    names = ["c_attn", "c_proj", "c_fc"]
    found = footprint(
        model, arm_of("CAUSAL_LM", **{"lora.r": r, "lora.target_modules": names}), "CAUSAL_LM"
    )
    assert (found.base, found.trainable) == (354_823_168, trainable)
    for strategy in ("linear_decay", "attention_heavy"):
        changes = {"lora.r": r, "lora.target_modules": names, "ranks.strategy": strategy}
        spent = footprint(model, arm_of("CAUSAL_LM", **changes), "CAUSAL_LM").trainable
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
    found = footprint(model, arm, "SEQ_CLS")
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
    assert footprint(model, arm, "CAUSAL_LM", measured).adapter == pytest.approx(
        footprint(model, arm, "CAUSAL_LM", awaited).adapter, rel=0.01
    )


def test_a_full_arm_has_no_adapter_to_resolve():
    with pytest.raises(ValueError, match="has no adapter"):
        resolve_adapter(tiny("bert", "SEQ_CLS"), arm_of("SEQ_CLS", method="full"), "SEQ_CLS")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_memory_of_an_unquantised_base_is_exact(dtype):
    model = tiny("t5", "SEQ_2_SEQ_LM")
    held = sum(p.numel() * getattr(torch, dtype).itemsize for p in model.parameters())
    assert weight_bytes(model, dtype, "none", True) == held


@pytest.mark.parametrize("double", [True, False])
def test_the_memory_of_nf4_weights_is_that_of_bitsandbytes(double):
    functional = pytest.importorskip("bitsandbytes").functional
    weight = torch.randn(96, 512)
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
    held = packed.nbytes + state.absmax.nbytes + (state.state2.absmax.nbytes if double else 0)
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleDict({"0": torch.nn.ModuleDict({"q": torch.nn.Linear(512, 96)})})
    model.config = None
    outer = torch.nn.ModuleDict({"model": model})
    bias = 96 * 2
    assert weight_bytes(outer, "bfloat16", "nf4", double) == held + bias
    assert weight_bytes(outer, "bfloat16", "int8", double) == 96 * 512 + 96 * 4 + bias
    with pytest.raises(SpecError, match="'int3' is not known"):
        weight_bytes(outer, "bfloat16", "int3", double)


def held_by_autograd(model, batch):
    """Bytes that the backward pass of one batch holds, the parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**batch)
    return sum(size for size, _ in seen.values())


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
@pytest.mark.parametrize(("kind", "attention"), [
    ("gpt2", "eager"), ("llama", "sdpa"), ("llama", "eager"), ("gpt_neox", "sdpa"),
    ("bert", "eager"), ("distilbert", "sdpa"), ("t5", "eager"),
])  # fmt: skip
def test_predicted_activations_are_about_those_that_autograd_holds(kind, attention, targets):
    task = next(task for known, task in PAIRS if known == kind)
    auto = {
        "CAUSAL_LM": transformers.AutoModelForCausalLM,
        "SEQ_CLS": transformers.AutoModelForSequenceClassification,
        "SEQ_2_SEQ_LM": transformers.AutoModelForSeq2SeqLM,
    }[task]
    sizes = {k: 8 * v if v in (16, 24) else v for k, v in SIZES[kind].items()}
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=300, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes
    )
    config.decoder_start_token_id = 0
    model = auto.from_config(config, attn_implementation=attention)
    arm = arm_of(task, **{"lora.target_modules": targets})
    adapted = peft_like(model, task, resolve_adapter(model, arm, task)).eval()
    ids = torch.arange(8 * 48).reshape(8, 48) % 290 + 3
    labels = torch.zeros(8, dtype=torch.long) if task == "SEQ_CLS" else ids
    found = held_by_autograd(adapted, {"input_ids": ids, "labels": labels})
    predicted = predict_memory(
        model, arm, task, 48, "float32", ModelSpec(name="m"), attention=attention
    )
    vocabulary = 0 if task == "SEQ_CLS" else 8 * 48 * 300 * 4  # of the logits autograd holds one
    assert 0.65 < found / (predicted.activations + vocabulary) < 1.15


def test_memory_grows_with_what_makes_it_grow():
    model, spec = tiny("llama", "CAUSAL_LM"), ModelSpec(name="m")

    def memory(tokens=32, dtype="bfloat16", **changes):
        return predict_memory(
            model, arm_of("CAUSAL_LM", **changes), "CAUSAL_LM", tokens, dtype, spec
        )

    plain = memory()
    assert memory(dtype="float32").base == 2 * plain.base
    assert memory(64).activations > 2 * plain.activations  # eager attention is quadratic
    assert memory(**{"lora.r": 16}).trained == 2 * plain.trained
    assert memory(**{"training.per_device_train_batch_size": 16}).logits == 2 * plain.logits
    assert (
        memory(**{"model.quantization": "nf4"}).base < memory(**{"model.quantization": "int8"}).base
    )
    full = memory(method="full")
    assert (full.base, full.trained) == (0, 16 * counts(model)[1])


def test_as_many_runs_as_fit_share_a_base():
    runs = [Memory(base=1000, trained=60, activations=30, logits=10)] * 8
    assert runs[0].alone == 1100
    assert cohort_bytes(runs[:3]) == 1300
    assert [max_runs(limit, runs) for limit in (0, 1199, 1200, 1500, 10_000)] == [1, 1, 2, 5, 8]
