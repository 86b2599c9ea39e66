"""The result backend on Redis."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import trio

from ..._validate import duration
from ...abc import ResultBackend
from ...status import TaskStatus, WorkerHeartbeat
from .address import RedisAddress, parse_address
from .batch import ScriptCalls
from .connection import pack
from .errors import ReplyError, translate
from .keys import pack_status, status_lifetime, unpack_status
from .script import CHUNK, load_script
from .store import DEFAULT_PREFIX, RedisStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta
    from typing import Self

    from redis.credentials import CredentialProvider

    from ...abc import StatusWatch
    from .address import Tls
    from .connection import Argument
    from .pubsub import Inbox

__all__ = ["RedisResultBackend"]

_REREAD: Final = 10.0
"""Seconds after which a watch reads the status itself, in case that it was told of it in vain."""

_RECORD: Final = load_script("record", "status")
_decode_heartbeat: Final = msgspec.json.Decoder(WorkerHeartbeat).decode
_encode_heartbeat: Final = msgspec.json.Encoder().encode


@final
class RedisResultBackend(RedisStore, ResultBackend):
    """A result backend on one Redis (6.2 or later) or Valkey server. Made by `connect`.

    Args:
        address: where the server is.
        prefix: what the names of all keys begin with.
        command_timeout: seconds for which a command waits for a connection, or for an answer.
        connect_timeout: seconds that one attempt to connect may take.

    Raises:
        InvalidOptionError: an option is out of its range.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        prefix: str = DEFAULT_PREFIX,
        command_timeout: float | timedelta = 10.0,
        connect_timeout: float | timedelta = 5.0,
    ) -> None:
        super().__init__(
            address,
            prefix=prefix,
            command_timeout=duration("command_timeout", command_timeout, positive=True),
            connect_timeout=duration("connect_timeout", connect_timeout, positive=True),
        )
        self._recorder: ScriptCalls | None = None

    def _forget(self) -> None:
        self._recorder = None

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        db: int | None = None,
        credentials: CredentialProvider | None = None,
        tls: Tls | None = None,
        **options: Any,
    ) -> Self:
        """A result backend on the server that a URL names; it connects when it is entered. As `RedisBroker.connect`."""
        return cls(parse_address(url, db=db, credentials=credentials, tls=tls), **options)

    async def record(self, statuses: Sequence[TaskStatus]) -> list[bool]:
        """See `ResultBackend.record`. One round trip for each 500 statuses."""
        if not statuses:
            await trio.lowlevel.checkpoint()
            return []
        if self._recorder is None:
            self._recorder = ScriptCalls(_RECORD, self._transport, limit=CHUNK)
        result: list[bool] = []
        for first in range(0, len(statuses), CHUNK):
            keys: list[str] = []
            args: list[Argument] = []
            size = 0
            for status in statuses[first : first + CHUNK]:
                value = pack_status(status)
                size += len(value)
                keys.append(self.keyspace.status(status.id))
                args += (value, status_lifetime(status))
            result += [written == 1 for written in await self._recorder.call(keys, args, len(keys), size)]
        return result

    async def get(self, task_id: str) -> TaskStatus | None:
        """See `ResultBackend.get`."""
        stored = await self._transport.call("GET", self.keyspace.status(task_id), repeatable=True)
        return None if stored is None else unpack_status(stored)

    def watch(self, task_id: str) -> AbstractAsyncContextManager[StatusWatch]:
        """See `ResultBackend.watch`. Told by the server; read again every ten seconds, and after each reconnection."""
        return self._watch(task_id)

    @asynccontextmanager
    async def _watch(self, task_id: str) -> AsyncGenerator[StatusWatch, None]:
        pubsub = await self._pubsub()
        async with pubsub.subscribe(self.keyspace.status(task_id)) as inbox:
            yield _Watch(self, inbox, task_id)

    # --- heartbeats -----------------------------------------------------------------------------------------------

    async def put_heartbeat(self, heartbeat: WorkerHeartbeat, *, ttl: float) -> None:
        """See `ResultBackend.put_heartbeat`."""
        ends, beats = self.keyspace.heartbeat_ends, self.keyspace.heartbeats
        until = await self._now() + ttl
        await self._transaction(
            ("ZADD", ends, until, heartbeat.worker),
            ("HSET", beats, heartbeat.worker, _encode_heartbeat(heartbeat)),
        )

    async def remove_heartbeat(self, worker: str) -> None:
        """See `ResultBackend.remove_heartbeat`."""
        await self._transaction(
            ("ZREM", self.keyspace.heartbeat_ends, worker), ("HDEL", self.keyspace.heartbeats, worker)
        )

    async def list_heartbeats(self) -> list[WorkerHeartbeat]:
        """See `ResultBackend.list_heartbeats`. Forgets those that have ended."""
        now = await self._now()
        ends, beats = self.keyspace.heartbeat_ends, self.keyspace.heartbeats
        over = await self._transport.call("ZRANGEBYSCORE", ends, "-inf", now, repeatable=True)
        if over:
            await self._transaction(("ZREM", ends, *over), ("HDEL", beats, *over))
        workers = await self._transport.call("ZRANGE", ends, 0, -1, repeatable=True)
        if not workers:
            return []
        found = await self._transport.call("HMGET", beats, *workers, repeatable=True)
        return sorted((_decode_heartbeat(data) for data in found if data), key=lambda beat: beat.worker)

    async def _now(self) -> float:
        seconds, micro = await self._transport.call("TIME", repeatable=True)
        return int(seconds) + int(micro) / 1_000_000

    async def _transaction(self, *commands: tuple[Argument, ...]) -> None:
        packed = [pack(("MULTI",)), *(pack(command) for command in commands), pack(("EXEC",))]
        for reply in await self._transport.pipeline(packed, repeatable=True):
            if isinstance(reply, ReplyError):
                raise translate(reply) from reply


@final
class _Watch:
    """The changes of one status."""

    def __init__(self, backend: RedisResultBackend, inbox: Inbox, task_id: str) -> None:
        self._backend = backend
        self._inbox = inbox
        self._task_id = task_id
        self._gaps = inbox.gaps
        self._version = -1

    async def changed(self) -> TaskStatus:
        """See `StatusWatch.changed`."""
        # The checkpoint comes first: after a status is taken, nothing may be cancelled.
        await trio.lowlevel.checkpoint()
        while True:
            newest: bytes | None = None
            while (message := self._inbox.take()) is not None:
                newest = message
            if newest is not None:
                status = unpack_status(newest)
                self._version = status.version
                return status
            with trio.move_on_after(_REREAD) as scope:
                await self._inbox.wait_changed()
            if scope.cancelled_caught or self._inbox.gaps != self._gaps:
                self._gaps = self._inbox.gaps
                found = await self._backend.get(self._task_id)
                if found is not None and found.version > self._version:
                    self._version = found.version
                    return found
