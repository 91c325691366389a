"""What one configuration trains, resolved once: every module with its rank and its scaling.

The bank, the files in peft's format, the counts, the stored ranks and the report's snippets are
all read off an `Adapter`.
"""

import copy
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.adapters.ranks import allocate
from rankwise.adapters.targets import resolve_targets
from rankwise.base.modules import WHOLE, Gaps, Target, pattern_for, saved_modules, within
from rankwise.errors import SpecError
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
    gaps: Gaps = WHOLE,
) -> Adapter:
    """Everything that a LoRA configuration trains in a model.

    Args:
        model: the base model, with its head, on any device and with nothing put into it.
        arm: of method lora.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        importance: of each adapted module by name, for ranks of strategy empirical. Without it
            such ranks are provisional: uniform at the same budget.
        ranks: of each adapted module by name, where they are known from an earlier call.
        gaps: where the base is not whole. Modules without weights are trained in full.

    Raises:
        SpecError: the configuration names modules that the model does not have, or ranks that
            its modules cannot hold.
    """
    if arm.method != "lora":
        raise ValueError(f"{arm.name} is of method {arm.method} and has no adapter")
    lora, how = arm.lora, arm.ranks
    targets = resolve_targets(model, lora, gaps)
    provisional = how.strategy == "empirical" and importance is None and ranks is None
    if provisional:
        how = how.model_copy(update={"strategy": "uniform"})
    known = allocate(targets, how, lora, importance) if ranks is None else ranks
    modules = {target.name: adapted_module(target, known[target.name], lora) for target in targets}
    saved = saved_modules(model, lora, task, gaps)
    return Adapter(
        modules,
        _biases(model, lora.bias, modules, saved, gaps),
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
    model: nn.Module,
    bias: str,
    modules: Mapping[str, AdaptedModule],
    saved: tuple[str, ...],
    gaps: Gaps,
) -> tuple[str, ...]:
    """Modules whose bias is trained: `_mark_only_adapters_as_trainable` of peft.

    Raises:
        SpecError: there is a bias that cannot be trained.
    """
    if bias == "none":
        return ()
    if bias == "lora_only":
        found = tuple(name for name, module in modules.items() if module.has_bias)
    else:
        found = _all_biases(model, (*saved, *gaps.unreached))
    compound = [name for name in found if name in gaps.compound]
    if compound:
        raise SpecError(
            f"lora.bias: {bias}: {compound[0]} has a bias, and takes or gives more than one "
            f"tensor, so that its bias cannot be trained; use lora_only or none"
        )
    return found


def _all_biases(model: nn.Module, others: tuple[str, ...]) -> tuple[str, ...]:
    found: dict[int, str] = {}  # by identity: a bias that modules share is trained once
    for name, module in model.named_modules():
        own = module._parameters.get("bias")
        if isinstance(own, nn.Parameter) and not within(name, others):
            found.setdefault(id(own), name)
    return tuple(found.values())


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


def initial_factors(
    base: nn.Module, init: bool | str, rank: int, scaling: float, key: str
) -> tuple[Tensor, Tensor]:
    """First A (rank, inputs) and B (outputs, rank) of an adapter on `base`, fp32.

    Args:
        base: The frozen module.
        init: True: A uniform (Kaiming, a = sqrt 5), B zero, as in peft's default and Microsoft's
            implementation; "gaussian": A normal with deviation 1/rank, B zero; "pissa": the
            principal singular triplets (Meng et al. 2024, eq. 2 and 3); "olora": the QR
            factors (Büyükakyüz 2024); False: both random, so that B A is not zero.
        rank: Rank of the adapter.
        scaling: Factor in front of B A.
        key: Seeds the draw; equal keys give equal factors.

    Raises:
        SpecError: `init` is none of these.
    """
    weight_OI = dense_weight(base)
    outputs, inputs = weight_OI.shape
    zero_OR = torch.zeros(outputs, rank)
    generator = torch.Generator().manual_seed(seed_of(key))
    bound = 1 / math.sqrt(inputs)
    uniform_RI = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
    if init is True:
        return uniform_RI, zero_OR
    if init is False:
        bound = 1 / math.sqrt(rank)
        return uniform_RI, zero_OR.uniform_(-bound, bound, generator=generator)
    if init == "gaussian":
        return torch.empty(rank, inputs).normal_(0, 1 / rank, generator=generator), zero_OR
    if init == "pissa":
        u_OX, s_X, vh_XI = torch.linalg.svd(weight_OI.float(), full_matrices=False)
        root_R = (s_X[:rank] / scaling).sqrt()
        return root_R[:, None] * vh_XI[:rank], u_OX[:, :rank] * root_R
    if init == "olora":
        q_OX, r_XI = torch.linalg.qr(weight_OI.float())
        return r_XI[:rank], q_OX[:, :rank]
    raise SpecError(f"lora.init_lora_weights: {init!r} is not known; see docs/spec.md")


def dense_weight(module: nn.Module) -> Tensor:
    """The frozen weight as (O, I), dequantised where need be, turned where it is a Conv1D."""
    weight: Any = module.weight
    kind = type(weight).__name__
    if kind == "Params4bit":
        from bitsandbytes.functional import dequantize_4bit

        dense: Tensor = dequantize_4bit(weight.data, weight.quant_state)
        return dense
    if kind == "Int8Params":
        # A row's scale is its largest value, which int8 writes as 127. It is kept beside the
        # weight until the first pass, and in the module's state from then on.
        state: Any = module.state
        scales_O: Tensor = weight.SCB if state.SCB is None else state.SCB
        scaled: Tensor = weight.data.float() * (scales_O.float() / 127).unsqueeze(1)
        return scaled
    plain: Tensor = weight
    return plain.T if type(module).__name__ == "Conv1D" else plain


def fresh_weights(
    model: nn.Module, name: str, seed: int, new_modules: Sequence[str]
) -> dict[str, Tensor]:
    """First weights, by name inside module `name`, of its parts that the base did not bring.

    They are drawn by the model's own initialisation, fp32 and on the CPU, keyed by the run's seed
    and the part's full name: LoRA and full fine-tuning of one seed start from the same head.
    """
    drawn = {}
    parts: list[str] = []
    for part, module in model.get_submodule(name).named_modules(prefix=name):
        names = [weight for weight, _ in module.named_parameters(prefix=part)]
        if within(part, parts) or not names or not all(within(n, new_modules) for n in names):
            continue
        parts.append(part)
        for weight, value in zip(names, _drawn(model, module, f"{seed}/{part}"), strict=True):
            drawn[weight.removeprefix(f"{name}.")] = value
    return drawn


def _drawn(model: Any, module: nn.Module, key: str) -> list[Tensor]:
    copied = copy.deepcopy(module).float().cpu()
    with torch.random.fork_rng([]):
        torch.manual_seed(seed_of(key))
        for part in copied.modules():
            for marked in (part, *part.parameters(recurse=False)):
                marked.__dict__.pop("_is_hf_initialized", None)
            model._init_weights(part)
    return [parameter.detach() for parameter in copied.parameters()]


def seed_of(key: str) -> int:
    """A seed below 2**63 from any text, the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
