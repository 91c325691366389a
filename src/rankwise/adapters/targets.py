"""Which modules of a model an adapter sits on, resolved as `peft` resolves them.

Presets (query, attention-qkv, attention, mlp) are this project's own; lists, regular expressions,
exclude_modules and layers_to_transform are matched by peft's own function.
"""

import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from torch import nn

from rankwise.base.modules import (
    ATTENTION,
    HEADS,
    Gaps,
    Role,
    Target,
    kind_of,
    last_names,
    linear_modules,
    pattern_for,
    saved_names,
    saved_patterns,
    task_of,
    within,
)
from rankwise.errors import SpecError
from rankwise.spec.models import LoraSpec
from rankwise.spec.tasks import has_classes
from rankwise.text import first_line, nearest

ALL_LINEAR = "all-linear"
PRESETS: dict[str, tuple[Role, ...]] = {
    "query": ("query",),
    "attention-qkv": ("query", "key", "value", "qkv"),
    "attention": ATTENTION,
    "mlp": ("mlp",),
}
_FULL = (
    'lora.target_modules: "{}" is trained in full beside the adapter (the head of a classifier, or '
    "lora.modules_to_save); remove it here"
)


def resolve_targets(
    model: nn.Module, lora: LoraSpec, gaps: Gaps | None = None
) -> tuple[Target, ...]:
    """The modules that a configuration adapts, in the model's order: those that peft would adapt.

    Args:
        model: the base model, on any device (the meta device will do).
        lora: target_modules (None: peft's default for this kind of model), exclude_modules,
            layers_to_transform, modules_to_save, and patterns of ranks and alphas to check.
        gaps: where the base is not whole. No adapter goes on modules without weights, which are
            trained in full, and on modules that rows do not reach.

    Raises:
        SpecError: a name, an expression or a preset that matches no module, a
            module that is neither Linear nor Conv1D or is trained in full, a layer not there.
    """
    linear = {target.name: target for target in linear_modules(model)}
    _check_layers(lora, linear)
    _check_excluded(lora, model)
    wanted = _wanted(model, lora, linear)
    _refuse_experts(model, lora, wanted)
    names = _matched(model, lora, wanted)
    if gaps is not None:
        names = _without_gaps(names, gaps)
    outer = saved_names(model, lora, task_of(model))
    saved = {name for name, _ in model.named_modules() if within(name, outer)}
    if _is_preset(lora.target_modules):
        names = [name for name in names if name not in saved]
    for name in names:
        if name in saved:
            raise SpecError(_FULL.format(name))
        if name not in linear:
            kind = type(model.get_submodule(name)).__name__
            raise SpecError(
                f'lora.target_modules: "{name}" is of kind {kind}; only Linear and Conv1D modules '
                f"can be adapted. {_listing(linear)}"
            )
    _check_all_used(model, lora, wanted, names, saved, linear)
    _check_exclusion_used(model, lora, wanted)
    _check_patterns(lora, model, names)
    return tuple(linear[name] for name in names)


def _is_preset(given: Any) -> bool:
    return isinstance(given, str) and given.lower() in (*PRESETS, ALL_LINEAR)


def _matched(model: nn.Module, lora: LoraSpec, wanted: str | Sequence[str]) -> list[str]:
    """Names of modules that peft would put an adapter on."""
    from peft.tuners.tuners_utils import check_target_module_exists

    layers, excluded = lora.layers_to_transform, lora.exclude_modules
    config = SimpleNamespace(
        target_modules=wanted,
        target_parameters=None,
        exclude_modules=list(excluded) if isinstance(excluded, tuple) else excluded,
        modules_to_save=list(saved_patterns(lora, task_of(model))),
        layers_to_transform=list(layers) if isinstance(layers, tuple) else layers,
        layers_pattern=None,
    )
    names = [name for name, _ in model.named_modules() if name]
    return [name for name in names if check_target_module_exists(config, name)]


def _refuse_experts(model: nn.Module, lora: LoraSpec, wanted: str | tuple[str, ...]) -> None:
    """Refuse targets for which peft trains experts that a model holds as one stacked parameter.

    peft turns names such as gate_proj into `target_parameters` of the experts, whether they come
    from the user or from an adapter_config.json. So no adapter in peft's format can sit on other
    modules of these names alone.
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    given = lora.target_modules
    for words in (wanted, given) if given == ALL_LINEAR else (wanted,):
        config = LoraConfig(target_modules=list(words) if isinstance(words, tuple) else words)
        try:
            convert_peft_config_for_transformers(config, model, None)
            experts = sorted(config.target_parameters or ())
        except ValueError as error:  # some of the projections that are one parameter, not all
            experts = [first_line(error)]
        if experts:
            raise SpecError(
                f'lora.target_modules: "{_said(given or wanted)}": in {kind_of(model)} models peft '
                f"trains the experts of the mixture for it ({', '.join(experts)}), which is not "
                f"supported; use attention, or name modules that are no part of the experts"
            )


def _without_gaps(names: Sequence[str], gaps: Gaps) -> list[str]:
    left = [name for name in names if name not in {*gaps.absent_modules, *gaps.unreached}]
    if names and not left:
        why = (
            "rows of this study do not pass through them"
            if set(names) <= set(gaps.unreached)
            else "the checkpoint has no weights for them, so they are trained in full"
        )
        raise SpecError(
            f"lora.target_modules: an adapter on {', '.join(names[:3])} would have no effect: {why}"
        )
    return left


def _said(words: str | tuple[str, ...]) -> str:
    return words if isinstance(words, str) else ", ".join(last_names(words))


def _wanted(
    model: nn.Module, lora: LoraSpec, linear: Mapping[str, Target]
) -> str | tuple[str, ...]:
    """What names are matched with: a regular expression, or a tuple of (ends of) names."""
    given = lora.target_modules
    if given is None:
        given = _default(model, linear)
    if isinstance(given, tuple):
        if not given:
            raise SpecError(
                "lora.target_modules: the list is empty; remove the setting for peft's default"
            )
        return given
    if not _is_preset(given):
        if lora.layers_to_transform is not None:
            raise SpecError(
                "lora.layers_to_transform: not with a regular expression in lora.target_modules; "
                "put the layers into the expression, or give a list of names"
            )
        return _expression(given, "lora.target_modules")
    if given.lower() == ALL_LINEAR:
        chosen = _all_linear(model, linear)
    else:
        chosen = _preset(given.lower(), linear)
    layers = lora.layers_to_transform
    kept = (layers,) if isinstance(layers, int) else layers
    return tuple(target.name for target in chosen if kept is None or target.layer in kept)


def _preset(preset: str, linear: Mapping[str, Target]) -> list[Target]:
    """The modules of a preset. Where no module computes the query alone, the fused one does."""
    found = [target for target in linear.values() if target.role in PRESETS[preset]]
    if preset == "query" and not found:
        found = [target for target in linear.values() if target.role == "qkv"]
    return found


def _all_linear(model: nn.Module, linear: Mapping[str, Target]) -> list[Target]:
    """Every linear module but the output layer: `_maybe_include_all_linear_layers` of peft."""
    output = model.get_output_embeddings() if isinstance(model, _pretrained()) else None
    if output is None and has_classes(task_of(model)):
        output = next((getattr(model, head) for head in HEADS[::-1] if hasattr(model, head)), None)
    return [target for name, target in linear.items() if model.get_submodule(name) is not output]


def _pretrained() -> Any:
    from transformers import PreTrainedModel

    return PreTrainedModel


def _default(model: nn.Module, linear: Mapping[str, Target]) -> str | tuple[str, ...]:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    found = DEFAULTS.get(kind_of(model))
    if found is None:
        raise SpecError(
            f"lora.target_modules: peft has no default for {kind_of(model)} models; name them, or "
            f"use a preset ({', '.join(PRESETS)}, {ALL_LINEAR}). {_listing(linear)}"
        )
    return found if isinstance(found, str) else tuple(found)


def _ends(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def _check_all_used(
    model: nn.Module,
    lora: LoraSpec,
    wanted: str | tuple[str, ...],
    names: Sequence[str],
    saved: set[str],
    linear: Mapping[str, Target],
) -> None:
    """Refuse a given name that matches no module; peft refuses only where all of them do not."""
    given = lora.target_modules
    for one in given if isinstance(given, tuple) else ():
        matches = {name for name, _ in model.named_modules() if _ends(name, one)}
        if not matches:
            raise SpecError(f'lora.target_modules: "{one}" {_no_match(model, one, linear)}')
        if matches <= saved:
            raise SpecError(_FULL.format(one))
    if names:
        return
    if lora.exclude_modules or lora.layers_to_transform is not None:
        raise SpecError(
            "lora.target_modules: exclude_modules or layers_to_transform leave nothing to adapt; "
            "give fewer exclusions or more layers"
        )
    if isinstance(given, str) and given in _short_names(linear):
        raise SpecError(
            f'lora.target_modules: "{given}" is read as a regular expression over full names and '
            f"matches none; write it as a list: [{given}]"
        )
    near = nearest(given, list(PRESETS)) if isinstance(given, str) and not _is_preset(given) else ""
    raise SpecError(
        f'lora.target_modules: "{given or wanted}" matches no module of {kind_of(model)}{near}. '
        f"{_listing(linear)}"
    )


def _no_match(model: nn.Module, wanted: str, linear: Mapping[str, Target]) -> str:
    if _is_preset(wanted):
        hint = f"; as a preset write target_modules: {wanted}, without brackets"
    else:
        hint = nearest(wanted, [*_short_names(linear), *linear])
    return f"matches no module of {kind_of(model)}{hint}. {_listing(linear)}"


def _check_excluded(lora: LoraSpec, model: nn.Module) -> None:
    given = lora.exclude_modules
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(given, str):
        pattern = _expression(given, "lora.exclude_modules")
        if not any(re.fullmatch(pattern, name) for name in names):
            raise SpecError(
                f'lora.exclude_modules: "{given}" matches no full name of a module; an expression '
                f"must match from first to last letter; or give a list of names"
            )
    for one in given if isinstance(given, tuple) else ():
        if not any(_ends(name, one) for name in names):
            near = nearest(one, last_names(names))
            raise SpecError(
                f'lora.exclude_modules: "{one}" matches no module of {kind_of(model)}{near}'
            )


def _check_layers(lora: LoraSpec, linear: Mapping[str, Target]) -> None:
    layers = lora.layers_to_transform
    if layers is None:
        return
    there = {target.layer for target in linear.values() if target.layer is not None}
    for layer in (layers,) if isinstance(layers, int) else layers:
        if layer not in there:
            span = f"layers are {min(there)} to {max(there)}" if there else "it has no layers"
            raise SpecError(f"lora.layers_to_transform: no layer {layer}; {span}")


def _check_exclusion_used(model: nn.Module, lora: LoraSpec, wanted: str | Sequence[str]) -> None:
    """Refuse exclusions that leave out nothing that would be adapted without them."""
    if not lora.exclude_modules:
        return
    names = _matched(model, lora, wanted)
    if names == _matched(model, lora.model_copy(update={"exclude_modules": None}), wanted):
        raise SpecError(
            f'lora.exclude_modules: "{_said(lora.exclude_modules)}" matches none of the targeted '
            f"modules, which are {', '.join(last_names(names))}; remove it"
        )


def _check_patterns(lora: LoraSpec, model: nn.Module, names: Sequence[str]) -> None:
    """Refuse a pattern that decides for none of the adapted modules `names`."""
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = getattr(lora, field)
        for pattern in patterns:
            _expression(pattern, f"lora.{field}")
        used = {pattern_for(name, patterns) for name in names}
        for pattern in patterns:
            if pattern in used:
                continue
            alone = [name for name in names if pattern_for(name, {pattern: 0})]
            why = (
                f"matches only modules that a pattern before it matches, such as {alone[0]}"
                if alone
                else f"matches none of the targeted modules of {kind_of(model)}"
                f"{nearest(pattern, [*last_names(names), *names])}. They are: "
                f"{', '.join(last_names(names))}"
            )
            raise SpecError(f'lora.{field}: "{pattern}" {why}')


def _expression(pattern: str, place: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise SpecError(
            f'{place}: "{pattern}" is not a valid regular expression: {error}'
        ) from None
    return pattern


def _short_names(linear: Mapping[str, Target]) -> list[str]:
    return last_names(linear)


def _listing(linear: Mapping[str, Target]) -> str:
    return f"Linear modules: {', '.join(_short_names(linear))}"
