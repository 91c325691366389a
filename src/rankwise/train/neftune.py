"""NEFTune: noise on the input embeddings of training rows (Jain et al. 2023, section 2).

Each element of a row with L tokens and embeddings of d values gets a number that is uniform between
-alpha/sqrt(L d) and alpha/sqrt(L d). The numbers are a function of seed, batch and row, as dropout
masks are. L is the row's own length; the example of the authors and the hook of transformers take
the padded length of the batch, which here depends on the other runs.

Legend: K runs, N rows of a run, T tokens with padding, D values of an embedding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from rankwise.adapters.adapter import seed_of
from rankwise.base.modules import input_embeddings
from rankwise.errors import ModelError
from rankwise.train.batch import BatchKey, uniform_numbers

NUMBER = seed_of("neftune") & 0xFFFFFFFF  # in the place of a module's number


def embedding_noise(
    key: BatchKey, alphas: Sequence[float], mask: Tensor, width: int, like: Tensor
) -> Tensor:
    """The noise of a batch, (K*N, T, D); zero on padding and for runs without noise.

    Args:
        key: The batch, of K runs.
        alphas: Of each run; 0: no noise.
        mask: (K*N, T), 1 for a token and 0 for padding.
        width: D.
        like: Gives device and precision.
    """
    places = [place for place, alpha in enumerate(alphas) if alpha]
    mask_KNT = mask.view(len(alphas), -1, mask.shape[1])
    noise_KNTD = like.new_zeros(*mask_KNT.shape, width)
    if places:
        mask_SNT = mask_KNT[places].float()
        alpha_S1 = mask_SNT.new_tensor([[alphas[place]] for place in places])
        most_SN = alpha_S1 / (mask_SNT.sum(-1) * width).sqrt()
        scale_SNT = most_SN.unsqueeze(-1) * mask_SNT
        numbers = uniform_numbers(key.of(places), NUMBER, (mask.shape[1], width), like)
        noise_KNTD[places] = (numbers * scale_SNT.unsqueeze(-1)).to(like.dtype)
    return noise_KNTD.flatten(0, 1)


@contextmanager
def noisy_embeddings(
    model: nn.Module, key: BatchKey, alphas: Sequence[float], mask: Tensor
) -> Iterator[None]:
    """For the duration, the input embeddings of a batch have their noise; arguments as above.

    Raises:
        ModelError: the model does not look up one embedding for each token of the batch.
    """
    if not any(alphas):
        yield
        return
    calls = 0

    def add(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if out.shape[:-1] != mask.shape:
            raise ModelError(NO_PLACE.format(type(model).__name__))
        return out + embedding_noise(key, alphas, mask, out.shape[-1], out)

    hook = input_embeddings(model).register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()
    if calls != 1:
        raise ModelError(NO_PLACE.format(type(model).__name__))


NO_PLACE = (
    "training.neftune_noise_alpha: a {} does not look up one embedding for each token of its "
    "input, and there is no place for the noise; remove it"
)
