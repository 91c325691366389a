"""What a study survives: it is killed, starved and damaged at many moments, and must go on.

    python benchmarks/faults.py [--seed 0] [--only KIND ...] [--write]

Every trial runs a small study in a process of its own, does something to it at a moment, calls the
same command again, and compares all numbers, weights, files and `runs.csv` with those of a study
that was left alone. `--write` puts the table into docs/faults.md. Exit code 1 where a trial failed.
"""

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fault_trials import LATER, Moment, Trials, full_disk, kill, table, terminate
from tiny_text import tiny_spec

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart.yaml"
PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
STUDY = {
    "grid": {"lora.r": [2, 4]},
    "seeds": [0, 1],
    "lora": {"target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1},
    "generation": {"prompts": ["where is the cat?", "where?"], "max_new_tokens": 8},
    "hardware": {"checkpoint_seconds": 0, "max_runs": 2},
    "check_export": True,
}
KILLED = {  # moments of each stage
    "beginning": 3,
    "training": 6,
    "evaluation": 6,
    "answering": 5,
    "saving": 6,
    "reporting": 4,
}
STOPPED = {
    "beginning": 1,
    "training": 3,
    "evaluation": 2,
    "answering": 1,
    "saving": 2,
    "reporting": 1,
}
FULL = (("beginning", 0), ("training", 3), ("saving", 25), ("answering", 1), ("reporting", 0))
INJECTED = (0, 2, 5, 7, 9)  # batches
FILES = (
    "study.db",
    "study.db-wal",
    "study.db.bak",
    "study.sha256",
    "study.lock",
    "checkpoints/*.safetensors",
    "adapters/run-*/adapter_model.safetensors",
    "adapters/run-*/adapter_config.json",
)
MOST_SECONDS = 10.0  # after a signal
KILLS = 10  # of the sweep


@dataclass
class Found:
    """What became of the trials of one kind.

    Attributes:
        tried: How many there were.
        problems: What was wrong, by the moment.
        lost: Steps that were made again, of each trial.
        unsaved: Steps that were made after the last checkpoint, of each trial.
        seconds: From the signal to the end of the process.
    """

    tried: int = 0
    problems: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    unsaved: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, where: object, problems: list[str], lost: int = 0, unsaved: int = 0) -> None:
        self.tried += 1
        self.problems += [f"{where}: {problem}" for problem in problems]
        self.lost.append(lost)
        self.unsaved.append(unsaved)
        print("F" if problems else ".", end="", flush=True)


def killed(trials: Trials, seed: int) -> Iterator[tuple[str, Found]]:
    """`kill -9`."""
    for stage, count in KILLED.items():
        found = Found()
        for moment in trials.moments(stage, count, seed):
            out = trials.out()
            call = trials.call(out, moment, kill)
            again, problems = trials.finish(out)
            lost = trials.made_again(call, again)
            if lost > call.unsaved:
                problems.append(f"{lost} steps were made again, {call.unsaved} were not saved")
            found.add(moment, problems, lost, call.unsaved)
        yield f"`kill -9` during {stage}", found


def stopped(trials: Trials, seed: int) -> Iterator[tuple[str, Found]]:
    """SIGTERM."""
    found = Found()
    for stage, count in STOPPED.items():
        for moment in trials.moments(stage, count, seed + 1):
            out = trials.out()
            call = trials.call(out, moment, terminate)
            again, problems = trials.finish(out)
            lost = trials.made_again(call, again)
            told = call.code == 143 and "To go on: rankwise run" in call.said
            if not told and call.code != 0:  # 0: it was over before the signal was looked at
                problems.append(f"it ended with {call.code}: {call.said}")
            if call.seconds > MOST_SECONDS:
                problems.append(f"it took {call.seconds:.1f} s to leave")
            if lost:
                problems.append(f"{lost} steps were made again")
            found.seconds.append(call.seconds)
            found.add(moment, problems, lost)
    yield "SIGTERM", found


def without_room(trials: Trials, seed: int) -> Iterator[tuple[str, Found]]:
    """A full disk, and a limit on the size of a file."""
    for name in ("full disk", "limit on the size of a file"):
        found = Found()
        for stage, number in FULL:
            out, moment = trials.out(), Moment(stage, number)
            if name == "full disk":
                try:
                    _on_a_full_disk(trials, out, moment, found)
                except OSError as error:
                    print(f" not tried, {error}")
                    break
            else:
                call = trials.call(out, moment, inject="limit")
                _full(trials, out, call.code, call.said, moment, found)
        if found.tried:
            yield name, found


def _on_a_full_disk(trials: Trials, out: Path, moment: Moment, found: Found) -> None:
    with full_disk(out.parent) as fill:
        call = trials.call(out, moment, before=fill)
        (out.parent / "ballast").unlink()
        _full(trials, out, call.code, call.said, moment, found)


def _full(
    trials: Trials, out: Path, code: int | None, said: str, moment: Moment, found: Found
) -> None:
    _, problems = trials.finish(out)
    if code != 1 or "make room, then the same command goes on" not in said:
        problems.append(f"it ended with {code}: {said}")
    found.add(moment, problems)


def injected(trials: Trials, seed: int) -> Iterator[tuple[str, Found]]:
    """NaN, too little memory and an exception, in one batch."""
    names = {"nan": "loss of NaN in one run", "memory": "out of memory", "error": "exception"}
    for fault, name in names.items():
        found = Found()
        for number in INJECTED:
            out, moment = trials.out(), Moment("training", number)
            call = trials.call(out, moment, inject=fault)
            problems = [call.said] if call.code else list(trials.far(out, fault == "nan"))
            found.add(moment, problems)
        yield name, found


def clock(trials: Trials, seed: int) -> Iterator[tuple[str, Found]]:
    """A clock that jumps back by a day while the study runs, and again before it goes on."""
    found = Found()
    for stage in ("beginning", "training", "evaluation", "saving", "answering"):
        (moment,) = trials.moments(stage, 1, seed + 2)
        out = trials.out()
        call = trials.call(out, moment, kill, inject="clock")
        for path in out.rglob("*"):
            if path.is_file():
                os.utime(path, (path.stat().st_mtime + LATER,) * 2)
        again, problems = trials.finish(out)
        found.add(moment, problems, trials.made_again(call, again), call.unsaved)
    yield "clock that jumps back by a day", found


def damaged(trials: Trials, seed: int) -> Iterator[tuple[str, Found]]:
    """Every kind of file that a killed study has, cut, flipped, emptied and removed."""
    source = trials.out()
    moment = Moment("training", len(trials.alone.stages["training"]) * 3 // 4)
    before = trials.call(source, moment, kill)
    ways: dict[str, Callable[[bytes], bytes | None]] = {
        "cut in half": lambda content: content[: len(content) // 2],
        "one bit flipped": lambda content: _flipped(content),
        "emptied": lambda content: b"",
        "removed": lambda content: None,
    }
    for pattern in FILES:
        found = Found()
        for name, way in ways.items():
            out = shutil.copytree(source, trials.out(), symlinks=True)
            path = max(out.glob(pattern))
            after = way(path.read_bytes())
            path.unlink() if after is None else path.write_bytes(after)
            again, problems = trials.finish(out, path)
            found.add(f"{path.name} {name}", problems, trials.made_again(before, again))
        yield f"`{pattern}` damaged", found


def sweep(trials: Trials, seed: int) -> Iterator[tuple[str, Found]]:
    """24 runs on the quickstart's data, killed ten times, each at a random number of steps."""
    folder, draw, found = trials.place / "sweep", random.Random(seed), Found()
    folder.mkdir()
    spec = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    (folder / "study.yaml").write_text(yaml.safe_dump(_small(spec)))
    _run(folder, "alone").wait()
    steps, kills = _steps(folder / "alone"), 0
    for wanted in sorted(draw.uniform(0, 0.9 * steps) for _ in range(KILLS)):
        process = _run(folder, "killed")
        while process.poll() is None and _steps(folder / "killed") < wanted:
            time.sleep(0.1)
        time.sleep(draw.uniform(0, 3))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
        print(f"k{_steps(folder / 'killed')}", end=" ", flush=True)
    code = _run(folder, "killed").wait()
    problems = [] if code == 0 else [f"the last call ended with {code}"]
    problems += [] if kills == KILLS else [f"it was done after {kills} kills"]
    if table(folder / "killed") != table(folder / "alone"):
        problems.append("runs.csv differs")
    found.tried, found.problems = 1, [f"after {kills} kills: {problem}" for problem in problems]
    yield f"24 runs of the quickstart, killed {KILLS} times", found


def _small(spec: dict[str, Any]) -> dict[str, Any]:
    """The quickstart with three seeds, fewer steps and less to evaluate."""
    spec["seeds"] = [0, 1, 2]
    spec["training"] |= {"max_steps": 24, "eval_steps": 8}
    spec["data"]["split"] |= {"validation": 100, "test": 100}
    return {**spec, "hardware": {"checkpoint_seconds": 1, "max_runs": 8}}


def _run(folder: Path, name: str) -> subprocess.Popen[bytes]:
    words = ["rankwise", "run", folder / "study.yaml", "--out", folder / name]
    command = [sys.executable, "-c", "from rankwise.cli.app import main; main()", *words[1:]]
    with (folder / f"{name}.txt").open("ab") as said:
        return subprocess.Popen(command, stdout=said, stderr=said)


def _steps(out: Path) -> int:
    """Steps that are recorded so far."""
    if not (out / "study.db").exists():
        return 0
    with closing(sqlite3.connect(f"file:{out / 'study.db'}?mode=ro", uri=True)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        return db.execute("SELECT count(*) FROM step").fetchone()[0] if "step" in tables else 0


def _flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[len(changed) // 2] ^= 1
    return bytes(changed)


KINDS = {
    "killed": killed,
    "stopped": stopped,
    "without_room": without_room,
    "injected": injected,
    "clock": clock,
    "damaged": damaged,
    "sweep": sweep,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--write", action="store_true", help="make docs/faults.md")
    asked = parser.parse_args()
    results: dict[str, Found] = {}
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        trials = _trials(Path(place))
        for kind in asked.only:
            started = time.monotonic()
            for name, found in KINDS[kind](trials, asked.seed):
                results[name] = found
                print(f" {name}: {found.tried} tried, {len(found.problems)} problems", flush=True)
                for problem in found.problems:
                    print(f"    {problem}")
            print(f"({kind}: {time.monotonic() - started:.0f} s)")
        print("\n".join(rows := _rows(results)))
        if asked.write:
            _write(rows, trials)
    return int(any(found.problems for found in results.values()))


def _trials(place: Path) -> Trials:
    spec = tiny_spec(place / "input", "llama", "text", **STUDY)
    spec["training"] |= {"max_steps": 6, "eval_steps": 2}
    (place / "study.yaml").write_text(yaml.safe_dump(spec))
    return Trials(place / "study.yaml", place / "trials")


def _rows(results: dict[str, Found]) -> list[str]:
    """A table in Markdown."""
    rows = [
        "| fault | tried | survived | steps made again, at most |",
        "|---|---:|---:|---:|",
    ]
    for name, found in results.items():
        failed = len({problem.partition(": ")[0] for problem in found.problems})
        lost = max(found.lost, default="not counted")
        rows.append(f"| {name} | {found.tried} | {found.tried - failed} | {lost} |")
    return rows


def _write(rows: list[str], trials: Trials) -> None:
    """docs/faults.md: what stands before the table, and the table."""
    before = PAGE.read_text(encoding="utf-8").partition("| fault |")[0]
    PAGE.write_text(before + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
