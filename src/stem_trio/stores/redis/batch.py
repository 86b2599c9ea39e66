"""Calls of one script that are made at the same time, as one.

The commands of one scheduler tick leave in one write anyhow. Here they are also one command: a hundred tasks that
enqueue at once cost the server one script call. It is put together when it is about to be sent, so nobody waits for it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, final

import trio

from .errors import ConnectionLostError, NoScriptError, ReplyError, translate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .connection import Argument, Connection
    from .script import Script
    from .transport import RedisTransport

__all__ = ["ScriptCalls"]


@final
class ScriptCalls:
    """A script that takes any number of items, and returns a result for each.

    Args:
        script: the script.
        transport: where to.
        keys: keys of every call, before those of the items.
        args: arguments of every call, before those of the items.
        limit: items that one script call takes at most; a caller's own items stay together all the same.
    """

    def __init__(
        self,
        script: Script,
        transport: RedisTransport,
        keys: Sequence[str] = (),
        args: Sequence[Argument] = (),
        *,
        limit: int,
    ) -> None:
        self.script = script
        self.keys = keys
        self.args = args
        self._transport = transport
        self._limit = limit
        self._open: _Batch | None = None

    async def call(self, keys: Sequence[str], args: Sequence[Argument], count: int, size: int = 0) -> list[Any]:
        """Have items handled.

        Args:
            keys: their keys.
            args: their arguments.
            count: how many items these are.
            size: about how many bytes.

        Returns:
            One result for each.

        Cancellation: they are handled or not; what was not sent yet never is.

        Raises:
            StoreError: see `RedisTransport.pipeline`.
        """
        reply: Any = None
        again, sent = True, False
        began = trio.current_time()
        connection = self._transport.ready
        if connection is not None:
            # The way of nearly all calls, with no detours. Parking is the checkpoint, and who is cancelled leaves.
            call = self._add(connection, keys, args, count, size)
            if call.error is None:
                await trio.lowlevel.wait_task_rescheduled(call.abort)
            reply = call.reply
            if call.error is not None:
                self._transport.lost(connection, call.error, repeatable=True)
                sent = call.error.sent
            else:
                again = self._transport.goes_elsewhere(connection, [reply], repeatable=True)
        if again:
            send = partial(self._send, keys, args, count, size)
            [reply] = await self._transport.exchange(send, repeatable=True, began=began, sent=sent)
        if isinstance(reply, ReplyError):
            raise translate(reply) from reply
        items: list[Any] = reply
        return items

    def _add(
        self, connection: Connection, keys: Sequence[str], args: Sequence[Argument], count: int, size: int
    ) -> _Call:
        """Join the batch that is about to leave."""
        batch = self._open
        if batch is None or batch.sent or batch.connection is not connection or batch.count + count > self._limit:
            batch = self._open = _Batch(self, connection)
            connection.submit_late(batch)
        connection.expect(size)
        return _Call(batch, keys, args, count)

    async def _send(
        self, keys: Sequence[str], args: Sequence[Argument], count: int, size: int, connection: Connection
    ) -> list[Any]:
        call = self._add(connection, keys, args, count, size)
        if call.error is None:
            await trio.lowlevel.wait_task_rescheduled(call.abort)
        if call.error is not None:
            raise ConnectionLostError(str(call.error), sent=call.error.sent)
        return [call.reply]


@final
class _Call:
    """What one caller adds to a batch, and is told of it. The caller parks itself, and is woken when it has ended."""

    __slots__ = ("_batch", "_task", "args", "count", "error", "keys", "reply")

    def __init__(self, batch: _Batch, keys: Sequence[str], args: Sequence[Argument], count: int) -> None:
        self._batch = batch
        self._task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        self.keys = keys
        self.args = args
        self.count = count
        self.error = batch.error
        self.reply: Any = None
        batch.calls.append(self)
        batch.count += count

    def abort(self, _: object) -> trio.lowlevel.Abort:
        """The caller is cancelled: leave the batch, if that has not left itself."""
        self._task = None
        self._batch.leave(self)
        return trio.lowlevel.Abort.SUCCEEDED

    def end(self, reply: Any, error: ConnectionLostError | None = None) -> None:
        """The reply has come, or never will."""
        task, self._task = self._task, None
        if task is not None:
            self.reply, self.error = reply, error
            trio.lowlevel.reschedule(task)


@final
class _Batch:
    """One script call, made of those that come until it is sent. A `LateCommand`."""

    __slots__ = ("_kind", "_repeated", "calls", "connection", "count", "error", "sent")

    def __init__(self, kind: ScriptCalls, connection: Connection) -> None:
        self._kind = kind
        self._repeated = False
        self.connection = connection
        self.calls: list[_Call] = []
        self.count = 0
        self.sent = False
        self.error: ConnectionLostError | None = None

    def pack(self) -> bytes:
        """The command; also when all who wanted it have left, since a reply is expected."""
        self.sent = True
        return self._kind.script.pack(*self._contents())

    def _contents(self) -> tuple[list[str], list[Argument]]:
        keys, args = [*self._kind.keys], [*self._kind.args]
        for call in self.calls:
            keys += call.keys
            args += call.args
        return keys, args

    def put(self, value: Any) -> None:
        """The results have come."""
        if isinstance(value, NoScriptError) and not self._repeated:
            self._repeated = True
            self.connection.submit([self._kind.script.pack_source(*self._contents())], self)
            return
        if isinstance(value, ReplyError):
            for call in self.calls:
                call.end(value)
            return
        first = 0
        for call in self.calls:
            call.end(value[first : first + call.count])
            first += call.count

    def fail(self, error: ConnectionLostError) -> None:
        """The connection has gone; maybe before anybody has joined."""
        self.error = error
        for call in self.calls:
            call.end(None, error)

    def leave(self, call: _Call) -> None:
        """One of the callers was cancelled."""
        if not self.sent:
            self.calls.remove(call)
            self.count -= call.count
