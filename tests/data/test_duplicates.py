"""Near duplicates are exactly those that comparing all pairs finds."""

from itertools import product

import numpy as np
import pytest

from rankwise.data.rows import repeated, shingles_of, words_of


def brute(texts: list[str], earlier: list[str], distance: float) -> list[int]:
    def alike(one: str, other: str) -> bool:
        x, y = (shingles_of(tuple(words_of(text))) for text in (one, other))
        return len(x & y) / len(x | y) > 1 - distance

    return sorted(
        {at for at, other in product(range(len(texts)), earlier) if alike(texts[at], other)}
    )


@pytest.mark.parametrize("distance", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_the_index_finds_the_pairs_that_comparing_everything_finds(
    seed: int, distance: float
) -> None:
    rng = np.random.default_rng(seed)
    words = [f"w{number}" for number in range(30)]
    opening = "the same opening for all of them " * seed
    earlier = [opening + " ".join(rng.choice(words, rng.integers(1, 80))) for _ in range(60)]
    texts = []
    for text in earlier:
        changed = text.split()
        for _ in range(rng.integers(0, 4)):
            at = -1 if rng.random() < 0.5 else rng.integers(len(changed))
            changed[at] = str(rng.choice(words))
        texts.append(" ".join(changed))
    found = repeated(texts, earlier, distance)
    once = [at for at in brute(texts, earlier, distance) if at not in found.within]
    assert sorted(found.exact + found.near) == once
    assert found.near


def test_case_spacing_and_punctuation_do_not_make_a_new_text() -> None:
    found = repeated(
        ["An  absorbing documentary!", "another text"], ["an absorbing documentary."], 0
    )
    assert found == ([0], [], [])


def test_zero_means_exact_only() -> None:
    long = "one two three four five six seven eight nine ten eleven twelve"
    assert repeated([long + " thirteen"], [long], 0) == ([], [], [])
    assert repeated([long + " thirteen"], [long], 0.2) == ([], [0], [])


def test_a_text_that_repeats_within_the_list_counts_once() -> None:
    assert repeated(["a b", "c d", "A b.", "c d"], ["c d"], 0.2) == ([1, 3], [], [2])


def test_texts_without_spaces_or_words_are_compared_too() -> None:
    assert words_of("今日は 晴れ") == list("今日は晴れ")
    assert words_of(" ?! ") == ["?!"]
    assert repeated(["?!", "..."], ["?!"], 0.2) == ([0], [], [])
    assert repeated(
        ["今日はとてもよい天気ですね本当に。"], ["今日はとてもよい天気ですね本当"], 0.2
    ).near == [0]
