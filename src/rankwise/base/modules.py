"""The modules of a model that are trained: linear ones by an adapter, heads and others in full."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from rankwise.errors import SpecError
from rankwise.spec.models import LoraSpec
from rankwise.spec.tasks import TASKS, has_classes
from rankwise.text import nearest

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


@dataclass(frozen=True)
class Gaps:
    """Where a base is not whole, for what is trained on it.

    Attributes:
        absent: Full names of weights that the checkpoint did not bring, or of another shape. They
            are drawn from a run's seed, so they must be trained and saved with it.
        unreached: Full names of modules through which rows do not pass, such as those of the
            vision tower where rows are text. They get no gradient, and no adapter.
        compound: Full names of modules that take or give more than one tensor. Neither they nor
            a bias of their own can be trained for many runs at once.
    """

    absent: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()
    compound: tuple[str, ...] = ()

    @property
    def absent_modules(self) -> tuple[str, ...]:
        """Full names of the modules whose own weights are absent."""
        return tuple(dict.fromkeys(name.rpartition(".")[0] for name in self.absent))


WHOLE = Gaps()


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


HEADS = ("classifier", "score")  # what peft trains in full for task SEQ_CLS


def kind_of(model: nn.Module) -> str:
    """What to call a model in a message: its transformers type."""
    return str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))


def input_embeddings(model: Any) -> nn.Module:
    """The table in which a model looks up the tokens of its input; of an encoder-decoder, the
    encoder's: `get_input_embeddings` may name a table there that nothing calls (T5, BART).

    Raises:
        NotImplementedError, AttributeError: it has none.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    table: nn.Module = model.get_input_embeddings()
    return table


def task_of(model: nn.Module) -> str | None:
    """The task that a model is made for, by the name of its class; None where that tells none."""
    for name, kind in TASKS.items():
        if type(model).__name__.endswith(kind.auto_class.removeprefix("AutoModel")):
            return name
    return None


def saved_modules(
    model: nn.Module, lora: LoraSpec, task: str, gaps: Gaps = WHOLE
) -> tuple[str, ...]:
    """Full names of the modules that are trained in full beside the adapter, in the model's order.

    peft takes every module whose full name *ends* with one of the patterns, so that DistilBERT's
    pre_classifier is trained with its classifier. A module inside another one counts with it. To
    these come the modules whose weights the base did not bring.

    Raises:
        SpecError: a name in lora.modules_to_save matches no module with weights, or one that
            cannot be trained so; or a classifier's head bears neither of the names that peft
            knows, so that it would stay as it was drawn.
    """
    names = [name for name, module in model.named_modules() if name and has_weights(module)]
    for one in lora.modules_to_save:
        if not any(name.endswith(one) for name in names):
            raise SpecError(
                f'lora.modules_to_save: "{one}" matches no module of {kind_of(model)}'
                f"{nearest(one, last_names(names))}"
            )
    found = saved_names(model, lora, task)
    if has_classes(task) and not found:
        children = ", ".join(name for name, _ in model.named_children())
        raise SpecError(
            f"lora.modules_to_save: {kind_of(model)} has no head called {' or '.join(HEADS)}; give "
            f"the name of its head, which is one of: {children}"
        )
    for name in found:
        if name in gaps.compound:
            raise SpecError(
                f'lora.modules_to_save: "{name}" takes or gives more than one tensor, and cannot '
                f"be trained in full for each run of a cohort; name modules inside it"
            )
    others = {name for name in gaps.absent_modules if not within(name, found)}
    for name in others:
        if not name or any(True for _ in model.get_submodule(name).children()):
            raise SpecError(
                f"model.name: the checkpoint of this {kind_of(model)} has no weights for parts of "
                f'"{name or "the model"}", which cannot be trained beside an adapter; use a '
                f"checkpoint that has them, or method: full"
            )
    return tuple(name for name, _ in model.named_modules() if name in others or name in found)


def saved_patterns(lora: LoraSpec, task: str | None) -> tuple[str, ...]:
    """peft's modules_to_save: the user's, and for a classifier its head by either name."""
    return (*lora.modules_to_save, *(HEADS if has_classes(task) else ()))


def saved_names(model: nn.Module, lora: LoraSpec, task: str | None) -> tuple[str, ...]:
    """As `saved_modules`, without its checks."""
    patterns = saved_patterns(lora, task)
    found: list[str] = []
    for name, module in model.named_modules():
        if name and name.endswith(patterns) and not within(name, found) and has_weights(module):
            found.append(name)
    return tuple(found)


def has_weights(module: nn.Module) -> bool:
    """Whether there is anything to train in a module."""
    return any(True for _ in module.parameters())


def kept_precise(model: nn.Module) -> tuple[str, ...]:
    """Names of modules that are not quantised: the output layer, a head, what must stay fp32.

    transformers leaves out the first and the last of its own accord (T5's `wo`); a classifier's
    head must be added, as it is trained in full.
    """
    output = getattr(model, "get_output_embeddings", lambda: None)()
    kept = [name for name, module in model.named_modules() if module is output]
    kept += saved_names(model, LoraSpec.model_validate({}), task_of(model))
    precise = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
    if precise:
        kept += [name for name, _ in model.named_modules() if name.endswith(precise)]
    return tuple(dict.fromkeys(kept))


def within(name: str, modules: Sequence[str]) -> bool:
    """Whether `name` is one of the modules or inside one of them."""
    return any(name == one or name.startswith(f"{one}.") for one in modules)


def last_names(names: Iterable[str]) -> list[str]:
    """The last parts of dotted names, each once."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))
