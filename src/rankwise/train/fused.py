"""The product W x + s B A dropout(x) of a bank as one autograd step.

Written out by hand because an adapter's own products are small and its cost is memory traffic:
left to autograd, the gradients of base and adapter are added in passes of their own over tensors
as large as the activations. Here both are accumulated where they are made.

Legend: K selected runs, S members among them, N positions (rows x tokens) of one run, I inputs,
O outputs, R the largest rank.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class AdaptedLinear(torch.autograd.Function):
    """Frozen weight and stacked adapters in one forward and one backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        runs: int,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        lora_A_SRI: Tensor,
        lora_B_SOR: Tensor,
        scaling_S11: Tensor,
        mask_SNI: Tensor | None,
        members: slice,
    ) -> Tensor:
        """W x + b for all runs, and the adapters' part added for `members`; shaped as x, but O.

        What is returned is no view of another tensor, so that models may go on in place on it.

        Args:
            x: The batch, K runs one after the other, with any dimensions before the inputs.
            runs: K.
            mask_SNI: The scaled dropout mask, with 1 in place of S where the runs share it.
        """
        x_KNI = x.reshape(runs, -1, x.shape[-1])
        a_SRI = lora_A_SRI.to(x.dtype)
        b_SOR = (lora_B_SOR * scaling_S11).to(x.dtype)
        out = F.linear(x, weight_OI, bias_O)
        out_KNO = out.view(runs, -1, out.shape[-1])
        dropped_SNI = x_KNI[members] if mask_SNI is None else x_KNI[members] * mask_SNI
        h_SNR = torch.bmm(dropped_SNI, a_SRI.mT)
        out_KNO[members].baddbmm_(h_SNR, b_SOR.mT)
        ctx.save_for_backward(dropped_SNI, h_SNR, a_SRI, b_SOR, weight_OI, scaling_S11, mask_SNI)
        ctx.members, ctx.runs, ctx.shape = members, runs, x.shape
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, A and B; those of A and B in the precision they are kept in."""
        dropped_SNI, h_SNR, a_SRI, b_SOR, weight_OI, scaling_S11, mask_SNI = ctx.saved_tensors
        grad_KNO = grad.reshape(ctx.runs, -1, grad.shape[-1])
        grad_SNO = grad_KNO[ctx.members]
        grad_h_SNR = torch.bmm(grad_SNO, b_SOR)
        grad_A_SRI = torch.bmm(grad_h_SNR.mT, dropped_SNI).to(scaling_S11.dtype)
        grad_B_SOR = torch.bmm(grad_SNO.mT, h_SNR).to(scaling_S11.dtype) * scaling_S11
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x_KNI = grad_KNO @ weight_OI
            if mask_SNI is None:
                grad_x_KNI[ctx.members].baddbmm_(grad_h_SNR, a_SRI)
            else:
                grad_x_KNI[ctx.members].addcmul_(torch.bmm(grad_h_SNR, a_SRI), mask_SNI)
            grad_x = grad_x_KNI.view(ctx.shape)
        return grad_x, None, None, None, grad_A_SRI, grad_B_SOR, None, None, None
