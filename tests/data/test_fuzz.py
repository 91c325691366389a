"""Whatever bytes a data file holds, it gives examples or one message, in bounded memory.

`benchmarks/fuzz_data.py` tries more files; those that gave a traceback are kept below.
"""

import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from data_files import SHAPES, Drawn, data_files, try_file

MEGABYTES = 200  # that all files together may add to the memory of the process


@settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data_files())
def look_at_files(folder: Path, tokenizer: Any, drawn: Drawn) -> None:
    try_file(drawn, folder, tokenizer)


def test_any_file_gives_examples_or_one_message(tmp_path: Path, chat_tokenizer: Any) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    look_at_files(tmp_path, chat_tokenizer)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024


LONG = b"9" * 3000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", LONG + b"\n1\n"),
        ("r.csv", b'"one\ntwo' + LONG + b'",by\n1,2\n'),
        ("r.csv", LONG + b"," + LONG + b"\n1,2\n"),
        ("r.csv", b",".join(b"%d" % at for at in range(3000)) + b"\n" + b"," * 2999),
        ("r.tsv", b"text\tby\tlabel\na\t" + LONG + b"\t" + LONG + b"\na\tx" + LONG + b"\ty"),
        ("r.csv", b"by,label\n1," + LONG + b"\n1," + LONG),
        ("r.jsonl", b'{"' + LONG + b'": "a"}'),
        ("r.json", b'[{"text": "a"}, {"' + LONG + b'": "' + LONG + b'"}]'),
    ],
)
@pytest.mark.parametrize("shape", SHAPES[1:4], ids=str)
def test_what_files_have_shown(
    name: str, content: bytes, shape: dict[str, Any], tmp_path: Path, chat_tokenizer: Any
) -> None:
    """Messages stay short whatever the columns and cells of a file are."""
    assert try_file((name, content, shape), tmp_path, chat_tokenizer) is None
