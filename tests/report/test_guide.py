"""The guide says what studies found, names its sources, and does not smooth over contradictions."""

from pathlib import Path
from typing import Any

import pytest

from rankwise.errors import DataError
from rankwise.report.guide import write_guide
from rankwise.report.literature import FINDINGS, setting_key


def test_each_varied_setting_gets_its_numbers_and_the_literature(plain_study: Path) -> None:
    text = write_guide([plain_study])
    section = text.split("## Learning rate")[1].split("\n## ")[0]
    assert "| `reviews` | `0.001` | `0.005` | -0.0" in section
    assert "| better |" in section
    assert "arXiv:2405.09673" in section
    assert "No significant contradictions were found." in text
    assert "not significant |" in text.split("## Rank (r)")[1].split("\n## ")[0]
    assert "**Quantisation**" in text.split("## Not varied in these studies")[1]


def test_studies_that_contradict_each_other_are_named(plain_study: Path, make_study: Any) -> None:
    def other_way(settings: dict[str, Any]) -> float:
        return 0.5 + (0.05 if settings["training.learning_rate"] > 0.002 else 0.0)

    opposite = make_study("opposite", truth=other_way, examples=200)
    lead = write_guide([plain_study, opposite]).split("## The studies")[0]
    assert "**Contradictions:**" in lead
    assert "`learning_rate` from `0.001` to `0.005`: better in `reviews (" in lead
    assert str(opposite) in lead


def test_a_finding_against_a_source_is_said_with_the_source(make_study: Any) -> None:
    def rank_counts(settings: dict[str, Any]) -> float:
        return 0.6 - 0.005 * settings["lora.r"]

    text = write_guide([make_study(truth=rank_counts, examples=200)])
    lead = text.split("## The studies")[0]
    assert "`r` from `4` to `16`: better in `reviews`, where Hu et al. 2021" in lead


def test_inseparable_settings_get_no_number(tmp_path: Path) -> None:
    table = "arm,dropout,scheduler,eval_loss\na,0.1,linear,1.2\nb,0.05,cosine,1.3\n"
    (tmp_path / "sweep.csv").write_text(table, encoding="utf-8")
    section = write_guide([tmp_path / "sweep.csv"]).split("## Dropout")[1].split("\n## ")[0]
    assert "change together; the values are their joint effect" in section
    assert "cannot tell" in section


def test_nothing_to_read_is_an_error_that_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one study or more"):
        write_guide([])
    with pytest.raises(DataError, match="not found"):
        write_guide([tmp_path / "nowhere"])


def test_every_finding_has_a_source_with_an_identifier() -> None:
    for key, findings in FINDINGS.items():
        assert setting_key(f"lora.{key}") == key
        for finding in findings:
            assert "arXiv:" in finding.source
            assert finding.text.endswith(".")
