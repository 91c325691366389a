"""From the spec's grid and list to arms: their settings, their names, their identities.

The identity of an arm is a hash of what it means, so two spellings of one configuration are one
arm, and a study that is run again finds what it has already done.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rankwise.errors import SpecError
from rankwise.plan.names import arm_names
from rankwise.spec import (
    AugmentSpec,
    GenerationSpec,
    LoraSpec,
    RanksSpec,
    StudySpec,
    TrainingSpec,
    alpha_of,
)
from rankwise.spec_mistakes import arm_settings, no_such_setting, readable, setting_names, shown

MAX_ARMS = 10_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}$")
RESERVED = ("best", "base")  # `export DIR best`; the untouched base answers as `base`
SORTED = ("lora.target_modules", "lora.exclude_modules", "lora.modules_to_save")
NO_MEANING = ("training.per_device_eval_batch_size",)  # evaluation is the same in any batches


@dataclass(frozen=True)
class Arm:
    """One configuration under comparison.

    Attributes:
        id: 12 hex digits, equal for equal meaning (settings, base model, data, task).
        training_id: the same without `generation.*`: arms of equal training_id are trained once.
        name: short and readable, unique in its study; also a folder's name.
        settings: dotted name -> JSON-ready value of all that identifies the arm.
    """

    id: str
    training_id: str
    name: str
    method: str
    quantization: str
    lora: LoraSpec
    training: TrainingSpec
    ranks: RanksSpec
    augment: AugmentSpec
    max_samples: int | None
    generation: GenerationSpec
    settings: dict[str, Any]

    def __hash__(self) -> int:
        return hash(self.id)


def make_arms(spec: StudySpec) -> tuple[Arm, ...]:
    """The arms of a study: the product of its grid, then its list; one arm where both are empty.

    Raises:
        SpecError: a setting that does not exist or cannot vary, an empty list of values, a value
            that cannot be, settings without effect or at odds, or the same arm or name twice.
    """
    known = dict(arm_settings())
    drafts = [
        _draft(spec, changes, place, name) for place, name, changes in _changes(spec, tuple(known))
    ]
    names = arm_names([d.settings for d in drafts], [d.name for d in drafts])
    arms = tuple(_named(draft, name) for draft, name in zip(drafts, names, strict=True))
    _refuse_twins(arms)
    return arms


def varying_settings(arms: Sequence[Arm]) -> tuple[str, ...]:
    """Dotted names of the settings in which the arms differ, in the order of the spec."""
    return tuple(
        name
        for name, _ in arm_settings()
        if len({_canonical(arm.settings.get(name, "absent")) for arm in arms}) > 1
    )


def _changes(
    spec: StudySpec, known: Sequence[str]
) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """(place for messages, explicit name, dotted setting -> value) of every arm."""
    for key, values in spec.grid.items():
        _check_key(key, f"grid.{key}", known)
        if not values:
            raise SpecError(f"grid.{key}: the list of values is empty; remove the line or fill it")
    size = 1
    for values in spec.grid.values():
        size *= len(values)
    if size > MAX_ARMS:
        raise SpecError(f"grid: {size} arms are more than {MAX_ARMS}; give fewer values")
    if spec.grid or not spec.arms:
        for combination in itertools.product(*spec.grid.values()):
            yield "grid", None, dict(zip(spec.grid, combination, strict=True))
    for number, entry in enumerate(spec.arms):
        place = f"arms[{number}]"
        changes = dict(_flat(entry, known))
        name = changes.pop("name", None)
        for key in changes:
            _check_key(key, f"{place}: {key}", known)
        yield place, _checked_name(name, place), changes


def _flat(tree: Mapping[Any, Any], known: Sequence[str], prefix: str = "") -> Iterator[Any]:
    """The settings of an arm with dotted names, whether written nested or dotted."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and name not in known:
            yield from _flat(value, known, f"{name}.")
        else:
            yield name, value


def _check_key(key: str, place: str, known: Sequence[str]) -> None:
    if key in known:
        return
    inside = next((name for name in known if name.startswith(f"{key}.")), None)
    if inside is not None:
        raise SpecError(f"{place}: a section; name the settings in it, such as {inside}")
    if key in setting_names(StudySpec):
        raise SpecError(
            f"{place}: common to all arms of a study, for they are compared on one model and one "
            f"data set; set it outside `grid` and `arms`"
        )
    raise SpecError(f"{place}: {no_such_setting(key, known)}")


def _checked_name(name: Any, place: str) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str) or not NAME.match(name):
        raise SpecError(
            f"{place}: name: letters, digits, dots, dashes, plus signs and underscores are wanted "
            f"(a folder will bear it), found {shown(name)}"
        )
    if name in RESERVED:
        raise SpecError(f"{place}: name: {name!r} has a meaning of its own; choose another")
    return name


def _draft(spec: StudySpec, changes: Mapping[str, Any], place: str, name: str | None) -> Arm:
    """One arm, checked, with its explicit name or an empty one."""
    raw = spec.model_dump(mode="json", warnings=False)
    raw["grid"], raw["arms"] = {}, []
    for key, value in changes.items():
        here = raw
        *sections, leaf = key.split(".")
        for section in sections:
            here = here[section]
        here[leaf] = value
    try:
        one = StudySpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(readable(error, raw, StudySpec, f"{place}: ")) from None
    _check_together(one, place)
    settings = _settings(one)
    _refuse_idle(one, changes, settings, place)
    return Arm(
        id=_hash(one, settings),
        training_id=_hash(
            one, {k: v for k, v in settings.items() if not k.startswith("generation.")}
        ),
        name=name or "",
        method=one.method,
        quantization=one.model.quantization,
        lora=one.lora,
        training=one.training,
        ranks=one.ranks,
        augment=one.data.augment,
        max_samples=one.data.max_samples,
        generation=one.generation,
        settings=settings,
    )


def _named(arm: Arm, name: str) -> Arm:
    fields = {field: getattr(arm, field) for field in Arm.__dataclass_fields__}
    return Arm(**fields | {"name": name})


def _check_together(spec: StudySpec, place: str) -> None:
    """Refuse settings of one arm that cannot work with one another."""
    if spec.method == "full" and spec.model.quantization != "none":
        raise SpecError(
            f"{place}: model.quantization: {spec.model.quantization} weights cannot be trained in "
            f"full; use method: lora, or quantization: none for this arm"
        )
    if spec.method == "full" and spec.training.loraplus_lr_ratio is not None:
        raise SpecError(
            f"{place}: training.loraplus_lr_ratio: full fine-tuning has no matrix B; set it to null"
        )
    if spec.ranks.strategy != "uniform" and spec.lora.rank_pattern and spec.method == "lora":
        raise SpecError(
            f"{place}: ranks.strategy: {spec.ranks.strategy} writes lora.rank_pattern itself; "
            f"remove lora.rank_pattern, or use strategy: custom with `custom` ranks"
        )


def _settings(spec: StudySpec) -> dict[str, Any]:
    """Everything that identifies an arm, in one spelling; what has no effect is left out."""
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
    """Alpha in one spelling: a number where one rank holds for all modules, else the rule."""
    rule = spec.lora.lora_alpha
    one_rank = spec.ranks.strategy == "uniform" and spec.ranks.budget is None
    if one_rank and not spec.lora.rank_pattern:
        return alpha_of(rule, spec.lora.r)
    if isinstance(rule, str) and rule.endswith("r"):
        return f"{alpha_of(rule, 1):g}r"
    return rule if rule == "sqrt" else alpha_of(rule, 1)


def _idle(spec: StudySpec) -> Iterator[str]:
    """Settings (or sections) without effect in this arm, given its other settings."""
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


def _refuse_idle(
    spec: StudySpec, changes: Mapping[str, Any], settings: Mapping[str, Any], place: str
) -> None:
    """Refuse a setting that was given to this very arm and has no effect in it."""
    for key in changes:
        if key in settings or key in NO_MEANING:
            continue
        raise SpecError(f"{place}: {key}: without effect in this arm, for {_why_idle(spec, key)}")


def _why_idle(spec: StudySpec, key: str) -> str:
    if spec.method == "full" and key.startswith(("lora.", "ranks.", "training.loraplus")):
        return "its method is full; list full fine-tuning under `arms`, outside the grid"
    if key == "training.num_train_epochs":
        return "training.max_steps is given; set training.max_steps: null"
    if key == "training.early_stopping_threshold":
        return "training.early_stopping_patience is not given"
    if key.startswith("ranks."):
        return f"ranks.strategy is {spec.ranks.strategy}"
    if key.startswith("data.augment."):
        return "data.augment.factor is 1, or a template or function is given"
    return "nothing is generated, or answers are not sampled (generation.prompts, do_sample)"


def _hash(spec: StudySpec, settings: Mapping[str, Any]) -> str:
    """12 hex digits of the meaning of an arm: its settings, base model, data and task."""
    model = spec.model.model_dump(mode="json", exclude={"quantization", "attn_implementation"})
    for name in ("trust_remote_code", "allow_pickle"):  # how weights are fetched, not which
        del model[name]
    if spec.model.quantization != "nf4":
        del model["double_quant"], model["compute_dtype"]
    data = spec.data.model_dump(mode="json", exclude={"augment", "max_samples"})
    meaning = {"settings": settings, "model": model, "data": data, "task": spec.task}
    return hashlib.sha256(_canonical(meaning).encode()).hexdigest()[:12]


def _canonical(value: Any) -> str:
    """JSON with sorted keys and one spelling of each number: 8 and 8.0 are the same."""

    def one_spelling(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(k): one_spelling(v) for k, v in item.items()}
        if isinstance(item, list | tuple):
            return [one_spelling(v) for v in item]
        whole = isinstance(item, float) and item.is_integer()
        return int(item) if whole else item

    return json.dumps(one_spelling(value), sort_keys=True, separators=(",", ":"))


def _refuse_twins(arms: Sequence[Arm]) -> None:
    seen: dict[str, Arm] = {}
    for arm in arms:
        if arm.id in seen:
            raise SpecError(
                f"arms: {seen[arm.id].name} and {arm.name} are the same configuration; remove one"
            )
        seen[arm.id] = arm
    names: dict[str, Arm] = {}
    for arm in arms:
        if arm.name.casefold() in names:
            raise SpecError(f"arms: the name {arm.name!r} is given twice; rename one")
        names[arm.name.casefold()] = arm
