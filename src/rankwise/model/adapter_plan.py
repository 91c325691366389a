"""What one run trains, module by module, in the form that the bank and the adapter files need."""

from collections.abc import Mapping
from dataclasses import dataclass

from rankwise.model.footprint import Adapter
from rankwise.plan.target import rank_of, scaling_of


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
    """

    factors: Mapping[str, Factor]
    biases: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    dropout: float = 0.0
    init: bool | str = True
    dora: bool = False


def plan_adapter(adapter: Adapter) -> AdapterPlan:
    """The plan of an adapter whose modules and ranks are settled."""
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
    )
