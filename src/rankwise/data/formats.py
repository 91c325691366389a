"""Formats of chats and of prompts with answers: which one the rows have, and messages of it.

Rows of `{from, value}` (ShareGPT), of instruction, input and output (Alpaca), and of prompts and
completions that are lists of messages become conversations of {role, content}, which `messages.py`
reads. So everything after this module knows texts and messages alone.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from rankwise.data.messages import TOOLS, WEIGHT, Message, listed, object_of
from rankwise.data.sources import Rows
from rankwise.data.tables import Row, missing
from rankwise.errors import DataError
from rankwise.reading import Faults, Malformed
from rankwise.spec.models import DataSpec, columns_of
from rankwise.text import columns_words, shorten

LOOKED_AT = 100  # rows, of which the most frequent format is taken
MADE = "messages"  # the column of conversations that are made of other columns
SYSTEM, HISTORY = "system", "history"  # columns beside ShareGPT's and Alpaca's, as LLaMA-Factory's
ALPACA = ("instruction", "input", "output")
PAIR = ("prompt", "completion")
CHATS = ("messages", "conversations")
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
COLUMNS = frozenset([*CHATS, *PAIR, *ALPACA, SYSTEM, HISTORY, TOOLS])
Kind = tuple[str, str]  # a format, and the column that shows it
WORDS = {
    "messages": "messages (lists of {{role, content}} in column {column})",
    "sharegpt": "sharegpt (lists of {{from, value}} in column {column})",
    "alpaca": "alpaca (columns instruction, input and output), one question and answer each",
    "texts": "prompt_completion (texts)",
    "lists": "prompt_completion (lists of messages)",
}


def columns_of_formats(data: DataSpec) -> frozenset[str]:
    """The columns that may be read beside those that the spec names."""
    named = columns_of(data)
    return COLUMNS if not named else frozenset([SYSTEM] if named == ("messages",) else [])


def in_format(rows: Rows, data: DataSpec) -> tuple[Rows, DataSpec]:
    """The rows as texts or conversations, and the data section with the columns that hold them.

    Rows that do not fit the format are malformed, and counted as such.

    Raises:
        DataError: The columns are of no known format, and the spec names none.
    """
    plain = columns_of(data) in (("messages",), PAIR)
    if columns_of(data) and not plain:
        return rows, data
    kind = _kind_of(rows, data)
    if kind is None:
        if plain:
            return rows, data  # what is wrong with the columns is said where they are read
        raise DataError(
            f"data: {rows.source} is in no format that is recognised; its columns: "
            f"{columns_words(rows.columns or ())}; name the columns (data.text, data.prompt and "
            "data.completion, or data.messages), or the format (data.format)"
        )
    name, column = kind
    if data.format == "auto" and not (plain and name in ("messages", "texts")):
        said = f"format of the rows, recognised: {WORDS[name].format(column=column)}"
        rows = replace(rows, notes=(*rows.notes, said))
    return _converted(rows, data, name, column)


def _kind_of(rows: Rows, data: DataSpec) -> Kind | None:
    """The format that the spec names, or the one that most of the first rows have."""
    if data.format in ("messages", "sharegpt"):
        usual = "messages" if data.format == "messages" else "conversations"
        return data.format, data.messages or usual
    if data.format == "alpaca":
        return "alpaca", ALPACA[0]
    first = islice(chain.from_iterable(rows.parts.values()), LOOKED_AT)
    shown = [kind for row in first if (kind := _shown(row, data)) is not None]
    if shown:
        return Counter(shown).most_common(1)[0][0]
    return ("texts", data.prompt or PAIR[0]) if data.format == "prompt_completion" else None


def _shown(row: Row, data: DataSpec) -> Kind | None:
    """The format of one row; None where it shows none."""
    if data.format == "auto" and data.prompt is None:
        for column in CHATS if data.messages is None else (data.messages,):
            first = _first_of(row.get(column))
            if isinstance(first, dict) and {"role", "from"} & first.keys():
                return ("messages" if "role" in first else "sharegpt"), column
    if data.messages is None:
        prompt, completion = data.prompt or PAIR[0], data.completion or PAIR[1]
        held = [row.get(prompt), row.get(completion)]
        for kind, name in ((str, "texts"), (list, "lists")):
            if all(isinstance(value, kind) for value in held):
                return name, prompt
    named = data.messages is not None or data.prompt is not None
    alpaca = all(isinstance(row.get(column), str) for column in ("instruction", "output"))
    return ("alpaca", ALPACA[0]) if alpaca and not named and data.format == "auto" else None


def _first_of(value: Any) -> Any:
    try:
        return next(iter(listed(value)), None)
    except Malformed:
        return None


def _converted(rows: Rows, data: DataSpec, kind: str, column: str) -> tuple[Rows, DataSpec]:
    if kind == "messages":
        return rows, data.model_copy(update={"messages": column})
    prompt, completion = data.prompt or PAIR[0], data.completion or PAIR[1]
    if kind == "texts":
        return rows, data.model_copy(update={"prompt": prompt, "completion": completion})
    made = column if kind == "sharegpt" else MADE
    read: dict[str, tuple[tuple[str, ...], Callable[[Row], list[Any]]]] = {
        "sharegpt": ((column,), lambda row: _of_sharegpt(row, column)),
        "alpaca": ((ALPACA[0], ALPACA[2]), _of_alpaca),
        "lists": ((prompt, completion), lambda row: _of_lists(row, prompt, completion)),
    }
    needed, change = read[kind]
    _check_columns(rows, kind, needed)
    named = {"messages": made, "prompt": None, "completion": None}
    return _changed(rows, needed, made, change), data.model_copy(update=named)


def _check_columns(rows: Rows, kind: str, needed: tuple[str, ...]) -> None:
    found = rows.columns
    lacking = [column for column in needed if found and column not in found]
    if lacking:
        raise DataError(
            f"data.format: {kind} reads the columns {columns_words(needed)}, and {rows.source} has "
            f"no column {lacking[0]}; its columns: {columns_words(found or ())}"
        )


def _changed(
    rows: Rows, needed: tuple[str, ...], made: str, change: Callable[[Row], list[Any]]
) -> Rows:
    """The rows with a conversation each in column `made`; those without become faults."""
    faults = Faults(rows.faults.count, list(rows.faults.first))
    parts: dict[str, list[Row]] = {}
    places: dict[str, array[int]] = {}
    for name, part in rows.parts.items():
        unit = rows.unit if len(rows.parts) == 1 else f"{name}, {rows.unit}"
        kept, kept_at = parts.setdefault(name, []), places.setdefault(name, array("q"))
        numbers = range(1, len(part) + 1) if rows.numbers is None else rows.numbers[name]
        for number, row in zip(numbers, part, strict=True):
            try:
                kept.append({**row, made: _messages_of(row, needed, change)})
                kept_at.append(number)
            except Malformed as error:
                faults.add(f"{unit} {number}", error)
    columns = None if rows.columns is None else tuple(dict.fromkeys([*rows.columns, made]))
    return replace(rows, parts=parts, numbers=places, columns=columns, faults=faults)


def _messages_of(
    row: Row, needed: tuple[str, ...], change: Callable[[Row], list[Any]]
) -> list[Message]:
    for column in needed:
        if column not in row:
            raise Malformed(f"no column {column}, only {shorten(', '.join(row)) or 'none'}")
    return change(row)


def _of_sharegpt(row: Row, column: str) -> list[Any]:
    value = row[column]
    if missing(value) or (isinstance(value, str) and not value.strip()):
        return []
    try:
        messages = [_renamed(number, one) for number, one in enumerate(listed(value), start=1)]
    except Malformed as error:
        raise Malformed(
            f"{error}; column {column} must hold lists of {{from, value}} (sharegpt)"
        ) from None
    return _with_system(row, messages)


def _renamed(number: int, message: Any) -> Message:
    """A message of {from, value} with role and content; other fields stay."""
    if not isinstance(message, dict) or not isinstance(message.get("from"), str):
        raise Malformed(f"message {number} says not who it is from: {shorten(message)}")
    speaker, content = message["from"], message.get("value")
    if speaker not in ROLES:
        raise Malformed(f"message {number} is from {shorten(speaker)}, not {', '.join(ROLES)}")
    others = {name: part for name, part in message.items() if name not in ("from", "value")}
    if speaker != "function_call":
        return {"role": ROLES[speaker], "content": content, **others}
    return {"role": "assistant", "content": None, "tool_calls": _calls(number, content), **others}


def _calls(number: int, value: Any) -> list[Message]:
    """The calls that a `function_call` holds: one, or a list, as JSON or as it is."""
    try:
        held = listed(value if isinstance(value, list) or _is_list(value) else [value])
        calls = [object_of(call) for call in held]
    except Malformed as error:
        raise Malformed(f"message {number} of function_call: {error}") from None
    for call in calls:
        if not isinstance(call.get("name"), str):
            raise Malformed(f"message {number} of function_call names no function: {shorten(call)}")
    return [{"type": "function", "function": call} for call in calls]


def _is_list(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("[")


def _with_system(row: Row, messages: list[Any]) -> list[Any]:
    """The messages after the text of a column `system`, where they bring no such message."""
    text = row.get(SYSTEM)
    own = messages and messages[0]["role"] == "system"
    if not messages or own or not isinstance(text, str) or not text.strip():
        return messages
    return [{"role": "system", "content": text}, *messages]


def _of_alpaca(row: Row) -> list[Any]:
    """One question and its answer, after those of a column `history`.

    Instruction and input are joined by a line end, as LLaMA-Factory joins them.
    """
    for column in ALPACA:
        value = row.get(column)
        if not isinstance(value, str) and not missing(value):
            kind = type(value).__name__
            raise Malformed(f"column {column} holds {kind} {shorten(value)}, not text")
    instruction, given, output = (_text(row.get(column)) for column in ALPACA)
    if not instruction.strip() or not output.strip():
        return []
    asked = f"{instruction}\n{given}" if given.strip() else instruction
    pairs = [*_history(row.get(HISTORY)), (asked, output)]
    return _with_system(row, list(chain.from_iterable(map(_turns, pairs))))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _turns(pair: tuple[str, str]) -> Iterator[Message]:
    yield {"role": "user", "content": pair[0]}
    yield {"role": "assistant", "content": pair[1]}


def _history(value: Any) -> list[tuple[str, str]]:
    if missing(value) or not value:
        return []
    pairs = listed(value)
    for pair in pairs:
        texts = isinstance(pair, list | tuple) and all(isinstance(text, str) for text in pair)
        if not texts or len(pair) != 2:
            raise Malformed(f"column {HISTORY} must hold pairs of texts: {shorten(pair)}")
    return [(pair[0], pair[1]) for pair in pairs]


def _of_lists(row: Row, prompt: str, completion: str) -> list[Any]:
    """The messages of prompt and completion in one list; answers in the prompt are only read."""
    held = row[prompt], row[completion]
    if any(missing(value) or not value for value in held):
        return []
    for column, value in zip((prompt, completion), held, strict=True):
        if not isinstance(value, list):
            raise Malformed(f"column {column} holds {type(value).__name__}, not a list of messages")
        if not all(isinstance(message, dict) for message in value):
            raise Malformed(f"column {column} must hold messages: {shorten(value)}")
    read = [{**one, WEIGHT: 0} if one.get("role") == "assistant" else one for one in held[0]]
    return [*read, *held[1]]
