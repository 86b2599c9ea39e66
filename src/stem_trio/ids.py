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
_VARIANT: Final = {f"{digit:x}": f"{8 | digit & 3:x}" for digit in range(16)}
"""The random digit that holds the two bits of the variant, with those bits set."""
_POOL_BYTES: Final = 4096
_DIGITS: Final = 16


@final
class _Sequence:
    """The process's one sequence of UUIDv7: last time part, counter, and random digits fetched ahead."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = 0
        self._head = ""
        self._counter = 0
        self._pool = ""
        self._used = 0

    def reset(self) -> None:
        """Forget the random digits fetched ahead: a forked child must not share them with its parent."""
        self.__init__()

    def next(self) -> str:
        now = time.time_ns() // 1_000_000
        with self._lock:
            if now > self._last_ms:
                self._start(now)
            elif self._counter < _COUNTER_MAX:
                self._counter += 1
            else:
                self._start(self._last_ms + 1)
            if self._used == len(self._pool):
                self._pool = os.urandom(_POOL_BYTES).hex()  # one system call for 512 ids
                self._used = 0
            random = self._pool[self._used : self._used + _DIGITS]
            self._used += _DIGITS
            head, counter = self._head, self._counter
        return f"{head}{counter:03x}-{_VARIANT[random[0]]}{random[1:4]}-{random[4:]}"

    def _start(self, ms: int) -> None:
        self._last_ms = ms
        self._counter = 0
        digits = f"{ms:012x}"
        self._head = f"{digits[:8]}-{digits[8:]}-7"


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
