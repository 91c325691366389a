"""How good predictions and generated answers are: numbers from labels and texts alone.

Words are runs of letters and digits in lower case; in scripts written without spaces, characters.
On ASCII text these are the words of the ROUGE package's own tokenizer, which drops all other
characters. No torch here; `rouge_score` and `sacrebleu` are imported when first needed.

Shapes: E examples, C classes. Shares, accuracy, F1 and ROUGE lie in 0..1, chrF in 0..100 as
sacrebleu has it.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")
THIRDS = ("first", "middle", "last")
REPETITION_N = 4
DISTINCT_N = (1, 2)


def accuracy(labels_E: IntArray, predicted_E: IntArray) -> float:
    """Share of examples whose predicted class is the label.

    Raises:
        ValueError: there are no examples, or the lengths differ.
    """
    return float(np.mean(_checked(labels_E) == _checked(predicted_E, len(labels_E))))


def macro_f1(labels_E: IntArray, predicted_E: IntArray) -> float:
    """Mean of F1 over the classes among labels or predictions.

    Raises:
        ValueError: there are no examples, or the lengths differ.
    """
    counts_CC = _confusion(labels_E, predicted_E)
    either_C = counts_CC.sum(axis=0) + counts_CC.sum(axis=1)
    return float(np.mean(2 * counts_CC.diagonal() / either_C))


def matthews(labels_E: IntArray, predicted_E: IntArray) -> float:
    """Matthews' correlation of labels and predictions, -1..1; 0 where either never varies.

    For more than two classes R_K of Gorodkin 2004.

    Raises:
        ValueError: there are no examples, or the lengths differ.
    """
    counts_CC = _confusion(labels_E, predicted_E)
    told_C, true_C, total = counts_CC.sum(axis=0), counts_CC.sum(axis=1), counts_CC.sum()
    spread = (total**2 - told_C @ told_C) * (total**2 - true_C @ true_C)
    together = counts_CC.trace() * total - told_C @ true_C
    return float(together / np.sqrt(spread)) if spread else 0.0


def _confusion(labels_E: IntArray, predicted_E: IntArray) -> NDArray[np.float64]:
    """How many examples of each class (rows) are told to be of each class (columns), (C, C)."""
    told_E = _checked(predicted_E, len(_checked(labels_E)))
    classes_C, places_2E = np.unique(np.stack([labels_E, told_E]), return_inverse=True)
    counts_CC = np.zeros((len(classes_C), len(classes_C)))
    np.add.at(counts_CC, tuple(places_2E.reshape(2, -1)), 1)
    return counts_CC


def _checked(values_E: IntArray, length: int | None = None) -> IntArray:
    values_E = np.asarray(values_E)
    if values_E.ndim != 1 or not len(values_E) or length not in (None, len(values_E)):
        raise ValueError("labels and predictions must be equally many, and at least one")
    return values_E


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case; see the top of the file."""
    return WORD.findall(text.lower())


def repetition(text: str, n: int = REPETITION_N) -> float | None:
    """Share of a text's word n-grams that had occurred in it before.

    1 - distinct n-grams / n-grams, the seq-rep-n of Welleck et al. 2020, "Neural Text Generation
    with Unlikelihood Training". None for a text of fewer than n words.
    """
    grams = _ngrams(words_of(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else None


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Number of distinct word n-grams in all `texts` together, by their number of words.

    distinct-n of Li et al. 2016, "A Diversity-Promoting Objective Function for Neural
    Conversation Models". It falls as texts grow longer, so compare it between arms
    with answers of similar length. None where there are no words.
    """
    all_words = [words_of(text) for text in texts]
    total = sum(map(len, all_words))
    grams = {gram for words in all_words for gram in _ngrams(words, n)}
    return len(grams) / total if total else None


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """ROUGE-L F1 of each answer with its reference, by `rouge_score`; shape (E,), 0..1.

    Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3, with beta = 1;
    without stemming. The value of a corpus is the mean.

    Raises:
        ValueError: not as many answers as references.
    """
    scores = [
        _rouge().score(reference, answer)["rougeL"].fmeasure
        for answer, reference in zip(answers, references, strict=True)
    ]
    return np.array(scores, dtype=np.float64)


def chrf(answers: Sequence[str], references: Sequence[str]) -> float:
    """chrF of a corpus by `sacrebleu`, 0..100: character 6-grams, beta 2, no word n-grams.

    Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation". Counts are summed
    over the corpus, so it is not the mean of the sentences' values.

    Raises:
        ValueError: not as many answers as references, or none.
    """
    from sacrebleu.metrics import CHRF

    if not answers or len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers for {len(references)} references")
    return float(CHRF().corpus_score(list(answers), [list(references)]).score)


class _Words:
    """The tokenizer that `rouge_score` asks for."""

    def tokenize(self, text: str) -> list[str]:
        return words_of(text)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


def likeness_by_third(answer: str, other: str) -> dict[str, float] | None:
    """How much of each third of an answer follows `other`, the prompt or the reference.

    The answer's words are cut into three runs of nearly equal length (the earlier ones longer). The
    value of a run is its ROUGE-L precision: the longest common subsequence with `other` by the
    words of the run (Lin 2004, section 3.1), which does not penalise a run for being shorter than
    `other`. An answer that drifts falls from `first` to `last`.

    Returns:
        `first`, `middle`, `last`, each 0..1; None for an answer of fewer than three words.
    """
    words = words_of(answer)
    if len(words) < len(THIRDS):
        return None
    runs = np.array_split(np.array(words, dtype=object), len(THIRDS))
    return {
        third: float(_rouge().score(other, " ".join(run))["rougeL"].precision)
        for third, run in zip(THIRDS, runs, strict=True)
    }


def answer_measures(
    answer: str, tokens: int, cut_off: bool, prompt: str, reference: str | None = None
) -> dict[str, float]:
    """The measures of one generated answer; undefined ones are left out.

    Args:
        answer: the generated text, without the prompt.
        tokens: its length in the model's own tokens.
        cut_off: whether it ended because of `max_new_tokens`.
        prompt: the prompt.
        reference: the expected answer, if known.

    Returns:
        `tokens` and `words` (lengths), `cut_off` (0 or 1), `repetition`; `rougeL` and `chrf`
        with the reference; `prompt_first`, `prompt_middle`, `prompt_last` (`likeness_by_third`)
        and `prompt_drift`, first less last; the same for `reference`.
    """
    measures: dict[str, float | None] = {
        "tokens": float(tokens),
        "words": float(len(words_of(answer))),
        "cut_off": float(cut_off),
        "repetition": repetition(answer),
    }
    if reference is not None:
        measures["rougeL"] = float(rouge_l([answer], [reference])[0])
        measures["chrf"] = chrf([answer], [reference])
    for name, other in (("prompt", prompt), ("reference", reference)):
        thirds = likeness_by_third(answer, other) if other is not None else None
        if thirds is not None:
            measures |= {f"{name}_{third}": value for third, value in thirds.items()}
            measures[f"{name}_drift"] = thirds["first"] - thirds["last"]
    return {name: value for name, value in measures.items() if value is not None}


def arm_measures(texts: Sequence[str], measures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The measures of all answers of an arm in one row.

    Args:
        texts: its answers.
        measures: of each, as from `answer_measures`; more may have been added to them.

    Returns:
        The mean of every measure over the answers that have it (that of `cut_off` is the share
        that the limit cut off), `distinct_1` and `distinct_2` over all answers together, and
        `answers`, their number.
    """
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for one in measures:
        sums.update(one)
        counts.update(one.keys())
    means = {name: sums[name] / counts[name] for name in counts}
    together = {f"distinct_{n}": distinct(texts, n) for n in DISTINCT_N}
    return {
        "answers": float(len(texts)),
        **means,
        **{name: value for name, value in together.items() if value is not None},
    }
