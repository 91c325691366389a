"""How many parameters a configuration trains and holds, to the last one."""

from dataclasses import dataclass

from torch import nn

from rankwise.adapters.adapter import Adapter
from rankwise.adapters.ranks import cost_of


@dataclass(frozen=True)
class Footprint:
    """Numbers of parameters.

    Attributes:
        base: weights of the base model, its head included, tied ones once.
        adapter: A and B.
        magnitudes: DoRA's vectors, one value an output (Liu et al. 2024, eq. 5).
        biases: trained biases, which are part of the base.
        heads: copies of the modules trained in full.
        trainable: all that is trained.
        total: all that is held: base and what the configuration adds, as peft counts it.
    """

    base: int
    adapter: int
    magnitudes: int
    biases: int
    heads: int
    trainable: int
    total: int

    @property
    def share(self) -> float:
        """Trainable parameters as a share of the total."""
        return self.trainable / self.total


def footprint(model: nn.Module, adapter: Adapter | None) -> Footprint:
    """The parameters of a configuration, equal to those of the trained model to the last one.

    Args:
        model: the base model, with its head, on any device.
        adapter: what is trained; None for full fine-tuning.
    """
    base = sum(p.numel() for p in model.parameters())
    if adapter is None:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return Footprint(base, 0, 0, 0, 0, trained, base)
    modules = adapter.modules.values()
    factors = sum(cost_of(module, module.rank) for module in modules)
    magnitudes = sum(module.out_features for module in modules) if adapter.dora else 0
    biases = sum(_size(model, name, "bias") for name in adapter.biases)
    heads = sum(p.numel() for name in adapter.saved for p in model.get_submodule(name).parameters())
    added = factors + magnitudes + heads
    return Footprint(base, factors, magnitudes, biases, heads, added + biases, base + added)


def _size(model: nn.Module, module: str, parameter: str) -> int:
    return model.get_submodule(module).get_parameter(parameter).numel()
