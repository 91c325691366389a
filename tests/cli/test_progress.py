"""Progress tells losses, speed and time left, out of events alone."""

import math

import numpy as np
from rich.console import Console

from rankwise.cli import progress
from rankwise.cli.interrupt import Stop
from rankwise.study.record import CohortFormed, Remark, StudyBegun
from rankwise.train.evaluate import Evaluation
from rankwise.train.loop import Batched, Ended, Evaluated, Improved, Stepped


def evaluated(run, step, loss):
    return Evaluated(run, "validation", step, Evaluation(np.array([loss]), np.ones(1)))


def told(watch, *events):
    for event in events:
        watch.take(event)
    return watch


def watched():
    """Two runs of 20 steps at 1e6 operations a token, on hardware of 1e9 operations a second."""
    steps = {"a/seed-0": 20, "b/seed-0": 20}
    return told(
        progress.Watch(),
        StudyBegun(steps, 1e6, 1e9),
        CohortFormed(1, 3, steps, "eval_loss"),
        Stepped("a/seed-0", 5, 0.5, 1.0, 1e-3),
        Stepped("b/seed-0", 5, 0.75, 1.0, 1e-3),
        Batched(("a/seed-0", "b/seed-0"), 100, 120, 0.25),
    )


def text_of(renderable):
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_a_line_tells_losses_speed_and_the_share_of_the_peak():
    line = watched().headline()
    assert "cohort 1 of 3" in line
    assert "2 runs at step 5 of 20" in line
    assert "losses 0.500 to 0.750" in line
    assert "400 tokens a second" in line  # 100 in a quarter of a second
    assert "48% of the peak in products" in line  # 120 computed x 1e6 / 0.25 s / 1e9
    assert "time left not known yet" in line


def test_time_left_is_the_pace_so_far_times_the_steps_to_go():
    watch = watched()
    watch.started -= 10.0  # ten of forty steps took ten seconds
    assert math.isclose(watch.seconds_left(), 30.0, rel_tol=0.01)


def test_a_run_that_ends_early_has_no_time_left():
    watch = told(watched(), Ended("a/seed-0", "diverged", {}))
    watch.started -= 25.0  # twenty steps need no more time, five were done
    assert math.isclose(watch.seconds_left(), 15.0, rel_tol=0.01)


def test_the_table_has_a_line_a_run_with_its_validation_curve():
    watch = told(
        watched(),
        evaluated("a/seed-0", 2, 0.9), evaluated("a/seed-0", 4, 0.3), Improved("a/seed-0", 4, 0.3),
        Ended("b/seed-0", "stopped_early"),
    )  # fmt: skip
    shown = text_of(watch.picture())
    (line,) = [row for row in shown.splitlines() if row.startswith("a/seed-0")]
    assert "5/20" in line
    assert "█▁" in line
    assert "0.3000 at step 4" in line
    assert "stopped early" in shown


def test_a_curve_is_scaled_to_its_own_values_and_marks_what_is_no_number():
    assert progress.spark([1.0, 2.0, 3.0]) == "▁▅█"
    assert progress.spark([2.0, 2.0]) == "▁▁"
    assert progress.spark([1.0, math.nan, 2.0]) == "▁!█"
    assert progress.spark([]) == ""
    assert len(progress.spark(list(range(100)))) == 16


def test_where_there_is_no_terminal_a_line_comes_every_ten_seconds_at_most(monkeypatch, capsys):
    clock = iter(range(0, 10_000))  # a second passes at every look
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    steps = {"a/seed-0": 60}
    begin = (StudyBegun(steps, 1e6, None), CohortFormed(1, 1, steps, "eval_loss"))
    batches = [
        (Stepped("a/seed-0", n + 1, 1.0, 1.0, 1e-3), Batched(("a/seed-0",), 10, 10, 1.0))
        for n in range(60)
    ]
    progress.show(iter([(Remark("loading"), *begin), *batches]), Stop())
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "loading"
    assert 2 <= len(said) - 1 <= 7
    assert all("10 tokens a second" in line for line in said[2:])
    assert "peak" not in "".join(said)  # it was not measured
