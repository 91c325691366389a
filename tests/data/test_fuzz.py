"""Whatever bytes a data file holds, it gives examples or one message.

`RANKWISE_FUZZ_FILES=5000` tries more files, and others each time.
"""

import os
import resource
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings

from data_files import data_files
from rankwise.data.examples import make_examples
from rankwise.data.rows import needed_columns
from rankwise.data.sources import read_rows
from rankwise.data.split import split_rows
from rankwise.errors import DataError
from rankwise.spec.models import AugmentSpec, DataSpec

FILES = int(os.environ.get("RANKWISE_FUZZ_FILES", "0"))
MEGABYTES = 200  # that all files together may add to the memory of the process


@settings(
    max_examples=FILES or 300,
    derandomize=not FILES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data_files())
def look_at_files(folder: Path, tokenizer: Any, made: tuple[str, bytes, dict[str, Any]]) -> None:
    name, content, columns = made
    (folder / name).write_bytes(content)
    data = DataSpec(source=name, max_length=24, **columns)
    try:
        rows = read_rows(data, folder, needed_columns(data, [AugmentSpec()]))
        examples = make_examples(split_rows(rows, data), data, tokenizer)
    except DataError as error:
        message = str(error)
        assert message
        assert len(message) < 1500
        assert "\n" not in message
        message.encode()
    else:
        assert examples.train
        assert examples.validation


def test_any_file_gives_examples_or_one_message(tmp_path: Path, chat_tokenizer: Any) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    look_at_files(tmp_path, chat_tokenizer)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024
