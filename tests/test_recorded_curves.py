"""Recorded learning curves: what is written is what the study holds, and the files are whole."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmark_scripts import FOLDER, script
from conftest import settings_of
from rankwise.store.reader import Reader

CURVES = FOLDER / "curves"
SETTINGS = [
    {**settings_of(4, rate, ("query",)), "training.lr_scheduler_type": "linear"}
    for rate in (1e-3, 5e-3)
]
ARMS = [("low", SETTINGS[0]), ("high", SETTINGS[1])]


@pytest.fixture
def modules():
    """The exporter, the loader and what is computed from the files."""
    with script("export", CURVES) as export, script("curves", CURVES) as curves:
        yield export, curves


def test_what_is_loaded_is_what_the_study_holds(make_study, modules, tmp_path):
    export, curves = modules
    study = make_study(arms=ARMS, examples=30)
    export.export("small", study, tmp_path)
    found = curves.load("small", tmp_path)
    assert (found.configs, found.seeds, found.steps) == (("low", "high"), (0, 1), (40, 80, 120))
    assert found.x_ASTE.shape == (2, 2, 3, 30)
    with Reader(study) as store:
        training = store.configs()[1].training_id
        run = next(r for r in store.runs() if (r.training_id, r.seed) == (training, 1))
        stored = store.evaluations(run.id)
        assert found.loss_AST[1, 1, 2] == pytest.approx(stored[2].metrics["eval_loss"])
        np.testing.assert_array_equal(found.groups_E, store.examples("validation").groups)
    for t, one in enumerate(stored):
        np.testing.assert_array_equal(found.x_ASTE[1, 1, t], one.losses)
        np.testing.assert_array_equal(found.correct_ASTE[1, 1, t], one.correct)
    assert found.settings["high"]["learning_rate"] == 5e-3
    assert found.settings["high"]["step_seconds"] == 0.1 + found.params_A[1] / 1e7


def test_a_run_that_diverged_has_values_up_to_its_end_only(make_study, modules, tmp_path):
    export, curves = modules
    broken = {
        "high/seed-1": ("diverged", "", {"step": 100}),
        "high/seed-0": ("diverged", "", {"step": 9}),
    }
    export.export("small", make_study(arms=ARMS, examples=30, broken=broken), tmp_path)
    found = curves.load("small", tmp_path)
    assert found.status_AS.tolist() == [["done", "done"], ["diverged", "diverged"]]
    assert np.isfinite(found.loss_AST[0]).all()
    assert np.isfinite(found.loss_AST[1]).tolist() == [[False] * 3, [True, True, False]]


def test_of_a_study_under_way_only_ended_runs_are_written(make_study, modules, tmp_path):
    export, curves = modules
    broken = {"low/seed-1": ("interrupted", "", {"step": 100})}
    export.export("small", make_study(arms=ARMS, examples=30, broken=broken), tmp_path)
    found = curves.load("small", tmp_path)
    assert found.status_AS.tolist() == [["done", ""], ["done", "done"]]
    assert np.isnan(found.x_ASTE[0, 1]).all()
    assert np.isfinite(found.x_ASTE[0, 0]).all()


def test_another_parquet_file_is_refused(modules, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="no recorded curves"):
        modules[1].load("other", Path(tmp_path))


RECORDED = sorted(path.stem for path in CURVES.glob("*.parquet"))


def test_two_problems_tune_and_two_judge():
    assert RECORDED == ["book", "dialogue", "qa", "reviews"]


@pytest.mark.parametrize("problem", RECORDED)
def test_a_recorded_file_has_three_seeds_of_24_configurations_at_ten_steps(modules, problem):
    found = modules[1].load(problem)
    whole_S = (found.status_AS != "").all(axis=0)
    assert whole_S.sum() >= 3
    assert found.problem == problem
    assert len(found.configs) >= 24
    assert len(found.steps) >= 10
    assert list(found.steps) == sorted(set(found.steps))
    assert found.x_ASTE.shape[3] >= 40
    assert (CURVES / f"{problem}.parquet").stat().st_size < 5e6


@pytest.mark.parametrize("problem", RECORDED)
def test_a_recorded_run_has_every_value_up_to_its_end(modules, problem):
    found = modules[1].load(problem)
    assert set(found.status_AS.flat) <= {"done", "diverged", ""}
    there_ASTE = np.isfinite(found.x_ASTE)
    there_AST = there_ASTE.all(axis=-1)
    np.testing.assert_array_equal(there_AST, there_ASTE.any(axis=-1))
    assert there_AST[found.status_AS == "done"].all()
    assert not there_AST[found.status_AS == ""].any()
    assert not there_AST[found.status_AS == "diverged"][:, -1].any()
    assert (np.diff(there_AST.astype(int), axis=-1) <= 0).all(), "a gap before the end"
    if found.correct_ASTE is not None:
        np.testing.assert_array_equal(np.isfinite(found.correct_ASTE), there_ASTE)


@pytest.mark.parametrize("problem", RECORDED)
def test_columns_of_settings_say_what_the_metadata_says(modules, problem):
    pq = pytest.importorskip("pyarrow.parquet")
    settings = modules[1].load(problem).settings
    for row in pq.read_table(CURVES / f"{problem}.parquet").drop(["loss", "correct"]).to_pylist():
        own = settings[row["config"]]
        where = own["target_modules"]
        assert row["target_modules"] == (where if isinstance(where, str) else " ".join(where))
        for name in ("learning_rate", "r", "lr_scheduler_type", "max_steps", "trainable_params"):
            assert row[name] == own[name]


def test_the_tables_of_the_readme_are_those_of_the_files():
    with script("describe", CURVES) as describe:
        assert (
            f"{describe.BEGIN}{describe.tables()}{describe.END}"
            in (CURVES / "README.md").read_text()
        )


def test_a_run_that_diverged_puts_its_configuration_last():
    with script("describe", CURVES) as describe:
        order = describe.spearman(np.array([1.0, 2.0, np.inf, 3.0]), np.array([1.0, 2.0, 9.0, 3.0]))
        assert order == pytest.approx(1.0)


@pytest.mark.parametrize("problem", ["qa", "reviews", "book", "dialogue"])
def test_each_two_settings_occur_in_all_combinations(problem, tmp_path):
    with script("record", CURVES) as record:
        arms = record.specs(tmp_path)[problem]["configs"]
    assert len(arms) == len({arm["name"] for arm in arms}) == 24
    settings = [{k: str(v) for k, v in arm.items() if k != "name"} for arm in arms]
    for one, other in itertools.combinations(settings[0], 2):
        levels = [len({arm[name] for arm in settings}) for name in (one, other)]
        assert len({(arm[one], arm[other]) for arm in settings}) == levels[0] * levels[1]


def test_the_small_base_is_the_same_when_it_is_made_again(tmp_path, monkeypatch, capsys):
    words = " ".join(f"word{i % 97} and {i % 13}" for i in range(1000))
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(words[i : i + 200] for i in range(0, len(words), 200)))
    with script("base", CURVES) as base:
        for name, value in {"STEPS": 3, "WARMUP": 1, "BLOCK": 16, "ROWS": 2}.items():
            monkeypatch.setattr(base, name, value)
        for folder in ("one", "two"):
            base.make(text, tmp_path / folder)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    assert capsys.readouterr().out.count("held-out loss") == 2


def test_a_run_is_best_at_first_if_no_later_value_is_lower(make_study, modules, tmp_path):
    export, curves = modules
    broken = {"low/seed-1": ("diverged", "", {"step": 50})}
    export.export("small", make_study(arms=ARMS, examples=30, broken=broken), tmp_path)
    with script("describe", CURVES) as describe:
        assert describe.best_at_first(curves.load("small", tmp_path)) == 1 / 4
