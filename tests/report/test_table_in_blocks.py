"""A table of blocks gets a report that compares inside blocks, and says what it read."""

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml

from rankwise.cli.app import main
from rankwise.report.document import to_markdown
from rankwise.report.guide import write_guide
from rankwise.report.json import as_json, facts_of, facts_schema
from rankwise.report.write import tell, write_outside_report
from rankwise.results.from_table import read_outside
from rankwise.results.judge import judge_records

EXAMPLE = Path(__file__).parents[2] / "examples" / "results" / "classifiers.csv"
GAINS = {"lora": 0.0, "full": 0.02, "prefix": -0.1}


def table(path: Path, turned: str = "z") -> Path:
    """Three methods, two models, six tasks; in the task `turned` the order is the other way."""
    rng = np.random.default_rng(0)
    lines = ["model,task,method,seed,accuracy,status"]
    for model, task, method, seed in product("ab", "uvwxyz", GAINS, range(3)):
        gain = GAINS[method] * (-1 if task == turned else 1)
        value = 0.5 + 0.05 * "uvwxyz".index(task) + gain + rng.normal(0, 0.004)
        lost = (model, task, method, seed) == ("a", "u", "lora", 0)
        lines.append(f"{model},{task},{method},{seed},{'' if lost else f'{value:.4f}'},"
                     f"{'failed' if lost else 'ok'}")  # fmt: skip
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    judgement = judge_records(read_outside(table(tmp_path_factory.mktemp("t") / "t.csv")))
    return to_markdown(tell(judgement)), as_json(facts_of(judgement))


def test_the_first_lines_name_the_blocks_and_where_the_order_turns(report: Any) -> None:
    first = report[0].split("\n## ")[0]
    assert "over 12 blocks (2 values of `model` and 6 values of `task`)" in first
    assert "Not everywhere; significantly better than `method=" in first
    assert " in `task` `z`" in first
    assert "1 run of 108 ended without a result." in first
    assert "seed" not in first


def test_every_block_has_its_own_verdict(report: Any) -> None:
    text, facts = report
    (section,) = (one for one in text.split("\n## ") if one.startswith("Block by block"))
    assert sum(line.startswith("| `") for line in section.splitlines()) >= 12
    assert "a, task u: method=lora/seed-0" in section
    blocks = facts["by_block"]["blocks"]
    assert facts["first_screen"] is None  # seeds are no unit there
    assert len(blocks) == 12
    assert all(block["tie_group"] for block in blocks)
    assert blocks[0]["context"] == {"model": "a", "task": "u"}
    assert len(facts["runs"]) == 108


def test_the_facts_of_blocks_keep_their_schema(report: Any) -> None:
    jsonschema.validate(report[1], facts_schema())
    json.dumps(report[1], allow_nan=False)


def test_the_report_shows_every_column_and_a_mapping_that_gives_the_same(
    report: Any, tmp_path: Path
) -> None:
    text, facts = report
    (section,) = (one for one in text.split("\n## ") if one.startswith("What the columns"))
    mapping = yaml.safe_load(section.split("```yaml\n")[1].split("```")[0])
    assert mapping["context"] == ["model", "task"]
    again = as_json(facts_of(judge_records(read_outside(table(tmp_path / "t.csv"), mapping))))
    assert again["verdict"] == facts["verdict"]
    assert again["by_block"] == facts["by_block"]
    assert {role["why"] for role in again["study"]["record"]["roles"]} == {"given"}


def test_blocks_are_told_apart_from_one_contest_in_the_worked_example(tmp_path: Path) -> None:
    inside = judge_records(read_outside(EXAMPLE))
    assert inside.by_block is not None
    assert len(inside.by_block.names) == 9
    sizes = judge_records(
        read_outside(EXAMPLE, {"context": ["dataset"], "factors": ["classifier", "n_train"]})
    )
    assert sizes.by_block is not None
    assert len(sizes.by_block.names) == 3
    assert len(sizes.records.arms) == 12
    path = write_outside_report(EXAMPLE, out=tmp_path)
    assert (tmp_path / "figures" / "blocks.svg").stat().st_size > 1000
    assert path.stat().st_size > 10_000


def test_what_was_guessed_is_said_on_the_error_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("method,seed,loss\na,0,1\nb,0,2\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["rankwise", "report", str(tmp_path / "t.csv")])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert stop.value.code == 0
    assert said.out.strip() == str(tmp_path / "t-report" / "report.html")
    assert "rankwise: guessed metric: loss\n" in said.err
    assert "rankwise: guessed seed: seed\n" in said.err


def test_a_guide_reads_blocks_too(tmp_path: Path) -> None:
    assert "method" in write_guide([table(tmp_path / "t.csv")])
