"""The report as a whole: which chapters, in which order, and the files that it becomes."""

from pathlib import Path

from rankwise.report import (
    chapters,
    effects_chapter,
    more_chapters,
    opening,
    quality_chapter,
    recommend,
    runs_chapter,
)
from rankwise.report.charts import svg_file
from rankwise.report.document import Document, figures_of
from rankwise.report.facts import read_records
from rankwise.report.html import to_html
from rankwise.report.judgement import Judgement, judge_records
from rankwise.report.markdown import to_markdown
from rankwise.store import Store


def write_report(folder: Path) -> Path:
    """Writes report.md, report.html, figures/, recommended.yaml and runs.csv into a study folder.

    A pure function of the stored results: the same store gives the same bytes. Returns the path
    of report.html.

    Raises:
        StoreError: no study in the folder, or its records cannot be read.
    """
    with Store(folder) as store:
        records = read_records(store)
        store.write_runs_csv(Path(folder) / "runs.csv")
    judgement = judge_records(records)
    path = write_document(tell(judgement), Path(folder))
    choice = judgement.choice
    if choice.arm is not None:
        _write(Path(folder) / "recommended.yaml", recommend.recommended_yaml(records, choice))
    return path


def tell(judgement: Judgement) -> Document:
    """The document of a judged study."""
    sections = (
        opening.ranking(judgement),
        quality_chapter.recommendation(judgement),
        quality_chapter.front(judgement),
        quality_chapter.against_full(judgement),
        effects_chapter.effects(judgement),
        effects_chapter.learning_rate(judgement),
        chapters.costs(judgement),
        more_chapters.groups(judgement),
        more_chapters.ranks(judgement),
        runs_chapter.curves(judgement),
        runs_chapter.failures(judgement),
        more_chapters.answers(judgement),
        chapters.repeat(judgement),
    )
    title = f"Which configuration? {judgement.records.title}"
    return Document(title, opening.lead(judgement), tuple(s for s in sections if s is not None))


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
