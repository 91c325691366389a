"""CAUSAL_LM: a decoder continues its input; a token's label is the token after it.

Legend: N rows, T tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import nn

from rankwise.data.order import IGNORED, IntArray, Tokens, stack
from rankwise.data.shapes import Example
from rankwise.tasks.losses import Batch, RowLosses, token_losses


def labels_of(examples: Sequence[Example], length: int) -> IntArray:
    """(N, T): each label beside its own token; the loss shifts them.

    Raises:
        ValueError: an example's labels are not as long as its input.
    """
    if any(len(example.labels) != len(example.input_ids) for example in examples):
        raise ValueError("labels of a causal example must be as long as its input")
    return stack([example.labels for example in examples], IGNORED, length)


def target_count(example: Example) -> int:
    """Tokens in an example's loss; nothing predicts the first one."""
    return int((example.labels[1:] != IGNORED).sum())


def row_losses(model: nn.Module, batch: Batch, smoothing_N: Sequence[float] = ()) -> RowLosses:
    """One forward pass and the losses of its rows, with the label smoothing of each."""
    labels_NT = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORED)
    return token_losses(model, batch, labels_NT, {"use_cache": False}, smoothing_N)


def prompt_of(example: Example) -> Tokens:
    """The token ids (T,) that ask for the reference of an example.

    Of a prompt or a conversation: all before its last answer. Of a block of text, which has no
    answer: its first half.
    """
    if example.asked is None:
        return example.input_ids[: max(1, len(example.input_ids) // 2)]
    return example.input_ids[: example.asked]


def example_of(prompt: Tokens, answer: Tokens) -> Example:
    """An example whose targets are the tokens of an answer, which follows its prompt."""
    silent = np.full(len(prompt), IGNORED, dtype=np.int64)
    return Example(np.concatenate([prompt, answer]), np.concatenate([silent, answer]), 0, "")
