"""Names of keys and channels, and the packed numbers of a task.

All keys of a queue share a hash tag, so that a cluster keeps them together and one script may touch them all.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple, final
from urllib.parse import quote

from ..._validate import queue_name

__all__ = ["Keyspace", "State", "unpack_state"]

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

    def status(self, task_id: str) -> str:
        """The key of a task's status."""
        return f"{self.prefix}:status:{task_id}"

    @property
    def status_channels(self) -> str:
        """What the channels begin with on which statuses are told."""
        return f"{self.prefix}:status:"

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
