"""The bank: the adapters of a cohort, stacked beside the modules of one frozen model.

`Bank` puts a module of `layers.py` in the place of every module that some run trains, hands out
each run's weights as ordinary parameters (views of the stacked ones, gradients included), and
takes the frozen model apart from them again. `WholeModel` gives full fine-tuning the same face.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.adapters.adapter import Adapter, fresh_weights, initial_factors, seed_of
from rankwise.base.modules import kept_precise, within
from rankwise.errors import ModelError
from rankwise.train.batch import BatchKey
from rankwise.train.layers import (
    Banked,
    BankedBias,
    BankedDora,
    BankedLinear,
    BankedModule,
    Selection,
)

FROM_WEIGHT = ("pissa", "olora")  # initialisations made from the weight, and taken off it


class Bank:
    """The adapters of K runs in one frozen model.

    Args:
        model: The frozen model; changed in place until `take_apart`.
        plans: What each run trains.
        seeds: The seed of each run; equal seeds start equal.
        new_modules: Modules whose weights the base did not bring (a fresh classifier): they are
            drawn anew from each run's seed.
    """

    def __init__(
        self,
        model: nn.Module,
        plans: Sequence[Adapter],
        seeds: Sequence[int],
        new_modules: Sequence[str] = (),
    ) -> None:
        self.model: Any = model
        self.plans = tuple(plans)
        self.seeds = tuple(seeds)
        self.originals: dict[str, nn.Module] = {}
        self.linears: dict[str, BankedLinear] = {}
        self.biases: dict[str, BankedBias] = {}
        self.modules: dict[str, BankedModule] = {}
        self.selection = Selection(tuple(range(len(plans))))
        last = kept_precise(model)
        wholes = self._whole_modules()
        self._wrap_linears()
        self._wrap_biases()
        self._wrap_modules(wholes, new_modules, last)
        self.views = [self._views_of(run) for run in range(len(self.plans))]
        self.selection.runs = ()

    def _wrap_linears(self) -> None:
        names = sorted({name for plan in self.plans for name in plan.modules})
        for name in names:
            members = [k for k, plan in enumerate(self.plans) if name in plan.modules]
            adapted = [self.plans[k].modules[name] for k in members]
            base = self.model.get_submodule(name)
            rank = max(module.rank for module in adapted)
            shape = (adapted[0].in_features, adapted[0].out_features, rank)
            kind = BankedDora if self.plans[members[0]].dora else BankedLinear
            # Numbered by name, not by place: masks do not depend on what neighbours adapt.
            layer = kind(base, members, self.selection, shape, seed_of(name) & 0xFFFFFFFF)
            layer.dropout = [self.plans[k].dropout for k in members]
            layer.ranks = [module.rank for module in adapted]
            for slot, (run, module) in enumerate(zip(members, adapted, strict=True)):
                layer.scaling[slot] = module.scaling
                _start(layer, slot, self.plans[run].init, f"{self.seeds[run]}/{name}")
            if isinstance(layer, BankedDora):
                layer.start_magnitude()
            self._replace(name, layer)
            self.linears[name] = layer

    def _wrap_biases(self) -> None:
        for name in sorted({name for plan in self.plans for name in plan.biases}):
            members = [k for k, plan in enumerate(self.plans) if name in plan.biases]
            base: Any = self.model.get_submodule(name)
            layer = BankedBias(base, members, self.selection, base.bias)
            self._replace(name, layer)
            self.biases[name] = layer

    def _whole_modules(self) -> dict[str, nn.Module]:
        """Modules that some run trains in full, before anything in them is replaced.

        Where another run adapts a part of one, it is copied, so that this remains so.
        """
        parts = {name for plan in self.plans for name in (*plan.modules, *plan.biases)}
        found = {}
        for name in sorted({name for plan in self.plans for name in plan.saved}):
            module = self.model.get_submodule(name)
            if not all(p.is_floating_point() for p in module.parameters()):
                raise ModelError(
                    f'lora.modules_to_save: "{name}" is quantised and cannot be trained in full; '
                    f"leave it out, adapt it by lora.target_modules, or use quantization: none"
                )
            shared = any(within(part, [name]) for part in parts)
            found[name] = copy.deepcopy(module) if shared else module
        return found

    def _wrap_modules(
        self, wholes: Mapping[str, nn.Module], new_modules: Sequence[str], last: Sequence[str]
    ) -> None:
        for name, whole in wholes.items():
            members = [k for k, plan in enumerate(self.plans) if name in plan.saved]
            base = self.model.get_submodule(name)
            # What a head or the output layer computes is a logit, and stays fp32.
            dtype = None if within(name, last) else next(whole.parameters()).dtype
            layer = BankedModule(base, members, self.selection, whole, dtype)
            for slot, run in enumerate(members):
                fresh = fresh_weights(self.model, name, self.seeds[run], new_modules)
                for leaf, weight in fresh.items():
                    layer.stacked[layer.names.index(leaf)].data[slot] = weight
            self._replace(name, layer)
            self.modules[name] = layer

    def _replace(self, name: str, layer: Banked) -> None:
        self.originals.setdefault(name, self.model.get_submodule(name))
        parent, _, leaf = name.rpartition(".")
        setattr(self.model.get_submodule(parent), leaf, layer)

    def take_apart(self) -> None:
        """Leave the frozen model as it was."""
        for name, module in reversed(self.originals.items()):
            parent, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(parent), leaf, module)

    @contextmanager
    def running(self, runs: Sequence[int], key: BatchKey | None = None) -> Iterator[Any]:
        """The model, expecting a batch of these runs, one after the other.

        Outside of this context, and with no runs, it is the untouched base.

        Args:
            runs: Their numbers; block k of a batch is computed with the weights of the k-th.
            key: Which batch comes, for dropout; None: no dropout.
        """
        before = self.selection.runs, self.selection.key
        self.selection.runs, self.selection.key = tuple(runs), key
        try:
            # The precision is that of the frozen base, nothing is cast.
            with torch.autocast(next(self.model.parameters()).device.type, enabled=False):
                yield self.model
        finally:
            self.selection.runs, self.selection.key = before

    def stacked(self, run: int) -> list[tuple[str, nn.Parameter, int]]:
        """(name, stacked parameter, slot) of every weight that a run trains, unpadded name."""
        found: list[tuple[str, nn.Parameter, int]] = []
        for name, linear in self.linears.items():
            if run in linear.slot_of:
                slot = linear.slot_of[run]
                found.append((f"{name}.lora_A.weight", linear.lora_A, slot))
                found.append((f"{name}.lora_B.weight", linear.lora_B, slot))
                if isinstance(linear, BankedDora):
                    found.append((f"{name}.lora_magnitude_vector", linear.magnitude, slot))
        for name, biased in self.biases.items():
            if run in biased.slot_of:
                found.append((f"{name}.bias", biased.trained_bias, biased.slot_of[run]))
        for name, module in self.modules.items():
            if run in module.slot_of:
                for leaf, parameter in zip(module.names, module.stacked, strict=True):
                    found.append((f"{name}.{leaf}", parameter, module.slot_of[run]))
        return found

    def _views_of(self, run: int) -> dict[str, nn.Parameter]:
        views = {}
        for name, stacked, slot in self.stacked(run):
            if stacked.grad is None:
                stacked.grad = torch.zeros_like(stacked)
            view = nn.Parameter(stacked.data[slot])
            view.grad = stacked.grad[slot]
            views[name] = view
        return views

    def parameters_of(self, run: int, padding: bool = True) -> dict[str, nn.Parameter]:
        """A run's weights by name; changing one changes the bank, and its `.grad` is the bank's.

        Without `padding` they have the run's own rank, and need not be contiguous.
        """
        if padding:
            return self.views[run]
        narrow = {}
        for name, view in self.views[run].items():
            own = self._own(run, name)
            narrow[name] = nn.Parameter(view.data[own])
            narrow[name].grad = None if view.grad is None else view.grad[own]
        return narrow

    def state_of(self, run: int) -> dict[str, Tensor]:
        """A copy of a run's weights on the CPU, without the padding to the largest rank."""
        return self.unpadded(run, self.views[run])

    def unpadded(self, run: int, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies on the CPU of tensors shaped as a run's weights, without the padding.

        Args:
            run: Its number.
            held: By the names of its weights: these, their gradients or their moments.
        """
        return {
            name: value.detach()[self._own(run, name)].to("cpu", copy=True).contiguous()
            for name, value in held.items()
        }

    def padded(self, run: int, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The reverse of `unpadded`: new tensors on the device, zero in the padding."""
        found = {}
        for name, view in self.views[run].items():
            found[name] = torch.zeros_like(view, requires_grad=False)
            found[name][self._own(run, name)] = state[name].to(view.device)
        return found

    def _own(self, run: int, name: str) -> tuple[slice, ...]:
        """Which part of a stacked weight is the run's own."""
        module, _, kind = name.rpartition(".lora_")
        if module not in self.linears or kind == "magnitude_vector":
            return (slice(None),)
        linear = self.linears[module]
        rank = slice(linear.ranks[linear.slot_of[run]])
        return (rank,) if kind == "A.weight" else (slice(None), rank)

    def start_of(self, run: int) -> dict[str, Tensor]:
        """The first factors of an adapter that does not start at zero (PiSSA, OLoRA)."""
        state: dict[str, Tensor] = {}
        if self.plans[run].init not in FROM_WEIGHT:
            return state
        for name in self.plans[run].modules:
            layer = self.linears[name]
            assert layer.start_A is not None
            assert layer.start_B is not None
            slot, rank = layer.slot_of[run], layer.ranks[layer.slot_of[run]]
            state[f"{name}.lora_A.weight"] = layer.start_A[slot, :rank].cpu()
            state[f"{name}.lora_B.weight"] = layer.start_B[slot, :, :rank].cpu()
        return state

    def load_state(self, run: int, state: Mapping[str, Tensor]) -> None:
        """Set a run's weights from `state_of`."""
        for name, value in self.padded(run, state).items():
            self.views[run][name].data.copy_(value)

    def load_gradients(self, run: int, gradients: Mapping[str, Tensor]) -> None:
        """Set the gradients that an accumulation window has come to, as `unpadded` gave them."""
        for name, value in self.padded(run, gradients).items():
            grad = self.views[run][name].grad
            assert grad is not None
            grad.copy_(value)


class WholeModel:
    """Full fine-tuning with the interface of a bank that holds one run."""

    def __init__(
        self, model: nn.Module, dtype: torch.dtype, seed: int, new_modules: Sequence[str] = ()
    ) -> None:
        self.model: Any = model.float()
        self.dtype = dtype
        for name, weight in fresh_weights(model, "", seed, new_modules).items():
            model.get_parameter(name).data.copy_(weight)
        self.model.requires_grad_(True)
        self.parameters = dict(model.named_parameters())
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter)

    @contextmanager
    def running(self, runs: Sequence[int] = (0,), key: BatchKey | None = None) -> Iterator[Any]:
        """The model: fp32 weights, products in the study's precision. There is one run only."""
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype != torch.float32):
            yield self.model

    def parameters_of(self, run: int, padding: bool = True) -> dict[str, nn.Parameter]:
        """Every weight of the model."""
        return self.parameters

    def state_of(self, run: int) -> dict[str, Tensor]:
        """A copy of every weight on the CPU."""
        return self.unpadded(run, self.parameters)

    def unpadded(self, run: int, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies on the CPU of tensors shaped as the weights."""
        return {name: value.detach().to("cpu", copy=True) for name, value in held.items()}

    def padded(self, run: int, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies on the model's device; there is no padding."""
        return {name: state[name].to(p.device, copy=True) for name, p in self.parameters.items()}

    def start_of(self, run: int) -> dict[str, Tensor]:
        """Nothing is taken off the base."""
        return {}

    def load_state(self, run: int, state: Mapping[str, Tensor]) -> None:
        """Set every weight from `state_of`."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(state[name])

    def load_gradients(self, run: int, gradients: Mapping[str, Tensor]) -> None:
        """Set the gradients that an accumulation window has come to."""
        for name, parameter in self.parameters.items():
            assert parameter.grad is not None
            parameter.grad.copy_(gradients[name])


Trainable = Bank | WholeModel


def _start(layer: BankedLinear, slot: int, init: bool | str, key: str) -> None:
    """Set a member's first factors; PiSSA and OLoRA also note what to take off the base."""
    rank = layer.ranks[slot]
    a_RI, b_OR = initial_factors(layer.base, init, rank, float(layer.scaling[slot]), key)
    layer.lora_A.data[slot, :rank] = a_RI
    layer.lora_B.data[slot, :, :rank] = b_OR
    if init in FROM_WEIGHT:
        if layer.start_A is None or layer.start_B is None:
            layer.start_A = torch.zeros_like(layer.lora_A.data)
            layer.start_B = torch.zeros_like(layer.lora_B.data)
        layer.start_A[slot, :rank] = a_RI
        layer.start_B[slot, :, :rank] = b_OR
