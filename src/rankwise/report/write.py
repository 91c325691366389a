"""The whole report: its chapters in order, and the files it is written to."""

from collections.abc import Callable
from pathlib import Path

from rankwise.report import snippets
from rankwise.report.chapters.answers import answers
from rankwise.report.chapters.cost import costs, front
from rankwise.report.chapters.curves import curves
from rankwise.report.chapters.effects import effects
from rankwise.report.chapters.failures import failures
from rankwise.report.chapters.full import against_full
from rankwise.report.chapters.groups import groups
from rankwise.report.chapters.lead import lead
from rankwise.report.chapters.learning_rate import learning_rate
from rankwise.report.chapters.ranking import ranking
from rankwise.report.chapters.ranks import ranks
from rankwise.report.chapters.recommendation import recommendation
from rankwise.report.chapters.repeat import repeat
from rankwise.report.charts import svg_file
from rankwise.report.document import Document, Section, figures_of
from rankwise.report.html import to_html
from rankwise.report.markdown import to_markdown
from rankwise.report.runs_csv import write_runs_csv
from rankwise.results.from_store import read_records
from rankwise.results.judge import Judgement, judge_records
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
    with Reader(folder) as store:
        records = read_records(store)
        write_runs_csv(store, records, Path(folder) / "runs.csv")
    judgement = judge_records(records)
    path = write_document(tell(judgement), Path(folder))
    choice = judgement.choice
    if choice.arm is not None:
        _write(Path(folder) / "recommended.yaml", snippets.recommended_yaml(records, choice))
    return path


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
