"""Live progress of a study: a table on a terminal, elsewhere one line every ten seconds at most."""

import math
import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rankwise.cli.interrupt import Interrupted, Stop
from rankwise.study.record import CohortFormed, Remark, StudyBegun, StudyEvent
from rankwise.text import state_words
from rankwise.train.loop import Batched, Ended, Evaluated, Evaluating, Improved, Stepped

REFRESH = 0.5  # seconds between two pictures
PLAIN = 10.0  # seconds between two lines where there is no terminal
RECENT = 20  # batches that the speed is a mean over
BARS = "▁▂▃▄▅▆▇█"


Events = Generator[tuple[StudyEvent, ...], None, None]


def show(study: Events, stop: Stop, quiet: bool = False) -> None:
    """Drive a study to its end and show how it goes.

    Args:
        study: Its events.
        stop: Asked after every tuple of events.
        quiet: Show nothing.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the runs in training are saved, if it came to that.
    """
    console = Console(stderr=True, quiet=quiet)
    watch = Watch()
    if console.is_terminal:
        _show_live(study, console, watch, stop)
    else:
        _show_lines(study, console, watch, stop)
    stop.training = False


def _show_live(study: Events, console: Console, watch: "Watch", stop: Stop) -> None:
    with Live(console=console, refresh_per_second=1 / REFRESH, transient=True) as live:
        drawn = 0.0
        for events in study:
            _take(events, console, watch)
            _leave_if_asked(study, watch, stop)
            if time.monotonic() - drawn > REFRESH:
                live.update(watch.picture())
                drawn = time.monotonic()


def _show_lines(study: Events, console: Console, watch: "Watch", stop: Stop) -> None:
    said = time.monotonic()
    for events in study:
        _take(events, console, watch)
        _leave_if_asked(study, watch, stop)
        if time.monotonic() - said > PLAIN and watch.cohort is not None:
            console.print(watch.headline(), highlight=False, soft_wrap=True)
            said = time.monotonic()


def _leave_if_asked(study: Events, watch: "Watch", stop: Stop) -> None:
    stop.training = watch.training()
    if stop.signum is not None:
        study.close()
        raise Interrupted(stop.signum, "the runs in training are saved")


def _take(events: tuple[StudyEvent, ...], console: Console, watch: "Watch") -> None:
    for event in events:
        if isinstance(event, Remark):
            console.print(event.text, highlight=False, soft_wrap=True, markup=False)
        watch.take(event)


@dataclass
class Line:
    """What is known of one run in training."""

    steps: int
    step: int = 0
    loss: float | None = None
    best: float | None = None
    best_step: int = 0
    values: list[float] = field(default_factory=list)
    state: str = "running"


class Watch:
    """What the events told so far: how far the runs are, how fast they go, how long it takes."""

    def __init__(self) -> None:
        self.begun: StudyBegun | None = None
        self.cohort: CohortFormed | None = None
        self.lines: dict[str, Line] = {}
        self.done: dict[str, int] = {}
        self.found: dict[str, int] = {}
        self.evaluating: Evaluating | None = None
        self.recent: deque[Batched] = deque(maxlen=RECENT)
        self.started = time.monotonic()

    def take(self, event: StudyEvent) -> None:
        """Take in one event."""
        match event:
            case StudyBegun():
                self.begun, self.started = event, time.monotonic()
            case CohortFormed(steps=steps, done=done):
                self.cohort = event
                self.lines = {run: Line(count, done.get(run, 0)) for run, count in steps.items()}
                self.found = {**done, **self.found}
                self.recent.clear()
            case Batched():
                self.recent.append(event)
                self.evaluating = None
            case Evaluating():
                self.evaluating = event
            case Stepped(run, step, loss):
                self.lines[run].step = self.done[run] = step
                self.lines[run].loss = loss
            case Evaluated(run, "validation", _, evaluation) if self.cohort is not None:
                self.evaluating = None
                self.lines[run].values.append(evaluation.metrics()[self.cohort.metric])
            case Improved(run, step, value):
                self.lines[run].best, self.lines[run].best_step = value, step
            case Ended(run, state):
                self.lines[run].state = state
                self.done[run] = self.lines[run].steps

    def training(self) -> bool:
        """Whether runs are in training."""
        return any(line.state == "running" for line in self.lines.values())

    def seconds_left(self) -> float | None:
        """Time left by the pace so far; None before there is a pace."""
        found = sum(self.found.values())  # steps of earlier calls
        done = sum({**self.found, **self.done}.values()) - found
        elapsed = time.monotonic() - self.started
        if self.begun is None or done <= 0 or elapsed < 3:
            return None
        return elapsed / done * max(0, sum(self.begun.steps.values()) - found - done)

    def speed(self) -> str | None:
        """Training tokens a second, and the share of the hardware's measured peak in products."""
        seconds = sum(batch.seconds for batch in self.recent)
        if not seconds or self.begun is None:
            return None
        told = f"{sum(batch.tokens for batch in self.recent) / seconds:,.0f} tokens a second"
        if self.begun.peak is None:
            return told
        padded = sum(batch.padded for batch in self.recent)
        share = padded * self.begun.work_per_token / seconds / self.begun.peak
        return f"{told} ({share:.0%} of the peak in products)"

    def headline(self) -> str:
        """One line: cohort, steps, losses, speed, time left."""
        if self.cohort is None:
            return ""
        lines, left = self.lines.values(), self.seconds_left()
        losses = [line.loss for line in lines if line.loss is not None]
        steps, last = max(line.step for line in lines), max(line.steps for line in lines)
        parts = [
            f"cohort {self.cohort.number} of {self.cohort.of}",
            f"{len(self.lines)} runs at step {steps} of {last}",
        ]
        if self.evaluating is not None:
            parts.append(f"evaluating, example {self.evaluating.done:,} of {self.evaluating.of:,}")
        if losses:
            parts.append(f"losses {min(losses):.3f} to {max(losses):.3f}")
        speed = self.speed()
        if speed is not None:
            parts.append(speed)
        parts.append("time left not known yet" if left is None else f"{left:.0f} s left")
        return ", ".join(parts)

    def picture(self) -> Group:
        """The headline, and a line for every run in training."""
        table = Table(box=None, pad_edge=False)
        metric = "eval_loss" if self.cohort is None else self.cohort.metric
        for title in ("configuration", "step", "loss", metric, f"best {metric}"):
            left = title in ("configuration", metric)
            table.add_column(title, justify="left" if left else "right", no_wrap=True)
        for run, line in self.lines.items():
            best = "" if line.best is None else f"{line.best:.4f} at step {line.best_step}"
            state = "" if line.state == "running" else f" {state_words(line.state)}"
            loss = "" if line.loss is None else f"{line.loss:.4f}"
            table.add_row(run, f"{line.step}/{line.steps}{state}", loss, spark(line.values), best)
        return Group(Text(self.headline(), style="bold"), table)


def spark(values: Sequence[float], most: int = 16) -> str:
    """The last values as bars, the lowest of them the lowest bar; `!` where one is not finite."""
    some = values[-most:]
    finite = [value for value in some if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(
        BARS[round((value - low) * scale)] if math.isfinite(value) else "!" for value in some
    )
