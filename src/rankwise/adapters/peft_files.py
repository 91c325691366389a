"""Adapters on disk, as peft writes them: adapter_config.json and adapter_model.safetensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rankwise.adapters.adapter import AdapterPlan
from rankwise.base.load import load_base
from rankwise.files import whole_folder
from rankwise.spec.models import ModelSpec

PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterWriter:
    """Writes the best weights of runs in folders under `folder`.

    Attributes:
        folder: The study's `adapters`.
        base_name: Where peft will find the base.
        task: In the words of peft.TaskType.
        model: The base, which writes its own files in full fine-tuning.
    """

    folder: Path
    base_name: str
    task: str
    model: nn.Module

    def save(
        self,
        name: str,
        plan: AdapterPlan | None,
        state: Mapping[str, Tensor],
        start: Mapping[str, Tensor],
    ) -> Path:
        """Write one run's weights; the folder appears whole or not at all.

        Args:
            name: Of the folder, as the store has it.
            plan: What was trained; None for full fine-tuning.
            state: The weights by name, as `Bank.state_of` gives them.
            start: The first factors to take off the base (PiSSA, OLoRA); else empty.
        """
        target = self.folder / name
        with whole_folder(target) as ready:
            if plan is None:
                self.model.save_pretrained(ready, state_dict=dict(state))  # type: ignore[operator]
            else:
                save_file(peft_state(plan, state, start), ready / "adapter_model.safetensors")
                config = peft_config(plan, self.task, self.base_name, bool(start))
                config.save_pretrained(ready)
        return target


def peft_state(
    plan: AdapterPlan, state: Mapping[str, Tensor], start: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights under peft's names.

    An adapter that did not start at zero is written with twice its rank, so that it fits the
    untouched base: B A - B0 A0 = [B, -B0] [A; A0].
    """
    tensors = {}
    for name, value in state.items():
        module = name.removesuffix(".bias")
        if name.endswith(".bias") and module in plan.factors:
            name = f"{module}.base_layer.bias"
        elif name in start:
            value = (
                torch.cat([value, start[name]])
                if name.endswith("lora_A.weight")
                else torch.cat([value, -start[name]], dim=1)
            )
        tensors[PREFIX + name] = value.contiguous()
    return tensors


def peft_config(plan: AdapterPlan, task: str, base_name: str, doubled: bool) -> Any:
    """The peft.LoraConfig that loads these weights on the untouched base.

    Scaling is written as alpha over r in every case, so that no other rule need be known.
    """
    from peft import LoraConfig

    double = 2 if doubled else 1
    ranks = {name: factor.rank * double for name, factor in plan.factors.items()}
    alphas = {name: factor.scaling * factor.rank * double for name, factor in plan.factors.items()}
    rank, alpha = _commonest(ranks.values()), _commonest(alphas.values())
    return LoraConfig(
        task_type=task,
        base_model_name_or_path=base_name,
        inference_mode=True,
        r=rank,
        lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,
        lora_dropout=plan.dropout,
        target_modules=list(plan.target_modules),
        rank_pattern={f"^{name}": r for name, r in ranks.items() if r != rank},
        alpha_pattern={f"^{name}": a for name, a in alphas.items() if a != alpha},
        bias=_bias_word(plan),
        use_dora=plan.dora,
        fan_in_fan_out=plan.fan_in_fan_out,
        modules_to_save=list(plan.saved) or None,
    )


def _commonest(values: Any) -> Any:
    counted = list(values)
    return max(sorted(set(counted)), key=counted.count) if counted else 8


def _bias_word(plan: AdapterPlan) -> str:
    if not plan.biases:
        return "none"
    return "lora_only" if set(plan.biases) <= set(plan.factors) else "all"


def merged_model(
    source: Path, spec: ModelSpec, task: str, num_labels: int | None, pad_token_id: int
) -> Any:
    """The base, unquantised, fp32 and on the CPU, with the adapter in `source` merged into it.

    Args:
        source: An adapter in peft's format.
        spec: The base; its precision and quantisation are those of the training, not of this.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        num_labels: Classes, for SEQ_CLS.
        pad_token_id: Told to the model.
    """
    from peft import PeftModel

    whole = spec.model_copy(update={"dtype": "float32", "quantization": "none"})
    base = load_base(whole, task, num_labels, torch.device("cpu"), pad_token_id, "eager").model
    return PeftModel.from_pretrained(base, source).merge_and_unload()
