"""One process writes a study; others are told which, and a dead one is no obstacle."""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from black_box import rankwise
from rankwise.errors import InUseError, UserError, WrongFolderError
from rankwise.store.lock import LOCK, held_by, hold
from rankwise.store.writer import Store
from stored import with_one_run
from tiny_text import tiny_spec

HOLDER = (
    "import sys, time; from pathlib import Path; from rankwise.store.lock import hold\n"
    "lock = hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds `tmp_path`/out."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_told_who_has_the_folder_before_it_looks_at_the_data(
    tmp_path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_heavy(*_: object) -> None:
        raise AssertionError("the lock comes first")

    monkeypatch.setattr("rankwise.cli.app.quiet_libraries", nothing_heavy)
    spec = tmp_path / "study.yaml"
    spec.write_text(yaml.safe_dump(tiny_spec(tmp_path, "bert", "labelled")))
    code, _, said = rankwise("run", spec, "--out", tmp_path / "out")
    assert code == 2
    assert f"another process is running this study (process {other.pid} on " in said
    assert ", since 20" in said
    found = held_by(tmp_path / "out")
    assert found is not None
    assert found.pid == other.pid


def test_the_lock_of_a_killed_process_is_taken_over(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    with pytest.raises(InUseError):
        hold(tmp_path / "out")
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert json.loads((tmp_path / "out" / LOCK).read_text())["pid"] == other.pid  # it is stale
    assert held_by(tmp_path / "out") is None
    with closing(hold(tmp_path / "out")):
        found = held_by(tmp_path / "out")
        assert found is not None
        assert found.pid == os.getpid()
    assert held_by(tmp_path / "out") is None


def test_a_folder_that_was_made_for_the_lock_alone_goes_with_it(tmp_path: Path) -> None:
    hold(tmp_path / "a" / "b").close()
    assert list(tmp_path.iterdir()) == []
    with closing(hold(tmp_path / "a")):
        (tmp_path / "a" / "kept").write_text("")
    assert (tmp_path / "a" / "kept").exists()
    (tmp_path / "empty").mkdir()
    hold(tmp_path / "empty").close()
    assert (tmp_path / "empty").is_dir()


def test_a_folder_that_cannot_be_written_is_a_mistake_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WrongFolderError, match="cannot be written"):
        hold(tmp_path / "file" / "out")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"no permission to write.*use another --out"):
        hold(tmp_path / "out")


def test_a_store_writes_under_the_lock_of_its_caller_and_leaves_it_held(tmp_path: Path) -> None:
    with closing(hold(tmp_path)) as lock:
        with Store(tmp_path, create=True, lock=lock) as store:
            with_one_run(store)
        with pytest.raises(InUseError):
            hold(tmp_path)


def test_a_run_of_a_dead_process_is_not_called_running(tmp_path: Path) -> None:
    with Store(tmp_path / "out", create=True) as store:
        store.set_state(with_one_run(store), "running")
        _, said, _ = rankwise("status", tmp_path / "out")
        assert "1 running" in said
        assert f"run by process {os.getpid()} on " in said
    _, said, _ = rankwise("status", tmp_path / "out")
    assert "1 interrupted" in said
    assert "running" not in said
    assert "run by" not in said
