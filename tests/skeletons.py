"""Tiny models of many architectures, made from configurations, with peft's view of each."""

import copy
import warnings

from peft import LoraConfig, get_peft_model

from rankwise.adapters.peft_files import peft_settings
from rankwise.base.skeleton import skeleton
from rankwise.spec.arms import make_arms
from rankwise.spec.models import ModelSpec, StudySpec

SIZES = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
    "llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
              "num_attention_heads": 2, "num_key_value_heads": 1},
    "gpt_neox": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
                 "num_attention_heads": 2},
    "bert": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
             "num_attention_heads": 2},
    "distilbert": {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    "deberta-v2": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
                   "num_attention_heads": 2},
    "roberta": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
                "num_attention_heads": 2},
}  # fmt: skip
TASKS = {
    "gpt2": ("CAUSAL_LM", "SEQ_CLS"),
    "llama": ("CAUSAL_LM", "SEQ_CLS"),
    "gpt_neox": ("CAUSAL_LM",),
    "bert": ("SEQ_CLS",),
    "distilbert": ("SEQ_CLS",),
    "t5": ("SEQ_2_SEQ_LM",),
    "deberta-v2": ("SEQ_CLS",),
    "roberta": ("SEQ_CLS",),
}
COLUMNS = {
    "CAUSAL_LM": {"text": "text"},
    "SEQ_CLS": {"text": "text", "label": "label"},
    "SEQ_2_SEQ_LM": {"input": "input", "target": "target"},
}
PAIRS = [(kind, task) for kind, tasks in TASKS.items() for task in tasks]


def tiny(kind, task, **settings):
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = {"model_type": kind, "vocab_size": 50, **SIZES[kind], **ends, **settings}
    return skeleton(ModelSpec(config=config), task, 3 if task == "SEQ_CLS" else None)


def with_peft(model, task_type, **settings):
    """peft's own model over a copy; the original is not touched."""
    if model.config.model_type == "gpt2":
        settings["fan_in_fan_out"] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of what it mends itself
        return get_peft_model(copy.deepcopy(model), LoraConfig(task_type=task_type, **settings))


def arm_of(task, **changes):
    spec = {
        "study": "s",
        "model": {"name": "m"},
        "task": task,
        "data": {"source": "x", **COLUMNS[task]},
        "lora": {"target_modules": "all-linear"},
        "arms": [changes or {"name": "plain"}],
    }
    (arm,) = make_arms(StudySpec.model_validate(spec))
    return arm


def peft_like(model, task, adapter):
    """peft's model from nothing but what an adapter's file would say."""
    return with_peft(model, **peft_settings(adapter, task))


def counts(model):
    """(trainable, total) parameters, each counted once."""
    parameters = list(model.parameters())
    return (
        sum(p.numel() for p in parameters if p.requires_grad),
        sum(p.numel() for p in parameters),
    )
