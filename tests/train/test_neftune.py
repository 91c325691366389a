"""NEFTune's noise has the distribution of transformers' hook, and belongs to a row of a run."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, kstest
from transformers.integrations.neftune import neftune_post_forward_hook

from rankwise.errors import ModelError
from rankwise.spec.arms import Run
from rankwise.train.batch import BatchKey
from rankwise.train.neftune import embedding_noise, noisy_embeddings
from tiny import tiny_arms, tiny_cohort, tiny_model

ROWS, TOKENS, WIDTH, ALPHA = 6, 40, 64, 5.0


def key_of(seed=0, batch=0, rows=range(ROWS)):
    return BatchKey((seed,), (batch,), (tuple(rows),))


def noise(key, lengths=(TOKENS,) * ROWS, tokens=TOKENS, alpha=ALPHA):
    mask = torch.tensor([[t < length for t in range(tokens)] for length in lengths]).long()
    return embedding_noise(key, [alpha], mask, WIDTH, torch.empty(0))


def test_rows_without_padding_have_the_noise_of_transformers_hook():
    torch.manual_seed(0)
    table = torch.nn.Embedding(1, WIDTH)
    table.weight.data.zero_()
    table.neftune_noise_alpha = ALPHA
    table.register_forward_hook(neftune_post_forward_hook)
    theirs = table.train()(torch.zeros(ROWS, TOKENS, dtype=torch.long)).detach().flatten()
    ours, most = noise(key_of()).flatten(), ALPHA / (TOKENS * WIDTH) ** 0.5
    assert ours.abs().max() <= most
    assert ours.abs().max() == pytest.approx(theirs.abs().max().item(), rel=1e-3)
    assert kstest(ours / most, "uniform", (-1, 2)).pvalue > 0.01
    assert ks_2samp(ours, theirs).pvalue > 0.01
    assert abs(ours.mean()) < 4 * most / (3 * len(ours)) ** 0.5


def test_a_row_has_its_noise_whatever_the_padding_and_the_neighbours():
    lengths = (40, 3, 17, 8, 1, 30)
    whole = noise(key_of(), lengths)
    assert torch.equal(noise(key_of(), lengths, tokens=56)[:, :TOKENS], whole)
    assert torch.equal(noise(key_of(rows=(2, 0)), (17, 40)), whole[[2, 0]])
    for row, length in zip(whole, lengths, strict=True):
        most = ALPHA / (length * WIDTH) ** 0.5
        assert 0.9 * most < row.abs().max() <= most
        assert not row[length:].any()


def test_another_seed_batch_or_row_has_other_noise():
    found = [
        noise(key_of()),
        noise(key_of(1)),
        noise(key_of(0, 1)),
        noise(key_of(rows=range(6, 12))),
    ]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert abs(np.corrcoef(one.flatten(), other.flatten())[0, 1]) < 0.05


def test_runs_of_one_seed_share_their_noise_and_a_run_without_has_none():
    key = BatchKey((0, 0, 0), (4, 4, 4), (tuple(range(ROWS)),) * 3)
    mask = torch.ones(3 * ROWS, TOKENS, dtype=torch.long)
    some, none, more = embedding_noise(key, [2.0, 0.0, 6.0], mask, WIDTH, torch.empty(0)).chunk(3)
    assert not none.any()
    torch.testing.assert_close(3 * some, more)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_evaluations_have_no_noise(kind, tmp_path):
    arms = tiny_arms(
        kind,
        [{"name": "plain"}, {"name": "noisy", "training.neftune_noise_alpha": 50}],
        max_steps=2,
        learning_rate=1e-12,
    )
    runs = [Run(arm, 0) for arm in arms]
    cohort, told = tiny_cohort(kind, runs, tmp_path)
    told.train(cohort)
    plain, noisy = (told.evaluations(run)[0].evaluation.losses_E for run in runs)
    np.testing.assert_allclose(plain, noisy, rtol=0, atol=1e-6)
    assert abs(told.steps(runs[0]) - told.steps(runs[1])).min() > 1e-3


def test_a_model_that_looks_nothing_up_is_refused():
    model, ids = tiny_model("gpt2"), torch.ones(1, 4, dtype=torch.long)
    with (
        pytest.raises(ModelError, match="neftune_noise_alpha: a GPT2LMHeadModel does not look up"),
        noisy_embeddings(model, key_of(rows=[0]), [5.0], ids),
    ):
        model(inputs_embeds=torch.zeros(1, 4, 32))
    assert not model.get_input_embeddings()._forward_hooks
