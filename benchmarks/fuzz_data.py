"""Tries data files of every kind of oddness: each must give examples or a message, no traceback.

Usage: python benchmarks/fuzz_data.py [--files 5000] [--seed 0]

Files are read, split and tokenised as by `rankwise plan`, with a tiny tokenizer; those of
delimited fields are read as tables of results, too. Prints what became of the files by their
format, and every kind of failure with the smallest file that gave it; exit code 1 where there is
one. Another seed tries other files.
"""

import argparse
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzz_spec import explore

from data_files import Drawn, data_files, try_file
from tiny_text import tiny_tokenizer

SLOW = 10  # seconds for one file


class Tally:
    """What became of the files; failures by where they were raised, with the smallest file."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.failures: dict[str, tuple[str, Drawn]] = {}

    def take(self, drawn: Drawn, folder: Path, tokenizer: Any) -> None:
        """Read one file and note its outcome."""
        started = time.monotonic()
        try:
            found = "refused" if try_file(drawn, folder, tokenizer) is None else "examples"
        except Exception as error:  # noqa: BLE001  this is what is looked for
            found = "FAILED"
            self._keep(place_of(error), f"{type(error).__name__}: {str(error)[:200]!r}", drawn)
        if time.monotonic() - started > SLOW:
            found = "FAILED"
            self._keep("slow", f"more than {SLOW} s", drawn)
        self.counts["".join(Path(drawn[0]).suffixes), found] += 1

    def _keep(self, kind: str, what: str, drawn: Drawn) -> None:
        if kind not in self.failures or len(drawn[1]) < len(self.failures[kind][1][1]):
            self.failures[kind] = what, drawn


def place_of(error: Exception) -> str:
    """The kind of an error and the last line of this project that it passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/rankwise/" in frame.filename] or frames
    return f"{type(error).__name__} at {own[-1].filename}:{own[-1].lineno}"


def main() -> None:
    """Try them and print what was found."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--files", type=int, default=5000)
    words.add_argument("--seed", type=int, default=0)
    asked = words.parse_args()
    tally, tokenizer, started = Tally(), tiny_tokenizer(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        explore(
            asked.files,
            asked.seed,
            data_files(),
            lambda drawn: tally.take(drawn, Path(folder), tokenizer),
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{tally.counts.total():,} files of seed {asked.seed} in {time.monotonic() - started:.0f} s"
        f", {peak:.0f} MB of memory at most"
    )
    for format_ in sorted({of for of, _ in tally.counts}):
        found = {what: n for (of, what), n in tally.counts.items() if of == format_}
        each = ", ".join(f"{found[what]:,} {what}" for what in sorted(found))
        print(f"  {format_:<12}{sum(found.values()):>7,}: {each}")
    for kind, (what, (name, content, columns)) in tally.failures.items():
        print(f"\n{kind}\n  {what}\n  {name} {columns}\n  {content[:1500]!r}")
    sys.exit(bool(tally.failures))


if __name__ == "__main__":
    main()
