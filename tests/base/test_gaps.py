"""Bases that are not whole, or not what their configuration seems to say."""

from dataclasses import replace

import pytest
import torch
import transformers
from torch import nn

from rankwise.adapters.adapter import resolve_adapter
from rankwise.adapters.peft_files import check_in_peft
from rankwise.base.load import absent_weights
from rankwise.base.modules import Gaps
from rankwise.base.skeleton import positions, skeleton, text_config, vocabulary, walk
from rankwise.errors import ModelError, SpecError
from rankwise.spec.models import ModelSpec
from skeletons import SIZES, TASKS, arm_of

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
         "num_attention_heads": 2, "vocab_size": 30, "max_position_embeddings": 20}  # fmt: skip
WIDTHS = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
          "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
          "vocab_size": 30, "max_position_embeddings": 20}  # fmt: skip
LEARNT = {
    "bert": SMALL,
    "roberta": SMALL,
    "xlm-roberta": SMALL,
    "camembert": SMALL,
    "mpnet": SMALL,
    "electra": SMALL,
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 30, "n_positions": 20},
    "opt": {**SMALL, "ffn_dim": 24, "word_embed_proj_dim": 16, "pad_token_id": 1},
    "bart": {**WIDTHS, "pad_token_id": 1, "eos_token_id": 2},
    "pegasus": {**WIDTHS, "pad_token_id": 0},
}


def empty(kind, task, **more):
    return skeleton(ModelSpec(config={"model_type": kind, **more}), task, 3)


@pytest.mark.parametrize("kind", LEARNT)
def test_a_row_as_long_as_the_positions_said_runs_and_one_token_more_does_not(kind):
    config = transformers.AutoConfig.for_model(kind, **LEARNT[kind])
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval()
    most = positions(model)
    assert most is not None
    more = {}
    for length, fits in ((most, True), (most + 1, False)):
        ids = torch.full((1, length), 5)
        if config.is_encoder_decoder:
            more = {"decoder_input_ids": ids[:, :3]}
        if fits:
            assert model(input_ids=ids, **more)[0].shape[1] > 0
        else:
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=ids, **more)


def test_a_model_without_positions_sets_no_bound():
    sizes = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24, "vocab_size": 30}
    config = transformers.XLNetConfig(**sizes, num_labels=3)
    with torch.device("meta"):
        assert positions(transformers.XLNetForSequenceClassification(config)) is None


def test_a_language_model_that_sees_what_it_should_predict_is_refused():
    sizes = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24, "vocab_size": 30}
    with pytest.raises(ModelError, match="sees the one that it should predict"):
        empty("xlnet", "CAUSAL_LM", **sizes)


@pytest.fixture(scope="module")
def gemma():
    text = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
            "max_position_embeddings": 64, "sliding_window": 16}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
    tokens = {"mm_tokens_per_image": 4, "image_token_index": 299, "boi_token_index": 297,
              "eoi_token_index": 298}  # fmt: skip
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, **tokens)
    with torch.device("meta"):
        return transformers.Gemma3ForConditionalGeneration(config)


def test_text_inside_a_multimodal_model_is_read_through_its_own_configuration(gemma):
    assert positions(gemma, walk(gemma)[0]) == 64
    assert positions(gemma) == 64
    assert text_config(gemma).vocab_size == vocabulary(gemma) == 300


@pytest.mark.parametrize("targets", ["all-linear", "attention", ["q_proj", "v_proj"]])
def test_no_adapter_goes_on_modules_that_rows_do_not_pass_through(gemma, targets):
    gaps = Gaps((), *walk(gemma))
    assert any("vision_tower" in name for name in gaps.unreached)
    arm = arm_of("CAUSAL_LM", name="one", **{"lora.target_modules": targets})
    with_all = resolve_adapter(gemma, arm, "CAUSAL_LM")
    adapter = resolve_adapter(gemma, arm, "CAUSAL_LM", gaps=gaps)
    assert set(with_all.modules) - set(adapter.modules) <= set(gaps.unreached)
    assert any("vision_tower" in name for name in with_all.modules)
    assert not any("vision_tower" in name for name in adapter.modules)
    check_in_peft(gemma, adapter, "CAUSAL_LM")


def test_targets_that_rows_never_reach_are_refused(gemma):
    arm = arm_of("CAUSAL_LM", name="one", **{"lora.target_modules": ".*vision_tower.*q_proj"})
    with pytest.raises(SpecError, match="rows of this study do not pass through them"):
        resolve_adapter(gemma, arm, "CAUSAL_LM", gaps=Gaps((), *walk(gemma)))


@pytest.mark.parametrize("kind", SIZES)
def test_every_linear_module_of_a_text_model_is_reached(kind):
    for task in TASKS[kind]:
        model = empty(kind, task, **SIZES[kind])
        linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        assert not linear & set(walk(model)[0])


def saved(folder, model):
    model.save_pretrained(folder)
    return ModelSpec(name=str(folder))


def deberta(**more):
    return transformers.DebertaV2Config(**SMALL, num_labels=3, **more)


def test_weights_that_a_checkpoint_lacks_are_those_that_transformers_draws(tmp_path):
    spec = saved(tmp_path, transformers.DebertaV2Model(deberta()))
    found = set(absent_weights(spec, "SEQ_CLS", 3, download=False))
    assert found == {f"{m}.{w}" for m in ("pooler.dense", "classifier") for w in ("weight", "bias")}


def test_what_a_checkpoint_lacks_is_trained_and_saved(tmp_path):
    spec = saved(tmp_path, transformers.DebertaV2Model(deberta()))
    model = skeleton(spec, "SEQ_CLS", 3)
    gaps = Gaps(absent_weights(spec, "SEQ_CLS", 3, download=False))
    for targets in (["query_proj"], "all-linear", ["dense"]):
        arm = arm_of("SEQ_CLS", name="one", **{"lora.target_modules": targets})
        adapter = resolve_adapter(model, arm, "SEQ_CLS", gaps=gaps)
        assert set(adapter.saved) == {"pooler.dense", "classifier"}
        assert "pooler.dense" not in adapter.modules
        check_in_peft(model, adapter, "SEQ_CLS")


def test_a_head_for_another_number_of_classes_is_a_fresh_one(tmp_path):
    config = transformers.BertConfig(**SMALL, num_labels=5)
    spec = saved(tmp_path, transformers.BertForSequenceClassification(config))
    assert absent_weights(spec, "SEQ_CLS", 5, download=False) == ()
    found = absent_weights(spec, "SEQ_CLS", 3, download=False)
    assert set(found) == {"classifier.weight", "classifier.bias"}


def test_a_head_of_another_name_and_another_number_of_classes_is_a_fresh_one_too(tmp_path):
    config = transformers.BartConfig(**LEARNT["bart"], num_labels=5)
    spec = saved(tmp_path, transformers.BartForSequenceClassification(config))
    found = set(absent_weights(spec, "SEQ_CLS", 3, download=False))
    assert found == {f"classification_head.out_proj.{leaf}" for leaf in ("weight", "bias")}


def test_a_checkpoint_that_does_not_fit_its_configuration_is_refused(tmp_path):
    spec = saved(tmp_path, transformers.BertModel(transformers.BertConfig(**SMALL)))
    wide = transformers.BertConfig(**{**SMALL, "intermediate_size": 40})
    wide.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"is of shape \(24,\).*asks for \(40,\)"):
        absent_weights(spec, "SEQ_CLS", 3, download=False)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    spec = saved(tmp_path, transformers.GPT2Model(transformers.GPT2Config(**LEARNT["gpt2"])))
    transformers.BertConfig(**SMALL).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="the checkpoint lacks"):
        absent_weights(spec, "SEQ_CLS", 3, download=False)


@pytest.mark.parametrize("targets", ["query", "attention-qkv", "attention", "mlp", "all-linear"])
@pytest.mark.parametrize(("kind", "task"), [(kind, task) for kind in SIZES for task in TASKS[kind]])
def test_what_a_preset_trains_is_what_peft_makes_trainable(kind, task, targets):
    model = empty(kind, task, **SIZES[kind])
    arm = arm_of(task, name="one", **{"lora.target_modules": targets, "lora.bias": "lora_only"})
    adapter = resolve_adapter(model, arm, task, gaps=Gaps((), *walk(model)))
    check_in_peft(model, adapter, task)


def test_an_adapter_that_peft_would_build_otherwise_is_refused():
    model = empty("llama", "CAUSAL_LM", **SIZES["llama"])
    arm = arm_of("CAUSAL_LM", name="one", **{"lora.target_modules": "attention"})
    adapter = resolve_adapter(model, arm, "CAUSAL_LM")
    fewer = dict(list(adapter.modules.items())[1:])
    with pytest.raises(SpecError, match="peft would train other weights"):
        check_in_peft(model, replace(adapter, modules=fewer), "CAUSAL_LM")
