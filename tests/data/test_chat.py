"""Conversations reach the template whole, and what is learnt of them is what should be."""

import json
from typing import Any

import pytest

from rankwise.data.examples import Example, StudyData, make_examples
from rankwise.data.order import IGNORED
from rankwise.data.sources import Rows
from rankwise.data.split import split_rows
from rankwise.errors import DataError
from rankwise.spec.models import DataSpec
from rankwise.tasks.causal_lm import prompt_of

END = "<|im_end|>"
TOOLED = (
    "{% if tools %}<|im_start|>system\nTOOLS:{% for t in tools %}{{ t | tojson }}{% endfor %}"
    "<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m.name %}({{ m.name }}) {% endif %}{{ m['content'] }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c['function']['name'] }}"
    "({{ c['function']['arguments'] | tojson }})</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BARE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TWICE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% if m.think %}{% generation %}{{ m.think }}{% endgeneration %} => {% endif %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FIND = {"type": "function", "function": {"name": "find", "parameters": {"animal": "string"}}}


def call(animal: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "find", "arguments": {"animal": animal}}}


def asked(at: int) -> dict[str, Any]:
    return {"role": "user", "content": f"where is cat {at}?"}


def told(at: int, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": f"on the mat {at}", **more}


def called(at: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "find it"},
        {"role": "assistant", "content": None, "tool_calls": [call(f"cat {at}")], **more},
        {"role": "tool", "content": "ok"},
        {"role": "assistant", "content": "done."},
    ]


def made(rows: list[dict[str, Any]], tokenizer: Any, **more: Any) -> StudyData:
    data = DataSpec(
        source="made",
        messages="messages",
        split={"validation": 2, "test": 0},
        **{"near_duplicates": 0, "max_length": 400, **more},
    )
    return make_examples(split_rows(Rows("made", {"all": rows}), data), data, tokenizer)


def chats(*conversations: list[dict[str, Any]], n: int = 6) -> list[dict[str, Any]]:
    return [{"messages": conversations[at % len(conversations)]} for at in range(n)]


def refusal(rows: list[dict[str, Any]], tokenizer: Any) -> str:
    with pytest.raises(DataError) as caught:
        made(rows, tokenizer)
    message = str(caught.value)
    assert "\n" not in message
    return message


def learnt(example: Example, tokenizer: Any) -> str:
    return str(tokenizer.decode(example.input_ids[example.labels != IGNORED]))


@pytest.fixture(scope="module")
def tooled(tokenizer_with: Any) -> Any:
    return tokenizer_with(eos_token=END, chat_template=TOOLED)


def test_tools_and_calls_reach_the_template_and_tell_rows_apart(tooled: Any) -> None:
    """Rows that differ in nothing but a call, or in nothing but the tools, are six rows."""
    rows = [{"messages": called(at), "tools": [FIND]} for at in range(6)]
    study = made(rows, tooled, near_duplicates=0)
    assert len(study.train) == 4
    whole = [
        tooled.apply_chat_template(
            [{**m, "content": m["content"] or ""} for m in row["messages"]], tools=row["tools"]
        )["input_ids"]
        for row in rows
    ]
    for example in study.train:
        assert example.input_ids.tolist() in whole
        assert "<call>find({" in learnt(example, tooled)
        assert learnt(example, tooled).endswith(f"</call>{END}done.{END}")
    for example in made([{"messages": row["messages"][:2]} for row in rows], tooled).train:
        assert learnt(example, tooled) == f"{example.reference}{END}"
    # the long list of tools that all share makes no near copies of them
    long = [{**FIND, "description": "one of many words " * 40}]
    share = [{"messages": [asked(at), told(at)], "tools": long} for at in range(6)]
    study = made(share, tooled, near_duplicates=0.2, max_length=2000)
    assert len(study.validation) == 2
    tools = [{**FIND, "number": at} for at in range(6)]
    assert len(made([{"messages": called(0), "tools": [t]} for t in tools], tooled).train) == 4
    assert study.notes == ()


def test_a_conversation_in_json_is_the_conversation(tooled: Any) -> None:
    """As csv files hold it, and data sets whose tools or calls differ in form."""
    rows = [{"messages": called(at), "tools": [FIND]} for at in range(6)]
    texts = [{name: json.dumps(value) for name, value in row.items()} for row in rows]
    nested = [{**row, "tools": [json.dumps(FIND)]} for row in rows]
    prints = {made(some, tooled).fingerprint for some in (rows, texts, nested)}
    assert len(prints) == 1
    without = made([{**row, "tools": None} for row in rows], tooled)
    assert (
        without.fingerprint == made([{"messages": r["messages"]} for r in rows], tooled).fingerprint
    )
    assert without.fingerprint not in prints


def test_what_the_template_does_not_write_is_said(chat_tokenizer: Any, tooled: Any) -> None:
    named = [{**asked(at), "name": "ann", "mood": 3} for at in range(6)]
    rows = [{"messages": [named[at], told(at)], "tools": [FIND]} for at in range(6)]
    notes = made(rows, chat_tokenizer).notes
    assert (
        "train: the chat template does not write the field name of a message as it is (4)" in notes
    )
    assert "train: the chat template does not write the tools of a conversation (4)" in notes
    study = made(rows, tooled)
    assert "(ann) where is cat" in tooled.decode(study.train[0].input_ids)
    assert study.notes == tuple(
        f"{side}: the chat template does not write the field mood of a message as it is ({n})"
        for side, n in (("train", 4), ("validation", 2))
    )
    message = refusal([{"messages": called(at)} for at in range(6)], chat_tokenizer)
    assert "does not write the tool_calls of an answer" in message
    silent = "{% for m in messages if m['role'] != 'tool' %}{{ m['role'] }}: {{ m['content'] }}"
    tokenizer = tooled.__class__(
        tokenizer_object=tooled.backend_tokenizer,
        eos_token=END,
        pad_token="<pad>",
        chat_template=silent + "<|im_end|>{% endfor %}",
    )
    tool = {"role": "tool", "content": "a result"}
    notes = made([{"messages": [asked(at), tool, told(at)]} for at in range(6)], tokenizer).notes
    assert (
        "train: the chat template does not write a message of the role tool as it is (4)" in notes
    )


@pytest.mark.parametrize(
    "flag", [{"weight": 0}, {"train": False}, {"training": 0.0}, {"masked": True}, {"loss": False}]
)
def test_an_answer_of_weight_0_is_read_and_not_learnt(
    flag: dict[str, Any], chat_tokenizer: Any, marked_tokenizer: Any
) -> None:
    rows = [
        {"messages": [asked(at), {**told(0), **flag}, asked(at + 9), told(at, weight=1)]}
        for at in range(6)
    ]
    bare = [
        {
            "messages": [
                {k: v for k, v in m.items() if k in ("role", "content")} for m in r["messages"]
            ]
        }
        for r in rows
    ]
    for tokenizer in (chat_tokenizer, marked_tokenizer):
        study, every = made(rows, tokenizer), made(bare, tokenizer)
        for example, other in zip(study.train, every.train, strict=True):
            assert example.input_ids.tolist() == other.input_ids.tolist()
            assert learnt(example, tokenizer) == f"{example.reference}{END}"
            assert learnt(other, tokenizer) == f"on the mat 0{END}{example.reference}{END}"
            assert example.text == other.text
            assert "on the mat 0" in example.text
        assert study.notes == ()


def test_flags_that_cannot_be_followed_are_refused_or_said(chat_tokenizer: Any) -> None:
    def wrong(*messages: dict[str, Any]) -> str:
        rows = [*chats([asked(1), told(1)], n=5), {"messages": list(messages)}]
        return refusal(rows, chat_tokenizer)

    message = wrong(asked(1), told(1, weight=0.5))
    assert "made, row 6: data.messages: message 2: weight is 0.5" in message
    assert "must be 0 or 1" in message
    assert "train is 'no'" in wrong(asked(1), told(1, train="no"))
    assert "contradict" in wrong(asked(1), told(1, weight=1, train=False))
    assert "train_detail picks parts" in wrong(asked(1), told(1, train_detail=[{"begin": 0}]))
    heavy = [{"messages": [{**asked(at), "weight": 1}, told(at)]} for at in range(6)]
    study = made(heavy, chat_tokenizer)
    assert "train: only answers are learnt, not a message of weight 1 of the role user (4)" in (
        study.notes
    )
    none = [{"messages": [asked(at), told(at, weight=at % 2)]} for at in range(12)]
    study = made(none, chat_tokenizer)
    assert len(study.train) + len(study.validation) == 6
    assert any("no answer is to be learnt (weight 0)" in note for note in study.notes)


def test_content_may_be_parts_of_text_and_nothing_else(tooled: Any) -> None:
    whole = [{"messages": [asked(at), told(at)]} for at in range(6)]
    parts = [
        {
            "messages": [
                {**m, "content": [{"type": "text", "text": t} for t in m["content"].partition(" ")]}
                for m in row["messages"]
            ]
        }
        for row in whole
    ]
    assert made(whole, tooled).fingerprint == made(parts, tooled).fingerprint
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    message = refusal([*whole, {"messages": [picture, told(1)]}], tooled)
    assert "made, row 7: data.messages: message 1 has a part of the type image_url" in message
    for content, found in ((None, "no content"), (3, "int as content"), ({}, "dict as content")):
        rows = [*whole, {"messages": [asked(1), {"role": "assistant", "content": content}]}]
        assert f"message 2 of the role assistant has {found}" in refusal(rows, tooled)
    rows = [*whole, {"messages": called(1), "tools": ["find"]}]
    assert "made, row 7: data.messages: column tools: found str, not an object" in refusal(
        rows, tooled
    )
    assert "half of a surrogate pair" in refusal([*whole, {"messages": '["\\ud83d"]'}], tooled)


def test_conversations_without_an_answer_are_left_out_and_counted(tooled: Any) -> None:
    system = {"role": "system", "content": "be brief"}
    rows = [{"messages": [asked(at), told(at)]} for at in range(6)]
    rows += [{"messages": some} for some in ([], None, "", [system], [asked(1)])]
    study = made([*rows, {"messages": [asked(77), told(77), asked(78)]}], tooled)
    assert "3 of 12 rows with an empty text left out" in study.notes
    assert sum("no message of the role assistant" in note for note in study.notes) >= 1
    every = (*study.train, *study.validation)
    (ends_with_a_question,) = [e for e in every if e.reference == "on the mat 77"]
    assert "cat 78" in tooled.decode(ends_with_a_question.input_ids)
    assert learnt(ends_with_a_question, tooled) == f"on the mat 77{END}"


@pytest.mark.parametrize("marks", [False, True])
def test_where_the_template_writes_no_end_of_turn_the_end_of_text_is_put(
    marks: bool, tokenizer_with: Any
) -> None:
    template = BARE
    if marks:
        content = "{{ m['content'] }}"
        template = BARE.replace(
            content,
            f"{{% if m['role'] == 'assistant' %}}{{% generation %}}{content}{{% endgeneration %}}"
            f"{{% else %}}{content}{{% endif %}}",
        )
    tokenizer = tokenizer_with(chat_template=template)
    rows = [{"messages": [asked(at), told(at), asked(at + 20), told(at + 20)]} for at in range(6)]
    study = made(rows, tokenizer)
    for example in study.train:
        at = int(str(example.reference).split()[-1])
        assert learnt(example, tokenizer) == f"on the mat {at - 20}</s>on the mat {at}</s>"
        assert tokenizer.decode(prompt_of(example)).endswith("?\nassistant: ")
    assert [note for note in study.notes if "writes no end of turn" in note] == [
        "the chat template writes no end of turn after an answer; the end-of-text token </s> is "
        "put there, so that the model learns where answers end"
    ] * 2
    endless = tokenizer_with(chat_template=template, eos_token=None)
    study = made(rows, endless)
    assert any("the model does not learn where an answer ends" in note for note in study.notes)
    assert learnt(study.train[0], endless).endswith(str(study.train[0].reference))


def test_an_end_of_turn_outside_the_marks_is_learnt_and_space_behind_it_is_not(
    tokenizer_with: Any, marked_tokenizer: Any
) -> None:
    rows = [{"messages": [asked(at), told(at), asked(at + 9), told(at + 9)]} for at in range(6)]
    right = made(rows, marked_tokenizer)
    held = str(marked_tokenizer.chat_template)
    for end in (
        "{% endgeneration %}<|im_end|>{{ '\n' }}",
        "<|im_end|>{{ '\n' }}{% endgeneration %}",
    ):
        template = held.replace("<|im_end|>{% endgeneration %}{{ '\n' }}", end)
        assert template != held
        study = made(rows, tokenizer_with(eos_token=END, chat_template=template))
        assert study.fingerprint == right.fingerprint


def test_two_marks_in_a_turn_are_one_answer(tokenizer_with: Any) -> None:
    tokenizer = tokenizer_with(eos_token=END, chat_template=TWICE)
    rows = [
        {"messages": [asked(at), told(at), asked(at + 20), told(at + 20, think="hmm")]}
        for at in range(6)
    ]
    study = made(rows, tokenizer)
    for example in study.train:
        at = int(str(example.reference).split()[-1])
        assert learnt(example, tokenizer) == (f"on the mat {at - 20}{END}hmmon the mat {at}{END}")
        assert tokenizer.decode(prompt_of(example)).endswith(
            f"where is cat {at}?{END}\n<|im_start|>assistant\n"
        )
        assert example.text.endswith(f"where is cat {at}?")
    cut = made(rows, tokenizer, max_length=len(prompt_of(study.train[0])) - 6)
    assert {str(e.reference) for e in cut.train} <= {f"on the mat {at}" for at in range(6)}


def test_an_answer_outside_the_marks_is_not_learnt(tokenizer_with: Any) -> None:
    """A call that the template writes without marking it, then an answer that it marks."""
    template = TWICE.replace(
        "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}",
        "{% if m.tool_calls %}{{ m.tool_calls | tojson }}<|im_end|>{% else %}"
        "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% endif %}",
    )
    tokenizer = tokenizer_with(eos_token=END, chat_template=template)
    study = made([{"messages": called(at)} for at in range(6)], tokenizer)
    for example in study.train:
        assert learnt(example, tokenizer) == f"done.{END}"
        assert example.reference == "done."
        assert tokenizer.decode(prompt_of(example)).endswith(f"ok{END}\n<|im_start|>assistant\n")
    rows = [{"messages": called(at)[:2]} for at in range(6)]
    assert "marks nothing of its answers" in refusal(rows, tokenizer)


def test_whatever_a_template_raises_is_a_message(tokenizer_with: Any) -> None:
    rows = [{"messages": [asked(at), told(at)]} for at in range(6)]
    for template, said in (
        ("{{ messages[0].content + 3 }}", "raised an error"),
        ("{{ raise_exception('no') }}", "raised an error: no"),
        ("{% generation %}{{ 1 // 0 }}{% endgeneration %}", "raised an error"),
        ("{% for m in messages %}", "raised an error"),
    ):
        assert said in refusal(rows, tokenizer_with(chat_template=template))
