"""The linear modules of a model: their shape, their layer, and what each computes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

Role = Literal["query", "key", "value", "qkv", "attention-out", "mlp", "other"]
ATTENTION: tuple[Role, ...] = ("query", "key", "value", "qkv", "attention-out")

ROLE_OF_NAME: dict[str, Role] = {  # last part of a module's name, lower case, inside attention
    **dict.fromkeys(
        ("q", "query", "q_proj", "q_lin", "query_proj", "q_attn", "wq", "q_a_proj", "q_b_proj"),
        "query",
    ),
    **dict.fromkeys(("k", "key", "k_proj", "k_lin", "key_proj", "wk"), "key"),
    **dict.fromkeys(("v", "value", "v_proj", "v_lin", "value_proj", "wv"), "value"),
    **dict.fromkeys(
        ("c_attn", "query_key_value", "qkv_proj", "wqkv", "qkv", "in_proj", "qkv_lin", "w_pack",
         "kv_proj", "kv_a_proj_with_mqa", "kv_b_proj"),
        "qkv",
    ),
    **dict.fromkeys(
        ("o", "o_proj", "out_proj", "out_lin", "dense", "c_proj", "wo", "proj", "output"),
        "attention-out",
    ),
}  # fmt: skip
ROUTERS = (
    "gate",
    "router",
    "shared_expert_gate",
)  # of a mixture of experts: they choose, they do not compute
LAYER = re.compile(r".*?\.[^.]*\.(?P<layer>\d+)\.")  # peft's: the first numbered part of a name


@dataclass(frozen=True)
class Target:
    """A module that an adapter can sit on.

    Attributes:
        name: full module name in the base model.
        in_features, out_features: shape of the product, whichever way the weight is stored.
        kind: nn.Linear, or transformers' Conv1D (weight stored as (in, out)).
        layer: number of the layer it belongs to, or None.
        role: what it computes; qkv where query, key and value are one matrix.
        has_bias: whether it adds a bias.
    """

    name: str
    in_features: int
    out_features: int
    kind: Literal["linear", "conv1d"]
    layer: int | None
    role: Role
    has_bias: bool


def role_of(name: str) -> Role:
    """What a linear module computes, by the names in use across transformers' models."""
    *parents, leaf = name.lower().split(".")
    if not LAYER.match(name):
        return "other"
    if any("attention" in part or "attn" in part for part in parents):
        return ROLE_OF_NAME.get(leaf, "other")
    if leaf in ROUTERS or any("mixer" in part or "mamba" in part for part in parents):
        return "other"
    return "mlp"


def linear_modules(model: nn.Module) -> tuple[Target, ...]:
    """Every Linear and Conv1D of a model, in the model's order."""
    from transformers.pytorch_utils import Conv1D

    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found.append(_target(name, module, module.in_features, module.out_features))
        elif isinstance(module, Conv1D):
            found.append(_target(name, module, *module.weight.shape))
    return tuple(found)


def _target(name: str, module: nn.Module, inputs: int, outputs: int) -> Target:
    layer = LAYER.match(name)
    return Target(
        name=name,
        in_features=int(inputs),
        out_features=int(outputs),
        kind="linear" if isinstance(module, nn.Linear) else "conv1d",
        layer=int(layer["layer"]) if layer else None,
        role=role_of(name),
        has_bias=module.bias is not None,
    )


def pattern_for(name: str, patterns: Mapping[str, Any]) -> str | None:
    """The first pattern that matches a module's name, or None: peft.utils.get_pattern_key."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", name)), None)
