"""SEQ_CLS: a classifier names the class of its input.

Legend: N rows, C classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from rankwise.data.order import IntArray
from rankwise.data.shapes import Example
from rankwise.tasks.losses import Batch, RowLosses, target_losses


def labels_of(examples: Sequence[Example], length: int) -> IntArray:
    """(N,) class ids; `length` is that of the inputs."""
    return np.array([int(example.labels) for example in examples], dtype=np.int64)


def target_count(example: Example) -> int:
    """The one class."""
    return 1


def row_losses(model: nn.Module, batch: Batch, smoothing_N: Sequence[float] = ()) -> RowLosses:
    """One forward pass, the losses of its rows, smoothed, and the classes that it gives them."""
    logits_NC = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    row_N = torch.arange(len(logits_NC), device=logits_NC.device)
    loss_N = target_losses(logits_NC, batch.labels, row_N, smoothing_N)
    return RowLosses(loss_N, torch.ones_like(loss_N), logits_NC.detach().argmax(-1))
