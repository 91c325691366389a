"""What a forward pass takes and what it gives, the same for every task.

Legend: K runs, N rows of a run, T tokens, L tokens of a target.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of K runs, one run after the other.

    Attributes:
        input_ids: (K*N, T).
        attention_mask: (K*N, T).
        labels: (K*N, T) for a causal LM, (K*N, L) for sequence to sequence, (K*N,) classes.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


@dataclass(frozen=True)
class RowLosses:
    """What a batch cost, row by row.

    Attributes:
        total: (K*N,) sum of a row's target losses, fp32, with gradient.
        targets: (K*N,) number of targets in the row.
        predicted: (K*N,) predicted class, where examples have classes.
    """

    total: Tensor
    targets: Tensor
    predicted: Tensor | None = None
