"""SEQ_2_SEQ_LM: an encoder reads the input, a decoder writes the target.

Legend: N rows, L tokens of a target.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from rankwise.data.order import IGNORED, IntArray, Tokens, stack
from rankwise.data.shapes import Example
from rankwise.tasks.losses import Batch, RowLosses, token_losses


def labels_of(examples: Sequence[Example], length: int) -> IntArray:
    """(N, L): the targets, as long as the longest of them; `length` is that of the inputs."""
    return stack([example.labels for example in examples], IGNORED)


def target_count(example: Example) -> int:
    """Tokens in an example's loss."""
    return int((example.labels != IGNORED).sum())


def row_losses(model: nn.Module, batch: Batch, smoothing_N: Sequence[float] = ()) -> RowLosses:
    """One forward pass and the losses of its rows, with the label smoothing of each."""
    shift: Any = model.prepare_decoder_input_ids_from_labels
    # With a cache some decoders (FSMT, ProphetNet) leave out the causal mask.
    inputs = {  # a copy, because FSMT and ProphetNet overwrite -100 in what they are given
        "decoder_input_ids": shift(labels=batch.labels.clone()),
        "use_cache": False,
    }
    return token_losses(model, batch, batch.labels, inputs, smoothing_N)


def prompt_of(example: Example) -> Tokens:
    """The token ids (T,) that ask for the reference of an example: the encoder's input."""
    return example.input_ids


def example_of(prompt: Tokens, answer: Tokens) -> Example:
    """An example whose targets are the tokens of an answer to a prompt."""
    return Example(prompt, answer, 0, "")
