"""Short readable names for arms: labels of the settings that vary, as in r24_a64_d10_linear."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

MAX_LENGTH = 60
SHORT = {
    "lora.r": "r",
    "lora.lora_alpha": "a",
    "training.learning_rate": "lr",
    "training.max_steps": "s",
    "training.num_train_epochs": "e",
    "training.per_device_train_batch_size": "b",
    "training.gradient_accumulation_steps": "acc",
    "training.warmup_steps": "w",
    "training.warmup_ratio": "w",
    "training.weight_decay": "wd",
    "training.max_grad_norm": "clip",
    "training.loraplus_lr_ratio": "plus",
    "training.early_stopping_patience": "patience",
    "lora.exclude_modules": "not-",
    "lora.layers_to_transform": "layers",
    "lora.bias": "bias-",
    "lora.modules_to_save": "saves-",
    "ranks.budget": "budget",
    "ranks.ratio": "ratio",
    "generation.max_new_tokens": "new",
    "generation.temperature": "t",
    "generation.num_beams": "beams",
    "data.max_samples": "n",
    "data.augment.factor": "aug",
}
WORDS = {
    "cosine_with_restarts": "restarts",
    "constant_with_warmup": "warmup",
    "warmup_stable_decay": "wsd",
    "linear_decay": "decay",
    "attention_heavy": "attention",
    "all-linear": "all",
}
BARE = (  # settings whose value is clear without the name of the setting
    "method",
    "model.quantization",
    "lora.target_modules",
    "training.lr_scheduler_type",
    "ranks.strategy",
)
FIRST = ("method", "lora.r", "lora.lora_alpha", "lora.lora_dropout", "lora.target_modules")


def arm_names(settings: Sequence[Mapping[str, Any]], given: Sequence[str]) -> list[str]:
    """Names for arms: the given one, else labels of what varies in the study.

    Args:
        settings: dotted name -> value of each arm.
        given: explicit name of each arm, or "".
    """
    keys = list(dict.fromkeys(key for one in settings for key in one))
    # A setting that some arms lack (ranks.ratio without a strategy) varies only among the others.
    varying = [
        key for key in keys if len({json.dumps(one[key]) for one in settings if key in one}) > 1
    ] or [key for key in ("method", "lora.r", "lora.lora_alpha") if key in keys]
    if "lora.r" in varying and _alpha_follows(settings):
        varying.remove("lora.lora_alpha")
    varying.sort(key=_place)
    names = [name or _name(one, varying) for one, name in zip(settings, given, strict=True)]
    return [
        name if explicit or names.count(name) == 1 else f"{name}_{_tag(one)}"
        for one, name, explicit in zip(settings, names, given, strict=True)
    ]


def _place(key: str) -> int:
    """Where a setting's label stands: the adapter first, then the training, the data last."""
    if key in FIRST:
        return FIRST.index(key)
    return len(FIRST) + key.startswith("data.")


def _alpha_follows(settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether alpha varies as one multiple of r, so that a name need not tell it."""
    pairs = [(one["lora.lora_alpha"], one["lora.r"]) for one in settings if "lora.r" in one]
    if any(isinstance(alpha, str) for alpha, _ in pairs) or len({a for a, _ in pairs}) < 2:
        return False
    return len({alpha / r for alpha, r in pairs}) == 1


def _name(settings: Mapping[str, Any], varying: Sequence[str]) -> str:
    labels = [_label(key, settings[key]) for key in varying if key in settings]
    if settings["method"] == "full" and "method" not in varying:
        labels.insert(0, "full")
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", "_".join(filter(None, labels))).strip("-._+")
    if len(name) > MAX_LENGTH:
        name = f"{name[:MAX_LENGTH]}_{_tag(settings)}"
    return name or "plain"


def _tag(settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:4]


def _label(key: str, value: Any) -> str:
    """One setting as a label; nothing for false, none, empty and plain LoRA."""
    leaf = key.rpartition(".")[2].replace("_", "-")
    if key == "lora.lora_dropout":
        return "d" + f"{value:.2f}"[2:] if round(value, 2) == value else f"d{100 * value:g}"
    if value in (None, False, "") or value == [] or value == {}:
        return ""
    if value is True:
        return leaf.removeprefix("use-")
    if key in BARE:
        return "" if value in ("lora", "none") else _text(value)
    if key == "data.augment.factor":
        return f"aug{value}x" if value > 1 else "original"
    if key in SHORT:
        return SHORT[key] + _text(value)
    return f"{leaf}{'' if isinstance(value, int | float) else '-'}{_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        plain, scientific = f"{value:g}", re.sub(r"e([-+]?)0*", r"e\1", f"{value:e}")
        scientific = re.sub(r"\.?0*e", "e", scientific).replace("e+", "e")
        return plain if 0.01 <= value < 1e5 or value == 0 else scientific
    if isinstance(value, list):
        return "+".join(_text(item) for item in value)
    if isinstance(value, dict):
        return _tag(value)
    return WORDS.get(str(value), str(value))
