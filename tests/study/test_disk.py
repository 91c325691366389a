"""Adapters and files on disk: lost, damaged, dropped by choice, without room, read-only."""

import dataclasses
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from black_box import Study, make_study, rankwise
from rankwise.errors import DiskFullError
from rankwise.files import whole_folder, write_whole
from rankwise.spec.load import load_spec
from rankwise.store.reader import ADAPTERS, Reader
from rankwise.store.writer import Store
from rankwise.study import keep, space
from rankwise.study.plan import StudyPlan, plan_study
from stored import labels, with_one_run

WEIGHTS = "adapter_model.safetensors"
TWO = {"good": {}, "bad": {"training.learning_rate": 1e-6}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two configurations, of which one hardly learns."""
    return make_study(tmp_path_factory.mktemp("disk"), configurations=TWO, seeds=[0, 1]).run()


@pytest.fixture
def study(trained: Study, tmp_path: Path) -> Study:
    out = shutil.copytree(trained.out, tmp_path / "out", symlinks=True)
    return Study(trained.spec, out, trained.model, trained.task)


def folder_of(study: Study, run: str) -> Path:
    with Reader(study.out) as store:
        return study.out / ADAPTERS / store.run(labels(store)[run]).folder


def test_others_may_read_the_weights(trained: Study) -> None:
    files = [path for path in (trained.out / ADAPTERS).glob("run-*/*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask()}


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def losses(study: Study) -> list[tuple[str, ...]]:
    """What runs.csv says of each run, without times and memory."""
    return [
        tuple(v for k, v in row.items() if "seconds" not in k and "memory" not in k)
        for row in study.runs().values()
    ]


def test_a_lost_or_damaged_adapter_is_refused_by_export_and_trained_again(study: Study) -> None:
    before, weights = losses(study), study.weights("bad", 1)
    lost, cut = folder_of(study, "good/seed-0"), folder_of(study, "good/seed-1") / WEIGHTS
    flipped = folder_of(study, "bad/seed-0") / WEIGHTS
    shutil.rmtree(lost)
    cut.write_bytes(cut.read_bytes()[:-100])
    whole = bytearray(flipped.read_bytes())
    whole[-3] ^= 1
    flipped.write_bytes(whole)
    for config, seed, why in (
        ("good", 0, "is missing"), ("good", 1, "bytes"), ("bad", 0, "checksum differs"),
    ):  # fmt: skip
        for more in ((), ("--merged",)):
            to = study.out / "exported"
            code, _, said = rankwise("export", study.out, config, "--seed", seed, "--to", to, *more)
            assert code == 2
            assert f"the adapter of {config}/seed-{seed} is damaged: " in said
            assert why in said
            assert "`rankwise run SPEC` trains this run again" in said
            assert not to.exists()
    code, _, said = rankwise("run", study.spec, "--out", study.out)
    assert code == 0
    assert said.count("is trained again for its adapter: ") == 3
    assert losses(study) == before
    for config, seed in (("good", 0), ("good", 1), ("bad", 0)):
        to = study.out / f"{config}-{seed}"
        assert rankwise("export", study.out, config, "--seed", seed, "--to", to)[0] == 0
    assert all((study.weights("bad", 1)[name] == one).all() for name, one in weights.items())


def test_an_adapter_of_an_older_study_is_checked_by_its_lengths(study: Study) -> None:
    with Store(study.out) as store, store._writing() as db:
        db.execute("DELETE FROM adapter_file")
    cut = folder_of(study, "good/seed-0") / WEIGHTS
    cut.write_bytes(cut.read_bytes()[:-100])
    to = study.out / "exported"
    assert rankwise("export", study.out, "good", "--seed", 1, "--to", to)[0] == 0
    code, _, said = rankwise("export", study.out, "good", "--seed", 0, "--to", to / "x", "--merged")
    assert code == 2
    assert f"is damaged: {WEIGHTS}: " in said


def test_only_the_chosen_adapters_stay_and_come_back_only_when_asked_for(study: Study) -> None:
    kept = ("--set", "keep_adapters=best")
    code, _, said = rankwise("run", study.spec, "--out", study.out, *kept)
    assert code == 0
    assert "keep_adapters: best has dropped 2 adapters" in said
    best = rankwise("status", study.out)[1].split("\nUse ")[1].split(":")[0].split(",")[0]
    (other,) = {"good", "bad"} - {best}
    assert {path.name for path in (study.out / ADAPTERS).iterdir()} == {
        best, folder_of(study, f"{best}/seed-0").name, folder_of(study, f"{best}/seed-1").name
    }  # fmt: skip
    before = losses(study)
    code, _, said = rankwise("export", study.out, other, "--to", study.out / "x")
    assert code == 2
    assert "its adapter was dropped by keep_adapters: best; `rankwise run SPEC" in said
    code, _, said = rankwise("run", study.spec, "--out", study.out)  # all of them, by default
    assert code == 0
    assert "again for its adapter" not in said
    assert "2 adapters that keep_adapters: all keeps were dropped before; `rankwise run" in said
    assert not folder_of(study, f"{other}/seed-0").exists()
    code, _, said = rankwise("run", study.spec, "--out", study.out, "--train-dropped")
    assert code == 0
    assert said.count("was dropped by keep_adapters: best, and is needed now") == 2
    assert losses(study) == before
    assert study.weights(other, 1)


def test_nothing_is_dropped_before_every_run_is_done(study: Study) -> None:
    with Store(study.out) as store:
        store.set_state(labels(store)["bad/seed-1"], "diverged")
        store.set_state(labels(store)["good/seed-1"], "crashed")
        plan = _plan(study, "best")
        (said,) = keep.drop_adapters(plan, store)
        assert said == "keep_adapters: best has dropped no adapter yet: 1 run not done"
    assert len(list((study.out / ADAPTERS).glob("run-*"))) == 4


def test_tied_keeps_every_adapter_that_could_be_the_best(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(study.out) as store:
        plan = _plan(study, "tied")
        found = keep.judge_records(keep.read_records(store))
        for group, dropped in ((("good", "bad"), 0), ((found.choice.arm,), 2)):
            verdict = dataclasses.replace(found.verdict, tie_group=group)
            judged = dataclasses.replace(found, verdict=verdict)
            monkeypatch.setattr(keep, "judge_records", lambda _, now=judged: now)
            said = list(keep.drop_adapters(plan, store))
            assert said == (["keep_adapters: tied has dropped 2 adapters"] if dropped else [])
            assert len(list((study.out / ADAPTERS).glob("run-*"))) == 4 - dropped


def _plan(study: Study, choice: str) -> StudyPlan:
    spec = load_spec(study.spec, [f"keep_adapters={choice}"])
    return plan_study(spec, study.spec.parent)


def test_what_will_not_fit_is_refused_before_anything_is_loaded(
    trained: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = _plan(trained, "all")
    needed = space.needed_bytes(plan)
    written = sum(
        path.stat().st_size
        for path in trained.out.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    assert written < needed < 4 * written + space.REST
    assert trained.plan()["disk_bytes"] == needed
    monkeypatch.setattr(space, "free_room", lambda _: needed - 1)
    monkeypatch.setattr("rankwise.train.prepare.load_base", None)
    code, _, said = rankwise("run", trained.spec, "--out", tmp_path / "out")
    assert code == 2
    assert "this study will write about" in said
    assert "make room, or use another --out" in said
    monkeypatch.setattr(space, "free_room", lambda _: needed)
    space.refuse_without_room(plan, plan.runs, tmp_path)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writes past this size fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_whole(tmp_path / "report.html", "before")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "kept").write_text("before")
    with files_of_at_most(10_000):
        with pytest.raises(DiskFullError, match=r"limit on the size .* there\); make room, then"):
            write_whole(tmp_path / "report.html", "x" * 20_000)
        with pytest.raises(DiskFullError), whole_folder(tmp_path / "adapter") as ready:
            save_file({"a": torch.zeros(5000)}, ready / WEIGHTS)
    assert (tmp_path / "report.html").read_text() == "before"
    assert {path.name for path in tmp_path.rglob("*")} == {"report.html", "adapter", "kept"}


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[Path]:
    """A file system of its own; skips where this process may not mount one."""
    folder.mkdir(exist_ok=True)
    command = ["mount", *words, str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this process may not mount file systems")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_message_and_the_same_command_goes_on(
    trained: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "REST", 0)
    monkeypatch.setattr(space, "needed_bytes", lambda *_: 0)
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        out = disk / "out"
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 500_000)
        code, _, said = rankwise("run", trained.spec, "--out", out)
        assert code == 1
        assert "the disk is full" in said.splitlines()[-1]
        assert "make room, then the same command goes on" in said
        with Reader(out) as store:
            assert not {run.state for run in store.runs()} & {"crashed", "diverged"}
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert rankwise("run", trained.spec, "--out", out)[0] == 0
        assert losses(Study(trained.spec, out, trained.model, trained.task)) == losses(trained)


def log_much(folder: Path) -> None:
    with Store(folder, create=True) as store:
        run = with_one_run(store)
        for step in range(20_000):
            store.log(run, step, 1.0, 1.0, 0.1)


def test_a_full_disk_leaves_what_was_committed(tmp_path: Path) -> None:
    with files_of_at_most(700_000), pytest.raises(DiskFullError, match="limit on file sizes"):
        log_much(tmp_path)
    with Store(tmp_path) as store:
        assert store.runs()[0].state == "planned"
        store.set_state(store.runs()[0].id, "running")


def test_a_study_that_cannot_be_written_can_be_read(study: Study, tmp_path: Path) -> None:
    with mounted(tmp_path / "out", "--bind", "-o", "ro", str(study.out)) as out:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(out)], check=True)
        assert rankwise("status", out)[1].startswith("tiny: 4 done")
        assert rankwise("compare", out, "good", "bad")[0] == 0
        assert rankwise("export", out, "best", "--to", tmp_path / "adapter")[0] == 0
        code, _, said = rankwise("export", out, "best", "--to", out / "adapter")
        assert code == 2
        assert "cannot be written, as" in said
        code, _, said = rankwise("report", out)
        assert code == 2
        assert "the report cannot be written there (Read-only file system)" in said
        assert rankwise("report", out, "--out", tmp_path / "report")[0] == 0
        for name in ("report.html", "report.md", "runs.csv"):
            assert (tmp_path / "report" / name).read_bytes() == (study.out / name).read_bytes()
        code, _, said = rankwise("run", study.spec, "--out", out)
        assert code == 2
        assert "cannot be written" in said
        assert "use another --out" in said


def test_what_is_in_the_log_of_a_killed_writer_is_read_without_writing(tmp_path: Path) -> None:
    with Store(tmp_path / "alive", create=True) as store:
        with_one_run(store)
        shutil.copytree(tmp_path / "alive", tmp_path / "dead")
    (tmp_path / "dead" / "study.db-shm").unlink()
    before = {path.name: path.read_bytes() for path in (tmp_path / "dead").iterdir()}
    assert before["study.db-wal"]
    with mounted(tmp_path / "ro", "--bind", "-o", "ro", str(tmp_path / "dead")) as out:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(out)], check=True)
        with Reader(out) as reader:
            assert [run.state for run in reader.runs()] == ["planned"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "dead").iterdir()} == before
