"""What one run trains, module by module, worked out from its arm and the model's structure."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Factor:
    """One adapted module: its shape, the adapter's rank and its scaling (alpha/r as a rule)."""

    inputs: int
    outputs: int
    rank: int
    alpha: float
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
