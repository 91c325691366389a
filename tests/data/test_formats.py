"""Rows of every format become the conversation that they mean, and the format is said."""

import json
from typing import Any

import pytest

from rankwise.data.examples import StudyData, make_examples
from rankwise.data.formats import in_format
from rankwise.data.rows import needed_columns
from rankwise.data.sources import read_rows
from rankwise.data.split import split_rows
from rankwise.errors import DataError
from rankwise.spec.models import DataSpec

TOOLED = (
    "{% if tools %}TOOLS:{% for t in tools %}{{ t | tojson }}{% endfor %}\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c['function']['name'] }}"
    "({{ c['function']['arguments'] | tojson }})</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FIND = {"type": "function", "function": {"name": "find", "parameters": {}}}
NAMES = ["cat", "dog", "hen", "cow", "pig", "bee"]


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def told(speaker: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"from": speaker, "value": value, **more}


def plain(name: str) -> dict[str, Any]:
    """What each of the other rows means."""
    return {"messages": [said("user", f"where is\nthe {name}?"), said("assistant", f"{name} sat")]}


WAYS = {
    "sharegpt": lambda n: {
        "conversations": [told("human", f"where is\nthe {n}?"), told("gpt", f"{n} sat")]
    },
    "sharegpt in JSON": lambda n: {
        "conversations": json.dumps(
            [told("user", f"where is\nthe {n}?"), told("model", f"{n} sat")]
        )
    },
    "sharegpt under another name": lambda n: {
        "messages": [told("human", f"where is\nthe {n}?"), told("assistant", f"{n} sat")]
    },
    "alpaca": lambda n: {"instruction": "where is", "input": f"the {n}?", "output": f"{n} sat"},
    "alpaca without input": lambda n: {
        "instruction": f"where is\nthe {n}?",
        "output": f"{n} sat",
        "input": None,
    },
    "lists": lambda n: {
        "prompt": [said("user", f"where is\nthe {n}?")],
        "completion": [said("assistant", f"{n} sat")],
    },
    "messages in parts": lambda n: {
        "messages": [
            said(
                "user",
                [{"type": "text", "text": "where is\n"}, {"type": "text", "text": f"the {n}?"}],
            ),
            said("assistant", [{"type": "text", "text": f"{n} sat"}]),
        ]
    },
}


def made(tmp_path: Any, rows: list[dict[str, Any]], tokenizer: Any, **more: Any) -> StudyData:
    """The examples of rows in a file, as a plan makes them."""
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = DataSpec(
        source="rows.jsonl",
        split={"validation": 1, "test": 0},
        **{"near_duplicates": 0, "max_length": 400, **more},
    )
    found, shape = in_format(read_rows(data, tmp_path, needed_columns(data, [])), data)
    return make_examples(split_rows(found, shape), shape, tokenizer)


@pytest.fixture(scope="module")
def tooled(tokenizer_with: Any) -> Any:
    return tokenizer_with(eos_token="<|im_end|>", chat_template=TOOLED)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_a_question_and_its_answer_is_the_same_example(
    way: str, tmp_path: Any, tooled: Any
) -> None:
    expected = made(tmp_path, [plain(name) for name in NAMES], tooled, messages="messages")
    found = made(tmp_path, [WAYS[way](name) for name in NAMES], tooled)
    assert found.fingerprint == expected.fingerprint
    assert expected.notes == ()
    assert len(found.notes) == 1
    assert found.notes[0].startswith("format of the rows, recognised: ")
    assert way.split()[0].replace("lists", "prompt_completion") in found.notes[0]


def test_prompt_and_completion_as_texts_are_joined_as_they_are(tmp_path: Any, tooled: Any) -> None:
    rows = [{"prompt": f"the {name} ", "completion": "sat"} for name in NAMES]
    named = made(tmp_path, rows, tooled, prompt="prompt", completion="completion")
    found = made(tmp_path, rows, tooled)
    assert found.fingerprint == named.fingerprint
    assert named.notes == ()
    assert found.notes == ("format of the rows, recognised: prompt_completion (texts)",)


def test_calls_tools_and_system_texts_of_sharegpt_are_those_of_messages(
    tmp_path: Any, tooled: Any
) -> None:
    def call(name: str) -> dict[str, Any]:
        return {"name": "find", "arguments": {"animal": name}}

    rows = [
        {
            "conversations": [
                told("human", f"find the {name}"),
                told("function_call", json.dumps([call(name)] if at % 2 else call(name))),
                told("observation", "ok"),
                told("gpt", "done.", weight=at % 3 and 1),
            ],
            "tools": json.dumps([FIND]),
            "system": "be brief",
        }
        for at, name in enumerate(NAMES)
    ]
    means = [
        {
            "messages": [
                said("system", "be brief"),
                said("user", f"find the {name}"),
                said(
                    "assistant",
                    None,
                    tool_calls=[{"type": "function", "function": call(name)}],
                ),
                said("tool", "ok"),
                said("assistant", "done.", weight=at % 3 and 1),
            ],
            "tools": [FIND],
        }
        for at, name in enumerate(NAMES)
    ]
    expected = made(tmp_path, means, tooled)
    found = made(tmp_path, rows, tooled)
    assert found.fingerprint == expected.fingerprint
    texts = [tooled.decode(example.input_ids) for example in found.train]
    assert all("<call>find(" in text and "be brief" in text for text in texts)


def test_earlier_turns_of_alpaca_stand_before_the_question(tmp_path: Any, tooled: Any) -> None:
    rows = [
        {"instruction": name, "input": "", "output": "sat", "history": [["who?", "me."]]}
        for name in NAMES
    ]
    turns = [("user", "who?"), ("assistant", "me.")]
    means = [
        {"messages": [said(*turn) for turn in (*turns, ("user", name), ("assistant", "sat"))]}
        for name in NAMES
    ]
    assert made(tmp_path, rows, tooled).fingerprint == made(tmp_path, means, tooled).fingerprint


def test_answers_in_a_prompt_of_messages_are_only_read(tmp_path: Any, tooled: Any) -> None:
    rows = [
        {
            "prompt": [said("user", "who?"), said("assistant", "me."), said("user", name)],
            "completion": [said("assistant", "sat")],
        }
        for name in NAMES
    ]
    for example in made(tmp_path, rows, tooled).train:
        learnt = example.input_ids[example.labels >= 0]
        assert tooled.decode(learnt) == "sat<|im_end|>"
        assert "me." in tooled.decode(example.input_ids)


def test_a_named_format_is_read_where_the_rows_hold_several(tmp_path: Any, tooled: Any) -> None:
    rows = [
        {
            **plain(name),
            "instruction": f"say {name}",
            "output": name,
            "prompt": f"a {name}",
            "completion": "b",
        }
        for name in NAMES
    ]
    prints = {}
    for name in ("auto", "messages", "alpaca", "prompt_completion"):
        study = made(tmp_path, rows, tooled, format=name)
        prints[name] = study.fingerprint if name != "prompt_completion" else name
        assert bool(study.notes) == (name in ("auto", "prompt_completion"))
    assert prints["auto"] == prints["messages"] != prints["alpaca"]
    with pytest.raises(DataError, match=r"data\.format: sharegpt reads the columns conversations"):
        made(tmp_path, rows, tooled, format="sharegpt")


BAD = {
    "alpaca": ({"instruction": 3, "output": "sat"}, "column instruction holds int 3, not text"),
    "alpaca without output": ({"instruction": "say"}, "no column output, only instruction"),
    "sharegpt": (
        {"conversations": [told("nobody", "hi")]},
        "message 1 is from nobody, not human",
    ),
    "sharegpt with roles": ({"conversations": [said("user", "hi")]}, "message 1 says not who"),
    "sharegpt with a call in words": (
        {"conversations": [told("function_call", "find it")]},
        "message 1 of function_call: found str, not an object",
    ),
    "lists": ({"prompt": "where?", "completion": [said("assistant", "sat")]}, "holds str, not a"),
}


@pytest.mark.parametrize("way", BAD)
def test_a_row_of_another_format_is_malformed_with_its_line(
    way: str, tmp_path: Any, tooled: Any
) -> None:
    row, fault = BAD[way]
    rows = [WAYS[way.split()[0]](name) for name in NAMES]
    rows.insert(2, row)
    with pytest.raises(DataError) as caught:
        made(tmp_path, rows, tooled)
    assert "line 3: " in str(caught.value)
    assert fault in str(caught.value)
    assert "1 of 7 rows is malformed" in str(caught.value)
    study = made(tmp_path, rows, tooled, malformed_rows=0.2)
    clean = made(tmp_path, rows[:2] + rows[3:], tooled)
    assert study.fingerprint == clean.fingerprint
    assert any("1 of 7 rows is malformed and left out" in note for note in study.notes)


def test_rows_without_question_or_answer_are_counted_as_empty(tmp_path: Any, tooled: Any) -> None:
    rows = [WAYS["alpaca"](name) for name in NAMES]
    rows[1]["output"] = " "
    study = made(tmp_path, rows, tooled)
    assert "1 of 6 rows with an empty text left out" in study.notes


def test_columns_of_no_format_are_refused_with_what_to_name(tmp_path: Any, tooled: Any) -> None:
    with pytest.raises(DataError, match="columns: text; name the columns"):
        made(tmp_path, [{"text": name} for name in NAMES], tooled)
