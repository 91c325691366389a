"""What identifies a configuration: its effective settings in one spelling, and their hash."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from rankwise.spec.models import AugmentSpec, StudySpec, alpha_of
from rankwise.spec.settings import arm_settings

SORTED = ("lora.target_modules", "lora.exclude_modules", "lora.modules_to_save")
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
    model = spec.model.model_dump(mode="json", exclude={"quantization", "attn_implementation"})
    for name in ("trust_remote_code", "allow_pickle"):  # how weights are fetched, not which
        del model[name]
    if spec.model.quantization != "nf4":
        del model["double_quant"], model["compute_dtype"]
    data = spec.data.model_dump(mode="json", exclude={"augment", "max_samples"})
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
