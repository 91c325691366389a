"""Tiny random checkpoints of the families that transformers offers, and tokenizers for them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from tiny import CLASSES
from tiny_text import CHAT, SPECIAL, tiny_tokenizer

VOCABULARY = 300  # of the tokenizers
POSITIONS = 64
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
STATED = {"max_position_embeddings": POSITIONS}
PLAIN = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    **STATED,
}
GROUPED = {**PLAIN, "num_key_value_heads": 1}
WIDE = {**GROUPED, "head_dim": 8}
SLIDING = {**WIDE, "query_pre_attn_scalar": 8, "sliding_window": 16}
GPT = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": POSITIONS}
SMALL = {**PLAIN, "embedding_size": 8}
OFFSET = {**PLAIN, "pad_token_id": 1, "bos_token_id": 0}  # positions are counted from pad + 1
XLM = {"emb_dim": 16, "n_layers": 2, "n_heads": 2, **STATED}
XLNET = {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24}
BART_SIZES = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "decoder_start_token_id": 2,
}
BART = {**BART_SIZES, **STATED}
T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SHARED = {**EXPERTS, "shared_expert_intermediate_size": 24}
LATENT = {
    **PLAIN,
    "num_key_value_heads": 2,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
}


def _of(settings: dict[str, Any], *kinds: str) -> dict[str, dict[str, Any]]:
    return dict.fromkeys(kinds, settings)


DECODERS: dict[str, dict[str, Any]] = {
    **_of(GPT, "gpt2", "gpt_bigcode", "openai-gpt"),
    "gpt_neo": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        **STATED,
    },
    "gptj": {**GPT, "rotary_dim": 4},
    "ctrl": {**GPT, "dff": 24},
    "opt": {
        "hidden_size": 16,
        "ffn_dim": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 16,
        **STATED,
    },
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "falcon": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    "mpt": {"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": POSITIONS},
    **_of(PLAIN, "gpt_neox", "phi", "biogpt", "persimmon"),
    **_of(GROUPED, "phi3", "stablelm", "starcoder2", "smollm3"),
    **_of(WIDE, "llama", "mistral", "qwen2", "qwen3", "gemma", "nemotron"),
    **_of(SLIDING, "gemma2", "gemma3_text"),
    "gemma3": {
        "text_config": {**SLIDING, **IDS},
        "vision_config": {**PLAIN, "image_size": 28, "patch_size": 14},
        "mm_tokens_per_image": 4,
        "image_token_index": 299,
        "boi_token_index": 297,
        "eoi_token_index": 298,
    },
    "glm": {**WIDE, "partial_rotary_factor": 0.5},
    "mixtral": {**WIDE, "num_local_experts": 4},
    "qwen2_moe": {**WIDE, **SHARED},
}
CAUSAL: dict[str, dict[str, Any]] = {
    **DECODERS,
    "codegen": {**GPT, "n_embd": 32, "n_head": 4, "rotary_dim": 4},
    "glm4": DECODERS["glm"],
    **_of(GROUPED, "olmo", "olmo2", "cohere", "granite"),
    "olmoe": {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": {**GROUPED, "num_local_experts": 4},
    "qwen3_moe": {**WIDE, **EXPERTS},
    "gpt_oss": {**WIDE, "num_local_experts": 4, "sliding_window": 16},
    **_of(LATENT, "deepseek_v2", "deepseek_v3"),
    "xglm": {"d_model": 16, "ffn_dim": 24, "num_layers": 2, "attention_heads": 2, **STATED},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    "mamba2": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "state_size": 4,
        "num_heads": 4,
        "head_dim": 8,
        "n_groups": 1,
        "chunk_size": 16,
    },
    "rwkv": {"hidden_size": 16, "attention_hidden_size": 16, "num_hidden_layers": 2},
    "recurrent_gemma": {
        **GROUPED,
        "lru_width": 16,
        "attention_window_size": 16,
        "block_types": ["recurrent", "attention"],
    },
    "lfm2": {**GROUPED, "layer_types": ["conv", "full_attention"]},
    "qwen3_next": {
        **WIDE,
        **SHARED,
        "linear_num_value_heads": 2,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "bert": {**PLAIN, "is_decoder": True},
    "roberta": {**OFFSET, "is_decoder": True},
    "bart": BART,
    "xlnet": XLNET,
}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    **DECODERS,
    **_of(PLAIN, "bert", "layoutlm", "megatron-bert", "ernie", "eurobert"),
    **_of(OFFSET, "roberta", "xlm-roberta", "camembert", "mpnet", "ibert", "data2vec-text"),
    **_of(SMALL, "albert", "electra"),
    **_of(XLM, "xlm", "flaubert"),
    **_of(BART, "bart", "mbart"),
    **_of(T5, "t5", "umt5"),
    "xlnet": XLNET,
    "distilbert": {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2, **STATED},
    "deberta": {**PLAIN, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "deberta-v2": {
        **PLAIN,
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
    },
    "funnel": {
        "d_model": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 24,
        "block_sizes": [1, 1],
        "num_decoder_layers": 1,
    },
    "squeezebert": {
        **PLAIN,
        "embedding_size": 16,
        **{f"{name}_groups": 1 for name in ("q", "k", "v", "post_attention", "intermediate")},
    },
    "convbert": {**SMALL, "head_ratio": 1, "conv_kernel_size": 3},
    "modernbert": {**PLAIN, "local_attention": 16, "cls_token_id": 1, "sep_token_id": 2},
    "longformer": {**OFFSET, "attention_window": 8},
    "big_bird": {**PLAIN, "attention_type": "original_full"},
    "nystromformer": {**PLAIN, "num_landmarks": 8, "segment_means_seq_len": POSITIONS},
    "roformer": {**PLAIN, "embedding_size": 16},
    "mobilebert": {
        **PLAIN,
        "embedding_size": 16,
        "intra_bottleneck_size": 16,
        "true_hidden_size": 16,
        "num_feedforward_networks": 1,
    },
    "fnet": {**PLAIN, "tpu_short_seq_length": POSITIONS},
    "rembert": {**PLAIN, "input_embedding_size": 8, "output_embedding_size": 8},
    "esm": {**OFFSET, "position_embedding_type": "absolute"},
    "xmod": {**OFFSET, "languages": ["en_XX"], "default_language": "en_XX"},
    "canine": {**PLAIN, "num_hash_buckets": 64, "local_transformer_stride": 16},
    "reformer": {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "attention_head_size": 8,
        "feed_forward_size": 24,
        "attn_layers": ["local", "local"],
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [8, 8],
        "is_decoder": False,
        **STATED,
    },
}
SEQ_2_SEQ: dict[str, dict[str, Any]] = {
    **_of(T5, "t5", "mt5", "umt5"),
    **_of(BART, "bart", "mbart", "mvp", "plbart", "pegasus", "m2m_100"),
    **_of({**BART, "decoder_start_token_id": 1}, "blenderbot", "blenderbot-small"),
    "longt5": {**T5, "local_radius": 8, "encoder_attention_type": "local"},
    "switch_transformers": {
        **T5,
        "num_decoder_layers": 2,
        "num_experts": 4,
        "expert_capacity": 8,
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
    },
    "pegasus_x": {**BART, "block_size": 8, "num_global_tokens": 4},
    "bigbird_pegasus": {**BART, "attention_type": "original_full"},
    "marian": {**BART, "decoder_start_token_id": 0},
    "nllb-moe": {**BART, "num_experts": 4, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
    "led": {
        **BART_SIZES,
        "max_encoder_position_embeddings": POSITIONS,
        "max_decoder_position_embeddings": POSITIONS,
        "attention_window": 8,
    },
    "prophetnet": {
        "hidden_size": 16,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "num_encoder_attention_heads": 2,
        "num_decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "decoder_start_token_id": 0,
        **STATED,
    },
    "fsmt": {**BART, "langs": ["en", "de"]},
}
FAMILIES = {"CAUSAL_LM": CAUSAL, "SEQ_CLS": CLASSIFIERS, "SEQ_2_SEQ_LM": SEQ_2_SEQ}
VOCABULARIES = {"marian": ("decoder_vocab_size",), "fsmt": ("src_vocab_size", "tgt_vocab_size")}


@dataclass(frozen=True)
class Checkpoint:
    """A random model and what of it is saved.

    Attributes:
        saved: whole; bare: without its head; masked: as the encoder of a masked language model
            leaves it, without head and pooler.
        vocabulary: Rows of the embedding.
        tied: Whether the output layer is the embedding; None: as the family has it.
        classes: Names of the classes of its head.
        pads: Whether its configuration names a padding token, as far as the family lets it not.
    """

    task: str
    kind: str
    saved: str = "whole"
    vocabulary: int = VOCABULARY
    tied: bool | None = None
    classes: tuple[str, ...] = ()
    pads: bool = True


SAVED = {"bare": transformers.AutoModel, "masked": transformers.AutoModelForMaskedLM}


def save_checkpoint(one: Checkpoint, folder: Path) -> None:
    """Write a random model whose weights are so large that what is trained shows in the loss."""
    config = transformers.AutoConfig.for_model(one.kind, **_settings(one))
    config.architectures = []  # Funnel asks for it
    kind = SAVED.get(one.saved, CLASSES[one.task])
    torch.manual_seed(0)
    model = kind.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2 and not name.endswith("A_log"):
                weight.normal_(0, 0.3)
            elif name.endswith("bias") and "dt_proj" not in name:
                weight.normal_(0, 0.1)
    model.tie_weights()
    model.save_pretrained(folder)


def _settings(one: Checkpoint) -> dict[str, Any]:
    made = {**IDS, "vocab_size": one.vocabulary, **FAMILIES[one.task][one.kind]}
    made |= dict.fromkeys(VOCABULARIES.get(one.kind, ()), one.vocabulary)
    if "text_config" in made:
        made["text_config"] = {**made["text_config"], "vocab_size": one.vocabulary}
    if not one.pads and one.kind in CAUSAL and made["pad_token_id"] == 0:
        made["pad_token_id"] = None
    if one.tied is not None:
        made["tie_word_embeddings"] = one.tied
    if one.classes:
        made["id2label"] = dict(enumerate(one.classes))
        made["label2id"] = {name: number for number, name in enumerate(one.classes)}
    return made


@dataclass(frozen=True)
class Marks:
    """What a tokenizer has beside its text: special tokens, a template, marks around a text."""

    pad: bool = True
    eos: bool = True
    bos: bool = False
    template: bool = True
    begins: bool = False
    ends: bool = False
    swapped: bool = False  # <s> is 0 and <pad> is 1, as in the RoBERTa family


@cache
def make_tokenizer(marks: Marks) -> PreTrainedTokenizerFast:
    """Byte-level BPE of `VOCABULARY` tokens."""
    special = ["<s>", "<pad>", *SPECIAL[2:]] if marks.swapped else SPECIAL
    inner = tiny_tokenizer(special=special).backend_tokenizer
    around = f"{'<s> ' * marks.begins}$A{' </s>' * marks.ends}"
    if marks.begins or marks.ends:
        tokens = [(token, special.index(token)) for token in ("<s>", "</s>")]
        inner.post_processor = processors.TemplateProcessing(single=around, special_tokens=tokens)
    named = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"}
    has = {"pad_token": marks.pad, "eos_token": marks.eos, "bos_token": marks.bos}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        chat_template=CHAT if marks.template else None,
        **{name: token for name, token in named.items() if has[name]},
    )
