"""Names of keys and channels, and the packed forms in which tasks and statuses are kept.

All keys of a queue share a hash tag, so that a cluster keeps them together and one script may touch them all.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple, final
from urllib.parse import quote

from ..._validate import queue_name
from ...status import TaskStatus

__all__ = ["Keyspace", "State", "pack_status", "status_lifetime", "unpack_state", "unpack_status"]

_STATE: Final = struct.Struct("<ddIIII")
_PARTS: Final = (
    "ready",
    "delayed",
    "leased",
    "dead",
    "messages",
    "states",
    "letters",
    "revoked",
    "sequence",
    "wake",
    "alarm",
    "served",
)


class State(NamedTuple):
    """What changes while a task lives, as scripts keep it. `lease` is in milliseconds."""

    rank: float
    token: float
    attempt: int
    deliveries: int
    strikes: int
    lease: int


def unpack_state(packed: bytes) -> State:
    """The numbers of a task."""
    return State(*_STATE.unpack(packed))


_VERSION_DIGITS: Final = 16
_LONGEST_TTL: Final = 100 * 365 * 86_400.0


_VERSIONS: Final = tuple(b"%016d" % version for version in range(64))
"""Those of nearly all statuses, written once."""


def pack_status(status: TaskStatus) -> bytes:
    """A status as it is kept: its version in 16 digits, which compare as text, then its JSON."""
    version = status.version
    return (_VERSIONS[version] if version < len(_VERSIONS) else b"%016d" % version) + status.encode()


def unpack_status(packed: bytes) -> TaskStatus:
    """A status that was kept."""
    return TaskStatus.decode(packed[_VERSION_DIGITS:])


def status_lifetime(status: TaskStatus) -> int:
    """Milliseconds for which a status is kept, at most a hundred years of them."""
    # The retention comes with the task, from whoever wrote it; the server refuses what is too long for it.
    return max(1, round(min(status.ttl, _LONGEST_TTL) * 1000))


@final
class Keyspace:
    """The names under one prefix.

    Args:
        prefix: what all names begin with.

    Raises:
        InvalidOptionError: the prefix is empty or not printable.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix: Final = quote(queue_name("prefix", prefix), safe=" :/.@-_")
        self.queue_keys = lru_cache(maxsize=1024)(self._queue_keys)

    def _queue_keys(self, queue: str) -> tuple[str, ...]:
        # Braces would end the hash tag early; everything else may stand in a key as it is.
        tag = queue.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
        return tuple(f"{self.prefix}:{{{tag}}}:{part}" for part in _PARTS)

    def wake(self, queue: str) -> str:
        """The list that waiting workers of a queue block on."""
        return self.queue_keys(queue)[9]

    def revoked(self, queue: str) -> str:
        """The hash of the reasons for which tasks of a queue are revoked."""
        return self.queue_keys(queue)[7]

    def status(self, task_id: str) -> str:
        """The key of a task's status, and the channel on which it is told."""
        return f"{self.prefix}:status:{task_id}"

    def channel(self, name: str) -> str:
        """The channel of a broadcast."""
        return f"{self.prefix}:broadcast:{name}"

    @property
    def heartbeats(self) -> str:
        """The hash of workers' heartbeats."""
        return f"{self.prefix}:heartbeats"

    @property
    def heartbeat_ends(self) -> str:
        """The sorted set of when heartbeats end."""
        return f"{self.prefix}:heartbeats:ends"
