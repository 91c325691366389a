"""Tables of other formats, and the exports of experiment trackers, become the same records."""

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rankwise.errors import DataError
from rankwise.results.from_table import read_outside
from rankwise.results.records import Records

ROWS = [
    {"method": method, "seed": seed, "eval_loss": 1.0 + seed / 10 + (method == "b")}
    for method in "ab"
    for seed in range(2)
]
# The shape of W&B's export of a project's runs from the page, of its API, and of MLflow's
# `search_runs().to_csv()`; names and numbers are made up.
WANDB_PAGE = """"Name","State","Notes","User","Created","Runtime","learning_rate","seed","eval/loss"
"sunny-sky-1","finished","-","me","2025-01-01T00:00:00.000Z","101","0.001","0","0.5"
"sunny-sky-2","finished","-","me","2025-01-01T00:01:00.000Z","102","0.001","1","0.6"
"sunny-sky-3","crashed","-","me","2025-01-01T00:02:00.000Z","12","0.002","0",""
"sunny-sky-4","finished","-","me","2025-01-01T00:03:00.000Z","44","0.002","1","0.7"
"""
WANDB_API = """,summary,config,name
0,"{'eval_loss': 0.5, '_step': 9, '_runtime': 101}","{'lora': {'r': 4}, 'seed': 0}",sunny-1
1,"{'eval_loss': 0.6, '_step': 9, '_runtime': 101}","{'lora': {'r': 4}, 'seed': 1}",sunny-2
2,"{'eval_loss': 'NaN', '_step': 3, '_runtime': 9}","{'lora': {'r': 8}, 'seed': 0}",sunny-3
"""
MLFLOW = """run_id,experiment_id,status,artifact_uri,start_time,end_time,metrics.eval_loss,\
metrics.train_loss,params.learning_rate,params.bias,params.seed,tags.mlflow.runName
a1,7,FINISHED,/x/a1,2025-01-01 00:00:00,2025-01-01 00:10:00,0.5,0.4,0.001,None,0,brash-cat-1
a2,7,FINISHED,/x/a2,2025-01-01 00:00:00,2025-01-01 00:10:00,0.6,0.4,0.001,None,1,brash-cat-2
a3,7,KILLED,/x/a3,2025-01-01 00:00:00,2025-01-01 00:10:00,0.9,0.4,0.002,all,0,brash-cat-3
a4,7,RUNNING,/x/a4,2025-01-01 00:00:00,,,0.4,0.002,all,1,brash-cat-4
"""


def values(records: Records) -> dict[str, Any]:
    return {run.id: run.value for run in records.runs}


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_says_the_same_in_every_format(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "t.parquet")
    lines = "\n".join(json.dumps(row) for row in ROWS)
    written(tmp_path / "t.jsonl", lines)
    written(tmp_path / "t.json", json.dumps(ROWS))
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    found = [values(read_outside(path)) for path in sorted(tmp_path.iterdir())]
    assert len(found) == 6
    assert found[0]["method=b/seed-1"] == 2.1
    assert all(one == found[0] for one in found)


def test_rows_of_json_lines_may_lack_columns(tmp_path: Path) -> None:
    text = '{"arm": "a", "eval_loss": 1}\n{"arm": "b", "rank": 4, "eval_loss": 2}\n'
    records = read_outside(written(tmp_path / "t.jsonl", text))
    assert [arm.settings for arm in records.arms] == [{}, {"rank": 4}]


def test_a_csv_of_wandb_runs_is_read_by_settings_not_by_names_of_runs(tmp_path: Path) -> None:
    records = read_outside(written(tmp_path / "wandb.csv", WANDB_PAGE))
    assert values(records) == {
        "learning_rate=0.001/seed-0": 0.5,
        "learning_rate=0.001/seed-1": 0.6,
        "learning_rate=0.002/seed-0": None,
        "learning_rate=0.002/seed-1": 0.7,
    }
    assert records.metric == "eval_loss"
    assert records.runs[2].state == "crashed"
    assert records.arms[0].costs["time"].value == pytest.approx(101.5)


def test_config_and_summary_of_wandb_runs_are_settings_and_results(tmp_path: Path) -> None:
    records = read_outside(written(tmp_path / "runs.csv", WANDB_API))
    assert [arm.settings for arm in records.arms] == [{"lora.r": 4}, {"lora.r": 8}]
    assert records.runs[2].state == "diverged"
    runs = [
        {"name": f"n-{n}", "state": "finished", "summary": {"eval_loss": loss},
         "config": {"lr": {"value": lr, "desc": None}, "seed": {"value": 0, "desc": None}}}
        for n, (lr, loss) in enumerate([(0.1, 1.0), (0.2, 2.0)])
    ]  # fmt: skip
    records = read_outside(written(tmp_path / "runs.json", json.dumps(runs)))
    assert [arm.settings for arm in records.arms] == [{"lr": 0.1}, {"lr": 0.2}]
    assert list(values(records).values()) == [1.0, 2.0]


def test_params_metrics_and_status_of_mlflow_runs_are_read(tmp_path: Path) -> None:
    records = read_outside(written(tmp_path / "mlflow.csv", MLFLOW))
    names = [arm.name for arm in records.arms]
    assert names == ["learning_rate=0.001", "learning_rate=0.002 bias=all"]
    assert [run.state for run in records.runs] == ["done", "done", "interrupted", "running"]
    assert list(values(records).values()) == [0.5, 0.6, None, None]


def test_a_run_that_failed_before_it_wrote_its_settings_is_no_other_configuration(
    tmp_path: Path,
) -> None:
    lines = MLFLOW.splitlines()
    early = "a5,7,FAILED,/x/a5,2025-01-01 00:00:00,,,,0.001,,2,brash-cat-5"
    text = "\n".join([lines[0], early, *lines[1:3]]).replace("None", "all")
    records = read_outside(written(tmp_path / "mlflow.csv", text))
    (arm,) = records.arms
    assert arm.settings == {"learning_rate": 0.001, "bias": "all"}
    assert [run.state for run in records.runs] == ["done", "done", "crashed"]
    assert records.notes == ()


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("t.jsonl", '{"a": 1}\n{"a": \n', "line 2: not JSON"),
        ("t.json", '{"a": 1}', "must be one list of objects"),
        ("t.jsonl", "", "no rows"),
        ("t.parquet", "PAR1", "not a parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_message(
    tmp_path: Path, name: str, text: str, word: str
) -> None:
    with pytest.raises(DataError, match=word):
        read_outside(written(tmp_path / name, text))
