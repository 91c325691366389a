"""Predicted memory is about right, and exact where it can be."""

import math

import pytest
import torch
import transformers

from company import runs_of
from rankwise.adapters.adapter import resolve_adapter
from rankwise.adapters.memory import (
    Memory,
    cohort_bytes,
    max_runs,
    optimizer_bytes,
    predict_memory,
    trained_shapes,
    weight_bytes,
)
from rankwise.errors import SpecError
from rankwise.train.cohort import take_out
from skeletons import PAIRS, SIZES, arm_of, counts, peft_like, tiny
from tiny import tiny_cohort, tiny_model


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
    adapter = resolve_adapter(model, arm, task)
    adapted = peft_like(model, task, adapter).eval()
    ids = torch.arange(8 * 48).reshape(8, 48) % 290 + 3
    labels = torch.zeros(8, dtype=torch.long) if task == "SEQ_CLS" else ids
    found = held_by_autograd(adapted, {"input_ids": ids, "labels": labels})
    predicted = predict_memory(model, arm, adapter, task, 48, "float32", attention=attention)
    vocabulary = 0 if task == "SEQ_CLS" else 8 * 48 * 300 * 4  # of the logits autograd holds one
    assert 0.65 < found / (predicted.activations + vocabulary) < 1.15


def test_memory_grows_with_what_makes_it_grow():
    model = tiny("llama", "CAUSAL_LM")

    def memory(tokens=32, dtype="bfloat16", **changes):
        arm = arm_of("CAUSAL_LM", **changes)
        adapter = None if arm.method == "full" else resolve_adapter(model, arm, "CAUSAL_LM")
        return predict_memory(model, arm, adapter, "CAUSAL_LM", tokens, dtype)

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


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd", "adafactor"])
@pytest.mark.parametrize("changes", [{}, {"method": "full"}, {"lora.use_dora": True},
                                     {"lora.bias": "all"}])  # fmt: skip
def test_what_an_optimizer_keeps_is_predicted_to_the_byte(optim, changes, tmp_path):
    rates = [{"training.learning_rate": rate} for rate in (1e-3, 1e-2, 1e-1)]
    run = runs_of("bert", [{"training.optim": optim, **changes, **rate} for rate in rates])[0]
    cohort, told = tiny_cohort("bert", [run], tmp_path)
    told.train(cohort, batches=2)
    (state,) = take_out(cohort)
    model = tiny_model("bert").requires_grad_(run.arm.method == "full")
    lora = run.arm.method != "full"
    adapter = resolve_adapter(model, run.arm, "SEQ_CLS") if lora else None
    shapes = list(trained_shapes(model, adapter).values())
    assert sum(value.nbytes for value in state.optimizer.values()) == optimizer_bytes(optim, shapes)
    assert sum(w.numel() for w in state.weights.values()) == sum(map(math.prod, shapes))


def test_as_many_runs_as_fit_share_a_base():
    runs = [Memory(base=1000, trained=60, activations=30, logits=10)] * 8
    assert runs[0].alone == 1100
    assert cohort_bytes(runs[:3]) == 1300
    assert [max_runs(limit, runs) for limit in (0, 1199, 1200, 1500, 10_000)] == [1, 1, 2, 5, 8]
