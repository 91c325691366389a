"""Live progress of a study on the terminal; plain lines where there is no terminal."""

import time
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rankwise.study.begin import Progress
from rankwise.study.plan import Outlook

REFRESH = 0.5  # seconds between two pictures
PLAIN = 20.0  # seconds between two lines where there is no terminal


def show(study: Iterator[Progress], outlook: Outlook, quiet: bool = False) -> None:
    """Drive a study to its end and show how it goes."""
    console = Console(stderr=True, quiet=quiet)
    watch = Watch(outlook)
    if not console.is_terminal:
        _show_lines(study, console, watch)
        return
    with Live(console=console, refresh_per_second=1 / REFRESH, transient=True) as live:
        drawn = 0.0
        for progress in study:
            _tell_news(progress, console)
            watch.note(progress)
            if time.monotonic() - drawn > REFRESH:
                live.update(watch.picture(progress))
                drawn = time.monotonic()


def _show_lines(study: Iterator[Progress], console: Console, watch: "Watch") -> None:
    said = time.monotonic()
    for progress in study:
        _tell_news(progress, console)
        watch.note(progress)
        if time.monotonic() - said > PLAIN and progress.trainees:
            console.print(watch.headline(progress), highlight=False, soft_wrap=True)
            said = time.monotonic()


def _tell_news(progress: Progress, console: Console) -> None:
    while progress.news:
        console.print(progress.news.pop(0), highlight=False)


class Watch:
    """Knows how many steps a study has to do and has done, and how long they took."""

    def __init__(self, outlook: Outlook) -> None:
        self.steps_of = {run.id: outlook.steps(run.arm) for run in outlook.runs}
        self.done: dict[str, int] = {}
        self.losses: dict[str, float] = {}
        self.started = time.monotonic()
        self.todo: int | None = None

    def note(self, progress: Progress) -> None:
        """Take in where the runs are."""
        if self.todo is None and progress.trainees:
            self.started = time.monotonic()
        if self.todo is None:
            self.todo = progress.runs
        for trainee in progress.trainees:
            ended = trainee.state != "running"
            run = trainee.run.id
            self.done[run] = self.steps_of[run] if ended else trainee.step
            if trainee.seen:
                self.losses[run] = trainee.seen[-1]["loss"]

    def seconds_left(self, progress: Progress) -> float | None:
        """Time left by the pace so far; None before there is a pace."""
        done = sum(self.done.values())
        elapsed = time.monotonic() - self.started
        if not done or not self.steps_of or elapsed < 3:
            return None
        mean = sum(self.steps_of.values()) / len(self.steps_of)
        return elapsed / done * max(0.0, progress.runs * mean - done)

    def headline(self, progress: Progress) -> str:
        """One line: cohort, steps, losses, time left."""
        left = self.seconds_left(progress)
        steps = [t.step for t in progress.trainees]
        losses = [self.losses[t.run.id] for t in progress.trainees if t.run.id in self.losses]
        parts = [
            f"cohort {progress.cohort} of {progress.cohorts}",
            f"{len(progress.trainees)} runs at step {max(steps, default=0)}",
        ]
        if losses:
            parts.append(f"losses {min(losses):.3f} to {max(losses):.3f}")
        parts.append("time left unknown yet" if left is None else f"{left:.0f} s left")
        return ", ".join(parts)

    def picture(self, progress: Progress) -> Group:
        """The headline and a line for every run in training."""
        table = Table(box=None, pad_edge=False)
        metric = next((t.metric for t in progress.trainees), "eval_loss")
        for title in ("run", "step", "loss", f"best {metric}"):
            table.add_column(title, justify="left" if title == "run" else "right")
        for trainee in progress.trainees:
            loss = self.losses.get(trainee.run.id)
            best = trainee.best
            table.add_row(
                trainee.run.id,
                f"{trainee.step}/{trainee.max_steps}"
                + ("" if trainee.state == "running" else f" {trainee.state}"),
                "" if loss is None else f"{loss:.4f}",
                "" if best is None else f"{best:.4f} at step {trainee.best_step}",
            )
        return Group(Text(self.headline(progress), style="bold"), table)
