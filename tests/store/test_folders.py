"""Adapters have readable names beside the folders of their runs."""

from pathlib import Path

import pytest

from rankwise.store.links import link_names
from rankwise.store.reader import ADAPTERS
from rankwise.store.writer import Store


def with_names(folder: Path, *names: str) -> tuple[Store, int]:
    """Configurations of one training with one run, whose adapter is there."""
    store = Store(folder, create=True)
    training = store.add_training("t")
    for name in names:
        store.add_config(name, training, name, {})
    run = store.add_run(training, 3)
    (folder / ADAPTERS / store.run(run).folder).mkdir(parents=True)
    return store, run


def test_every_configuration_of_a_training_gets_a_relative_link(tmp_path: Path) -> None:
    store, run = with_names(tmp_path, "cool", "warm")
    store.add_run(store.run(run).training_id, 4)  # without an adapter, so without a name
    for _ in range(2):
        link_names(store)
    for name in ("cool", "warm"):
        (link,) = (tmp_path / ADAPTERS / name).iterdir()
        assert (link.name, str(link.readlink())) == ("seed-3", f"../run-{run}")
        assert link.is_dir()


def test_a_link_to_a_folder_that_is_gone_is_made_anew(tmp_path: Path) -> None:
    store, run = with_names(tmp_path, "cool")
    (tmp_path / ADAPTERS / "cool").mkdir()
    (tmp_path / ADAPTERS / "cool" / "seed-3").symlink_to("../gone")
    link_names(store)
    assert str((tmp_path / ADAPTERS / "cool" / "seed-3").readlink()) == f"../run-{run}"


def test_what_has_the_name_already_is_left_alone(tmp_path: Path) -> None:
    store, _ = with_names(tmp_path, "cool")
    (tmp_path / ADAPTERS / "cool" / "seed-3").mkdir(parents=True)
    link_names(store)
    assert not (tmp_path / ADAPTERS / "cool" / "seed-3").is_symlink()


def test_a_configuration_named_as_a_run_s_folder_puts_nothing_into_it(tmp_path: Path) -> None:
    store, run = with_names(tmp_path, "run-1")
    assert store.run(run).folder == "run-1"
    link_names(store)
    assert not list((tmp_path / ADAPTERS / "run-1").iterdir())


def test_a_file_system_without_links_costs_only_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuses)
    store, _ = with_names(tmp_path, "cool")
    link_names(store)
    assert not (tmp_path / ADAPTERS / "cool" / "seed-3").exists()
