"""What identifies a configuration, and what it is called: its effective settings in one spelling,
their hash, and a short readable name.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rankwise.files import bad_folder_name
from rankwise.spec.errors import arm_settings
from rankwise.spec.models import AugmentSpec, StudySpec, alpha_of

SORTED = ("lora.target_modules", "lora.exclude_modules", "lora.modules_to_save")
# Settings that came later: with these values a configuration is the one that it was without them.
LATER = {
    "training.optim": "adamw_torch",
    "training.label_smoothing_factor": 0.0,
    "training.neftune_noise_alpha": None,
}
ADDED = {"format": "auto", "train_on": "completions"}  # the same of settings of data
ADAM = ("training.adam_beta1", "training.adam_beta2", "training.adam_epsilon")
NO_MEANING = ("training.per_device_eval_batch_size",)  # evaluation is the same in any batches


def effective_settings(spec: StudySpec) -> dict[str, Any]:
    """Everything that identifies a configuration, in one spelling, without what has no effect."""
    plain = spec.model_dump(mode="json", warnings=False)
    settings: dict[str, Any] = {}
    for name, _ in arm_settings():
        value: Any = plain
        for part in name.split("."):
            value = value[part]
        if name not in NO_MEANING:
            settings[name] = value
    for idle in _idle(spec):
        for name in [n for n in settings if n == idle or n.startswith(f"{idle}.")]:
            del settings[name]
    for name in SORTED:
        if isinstance(settings.get(name), list):
            settings[name] = sorted(set(settings[name]))
    layers = settings.get("lora.layers_to_transform")
    if layers is not None:
        settings["lora.layers_to_transform"] = sorted(
            {layers} if isinstance(layers, int) else layers
        )
    if "lora.lora_alpha" in settings:
        settings["lora.lora_alpha"] = _alpha(spec)
    return settings


def _alpha(spec: StudySpec) -> float | str:
    """Alpha in one spelling: a number where all modules have the same rank, else the rule."""
    rule = spec.lora.lora_alpha
    one_rank = spec.ranks.strategy == "uniform" and spec.ranks.budget is None
    if one_rank and not spec.lora.rank_pattern:
        return alpha_of(rule, spec.lora.r)
    if isinstance(rule, str) and rule.endswith("r"):
        return f"{alpha_of(rule, 1):g}r"
    return rule if rule == "sqrt" else alpha_of(rule, 1)


def _idle(spec: StudySpec) -> Iterator[str]:
    """Settings (or sections) without effect in this configuration, given its other settings."""
    training, ranks, augment, asked = spec.training, spec.ranks, spec.data.augment, spec.generation
    if spec.method == "full":
        yield from ("lora", "ranks", "training.loraplus_lr_ratio")
    if training.optim != "adamw_torch":
        yield from ADAM
    if training.max_steps is not None:
        yield "training.num_train_epochs"
    if training.early_stopping_patience is None:
        yield "training.early_stopping_threshold"
    if ranks.strategy != "linear_decay":
        yield "ranks.direction"
    if ranks.strategy not in ("linear_decay", "attention_heavy"):
        yield "ranks.ratio"
    if ranks.strategy != "empirical":
        yield "ranks.batches"
    if ranks.strategy != "custom":
        yield "ranks.custom"
    if augment.factor == 1:
        yield from (f"data.augment.{n}" for n in AugmentSpec.model_fields if n != "factor")
    elif augment.template is not None or augment.function is not None:
        yield from ("data.augment.operations", "data.augment.share")
    if not asked.prompts and not asked.prompts_from_validation:
        yield "generation"
    elif not asked.do_sample:
        yield from ("generation.temperature", "generation.top_p", "generation.seed")


def why_idle(spec: StudySpec, key: str) -> str:
    """Why a setting has no effect in a configuration, with the remedy where there is one."""
    if spec.method == "full" and key.startswith(("lora.", "ranks.", "training.loraplus")):
        return "its method is full; list full fine-tuning under `configs`, outside the grid"
    if key in ADAM:
        return f"training.optim is {spec.training.optim}"
    if key == "training.num_train_epochs":
        return "training.max_steps is given; set training.max_steps: null"
    if key == "training.early_stopping_threshold":
        return "training.early_stopping_patience is not given"
    if key.startswith("ranks."):
        return f"ranks.strategy is {spec.ranks.strategy}"
    if key.startswith("data.augment."):
        return "data.augment.factor is 1, or a template or function is given"
    return "nothing is generated, or answers are not sampled (generation.prompts, do_sample)"


def identity(spec: StudySpec, settings: Mapping[str, Any]) -> str:
    """12 hex digits: a hash of the settings, the base model, the data and the task."""
    # allow_pickle says how weights are fetched, not which
    no_meaning = {"quantization", "attn_implementation", "allow_pickle"}
    model = spec.model.model_dump(mode="json", exclude=no_meaning)
    if spec.model.quantization != "nf4":
        del model["double_quant"], model["compute_dtype"]
    data = spec.data.model_dump(mode="json", exclude={"augment", "max_samples", "malformed_rows"})
    data = {name: value for name, value in data.items() if (name, value) not in ADDED.items()}
    settings = {k: v for k, v in settings.items() if k not in LATER or v != LATER[k]}
    meaning = {"settings": settings, "model": model, "data": data, "task": spec.task}
    return hashlib.sha256(canonical(meaning).encode()).hexdigest()[:12]


def canonical(value: Any) -> str:
    """JSON with sorted keys and one spelling of each number: 8 and 8.0 are the same."""

    def one_spelling(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(k): one_spelling(v) for k, v in item.items()}
        if isinstance(item, list | tuple):
            return [one_spelling(v) for v in item]
        whole = isinstance(item, float) and item.is_integer()
        return int(item) if whole else item

    return json.dumps(one_spelling(value), sort_keys=True, separators=(",", ":"))


RESERVED = ("best", "base")  # `export DIR best`; answers of the frozen base are named `base`
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
    "training.label_smoothing_factor": "smooth",
    "training.neftune_noise_alpha": "neftune",
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
    "adamw_torch": "adamw",
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
    "training.optim",
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
    folded = [name.casefold() for name in names]  # some systems have one folder for both cases
    return [
        name if explicit or folded.count(name.casefold()) == 1 else f"{name}_{_tag(one)}"
        for one, name, explicit in zip(settings, names, given, strict=True)
    ]


def name_by(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    """A name for a configuration by some of its settings, whatever other configurations have."""
    return _name(settings, sorted(keys, key=_place))


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
    if len(name) > MAX_LENGTH or name in RESERVED or bad_folder_name(name):
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
