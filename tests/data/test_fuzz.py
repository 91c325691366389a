"""Whatever bytes a data file holds, it gives examples or one message, in bounded memory.

`benchmarks/fuzz_data.py` tries more files; those that gave a traceback are kept below.
"""

import resource
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings

from data_files import Drawn, data_files, try_file

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
