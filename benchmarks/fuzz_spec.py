"""Tries specs of every kind of oddness: each must give a study or a message, never a traceback.

Usage: python benchmarks/fuzz_spec.py [--specs 20000] [--plans 300] [--seed 0]

`--specs` are read and made into configurations, `--plans` are also planned, with a tiny model.
Prints every kind of failure once with its first spec; exit code 1 where there is one.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from odd_specs import check_message, mutated, overrides, spec_texts, try_spec, written
from rankwise.errors import UserError
from rankwise.spec.arms import make_arms
from rankwise.spec.load import load_spec
from tiny_text import tiny_spec

SLOW = 60  # seconds for one spec


class Tally:
    """What became of the specs; failures by where they were raised, with the first spec of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: dict[str, str] = {}

    def take(self, text: bytes, changes: list[str], attempt: Callable[[], Any]) -> None:
        """Make one attempt and note its outcome."""
        started = time.monotonic()
        try:
            found = "refused" if attempt() is None else "a study"
        except Exception as error:  # noqa: BLE001  this is what is looked for
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if "/rankwise/" in frame.filename] or frames
            place = f"{own[-1].filename}:{own[-1].lineno}"
            found = f"{type(error).__name__} at {place}: {str(error)[:80]!r}"
            kind = f"{type(error).__name__} at {place}"
            self.failures.setdefault(kind, f"{found}\n  --set {changes}\n{text[:1500]!r}")
            found = f"FAILED {kind}"
        if time.monotonic() - started > SLOW:
            self.failures.setdefault("slow", f"slow\n  --set {changes}\n{text[:1500]!r}")
        self.counts[found] += 1


def explore(count: int, seed: int, strategy: Any, body: Callable[[Any], None]) -> None:
    """Call `body` with so many drawn values."""
    options = hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.seed(seed)(options(hypothesis.given(strategy)(body)))()


def read_specs(count: int, seed: int, folder: Path) -> Tally:
    """Specs through `load_spec` and `make_arms`."""
    tally, path = Tally(), folder / "spec.yaml"

    def one(drawn: tuple[bytes, list[str]]) -> None:
        text, changes = drawn
        path.write_bytes(text)
        tally.take(text, changes, lambda: try_spec(path, changes))

    explore(count, seed, st.tuples(spec_texts(), overrides()), one)
    return tally


def plan_specs(count: int, seed: int, folder: Path) -> Tally:
    """Specs of a tiny model through `plan_study`, of those that `make_arms` takes."""
    from rankwise.cli.app import quiet_libraries
    from rankwise.cli.tables import plan_facts, print_plan
    from rankwise.study.plan import plan_study

    quiet_libraries()
    kinds = (("gpt2", "text"), ("bert", "labelled"), ("t5", "translation"), ("llama", "chat"))
    good = [tiny_spec(folder / kind, kind, shape) for kind, shape in kinds]
    tally, path = Tally(), folder / "spec.yaml"
    planned, seen = 0, set[str]()

    def one(text: str) -> None:
        nonlocal planned
        path.write_text(text)
        try:
            spec = load_spec(path)
            make_arms(spec)
        except UserError:
            return
        if planned >= count or text in seen:
            return
        planned += 1
        seen.add(text)

        def attempt() -> Any:
            try:
                plan = plan_study(spec, folder)
            except UserError as error:
                check_message(str(error))
                return None
            with contextlib.redirect_stdout(io.StringIO()):
                print_plan(plan_facts(plan))
            return plan

        tally.take(text.encode(), [], attempt)

    while planned < count:
        explore(4 * count, seed, mutated(good).flatmap(written), one)
        seed += 1000
    return tally


def main() -> None:
    """Try them and print what was found."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--specs", type=int, default=20_000)
    words.add_argument("--plans", type=int, default=300)
    words.add_argument("--seed", type=int, default=0)
    asked = words.parse_args()
    failed = False
    for name, count, attempt in (
        ("read", asked.specs, read_specs),
        ("planned", asked.plans, plan_specs),
    ):
        if not count:
            continue
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            tally = attempt(count, asked.seed, Path(folder))
        print(f"{sum(tally.counts.values()):,} specs {name} in {time.monotonic() - started:.0f} s")
        for found, times in tally.counts.most_common():
            print(f"  {times:>7,} {found}")
        for failure in tally.failures.values():
            print(f"\n{failure}")
        failed |= bool(tally.failures)
    sys.exit(failed)


if __name__ == "__main__":
    main()
