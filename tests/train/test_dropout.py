"""Dropout masks belong to a row of a run: to its seed, step and module, and to nothing else."""

import pytest
import torch

from rankwise.train import batch
from rankwise.train.batch import BatchKey, hashed_bits, keep_mask

SHAPE = (40, 64)
CPU = torch.device("cpu")


@pytest.fixture(params=["stream", "hash"])
def mask(request, monkeypatch):
    """The mask of one run with chance p, by either way of drawing it."""
    if request.param == "hash":
        stream = torch.device("cpu")

        class Elsewhere:
            type = "elsewhere"

        original = batch._random_bits
        real = batch.hashed_bits
        monkeypatch.setattr(batch, "hashed_bits", lambda starts, n, _: real(starts, n, stream))
        monkeypatch.setattr(
            batch, "_random_bits", lambda *words: original(*words[:-1], Elsewhere())
        )

    def draw(seed=0, step=0, module=0, rows=(0, 1, 2, 3), p=0.25, shape=SHAPE):
        key = BatchKey((seed,), (step,), (tuple(rows),))
        return keep_mask(key, module, [p], shape, torch.empty(0))[0]

    return draw


@pytest.mark.parametrize("p", [0.05, 0.25, 0.9])
def test_a_mask_drops_its_share_and_keeps_the_mean(mask, p):
    found = mask(p=p, rows=range(16))
    count = found.numel()
    error = 5 * (p * (1 - p) / count) ** 0.5
    assert abs((found == 0).double().mean().item() - p) < error
    assert abs(found.double().mean().item() - 1) < error / (1 - p) + 1e-4


def test_padding_and_the_cutting_of_a_batch_leave_a_row_its_mask(mask):
    whole = mask()
    assert torch.equal(mask(shape=(56, 64))[:, :40], whole)
    assert torch.equal(mask(rows=(2, 0)), whole[[2, 0]])


def test_another_seed_step_module_or_row_has_another_mask(mask):
    masks = [mask(), mask(seed=1), mask(step=1), mask(module=1), mask(rows=(4, 5, 6, 7))]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            agreement = (one == other).double().mean().item()
            assert agreement == pytest.approx(0.75**2 + 0.25**2, abs=0.03)


def test_runs_of_one_seed_share_their_numbers(mask):
    gentle, harsh = mask(p=0.1), mask(p=0.5)
    assert ((gentle == 0) <= (harsh == 0)).all()


def test_hashed_numbers_are_even_over_their_range():
    bits = hashed_bits([1, 2, 3], 60_000, CPU).double() + 32768
    counts = torch.histc(bits, bins=64, min=0, max=65536)
    expected = bits.numel() / 64
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_square < 63 + 5 * (2 * 63) ** 0.5
