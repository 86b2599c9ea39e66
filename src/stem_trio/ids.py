"""Identifiers: UUIDv7 for tasks, and one that is new for each incarnation of a worker."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from typing import Final, final

__all__ = ["new_task_id", "new_worker_id"]

_COUNTER_MAX: Final = (1 << 12) - 1
_VARIANT: Final = 0x8000_0000_0000_0000
_RANDOM_MASK: Final = (1 << 62) - 1
_POOL_BYTES: Final = 4096


@final
class _Sequence:
    """The process's one sequence of UUIDv7: last time part, counter, and random bytes fetched ahead."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = 0
        self._counter = 0
        self._pool = b""
        self._used = 0

    def reset(self) -> None:
        """Forget the random bytes fetched ahead: a forked child must not share them with its parent."""
        self.__init__()

    def next(self) -> str:
        now = time.time_ns() // 1_000_000
        with self._lock:
            if now > self._last_ms:
                self._last_ms = now
                self._counter = 0
            elif self._counter < _COUNTER_MAX:
                self._counter += 1
            else:
                self._last_ms += 1
                self._counter = 0
            if self._used == len(self._pool):
                self._pool = os.urandom(_POOL_BYTES)  # one system call for 512 ids
                self._used = 0
            random = int.from_bytes(self._pool[self._used : self._used + 8]) & _RANDOM_MASK
            self._used += 8
            head, counter = f"{self._last_ms:012x}", self._counter
        tail = f"{_VARIANT | random:016x}"
        return f"{head[:8]}-{head[8:]}-7{counter:03x}-{tail[:4]}-{tail[4:]}"


_sequence = _Sequence()
if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows only
    os.register_at_fork(after_in_child=_sequence.reset)


def new_task_id() -> str:
    """A UUID version 7 (RFC 9562), strictly increasing within the process.

    Of the 74 bits that the RFC leaves free, 12 count the ids of one millisecond (method 1 of section 6.2) and 62 are
    random. When the counter is used up, or the machine's clock steps back, the time part is carried on from the last
    id, so that order holds. Ids carry the machine's real time even under a fake clock: they must stay unique.
    """
    return _sequence.next()


def new_worker_id(name: str | None = None) -> str:
    """An id for one incarnation of a worker: ``name-pid-random``; the name defaults to the host's.

    The random part keeps containers apart in which every process is number 1, and a restarted worker apart from
    what it was before.
    """
    return f"{name or socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
