"""Tokens made in batches are those of the tokenizer called on each text, and no batch is kept."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import transformers

from rankwise.data import tokenize
from rankwise.data.tokenize import plain_ids, token_ids

WORDS = ("the", "cat", "sat", "</s>", "caf\u00e9", "  ", "\U0001f600", "[SEP]")


def texts_of(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 30))) for _ in range(count)]


@pytest.mark.parametrize("kind", ["gpt", "llama", "bert", "t5"])
@pytest.mark.parametrize("how", [{}, {"add_special_tokens": False}, {"max_length": 9}], ids=str)
def test_in_batches_every_text_has_the_tokens_of_a_call_of_its_own(
    kind: str, how: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = request.getfixturevalue(f"{kind}_tokenizer")
    monkeypatch.setattr(tokenize, "TEXTS", 7)
    how = {**how, "truncation": "max_length" in how}
    texts = texts_of(30)
    wanted = [tokenizer(text, **how)["input_ids"] for text in texts]
    made = []
    for row in token_ids(iter(texts), tokenizer, **how):
        made.append(row)
        tokenizer("between two texts", truncation=True, max_length=3)  # sets the library otherwise
    assert made == wanted


def test_a_tokenizer_that_does_more_than_its_library_is_asked_itself(gpt_tokenizer: Any) -> None:
    class Own(transformers.PreTrainedTokenizerFast):  # type: ignore[misc]
        def _encode_plus(self, text: Any, *args: Any, **more: Any) -> Any:
            made = super()._encode_plus(text, *args, **more)
            made["input_ids"] = [[*row, 7] for row in made["input_ids"]]
            return made

    own = Own(tokenizer_object=gpt_tokenizer.backend_tokenizer, pad_token="<pad>")
    assert all(row[-1] == 7 for row in plain_ids(texts_of(5), own))


def test_texts_are_tokenised_in_the_memory_of_one_batch(gpt_tokenizer: Any) -> None:
    tracemalloc.start()
    try:
        for _ in plain_ids(("the cat sat on the mat" for _ in range(20_000)), gpt_tokenizer):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4e6
