"""Adapters over a base that bitsandbytes has quantised: one base, exact as over any other."""

import numpy as np
import pytest
import torch

from peft_loop import peft_model, plain_loop, trained_weights
from rankwise.adapters.adapter import dense_weight
from rankwise.adapters.memory import weight_bytes
from rankwise.base.load import QUANTISED, load_base
from rankwise.errors import ModelError
from rankwise.report.remarks import remarks_of
from rankwise.report.write import write_report
from rankwise.results.from_store import read_records
from rankwise.spec.arms import Run
from rankwise.spec.models import ModelSpec, StudySpec
from rankwise.store.writer import Store
from rankwise.study import export
from rankwise.study.export import merge, unmerged
from rankwise.study.plan import plan_study
from rankwise.study.run import run_study
from rankwise.train.batch import Task
from rankwise.train.evaluate import Untouched, evaluate
from stored import labels
from tiny import CLASSES, COMMON, TASKS, tiny_arms, tiny_cohort, tiny_examples
from tiny_text import VOCABULARY, tiny_spec

pytest.importorskip("bitsandbytes")
SIZES = {
    "llama": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
              "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64},
    "gpt2": {"n_layer": 2, "n_embd": 64, "n_head": 2, "n_positions": 64},
    "t5": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4,
           "decoder_start_token_id": 0},
    "bert": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 2, "max_position_embeddings": 64},
}  # fmt: skip
CPU = torch.device("cpu")


def quantised(kind, quantization):
    config = {"model_type": kind, **COMMON, **SIZES[kind]}
    spec = ModelSpec(config=config, dtype="float32", quantization=quantization)
    return load_base(spec, TASKS[kind], 3 if kind == "bert" else None, CPU, 0, "eager")


def runs_of(kind, changes):
    arms = tiny_arms(
        kind,
        [{"name": f"arm{n}", **change} for n, change in enumerate(changes)],
        max_steps=8,
        eval_steps=3,  # evaluations between the steps must leave the base as it is
    )
    return [Run(arm, seed) for arm, seed in zip(arms, (0, 0, 1), strict=True)]


def trained(kind, base, runs, folder):
    cohort, told = tiny_cohort(kind, runs, folder, base.model, base.new_modules)
    starts = [cohort.bank.state_of(place) for place in range(len(runs))]
    return cohort, told.train(cohort), starts


LORA = [{"lora.r": 4}, {"lora.r": 2, "lora.lora_dropout": 0.2}, {"lora.init_lora_weights": "pissa"}]
DORA = [{"lora.use_dora": True, **change} for change in LORA]


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize(
    ("kind", "changes"), [("llama", LORA), ("bert", LORA), ("gpt2", LORA), ("llama", DORA)]
)
def test_runs_over_a_quantised_base_do_not_notice_each_other(kind, changes, quantization, tmp_path):
    base = quantised(kind, quantization)
    runs = runs_of(kind, changes)
    cohort, told, _ = trained(kind, base, runs, tmp_path / "together")
    for layer in cohort.bank.linears.values():
        assert type(layer.base).__name__ in QUANTISED
    for run in runs:
        _, alone, _ = trained(kind, base, [run], tmp_path / run.arm.name)
        np.testing.assert_allclose(told.steps(run), alone.steps(run), rtol=0, atol=1e-5)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("kind", ["llama", "bert", "t5"])
def test_a_run_over_a_quantised_base_equals_peft_over_the_same(kind, quantization, tmp_path):
    base = quantised(kind, quantization)
    runs = runs_of(kind, [{"lora.r": 4}, {"lora.r": 2, "lora.use_rslora": True}, {"lora.r": 6}])
    _, told, starts = trained(kind, base, runs, tmp_path)
    for run, start in zip(runs, starts, strict=True):
        model = peft_model(kind, base.model, run.arm.lora)
        for module in model.modules():
            module.training = type(module).__name__ in QUANTISED  # peft's .eval() reached them
        weights = trained_weights(model)
        assert weights.keys() == start.keys()
        for name, weight in weights.items():
            weight.data.copy_(start[name])
        examples, steps = tiny_examples(TASKS[kind]), len(told.steps(run))
        expected = plain_loop(model, TASKS[kind], run.arm.training, run.seed, examples, steps)
        np.testing.assert_allclose(told.steps(run), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_is_one_function_before_and_after_evaluation(quantization):
    model = quantised("llama", quantization).model
    ids = torch.arange(3, 15).view(2, 6)
    before = model(input_ids=ids).logits
    dense = [dense_weight(m) for m in model.modules() if type(m).__name__ in QUANTISED]
    with torch.no_grad():
        model(input_ids=ids)
    again = [dense_weight(m) for m in model.modules() if type(m).__name__ in QUANTISED]
    assert all(torch.equal(one, two) for one, two in zip(dense, again, strict=True))
    torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantisation_rounds_the_linear_modules_and_nothing_else(quantization):
    plain, rounded = quantised("bert", "none"), quantised("bert", quantization)
    assert rounded.nbytes < plain.nbytes
    heads = [name for name, _ in rounded.model.named_modules() if name.startswith("classifier")]
    assert rounded.new_modules == ("classifier",) == tuple(heads)
    error = 0.1 if quantization == "nf4" else 0.01
    for name, module in plain.model.named_modules():
        other = rounded.model.get_submodule(name)
        if type(other).__name__ in QUANTISED:
            distance = (dense_weight(other) - module.weight).norm() / module.weight.norm()
            assert 0 < distance < error
        elif isinstance(getattr(other, "weight", None), torch.nn.Parameter):
            assert torch.equal(other.weight, module.weight), name


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "t5"])
def test_the_memory_of_a_quantised_base_is_the_one_foretold(kind, quantization):
    structure = quantised(kind, "none").model
    foretold = weight_bytes(structure, "float32", quantization, double_quant=True)
    assert quantised(kind, quantization).nbytes == foretold


def test_a_quantised_module_cannot_be_trained_in_full(tmp_path):
    base = quantised("bert", "nf4")
    (arm,) = tiny_arms("bert", [{"lora.modules_to_save": ["pooler"]}])
    with pytest.raises(ModelError, match=r'lora\.modules_to_save: "bert\.pooler" is quantised'):
        tiny_cohort("bert", [Run(arm, 0)], tmp_path, base.model)


def test_a_study_says_what_merging_into_the_unquantised_base_changes(tmp_path, monkeypatch):
    config = {**SIZES["llama"], "model_type": "llama", **COMMON, "vocab_size": VOCABULARY}
    spec = tiny_spec(tmp_path, "llama", "text", seeds=[0, 1])
    spec["model"] = {**spec["model"], "config": config, "quantization": "nf4"}
    spec["configs"] = [
        {"name": "rounded", "lora.r": 4},
        {"name": "whole", "lora.r": 4, "model.quantization": "none"},
    ]
    spec = StudySpec.model_validate(spec)
    plan = plan_study(spec, tmp_path)
    for _ in run_study(plan, tmp_path / "out"):
        pass
    with Store(tmp_path / "out") as store:
        assert unmerged(plan, store) == []
        ids, records, merged = labels(store), read_records(store), store.merged()
        losses = {
            label: store.evaluation_at(run, store.run(run).best_step).metrics["eval_loss"]
            for label, run in ids.items()
        }
    best = min(("rounded/seed-0", "rounded/seed-1"), key=lambda run: losses[run])
    assert list(merged) == [ids[best]]
    after = merged[ids[best]]
    (text,) = [text for kind, text in remarks_of(records) if kind == "quantization"]
    assert text.startswith(f"{best}: validation loss {losses[best]:.4f} over the nf4 base")
    assert f"{after - losses[best]:+.4f}" in text
    write_report(tmp_path / "out")
    assert text in (tmp_path / "out" / "report.md").read_text()

    # The same number from the files alone: the merged model that export writes.
    merge(tmp_path / "out" / "adapters" / best, tmp_path / "merged", spec.model, spec.task, None)
    model = CLASSES["CAUSAL_LM"].from_pretrained(tmp_path / "merged").eval()
    task = Task("CAUSAL_LM", 0, spec.data.max_length, CPU)
    (found,) = evaluate(Untouched(model), [0], plan.data.validation, task, 4)
    assert found.loss == pytest.approx(after, abs=1e-5)
    assert found.loss != pytest.approx(losses[best], abs=1e-5)

    # Where the unquantised model does not fit, the report says so, once.
    def exhausted(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(export, "_merged_loss", exhausted)
    with Store(tmp_path / "out") as store:
        store.restart_run(ids[best])  # its loss when merged is forgotten with it
        other = next(run for run in ids if run.startswith("rounded") and run != best)
        assert len(list(export.measure_merged(plan, store, tmp_path / "out", task))) == 1
        (text,) = [t for k, t in remarks_of(read_records(store)) if k == "quantization"]
        assert text == f"{other}: memory does not hold the unquantised base, to merge it into"
        assert unmerged(plan, store) == []
