"""How many parameters a configuration trains (exactly) and what memory it takes (about)."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from rankwise.adapters.adapter import Adapter
from rankwise.adapters.ranks import cost_of
from rankwise.base.modules import Target, kept_precise, linear_modules, within
from rankwise.base.skeleton import text_config
from rankwise.errors import SpecError
from rankwise.spec.arms import Arm
from rankwise.spec.tasks import has_classes


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


BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TRAINED = 8  # bytes a trained parameter: itself and its gradient, fp32


def optimizer_bytes(optim: str, shapes: Iterable[Sequence[int]]) -> int:
    """Bytes that an optimizer keeps of trained weights of these shapes, fp32.

    AdamW: two moments. Adafactor: a value for each row and each column, of a vector one for each
    element (Shazeer and Stern 2018, section 3). SGD without momentum: nothing.
    """
    kinds: dict[str, Callable[[Sequence[int]], int]] = {
        "adamw_torch": lambda shape: 2 * math.prod(shape),
        "adafactor": _factors,
        "sgd": lambda shape: 0,
    }
    return 4 * sum(kinds[optim](shape) for shape in shapes)


def _factors(shape: Sequence[int]) -> int:
    if len(shape) < 2:
        return math.prod(shape)
    return math.prod(shape[:-1]) + math.prod([*shape[:-2], shape[-1]])


def trained_bytes(optim: str, shapes: Iterable[Sequence[int]]) -> int:
    """Bytes that trained weights of these shapes take with gradients and `optimizer_bytes`."""
    shapes = list(shapes)
    return TRAINED * sum(map(math.prod, shapes)) + optimizer_bytes(optim, shapes)


def trained_shapes(model: nn.Module, adapter: Adapter | None) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that a configuration trains; arguments as in `footprint`."""
    if adapter is None:
        every = model.named_parameters()
        return {name: tuple(p.shape) for name, p in every if p.requires_grad}
    found: dict[str, tuple[int, ...]] = {}
    for name, module in adapter.modules.items():
        found[f"{name}.lora_A.weight"] = (module.rank, module.in_features)
        found[f"{name}.lora_B.weight"] = (module.out_features, module.rank)
        if adapter.dora:
            found[f"{name}.lora_magnitude_vector"] = (module.out_features,)
    for name in adapter.biases:
        found[f"{name}.bias"] = tuple(model.get_parameter(f"{name}.bias").shape)
    for name in adapter.saved:
        for leaf, parameter in model.get_submodule(name).named_parameters(prefix=name):
            found[leaf] = tuple(parameter.shape)
    return found


@dataclass(frozen=True)
class Memory:
    """Predicted memory of a run in bytes; an estimate, but for `base` without quantisation.

    Attributes:
        base: frozen weights, shared by all runs of a cohort.
        trained: the run's own weights, gradients and optimizer states.
        activations: what the backward pass of one batch holds.
        logits: outputs over the vocabulary, their fp32 copy and its gradient.
    """

    base: int
    trained: int
    activations: int
    logits: int

    @property
    def own(self) -> int:
        """Bytes that each further run of a cohort adds."""
        return self.trained + self.activations + self.logits

    @property
    def alone(self) -> int:
        """Bytes of the run by itself."""
        return self.base + self.own


def predict_memory(
    model: nn.Module,
    arm: Arm,
    adapter: Adapter | None,
    task: str,
    tokens: int,
    dtype: str,
    double_quant: bool = True,
    attention: str = "eager",
) -> Memory:
    """About how much memory a run takes, from its model's structure.

    base: bytes of every weight in `dtype`; of quantised ones see `weight_bytes`.
    trained: 8 bytes a trained parameter (weight and gradient, fp32), and `optimizer_bytes`.
    activations, per token and in `dtype`: the outputs of all linear and normalising modules; the
        inputs of the adapted ones (once for neighbours such as query, key and value, and once
        more for each with adapter dropout) and their inner r values; three more for each inner
        value of an MLP with GPT-2's `gelu_new`; and with eager attention heads x tokens of
        probabilities a layer.
    logits, per token: vocabulary x (dtype + 8 bytes), for language models.

    It leaves out the allocator's slack, temporary buffers and what libraries hold. What autograd
    holds on tiny models of six architectures is 0.69 to 1.09 of the predicted activations.

    Args:
        model: the base model on any device.
        arm: gives rows of a batch and quantisation.
        adapter: what is trained; None for full fine-tuning.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        tokens: tokens of a row (for SEQ_2_SEQ_LM of the input and of the target).
        dtype: float32, bfloat16 or float16; full fine-tuning counts as float32.
        double_quant: of nf4, whether its constants are quantised as well.
        attention: eager, sdpa or flash_attention_2.
    """
    linear = linear_modules(model)
    width = BYTES["float32" if adapter is None else dtype]
    held = sum(t.out_features for t in linear if t.layer is not None) + _norm_widths(model)
    if adapter is None:
        base, held = 0, held + sum(t.in_features for t in linear)
    else:
        modules = adapter.modules.values()
        base = weight_bytes(model, dtype, arm.quantization, double_quant)
        held += sum(module.rank for module in modules) + _inputs(modules)
        if adapter.dropout:
            held += sum(module.in_features for module in modules)
    config = text_config(model)
    if getattr(config, "activation_function", getattr(config, "hidden_act", "")) == "gelu_new":
        held += 3 * sum(t.out_features for t in linear if t.role == "mlp" and _widens(t))
    if attention == "eager":
        layers = sum(t.role == "attention-out" for t in linear)
        held += layers * int(getattr(config, "num_attention_heads", 1)) * tokens
    rows_tokens = arm.training.per_device_train_batch_size * tokens
    vocabulary = 0 if has_classes(task) else int(getattr(config, "vocab_size", 0))
    return Memory(
        base=base,
        trained=trained_bytes(arm.training.optim, trained_shapes(model, adapter).values()),
        activations=rows_tokens * held * width,
        logits=rows_tokens * vocabulary * (width + 8),
    )


def _inputs(targets: Iterable[Target]) -> int:
    """Values that the adapted modules read for a token; neighbours of one width read the same."""
    return sum(width for _, width in {(t.name.rpartition(".")[0], t.in_features) for t in targets})


def _widens(target: Target) -> bool:
    return target.out_features > target.in_features


def _norm_widths(model: nn.Module) -> int:
    """Values that the normalising modules put out for a token."""
    return sum(
        module.get_parameter("weight").numel()
        for module in model.modules()
        if "norm" in type(module).__name__.lower()
        and isinstance(getattr(module, "weight", None), nn.Parameter)
    )


def weight_bytes(model: nn.Module, dtype: str, quantization: str, double_quant: bool) -> int:
    """Bytes of the frozen weights; quantised are linear modules, but for `kept_precise` ones.

    nf4: half a byte a weight, and for each block of 64 a constant of 4 bytes; with double
    quantisation of 1 byte, plus 4 bytes for 256 blocks (Dettmers et al. 2023, section 3).
    int8: a byte a weight, and 4 bytes for each output.
    """
    width = BYTES[dtype]
    total = width * sum(p.numel() for p in model.parameters())
    if quantization == "none":
        return total
    kept = kept_precise(model)
    for target in linear_modules(model):
        if within(target.name, kept):
            continue
        size = target.in_features * target.out_features
        blocks = -(-size // 64)
        if quantization == "nf4":
            constants = blocks + 4 * -(-blocks // 256) if double_quant else 4 * blocks
            total += -(-size // 2) + constants - width * size
        elif quantization == "int8":
            total += size + 4 * target.out_features - width * size
        else:
            raise SpecError(f"model.quantization: {quantization!r} is not known")
    return total


def cohort_bytes(runs: Sequence[Memory]) -> int:
    """About the memory of runs trained together: one base, and each as large as the largest."""
    return max(run.base for run in runs) + len(runs) * max(run.own for run in runs)


def max_runs(limit: float, runs: Sequence[Memory]) -> int:
    """How many of `runs`, from the first on, fit together into `limit` bytes; at least one."""
    count = 1
    while count < len(runs) and cohort_bytes(runs[: count + 1]) <= limit:
        count += 1
    return count
