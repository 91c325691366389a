"""What is measured before training: is a cohort exact on this model, what does an arm cost alone,
and how much does each module matter to the loss.

Some models hand a target module something other than the batch: DeBERTa-v2 sends its position
embeddings through the query projection, experts of a mixture get the tokens routed to them. There
a bank would be silently wrong. So every cohort is tried before it trains.

How much modules matter is for per-layer ranks of strategy `empirical`, measured on the frozen base.
No gradient of a whole model is held: each module's is made where it arises, turned into one
number, and let go, which works for quantised modules as well.

Legend: N positions (rows x tokens) of a batch, I inputs, O outputs of a module.
"""

import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from rankwise.adapters.adapter import dense_weight, seed_of
from rankwise.adapters.memory import trained_bytes
from rankwise.data.examples import Example
from rankwise.tasks.by_name import row_losses
from rankwise.tasks.losses import Batch
from rankwise.train.bank import Bank, Trainable
from rankwise.train.batch import Part, Task
from rankwise.train.evaluate import evaluate

TIMED_EXAMPLES = 32
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


@dataclass(frozen=True)
class Agreement:
    """Largest difference of a row's loss between runs together and alone, relative to the loss."""

    difference: float
    tolerance: float
    failure: str | None = None

    @property
    def exact(self) -> bool:
        """Whether the runs may train together."""
        return self.failure is None and self.difference <= self.tolerance


@torch.no_grad()
def probe_together(bank: Bank, task: str, batch_of_one: Batch, dtype: torch.dtype) -> Agreement:
    """Compare the losses of runs trained together with those of each run alone, on the same rows.

    Noise is added to the adapters for the trial (a fresh one changes nothing) and taken away
    after it. Every run sees the same rows, so that only its own weights distinguish it.

    Args:
        bank: The cohort's.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.
        batch_of_one: A few rows, for one run.
        dtype: Precision of the base, which sets the tolerance.
    """
    runs = list(range(len(bank.plans)))
    kept = {run: bank.state_of(run) for run in runs}
    tolerance = TOLERANCE[dtype]
    try:
        for run in runs:
            add_noise(bank.parameters_of(run), run)
        with bank.running(runs) as model:
            together_KN = row_losses(model, task, _repeated(batch_of_one, len(runs))).total
        alone = []
        for run in runs:
            with bank.running([run]) as model:
                alone.append(row_losses(model, task, batch_of_one).total)
    except RuntimeError as error:  # shapes that K does not divide
        return Agreement(float("inf"), tolerance, str(error).splitlines()[0])
    finally:
        for run in runs:
            bank.load_state(run, kept[run])
    return Agreement(largest_difference(together_KN, torch.cat(alone)), tolerance)


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two losses, relative to a loss of 1 or more; inf where one is NaN.

    Args:
        found, expected: Losses, of one shape.
    """
    difference = (found - expected).abs() / expected.abs().clamp_min(1.0)
    return float(difference.nan_to_num(torch.inf).max())


def add_noise(parameters: dict[str, nn.Parameter], run: int) -> None:
    """Add normal noise of deviation 0.02 to a run's weights, always the same for its number."""
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
    """What one arm costs alone: seconds of a step and of an evaluation, bytes while training."""

    step_seconds: float
    eval_seconds: float
    memory_bytes: float
    path: str

    def as_dict(self) -> dict[str, Any]:
        """Ready for the store."""
        return asdict(self)


def probe_cost(
    bank: Trainable,
    run: int,
    task: Task,
    parts: Sequence[Part],
    accumulation: int,
    weights: int,
    validation: Sequence[Example],
    trials: int,
    optim: str = "adamw_torch",
) -> SoloCost:
    """Time and memory of one run alone; no weight is changed.

    Memory on the CPU is counted, not sampled: the frozen weights (`weights` bytes), the trained
    weights with gradient and what the optimizer keeps in fp32, and all tensors that autograd kept
    for the backward pass of the largest part, each storage once. On CUDA it is the allocator's
    peak.

    Args:
        bank: Where the run is.
        run: Its number.
        task: How examples become tensors.
        parts: The parts of one batch of this run.
        accumulation: Batches in an optimizer step.
        weights: Bytes of the frozen base.
        validation: What an evaluation reads; a few of these are timed.
        trials: Steps to time; their median counts.
        optim: The run's optimizer, which takes no step here.
    """
    parameters = bank.parameters_of(run)
    device = task.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    kept = max(_kept_bytes(bank, run, task, part) for part in parts)
    seconds = [_seconds_of_a_batch(bank, run, task, parts) for _ in range(trials)]
    for parameter in parameters.values():
        if parameter.grad is not None:
            parameter.grad.zero_()
    trained = trained_bytes(optim, [p.shape for p in parameters.values()])
    memory, path = weights + trained + kept, "counted"
    if device.type == "cuda":
        memory, path = torch.cuda.max_memory_allocated(device), "peak of the CUDA allocator"
    step = statistics.median(seconds) * accumulation
    return SoloCost(step, _evaluation_seconds(bank, run, task, validation), memory, path)


def _kept_bytes(bank: Trainable, run: int, task: Task, part: Part) -> int:
    """Bytes that autograd holds between forward and backward, without the frozen weights."""
    frozen = {p.untyped_storage().data_ptr() for p in bank.model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in frozen:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # a result that its own step saves would keep itself for ever

    with (
        saved_tensors_hooks(count, lambda tensor: tensor),
        bank.running([run], part.key) as model,
    ):
        loss = row_losses(model, task.name, part.batch).total.sum()
    held = sum(kept.values())
    del loss
    return held


def _seconds_of_a_batch(bank: Trainable, run: int, task: Task, parts: Sequence[Part]) -> float:
    started = time.perf_counter()
    for part in parts:
        with bank.running([run], part.key) as model:
            loss = row_losses(model, task.name, part.batch).total.sum()
        torch.autograd.backward(loss)
    _wait_for(task.device)
    return time.perf_counter() - started


def _evaluation_seconds(
    bank: Trainable, run: int, task: Task, validation: Sequence[Example]
) -> float:
    some = validation[:TIMED_EXAMPLES]
    started = time.perf_counter()
    evaluate(bank, [run], some, task, rows=TIMED_EXAMPLES)
    _wait_for(task.device)
    return (time.perf_counter() - started) * len(validation) / len(some)


@cache
def product_peak(dtype: torch.dtype, device: torch.device, size: int = 1024) -> float:
    """Floating-point operations a second of a square product, the best of a fifth of a second.

    Args:
        dtype: Precision of the factors.
        device: Where they are multiplied.
        size: Rows and columns; large enough that nothing but the product counts.
    """
    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best, until = math.inf, time.perf_counter() + 0.2
    while time.perf_counter() < until:
        started = time.perf_counter()
        torch.mm(left, right)
        _wait_for(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class _Watch:
    """One module during one backward pass: calls still without gradient, and the sum so far.

    Some models call a module more than once (DeBERTa's key projection sees positions as well);
    its gradient is the sum over calls.
    """

    module: nn.Module
    calls: int = 0
    gradient_OI: Tensor | None = None
    sensitivities: list[float] = field(default_factory=list)

    def see(self, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """A forward hook: make sure a gradient comes by here, and wait for it."""
        if not torch.is_grad_enabled():
            return out
        if not out.requires_grad:  # nothing before it is trained; models may change it in place
            out = out + torch.zeros((), dtype=out.dtype, device=out.device, requires_grad=True)
        x_NI = inputs[0].detach().flatten(0, -2)
        self.calls += 1
        hear: Any = out.register_hook
        hear(lambda grad: self._add(grad.flatten(0, -2), x_NI))
        return out

    def _add(self, grad_NO: Tensor, x_NI: Tensor) -> None:
        part_OI = grad_NO.float().mT @ x_NI.float()
        self.gradient_OI = part_OI if self.gradient_OI is None else self.gradient_OI + part_OI
        self.calls -= 1
        if not self.calls:
            self.close()

    def close(self) -> None:
        """Turn what has come into one number."""
        if self.gradient_OI is not None:
            product_OI = dense_weight(self.module).float() * self.gradient_OI
            self.sensitivities.append(float(product_OI.abs().mean()))
        self.calls, self.gradient_OI = 0, None


def measure_importance(
    model: Any, names: Sequence[str], batches: Iterable[Batch], task: str
) -> dict[str, float]:
    """The mean of |W * dL/dW| over a module's weights, averaged over batches.

    It is about how much the loss would change if a weight were not there (AdaLoRA, Zhang et al.
    2023, eq. 8), taken per module as in GoRA (He et al. 2025, section 3: the mean over the
    matrix, so that large matrices are not favoured for their size). L is a batch's mean loss over
    its targets. A classifier without a trained head has the one that `load_base` draws, always
    the same; importance then tells what feeds that head.

    Args:
        model: The frozen base, nothing in it.
        names: Full names of the modules.
        batches: Training batches of one run.
        task: CAUSAL_LM, SEQ_CLS or SEQ_2_SEQ_LM.

    Returns:
        A number of at least 0 for each name; 0 where no gradient came by.
    """
    watches = {name: _Watch(model.get_submodule(name)) for name in names}
    hooks = [watch.module.register_forward_hook(watch.see) for watch in watches.values()]
    count = 0
    try:
        for batch in batches:
            losses = row_losses(model, task, batch)
            if losses.total.requires_grad:  # else the model reads the weights past their modules
                torch.autograd.backward(losses.total.sum() / losses.targets.sum())
            for watch in watches.values():
                watch.close()
            count += 1
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sum(watch.sensitivities) / max(1, count) for name, watch in watches.items()}
