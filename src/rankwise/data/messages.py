"""Conversations in one form: what the many ways to write chat data mean.

In normal form a message is {role, content} and what else it has; its content is a text, a field
without value is left out, and `weight` is there in two cases only: 0 on an answer that is not
learnt, 1 on a message that is no answer and asks to be learnt. `tools` is a list of objects.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from rankwise.data.tables import Row, broken_part, missing
from rankwise.reading import Malformed
from rankwise.spec.models import DataSpec
from rankwise.text import shorten

Message = dict[str, Any]
TOOLS = "tools"  # the column beside the messages, as trl has it
WEIGHT = "weight"
FLAGS = (WEIGHT, "train", "training", "trainable", "loss")  # true or 1: learnt
MASKS = ("masked",)  # true or 1: not learnt
PARTIAL = ("train_detail", "training_detail")
CALLS = ("tool_calls", "function_call")
TEXT_PARTS = ("text", "input_text", "output_text")


def normal_row(row: Row, data: DataSpec) -> Row:
    """A row with its conversation and tools in normal form; rows of other shapes stay as they are.

    Raises:
        Malformed: The conversation or the tools cannot be read.
    """
    if data.messages is None:
        return row
    held = row.get(data.messages)
    if missing(held) or (isinstance(held, str) and not held.strip()):
        return {**row, data.messages: []}
    try:
        messages = listed(held)
        normal = {**row, data.messages: [_message(at, one) for at, one in enumerate(messages, 1)]}
    except Malformed as error:
        raise Malformed(
            f"data.messages: {error}; column {data.messages} must hold lists of {{role, content}}"
        ) from None
    if TOOLS in row:
        try:
            normal[TOOLS] = _tools(row[TOOLS])
        except Malformed as error:
            raise Malformed(
                f"data.messages: column {TOOLS}: {error}; it is given to the chat template and "
                "must hold a list of objects, or its JSON"
            ) from None
    return normal


def seen_of(row: Row, data: DataSpec) -> str:
    """All that a model may read of a conversation in normal form, for comparing rows.

    Tools stand there as one word, their hash: written out, a list that all rows share would make
    near copies of them all.
    """
    assert data.messages is not None
    parts = [part for message in row[data.messages] for part in _parts(message)]
    if row.get(TOOLS):
        parts.append(hashlib.sha256(_json(row[TOOLS]).encode()).hexdigest())
    return "\n".join(parts)


def readable(messages: Sequence[Message]) -> str:
    """Messages as readable text, calls as JSON, without system messages."""
    return "\n\n".join(_said(message) for message in messages if message["role"] != "system")


def _said(message: Message) -> str:
    calls = [_json(message[name]) for name in CALLS if name in message]
    return "\n".join(part for part in (message["content"], *calls) if part)


def _parts(message: Message) -> list[str]:
    others = {k: v for k, v in message.items() if k not in ("role", "content", WEIGHT)}
    return [message["content"], _json(others)] if others else [message["content"]]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


def _message(number: int, message: Any) -> Message:
    where = f"message {number}"
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Malformed(f"{where} has no role: {shorten(message)}")
    normal = {k: v for k, v in message.items() if v is not None}
    if "tool_calls" in normal:
        calls = [object_of(call) for call in listed(normal.pop("tool_calls") or [])]
        normal |= {"tool_calls": calls} if calls else {}
    normal["content"] = _content(where, normal)
    answers = message["role"] == "assistant"
    learnt = _flag(where, normal)
    for name in (*FLAGS, *MASKS):
        normal.pop(name, None)
    if learnt is not None and learnt != answers:
        normal[WEIGHT] = int(learnt)
    return normal


def _content(where: str, message: Message) -> str:
    content = message.get("content")
    if content is None and any(name in message for name in CALLS):
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        held = "no content" if content is None else f"{type(content).__name__} as content"
        raise Malformed(f"{where} of the role {message['role']} has {held}, which must be a text")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind not in TEXT_PARTS or not isinstance(part.get("text"), str):
            raise Malformed(
                f"{where} has a part of the type {kind}; only parts of text are supported: "
                f"{shorten(part)}"
            )
    return "".join(part["text"] for part in content)


def _flag(where: str, message: Message) -> bool | None:
    """Whether a message asks to be learnt; None where it says nothing."""
    for name in PARTIAL:
        if message.get(name):
            raise Malformed(f"{where}: {name} picks parts of a text, and answers are learnt whole")
    asked = set()
    for name in (*FLAGS, *MASKS):
        value = message.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or value not in (0, 1):
            raise Malformed(
                f"{where}: {name} is {shorten(repr(value))}; an answer is learnt or not, so it "
                "must be 0 or 1, false or true"
            )
        asked.add(bool(value) != (name in MASKS))
    if len(asked) > 1:
        raise Malformed(f"{where}: its flags contradict one another: {shorten(message)}")
    return asked.pop() if asked else None


def _tools(value: Any) -> list[Message]:
    return [] if missing(value) or not value else [object_of(tool) for tool in listed(value)]


def listed(value: Any) -> list[Any]:
    value = _from_json(value)
    if not isinstance(value, list):
        raise Malformed(f"found {type(value).__name__}, not a list: {shorten(value)}")
    return value


def object_of(value: Any) -> dict[str, Any]:
    value = _from_json(value)
    if not isinstance(value, dict):
        raise Malformed(f"found {type(value).__name__}, not an object: {shorten(value)}")
    return value


def _from_json(value: Any) -> Any:
    """A list or an object; from its JSON, which csv files and many data sets hold."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    broken = broken_part(parsed)
    if broken:
        raise Malformed(f"{broken} in {shorten(value.encode('ascii', 'replace').decode())}")
    return parsed
