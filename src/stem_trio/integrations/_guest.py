"""A trio run as the guest of an asyncio loop, shared by all who need one in the same thread.

Trio allows one run in a thread. The first that asks starts it, and it ends with the last.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, final

import trio

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outcome import Outcome

__all__ = ["GuestRun"]

_DRAIN: Final = 5.0
"""Seconds that a run whose loop is gone may take to end."""

_logger = logging.getLogger(__name__)


class _OfThread(threading.local):
    guest: GuestRun | None = None


_of_thread: Final = _OfThread()


@final
class GuestRun:
    """One guest run. Made by `join`.

    Attributes:
        loop: the host.
        finished: done when nothing of it is left.
        on_failure: what to call with the error if the run as a whole fails.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: Final = loop
        self.finished: Final[asyncio.Future[None]] = loop.create_future()
        self._over = False
        # What the host is to call next. Kept here too, as a loop that is closed forgets what it has been given.
        self._ticks: Final[queue.SimpleQueue[Callable[[], object]]] = queue.SimpleQueue()
        self._members = 0
        self._waiting: list[Callable[[], Awaitable[object]]] = []
        self._nursery: trio.Nursery | None = None
        self._stop: Final = trio.Event()
        self.on_failure: Final[set[Callable[[BaseException], None]]] = set()

    @classmethod
    async def join(cls, loop: asyncio.AbstractEventLoop) -> GuestRun:
        """Become a member of this thread's guest run, which is started if need be. Ended by `leave`.

        Args:
            loop: the running loop.

        Raises:
            ConfigurationError: there is a trio run in this thread that is not this loop's guest.

        Cancellation: no member.
        """
        while (guest := _of_thread.guest) is not None:
            if guest.loop is not loop:
                if not guest.loop.is_closed():
                    raise ConfigurationError(
                        "trio is the guest of another event loop of this thread, which is not closed"
                    )
                guest.drain()
            elif guest.ending:
                await asyncio.wait([guest.finished])
            else:
                break
        if guest is None:
            guest = cls(loop)
            guest._start()
            _of_thread.guest = guest
        guest._members += 1
        return guest

    def leave(self) -> None:
        """End a membership; the run ends with the last."""
        self._members -= 1
        if not self._members:
            self._stop.set()

    @property
    def ending(self) -> bool:
        """Whether the last member has left."""
        return self._stop.is_set()

    def start_soon(self, function: Callable[[], Awaitable[object]]) -> None:
        """Start a trio task. It must not raise, and must end after the membership on whose behalf it runs."""
        if self._nursery is None:
            self._waiting.append(function)
        else:
            self._nursery.start_soon(function)

    # --- the run ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        # Where nobody handles SIGINT, trio does: Ctrl-C would be raised in here, and not in the host's code.
        in_main_thread = threading.current_thread() is threading.main_thread()
        nobody_handles = in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        try:
            trio.lowlevel.start_guest_run(
                self._main,
                run_sync_soon_threadsafe=self._soon_threadsafe,
                run_sync_soon_not_threadsafe=self._soon,
                done_callback=self._done,
                host_uses_signal_set_wakeup_fd=True,
            )
        except RuntimeError as error:
            raise ConfigurationError(
                "a trio run is under way in this thread already, and trio allows one: in a trio program use StemClient"
            ) from error
        finally:
            if nobody_handles:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for function in self._waiting:
                nursery.start_soon(function)
            self._waiting.clear()
            await self._stop.wait()

    def _soon(self, tick: Callable[[], object]) -> None:
        self._ticks.put(tick)
        if not self.loop.is_closed():
            self.loop.call_soon(self._tick)

    def _soon_threadsafe(self, tick: Callable[[], object]) -> None:
        self._ticks.put(tick)
        try:
            self.loop.call_soon_threadsafe(self._tick)
        except RuntimeError:
            # The tick waits for `drain`.
            if not self.loop.is_closed():
                raise

    def _tick(self) -> None:
        self._ticks.get_nowait()()

    def _done(self, result: Outcome[None]) -> None:
        self._over = True
        self._stop.set()
        _of_thread.guest = None
        try:
            result.unwrap()
        except BaseException as error:  # noqa: BLE001 - it is for the members
            for tell in self.on_failure:
                tell(error)
        if not self.loop.is_closed():
            self.finished.set_result(None)

    def drain(self) -> None:
        """End a run whose loop was closed too early, in the thread in which it ran.

        Trio would refuse every other run in this thread for as long as it is not over.
        """
        hooks = sys.get_asyncgen_hooks()
        deadline = time.monotonic() + _DRAIN
        try:
            self._stop.set()
            if self._nursery is not None:
                self._nursery.cancel_scope.cancel()
            while not self._over:
                self._ticks.get(timeout=max(0.0, deadline - time.monotonic()))()
        except queue.Empty:
            raise ConfigurationError(
                "an event loop was closed within the block of an AsyncioStem, whose stores do not let go; "
                "leave the block before the loop ends"
            ) from None
        finally:
            # Trio puts back what it has found: the hooks of the loop that is closed.
            sys.set_asyncgen_hooks(*hooks)
        _logger.warning("an event loop was closed within the block of an AsyncioStem, which has been closed after it")
