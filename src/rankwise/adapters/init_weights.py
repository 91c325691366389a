"""How trained weights start: factors as peft starts them, heads as their model does.

All are drawn from a key instead of global state.
"""

import copy
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.base.heads import within
from rankwise.errors import SpecError


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
