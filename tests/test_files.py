"""Folders appear whole or not at all."""

from pathlib import Path

import pytest

from rankwise.files import whole_folder


def test_a_whole_folder_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    for text in ("one", "two"):
        with whole_folder(target) as ready:
            (ready / text).mkdir()
            (ready / text / "file").write_text(text)
            assert (target / "one").exists() == (text == "two")
        assert [path.name for path in target.iterdir()] == [text]
    assert [path.name for path in target.parent.iterdir()] == ["b"]


def test_a_folder_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with whole_folder(target) as ready:
        (ready / "file").write_text("whole")
    with pytest.raises(ZeroDivisionError), whole_folder(target) as ready:
        (ready / "file").write_text(f"half: {1 / 0}")
    assert (target / "file").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("other")
    with whole_folder(tmp_path / "link") as ready:
        (ready / "file").write_text("new")
    assert not (tmp_path / "link").is_symlink()
    assert not list((tmp_path / "other").iterdir())
