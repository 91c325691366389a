"""What a design could find is said before it runs, from noise that was seen elsewhere."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankwise.analysis.pair_noise import (
    MOST_GROUPS,
    PairNoise,
    Spread,
    detectable_difference,
    effective_groups,
    pair_noise,
)
from rankwise.analysis.scores import Scores
from rankwise.analysis.verdict import judge

CURVES = Path(__file__).parent.parent.parent / "benchmarks" / "curves"
ARM_SEED, ARM_EXAMPLE, ARM_GROUP, REST = 0.02, 0.3, 0.1, 0.2
TRUTH = PairNoise(  # of a difference: each arm brings its own
    seed=ARM_SEED * 2**0.5,
    example=Spread(ARM_EXAMPLE * 2**0.5, ARM_GROUP * 2**0.5),
    residual=Spread(REST * 2**0.5, 0.0),
    arms=8,
    seeds=3,
)


def drawn(
    rng: np.random.Generator, arms: int, seeds: int, groups: Sequence[int], gain: float = 0.0
) -> Any:
    """Scores (A, S, E) of a study; arm 0 is better than all others by `gain`."""
    group_E = np.array(groups)
    examples = len(group_E)
    x_ASE = REST * rng.standard_normal((arms, seeds, examples))
    x_ASE += ARM_SEED * rng.standard_normal((arms, seeds, 1))
    x_ASE += ARM_EXAMPLE * rng.standard_normal((arms, 1, examples))
    x_ASE += ARM_GROUP * rng.standard_normal((arms, 1, group_E.max() + 1))[:, :, group_E]
    x_ASE += rng.standard_normal((1, seeds, 1)) + rng.standard_normal((1, 1, examples))
    x_ASE[0] -= gain
    return x_ASE


def equal_groups(groups: int, size: int) -> list[int]:
    return [g for g in range(groups) for _ in range(size)]


def test_the_parts_of_the_noise_are_found_again() -> None:
    rng, groups = np.random.default_rng(1), equal_groups(60, 8)
    found = [pair_noise(drawn(rng, 8, 3, groups), groups) for _ in range(20)]
    parts = np.array(
        [
            (n.seed, n.example.within, n.example.between, n.residual.within)
            for n in found
            if n is not None
        ]
    )
    known = (TRUTH.seed, TRUTH.example.within, TRUTH.example.between, TRUTH.residual.within)
    assert np.sqrt((parts**2).mean(axis=0)) == pytest.approx(known, rel=0.1)


@pytest.mark.parametrize(("seeds", "groups", "size"), [(2, 40, 3), (4, 25, 4), (2, 120, 1)])
def test_a_difference_of_that_size_is_found_as_often_as_said(
    seeds: int, groups: int, size: int
) -> None:
    arms, studies = 4, 60
    labels = equal_groups(groups, size)
    own = Spread(float(np.hypot(TRUTH.example.within, TRUTH.example.between)), 0.0)
    noise = TRUTH if size > 1 else PairNoise(TRUTH.seed, own, TRUTH.residual, 8, 3)
    value = detectable_difference(noise, arms, seeds, labels)
    assert value is not None
    rng, found = np.random.default_rng(2), 0
    for _ in range(studies):
        scores = Scores(
            "eval_loss",
            tuple("abcd"),
            tuple(range(seeds)),
            drawn(rng, arms, seeds, labels, value),
            None,
            labels if size > 1 else None,
        )
        found += judge(scores).winner == "a"
    # three standard errors of so many studies around 0.8
    assert 0.64 < found / studies < 0.96


def test_more_seeds_groups_or_examples_find_less_and_more_arms_do_not() -> None:
    def value(arms: int = 6, seeds: int = 2, groups: int = 20, size: int = 10) -> float:
        found = detectable_difference(TRUTH, arms, seeds, equal_groups(groups, size))
        assert found is not None
        return found

    usual = value()
    assert value(seeds=4) < usual
    assert value(groups=60) < usual
    assert value(size=40) < usual
    assert value(arms=14) > 0.9 * usual


def test_one_seed_is_told_of_its_runs_alone() -> None:
    noise = PairNoise(10.0, TRUTH.example, TRUTH.residual, 8, 3)
    labels = equal_groups(100, 4)
    alone, with_seeds = (detectable_difference(noise, 6, seeds, labels) for seeds in (1, 2))
    assert alone is not None
    assert with_seeds is not None
    assert alone < 15 < with_seeds


def test_many_groups_are_predicted_as_they_are() -> None:
    few, many = equal_groups(MOST_GROUPS, 6), equal_groups(2 * MOST_GROUPS, 3)
    own = Spread(0.3, 0.0)
    noise = PairNoise(0.001, own, own, 8, 3)
    same = [detectable_difference(noise, 4, 3, labels) for labels in (few, many)]
    assert same[0] == pytest.approx(same[1], rel=1e-9)


def test_nothing_is_promised_of_one_group_or_of_no_noise() -> None:
    none = Spread(0.0, 0.0)
    one = PairNoise(0.0, TRUTH.example, TRUTH.residual, 4, 2)
    assert detectable_difference(one, 4, 1, ["a"] * 9) is None
    assert detectable_difference(PairNoise(0, none, none, 4, 2), 4, 2, range(9)) is None


def test_groups_of_unequal_size_count_as_fewer() -> None:
    assert effective_groups(["a", "a", "b", "b"]) == 2
    assert effective_groups(["a", "a", "a", "b"]) == pytest.approx(16 / 10)


def test_two_arms_or_one_seed_say_nothing_of_noise() -> None:
    rng = np.random.default_rng(0)
    assert pair_noise(drawn(rng, 2, 3, equal_groups(9, 1))) is None
    assert pair_noise(drawn(rng, 6, 1, equal_groups(9, 1))) is None


def test_runs_that_are_missing_leave_the_others() -> None:
    rng, groups = np.random.default_rng(4), equal_groups(60, 8)
    x_ASE = drawn(rng, 8, 3, groups)
    whole = pair_noise(x_ASE[:5], groups)
    x_ASE[5:, 1:] = np.nan
    assert pair_noise(x_ASE, groups) == (whole and PairNoise(**{**vars(whole), "seeds": 3}))


def test_the_noise_that_is_recorded_is_that_of_the_recorded_curves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rankwise.study.noise import recorded_noise

    if not (CURVES / "reviews.parquet").is_file():
        pytest.skip("no recorded curves of reviews here")
    monkeypatch.syspath_prepend(str(CURVES))
    sys.modules.pop("curves", None)
    from curves import load

    reviews = load("reviews")
    found = pair_noise(reviews.x_ASTE[:, :, -1], reviews.groups_E.tolist(), reviews.weights_E)
    noted = recorded_noise("SEQ_CLS")[0]
    assert found is not None
    assert (found.arms, found.seeds) == (noted.arms, noted.seeds)
    assert noted.seed == pytest.approx(found.seed, rel=0.01)
    for ours, theirs in ((noted.example, found.example), (noted.residual, found.residual)):
        assert ours.within == pytest.approx(theirs.within, rel=0.01)
        assert theirs.between == 0.0  # every example is a group of its own there
        assert ours.between > 0
