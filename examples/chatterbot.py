"""Questions and answers of the ChatterBot corpus (BSD licence) as rows, for specs beside this file.

    data: {source: chatterbot.py:pairs, prompt: prompt, completion: completion}
    data: {source: chatterbot.py:chats, messages: messages}
    data: {source: chatterbot.py:texts, text: text}

A conversation is a list of turns, each an answer to the one before it. The same question occurs
with several answers: `split: {by: question}` keeps them on one side.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from rankwise.errors import DataError
from rankwise.files import find_pkg_path


def pairs() -> list[dict[str, Any]]:
    """Each turn with the one that answers it: prompt, completion, question, category.

    The prompt ends its line, so that the answer starts a new one.
    """
    return [
        {"prompt": f"{said}\n", "completion": answer, "question": said, "category": category}
        for category, turns in _conversations()
        for said, answer in pairwise(turns)
    ]


def chats() -> list[dict[str, Any]]:
    """The same as messages of a user and an assistant: messages, question, category."""
    return [
        {
            "messages": [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["completion"]},
            ],
            "question": row["question"],
            "category": row["category"],
        }
        for row in pairs()
    ]


def texts() -> list[dict[str, Any]]:
    """Whole conversations, a turn on each line, each once: text, question (its first turn)."""
    whole = {"\n".join(turns): turns[0] for _, turns in _conversations()}
    return [{"text": text, "question": question} for text, question in whole.items()]


def _conversations() -> Iterator[tuple[str, list[str]]]:
    folder: Path = find_pkg_path("pkg://chatterbot_corpus/data/english", DataError)
    for path in sorted(folder.glob("*.yml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for turns in content["conversations"]:
            yield content["categories"][0], turns
