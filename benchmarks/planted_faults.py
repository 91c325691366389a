"""How many of the faults in `planted_faults.txt` the tests notice.

    python benchmarks/planted_faults.py [--list] [--only NAME ...] [--out RESULTS.jsonl]

Each fault is one change of the source that makes a number wrong without an error. It is made in a
temporary copy of the repository, never in the checkout; the tests that should notice are run
there, and a fault counts as caught where one of them fails. First the same tests are run without
any fault, and must pass.

Results go to a file of JSON lines, one a fault, as they come. Faults that are in it are not tried
again, unless `--only` names them; so the work can be done in pieces (about half an hour in all).

An entry of `planted_faults.txt`:

    # name of the fault
    file below src/rankwise
    - text that occurs in it exactly once, one line or more
    + what is put in its place
    tests, as pytest takes them, one a line
    ! why it is not caught, where that is known
"""

import argparse
import importlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_suffix(".txt")
SOURCE = Path("src/rankwise")
NEEDED = (
    "src",
    "tests",
    "benchmarks",
    "examples",
    "docs",
    "README.md",
    "ARCHITECTURE.md",
    "pyproject.toml",
)
WITHOUT = "(without a fault)"
SAID = "said.txt"
MOST_SECONDS = 900
ENDED = 100  # added to the exit code of a pytest that has ended
IMPORTED = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
OPTIONS = ("-n0", "-x", "-q", "--tb=short", "-W", IMPORTED)
LIBRARIES = ("torch", "transformers", "peft", "scipy.stats", "sklearn.metrics", "statsmodels.api")


@dataclass(frozen=True)
class Fault:
    """One change of the source, and the tests that should notice it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Result:
    """What the tests said; `by` is the first one that failed."""

    name: str
    caught: bool
    by: str
    seconds: float


def read_table(text: str) -> list[Fault]:
    """The faults of a table."""
    return [_fault(entry.splitlines()) for entry in f"\n{text}".split("\n# ")[1:]]


def _fault(lines: Sequence[str]) -> Fault:
    def marked(mark: str) -> str:
        return "\n".join(line[2:] for line in lines[2:] if line.startswith(mark))

    tests = tuple(line for line in lines[2:] if line.startswith("tests/"))
    return Fault(lines[0], lines[1], marked("- "), marked("+ "), tests, marked("! "))


def mistakes(faults: Sequence[Fault], root: Path = ROOT) -> list[str]:
    """What is wrong with the table, one sentence each: texts and tests that are not there."""
    found = []
    for fault in faults:
        times = (root / SOURCE / fault.file).read_text(encoding="utf-8").count(fault.old)
        if not fault.old or times != 1:
            found.append(f"{fault.name}: {fault.file} has its text {times} times, not once")
        if not fault.tests:
            found.append(f"{fault.name}: names no test")
        for test in fault.tests:
            file, _, name = test.partition("::")
            path, name = root / file, name.partition("[")[0]
            if not path.exists() or (name and f"def {name}(" not in path.read_text()):
                found.append(f"{fault.name}: there is no test {test}")
    names = [fault.name for fault in faults]
    return found + [f"{name}: named twice" for name in set(names) if names.count(name) > 1]


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Exit code of pytest in the copy, and the first test that failed.

    It runs in a fork of this process, which has the large libraries imported already.
    """
    said = folder / SAID
    child = multiprocessing.get_context("fork").Process(target=_test, args=(folder, tests, said))
    child.start()
    child.join(MOST_SECONDS)
    if child.exitcode is None:
        child.kill()
        return 1, f"no end within {MOST_SECONDS} seconds"
    text = said.read_text(encoding="utf-8")
    code = child.exitcode - ENDED
    if code not in (0, 1):  # such as no test found, or an error before pytest began
        raise SystemExit(f"pytest ended with {code}:\n{text}")
    failed = [line for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return code, failed[0].split(" - ")[0].partition(" ")[2] if failed else ""


def _test(folder: Path, tests: Sequence[str], said: Path) -> None:
    os.chdir(folder)
    sys.path.insert(0, str(folder / "src"))
    os.environ["PYTHONPATH"] = str(folder / "src")  # for the processes that tests start
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # else a change within a second may go unseen
    sys.dont_write_bytecode = True
    with said.open("w", encoding="utf-8") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    import rankwise

    if not str(rankwise.__file__).startswith(str(folder)):
        raise ImportError(f"{rankwise.__file__} is not in the copy, {folder}")
    code = pytest.main([*OPTIONS, *tests])
    sys.stdout.flush()
    os._exit(ENDED + code)


def tried(fault: Fault, folder: Path) -> Result:
    """Make one fault in the copy, run its tests, and take it back."""
    path, started = folder / SOURCE / fault.file, time.perf_counter()
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    try:
        code, by = run_tests(folder, fault.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    return Result(fault.name, code == 1, by, time.perf_counter() - started)


def copy_to(folder: Path) -> None:
    """What the tests need, in a folder of its own."""
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, folder / name)


def read_results(path: Path) -> dict[str, Result]:
    """The results in a file by name; of several the last."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {found["name"]: Result(**found) for found in map(json.loads, lines)}


def keep(result: Result, path: Path) -> None:
    """Add a result to the file."""
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(result)) + "\n")


def try_all(faults: Sequence[Fault], again: bool, out: Path) -> None:
    """Try the faults that have no result yet, or all of them again."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for library in LIBRARIES:
        importlib.import_module(library)
    done = read_results(out)
    waiting = [fault for fault in faults if again or fault.name not in done]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        copy_to(folder)
        if waiting and WITHOUT not in done:
            tests, started = sorted({test for one in waiting for test in one.tests}), time.time()
            code, by = run_tests(folder, tests)
            if code:
                raise SystemExit(f"without any fault: {by} fails\n{(folder / SAID).read_text()}")
            keep(Result(WITHOUT, False, "", time.time() - started), out)
        for fault in waiting:
            result = tried(fault, folder)
            keep(result, out)
            print(line_of(fault, result), flush=True)


def line_of(fault: Fault, result: Result | None) -> str:
    """A line of the table."""
    if result is None:
        return f"{'not tried':10} {'':6} {fault.name}"
    said = result.by if result.caught else fault.reason
    word = "caught" if result.caught else "NOT CAUGHT"
    return f"{word:10} {result.seconds:4.0f} s {fault.name}: {said}"


def main() -> None:
    """Parse, check the table, try, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print the results there are")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these faults, also once more")
    parser.add_argument("--out", type=Path, default=Path("planted_faults.jsonl"))
    given = parser.parse_args()
    faults = read_table(TABLE.read_text(encoding="utf-8"))
    wrong = mistakes(faults)
    if wrong:
        raise SystemExit("\n".join(wrong))
    unknown = set(given.only or ()) - {fault.name for fault in faults}
    if unknown:
        raise SystemExit(f"no such fault: {', '.join(sorted(unknown))}")
    chosen = [one for one in faults if given.only is None or one.name in given.only]
    if not given.list:
        try_all(chosen, given.only is not None, given.out)
    results = read_results(given.out)
    print(*(line_of(one, results.get(one.name)) for one in faults), sep="\n")
    found = [results[one.name].caught for one in faults if one.name in results]
    print(f"{sum(found)} of {len(found)} faults caught ({len(faults)} in the table)")


if __name__ == "__main__":
    main()
