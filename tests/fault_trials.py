"""Studies that are stopped, damaged or starved at a chosen moment, and then go on.

A trial is two calls of `rankwise run` or more, each in a process of its own, and a comparison of
what is on disk at the end with what a study has that was left alone.
"""

import csv
import math
import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from black_box import rankwise
from rankwise.report import write
from rankwise.results.from_store import read_records
from rankwise.store.reader import Reader
from rankwise.store.writer import Store
from rankwise.study import checkpoints, run, train_cohort
from rankwise.train import evaluate, loop
from rankwise.train.loop import Stepped
from stored import numbers

STAGES: dict[str, list[tuple[Any, str]]] = {
    "beginning": [(run, "begin")],
    "training": [(loop, "_loss_and_backward")],
    "evaluation": [(evaluate, "row_losses")],
    "answering": [(train_cohort, "ask_runs")],
    "saving": [
        (checkpoints.Checkpoints, "save"),
        (train_cohort, "record"),
        (Store, "back_up"),
        (Store, "sync"),
    ],
    "reporting": [(write, "write_report")],
}
"""The functions whose calls are the moments of a study, by what it is doing then."""
LIBRARIES = (
    "transformers.models.llama.modeling_llama",
    "peft",
    "scipy.stats",
    "rankwise.study.export",
    "altair",
)
"""What a process loads only when it needs it; loaded once, so that a trial takes less time."""
PLAIN_LIMIT = 4096
"""Bytes of the longest file, where a trial limits that."""
ROUNDING = 1e-5
"""The share by which a number may differ where other runs were in the cohort."""
LATER = 86_400.0
"""Seconds by which the clock jumps back."""


@dataclass(frozen=True)
class Moment:
    """A moment of a study: within the `number`-th call (from 0) of a stage's functions.

    Attributes:
        seconds: How long after the call began.
    """

    stage: str
    number: int
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.stage} {self.number}, {1000 * self.seconds:.0f} ms in"


@dataclass
class Call:
    """What became of one call of `rankwise run`.

    Attributes:
        code: Exit code; the signal's number, negative, where one killed it.
        said: Its error output.
        steps: Optimizer steps that it made.
        unsaved: Those of them that were made after its last checkpoint.
        seconds: From the moment to its end.
        stages: The seconds of every call of each stage.
    """

    code: int | None = None
    said: str = ""
    steps: int = 0
    unsaved: int = 0
    seconds: float = 0.0
    stages: dict[str, list[float]] = field(default_factory=dict)


class Counters:
    """Steps made and steps since the last checkpoint, in memory that outlives the process."""

    def __init__(self, context: Any) -> None:
        self.made, self.unsaved = context.RawValue("i", 0), context.RawValue("i", 0)

    def follow(self) -> None:
        """Count in this process."""
        recorded, saved = train_cohort.record, checkpoints.Checkpoints.save

        def record(events: Any, *rest: Any) -> None:
            steps = sum(isinstance(event, Stepped) for event in events)
            self.made.value += steps
            self.unsaved.value += steps
            recorded(events, *rest)

        def save(*words: Any) -> None:
            saved(*words)
            self.unsaved.value = 0

        train_cohort.record, checkpoints.Checkpoints.save = record, save


def _child(
    words: Sequence[Any],
    moment: Moment | None,
    inject: str,
    counters: Counters,
    pipe: Connection,
    reports: bool,
) -> None:
    """Run the command; at the moment, tell and wait for leave to go on."""
    counters.follow()
    if not reports:
        write.write_report = _write_table
    took: dict[str, list[float]] = {stage: [] for stage in STAGES}
    begun = dict.fromkeys(STAGES, 0)

    def at(stage: str) -> None:
        begun[stage] += 1
        if moment and (stage, begun[stage]) == (moment.stage, moment.number + 1):
            pipe.send("now")
            pipe.recv()
            INJECTIONS[inject]()

    for stage, places in STAGES.items():
        for owner, name in places:
            setattr(owner, name, _watched(getattr(owner, name), stage, took, at))
    code, _, said = rankwise("run", *words)
    pipe.send((code, said, took))
    with suppress(EOFError):
        pipe.recv()  # until the other side closes it: a signal that comes late finds this process


def _watched(
    call: Callable[..., Any], stage: str, took: dict[str, list[float]], at: Callable[[str], None]
) -> Callable[..., Any]:
    def watched(*words: Any, **named: Any) -> Any:
        at(stage)
        started = time.perf_counter()
        try:
            return call(*words, **named)
        finally:
            took[stage].append(time.perf_counter() - started)

    return watched


def _write_table(folder: Path) -> None:
    with Reader(folder) as store:
        write.write_runs_csv(store, read_records(store), folder / "runs.csv")


def _nothing() -> None:
    """No injection: the parent does what is to be done."""


def _no_more_memory() -> None:
    raise torch.OutOfMemoryError("no more memory")


def _not_a_number() -> None:
    """The next batch of the first run in it has a loss of NaN."""
    before = loop.row_losses

    def spoilt(model: Any, task: Any, batch: Any, *more: Any) -> Any:
        loop.row_losses = before
        found = before(model, task, batch, *more)
        found.total[0] = float("nan")
        return found

    loop.row_losses = spoilt


def _clock_back() -> None:
    now = time.time
    time.time = lambda: now() - LATER


def _small_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PLAIN_LIMIT, resource.RLIM_INFINITY))


def _error() -> None:
    raise ZeroDivisionError("injected")


INJECTIONS = {
    "": _nothing,
    "memory": _no_more_memory,
    "nan": _not_a_number,
    "clock": _clock_back,
    "limit": _small_files,
    "error": _error,
}


class Trials:
    """Trials of one study.

    Args:
        spec: Its file.
        place: An empty folder for all that is written.
        reports: Write whole reports; else `runs.csv` alone, which takes less time.

    Attributes:
        whole: The folder of the study that was left alone.
        alone: What its call was.
    """

    def __init__(self, spec: Path, place: Path, reports: bool = True) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([__name__, *LIBRARIES])
        here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        with mock.patch.dict(os.environ, PYTHONPATH=here):
            forkserver.ensure_running()
        self.spec, self.place, self.reports = spec, place, reports
        self.whole = place / "whole"
        self.alone = self.call(self.whole)
        assert self.alone.code == 0, self.alone.said
        self._trials = 0

    def out(self) -> Path:
        """A new folder for the results of a trial."""
        self._trials += 1
        return self.place / f"trial{self._trials}" / "out"

    def moments(self, stage: str, count: int, seed: int) -> list[Moment]:
        """Random moments of a stage, spread over its calls."""
        draw = random.Random(f"{stage} {seed}")
        took = self.alone.stages[stage]
        cuts = [round(i * len(took) / count) for i in range(count + 1)]
        found = []
        for first, after in pairwise(cuts):
            number = draw.randrange(first, max(first + 1, after))
            number = min(number, len(took) - 1)
            found.append(Moment(stage, number, draw.random() * took[number]))
        return found

    def call(
        self,
        out: Path,
        moment: Moment | None = None,
        then: Callable[[int], None] | None = None,
        inject: str = "",
        before: Callable[[], None] | None = None,
    ) -> Call:
        """Call `rankwise run`, and do something to it at a moment.

        Args:
            out: The folder of its results.
            moment: When; None: let it run to its end.
            then: Done with its process number, when the moment's seconds are over.
            inject: Done in its process as the moment begins; a name of `INJECTIONS`.
            before: Done as the moment begins, while the process waits.
        """
        counters = Counters(self.context)
        ours, theirs = self.context.Pipe()
        words = (self.spec, "--out", out)
        process = self.context.Process(
            target=_child, args=(words, moment, inject, counters, theirs, self.reports)
        )
        process.start()
        theirs.close()
        found, since = Call(), time.monotonic()
        try:
            told = ours.recv()
            if told == "now":
                assert moment is not None
                if before is not None:
                    before()
                ours.send("go on")
                time.sleep(moment.seconds)
                since = time.monotonic()
                if then is not None:
                    assert process.pid is not None
                    then(process.pid)
                told = ours.recv()
            found.code, found.said, found.stages = told
        except (EOFError, ConnectionResetError):  # it was killed
            pass
        ours.close()
        process.join()
        found.seconds = time.monotonic() - since
        if found.code is None:
            found.code = process.exitcode
        found.steps, found.unsaved = counters.made.value, counters.unsaved.value
        return found

    def finish(self, out: Path, damaged: Path | None = None) -> tuple[Call, list[str]]:
        """Let a study go on after a call that was stopped, and what is wrong at its end.

        Args:
            out: Its folder.
            damaged: A file that may be left there, for whoever wants to look at it.
        """
        again = self.call(out)
        if again.code != 0:
            return again, [f"the next call ended with {again.code}: {again.said}"]
        return again, list(self.differences(out, damaged))

    def made_again(self, *calls: Call) -> int:
        """The steps that these calls, which finished a study, made more than once."""
        return sum(call.steps for call in calls) - self.alone.steps

    def differences(self, out: Path, damaged: Path | None = None) -> Iterator[str]:
        """What a study has otherwise than the one that was left alone; arguments of `finish`."""
        ours, theirs = numbers(out), numbers(self.whole)
        yield from (f"{name} differs" for name in theirs if ours.get(name) != theirs[name])
        if table(out) != table(self.whole):
            yield "runs.csv differs"
        more, missing = files(out, damaged) - files(self.whole), files(self.whole) - files(out)
        if more or missing:
            yield f"files too many: {sorted(more)}, missing: {sorted(missing)}"

    def far(self, out: Path, lost: int = 0) -> Iterator[str]:
        """What a study, whose cohorts were others, has otherwise by more than rounding.

        Args:
            out: Its folder.
            lost: How many of its runs have not got to their end; they are not compared.
        """
        ours, theirs = numbers(out), numbers(self.whole)
        ended = {row[:2] for row in ours["run"] if row[2] == "done"}
        if len(ended) != len(theirs["run"]) - lost:
            yield f"{len(ended)} runs are done"
        for one in ended:
            for name in ("step", "metric"):
                mine = [row for row in ours[name] if row[:2] == one]
                alone = [row for row in theirs[name] if row[:2] == one]
                yield from _far(mine, alone, f"{name} of {one}")


def _far(mine: Sequence[Sequence[Any]], alone: Sequence[Sequence[Any]], name: str) -> Iterator[str]:
    if len(mine) != len(alone):
        yield f"{name}: {len(mine)} rows, {len(alone)} expected"
    for one, other in zip(mine, alone, strict=False):
        for ours, theirs in zip(one, other, strict=True):
            near = isinstance(ours, float) and math.isclose(ours, theirs, rel_tol=ROUNDING)
            if not near and ours != theirs:
                yield f"{name}: {ours} for {theirs}"


def table(out: Path) -> bytes:
    """`runs.csv` without times and memory."""
    with (out / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [name for name in rows[0] if "seconds" not in name and "memory" not in name]
    return "\n".join(",".join(row[name] for name in kept) for row in rows).encode()


def files(out: Path, damaged: Path | None = None) -> set[str]:
    """The names of all files and links, but for those of damaged files that were kept."""
    found = {path for path in out.rglob("*") if not path.is_dir() and path != damaged}
    return {path.relative_to(out).as_posix() for path in found if "damaged" not in path.name}


@contextmanager
def full_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A small disk of its own at `folder`, and what fills it; raises OSError where not allowed."""
    folder.mkdir(parents=True)
    command = f"mount -t tmpfs -o size=64m tmpfs '{folder}'"
    if os.system(command + " 2>/dev/null"):
        raise OSError("this process may not mount file systems")

    def fill() -> None:
        with (folder / "ballast").open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                while True:
                    try:
                        file.write(b"x" * size)
                    except OSError:
                        break

    try:
        yield fill
    finally:
        os.system(f"umount '{folder}'")


def kill(pid: int) -> None:
    """`kill -9`."""
    os.kill(pid, signal.SIGKILL)


def terminate(pid: int) -> None:
    """What a system sends before it goes down, and a scheduler at the end of the time."""
    os.kill(pid, signal.SIGTERM)
