"""A base that was changed under its name is found before anything loads; a touched one is not."""

import json
import os
import shutil
import sqlite3
from contextlib import closing

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from black_box import make_study, random_base, rankwise
from rankwise.base.origin import base_files, differences, summed
from rankwise.spec.models import ModelSpec


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run; the model and the folder are put back after each test."""
    return make_study(
        tmp_path_factory.mktemp("base"), configurations={"a": {"lora.r": 2}}, seeds=[0]
    ).run()


@pytest.fixture
def study(finished, tmp_path):
    for name in ("model", "out"):
        shutil.copytree(finished.spec.parent / name, tmp_path / name, symlinks=True)
    yield finished
    for name in ("model", "out"):
        shutil.rmtree(finished.spec.parent / name)
        shutil.copytree(tmp_path / name, finished.spec.parent / name, symlinks=True)


def other_weights(model):
    path = model / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in sorted(weights) if "query.weight" in name)
    weights[name] = weights[name] + 1e-3
    size = path.stat().st_size
    save_file(weights, path, {"format": "pt"})
    assert path.stat().st_size == size, "the size alone must not tell it"


def other_setting(model, file="config.json", **values):
    path = model / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


CHANGES = {
    "weights": (other_weights, "model.safetensors has another content"),
    "config": (
        lambda model: other_setting(model, layer_norm_eps=1e-5),
        "config.json has another content",
    ),
    "tokenizer": (
        lambda model: other_setting(model, "tokenizer_config.json", model_max_length=77),
        "tokenizer_config.json has another content",
    ),
    "a new file": (
        lambda model: (model / "added_tokens.json").write_text("{}"),
        "added_tokens.json is new",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_bytes_under_the_same_path_are_refused_before_anything_loads(study, change):
    make, said = CHANGES[change]
    make(study.model)
    for words in (["run"], ["run", "--dry-run"], ["plan"], ["run", "--set", "seeds=[0, 1]"]):
        code, _, err = rankwise(*words, study.spec, "--out", study.out)
        assert code == 2
        assert said in err
        assert "restore the files, or use another --out" in err
        assert "loading" not in err


def test_other_times_of_the_same_bytes_are_no_change(study):
    for path in study.model.iterdir():
        copied = path.with_name("copied")
        shutil.copyfile(path, copied)
        copied.replace(path)
        os.utime(path, (1, 1))
    assert rankwise("plan", study.spec, "--out", study.out)[0] == 0
    study.run("--set", "seeds=[0, 1]")
    (study.model / "README.md").write_text("notes")
    study.run()


def test_a_study_of_an_older_version_knows_no_files_until_the_base_was_loaded_again(study):
    database = study.out / "study.db"
    (study.out / "study.sha256").unlink()
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("DELETE FROM base_file")
    other_weights(study.model)
    study.run()  # nothing is loaded
    code, _, err = rankwise("run", study.spec, "--out", study.out, "--set", "seeds=[0, 1]")
    assert code == 2
    assert "begun with another base model (sha256" in err


def test_a_file_with_the_stamp_of_before_is_not_read_again(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    known = summed({"weights": path}, {})
    monkeypatch.setattr("rankwise.base.origin.sum_of", None)
    assert summed({"weights": path}, known) == known


def test_a_model_of_the_hub_is_compared_with_what_the_cache_holds(tmp_path, monkeypatch):
    base = random_base("bert")
    for commit in ("a" * 40, "b" * 40):
        base.save_pretrained(tmp_path / commit)
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda name, file, revision: str(tmp_path / (revision or "a" * 40) / file),
    )
    first, all_here = base_files(ModelSpec(name="owner/model"))
    assert not all_here
    assert set(first) == {"config.json", "model.safetensors"}
    before = summed(first, {})
    second, _ = base_files(ModelSpec(name="owner/model", revision="b" * 40))
    assert list(differences(before, summed(second, before), all_here)) == []
    (tmp_path / ("b" * 40) / "config.json").unlink()  # not fetched yet
    with torch.no_grad():
        next(base.parameters()).add_(1)
    base.save_pretrained(tmp_path / "c")
    (tmp_path / "c" / "model.safetensors").replace(second["model.safetensors"])
    later, _ = base_files(ModelSpec(name="owner/model", revision="b" * 40))
    found = list(differences(before, summed(later, before), all_here))
    assert found == ["model.safetensors has another content"]


@pytest.mark.parametrize(
    ("files", "read"),
    [
        (["model.safetensors", "pytorch_model.bin"], {"model.safetensors"}),
        (
            ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "x.bin"],
            {"model-00001-of-00002.safetensors", "model.safetensors.index.json"},
        ),
        (["pytorch_model.bin", "training_args.bin"], {"pytorch_model.bin"}),
    ],
)
def test_only_what_is_read_of_a_folder_counts(tmp_path, files, read):
    for name in (*files, "config.json", "README.md", "trainer_state.json"):
        (tmp_path / name).write_text("{}")
    assert set(base_files(ModelSpec(name=str(tmp_path)))[0]) == {*read, "config.json"}
