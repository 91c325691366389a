"""Two short trials: is this cohort exact on this model, and what does an arm cost alone?

Some models hand a target module something other than the batch: DeBERTa-v2 sends its position
embeddings through the query projection, experts of a mixture get the tokens routed to them. There
a bank would be silently wrong. So every cohort is tried before it trains.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from rankwise.cohort.bank import Bank, Trainable, seed_of
from rankwise.cohort.batch import Part
from rankwise.cohort.loss import Batch, row_losses

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


@dataclass(frozen=True)
class Agreement:
    """Largest difference of a row's loss between company and solitude, relative to the loss."""

    difference: float
    tolerance: float
    failure: str | None = None

    @property
    def exact(self) -> bool:
        """Whether the runs may train together."""
        return self.failure is None and self.difference <= self.tolerance


@torch.no_grad()
def probe_company(bank: Bank, task: str, batch_of_one: Batch, dtype: torch.dtype) -> Agreement:
    """Compare the bank's losses with those of each run alone, on the same rows.

    The adapters are shaken for the trial (a fresh one changes nothing) and put back after it.
    Every run sees the same rows, so that only its own weights tell it from its neighbours.

    Args:
        bank: The cohort.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        batch_of_one: A few rows, for one run.
        dtype: Precision of the base, which sets the tolerance.
    """
    runs = list(bank.selected)
    kept = {run: bank.state_of(run) for run in runs}
    tolerance = TOLERANCE[dtype]
    bank.set_batch(None)
    try:
        for run in runs:
            _shake(bank.parameters_of(run), run)
        together_KN = row_losses(bank.model, task, _repeated(batch_of_one, len(runs))).total
        alone = []
        for run in runs:
            bank.select([run])
            alone.append(row_losses(bank.model, task, batch_of_one).total)
    except RuntimeError as error:  # shapes that K does not divide
        return Agreement(float("inf"), tolerance, str(error).splitlines()[0])
    finally:
        bank.select(runs)
        for run in runs:
            bank.load_state(run, kept[run])
    alone_KN = torch.cat(alone)
    difference = (together_KN - alone_KN).abs() / alone_KN.abs().clamp_min(1.0)
    return Agreement(float(difference.nan_to_num(torch.inf).max()), tolerance)


def _shake(parameters: dict[str, nn.Parameter], run: int) -> None:
    generator = torch.Generator().manual_seed(seed_of(f"probe/{run}"))
    for parameter in parameters.values():
        noise = torch.empty(parameter.shape).normal_(0, 0.02, generator=generator)
        parameter.data.add_(noise.to(parameter.device))


def _repeated(batch: Batch, runs: int) -> Batch:
    return Batch(
        *(
            tensor.repeat(runs, *[1] * (tensor.dim() - 1))
            for tensor in (batch.input_ids, batch.attention_mask, batch.labels)
        )
    )


@dataclass(frozen=True)
class SoloCost:
    """What one arm costs alone: seconds of an optimizer step, bytes it holds while training."""

    step_seconds: float
    memory_bytes: float
    memory_path: str


def probe_cost(
    bank: Trainable, task: str, parts: Sequence[Part], accumulation: int, weights: int, trials: int
) -> SoloCost:
    """Time and memory of one run alone; no weight is changed.

    Memory on the CPU is counted, not sampled: the frozen weights (`weights` bytes), the trained
    weights with gradient and two AdamW moments, and all tensors that autograd kept for the
    backward pass of the largest part, each storage once. On CUDA it is the allocator's peak.

    Args:
        bank: With one run selected.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        parts: The parts of one batch of this run.
        accumulation: Batches in an optimizer step.
        weights: Bytes of the frozen base.
        trials: Steps to time; their median counts.
    """
    parameters = bank.parameters_of(bank.selected[0])
    device = next(iter(parameters.values())).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    kept: dict[int, int] = {}
    frozen = {p.untyped_storage().data_ptr() for p in bank.model.parameters()}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in frozen:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    largest = 0
    seconds = []
    for trial in range(trials + 1):
        started = time.perf_counter()
        for part in parts:
            kept.clear()
            with saved_tensors_hooks(count, lambda t: t) if trial == 0 else bank.context():
                bank.set_batch(part.key)
                with bank.context():
                    loss = row_losses(bank.model, task, part.batch).total.sum()
                largest = max(largest, sum(kept.values()))
            loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if trial > 0:
            seconds.append((time.perf_counter() - started) * accumulation)
    for parameter in parameters.values():
        if parameter.grad is not None:
            parameter.grad.zero_()
    bank.set_batch(None)
    if device.type == "cuda":
        peak = float(torch.cuda.max_memory_allocated(device))
        return SoloCost(statistics.median(seconds), peak, "peak of the CUDA allocator")
    trained = 16 * sum(p.numel() for p in parameters.values())
    return SoloCost(
        statistics.median(seconds), weights + trained + largest, "counted tensors of a step"
    )
