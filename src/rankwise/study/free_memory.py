"""Memory that is still free here: of the device, and within the limits set to this process."""

import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil
import torch

if sys.platform != "win32":
    import resource

MEMBERSHIPS = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60  # cgroup v1 writes a number beyond this where there is no limit


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device, in bytes.

    On the CPU the least of what the machine has free and what this process may still take:
    `ulimit -v`, `ulimit -d`, and the limits of its control groups, which containers and batch
    systems set.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free: list[int] = [psutil.virtual_memory().available, *_process_limits()]
    if MEMBERSHIPS.exists():
        free += _group_limits(MEMBERSHIPS.read_text(), CGROUPS)
    return max(0, min(free))


def _process_limits() -> Iterator[int]:
    """What is left of the limits of this process's address space and data."""
    if sys.platform == "win32":
        return
    used = psutil.Process().memory_info()
    for limit, taken in (
        (resource.RLIMIT_AS, used.vms),
        (resource.RLIMIT_DATA, getattr(used, "data", 0)),
    ):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            yield most - taken


def _group_limits(memberships: str, root: Path) -> Iterator[int]:
    """What is left of the limits of control groups, from this process's group up to the root.

    Args:
        memberships: The text of /proc/self/cgroup.
        root: Where control groups are mounted.
    """
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            names = ("memory.max", "memory.current", "inactive_file")
            mounted = root
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            mounted = root / "memory"
        else:
            continue
        inner = PurePosixPath(path.lstrip("/"))
        for group in (inner, *inner.parents):
            yield from _left_in(mounted / group, *names)


def _left_in(group: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    """What is left of one group's limit; pages of files that can be dropped count as free."""
    try:
        most = (group / limit).read_text().strip()
        used = int((group / usage).read_text())
        statistics = (group / "memory.stat").read_text().splitlines()
    except OSError:  # the group of another namespace, or the root, which has no limit
        return
    if most == "max" or int(most) > UNLIMITED:
        return
    droppable = dict(line.split() for line in statistics).get(reclaimable, "0")
    yield int(most) - used + int(droppable)
