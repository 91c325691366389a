"""Recorded learning curves: what is written is what the study holds, and the files are whole."""

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
