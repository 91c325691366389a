"""A damaged database is found whatever the damage, and as much as can be is carried over."""

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from black_box import rankwise
from conftest import MakeStudy
from rankwise.errors import DamagedError, StoreError
from rankwise.files import FileSum, sums_of
from rankwise.report.remarks import remark
from rankwise.store.connect import open_read_only
from rankwise.store.damage import damage_of, repair
from rankwise.store.reader import ADAPTERS, Reader
from rankwise.store.schema import Answer
from rankwise.store.seal import BACKUP, SUMS, is_sealed
from rankwise.store.writer import Store
from stored import RECORD


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def shave(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwrite(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))


def behead(path: Path) -> None:
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])


def replace(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever its name " * 50)


def flip(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    place = random.Random(0).randrange(len(whole))
    whole[place] ^= 0x10
    path.write_bytes(whole)


KINDS = (truncate, shave, empty, overwrite, behead, replace, flip, Path.unlink)
Damage = Callable[[Path], None]


def rows_of(folder: Path) -> list[tuple[str, ...]]:
    """All that is stored, but for notes, as text."""
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as db:
        names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'fact'")
        return [
            (name, *map(str, row))
            for (name,) in sorted(names.fetchall())
            for row in sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=str)
        ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed study of two configurations with one run each, with files of their adapters."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    with Store(folder, create=True) as store:
        store.begin_study(RECORD)
        add_run(store, "a")
        add_run(store, "b")
    return folder


def add_run(store: Store, name: str, state: str = "done") -> int:
    training = store.add_training(f"t-{name}")
    config = store.add_config(f"c-{name}", training, name, {"lora.r": len(name)})
    run = store.add_run(training, 0)
    for step in range(1, 200):
        store.log(run, step, 1 / step, 1.0, 0.1)
    losses = np.linspace(0, 1, 500, dtype=np.float32)
    store.save_evaluation(run, 199, "validation", losses, None, {"eval_loss": 0.5})
    folder = store.folder / ADAPTERS / store.run(run).folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_text(name)
    store.set_best(run, 199, sums_of(folder))
    store.save_answers(config, run, [Answer("p", None, name)])
    store.add_fact("text", about="data", text=name)
    store.set_state(run, state)
    return run


@pytest.fixture
def study(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "study")


@pytest.fixture
def killed(whole: Path, tmp_path: Path) -> Path:
    """The study, with a third run written since its backup and a fourth begun, then killed."""
    with Store(shutil.copytree(whole, tmp_path / "alive")) as store:
        add_run(store, "c")
        store._db.execute("PRAGMA wal_checkpoint")
        add_run(store, "d", "running")
        return shutil.copytree(store.folder, tmp_path / "killed")


@pytest.mark.parametrize("damage", KINDS)
def test_a_closed_study_is_repaired_without_loss_whatever_the_damage(
    study: Path, damage: Damage
) -> None:
    before = rows_of(study)
    damage(study / "study.db")
    damaged = (study / "study.db").read_bytes() if damage is not Path.unlink else None
    with pytest.raises(DamagedError, match=r"is damaged: .*rankwise repair"):
        Reader(study)
    with pytest.raises(DamagedError):
        Store(study, create=True)
    done = repair(study)
    assert done is not None
    assert (done.from_backup, done.salvaged, done.lost) == (2, 0, 0)
    assert rows_of(study) == before
    assert damage_of(study) is None
    assert is_sealed(study)
    if damaged is not None:
        assert done.kept == "study.db.damaged-1"
        assert (study / done.kept).read_bytes() == damaged
    with Reader(study) as store:
        (sentence,) = [text for kind, text in map(remark, store.facts()) if kind == "study.db"]
        assert "was damaged" in sentence
        assert "2 runs kept, 0 to be trained again" in sentence


def test_the_checksums_are_those_of_sha256sum(study: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    import subprocess

    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=study, check=True, capture_output=True)
    assert done.stdout.decode().split() == ["study.db:", "OK", f"{BACKUP}:", "OK"]


@pytest.mark.parametrize("damage", [truncate, empty, overwrite, behead, replace])
def test_a_killed_study_keeps_at_least_its_backup(killed: Path, damage: Damage) -> None:
    assert not is_sealed(killed)
    assert damage_of(killed) is None
    damage(killed / "study.db")
    (killed / "study.db-wal").unlink()
    assert damage_of(killed) is not None
    done = repair(killed)
    assert done is not None
    assert done.from_backup == 2
    with Reader(killed) as store:
        assert [run.state for run in store.runs()][:2] == ["done", "done"]
        kept = {path.name for path in (killed / ADAPTERS).iterdir()}
        assert kept == {run.folder for run in store.runs()}
    aside = list(killed.glob(f"{ADAPTERS}*/run-*"))
    assert len(aside) == 4  # no adapter is gone


def test_a_run_since_the_backup_is_taken_from_what_can_be_read(killed: Path) -> None:
    before = rows_of(killed)
    spoil(killed, 4)
    done = repair(killed)
    assert done is not None
    assert (done.from_backup, done.salvaged, done.lost) == (2, 1, 1)
    assert "2 runs from the backup of 20" in done.words()
    assert "1 run could still be read in it, 1 run will be trained again" in done.words()
    with Reader(killed) as store:
        assert [run.state for run in store.runs()] == ["done", "done", "done", "planned"]
        assert [one.answers[0].text for one in store.answers()] == ["a", "b", "c"]
    kept = {row for row in before if row[0] in ("step", "metric") and row[1] != "4"}
    assert kept <= set(rows_of(killed))


def test_without_a_backup_what_can_be_read_is_kept(killed: Path) -> None:
    (killed / BACKUP).unlink()
    (killed / SUMS).unlink()
    spoil(killed, 2)
    done = repair(killed)
    assert done is not None
    assert (done.backup, done.salvaged, done.lost) == (None, 2, 2)
    assert "there was no backup" in done.words()
    with Reader(killed) as store:
        assert [run.state for run in store.runs()] == ["done", "planned", "done", "planned"]
        assert store.study() == RECORD
        assert len(store.steps(1)) == 199


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE step SET loss = loss + 1e-9 WHERE run_id = 2 AND step = 70",
        "UPDATE metric SET value = 0.25 WHERE run_id = 2",
        "UPDATE run SET best_step = 70 WHERE id = 2",
    ],
)
def test_a_number_that_is_not_that_of_the_backup_is_damage(killed: Path, change: str) -> None:
    before = rows_of(killed)
    with contextlib.closing(sqlite3.connect(killed / "study.db")) as db:
        db.execute(change)
        db.commit()
    done = repair(killed)
    assert done is not None
    assert "of run 2" in done.why
    assert (done.from_backup, done.salvaged, done.lost) == (2, 1, 1)
    of_ended = {row for row in before if row[0] in ("step", "metric") and row[1] != "4"}
    assert of_ended <= set(rows_of(killed))


def test_a_run_that_is_trained_again_is_not_damage(killed: Path) -> None:
    with Store(killed) as store:
        store.restart_run(2)
        assert damage_of(killed) is None
        store.set_best(2, 3, {"weights": FileSum(1, "other")})
        store.set_state(2, "done")
        assert damage_of(killed) is None


def spoil(folder: Path, run: int) -> None:
    """Break the array of one run, as it lies in the database file."""
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as db:
        (blob,) = db.execute("SELECT losses FROM evaluation WHERE run_id = ?", (run,)).fetchone()
        value = (blob[:300] + b"\x7f" + blob[301:], run)
        db.execute("UPDATE evaluation SET losses = ? WHERE run_id = ?", value)
        db.commit()


def test_a_backup_that_is_damaged_too_is_not_used(study: Path) -> None:
    flip(study / BACKUP)
    overwrite(study / "study.db")
    done = repair(study)
    assert done is not None
    assert done.backup is None
    assert len(list(study.glob(f"{ADAPTERS}.damaged-1/*"))) == 2  # whatever their runs were
    assert done.kept == "study.db.damaged-1"
    assert "the study begins anew" in done.words()


def test_damage_twice_is_kept_twice(study: Path) -> None:
    for number in (1, 2):
        truncate(study / "study.db")
        done = repair(study)
        assert done is not None
        assert done.kept == f"study.db.damaged-{number}"
    assert len(list(study.glob("study.db.damaged-?"))) == 2


def test_every_reading_command_says_what_repairs_and_repair_does_it(study: Path) -> None:
    truncate(study / "study.db")
    for words in (("status",), ("report",), ("compare", "a", "b"), ("export", "a", "--to", "x")):
        code, _, said = rankwise(words[0], study, *words[1:])
        assert code == 1
        assert "study.db: is damaged: its checksum" in said
        assert "`rankwise repair DIR` repairs it" in said
    code, out, _ = rankwise("repair", study)
    assert code == 0
    assert "kept as study.db.damaged-1: 2 runs from the backup of 20" in out
    assert rankwise("status", study)[0] == 0
    assert "nothing is damaged" in rankwise("repair", study)[1]
    assert rankwise("repair", study.parent)[0] == 2


def test_a_cohort_that_ends_is_in_the_backup(study: Path) -> None:
    with Store(study) as store:
        store.take_lock()
        add_run(store, "c")
        store.back_up()
        with contextlib.closing(open_read_only(study / BACKUP)) as db:
            assert db.execute("SELECT count(*) FROM run").fetchone() == (3,)
        assert not is_sealed(study)
    assert is_sealed(study)


def test_reading_a_study_changes_no_byte_of_it(make_study: MakeStudy) -> None:
    folder = make_study()
    before = (folder / "study.db").read_bytes()
    assert is_sealed(folder)
    assert rankwise("status", folder)[0] == 0
    assert (folder / "study.db").read_bytes() == before
    assert is_sealed(folder)


def test_tables_that_are_not_those_of_the_version_are_damage(study: Path) -> None:
    with Store(study) as store:
        store.add_fact("text", about="x", text="y")  # no lock, so no checksum from here on
    with contextlib.closing(sqlite3.connect(study / "study.db")) as db:
        db.execute("PRAGMA user_version=2")
    assert damage_of(study) == "its tables are not those of its version"
    with pytest.raises(StoreError):
        Reader(study)
    done = repair(study)
    assert done is not None
    assert done.from_backup == 2
