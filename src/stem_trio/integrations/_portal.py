"""A thread that runs trio with a client open in it, and the way in for other threads: anyio's portal."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final

import anyio
import trio
from anyio.from_thread import BlockingPortal

from ..errors import ConfigurationError
from ._session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..client import StemClient
    from ._session import ClientSource

__all__ = ["PortalThread"]

T = TypeVar("T")

_GRACE: Final = 5.0
"""Seconds for which an interrupted thread waits until what it has cancelled on trio has ended."""

_logger = logging.getLogger(__name__)


@final
class PortalThread:
    """One stay of a client in its block, on trio in a thread of its own.

    The thread refers to this object only, never to its user, so that a user who forgets to close is noticed. It is a
    daemon: it keeps no interpreter from ending. anyio's `start_blocking_portal` is not used because its context manager,
    thrown away in a forked process, waits for a thread that is not there.
    """

    def __init__(self, source: ClientSource) -> None:
        self.session: Final = Session(source, "BlockingStem")
        self.pid: Final = os.getpid()
        self._portal: BlockingPortal | None = None
        self._scope: Final = trio.CancelScope()
        self._opened: Final[concurrent.futures.Future[None]] = concurrent.futures.Future()
        self._ended: Final[concurrent.futures.Future[None]] = concurrent.futures.Future()
        self._waited_for: Final[set[concurrent.futures.Future[Any]]] = set()
        self._thread = threading.Thread(target=self._run, name="BlockingStem", daemon=True)

    # --- in the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            error = anyio.run(self._main, backend="trio")
        except BaseException as problem:  # noqa: BLE001 - raised by `close`, or `open`
            self.session.fail(problem)
            error = problem
        finally:
            if not self._opened.done():
                self._opened.set_result(None)
            if error is not None:
                self._ended.set_exception(error)
            else:
                self._ended.set_result(None)
            for future in list(self._waited_for):
                future.cancel()
            del error  # its traceback refers to this frame

    async def _main(self) -> BaseException | None:
        async with BlockingPortal() as self._portal:
            try:
                with self._scope:
                    await self.session.run(partial(self._opened.set_result, None))
            except BaseException as error:
                if isinstance(error, trio.Cancelled):
                    raise
                return error
        return None

    # --- in other threads -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the thread, and wait until the client is open. Raises what opening it has raised."""
        self._thread.start()
        try:
            self._opened.result()
        except BaseException:
            self._force()
            raise
        if self.session.is_closing:
            self._ended.result()
            raise self.session.closed_error()

    def close(self, *reason: Any) -> None:
        """Close the client, and wait for the end of the thread. Raises what it has failed with."""
        self.close_soon(*reason)
        try:
            concurrent.futures.wait([self._ended])
            self._thread.join()
        except BaseException:
            self._force()
            raise
        error = self._ended.exception()
        if error is not None and error is not reason[1]:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame

    def close_soon(self, *reason: Any) -> None:
        """Begin to close the client. Takes the arguments of ``__exit__``."""
        self._soon(partial(self.session.leave, *(reason or (None, None, None))))

    def _force(self) -> None:
        self._soon(self._scope.cancel)
        if not concurrent.futures.wait([self._ended], timeout=_GRACE).done:
            _logger.warning("stores have not closed within %g s; they are left to close by themselves", _GRACE)

    def _soon(self, function: Callable[[], object]) -> None:
        """Call a function on trio, if trio is still there."""
        try:
            assert self._portal is not None
            self._portal.start_task_soon(function)
        except (AssertionError, RuntimeError):
            return

    def call(self, function: Callable[[StemClient], Awaitable[T]]) -> T:
        """Call a function with the client, on trio.

        Raises:
            StoreClosedError: the client is not open, or was closed during the call.
            BaseException: what the function raised; or what was raised in this thread while it waited, as Ctrl-C does,
                once the function has been cancelled and has ended.
        """
        if self.pid != os.getpid():
            raise ConfigurationError(FORKED)
        self.session.check_open()
        scope = trio.CancelScope()
        future: concurrent.futures.Future[T | None] | None = None
        assert self._portal is not None
        try:
            try:
                future = self._portal.start_task_soon(self.session.call, function, scope)
            except RuntimeError:
                raise self.session.closed_error() from None
            self._waited_for.add(future)
            if self._ended.done():
                future.cancel()
            return cast("T", future.result())
        except concurrent.futures.CancelledError:
            raise self.session.closed_error() from None
        except BaseException:
            if future is None or not future.done():
                self._cancel(scope, future)
            raise
        finally:
            if future is not None:
                self._waited_for.discard(future)
            del future  # its error's traceback refers to this frame

    def _cancel(self, scope: trio.CancelScope, future: concurrent.futures.Future[Any] | None) -> None:
        self._soon(scope.cancel)
        if future is not None and not concurrent.futures.wait([future], timeout=_GRACE).done:
            _logger.warning("a call that was interrupted has not ended within %g s; it is left to end by itself", _GRACE)


FORKED: Final = "this BlockingStem was opened before a fork, and its thread is not in this process: open one in each process"
