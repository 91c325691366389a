"""What one configuration trains, resolved once: every module with its rank and its scaling.

The bank, the files in peft's format, the counts, the stored ranks and the report's snippets are
all read off an `Adapter`.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import nn

from rankwise.adapters.linear import Target, pattern_for
from rankwise.adapters.ranks import allocate
from rankwise.adapters.targets import resolve_targets
from rankwise.base.heads import saved_modules, within
from rankwise.spec.arms import Arm
from rankwise.spec.models import LoraSpec, alpha_of


@dataclass(frozen=True)
class AdaptedModule(Target):
    """A module with an adapter on it.

    Attributes:
        rank: of A (rank, in_features) and B (out_features, rank).
        alpha: numerator of the scaling.
        scaling: factor in front of B A: alpha/r (Hu et al. 2021, section 4.1), or alpha/sqrt(r)
            with use_rslora (Kalajdzievski 2023, theorem 3.2).
    """

    rank: int
    alpha: float
    scaling: float


@dataclass(frozen=True)
class Adapter:
    """What a LoRA configuration trains.

    Attributes:
        modules: adapted modules by full name, in the model's order.
        biases: full names of modules outside `saved` whose bias is trained.
        saved: full names of modules that are trained in full.
        dropout: on the adapters' input.
        init: how A and B start, in peft's words.
        dora: whether the adapters are weight-decomposed.
        rslora: whether scalings are alpha/sqrt(r).
        target_modules: the adapted modules in peft's words, see `target_words`.
        provisional: the ranks wait for an importance still to be measured; their cost does not.
    """

    modules: Mapping[str, AdaptedModule]
    biases: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    dropout: float = 0.0
    init: bool | str = True
    dora: bool = False
    rslora: bool = False
    target_modules: tuple[str, ...] | str = ()
    provisional: bool = False

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each adapted module."""
        return {name: module.rank for name, module in self.modules.items()}


def resolve_adapter(
    model: nn.Module,
    arm: Arm,
    task: str,
    importance: Mapping[str, float] | None = None,
    ranks: Mapping[str, int] | None = None,
) -> Adapter:
    """Everything that a LoRA configuration trains in a model.

    Args:
        model: the base model, with its head, on any device and with nothing put into it.
        arm: of method lora.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        importance: of each adapted module by name, for ranks of strategy empirical. Without it
            such ranks are provisional: uniform at the same budget.
        ranks: of each adapted module by name, where they are known from an earlier call.

    Raises:
        SpecError: the configuration names modules that the model does not have, or ranks that
            its modules cannot hold.
    """
    if arm.method != "lora":
        raise ValueError(f"{arm.name} is of method {arm.method} and has no adapter")
    lora, how = arm.lora, arm.ranks
    targets = resolve_targets(model, lora)
    provisional = how.strategy == "empirical" and importance is None and ranks is None
    if provisional:
        how = how.model_copy(update={"strategy": "uniform"})
    known = allocate(targets, how, lora, importance) if ranks is None else ranks
    modules = {target.name: adapted_module(target, known[target.name], lora) for target in targets}
    saved = saved_modules(model, lora, task)
    return Adapter(
        modules,
        _biases(model, lora.bias, modules, saved),
        saved,
        lora.lora_dropout,
        lora.init_lora_weights,
        lora.use_dora,
        lora.use_rslora,
        target_words(model, set(modules)),
        provisional,
    )


def adapted_module(target: Target, rank: int, lora: LoraSpec) -> AdaptedModule:
    """The module with its scaling: alpha_pattern as peft matches it, else the rule at its rank."""
    key = pattern_for(target.name, lora.alpha_pattern)
    alpha = alpha_of(lora.lora_alpha, rank) if key is None else lora.alpha_pattern[key]
    scaling = alpha / (rank**0.5 if lora.use_rslora else rank)
    return AdaptedModule(**asdict(target), rank=rank, alpha=alpha, scaling=scaling)


def _biases(
    model: nn.Module, bias: str, modules: Mapping[str, AdaptedModule], saved: tuple[str, ...]
) -> tuple[str, ...]:
    """Modules whose bias is trained: `_mark_only_adapters_as_trainable` of peft."""
    if bias == "none":
        return ()
    if bias == "lora_only":
        return tuple(name for name, module in modules.items() if module.has_bias)
    return tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module._parameters.get("bias"), nn.Parameter) and not within(name, saved)
    )


def target_words(model: nn.Module, targets: set[str]) -> tuple[str, ...] | str:
    """The targets in the words of peft's `target_modules`, so that they mean exactly these modules.

    peft takes every module that has a given name or ends with it. So these are the last parts of
    the names where no other module shares them; else the full names; and where a full name is
    also the end of another module's name, a regular expression.
    """
    names = [name for name, _ in model.named_modules() if name]
    for words in ({name.rpartition(".")[2] for name in targets}, targets):
        if {name for name in names if words & ends_of(name)} == targets:
            return tuple(sorted(words))
    return "|".join(re.escape(name) for name in sorted(targets))


def ends_of(name: str) -> set[str]:
    """The whole name and every end of it that starts after a dot."""
    parts = name.split(".")
    return {".".join(parts[i:]) for i in range(len(parts))}
