"""SEQ_CLS: a classifier names the class of its input.

Legend: N rows, C classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rankwise.data.order import IntArray
from rankwise.data.shapes import Example
from rankwise.tasks.losses import Batch, RowLosses


def labels_of(examples: Sequence[Example], length: int) -> IntArray:
    """(N,) class ids; `length` is that of the inputs."""
    return np.array([int(example.labels) for example in examples], dtype=np.int64)


def target_count(example: Example) -> int:
    """The one class."""
    return 1


def row_losses(model: nn.Module, batch: Batch) -> RowLosses:
    """One forward pass, the losses of its rows and the classes that it gives them."""
    logits_NC = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    loss_N = F.cross_entropy(logits_NC.float(), batch.labels, reduction="none")
    return RowLosses(loss_N, torch.ones_like(loss_N), logits_NC.detach().argmax(-1))
