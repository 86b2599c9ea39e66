"""A trio run that plain code drives, one call at a time; for state machines of hypothesis, whose rules are sync."""

from __future__ import annotations

import contextlib
import math
import threading
from typing import TYPE_CHECKING, Generic, TypeVar, TypeVarTuple, final

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self, Unpack

__all__ = ["Started", "Stepper"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@final
class Started(Generic[T]):
    """A call that goes on in the background, during the steps that follow."""

    def __init__(self, stepper: Stepper, function: Callable[[], Awaitable[T]]) -> None:
        self._stepper = stepper
        self._function = function
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._values: list[T] = []
        self._error: Exception | None = None

    async def run(self) -> None:
        """Make the call. For `Stepper.start`."""
        try:
            with self._scope:
                self._values.append(await self._function())
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._error = error
        finally:
            self._ended.set()

    @property
    def ended(self) -> bool:
        """Whether the call is over."""
        return self._ended.is_set()

    def result(self, timeout: float = math.inf) -> T:
        """Wait for what the call returns, or raise what it raised.

        Raises:
            trio.TooSlowError: it has not ended within `timeout` seconds of the run's clock.
            RuntimeError: it was cancelled.
        """
        self._stepper.run(self._wait, timeout)
        if self._error is not None:
            raise self._error
        if not self._values:
            raise RuntimeError("the call was cancelled")
        return self._values[0]

    async def _wait(self, timeout: float) -> None:
        with trio.fail_after(timeout):
            await self._ended.wait()

    def cancel(self) -> list[T]:
        """End the call; what it had returned by then: one value or none."""
        self._stepper.run(self._cancel)
        return self._values

    async def _cancel(self) -> None:
        self._scope.cancel()
        await self._ended.wait()


@final
class Stepper:
    """A trio run in a thread of its own, which does only what it is told to, while the caller waits.

    Unless something was started in the background, nothing happens in it between two calls, so that what is found out
    about the state of things stays true until the next one::

        with Stepper(clock=MockClock()) as stepper:
            broker = stepper.enter(InMemoryBroker())
            stepper.run(broker.publish, [envelope])
            stepper.advance(30)

    Args:
        clock: the run's clock. Under a `trio.testing.MockClock` that does not jump by itself, time passes in `advance`
            only. Default: the real one.
    """

    def __init__(self, *, clock: trio.abc.Clock | None = None) -> None:
        self._clock = clock
        self._thread = threading.Thread(target=self._run_trio, name="stepper", daemon=True)
        self._began = threading.Event()
        self._error: BaseException | None = None
        self._held: list[tuple[trio.Event, trio.Event]] = []

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Begin the run."""
        self._thread.start()
        self._began.wait()

    def close(self) -> None:
        """Cancel what was started, leave what was entered, the last one first, and end the run.

        Raises:
            BaseException: whatever has ended the run, an error on leaving a context manager for instance.
        """
        with contextlib.suppress(trio.RunFinishedError):
            trio.from_thread.run_sync(self._background.cancel_scope.cancel, trio_token=self._token)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run_trio(self) -> None:
        try:
            trio.run(self._main, clock=self._clock)
        except BaseException as error:  # noqa: BLE001 - raised in the other thread, by `close`
            self._error = error

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._holders:
            async with trio.open_nursery() as self._background:
                self._began.set()
                await trio.sleep_forever()
            for leave, left in reversed(self._held):
                leave.set()
                await left.wait()

    def run(self, function: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """Call an async function, and wait for it.

        Raises:
            trio.RunFinishedError: the run has ended; `close` tells why.
        """
        return trio.from_thread.run(function, *args, trio_token=self._token)

    def start(self, function: Callable[[], Awaitable[T]]) -> Started[T]:
        """Call an async function in the background, and return once it waits for something, or has ended."""
        started = Started(self, function)

        async def start() -> None:
            self._background.start_soon(started.run)
            await trio.testing.wait_all_tasks_blocked()

        self.run(start)
        return started

    def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter a context manager, in a task of its own, for as long as this run lasts."""
        leave, left = trio.Event(), trio.Event()

        async def hold(task_status: trio.TaskStatus[T]) -> None:
            try:
                async with manager as value:
                    task_status.started(value)
                    await leave.wait()
            finally:
                left.set()

        async def start() -> T:
            value: T = await self._holders.start(hold)
            return value

        value = self.run(start)
        self._held.append((leave, left))
        return value

    def settle(self) -> None:
        """Let everything go on until all tasks wait for something."""
        self.run(trio.testing.wait_all_tasks_blocked)

    def advance(self, seconds: float) -> None:
        """Let time pass, at once under a `MockClock`, and everything settle after it."""

        async def advance() -> None:
            if isinstance(self._clock, trio.testing.MockClock):
                self._clock.jump(seconds)
            else:
                await trio.sleep(seconds)
            await trio.testing.wait_all_tasks_blocked()

        self.run(advance)

    def now(self) -> float:
        """`trio.current_time` of the run."""
        return trio.from_thread.run_sync(trio.current_time, trio_token=self._token)
