"""A guide from studies: what they found on each setting, what is reported, and what to do."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rankwise.errors import DataError
from rankwise.report.document import (
    Block,
    Bullets,
    Document,
    Paragraph,
    Section,
    code,
    strong,
    table,
    to_markdown,
)
from rankwise.report.guide_findings import Observation, contradictions, observations_of
from rankwise.report.guide_search import little_memory, staged_search, starting_specs
from rankwise.report.guide_settings import setting_section, sources_section, unseen_section
from rankwise.report.literature import literature, setting_key
from rankwise.report.words import BASES
from rankwise.results.from_store import read_records
from rankwise.results.from_table import read_outside
from rankwise.results.judge import Judgement, judge_records, words
from rankwise.results.records import Records
from rankwise.store.reader import Reader
from rankwise.store.schema import FILE
from rankwise.text import MISSING, count

READING = (
    "How to read the tables below: a row is one change of one setting, with its benefit and its "
    "price. Change is that of the study's metric. Trainable parameters, memory and training time "
    "are how much more or less a run takes, in the pairs of configurations that differ in this "
    "setting alone; where the pairs differ, the least and the most. Memory and time are of one run "
    "alone and have no interval. A setting that changes no work, such as the learning rate, has no "
    "price. Under What to do here, at most is the bound of the interval; the intervals hold for "
    "all differences of the study at once (95 %)."
)


def write_guide(folders: Sequence[Path]) -> str:
    """The guide as Markdown.

    Args:
        folders: of studies, or tables of outside results, as `from_table.read_outside` takes them.

    Raises:
        DataError: no folder, or one that is neither a study nor outside results.
        StoreError: a study that cannot be read.
    """
    if not folders:
        raise DataError("a guide needs one study or more; name their folders")
    judged = [judge_records(records) for records in _named([Path(one) for one in folders])]
    observations = [one for judgement in judged for one in observations_of(judgement)]
    found = list(dict.fromkeys(setting_key(one.setting) for one in observations))
    order = [key for key in literature().settings if key in found]
    keys = [*order, *(key for key in found if key not in order)]
    sections = [_studies(judged)]
    sections += [setting_section(key, observations, judged) for key in keys]
    sections += [unseen_section(keys), little_memory(judged), starting_specs()]
    sections += [staged_search(), sources_section()]
    lead = _lead(judged, observations, keys)
    return to_markdown(Document("What these studies say about each setting", lead, tuple(sections)))


def _read(path: Path) -> Records:
    if (path / FILE).is_file():
        with Reader(path) as store:
            return read_records(store)
    if not path.exists():
        raise DataError(f"{path}: not found; name the folder of a study or a table of results")
    return read_outside(path)


def _named(folders: Sequence[Path]) -> list[Records]:
    """The records of each, with titles that are unique."""
    found = [_read(folder) for folder in folders]
    titles = [records.title for records in found]
    return [
        replace(records, title=f"{records.title} ({folder})")
        if titles.count(records.title) > 1
        else records
        for records, folder in zip(found, folders, strict=True)
    ]


def _lead(
    judged: Sequence[Judgement], observations: Sequence[Observation], keys: Sequence[str]
) -> tuple[Block, ...]:
    arms = sum(len(one.records.arms) for one in judged)
    runs = sum(len(one.records.runs) for one in judged)
    clashes = [text for key in keys for text in contradictions(key, observations)]
    text = (
        f"From {count(len(judged), 'study', 'studies')}, {count(arms, 'configuration')} and "
        f"{count(runs, 'run')}. Each study holds for its own model, data and length of training; "
        "so does each source."
    )
    if not clashes:
        return (Paragraph(text), Paragraph("No significant contradictions were found."))
    return Paragraph(text), Paragraph(strong("Contradictions:")), Bullets(tuple(clashes))


def _studies(judged: Sequence[Judgement]) -> Section:
    rows = []
    for one in judged:
        records, verdict = one.records, one.verdict
        model = records.study.get("model", {}).get("name", MISSING)
        done = sum(run.finished for run in records.runs)
        rows.append(
            (
                code(records.title),
                code(model),
                words(records.metric),
                str(len(records.arms)),
                f"{done} of {len(records.runs)}",
                str(verdict.seeds),
                str(verdict.examples or MISSING),
                code(one.choice.arm or MISSING),
                BASES[one.choice.basis],
            )
        )
    head = (
        "study",
        "model",
        "metric",
        "configurations",
        "runs",
        "seeds",
        "examples or groups",
        "recommended",
        "reason",
    )
    return Section(
        "The studies", "studies", (table(head, rows, numeric=(3, 4, 5, 6)), Paragraph(READING))
    )
