"""The report's files: which chapters in which order, Markdown, HTML, figures and runs.csv."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rankwise.report import trainers
from rankwise.report.chapters.answers import answers
from rankwise.report.chapters.cost import costs, front
from rankwise.report.chapters.effects import effects
from rankwise.report.chapters.groups import groups, ranks
from rankwise.report.chapters.ranking import lead, ranking
from rankwise.report.chapters.recommendation import against_full, learning_rate, recommendation
from rankwise.report.chapters.repeat import repeat
from rankwise.report.chapters.runs import curves, failures
from rankwise.report.charts import svg_file
from rankwise.report.document import Document, Section, figures_of, to_html, to_markdown
from rankwise.report.json import OUTSIDE_FILE, as_json, facts_of
from rankwise.report.remarks import cause_of
from rankwise.results.from_store import read_records
from rankwise.results.from_table import read_outside
from rankwise.results.judge import Judgement, judge_records
from rankwise.results.records import ArmFacts, Records, RunFacts
from rankwise.store.reader import Reader

CHAPTERS: tuple[Callable[[Judgement], Section | None], ...] = (
    ranking,
    recommendation,
    front,
    against_full,
    effects,
    learning_rate,
    costs,
    groups,
    ranks,
    curves,
    failures,
    answers,
    repeat,
)


def write_report(folder: Path) -> Path:
    """Writes report.md, report.html, figures/, recommended.yaml and runs.csv into a study folder.

    Depends only on the stored results: the same store gives the same bytes. Returns the path of
    report.html.

    Raises:
        StoreError: no study in the folder, or its records cannot be read.
    """
    _drop_links(Path(folder))
    with Reader(folder) as store:
        records = read_records(store)
        write_runs_csv(store, records, Path(folder) / "runs.csv")
    judgement = judge_records(records)
    path = write_document(tell(judgement), Path(folder))
    choice = judgement.choice
    if choice.arm is not None:
        _write(Path(folder) / "recommended.yaml", trainers.recommended_yaml(records, choice))
    return path


def _drop_links(folder: Path) -> None:
    """Remove links where a report is written: those of a foreign folder may lead anywhere."""
    names = ("report.md", "report.html", "runs.csv", "recommended.yaml", OUTSIDE_FILE, "figures")
    for path in (*(folder / name for name in names), *folder.glob(".*.new")):
        if path.is_symlink():
            path.unlink()
    for path in (folder / "figures").glob("*"):
        if path.is_symlink():
            path.unlink()


def tell(judgement: Judgement) -> Document:
    """The document of a judged study."""
    found = [chapter(judgement) for chapter in CHAPTERS]
    title = f"Which configuration? {judgement.records.title}"
    return Document(title, lead(judgement), tuple(s for s in found if s is not None))


def write_document(document: Document, folder: Path) -> Path:
    """Writes a document as report.md with figures/ and as report.html, whose path it returns."""
    pictures = folder / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    for figure in figures_of(document):
        _write(pictures / f"{figure.name}.svg", svg_file(figure.spec))
    _write(folder / "report.md", to_markdown(document))
    _write(folder / "report.html", to_html(document))
    return folder / "report.html"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def write_outside_report(
    path: Path, mapping: Mapping[str, Any] | Path | None = None, out: Path | None = None
) -> Path:
    """Writes the report on outside results into `out` and returns the path of report.html.

    Args:
        path: a CSV or TSV file with a row a run, or a folder of PEFT's result files.
        mapping: the fields of `Columns`, or a YAML file of them; None for PEFT's files, or where
            the columns have the standard names.
        out: folder to write report.md, report.html, facts.json and figures/ into; beside `path`
            with -report added to its name where not given.

    Raises:
        DataError: the file cannot be read, or the mapping does not fit it.
    """
    path = Path(path)
    folder = out or path.parent / f"{path.stem}-report"
    judgement = judge_records(read_outside(path, mapping))
    _drop_links(folder)
    folder.mkdir(parents=True, exist_ok=True)
    facts = json.dumps(as_json(facts_of(judgement)), indent=1, allow_nan=False)
    (folder / OUTSIDE_FILE).write_text(facts + "\n", encoding="utf-8")
    return write_document(tell(judgement), folder)


COUNTED = ("trainable_params", "total_params", "storage_bytes", "memory_bytes")


def write_runs_csv(store: Reader, records: Records, path: Path) -> None:
    """Writes settings, costs, and metrics at the best and the last step and on the test part."""
    costs = _costs(store)
    rows = [_row(run, records.arm(run.arm), costs[run.arm]) for run in records.runs]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _costs(store: Reader) -> dict[str, dict[str, Any]]:
    """What is counted before a run, and what was measured of it alone, by configuration."""
    trainings, probes = {one.id: asdict(one) for one in store.trainings()}, store.costs()
    found = {}
    for config in store.configs():
        row = {name: trainings[config.training_id][name] for name in COUNTED}
        if config.training_id in probes:
            probe = asdict(probes[config.training_id])
            row |= {f"probe_{name}": value for name, value in probe.items()}
        found[config.name] = {name: value for name, value in row.items() if value is not None}
    return found


def _row(run: RunFacts, arm: ArmFacts, costs: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run": run.id,
        "arm": arm.name,
        "seed": run.seed,
        "state": run.state,
        "cause": cause_of(run),
    }
    for name, value in arm.settings.items():
        plain = isinstance(value, str | int | float)
        row[name] = value if plain else json.dumps(value, ensure_ascii=False)
    row |= costs
    if run.best_step is not None:
        row["best_step"] = run.best_step
    row |= {f"best_{name}": value for name, value in run.validation.items()}
    row |= {f"last_{name}": value for name, value in run.last.items()}
    if run.test:
        row["test_step"] = run.best_step
    return row | {f"test_{name}": value for name, value in run.test.items()}
