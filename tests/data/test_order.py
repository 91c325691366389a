"""Batches: every epoch sees each row once, and padding says what is real."""

import numpy as np
import pytest

from rankwise.data.order import pad_inputs, padded_length, permutation, rows_at


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (7, 7), (5, 8), (1, 4), (64, 16)])
def test_every_epoch_sees_each_row_once_though_batches_straddle(n: int, batch_size: int) -> None:
    seen = np.concatenate([rows_at(n, batch_size, 0, step) for step in range(3 * n)])
    for epoch in range(len(seen) // n):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_a_step_needs_no_memory_of_the_steps_before() -> None:
    forward = [rows_at(100, 8, 3, step).tolist() for step in range(40)]
    permutation.cache_clear()
    assert [rows_at(100, 8, 3, step).tolist() for step in reversed(range(40))] == forward[::-1]


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [rows_at(50, 50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_small_batches_cut_the_same_order_as_large_ones() -> None:
    large = rows_at(100, 8, 0, 0)
    small = np.concatenate([rows_at(100, 4, 0, 0), rows_at(100, 4, 0, 1)])
    assert large.tolist() == small.tolist()


def test_the_order_is_that_of_the_raw_stream_which_numpy_promises_to_keep() -> None:
    assert (
        permutation(8, 0, 0).tolist() == np.argsort(np.random.SFC64([0, 0]).random_raw(8)).tolist()
    )


def test_impossible_batches_are_refused() -> None:
    for n, size, step in ((0, 1, 0), (3, 0, 0), (3, 1, -1)):
        with pytest.raises(ValueError, match="no batch"):
            rows_at(n, size, 0, step)


def test_lengths_are_rounded_up_and_capped() -> None:
    assert padded_length([3, 9], 64) == 16
    assert padded_length([8], 64) == 8
    assert padded_length([61], 62) == 62
    with pytest.raises(ValueError, match="70 tokens, but at most 64"):
        padded_length([70], 64)


def test_padding_marks_what_is_real_on_either_side() -> None:
    rows = [np.array([5, 6, 7]), np.array([8, 9])]
    ids, mask = pad_inputs(rows, 0, 4)
    assert ids.tolist() == [[5, 6, 7, 0], [8, 9, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    ids, mask = pad_inputs(rows, 0, 4, side="left")
    assert ids.tolist() == [[0, 5, 6, 7], [0, 0, 8, 9]]
    assert mask.tolist() == [[0, 1, 1, 1], [0, 0, 1, 1]]
    ids, _ = pad_inputs(rows, 0)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 0]]


def test_padding_never_cuts_and_knows_its_words() -> None:
    with pytest.raises(ValueError, match="3 tokens, but at most 2"):
        pad_inputs([np.array([1, 2, 3])], 0, 2)
    with pytest.raises(ValueError, match="right or left"):
        pad_inputs([np.array([1, 2])], 0, side="middle")
