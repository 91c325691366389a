"""Quantisation of the frozen base by bitsandbytes: its settings, its kernels, its memory."""

from typing import Any

import torch
from torch import nn

from rankwise.base.heads import kept_precise
from rankwise.spec.models import ModelSpec

QUANTISED = ("Linear4bit", "Linear8bitLt")  # of bitsandbytes


def quantization_config(spec: ModelSpec, dtype: torch.dtype, structure: nn.Module) -> Any:
    """bitsandbytes' settings for `quantization: nf4` or `int8`."""
    from transformers import BitsAndBytesConfig

    kept = list(kept_precise(structure))
    if spec.quantization == "int8":
        # Threshold 0: no outlier columns. Those are found over the whole batch, so that a run's
        # numbers would depend on its neighbours.
        return BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_threshold=0.0, llm_int8_skip_modules=kept
        )
    compute = dtype if spec.compute_dtype == "auto" else getattr(torch, spec.compute_dtype)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=spec.double_quant,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=kept,
    )


def keep_one_kernel(model: nn.Module) -> None:
    """Keep bitsandbytes to one way of computing, the one of training.

    In evaluation mode on a CPU its 4-bit modules repack their weights for another kernel at the
    first pass without gradient, and its 8-bit modules quantise activations as well: the frozen
    base would no longer be one function.
    """
    for module in model.modules():
        if type(module).__name__ in QUANTISED:
            module.training = True


def held_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights as loaded, with the constants of quantised ones."""
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    for module in model.modules():
        weight: Any = getattr(module, "weight", None)
        states = [getattr(weight, "quant_state", None)]
        states += [getattr(state, "state2", None) for state in states]
        total += sum(state.absmax.nbytes for state in states if state is not None)
        scales = getattr(weight, "SCB", None)
        total += 0 if scales is None else scales.nbytes
    return total
