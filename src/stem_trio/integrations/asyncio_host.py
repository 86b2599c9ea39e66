"""A producer for asyncio programs: trio runs as the guest of their loop."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final, overload

import trio

from ..client import StemClient
from ..errors import ConfigurationError, StoreClosedError, StoreError
from ..handle import TaskHandle
from ._guest import GuestRun
from ._session import Session, check_source, is_cancellation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Self, Unpack

    from ..config import StemConfig
    from ..envelope import DeadLetter
    from ..status import TaskResult, TaskStatus
    from ..task import CallOptions, TaskCall, TaskRegistry
    from ._session import ClientSource, ExcInfo

__all__ = ["AsyncioStem"]

R = TypeVar("R")
T = TypeVar("T")

_GRACE: Final = 5.0
"""Seconds for which a cancelled asyncio task waits until what it has cancelled on trio has ended."""

_logger = logging.getLogger(__name__)


@final
class AsyncioStem:
    """A `StemClient` for programs on asyncio or uvloop; it is open within its ``async with`` block.

    Trio runs as a guest of the running loop, in the same thread, with one run for all that are open there. Each call is
    a trio task: cancelling the asyncio task that awaits it cancels it, and waits until it has ended, at most 5 s.
    Errors arrive as they were raised. Leaving the block cancels the calls that are under way elsewhere, with a
    `StoreClosedError` for those who await them, and returns when trio has ended.

    `Task.enqueue` takes it, and the handles that come from it are for asyncio as well.

    Args:
        client: the client, not open; or a function that makes one, called on trio each time the block is entered. With
            a `StemApp` tasks run in here too; their handlers are on trio, not on asyncio.

    Raises:
        ConfigurationError: it is neither.
    """

    def __init__(self, client: ClientSource) -> None:
        self._source: Final = check_source(client)
        self._stay: _Stay | None = None

    @classmethod
    def in_memory(cls, **options: Any) -> Self:
        """One whose stores live in this process and end with it; as `StemClient.in_memory`."""
        return cls(StemClient.in_memory(**options))

    @classmethod
    def from_url(cls, url: str | None = None, **options: Any) -> Self:
        """One whose stores a URL stands for, or the user's own file; options and errors as `StemClient.from_url`."""
        return cls(StemClient.from_url(url, **options))

    @classmethod
    def from_config(cls, config: StemConfig, **options: Any) -> Self:
        """One as it is configured; options and errors as `StemClient.from_config`."""
        return cls(StemClient.from_config(config, **options))

    @property
    def registry(self) -> TaskRegistry:
        """The tasks that may be enqueued.

        Raises:
            StoreClosedError: the client is made by a function, and not open.
        """
        return self._client.registry

    async def __aenter__(self) -> Self:
        """Open the stores.

        Raises:
            StoreError: the block is entered already.
            StoreUnavailableError: a store cannot be reached.
            ConfigurationError: this is not an asyncio program, or trio runs in this thread in some other way.

        Cancellation: nothing stays open.
        """
        loop = _running_loop()
        # Of a loop that was closed nothing can be left from here on: `GuestRun.join` sees to it.
        if self._stay is not None and not self._stay.loop.is_closed():
            raise StoreError("this AsyncioStem is open already: share it, or make another one")
        self._stay = stay = _Stay(loop, self._source)
        try:
            await stay.open()
        except BaseException:
            self._stay = None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel what is under way, close the stores, and wait until trio has ended.

        Raises:
            BaseException: what the stores have failed with, if they have.

        Cancellation: the stores are closed without waiting for anything.
        """
        stay = self._stay
        assert stay is not None, "entered before"
        _check_loop(stay.loop)
        try:
            await stay.close(kind, error, traceback)
        finally:
            self._stay = None

    # --- enqueueing -----------------------------------------------------------------------------------------------

    def call(self, name: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]) -> TaskCall[Any]:
        """A call to a task by its name, checked and encoded; as `Stem.call`."""
        return self._client.call(name, args, **options)

    async def enqueue(self, name: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]) -> str:
        """Enqueue a task by its name; as `Stem.enqueue`.

        Raises:
            StoreClosedError: outside of the block, or the block was left during the call.
        """
        return (await self.submit(self.call(name, args, **options))).id

    async def submit(self, call: TaskCall[R]) -> TaskHandle[R]:
        """Enqueue one bound call; as `Stem.submit`. The handle is for asyncio."""
        handle = await self._run(lambda client: client.submit(call))
        return TaskHandle(self, handle.id, call.definition, created=handle.created)

    async def enqueue_many(self, calls: Iterable[TaskCall[Any]]) -> list[str]:
        """Enqueue bound calls together; as `Stem.enqueue_many`."""
        bound = list(calls)
        return await self._run(lambda client: client.enqueue_many(bound))

    # --- results and intervening ------------------------------------------------------------------------------------

    async def status(self, task: str | TaskHandle[Any]) -> TaskStatus | None:
        """What is known of a task; as `Stem.status`."""
        return await self._run(lambda client: client.status(task))

    @overload
    async def wait_for_task(self, task: TaskHandle[R], timeout: float | timedelta | None = None) -> TaskResult[R]: ...
    @overload
    async def wait_for_task(self, task: str, timeout: float | timedelta | None = None) -> TaskResult[Any]: ...
    async def wait_for_task(
        self, task: str | TaskHandle[Any], timeout: float | timedelta | None = None
    ) -> TaskResult[Any]:
        """Wait until a task is over; as `Stem.wait_for_task`."""
        return await self._run(lambda client: client.wait_for_task(task, timeout))

    async def revoke(self, task: str | TaskHandle[Any], *, reason: str | None = None) -> bool:
        """See to it that a task never starts again, and cancel it where it runs; as `Stem.revoke`."""
        return await self._run(lambda client: client.revoke(task, reason=reason))

    async def purge(self, queue: str) -> int:
        """Remove every task that waits in a queue; as `Stem.purge`."""
        return await self._run(lambda client: client.purge(queue))

    async def replay_dead_letters(
        self, queue: str, task_ids: Sequence[str], *, delay: float | timedelta = 0.0
    ) -> list[DeadLetter | None]:
        """Put dead letters back into their queue; as `Stem.replay_dead_letters`."""
        return await self._run(lambda client: client.replay_dead_letters(queue, task_ids, delay=delay))

    # --- the way to trio --------------------------------------------------------------------------------------------

    @property
    def _client(self) -> StemClient:
        return self._source if isinstance(self._source, StemClient) else self._entered().session.client

    def _entered(self) -> _Stay:
        if self._stay is None:
            raise StoreClosedError("this AsyncioStem is not open: use it within its async with block")
        return self._stay

    async def _run(self, function: Callable[[StemClient], Awaitable[T]]) -> T:
        return await self._entered().call(function)


class _Call:
    """One call on its way: an asyncio future on one side, a trio scope on the other."""

    __slots__ = ("_loop", "ended", "future", "late", "over", "scope")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.scope = trio.CancelScope()
        self.over = False
        self.ended: asyncio.Future[None] | None = None
        self.late: BaseException | None = None

    def settle(self, value: object, error: BaseException | None = None) -> None:
        """Tell asyncio how it ended."""
        if self.over or self._loop.is_closed():
            return
        self.over = True
        if self.future.done():
            self.late = error
        elif error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(value)
        if self.ended is not None:
            _settle(self.ended)

    async def cancel(self) -> None:
        """Cancel the trio task, and wait for it for a while; once asyncio has cancelled the task that waits for it."""
        if not self.over:
            self.ended = self._loop.create_future()
            self.scope.cancel()
            if not await _outlast(self.ended, _GRACE):
                _logger.warning(
                    "a call that was cancelled has not ended within %g s; it is left to end by itself", _GRACE
                )
        elif not self.future.cancelled():
            self.late = self.future.exception()  # asyncio complains of errors that nobody has looked at


class _Stay:
    """One stay in the block."""

    def __init__(self, loop: asyncio.AbstractEventLoop, source: ClientSource) -> None:
        self.loop: Final = loop
        self.session: Final = Session(source, "AsyncioStem")
        self._guest: GuestRun | None = None
        self._scope: Final = trio.CancelScope()
        self._opened: Final = loop.create_future()
        self._ended: Final = loop.create_future()
        self._error: BaseException | None = None
        self._calls: Final[set[_Call]] = set()

    async def open(self) -> None:
        self._guest = await GuestRun.join(self.loop)
        self._guest.on_failure.add(self._run_failed)
        self._guest.start_soon(self._main)
        try:
            await asyncio.wait([self._opened])
        except asyncio.CancelledError:
            await self._force()
            raise
        if self._ended.done():
            await self._finish()
            self._raise_error(None)
            raise self.session.closed_error()

    async def close(self, *reason: Any) -> None:
        self.session.leave(*reason)
        try:
            await asyncio.wait([self._ended])
        except asyncio.CancelledError:
            await self._force()
            raise
        await self._finish()
        self._raise_error(cast("ExcInfo", reason)[1])

    async def _force(self) -> None:
        self._scope.cancel()
        guest = self._guest
        if not await _outlast(self._ended, _GRACE) or (
            guest is not None and guest.ending and not await _outlast(guest.finished, _GRACE)
        ):
            _logger.warning("stores have not closed within %g s; they are left to close by themselves", _GRACE)

    async def _finish(self) -> None:
        if self._guest is not None and self._guest.ending:
            await asyncio.wait([self._guest.finished])

    def _raise_error(self, reason: BaseException | None) -> None:
        error, self._error = self._error, None
        try:
            if error is not None and error is not reason:
                raise error
        finally:
            del error  # its traceback refers to this frame

    async def call(self, function: Callable[[StemClient], Awaitable[T]]) -> T:
        _check_loop(self.loop)
        self.session.check_open()
        assert self._guest is not None
        call = _Call(self.loop)
        self._calls.add(call)
        self._guest.start_soon(partial(self._serve, call, function))
        try:
            value: T = await call.future
            return value
        except asyncio.CancelledError as cancelled:
            await call.cancel()
            # It stays a cancellation, whatever the call has come to in the end.
            if call.late is not None:
                raise cancelled from call.late
            raise

    # --- on trio ----------------------------------------------------------------------------------------------------

    async def _main(self) -> None:
        assert self._guest is not None
        try:
            with self._scope:
                await self.session.run(partial(_settle, self._opened))
        except BaseException as error:
            if is_cancellation(error):
                raise  # the run as a whole has failed: `_run_failed` is about to hear of it
            self._error = error
        finally:
            self._guest.leave()
        self._guest.on_failure.discard(self._run_failed)
        _settle(self._opened)
        _settle(self._ended)

    async def _serve(self, call: _Call, function: Callable[[StemClient], Awaitable[Any]]) -> None:
        if call.future.cancelled():
            call.scope.cancel()  # the task that awaits it has not had its turn yet
        try:
            call.settle(await self.session.call(function, call.scope))
        except BaseException as error:
            if is_cancellation(error):
                raise  # as in `_main`
            call.settle(None, error)
        self._calls.discard(call)

    def _run_failed(self, error: BaseException) -> None:
        """Nothing that was on trio will ever end."""
        self._error = error
        self.session.fail(error)
        for call in self._calls:
            call.settle(None, self.session.closed_error())
        self._calls.clear()
        _settle(self._opened)
        _settle(self._ended)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done() and not future.get_loop().is_closed():
        future.set_result(None)


async def _outlast(future: asyncio.Future[None], seconds: float) -> bool:
    """Wait for a future for so long, whoever cancels in between: anyio does so in every pass of the loop."""
    loop = future.get_loop()
    deadline = loop.time() + seconds
    while not future.done() and (left := deadline - loop.time()) > 0:
        try:
            await asyncio.wait([future], timeout=left)
        except asyncio.CancelledError:
            continue
    return future.done()


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        loop = None if trio.lowlevel.in_trio_task() else asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if loop is None:
        raise ConfigurationError(
            "AsyncioStem is for code that runs on asyncio: use StemClient on trio, BlockingStem elsewhere"
        )
    return loop


def _check_loop(expected: asyncio.AbstractEventLoop) -> None:
    if _running_loop() is not expected:
        raise ConfigurationError("this AsyncioStem was opened in another event loop: open one in each loop")
