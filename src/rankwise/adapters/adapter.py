"""What one run trains, module by module, in the form that the bank and the adapter files need."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from rankwise.adapters.memory import Adapter
from rankwise.adapters.target import rank_of, scaling_of


@dataclass(frozen=True)
class Factor:
    """One adapted module: its shape, the adapter's rank, and the scaling in front of B A."""

    inputs: int
    outputs: int
    rank: int
    scaling: float


@dataclass(frozen=True)
class AdapterPlan:
    """What a run trains.

    Attributes:
        factors: Adapted modules by full name.
        biases: Full names of modules whose bias is trained.
        saved: Full names of modules trained in full.
        dropout: Dropout on the adapters' input.
        init: How A and B start, in peft's words.
        dora: Whether the adapters are weight-decomposed.
        target_modules: The adapted modules in peft's words: the last parts of their names where
            these mean exactly them, else their full names.
        fan_in_fan_out: Whether some adapted module stores its weight as (in, out).
    """

    factors: Mapping[str, Factor]
    biases: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    dropout: float = 0.0
    init: bool | str = True
    dora: bool = False
    target_modules: tuple[str, ...] = ()
    fan_in_fan_out: bool = False


def plan_adapter(adapter: Adapter, model: nn.Module) -> AdapterPlan:
    """The plan of an adapter whose modules and ranks are settled.

    Args:
        adapter: What a run trains.
        model: The base, on any device and with nothing put into it, for its modules' names.
    """
    lora = adapter.lora
    factors = {
        target.name: Factor(
            target.in_features,
            target.out_features,
            rank_of(target, lora),
            scaling_of(target, lora),
        )
        for target in adapter.targets
    }
    return AdapterPlan(
        factors,
        adapter.biases,
        adapter.saved,
        lora.lora_dropout,
        lora.init_lora_weights,
        lora.use_dora,
        short_names(model, set(factors)),
        any(target.kind == "conv1d" for target in adapter.targets),
    )


def short_names(model: nn.Module, targets: set[str]) -> tuple[str, ...]:
    """The last parts of the targets' names where these mean exactly them, else the full names."""
    leaves = {name.rpartition(".")[2] for name in targets}
    meant = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in leaves}
    return tuple(sorted(leaves) if meant == targets else sorted(targets))
