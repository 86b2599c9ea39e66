"""The floor as a contender: its tasks and its producer. As a program it is the worker."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import hiredis
import msgspec
import trio

from rivals.drive import AsyncProducer
from rivals.floor import STREAM, Command, Wire, connect, prepare, work
from rivals.mark import begin, end, mark
from rivals.settings import CONCURRENCY, URL

R = TypeVar("R")
_ID_LENGTH = 32


async def noop(_number: int) -> None:
    """Count."""
    mark()


async def echo(number: int) -> int:
    """Return the argument."""
    return number


async def sleeper(_number: int) -> None:
    """Sleep."""
    begin()
    await trio.sleep(0.1)
    end()


class FloorProducer(AsyncProducer):
    """Writes to the stream."""

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._channel = f"floor:reply:{uuid.uuid4().hex}"
        self._replies: dict[str, trio.Event] = {}
        self._values: dict[str, Any] = {}
        self._wire: Wire | None = None

    def run(self, main: Callable[[], Awaitable[R]]) -> R:
        """See `AsyncProducer.run`."""
        return trio.run(main)

    def session(self) -> AbstractAsyncContextManager[object]:
        """See `AsyncProducer.session`."""
        return self._connected()

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[None, None]:
        async with trio.open_nursery() as nursery:
            self._wire = await Wire.open(nursery, URL)
            await prepare(self._wire)
            await nursery.start(self._listen)
            yield
            nursery.cancel_scope.cancel()

    async def _listen(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        stream = await connect(URL)
        subscribe: Command = ("SUBSCRIBE", self._channel)
        await stream.send_all(hiredis.pack_command(subscribe))
        reader = hiredis.Reader()
        while data := await stream.receive_some(65_536):
            reader.feed(bytes(data))
            while (message := reader.gets()) is not False:
                kind, _, payload = message
                if kind == b"subscribe":
                    task_status.started()
                    continue
                task_id = payload[:_ID_LENGTH].decode()
                self._values[task_id] = payload[_ID_LENGTH:]
                self._replies[task_id].set()

    async def all_at_once(self, caller: Callable[[], Coroutine[Any, Any, None]], width: int) -> None:
        """See `AsyncProducer.all_at_once`."""
        async with trio.open_nursery() as nursery:
            for _ in range(width):
                nursery.start_soon(caller)

    def _add(self, name: str, number: int, task_id: str, reply: str | None = None) -> Command:
        task: dict[str, Any] = {"id": task_id, "name": name, "number": number, "timeout": 300.0}
        if reply is not None:
            task["reply"] = reply
        return ("XADD", STREAM, "*", "task", self._encode(task))

    def _connection(self) -> Wire:
        assert self._wire is not None, "within the session"
        return self._wire

    async def enqueue(self, number: int) -> None:
        """See `AsyncProducer.enqueue`."""
        await self._connection().send([self._add("noop", number, uuid.uuid4().hex)])

    async def enqueue_sleeper(self, number: int) -> None:
        """See `AsyncProducer.enqueue_sleeper`."""
        await self._connection().send([self._add("sleeper", number, uuid.uuid4().hex)])

    async def enqueue_batch(self, numbers: Sequence[int]) -> None:
        """See `AsyncProducer.enqueue_batch`."""
        await self._connection().send([self._add("noop", number, uuid.uuid4().hex) for number in numbers])

    async def round_trip(self, number: int) -> object:
        """See `AsyncProducer.round_trip`."""
        task_id = uuid.uuid4().hex
        replied = self._replies[task_id] = trio.Event()
        await self._connection().send([self._add("echo", number, task_id, self._channel)])
        await replied.wait()
        del self._replies[task_id]
        return msgspec.json.decode(self._values.pop(task_id))["value"]


producer = FloorProducer


if __name__ == "__main__":
    trio.run(work, URL, {"noop": noop, "echo": echo, "sleeper": sleeper}, CONCURRENCY)
