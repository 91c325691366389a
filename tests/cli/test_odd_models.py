"""Odd models from the command line: right, or one message before anything is trained."""

import json

import pytest
import torch
import transformers

from black_box import classified, evaluated, make_study, random_base, rankwise, split_of
from tiny_text import rows_of, tiny_tokenizer

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 2, "max_position_embeddings": 64, "vocab_size": 300,
         "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
ONE = {"configurations": {"one": {}}}


def refused(study, *words):
    """The message of `plan`, which must be one line and exit 2; `run` must say the same."""
    code, out, err = rankwise("plan", study.spec)
    assert code == 2, out
    assert err.startswith("rankwise: ")
    assert "Traceback" not in err
    assert all(word in err for word in words), err
    assert rankwise("run", study.spec, "--out", study.out)[::2] == (2, err)


@pytest.fixture(scope="module")
def deberta(tmp_path_factory):
    """A classifier on a checkpoint without the weights of the pooler."""
    config = transformers.DebertaV2Config(
        **SMALL, relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"],
        initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(3)
    targets = {"target_modules": ["query_proj", "value_proj"]}
    folder = tmp_path_factory.mktemp("deberta")
    base = transformers.DebertaV2Model(config)
    found = make_study(folder, base=base, **ONE, lora=targets, check_export=True)
    return found.run()


def test_weights_that_the_checkpoint_lacks_come_with_the_adapter(deberta):
    """Two users draw the pooler from different seeds, and get the same number."""
    validation = classified(split_of(rows_of("labelled"))[1], ["fur", "scales", "wings"])
    stored = float(deberta.runs()["one", 0]["best_eval_loss"])
    for seed in (1, 2):
        torch.manual_seed(seed)
        kind = transformers.AutoModelForSequenceClassification
        base = kind.from_pretrained(deberta.model, num_labels=3)
        model = deberta.loaded("one", base=base)
        assert evaluated(model, "SEQ_CLS", validation) == pytest.approx(stored, abs=1e-5)
    assert any("no weights for" in note for note in deberta.plan()["data"]["notes"])
    assert deberta.plan()["arms"][0]["trained_in_full"] == ["pooler.dense", "classifier"]


@pytest.mark.parametrize(
    "targets", ["mlp", "all-linear", ["gate_proj", "up_proj", "down_proj"], ["down_proj"]]
)
def test_targets_for_which_peft_trains_experts_are_refused(tmp_path, targets):
    config = transformers.DeepseekV3Config(
        **{**SMALL, "num_key_value_heads": 2}, moe_intermediate_size=16, n_shared_experts=1,
        n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, kv_lora_rank=8,
        q_lora_rank=8, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8,
        first_k_dense_replace=1,
    )  # fmt: skip
    study = make_study(
        tmp_path, "llama", "pairs", {"one": {"lora.target_modules": targets}},
        base=transformers.DeepseekV3ForCausalLM(config),
    )  # fmt: skip
    refused(study, "lora.target_modules", "experts of the mixture")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            {"lora.rank_pattern": {"k_proj": 2}},
            ("k_proj", "none of the targeted", "q_proj, v_proj"),
        ),
        ({"lora.alpha_pattern": {"layers.0.mlp.up_proj": 2}}, ("none of the targeted",)),
        ({"lora.rank_pattern": {"q_proj": 2, "self_attn.q_proj": 8}}, ("before it",)),
        ({"lora.exclude_modules": ["lm_head"]}, ("lm_head", "none of the targeted")),
    ],
)
def test_a_setting_without_effect_on_the_targets_is_refused(tmp_path, setting, words):
    lora = {"target_modules": ["q_proj", "v_proj"]}
    refused(make_study(tmp_path, "llama", "text", {"one": setting}, lora=lora), *words)


def test_a_translator_between_languages_is_refused(tmp_path):
    config = transformers.M2M100Config(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, vocab_size=300,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, pad_token_id=0,
    )  # fmt: skip
    base = transformers.M2M100ForConditionalGeneration(config)
    refused(make_study(tmp_path, "t5", "translation", base=base, **ONE), "m2m_100", "not supported")


def test_a_head_of_another_size_is_replaced_by_a_fresh_one(tmp_path):
    base = random_base("bert", num_labels=5)
    study = make_study(tmp_path, base=base, **ONE, check_export=True).run()
    assert any("no weights for classifier" in note for note in study.plan()["data"]["notes"])
    (run,) = study.runs().values()
    assert run["state"] == "done"


def test_rows_longer_than_the_positions_that_can_be_used_are_refused(tmp_path):
    """Positions of the RoBERTa family begin after the padding token's id."""
    config = transformers.RobertaConfig(**{**SMALL, "max_position_embeddings": 34}, num_labels=3)
    config.pad_token_id = 1
    base = transformers.RobertaForSequenceClassification(config)
    data = {"data": {"max_length": 33}}
    refused(make_study(tmp_path, base=base, **ONE, **data), "33 tokens exceed the 32 positions")


def test_tokens_without_an_embedding_are_refused_with_both_numbers(tmp_path):
    study = make_study(tmp_path, "llama", "text", **ONE)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["where is"])
    tokenizer.save_pretrained(study.model)
    refused(study, "model.tokenizer", "301 tokens", "embeddings for 300", "number 300")


def test_tokens_without_an_embedding_that_no_row_holds_do_no_harm(tmp_path):
    study = make_study(tmp_path, "llama", "text", **ONE)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<never>"])
    tokenizer.save_pretrained(study.model)
    assert study.plan()["runs"] == 1


def test_an_attention_kernel_that_the_model_lacks_is_refused(tmp_path):
    study = make_study(tmp_path, "gpt2", "text", **ONE)
    config = transformers.GPTJConfig(
        n_embd=32, n_layer=1, n_head=2, rotary_dim=8, vocab_size=300, n_positions=64
    )
    transformers.GPTJForCausalLM(config).save_pretrained(study.model)
    text = study.spec.read_text().replace("eager", "sdpa").replace("c_attn", "q_proj")
    study.spec.write_text(text.replace("c_fc", "v_proj"))
    refused(study, "model.attn_implementation", "no sdpa")


def test_a_checkpoint_pads_with_its_own_token_whatever_the_tokenizer_says(tmp_path):
    """GPT classifiers look for the padding token of their configuration in the rows."""
    config = transformers.OPTConfig(
        hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=2, vocab_size=300,
        max_position_embeddings=64, word_embed_proj_dim=32, pad_token_id=1, num_labels=3,
        init_std=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    base = transformers.OPTForSequenceClassification(config)
    study = make_study(tmp_path, base=base, **ONE, lora={"target_modules": ["q_proj", "fc1"]}).run()
    validation = classified(split_of(rows_of("labelled"))[1], ["fur", "scales", "wings"])
    stored = float(study.runs()["one", 0]["best_eval_loss"])
    assert evaluated(study.loaded("one"), "SEQ_CLS", validation) == pytest.approx(stored, abs=1e-5)


def test_rows_that_end_with_the_padding_token_are_refused_for_a_classifier(tmp_path):
    config = transformers.GPT2Config(
        n_embd=32, n_layer=1, n_head=2, vocab_size=300, n_positions=64, num_labels=3
    )
    study = make_study(
        tmp_path, base=transformers.GPT2ForSequenceClassification(config), **ONE,
        lora={"target_modules": ["c_attn"]},
    )  # fmt: skip
    tiny_tokenizer(ends=True).save_pretrained(study.model)
    names = json.loads((study.model / "tokenizer_config.json").read_text())
    names["pad_token"] = "</s>"
    (study.model / "tokenizer_config.json").write_text(json.dumps(names))
    refused(study, "the token that they are padded with")


def test_another_base_or_other_data_in_an_old_folder_is_the_users_mistake(tmp_path):
    """One message and exit code 2; what is there stays."""
    study = make_study(tmp_path, **ONE).run()
    before = study.runs()
    random_base("bert", seed=1).save_pretrained(study.model)
    again = study.spec.read_text().replace("seeds:\n- 0", "seeds:\n- 0\n- 1")
    study.spec.write_text(again if again != study.spec.read_text() else f"{again}seeds: [0, 1]\n")
    code, _, err = rankwise("run", study.spec, "--out", study.out)
    assert (code, err.count("rankwise: ")) == (2, 1)
    assert "model.safetensors has another content" in err
    random_base("bert").save_pretrained(study.model)
    rows = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(rows.replace("mat", "roof"))
    code, _, err = rankwise("run", study.spec, "--out", study.out)
    assert (code, err.count("rankwise: ")) == (2, 1)
    assert study.runs() == before


def test_noise_on_embeddings_that_the_model_does_not_look_up_is_refused(tmp_path):
    config = transformers.CanineConfig(**SMALL, num_hash_buckets=64, local_transformer_stride=16)
    study = make_study(
        tmp_path, configurations={"one": {"training.neftune_noise_alpha": 5}},
        base=transformers.CanineModel(config),
    )  # fmt: skip
    refused(study, "training.neftune_noise_alpha: canine models do not look up", "remove it")
