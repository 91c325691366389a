"""The recommended arm to take away: a spec for rankwise, snippets for peft and two trainers."""

import copy
from collections.abc import Mapping
from typing import Any

import yaml

from rankwise.results.judge import Choice
from rankwise.results.records import Records

SCHEDULES = {  # Axolotl knows the schedules of transformers, under these names
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant_with_warmup",
}


LOOK = (
    "# Not a recommendation: nothing is known of the noise in this study. This is the arm that\n"
    "# looks best; run it and its rivals with more seeds before relying on it.\n"
)


def recommended_yaml(records: Records, choice: Choice) -> str:
    """The recommended arm's spec as a file; a comment on top where it merely looks best.

    Raises:
        ValueError: there is no such arm.
    """
    if choice.arm is None:
        raise ValueError("no arm to recommend")
    text = as_yaml(recommended_spec(records, choice.arm))
    return LOOK + text if choice.basis == "look" else text


def recommended_spec(records: Records, arm: str) -> dict[str, Any]:
    """The study's spec with this arm alone: no grid, no list, its settings in their sections."""
    spec: dict[str, Any] = copy.deepcopy(records.study["spec"])
    spec["grid"], spec["configs"] = {}, []
    for name, value in records.arm(arm).settings.items():
        *sections, leaf = name.split(".")
        here = spec
        for section in sections:
            here = here.setdefault(section, {})
        here[leaf] = value
    spec["study"] = f"{spec.get('study', 'study')}-recommended"
    return _without_empty(spec)


def _without_empty(section: dict[str, Any]) -> dict[str, Any]:
    """A section without fields that are not given; what a user wrote as `config` stays whole."""
    found = {
        name: _without_empty(value) if isinstance(value, dict) and name != "config" else value
        for name, value in section.items()
    }
    return {name: value for name, value in found.items() if value not in (None, {}, [])}


def as_yaml(tree: Mapping[str, Any]) -> str:
    """YAML in the given order; numbers such as 1e-4 in a spelling that YAML reads as a number."""
    text: str = yaml.safe_dump(_plain(tree), sort_keys=False, allow_unicode=True, width=100)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value


def peft_snippet(records: Records, arm: str) -> str | None:
    """Python that makes the arm's peft.LoraConfig; None for full fine-tuning."""
    settings = records.arm(arm).settings
    if settings.get("method", "lora") != "lora":
        return None
    fields = {"task_type": records.study.get("spec", {}).get("task")}
    fields |= {
        name.removeprefix("lora."): value
        for name, value in settings.items()
        if name.startswith("lora.") and value not in (None, {}, [])
    }
    if records.arm(arm).ranks:
        fields["rank_pattern"] = records.arm(arm).ranks
    lines = [f"    {name}={value!r}," for name, value in fields.items() if value is not None]
    return "\n".join(["from peft import LoraConfig", "", "config = LoraConfig(", *lines, ")"])


def llama_factory_snippet(records: Records, arm: str) -> str | None:
    """A LLaMA-Factory training file; None for a task that it does not train."""
    spec, settings = records.study.get("spec", {}), records.arm(arm).settings
    if spec.get("task") != "CAUSAL_LM" or settings.get("ranks.strategy", "uniform") != "uniform":
        return None
    full = settings.get("method") == "full"
    tree: dict[str, Any] = {
        "model_name_or_path": _model(records),
        "stage": "pt" if spec.get("data", {}).get("text") else "sft",
        "do_train": True,
        "finetuning_type": "full" if full else "lora",
    }
    if not full:
        targets = settings.get("lora.target_modules")
        tree |= {
            "lora_rank": settings.get("lora.r"),
            "lora_alpha": settings.get("lora.lora_alpha"),
            "lora_dropout": settings.get("lora.lora_dropout"),
            "lora_target": _joined(targets, all_linear="all"),
            "additional_target": _joined(settings.get("lora.modules_to_save"), "all"),
            "use_rslora": settings.get("lora.use_rslora") or None,
            "use_dora": settings.get("lora.use_dora") or None,
            "loraplus_lr_ratio": settings.get("training.loraplus_lr_ratio"),
        }
        if settings.get("model.quantization", "none") != "none":
            tree["quantization_bit"] = 4 if settings["model.quantization"] == "nf4" else 8
            tree["quantization_method"] = "bnb"
    tree |= _trainer(settings) | {
        "lr_scheduler_type": settings.get("training.lr_scheduler_type"),
        "cutoff_len": spec.get("data", {}).get("max_length"),
        "max_samples": settings.get("data.max_samples"),
        "dataset": "YOUR_DATASET",
        "output_dir": f"out/{arm}",
    }
    return as_yaml({name: value for name, value in tree.items() if value is not None})


def axolotl_snippet(records: Records, arm: str) -> str | None:
    """An Axolotl configuration; None for a task or schedule that it does not know."""
    spec, settings = records.study.get("spec", {}), records.arm(arm).settings
    schedule = settings.get("training.lr_scheduler_type", "linear")
    uniform = settings.get("ranks.strategy", "uniform") == "uniform"
    if spec.get("task") != "CAUSAL_LM" or schedule not in SCHEDULES or not uniform:
        return None
    quantized = settings.get("model.quantization", "none")
    tree: dict[str, Any] = {"base_model": _model(records)}
    if settings.get("method") != "full":
        targets = settings.get("lora.target_modules")
        everywhere = targets == "all-linear"
        tree |= {
            "adapter": "qlora" if quantized == "nf4" else "lora",
            "load_in_4bit": quantized == "nf4" or None,
            "load_in_8bit": quantized == "int8" or None,
            "lora_r": settings.get("lora.r"),
            "lora_alpha": settings.get("lora.lora_alpha"),
            "lora_dropout": settings.get("lora.lora_dropout"),
            "lora_target_linear": everywhere or None,
            "lora_target_modules": None if everywhere else targets,
            "lora_modules_to_save": settings.get("lora.modules_to_save") or None,
            "peft_use_rslora": settings.get("lora.use_rslora") or None,
            "peft_use_dora": settings.get("lora.use_dora") or None,
            "loraplus_lr_ratio": settings.get("training.loraplus_lr_ratio"),
        }
    tree |= _trainer(settings)
    tree["micro_batch_size"] = tree.pop("per_device_train_batch_size", None)
    tree["num_epochs"] = tree.pop("num_train_epochs", None)
    tree |= {
        "optimizer": "adamw_torch",
        "lr_scheduler": SCHEDULES[schedule],
        "sequence_len": spec.get("data", {}).get("max_length"),
        "datasets": [{"path": "YOUR_DATASET", "type": _axolotl_type(spec)}],
        "output_dir": f"out/{arm}",
    }
    return as_yaml({name: value for name, value in tree.items() if value is not None})


def _axolotl_type(spec: Mapping[str, Any]) -> str:
    data = spec.get("data", {})
    if data.get("messages"):
        return "chat_template"
    return "completion" if data.get("text") else "alpaca"


def _trainer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The training settings that transformers and both trainers name alike, where not zero."""
    names = (
        "learning_rate",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "max_steps",
        "num_train_epochs",
        "warmup_steps",
        "warmup_ratio",
        "weight_decay",
        "max_grad_norm",
    )
    return {n: settings[f"training.{n}"] for n in names if settings.get(f"training.{n}")}


def _model(records: Records) -> str:
    spec, model = records.study.get("spec", {}), records.study.get("model", {})
    name = str(spec.get("model", {}).get("name") or model.get("name") or "YOUR_MODEL")
    return "YOUR_MODEL" if "://" in name else name  # only rankwise reads pkg://


def _joined(targets: Any, all_linear: str) -> str | None:
    if not targets:
        return None
    if targets == "all-linear":
        return all_linear
    return targets if isinstance(targets, str) else ",".join(targets)
