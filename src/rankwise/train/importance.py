"""How much each module matters to the loss, for per-layer ranks of strategy `empirical`.

It is measured on the frozen base before any adapter is in it. No gradient of a whole model is
ever held: each module's is made where it arises, turned into one number, and let go. That works
for quantised modules as well, whose weights have no gradient of their own.

Legend: N positions (rows x tokens) of a batch, I inputs, O outputs of a module.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.adapters.init_weights import dense_weight
from rankwise.tasks.by_name import row_losses
from rankwise.tasks.losses import Batch


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

    def see(self, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        """A forward hook: make sure a gradient comes by here, and wait for it."""
        if not torch.is_grad_enabled():
            return
        if not out.requires_grad:  # nothing before this module is trained
            out.requires_grad_(True)
        x_NI = inputs[0].detach().flatten(0, -2)
        self.calls += 1
        hear: Any = out.register_hook
        hear(lambda grad: self._add(grad.flatten(0, -2), x_NI))

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
            torch.autograd.backward(losses.total.sum() / losses.targets.sum())
            for watch in watches.values():
                watch.close()
            count += 1
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sum(watch.sensitivities) / max(1, count) for name, watch in watches.items()}
