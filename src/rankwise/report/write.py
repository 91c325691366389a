"""The report as a whole: which chapters, in which order, and the files that it becomes."""

from pathlib import Path

from rankwise.report import snippets
from rankwise.report.chapters import cost, curves, effects, groups, lead, recommendation
from rankwise.report.charts import svg_file
from rankwise.report.document import Document, figures_of
from rankwise.report.html import to_html
from rankwise.report.markdown import to_markdown
from rankwise.report.runs_csv import write_runs_csv
from rankwise.results.from_store import read_records
from rankwise.results.judge import Judgement, judge_records
from rankwise.store.reader import Reader


def write_report(folder: Path) -> Path:
    """Writes report.md, report.html, figures/, recommended.yaml and runs.csv into a study folder.

    A pure function of the stored results: the same store gives the same bytes. Returns the path
    of report.html.

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
    sections = (
        lead.ranking(judgement),
        recommendation.recommendation(judgement),
        recommendation.front(judgement),
        recommendation.against_full(judgement),
        effects.effects(judgement),
        effects.learning_rate(judgement),
        cost.costs(judgement),
        groups.groups(judgement),
        groups.ranks(judgement),
        curves.curves(judgement),
        curves.failures(judgement),
        groups.answers(judgement),
        cost.repeat(judgement),
    )
    title = f"Which configuration? {judgement.records.title}"
    return Document(title, lead.lead(judgement), tuple(s for s in sections if s is not None))


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
