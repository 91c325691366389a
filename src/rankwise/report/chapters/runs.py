"""How the runs went: learning curves, and the runs that ended without a result."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence

from rankwise.analysis.curves import Curve, describe_curve
from rankwise.report import figures
from rankwise.report.document import (
    Block,
    Bullets,
    CodeBlock,
    Details,
    Figure,
    Paragraph,
    Section,
    clean,
    code,
    strong,
    table,
)
from rankwise.report.remarks import cause_of, explained
from rankwise.report.steps import ranked_and_best
from rankwise.report.words import run_state
from rankwise.results.collapsed import predicts_one_class
from rankwise.results.judge import Judgement, failed_runs, trained, words
from rankwise.results.records import ArmFacts, Records, RunFacts, is_failure, is_stopped
from rankwise.text import MISSING, count, names, number, percent, whole

YES_NO = {True: "yes", False: "no", None: MISSING}
CURVE_HEAD = ("configuration", "ranked", "first", "best", "at step", "last", "gain")
CURVE_HEAD_LATE = ("relative gain", "late share", "still improving", "overfitting", "reversed")
CURVE_WORDS = (
    "Gain: first to best. Late share: part of the gain in the last quarter of the steps; still "
    "improving if it is 2 % or more and larger than the noise floor. Overfitting: the last value "
    "is worse than the best by more than the noise floor, while the training loss does not rise. "
    "Reversed: share of all change between evaluations that was reversed; 0 for a monotone curve. "
    "With fewer than four evaluations the last four columns are not shown."
)


def curves(judgement: Judgement) -> Section | None:
    """The mean curve of each configuration, as a figure and in numbers."""
    found = [(arm, described(judgement, arm)) for arm in trained(judgement)]
    known = [(arm, curve) for arm, curve in found if curve is not None]
    figure = curve_figure(judgement)
    unlearned = [Paragraph(text, "warning") for text in _never_learned(judgement)]
    if not known or figure is None:
        return Section("Learning curves", "curves", tuple(unlearned)) if unlearned else None
    rows = [_curve_row(arm, curve, judgement.digits) for arm, curve in known]
    caption = f"Of the mean {words(judgement.records.metric)} over seeds. {CURVE_WORDS}"
    head = (*CURVE_HEAD, *CURVE_HEAD_LATE)
    blocks: list[Block] = [figure, table(head, rows, numeric=range(1, 12), caption=caption)]
    said = ranked_and_best(judgement.records, [arm for arm, _ in known], judgement.digits)
    blocks += [*(Paragraph(text) for text in said), *unlearned]
    late = [code(arm.name) for arm, curve in known if curve.still_improving]
    if late:
        remark = (
            f"Still improving at the end: {names(late)}. With more steps the order may change; "
            "the ranking holds for this length of training."
        )
        blocks.append(Paragraph(remark, "warning"))
    return Section("Learning curves", "curves", tuple(blocks))


def _never_learned(judgement: Judgement) -> list[str]:
    """A sentence for each configuration with runs that predict one class for every example."""
    found = []
    for arm in trained(judgement):
        runs = [run for run in judgement.records.runs_of(arm.name) if run.finished]
        flat = [run for run in runs if predicts_one_class(run.validation)]
        if flat:
            shares = sorted({percent(run.validation["eval_accuracy"]) for run in flat})
            found.append(
                f"{len(flat)} of {count(len(runs), 'run')} of {code(arm.name)} did not learn to "
                "distinguish the classes: at the best step the prediction is the same class for "
                f"every validation example. An accuracy of {' or '.join(shares)} is only the share "
                "of that class in the validation part."
            )
    return found


def _curve_row(arm: ArmFacts, curve: Curve, digits: int) -> tuple[str, ...]:
    return (
        code(arm.name),
        number(arm.mean, digits),
        number(curve.first, digits),
        number(curve.best, digits),
        whole(curve.best_step),
        number(curve.last, digits),
        number(curve.improvement, digits),
        percent(curve.relative),
        percent(curve.late_share),
        YES_NO[curve.still_improving],
        YES_NO[curve.overfitting],
        percent(curve.oscillation, 0),
    )


def described(judgement: Judgement, arm: ArmFacts) -> Curve | None:
    """The mean curve of an arm's finished runs; None with fewer than two points."""
    points = mean_curve([run for run in judgement.records.runs_of(arm.name) if run.finished])
    if len(points) < 2:
        return None
    noise = judgement.verdict.noise
    return describe_curve(
        [point.step for point in points],
        [point.value for point in points],
        judgement.records.lower_is_better,
        None if noise is None else noise.within,
        mean_training([run for run in judgement.records.runs_of(arm.name) if run.finished]),
    )


def mean_curve(runs: Sequence[RunFacts]) -> list[figures.CurvePoint]:
    """Mean over the runs that reached each step, with the lowest and the highest value."""
    by_step: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for step, value in run.curve:
            if math.isfinite(value):
                by_step[step].append(value)
    arm = runs[0].arm if runs else ""
    return [
        figures.CurvePoint(arm, step, statistics.fmean(values), min(values), max(values))
        for step, values in sorted(by_step.items())
    ]


def mean_training(runs: Sequence[RunFacts]) -> list[tuple[float, float]]:
    """Mean training loss over runs, at the steps that all of them logged."""
    by_step: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for step, value in run.train_curve:
            by_step[step].append(value)
    return [
        (float(step), statistics.fmean(values))
        for step, values in sorted(by_step.items())
        if len(values) == len(runs)
    ]


def curve_figure(judgement: Judgement) -> Figure | None:
    """Learning curves: mean over seeds, band from the lowest to the highest seed."""
    records = judgement.records
    points = [p for arm in trained(judgement) for p in mean_curve(records.runs_of(arm.name))]
    if len({point.step for point in points}) < 2:
        return None
    arms = list(dict.fromkeys(point.arm for point in points))
    shown = arms[: figures.MOST_LINES]
    metric = words(records.metric)
    last = {point.arm: point for point in points}
    ends = "; ".join(f"{a} {number(last[a].value, judgement.digits)}" for a in shown)
    alt = f"Learning curves of {count(len(arms), 'configuration')}: {metric} by training step. "
    alt += f"Last values: {ends}."
    cut = [run.arm for run in records.runs if is_stopped(run) and run.arm in last]
    stopped = [last[arm] for arm in dict.fromkeys(cut)]
    grey = f" The other {len(arms) - len(shown)} in grey." if len(arms) > len(shown) else ""
    caption = (
        f"{metric.capitalize()} by step, mean over the seeds that reached the step; bands from the "
        f"lowest to the highest seed. The first {count(len(shown), 'configuration')} of the "
        f"ranking in colour.{grey}"
    )
    if stopped:
        caption += " A cross: the race stopped the configuration there."
        alt += f" Stopped by the race: {names([point.arm for point in stopped], 8)}."
    return Figure("curves", caption, alt, figures.curves(points, shown, metric, alt, stopped))


MOST_FAILURES = 30
EVIDENCE_STEPS = 8


def failures(judgement: Judgement) -> Section | None:
    """Every run without a result: its state, cause, evidence and remedy."""
    records = judgement.records
    failed = failed_runs(records)
    if not failed:
        return None
    counts = [
        f"{sum(run.state == state for run in failed)} {state.replace('_', ' ')}"
        for state in dict.fromkeys(run.state for run in failed)
    ]
    blocks: list[Block] = [
        Paragraph(
            f"{count(len(failed), 'run')} of {len(records.runs)}: {names(counts)}. "
            f"{'It is' if len(failed) == 1 else 'They are'} counted here and not part of any mean "
            "or rank."
        )
    ]
    if len(records.runs) > len(records.arms):
        blocks.append(_outcomes(records))
    many = len(failed) > MOST_FAILURES
    for run in failed[:MOST_FAILURES]:
        blocks.append(Bullets((_diagnosis(judgement, run),)))
        blocks += _evidence(run)
    if many:
        blocks.append(Paragraph(f"And {len(failed) - MOST_FAILURES} more, in runs.csv.", "small"))
    return Section("Runs without a result", "failures", tuple(blocks))


def _diagnosis(judgement: Judgement, run: RunFacts) -> str:
    """State, cause, evidence and remedy of one run in one item."""
    found = explained(judgement.diagnoses[run.id])
    sure = "" if found.certain else " (the most likely cause; the records do not prove it)"
    evidence = " ".join(_sentence(text) for text in found.evidence)
    cause = cause_of(run)
    if cause and cause not in found.evidence:
        evidence = f"Recorded: {_sentence(cause)} {evidence}"
    return (
        f"{code(run.id)}, {run.state.replace('_', ' ')}. {strong('Cause:')} {found.cause}{sure} "
        f"{strong('Evidence:')} {evidence} {strong('Remedy:')} {found.remedy}"
    )


def _sentence(text: str) -> str:
    text = clean(text).strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _evidence(run: RunFacts) -> list[Block]:
    """What was recorded before the end: the last steps as a table, the end of a traceback."""
    blocks: list[Block] = [CodeBlock(clean(run.traceback), "text")] if run.traceback else []
    if run.state == "diverged" and run.tail:
        head = ("step", "loss", "gradient norm", "learning rate")
        cells = [
            (str(s.step), *(f"{v:.4g}" for v in (s.loss, s.grad_norm, s.learning_rate)))
            for s in run.tail[-EVIDENCE_STEPS:]
        ]
        blocks.append(table(head, cells, numeric=range(len(head))))
    if not blocks:
        return []
    return [Details(f"Evidence on {code(run.id)}", tuple(blocks))]


def _outcomes(records: Records) -> Figure:
    cells = [(run.arm, run.seed, run_state(run)) for run in records.runs]
    bad = [f"{run.id} {run_state(run)}" for run in records.runs if is_failure(run)]
    alt = f"Outcome of {count(len(records.runs), 'run')}. Without a result: {names(bad, 8)}."
    caption = "State of each run, by its first letter; runs that are done have none."
    concerned = list(dict.fromkeys(run.arm for run in records.runs if is_failure(run)))
    if len(concerned) < len(records.arms) and len(records.arms) > figures.MOST_ARMS:
        cells = [cell for cell in cells if cell[0] in concerned]
        caption += " Only configurations with such a run are shown."
    return Figure("outcomes", caption, alt, figures.outcomes(cells, alt))
