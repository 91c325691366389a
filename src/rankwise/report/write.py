"""The report's files: which chapters in which order, Markdown, HTML, figures and runs.csv."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rankwise.errors import WrongFolderError
from rankwise.files import full_disk_told, write_whole
from rankwise.report import trainers
from rankwise.report.chapters import block_order, blocks
from rankwise.report.chapters.answers import answers
from rankwise.report.chapters.columns import columns_read
from rankwise.report.chapters.cost import costs, front
from rankwise.report.chapters.effects import effects
from rankwise.report.chapters.first_screen import lead
from rankwise.report.chapters.groups import groups, ranks
from rankwise.report.chapters.race import race
from rankwise.report.chapters.ranking import ranking
from rankwise.report.chapters.recommendation import against_full, learning_rate, recommendation
from rankwise.report.chapters.repeat import repeat
from rankwise.report.chapters.runs import curves, failures
from rankwise.report.chapters.smooth import smooth
from rankwise.report.chapters.tuned import tuned
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
    race,
    front,
    against_full,
    effects,
    learning_rate,
    tuned,
    smooth,
    costs,
    groups,
    ranks,
    curves,
    failures,
    answers,
    columns_read,
    repeat,
)
CHAPTERS_OF_BLOCKS: tuple[Callable[[Judgement], Section | None], ...] = (
    blocks.over_all,
    block_order.order,
    block_order.block_by_block,
    front,
    effects,
    learning_rate,
    costs,
    groups,
    columns_read,
    repeat,
)


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Writes report.md, report.html, figures/, recommended.yaml and runs.csv of a study.

    Depends only on the stored results: the same store gives the same bytes. Every file is written
    whole or not at all. Returns the path of report.html.

    Args:
        folder: Of the study.
        out: Folder of the report; that of the study where not given.

    Raises:
        StoreError: no study in the folder, or its records cannot be read.
        WrongFolderError: the folder of the report cannot be written.
    """
    to = Path(folder if out is None else out)
    with Reader(folder) as store, _unwritable_told(to):
        records = read_records(store)
        to.mkdir(parents=True, exist_ok=True)
        write_runs_csv(store, records, to / "runs.csv")
        judgement = judge_records(records)
        path = write_document(tell(judgement), to)
        choice = judgement.choice
        if choice.arm is not None:
            write_whole(to / "recommended.yaml", trainers.recommended_yaml(records, choice))
    return path


def report_files(folder: Path) -> list[Path]:
    """The files of a report in the folder of its study."""
    names = ("report.html", "report.md", "runs.csv", "recommended.yaml")
    found = [folder / name for name in names if (folder / name).is_file()]
    return [*found, *sorted((folder / "figures").glob("*.svg"))]


@contextmanager
def _unwritable_told(folder: Path) -> Iterator[None]:
    try:
        with full_disk_told(folder):
            yield
    except OSError as error:
        raise WrongFolderError(
            f"{folder}: the report cannot be written there ({error.strerror or error}); name "
            "another folder by --out"
        ) from error


def tell(judgement: Judgement) -> Document:
    """The document of a judged study."""
    in_blocks = judgement.by_block is not None
    found = [chapter(judgement) for chapter in (CHAPTERS_OF_BLOCKS if in_blocks else CHAPTERS)]
    title = f"Which configuration? {judgement.records.title}"
    first = blocks.lead(judgement) if in_blocks else lead(judgement)
    return Document(title, first, tuple(s for s in found if s is not None))


def write_document(document: Document, folder: Path) -> Path:
    """Writes a document as report.md with figures/ and as report.html, whose path it returns."""
    pictures = folder / "figures"
    if pictures.is_symlink():  # a foreign folder's link may lead anywhere
        pictures.unlink()
    pictures.mkdir(parents=True, exist_ok=True)
    for figure in figures_of(document):
        write_whole(pictures / f"{figure.name}.svg", svg_file(figure.spec))
    write_whole(folder / "report.md", to_markdown(document))
    write_whole(folder / "report.html", to_html(document))
    return folder / "report.html"


def write_outside_report(
    path: Path, mapping: Mapping[str, Any] | Path | None = None, out: Path | None = None
) -> Path:
    """Writes the report on outside results into `out` and returns the path of report.html.

    Args:
        path: a table with a row a run (CSV, TSV, JSON lines, JSON, parquet), or a folder of PEFT's
            result files.
        mapping: the fields of `Columns`, or a YAML file of them; what it leaves open is guessed
            from the names and contents of the columns.
        out: folder to write report.md, report.html, facts.json and figures/ into; beside `path`
            with -report added to its name where not given.

    Raises:
        DataError: the file cannot be read, or the mapping does not fit it.
        WrongFolderError: the folder of the report cannot be written.
    """
    path = Path(path)
    return write_records_report(read_outside(path, mapping), out or outside_folder(path))


def outside_folder(path: Path) -> Path:
    """Where the report on a table goes if nothing else is said."""
    return path.parent / f"{path.stem}-report"


def write_records_report(records: Records, folder: Path) -> Path:
    """The report on outside results that are read already, as `write_outside_report`."""
    judgement = judge_records(records)
    facts = json.dumps(as_json(facts_of(judgement)), indent=1, allow_nan=False)
    with _unwritable_told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / OUTSIDE_FILE, facts + "\n")
        return write_document(tell(judgement), folder)


COUNTED = ("trainable_params", "total_params", "storage_bytes", "memory_bytes")


def write_runs_csv(store: Reader, records: Records, path: Path) -> None:
    """Writes settings, costs, and metrics at the best and the last step and on the test part.

    Columns `ranked_` hold what the ranking and its means are made of (`RunFacts.ranked`).
    """
    costs = _costs(store)
    rows = [_row(run, records.arm(run.arm), costs[run.arm]) for run in records.runs]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


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
    row |= {f"ranked_{name}": value for name, value in run.ranked.items()}
    row |= {f"last_{name}": value for name, value in run.last.items()}
    if run.test:
        row["test_step"] = run.best_step
    return row | {f"test_{name}": value for name, value in run.test.items()}
