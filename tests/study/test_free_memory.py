"""Memory: limits of the process count as well, too little of it is a message, none is kept."""

import resource
from pathlib import Path

import psutil
import pytest
import torch

from black_box import make_study, rankwise
from rankwise.errors import is_shortage
from rankwise.study import free_memory, space

CPU = torch.device("cpu")
GROUP = "job/step"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of control groups without any limit, on a machine with 8 GB free."""
    monkeypatch.setattr(free_memory, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(free_memory, "MEMBERSHIPS", tmp_path / "cgroup")
    free = psutil.virtual_memory()._replace(available=8_000_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    return tmp_path


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_without_limits_what_the_machine_has_free_counts(machine: Path) -> None:
    assert free_memory.free_bytes(CPU) == 8_000_000_000
    (machine / "cgroup").write_text(f"0::/{GROUP}\n")
    assert free_memory.free_bytes(CPU) == 8_000_000_000  # groups of another namespace
    group(machine / "groups" / GROUP, memory__max="max", memory__current=1, memory__stat="")
    assert free_memory.free_bytes(CPU) == 8_000_000_000


def test_the_limit_of_a_control_group_above_counts_and_cached_files_are_free(machine: Path) -> None:
    (machine / "cgroup").write_text(f"0::/{GROUP}\n")
    stat = "anon 100\ninactive_file 500000000"
    group(machine / "groups" / GROUP, memory__max="max", memory__current=1, memory__stat=stat)
    above = machine / "groups" / "job"
    group(above, memory__max=3 * 10**9, memory__current=2 * 10**9, memory__stat=stat)
    assert free_memory.free_bytes(CPU) == 1_500_000_000


def test_the_limit_of_a_control_group_of_version_1_counts(machine: Path) -> None:
    (machine / "cgroup").write_text(f"5:cpu:/other\n4:memory:/{GROUP}\n")
    files = {
        "memory__limit_in_bytes": 10**9,
        "memory__usage_in_bytes": 4 * 10**8,
        "memory__stat": "total_inactive_file 0",
    }
    group(machine / "groups" / "memory" / GROUP, **files)
    group(machine / "groups" / "memory", **{**files, "memory__limit_in_bytes": 2**63 - 4096})
    assert free_memory.free_bytes(CPU) == 600_000_000


def test_a_limit_on_the_address_space_counts(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = psutil.Process().memory_info().vms
    limits = {resource.RLIMIT_AS: used + 2 * 10**9}
    infinite = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits.get(kind, infinite), infinite))
    assert free_memory.free_bytes(CPU) == pytest.approx(2 * 10**9, abs=2 * 10**8)


def test_a_base_that_does_not_fit_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path)
    monkeypatch.setattr(space, "free_bytes", lambda _: 1000)
    monkeypatch.setattr("rankwise.train.prepare.load_base", None)
    for more in ((), ("--dry-run",)):
        code, _, said = rankwise("run", study.spec, "--out", study.out, *more)
        assert code == 2
        assert "model.name: the weights of" in said
        assert "1000 B of memory are free for this process on cpu" in said


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Cannot allocate memory (os error 12)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
)
def test_too_little_memory_anywhere_is_a_message(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    study = make_study(tmp_path)
    monkeypatch.setattr("rankwise.study.plan.plan_study", fail)
    code, _, said = rankwise("plan", study.spec)
    assert code == 1
    assert said.startswith("rankwise: out of memory (")
    assert "hardware.memory_gb" in said


@pytest.mark.parametrize(
    "error",
    [RuntimeError("could not create a primitive descriptor for a matmul"), ValueError("no"),
     ImportError("No module named x"), FileNotFoundError("cannot allocate")],
)  # fmt: skip
def test_other_errors_are_not_taken_for_too_little_memory(error: Exception) -> None:
    assert not is_shortage(error)
