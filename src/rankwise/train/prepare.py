"""What a cohort needs before it trains: the frozen base, the faster attention, its bank."""

import time
from collections.abc import Sequence

import torch
from torch import nn

from rankwise.adapters.adapter import Adapter
from rankwise.base.load import Base, load_base
from rankwise.spec.models import ModelSpec
from rankwise.tasks.by_name import row_losses
from rankwise.tasks.losses import Batch
from rankwise.train.bank import Bank, Trainable, WholeModel
from rankwise.train.batch import Part

ATTENTIONS = ("eager", "sdpa")


class Bases:
    """Loads frozen bases and keeps the one in use.

    Args:
        spec: The base model of the study.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        num_labels: Classes, for SEQ_CLS.
        pad_token_id: Told to the model.
        device: Where bases go.
        attention: The kernel to load with; `choose_attention` may change it.
    """

    def __init__(
        self,
        spec: ModelSpec,
        task: str,
        num_labels: int | None,
        pad_token_id: int,
        device: torch.device,
        attention: str,
    ) -> None:
        self.spec, self.task, self.num_labels = spec, task, num_labels
        self.pad_token_id, self.device, self.attention = pad_token_id, device, attention
        self.quantization: str | None = None
        self.current: Base | None = None

    def frozen(self, quantization: str) -> Base:
        """The base under this quantisation; another one held before is let go."""
        if self.current is None or self.quantization != quantization:
            self.current = None
            self.current = self._load(quantization)
            self.quantization = quantization
        return self.current

    def whole(self) -> Base:
        """A base of its own for full fine-tuning, which leaves none of it as it was."""
        self.current = None
        return self._load("none")

    def let_go(self) -> None:
        """Free the memory of the base that is held."""
        self.current = None

    def _load(self, quantization: str) -> Base:
        spec = self.spec.model_copy(update={"quantization": quantization})
        attention = ATTENTIONS[0] if self.attention == "auto" else self.attention
        return load_base(
            spec, self.task, self.num_labels, self.device, self.pad_token_id, attention
        )


def make_bank(base: Base, plans: Sequence[Adapter | None], seeds: Sequence[int]) -> Trainable:
    """The bank of a cohort; a single run without a plan trains the whole model."""
    first = plans[0]
    if first is None:
        return WholeModel(base.model, base.dtype, seeds[0], base.new_modules)
    return Bank(base.model, [p for p in plans if p is not None], seeds, base.new_modules)


def choose_attention(model: nn.Module, task: str, batch: Batch, trials: int = 3) -> str:
    """The faster of eager and sdpa for a training step on this batch, by a short measurement.

    On CPUs sdpa is often the slower one in training, so it has to be measured. The study keeps
    what was chosen when it began, as the two differ in the last digits.
    """
    seconds: dict[str, float] = {}
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    for weight in embeddings:
        weight.requires_grad_(True)  # so that there is a backward pass to time
    for attention in ATTENTIONS:
        if attention == "sdpa" and not getattr(model, "_supports_sdpa", False):
            continue  # set all the same, it would refuse to load so later
        try:
            model.set_attn_implementation(attention)  # type: ignore[operator]
        except ValueError:  # a model without it
            continue
        for trial in range(trials + 1):
            started = time.perf_counter()
            torch.autograd.backward(row_losses(model, task, batch).total.sum())
            _wait_for(batch.input_ids.device)
            if trial:
                took = time.perf_counter() - started
                seconds[attention] = min(took, seconds.get(attention, took))
    for weight in embeddings:
        weight.requires_grad_(False)
        weight.grad = None
    fastest = min(seconds, key=lambda name: seconds[name])
    model.set_attn_implementation(fastest)  # type: ignore[operator]
    return fastest


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def first_rows(parts: Sequence[Part], rows: int) -> Batch:
    """The first rows of the first part, as a batch of one run."""
    batch = parts[0].batch
    return Batch(batch.input_ids[:rows], batch.attention_mask[:rows], batch.labels[:rows])
