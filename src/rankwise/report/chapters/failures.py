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
from rankwise.results.judge import Judgement, failed_runs
from rankwise.results.records import Records, RunFacts, is_failure
from rankwise.text import MISSING, count, names

MOST_FAILURES = 30


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
    if run.cause and run.cause not in found.evidence:
        evidence = f"Recorded: {_sentence(run.cause)} {evidence}"
    return (
        f"{code(run.id)}, {run.state.replace('_', ' ')}. {strong('Cause:')} {found.cause}{sure} "
        f"{strong('Evidence:')} {evidence} {strong('Remedy:')} {found.remedy}"
    )


def _sentence(text: str) -> str:
    text = clean(text).strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _evidence(run: RunFacts) -> list[Block]:
    """What was recorded before the end: the last steps as a table, all else as name and value."""
    rows = run.evidence.get("before", [])
    plain = {k: v for k, v in run.evidence.items() if isinstance(v, str | int | float)}
    long = [str(v) for v in plain.values() if len(str(v)) > 200]
    plain = {k: v for k, v in plain.items() if len(str(v)) <= 200}
    blocks: list[Block] = [CodeBlock(clean(text), "text") for text in long]
    if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
        head = list(rows[0])
        cells = [[_shown(row.get(name)) for name in head] for row in rows]
        blocks.append(table(head, cells, numeric=range(len(head))))
    if plain:
        pairs = [(clean(name).replace("_", " "), _shown(value)) for name, value in plain.items()]
        blocks.append(table(("evidence", "value"), pairs))
    if not blocks:
        return []
    return [Details(f"Evidence on {code(run.id)}", tuple(blocks))]


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return clean(value) if value is not None else MISSING


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
