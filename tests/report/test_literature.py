"""The literature names its sources, says what was not checked, and where sources disagree."""

import re
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from rankwise.report.guide import write_guide
from rankwise.report.literature import Literature, literature, setting_key
from rankwise.spec.docs import json_schema

STATEMENTS = [
    (key, statement)
    for key, notes in literature().settings.items()
    for statement in notes.statements
]
ADVICE = [
    (key, advice)
    for key, notes in literature().settings.items()
    for advice in (notes.start, notes.more, notes.less)
]


def test_every_source_can_be_looked_up() -> None:
    for source in literature().sources.values():
        assert re.fullmatch(r"arXiv:\d{4}\.\d{5}|https://\S+", source.at)
        assert re.search(r" (19|20)\d\d$", source.by)
    by = [source.by for source in literature().sources.values()]
    assert len(by) == len(set(by))


def test_a_source_that_is_not_listed_or_not_used_is_refused() -> None:
    raw = literature().model_dump()
    raw["sources"]["nobody"] = raw["sources"]["hu"]
    with pytest.raises(ValidationError, match="nobody"):
        Literature.model_validate(raw)
    del raw["sources"]["nobody"], raw["sources"]["hu"]
    with pytest.raises(ValidationError, match="hu"):
        Literature.model_validate(raw)


def test_every_setting_is_one_of_the_spec() -> None:
    text = str(json_schema())
    for key in literature().settings:
        assert f"'{key}'" in text
        assert setting_key(f"section.{key}") == key


def test_an_advice_with_a_number_names_its_source() -> None:
    for key, advice in ADVICE:
        assert advice.sources or not re.search(r"\d", advice.text), (key, advice.text)


def test_a_setting_that_changes_no_work_is_said_to_save_nothing() -> None:
    for key, notes in literature().settings.items():
        assert notes.free == notes.less.text.startswith("nothing is cheaper"), key


def test_what_was_not_read_in_the_source_is_said_beside_each_statement(plain_study: Path) -> None:
    text = write_guide([plain_study])
    for _, statement in STATEMENTS:
        cited = literature().cite(statement)
        assert ("from memory, not checked" in cited) == (statement.checked == "memory")
        assert ("as others quote it" in cited) == (statement.checked == "quoted")
        assert f"({cited})" in text


def test_every_statement_and_every_disagreement_stands_in_the_guide(plain_study: Path) -> None:
    text = write_guide([plain_study])
    said = [statement.text for _, statement in STATEMENTS]
    said += [notes.disagreement for notes in literature().settings.values()]
    for one in said:
        assert one in text.replace("\\", "").replace("&#58;", ":")


def test_the_guides_page_counts_what_was_checked() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "guide.md").read_text()
    assert f"{len(STATEMENTS)} statements of {len(literature().sources)} sources" in page
    counts = Counter(statement.checked for _, statement in STATEMENTS)
    told = re.findall(r"^\| (?:the|nothing).+ \| (\d+) \|$", page, re.MULTILINE)
    assert [int(n) for n in told] == [counts[k] for k in ("text", "abstract", "quoted", "memory")]


def test_sources_that_report_opposite_things_are_said_to_disagree() -> None:
    for key, notes in literature().settings.items():
        if len({one.expects for one in notes.statements if one.expects}) > 1:
            assert notes.disagreement, key
