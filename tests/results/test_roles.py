"""What columns mean is guessed from names and contents, said, and overruled by a mapping."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from rankwise.errors import DataError
from rankwise.results.from_table import read_outside
from rankwise.results.records import Records


def records_of(tmp_path: Path, text: str, mapping: Any = None) -> Records:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    return read_outside(tmp_path / "t.csv", mapping)


def roles_of(records: Records) -> dict[str, str]:
    return {role["column"]: role["role"] for role in records.study["roles"]}


def study(*columns: str, models: str = "ab", tasks: str = "xy", seeds: int = 2) -> str:
    """Rows of two methods for every model, task and seed, `columns` with fixed texts."""
    head = ",".join(["model", "task", "method", "seed", "accuracy", *columns])
    rows = [
        f"{model},{task},{method},{seed},{0.5 + 0.01 * n}" + ",1" * len(columns)
        for n, (model, task, method, seed) in enumerate(
            product(models, tasks, ("lora", "full"), range(seeds))
        )
    ]
    return "\n".join([head, *rows]) + "\n"


def test_models_and_tasks_are_blocks_and_never_one_contest(tmp_path: Path) -> None:
    records = records_of(tmp_path, study())
    assert [block.context for block in records.blocks] == [
        {"model": model, "task": task} for model, task in product("ab", "xy")
    ]
    for block in records.blocks:
        assert [arm.name for arm in block.records.arms] == ["method=lora", "method=full"]
        assert len(block.records.runs) == 4
    assert records.x_AS.shape == (2, 4)
    assert records.x_AS[0, 0] == pytest.approx(0.505)


def test_an_empty_context_says_that_there_are_no_blocks(tmp_path: Path) -> None:
    records = records_of(tmp_path, study(), {"context": []})
    assert records.blocks == ()
    assert len(records.arms) == 8


def test_models_are_what_is_compared_where_nothing_else_is(tmp_path: Path) -> None:
    records = records_of(tmp_path, "model,task,f1\na,x,.5\na,y,.6\nb,x,.4\nb,y,.7\n")
    assert roles_of(records) == {"f1": "metric", "model": "configuration", "task": "block"}
    assert [arm.name for arm in records.arms] == ["a", "b"]


def test_a_single_task_is_no_block(tmp_path: Path) -> None:
    assert records_of(tmp_path, study(models="a", tasks="x")).blocks == ()


def test_every_column_has_a_role_and_a_reason(tmp_path: Path) -> None:
    text = (
        "name,status,lr,r,seed,data_seed,eval_loss,train_loss,peak_gb,minutes,created,blob\n"
        "red-1,finished,1e-3,4,0,10,0.50,0.41,1.5,2,2025-01-01,0.11\n"
        "red-2,finished,1e-3,4,1,11,0.51,0.42,1.5,2,2025-01-01,0.12\n"
        "red-3,finished,1e-3,8,0,10,0.52,0.43,2.5,3,2025-01-01,0.13\n"
        "red-4,crashed,1e-3,8,1,11,,0.44,2.5,3,2025-01-01,0.14\n"
    )
    records = records_of(tmp_path, text, {"metric": "eval_loss", "factors": ["lr", "r"]})
    assert roles_of(records) == {
        "eval_loss": "metric",
        "seed": "seed",
        "status": "state of the run",
        "peak_gb": "cost: memory",
        "minutes": "cost: time",
        "lr": "setting",
        "r": "setting",
        "name": "not read",
        "data_seed": "not read",
        "train_loss": "not read",
        "created": "not read",
        "blob": "not read",
    }
    why = {role["column"]: role["why"] for role in records.study["roles"]}
    assert why["eval_loss"] == why["lr"] == "given"
    assert "seed" in why["data_seed"]
    assert all(why.values())
    assert [arm.name for arm in records.arms] == ["r=4", "r=8"]
    assert records.arm("r=4").costs["memory"].value == pytest.approx(1.5e9)
    assert records.arm("r=4").costs["time"].value == pytest.approx(120)


def test_the_cost_to_keep_low_is_one_that_the_table_has(tmp_path: Path) -> None:
    rows = "arm,loss,minutes,num_trainable_params\na,1,3,10\nb,2,4,20\n"
    assert records_of(tmp_path, rows).cost == "trainable_params"
    records = records_of(tmp_path, rows.replace("num_trainable_params", "depth"))
    assert (records.cost, records.arms[1].costs["time"].value) == ("time", 240)


def test_a_measured_column_makes_no_configurations(tmp_path: Path) -> None:
    rows = [f"{r},{seed},{0.5 + seed / 100},{1 / (7 + r + seed):.6f}" for r in (4, 8)
            for seed in range(10)]  # fmt: skip
    records = records_of(tmp_path, "\n".join(["r,seed,val_loss,grad_noise", *rows]))
    assert roles_of(records)["grad_noise"] == "not read"
    assert len(records.arms) == 2


def test_a_random_search_keeps_its_learning_rates(tmp_path: Path) -> None:
    rows = [f"{0.001 + n / 12345:.7f},{0.5 + n / 100}" for n in range(20)]
    records = records_of(tmp_path, "\n".join(["learning_rate,val_loss", *rows]))
    assert len(records.arms) == 20
    assert len({arm.settings["learning_rate"] for arm in records.arms}) == 20


def test_numbered_reruns_are_not_paired_though_the_numbers_agree(tmp_path: Path) -> None:
    rows = "r,replicate,eval_loss\n4,1,1.0\n4,2,1.1\n8,1,2.0\n8,2,2.2\n"
    reruns = records_of(tmp_path, rows)
    paired = records_of(tmp_path, rows, {"seed": "replicate", "replicate": None})
    assert roles_of(reruns)["replicate"] == "replicate"
    assert reruns.x_AS.shape == (2, 4)
    assert paired.x_AS.shape == (2, 2)
    assert [run.id for run in reruns.runs] == ["r=4/1", "r=4/2", "r=8/1", "r=8/2"]
    assert any("not paired" in str(note.data["text"]) for note in reruns.notes)


def test_reruns_of_one_seed_are_averaged(tmp_path: Path) -> None:
    rows = "r,seed,rep,eval_loss\n4,0,1,1.0\n4,0,2,2.0\n4,1,1,5.0\n4,1,2,\n"
    records = records_of(tmp_path, rows)
    assert records.x_AS.tolist() == [[1.5, 5.0]]


def test_running_is_no_failure_and_a_failed_run_keeps_no_number(tmp_path: Path) -> None:
    rows = (
        "arm,seed,State,loss\na,0,finished,1.0\na,1,running,0.2\nb,0,FAILED,0.1\nb,1,killed,0.3\n"
        "b,2,Out of memory,\nb,3,finished,NaN\nb,4,pending,\n"
    )
    records = records_of(tmp_path, rows)
    states = {run.id: run.state for run in records.runs}
    assert states == {
        "a/seed-0": "done", "a/seed-1": "running", "b/seed-0": "crashed", "b/seed-1": "interrupted",
        "b/seed-2": "out_of_memory", "b/seed-3": "diverged", "b/seed-4": "planned",
    }  # fmt: skip
    assert [run.id for run in records.runs if run.finished] == ["a/seed-0"]
    assert records.arm("a").open == ("a/seed-1",)
    assert len(records.arm("b").failed) == 4


def test_blocks_have_test_sizes_of_their_own(tmp_path: Path) -> None:
    rows = "task,method,accuracy,n_test\nx,a,.5,10\nx,b,.6,10\ny,a,.5,40\ny,b,.6,40\n"
    records = records_of(tmp_path, rows)
    assert [block.records.test_size for block in records.blocks] == [10, 40]
    assert records.test_size is None


def test_a_test_size_is_guessed_for_shares_only(tmp_path: Path) -> None:
    rows = "arm,{0},n_test\na,.5,10\nb,.6,10\n"
    assert records_of(tmp_path, rows.format("accuracy")).test_size == 10
    assert records_of(tmp_path, rows.format("f1")).test_size is None


@pytest.mark.parametrize(
    ("mapping", "word"),
    [
        ({"seed": "sed"}, "no column 'sed'; nearest: seed; the columns are"),
        ({"context": ["model"], "factors": ["model"]}, "'model' is given two meanings"),
        ({"context": "model"}, "context: Input should be a valid tuple"),
        (
            {"replicate": "seed", "seed": None, "context": ["model"], "factors": ["method"]},
            "two rows are method=lora/0",
        ),
    ],
)
def test_a_mapping_that_does_not_fit_is_one_clear_message(
    tmp_path: Path, mapping: Any, word: str
) -> None:
    with pytest.raises(DataError, match=word):
        records_of(tmp_path, study(), mapping)


def test_more_configurations_than_can_be_compared_are_refused(tmp_path: Path) -> None:
    rows = "\n".join(f"{n},{n / 7}" for n in range(2001))
    with pytest.raises(DataError, match="2,001 different configurations in 2,001 rows"):
        records_of(tmp_path, f"steps,loss\n{rows}\n")
