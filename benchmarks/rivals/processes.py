"""What Linux knows of processes: their descendants, processor time and memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Memory", "cpu_seconds", "descendants", "memory"]

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")


class Memory(NamedTuple):
    """Memory of some processes in MiB; `shared_once` counts pages that they share only once (PSS)."""

    resident: float
    shared_once: float
    processes: int


def _fields(pid: int) -> list[str] | None:
    """What /proc says of a process after its name, which may hold anything; None when it is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def descendants(root: int) -> list[int]:
    """A process and all that come from it."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, ())
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that some processes have used so far; those that are gone count nothing."""
    return sum((int(fields[11]) + int(fields[12])) / _TICKS for pid in pids if (fields := _fields(pid)) is not None)


def memory(pids: Iterable[int]) -> Memory:
    """Memory of some processes; those that are gone count nothing."""
    resident = shared_once = processes = 0
    for pid in pids:
        try:
            lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines[1:])}
        resident += sizes["Rss"]
        shared_once += sizes["Pss"]
        processes += 1
    return Memory(resident / 1024, shared_once / 1024, processes)
