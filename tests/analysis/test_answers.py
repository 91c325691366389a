"""Measures of predictions and answers agree with their libraries, papers and plain counting."""

import subprocess
import sys

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics import CHRF
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from rankwise.analysis.answers import (
    accuracy,
    answer_measures,
    arm_measures,
    chrf,
    distinct,
    likeness_by_third,
    macro_f1,
    matthews,
    repetition,
    rouge_l,
    words_of,
)

ENGLISH = [
    ("The cat sat on the mat.", "A cat was sitting on the mat!"),
    ("I never forget a face, but I'll make an exception.", "Tell me a joke"),
    ("", "nothing was said"),
    ("yes", "yes"),
]


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_classification_measures_are_those_of_scikit_learn(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=40)
    predicted = np.where(rng.random(40) < 0.6, labels, rng.integers(classes, size=40))
    assert accuracy(labels, predicted) == pytest.approx(accuracy_score(labels, predicted))
    f1 = f1_score(labels, predicted, average="macro", zero_division=0)
    assert macro_f1(labels, predicted) == pytest.approx(f1)
    assert matthews(labels, predicted) == pytest.approx(matthews_corrcoef(labels, predicted))


def test_a_model_that_always_says_the_same_has_no_correlation_with_the_truth() -> None:
    labels, same = np.array([0, 1, 2, 1]), np.array([1, 1, 1, 1])
    assert matthews(labels, same) == 0 == matthews_corrcoef(labels, same)
    f1 = f1_score(labels, same, average="macro", zero_division=0)
    assert macro_f1(labels, same) == pytest.approx(f1)


@pytest.mark.parametrize("measure", [accuracy, macro_f1, matthews])
def test_predictions_must_be_as_many_as_labels(measure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="equally many"):
        measure(np.array([0, 1]), np.array([0]))
    with pytest.raises(ValueError, match="at least one"):
        measure(np.array([]), np.array([]))


@pytest.mark.parametrize(("answer", "reference"), ENGLISH)
def test_rouge_on_ascii_text_is_that_of_the_package_with_its_own_words(
    answer: str, reference: str
) -> None:
    theirs = RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure
    assert rouge_l([answer], [reference])[0] == pytest.approx(theirs)
    assert words_of(answer) == DefaultTokenizer(use_stemmer=False).tokenize(answer)


def test_rouge_hears_other_scripts_too() -> None:
    assert rouge_l(["один два три"], ["один два пять"])[0] == pytest.approx(2 / 3)
    assert rouge_l(["今日は晴れ"], ["今日は雨"])[0] == pytest.approx(
        2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4)
    )


def test_chrf_of_a_corpus_is_sacrebleus() -> None:
    answers, references = zip(*ENGLISH, strict=True)
    theirs = CHRF().corpus_score(list(answers), [list(references)]).score
    assert chrf(answers, references) == theirs
    assert chrf(["same"], ["same"]) == 100
    with pytest.raises(ValueError, match="2 answers for 1 references"):
        chrf(["a", "b"], ["a"])


def test_repetition_counts_the_ngrams_that_came_before() -> None:
    assert repetition("a b c d e f g") == 0
    # 4-grams of "a b a b a b": abab, baba, abab: two distinct of three
    assert repetition("a b a b a b") == pytest.approx(1 / 3)
    assert repetition("too short now") is None


def test_distinct_is_over_all_answers_together_and_by_words() -> None:
    assert distinct(["a b", "a b"], 1) == pytest.approx(2 / 4)
    assert distinct(["a b c", "b c d"], 2) == pytest.approx(3 / 6)
    assert distinct(["", "!"], 1) is None


def test_an_answer_that_wanders_off_its_reference_falls_by_thirds() -> None:
    thirds = likeness_by_third("the king is dead but cows eat green grass", "The king is dead, but")
    assert thirds == {"first": 1.0, "middle": pytest.approx(2 / 3), "last": 0.0}
    assert likeness_by_third("two words", "two words") is None


def test_the_measures_of_an_answer_leave_out_what_is_undefined() -> None:
    full = answer_measures("one two three four five", 7, True, "say one two", "one two three")
    assert full["tokens"] == 7
    assert full["words"] == 5
    assert full["cut_off"] == 1
    assert full["repetition"] == 0
    assert full["rougeL"] == pytest.approx(0.75)
    assert full["reference_drift"] == full["reference_first"] - full["reference_last"] == 1
    assert full["prompt_first"] == 1
    short = answer_measures("yes", 1, False, "is it?")
    assert set(short) == {"tokens", "words", "cut_off"}
    assert answer_measures("", 0, False, "is it?", "yes")["rougeL"] == 0


def test_an_arm_is_the_mean_over_the_answers_that_have_a_measure() -> None:
    texts = ["yes", "one two three four one"]
    row = arm_measures(
        texts, [{"words": 1.0, "cut_off": 0.0}, {"words": 5.0, "cut_off": 1.0, "repetition": 0.5}]
    )
    assert row["answers"] == 2
    assert row["words"] == 3
    assert row["cut_off"] == 0.5
    assert row["repetition"] == 0.5
    assert row["distinct_1"] == pytest.approx(5 / 6)


def test_counting_answers_loads_no_torch_and_no_libraries_before_they_are_needed() -> None:
    code = "import sys, rankwise.analysis.answers; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "transformers", "rouge_score", "sacrebleu", "sklearn"} & set(loaded)
