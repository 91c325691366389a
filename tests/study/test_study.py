"""A study from its spec to its report, through the command line, on models of a few weights."""

import csv
import json
import sys

import pytest
import torch
import yaml
from peft import PeftModel

from black_box import classified, evaluated, make_study, split_of
from black_box import rankwise as command
from rankwise.cli.app import main
from rankwise.report.remarks import remarks_of
from rankwise.results.from_store import read_records
from rankwise.store.writer import Store
from rankwise.study import train_cohort
from rankwise.train import loop
from stored import states as states_of
from tiny_text import rows_of, tiny_spec

ARMS = {
    "grid": {"lora.r": [2, 4]},
    "seeds": [0, 1],
    "lora": {"target_modules": ["query", "value"], "lora_dropout": 0.1},
}


def rankwise(monkeypatch, *words):
    """Exit code of a command run in this process."""
    monkeypatch.setattr(sys, "argv", ["rankwise", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def written(folder, kind="bert", shape="labelled", **more):
    """A spec file of a tiny study in `folder`."""
    spec = tiny_spec(folder, kind, shape, **{**ARMS, **more})
    (folder / "study.yaml").write_text(yaml.safe_dump(spec))
    return folder / "study.yaml", folder / "out"


def trained_from_here(monkeypatch):
    """The names of runs that begin to train from now on."""
    found, before = [], train_cohort.new_states

    def counting(runs, train):
        found.extend(run.id for run in runs)
        return before(runs, train)

    monkeypatch.setattr(train_cohort, "new_states", counting)
    return found


def records(out):
    with Store(out) as store:
        return states_of(store), remarks_of(read_records(store))


def looks(out):
    """Of each look that is noted, how many runs had finished."""
    with Store(out) as store:
        return [fact.data["runs"] for fact in store.facts() if fact.kind == "look"]


def test_a_study_leaves_everything_that_it_promises(tmp_path, monkeypatch, capsys):
    spec, out = written(tmp_path)
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    said = capsys.readouterr().out
    for word in ("4 done", "\nUse r", "report.html", "adapters"):
        assert word in said
    for name in ("study.db", "runs.csv", "report.md", "report.html", "recommended.yaml"):
        assert (out / name).stat().st_size > 0
    assert list((out / "figures").glob("*.svg"))
    with (out / "runs.csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == 4
    for arm in ("r2", "r4"):
        for seed in (0, 1):
            assert (out / "adapters" / arm / f"seed-{seed}" / "adapter_model.safetensors").exists()


def test_running_again_trains_only_what_is_missing(tmp_path, monkeypatch):
    spec, out = written(tmp_path)
    assert rankwise(monkeypatch, "run", spec, "--out", out, "--set", "seeds=[0]") == 0
    trained = trained_from_here(monkeypatch)
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    assert sorted(trained) == ["r2/seed-1", "r4/seed-1"]
    trained.clear()
    assert looks(out) == [4]  # with one seed there was nothing to declare
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    assert trained == []
    assert looks(out) == [4]


def test_one_more_value_in_the_grid_keeps_what_is_done(tmp_path, monkeypatch):
    spec, out = written(tmp_path)
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    more = yaml.safe_load(spec.read_text())
    more["grid"]["training.learning_rate"] = [1e-2, 2e-2]
    spec.write_text(yaml.safe_dump(more))
    trained = trained_from_here(monkeypatch)
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    assert len(trained) == 4
    assert looks(out) == [4, 8]
    assert all("lr0.02" in run or "lr2e-2" in run for run in trained)


def test_an_interrupted_study_goes_on(tmp_path, monkeypatch, capsys):
    spec, out = written(tmp_path)
    before = loop.evaluating

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "evaluating", interrupt)
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 130
    assert "interrupted; run the same command to continue" in capsys.readouterr().err
    states, _ = records(out)
    assert set(states.values()) == {"interrupted"}
    monkeypatch.setattr(loop, "evaluating", before)
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    states, _ = records(out)
    assert set(states.values()) == {"done"}


def test_a_crash_is_written_down_and_the_command_fails(tmp_path, monkeypatch, capsys):
    spec, out = written(tmp_path)

    def crash(*_):
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(loop, "evaluating", crash)
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 1
    states, _ = records(out)
    assert set(states.values()) == {"crashed"}
    assert "a bug of ours" in capsys.readouterr().out
    assert "ZeroDivisionError: a bug of ours" in (out / "report.md").read_text()


def test_too_little_memory_halves_a_cohort(tmp_path, monkeypatch):
    spec, out = written(tmp_path)
    before = loop.row_losses
    sizes = []

    def narrow(model, task, batch, *more):
        sizes.append(len(batch.input_ids))
        if len(batch.input_ids) > 8:
            raise torch.OutOfMemoryError("no more memory")
        return before(model, task, batch, *more)

    monkeypatch.setattr(loop, "row_losses", narrow)
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    states, notes = records(out)
    assert set(states.values()) == {"done"}
    assert any(kind == "memory" for kind, _ in notes)
    assert max(sizes) > 8


def test_a_model_whose_shapes_company_breaks_is_trained_alone_and_the_report_says_so(
    tmp_path, monkeypatch
):
    spec, out = written(
        tmp_path, kind="deberta-v2", lora={"target_modules": ["query_proj", "value_proj"]}
    )
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    states, notes = records(out)
    assert set(states.values()) == {"done"}
    assert any(kind == "fallback" for kind, _ in notes)
    assert "trained alone" in (out / "report.md").read_text()


def test_an_exported_adapter_is_what_was_evaluated(tmp_path):
    study = make_study(
        tmp_path, configurations={"one": {}}, training={"learning_rate": 0.1, "max_steps": 6}
    ).run()
    to = tmp_path / "adapter"
    assert command("export", study.out, "one", "--to", to)[0] == 0
    rows = split_of(rows_of("labelled"))[1]
    examples = classified(rows, sorted({row["label"] for row in rows}))
    measured = float(study.runs()["one", 0]["best_eval_loss"])
    loaded = PeftModel.from_pretrained(study.base(), to).eval()
    assert loaded.active_peft_config.r == 4
    assert evaluated(loaded, "SEQ_CLS", examples) == pytest.approx(measured, abs=1e-5)
    assert abs(evaluated(study.base(), "SEQ_CLS", examples) - measured) > 1e-3
    for name, weight in loaded.named_parameters():
        if "lora_B" in name:
            weight.data.zero_()
    assert abs(evaluated(loaded, "SEQ_CLS", examples) - measured) > 1e-3, "the head does it all"
    assert command("export", study.out, "best", "--to", tmp_path / "m", "--merged")[0] == 0
    assert (tmp_path / "m" / "model.safetensors").exists()
    assert command("export", study.out, "one", "--to", to)[0] == 2


def test_every_command_speaks_json(tmp_path, monkeypatch, capsys):
    spec, out = written(tmp_path)
    for words in (
        ("plan", spec),
        ("data", spec),
        ("run", spec, "--out", out),
        ("status", out),
        ("report", out),
        ("compare", out, "r2", "r4"),
        ("export", out, "best", "--to", tmp_path / "adapter"),
        ("schema",),
    ):
        capsys.readouterr()
        flag = () if words[0] == "schema" else ("--json",)
        assert rankwise(monkeypatch, *words, *flag) == 0
        assert json.loads(capsys.readouterr().out)


def test_another_model_in_the_same_folder_is_refused(tmp_path, monkeypatch, capsys):
    spec, out = written(tmp_path)
    assert rankwise(monkeypatch, "run", spec, "--out", out) == 0
    wider = ["--set", "model.config.hidden_size=64", "--set", "study=wider"]
    assert rankwise(monkeypatch, "run", spec, "--out", out, *wider) == 2
    assert "another base model" in capsys.readouterr().err
