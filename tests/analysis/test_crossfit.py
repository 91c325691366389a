"""Folds of examples, and the evaluation that is chosen without the fold it is read on."""

import numpy as np
import pytest

from rankwise.analysis.crossfit import FOLDS, chosen_without, fold_of, read_at


def test_examples_of_a_group_are_in_one_fold_and_folds_are_of_like_size() -> None:
    groups_E = np.random.default_rng(0).integers(0, 60, 500)
    fold_E = fold_of(groups_E)
    assert all(len(set(fold_E[groups_E == g])) == 1 for g in np.unique(groups_E))
    sizes = np.bincount(fold_E)
    assert len(sizes) == FOLDS
    assert sizes.max() - sizes.min() <= 2


def test_a_group_as_large_as_all_others_has_a_fold_of_its_own() -> None:
    groups_E = [0] * 100 + list(range(1, 101))
    fold_E = fold_of(groups_E)
    assert set(fold_E[:100]).isdisjoint(fold_E[100:])
    assert np.bincount(fold_E[100:]).tolist() == [0, 25, 25, 25, 25]


def test_folds_do_not_follow_the_order_of_the_examples() -> None:
    fold_E = fold_of(np.arange(500))
    in_row = np.mean(fold_E[1:] == fold_E[:-1])
    assert 0.1 < in_row < 0.3
    assert abs(np.corrcoef(np.arange(500), fold_E)[0, 1]) < 0.2


def test_folds_are_the_same_on_every_machine_and_in_every_version() -> None:
    assert fold_of(list("abcdefghij")).tolist() == [1, 2, 4, 1, 0, 2, 3, 4, 3, 0]


@pytest.mark.parametrize(("groups", "folds"), [(1, 1), (3, 3), (5, 5), (19, 5)])
def test_there_are_no_more_folds_than_groups(groups: int, folds: int) -> None:
    assert set(fold_of(np.arange(40) % groups)) == set(range(folds))


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_step_of_a_fold_is_the_best_mean_over_the_other_examples(
    lower: bool, weighted: bool
) -> None:
    rng = np.random.default_rng(1)
    x_TE, fold_E = rng.normal(size=(6, 50)), fold_of(np.arange(50))
    weights_E = rng.uniform(1, 9, 50) if weighted else None
    chosen_F = chosen_without(x_TE, fold_E, weights_E, lower)
    for fold, chosen in enumerate(chosen_F):
        others = fold_E != fold
        w = None if weights_E is None else weights_E[others]
        means = [float(np.average(x_E[others], weights=w)) for x_E in x_TE]
        assert means[chosen] == (min(means) if lower else max(means))
    read_E = read_at(x_TE, chosen_F, fold_E)
    assert all(read_E[e] == x_TE[chosen_F[fold_E[e]], e] for e in range(50))


def test_the_scores_of_a_fold_have_no_part_in_its_choice() -> None:
    rng = np.random.default_rng(2)
    x_TE, fold_E = rng.normal(size=(6, 50)), fold_of(np.arange(50))
    before = chosen_without(x_TE, fold_E, None, True)
    for fold in range(FOLDS):
        other_TE = x_TE.copy()
        other_TE[:, fold_E == fold] = rng.normal(0, 100, size=(6, 10))
        assert chosen_without(other_TE, fold_E, None, True)[fold] == before[fold]


def test_the_first_of_equal_evaluations_is_chosen_as_in_training() -> None:
    x_TE = np.zeros((4, 20))
    x_TE[0] = 1
    assert chosen_without(x_TE, fold_of(np.arange(20)), None, True).tolist() == [1] * FOLDS


def test_evaluations_that_differ_by_chance_alone_are_read_without_bias() -> None:
    rng = np.random.default_rng(3)
    fold_E, same, cross = fold_of(np.arange(100)), [], []
    for _ in range(400):
        x_TE = rng.normal(size=(10, 100))
        same.append(x_TE.mean(1).min())
        cross.append(read_at(x_TE, chosen_without(x_TE, fold_E, None, True), fold_E).mean())
    error = 0.1 / np.sqrt(400)
    assert abs(np.mean(cross)) < 4 * error
    assert np.mean(same) == pytest.approx(-0.1 * 1.539, abs=4 * error)  # of ten normals, the least
