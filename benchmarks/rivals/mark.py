"""A counter that task bodies share with the harness, in a file that is mapped into memory.

Each process has a slot of its own: how many bodies have ended, when the first began and when the last ended, on
CLOCK_MONOTONIC, which all processes of a machine share. To count costs one or two microseconds and no system call, so
it weighs on every contender alike and hardly at all.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple, final

from .settings import MARK

__all__ = ["Count", "begin", "end", "mark", "read", "reset"]

_SLOT: Final = struct.Struct("qqdd")  # process id, bodies ended, begin of the first, end of the last
_OWNER: Final = struct.Struct("q")  # written once: to pack is to write zeros first, and a slot without owner is taken
_COUNT: Final = struct.Struct("qdd")
_SLOTS: Final = 256


class Count(NamedTuple):
    """What all processes have counted; times are seconds of the monotonic clock."""

    done: int
    first: float
    last: float


@final
class _Slot:
    """The slot of this process."""

    def __init__(self) -> None:
        with Path(MARK).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._map = mmap.mmap(file.fileno(), _SLOTS * _SLOT.size)
            for number in range(_SLOTS):
                self._offset = number * _SLOT.size
                if _OWNER.unpack_from(self._map, self._offset)[0] == 0:
                    break
            else:
                raise RuntimeError(f"more than {_SLOTS} processes count")
            _OWNER.pack_into(self._map, self._offset, os.getpid())
            fcntl.flock(file, fcntl.LOCK_UN)  # the map keeps the file, and so the lock, open
        self._lock = threading.Lock()  # bodies may run in threads, and no end may overwrite a later one
        self._done = 0
        self._first = 0.0

    def begin(self) -> None:
        if not self._first:
            self._first = time.monotonic()

    def end(self) -> None:
        with self._lock:
            self._done += 1
            _COUNT.pack_into(self._map, self._offset + _OWNER.size, self._done, self._first, time.monotonic())


_slot: _Slot | None = None
_opening = threading.Lock()


def _mine() -> _Slot:
    global _slot
    with _opening:
        if _slot is None:
            _slot = _Slot()
        return _slot


def _after_fork() -> None:
    global _slot, _opening
    _slot = None
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def begin() -> None:
    """A body begins."""
    (_slot or _mine()).begin()


def end() -> None:
    """A body ends."""
    (_slot or _mine()).end()


def mark() -> None:
    """A body that does nothing else."""
    slot = _slot or _mine()
    slot.begin()
    slot.end()


def reset(path: Path) -> None:
    """Begin to count anew; for the harness, while no worker runs."""
    path.write_bytes(bytes(_SLOTS * _SLOT.size))


def read(path: Path) -> Count:
    """What has been counted so far."""
    slots = [slot for slot in _SLOT.iter_unpack(path.read_bytes()) if slot[1]]
    if not slots:
        return Count(0, 0.0, 0.0)
    return Count(sum(slot[1] for slot in slots), min(slot[2] for slot in slots), max(slot[3] for slot in slots))
