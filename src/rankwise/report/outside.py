"""The report on results from elsewhere."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise.report.json import OUTSIDE_FILE, as_json, facts_of
from rankwise.report.write import tell, write_document
from rankwise.results.from_table import read_outside
from rankwise.results.judge import judge_records


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
    folder.mkdir(parents=True, exist_ok=True)
    facts = json.dumps(as_json(facts_of(judgement)), indent=1, allow_nan=False)
    (folder / OUTSIDE_FILE).write_text(facts + "\n", encoding="utf-8")
    return write_document(tell(judgement), folder)
