"""The bare floor: what any worker on trio with hiredis and streams must do, and not a thing more.

No retries, leases, statuses, signals, reconnects or errors: not a product, but the mark to measure the runtime against.
Reads are one XREADGROUP for all free slots; everything that ended since the last write is settled in one write.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, final
from urllib.parse import urlsplit

import hiredis
import msgspec
import trio

__all__ = ["GROUP", "STREAM", "Wire", "prepare", "work"]

STREAM: Final = "floor:stream"
GROUP: Final = "floor"
_KEEP: Final = 86_400_000
"""Milliseconds for which results are kept."""
_PENDING: Final = object()

Command = tuple[Any, ...]


@final
class _Replies:
    """The replies to the commands that one caller sent together."""

    __slots__ = ("_complete", "_expected", "values")

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._complete = trio.Event()
        self.values: list[Any] = []

    def add(self, value: Any) -> bool:
        self.values.append(value)
        if len(self.values) < self._expected:
            return False
        self._complete.set()
        return True

    async def wait(self) -> list[Any]:
        await self._complete.wait()
        for value in self.values:
            if isinstance(value, hiredis.ReplyError):
                raise value
        return self.values


@final
class Wire:
    """One connection that many tasks share: what gathers within a tick of the scheduler goes out in one write."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._out: list[bytes] = []
        self._waiting: deque[_Replies] = deque()
        self._written = trio.Event()

    @classmethod
    async def open(cls, nursery: trio.Nursery, url: str) -> Wire:
        """Connect; the two halves run in the nursery."""
        stream = await connect(url)
        wire = cls(stream)
        nursery.start_soon(wire._write)
        nursery.start_soon(wire._read)
        database = urlsplit(url).path.strip("/")
        if database not in {"", "0"}:
            await wire.call("SELECT", database)
        return wire

    async def call(self, *command: Any) -> Any:
        """One command."""
        return (await self.send([command]))[0]

    async def send(self, commands: Iterable[Command]) -> list[Any]:
        """Several commands."""
        packed = [hiredis.pack_command(command) for command in commands]
        replies = _Replies(len(packed))
        self._waiting.append(replies)
        self._out += packed
        self._written.set()
        return await replies.wait()

    async def _write(self) -> None:
        while True:
            await self._written.wait()
            self._written = trio.Event()
            out, self._out = self._out, []
            await self._stream.send_all(b"".join(out))

    async def _read(self) -> None:
        reader = hiredis.Reader(notEnoughData=_PENDING)
        while data := await self._stream.receive_some(131_072):
            reader.feed(bytes(data))
            while (value := reader.gets()) is not _PENDING:
                if self._waiting[0].add(value):
                    self._waiting.popleft()
        raise ConnectionError("the server closed the connection")


async def connect(url: str) -> trio.SocketStream:
    """A connection to the server of a URL, which has no password here."""
    parts = urlsplit(url)
    return await trio.open_tcp_stream(parts.hostname or "127.0.0.1", parts.port or 6379)


async def prepare(wire: Wire) -> None:
    """See to it that the stream and its group are there."""
    try:
        await wire.call("XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM")
    except hiredis.ReplyError as error:
        if "BUSYGROUP" not in str(error):
            raise


async def work(url: str, functions: Mapping[str, Callable[[int], Awaitable[object]]], concurrency: int) -> None:
    """Run tasks for ever."""
    decode = msgspec.json.Decoder().decode
    encode = msgspec.json.Encoder().encode
    slots = concurrency
    freed = trio.Event()
    ended: list[tuple[bytes, str, bytes, str | None]] = []
    any_ended = trio.Event()

    async def run(entry: bytes, message: bytes) -> None:
        task = decode(message)
        started = time.time()
        with trio.CancelScope(deadline=trio.current_time() + task["timeout"]):
            value = await functions[task["name"]](task["number"])
        result = encode({"value": value, "started": started, "ended": time.time()})
        ended.append((entry, task["id"], result, task.get("reply")))
        any_ended.set()

    async def settle(wire: Wire) -> None:
        nonlocal any_ended, freed, slots
        while True:
            await any_ended.wait()
            any_ended = trio.Event()
            batch = list(ended)
            ended.clear()
            entries = [entry for entry, _, _, _ in batch]
            commands: list[Command] = [("XACK", STREAM, GROUP, *entries), ("XDEL", STREAM, *entries)]
            for _, task_id, result, reply in batch:
                commands.append(("SET", f"floor:result:{task_id}", result, "PX", _KEEP))
                if reply is not None:
                    commands.append(("PUBLISH", reply, task_id.encode() + result))
            await wire.send(commands)
            slots += len(batch)
            freed.set()

    async with trio.open_nursery() as nursery:
        reading = await Wire.open(nursery, url)
        writing = await Wire.open(nursery, url)
        await prepare(writing)
        nursery.start_soon(settle, writing)
        while True:
            while not slots:
                freed = trio.Event()
                await freed.wait()
            read = ("XREADGROUP", "GROUP", GROUP, "worker", "COUNT", slots, "BLOCK", 2000, "STREAMS", STREAM, ">")
            for _, messages in await reading.call(*read) or ():
                for entry, fields in messages:
                    slots -= 1
                    nursery.start_soon(run, entry, fields[1])
