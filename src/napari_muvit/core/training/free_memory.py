"""How much memory is free: on the CPU within the limits of a container or a job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows the limits of groups of processes."""
OWN_GROUPS = Path("/proc/self/cgroup")
"""In which groups this process is."""


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that a training may still take on a device.

    On a CPU the least of what the machine has left and what the limits of its control
    groups (containers, cluster jobs) leave; on a GPU what its driver calls free and
    what torch holds without using it.

    Parameters
    ----------
    device
        ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; it has to be there.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    machine: int = min([psutil.virtual_memory().available, *_left_in_groups()])
    if device.type == "mps":
        # One memory for both; the driver gives a part of it to the GPU.
        part = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(0, min(int(part), machine))
    return machine


@dataclass(frozen=True, slots=True)
class _Files:
    """Names of what the two versions of control groups say."""

    limit: str
    used: str
    cache: str
    """Of the line of ``memory.stat`` that counts pages of files, which can be freed."""


_VERSION_1 = _Files(
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)
_VERSION_2 = _Files("memory.max", "memory.current", "inactive_file")


def _left_in_groups(root: Path = CGROUPS, listing: Path = OWN_GROUPS) -> list[int]:
    """Bytes that each limit leaves, of the process's groups and those above them."""
    found = []
    for folder, files in _group_folders(root, listing):
        limit, used = _number(folder / files.limit), _number(folder / files.used)
        if limit is None or used is None:
            continue
        cache = _statistic(folder / "memory.stat", files.cache)
        found.append(max(0, limit - max(0, used - cache)))
    return found


def _group_folders(root: Path, listing: Path) -> Iterator[tuple[Path, _Files]]:
    """Folders of the process's memory groups, from its own one to the top."""
    try:
        lines = listing.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top, files = root, _VERSION_2
        elif "memory" in controllers.split(","):
            top, files = root / "memory", _VERSION_1
        else:
            continue
        # In a container the path may be that outside of it; the top is there always.
        parts = [p for p in path.split("/") if p not in ("", "..")]
        for count in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:count]), files


def _number(path: Path) -> int | None:
    """What a file holds; None for ``max``, and where there is none."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _statistic(path: Path, name: str) -> int:
    """A line of a file of ``name number`` lines; 0 where it is missing."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return 0
