"""What is learnt of a conversation, beside the assistant masks of transformers."""

from typing import Any

import numpy as np
import pytest

from rankwise.data.examples import Example, StudyData, make_examples
from rankwise.data.order import IGNORED
from rankwise.data.sources import Rows
from rankwise.data.split import split_rows
from rankwise.errors import DataError
from rankwise.spec.models import DataSpec
from rankwise.tasks.causal_lm import prompt_of

END = "<|im_end|>"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}" + ASK
)
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}" + ASK
)
FORGETS = (  # as templates that drop what earlier answers thought
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('=>')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}" + ASK
)
TEMPLATES = {"marked": MARKED, "plain": PLAIN}
WAYS = ("completions", "last", "all")


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def talk(at: int, **weights: Any) -> list[dict[str, Any]]:
    return [
        said("system", "be brief"),
        said("user", f"where is cat {at}?"),
        said("assistant", f"hm => on the mat {at}", **weights),
        said("user", "and the dog?"),
        said("assistant", "on the hill"),
    ]


def made(rows: list[dict[str, Any]], tokenizer: Any, train_on: str, **more: Any) -> StudyData:
    more = {"max_length": 400, **more}
    data = DataSpec(
        source="made",
        split={"validation": 1, "test": 0},
        near_duplicates=0,
        train_on=train_on,
        **{name: name for name in rows[0]},
        **more,
    )
    return make_examples(split_rows(Rows("made", {"all": rows}), data), data, tokenizer)


def learnt(example: Example, tokenizer: Any) -> str:
    return str(tokenizer.decode(example.input_ids[example.labels != IGNORED]))


def assistant_masks(messages: list[dict[str, Any]], tokenizer: Any) -> tuple[list[int], np.ndarray]:
    """Token ids and the mask that TRL learns by, made by transformers (T,)."""
    found = tokenizer.apply_chat_template(
        messages,
        chat_template=MARKED,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return found["input_ids"], np.array(found["assistant_masks"], dtype=bool)


def last_run(mask: np.ndarray) -> np.ndarray:
    """The mask of the last stretch of learnt tokens."""
    starts = np.flatnonzero(mask & ~np.concatenate([[False], mask[:-1]]))
    return mask & (np.arange(len(mask)) >= starts[-1])


@pytest.mark.parametrize("train_on", WAYS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_learnt_are_the_tokens_of_the_assistant_masks(
    template: str, train_on: str, tokenizer_with: Any
) -> None:
    tokenizer = tokenizer_with(eos_token=END, chat_template=TEMPLATES[template])
    talks = [talk(at) for at in range(6)]
    study = made([{"messages": one} for one in talks], tokenizer, train_on)
    expected = {}
    for one in talks:
        ids, mask = assistant_masks(one, tokenizer)
        assert 0 < mask.sum() < len(ids)
        every = np.arange(len(ids)) > 0  # nothing predicts the first token
        expected[tuple(ids)] = {"completions": mask, "last": last_run(mask), "all": every}[train_on]
    for example in (*study.train, *study.validation):
        mask = expected.pop(tuple(example.input_ids.tolist()))
        np.testing.assert_array_equal(example.labels != IGNORED, mask)
        np.testing.assert_array_equal(example.labels[mask], example.input_ids[mask])
        assert example.reference == "on the hill"
        asked = tokenizer.decode(prompt_of(example))
        assert asked.endswith("<|im_start|>assistant\n")
    assert not expected


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_answer_of_weight_0_is_learnt_in_no_way(template: str, tokenizer_with: Any) -> None:
    tokenizer = tokenizer_with(eos_token=END, chat_template=TEMPLATES[template])
    rows = [{"messages": talk(at, weight=0)} for at in range(6)]
    for train_on in WAYS:
        for example in made(rows, tokenizer, train_on).train:
            said_of_it = learnt(example, tokenizer)
            assert "on the mat" not in said_of_it
            assert "on the hill" in said_of_it
            assert ("where is cat" in said_of_it) == (train_on == "all")
    silent = [{"messages": [*talk(at)[:4], said("assistant", "no", weight=0)]} for at in range(6)]
    assert made(silent, tokenizer, "completions").train
    with pytest.raises(DataError, match="no answer is to be learnt"):
        made(silent, tokenizer, "last")


def test_the_last_answer_is_learnt_where_a_template_changes_earlier_ones(
    tokenizer_with: Any,
) -> None:
    tokenizer = tokenizer_with(eos_token=END, chat_template=FORGETS)
    rows = [{"messages": talk(at)} for at in range(6)]
    for example in made(rows, tokenizer, "last").train:
        assert learnt(example, tokenizer) == f"on the hill{END}"
        assert "hm" not in tokenizer.decode(example.input_ids)
    with pytest.raises(DataError, match="changes earlier turns"):
        made(rows, tokenizer, "completions")


def test_of_prompt_and_completion_all_is_both_and_last_the_completion(
    llama_tokenizer: Any,
) -> None:
    rows = [{"prompt": f"the cat {at} ", "completion": "sat"} for at in range(6)]
    answers = made(rows, llama_tokenizer, "completions")
    assert made(rows, llama_tokenizer, "last").fingerprint == answers.fingerprint
    every = made(rows, llama_tokenizer, "all")
    for example, answer in zip(every.train, answers.train, strict=True):
        np.testing.assert_array_equal(example.input_ids, answer.input_ids)
        np.testing.assert_array_equal(example.labels[1:], example.input_ids[1:])
        assert example.labels[0] == IGNORED
        assert (example.text, example.reference, example.asked) == (
            answer.text,
            answer.reference,
            answer.asked,
        )


def test_a_row_whose_answer_is_cut_off_is_kept_where_its_prompt_is_learnt(
    llama_tokenizer: Any,
) -> None:
    rows = [{"prompt": f"the cat sat on the mat {at} ", "completion": "sat"} for at in range(6)]
    for example in made(rows, llama_tokenizer, "all", max_length=4).train:
        assert len(example.input_ids) == 4
        assert (example.labels != IGNORED).sum() == 3
        assert example.reference is None
    with pytest.raises(DataError, match="cuts off every token of their answers"):
        made(rows, llama_tokenizer, "last", max_length=4)
