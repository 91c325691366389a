"""What checkpoints cost: the share of a study's time that goes into writing them.

    python benchmarks/checkpoint_cost.py [SPEC] [--set KEY=VALUE ...]

Runs a study (the quickstart where none is named) into a temporary folder, with the interval that
the spec says, and adds up the time of `save`: what was recorded is synced, the states are written
and synced, old files are removed. Also says how long one takes and how large it is.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rankwise.cli.app import look
from rankwise.study import checkpoints, train_cohort
from rankwise.study.run import run_study

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart.yaml"


def main() -> None:
    """Run the study and print the share."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("spec", nargs="?", type=Path, default=QUICKSTART)
    words.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    asked = words.parse_args()
    took, sizes = [], []
    save, written = train_cohort.save, checkpoints.save_run_states

    def timed(*words: Any) -> None:
        started = time.perf_counter()
        save(*words)
        took.append(time.perf_counter() - started)

    def measured(states: Any, path: Path) -> None:
        written(states, path)
        sizes.append(path.stat().st_size)

    train_cohort.save, checkpoints.save_run_states = timed, measured
    with tempfile.TemporaryDirectory() as place:
        plan = look(asked.spec, asked.set)
        started = time.perf_counter()
        for _ in run_study(plan, Path(place) / "out"):
            pass
        whole = time.perf_counter() - started
    print(
        f"{len(took)} checkpoints, median {statistics.median(took):.3f} s, at most "
        f"{max(took):.3f} s, {max(sizes) / 1e6:.1f} MB; {sum(took):.2f} s of {whole:.1f} s: "
        f"{100 * sum(took) / whole:.2f} %"
    )


if __name__ == "__main__":
    main()
