"""Batches: every epoch sees each row once, and padding says what is real."""

from dataclasses import dataclass

import numpy as np
import pytest

from rankwise.data.order import IGNORED, pad, padded_length, permutation, rows_at


@dataclass
class Tokens:
    input_ids: np.ndarray
    labels: np.ndarray


def causal(*ids: int) -> Tokens:
    return Tokens(np.array(ids), np.array([IGNORED, *ids[1:]]))


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
    orders = [permutation(50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
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
    batch = pad([causal(5, 6, 7), causal(8, 9)], 0, 4)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 0], [8, 9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100], [-100, 9, -100, -100]]
    left = pad([causal(5, 6, 7), causal(8, 9)], 0, 4, side="left")
    assert left["input_ids"].tolist() == [[0, 5, 6, 7], [0, 0, 8, 9]]
    assert left["attention_mask"].tolist() == [[0, 1, 1, 1], [0, 0, 1, 1]]
    assert left["labels"].tolist() == [[-100, -100, 6, 7], [-100, -100, -100, 9]]


def test_targets_and_classes_have_shapes_of_their_own() -> None:
    pairs = [Tokens(np.array([1, 2, 3]), np.array([4])), Tokens(np.array([5]), np.array([6, 7]))]
    batch = pad(pairs, 0, task="SEQ_2_SEQ_LM", side="left")
    assert batch["input_ids"].tolist() == [[1, 2, 3], [0, 0, 5]]
    assert batch["labels"].tolist() == [[4, -100], [6, 7]]
    classes = [Tokens(np.array([1, 2]), np.array(1)), Tokens(np.array([3]), np.array(0))]
    assert pad(classes, 0, task="SEQ_CLS")["labels"].tolist() == [1, 0]


def test_padding_never_cuts_and_knows_its_words() -> None:
    with pytest.raises(ValueError, match="3 tokens, but at most 2"):
        pad([causal(1, 2, 3)], 0, 2)
    with pytest.raises(ValueError, match="right or left"):
        pad([causal(1, 2)], 0, side="middle")
    with pytest.raises(ValueError, match="unknown task"):
        pad([causal(1, 2)], 0, task="TOKEN_CLS")
    with pytest.raises(ValueError, match="the length of its input"):
        pad([Tokens(np.array([1, 2, 3]), np.array([1]))], 0)
