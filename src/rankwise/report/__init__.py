"""The report: a pure function of the stored results, as Markdown, HTML and JSON."""

from pathlib import Path


def write_report(folder: Path) -> Path:
    """See `rankwise.report.story.write_report`; imported when called, so that this stays light."""
    from rankwise.report.story import write_report as write

    return write(folder)
