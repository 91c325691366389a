"""Runs that ended without a result."""

from rankwise.report import figure_grids, figures
from rankwise.report.causes import explained
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
from rankwise.report.remarks import cause_of
from rankwise.results.judge import Judgement, failed_runs
from rankwise.results.records import Records, RunFacts, is_failure
from rankwise.text import count, names

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
    cells = [(run.arm, run.seed, run.state.replace("_", " ")) for run in records.runs]
    bad = [f"{run.id} {run.state.replace('_', ' ')}" for run in records.runs if is_failure(run)]
    alt = f"Outcome of {count(len(records.runs), 'run')}. Without a result: {names(bad, 8)}."
    caption = "State of each run, by its first letter; runs that are done have none."
    concerned = list(dict.fromkeys(run.arm for run in records.runs if is_failure(run)))
    if len(concerned) < len(records.arms) and len(records.arms) > figures.MOST_ARMS:
        cells = [cell for cell in cells if cell[0] in concerned]
        caption += " Only configurations with such a run are shown."
    return Figure("outcomes", caption, alt, figure_grids.outcomes(cells, alt))
