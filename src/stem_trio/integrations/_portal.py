"""A thread that runs trio with a client open in it, and the way in for other threads: anyio's portal."""

from __future__ import annotations

import contextvars
import logging
import os
import threading
from concurrent.futures import CancelledError, Future, wait
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final

import anyio
import trio
from anyio.from_thread import BlockingPortal

from ..errors import ConfigurationError
from ._session import Session, is_cancellation

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
    daemon: it keeps no interpreter from ending. The portal is not one of anyio's `start_blocking_portal`, which, thrown
    away in a forked process, would wait for a thread that is not there.
    """

    def __init__(self, source: ClientSource) -> None:
        self.session: Final = Session(source, "BlockingStem")
        self._pid: Final = os.getpid()
        self._scope: Final = trio.CancelScope()
        self._started: Final[Future[tuple[BlockingPortal, trio.lowlevel.TrioToken]]] = Future()
        self._opened: Final[Future[None]] = Future()
        self._ended: Final[Future[None]] = Future()
        self._waited_for: Final[set[Future[Any]]] = set()
        self._given_up = False
        # The context of whoever opens it is not the thread's business, and may hold a great deal.
        run = contextvars.Context().run
        self._thread: Final = threading.Thread(target=run, args=(self._run,), name="BlockingStem", daemon=True)

    @property
    def forked(self) -> bool:
        """Whether this process is not the one that the thread runs in."""
        return self._pid != os.getpid()

    # --- in the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            error = anyio.run(self._main, backend="trio")
        except BaseException as problem:  # noqa: BLE001 - raised in other threads, by `open` or `close`
            self.session.fail(problem)
            error = problem
        self._started.cancel()
        if not self._opened.done():
            self._opened.set_result(None)
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)
        for future in list(self._waited_for):
            future.cancel()
        del error  # its traceback refers to this frame

    async def _main(self) -> BaseException | None:
        async with BlockingPortal() as portal:
            self._started.set_result((portal, trio.lowlevel.current_trio_token()))
            if self._given_up:
                self._scope.cancel()
            try:
                with self._scope:
                    await self.session.run(partial(self._opened.set_result, None))
            except BaseException as error:
                if is_cancellation(error):
                    raise
                return error  # through the portal it would come out in a group
        return None

    async def _serve(
        self, function: Callable[[StemClient], Awaitable[T]], scope: trio.CancelScope
    ) -> tuple[T | None, BaseException | None]:
        try:
            return await self.session.call(function, scope), None
        except BaseException as error:
            if is_cancellation(error):
                raise
            return None, error  # raised in the thread that waits; some would end the portal

    # --- in other threads -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the thread, and wait until the client is open. Raises what opening it has raised."""
        try:
            self._thread.start()
            self._opened.result()
        except BaseException:
            self._force()
            raise
        if self.session.closing:
            self.close(None, None, None)
            raise self.session.closed_error()

    def close(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Close the client, and wait for the end of the thread. Raises what it has failed with.

        Args:
            kind: as for ``__exit__``.
            error: likewise.
            traceback: likewise.
        """
        self._soon(partial(self.session.leave, kind, error, traceback))
        try:
            wait([self._ended])
            self._thread.join()
        except BaseException:
            self._force()
            raise
        failure = self._ended.exception()
        try:
            if failure is not None and failure is not error:
                raise failure
        finally:
            del failure  # its traceback refers to this frame

    def abandon(self) -> None:
        """Begin to close the client, and wait for nothing; in any thread, even this one."""
        self._soon(partial(self.session.leave, None, None, None))

    def _force(self) -> None:
        self._given_up = True
        if self._thread.ident is None:
            return  # interrupted while it was being started: it sees for itself, if it starts at all
        self._soon(self._scope.cancel)
        if not wait([self._ended], timeout=_GRACE).done:
            _logger.warning("stores have not closed within %g s; they are left to close by themselves", _GRACE)

    def _soon(self, function: Callable[[], object]) -> None:
        """Have trio call a function, if it is still there."""
        try:
            _, token = self._started.result(timeout=_GRACE)
            token.run_sync_soon(function)
        except (CancelledError, TimeoutError, trio.RunFinishedError):
            return

    def call(self, function: Callable[[StemClient], Awaitable[T]]) -> T:
        """Call a function with the client, on trio.

        Raises:
            StoreClosedError: the client is not open, or was closed during the call.
            ConfigurationError: this is a forked process.
            BaseException: what the function raised; or what was raised in this thread while it waited, as Ctrl-C does,
                once the function has been cancelled and has ended.
        """
        self.check_process()
        self.session.check_open()
        portal, _ = self._started.result()
        scope = trio.CancelScope()
        future: Future[tuple[T | None, BaseException | None]] | None = None
        try:
            future = self._start(portal, function, scope)
            value, error = future.result()
        except CancelledError:
            raise self.session.closed_error() from None
        except BaseException:
            # Even where there is no future yet: Ctrl-C may come while trio is being told of the call.
            self._soon(scope.cancel)
            if future is not None and not wait([future], timeout=_GRACE).done:
                _logger.warning("an interrupted call has not ended within %g s; it is left to end by itself", _GRACE)
            raise
        finally:
            if future is not None:
                self._waited_for.discard(future)
        if error is not None:
            try:
                raise error
            finally:
                del error, future  # its traceback refers to this frame
        return cast("T", value)

    def _start(
        self, portal: BlockingPortal, function: Callable[[StemClient], Awaitable[T]], scope: trio.CancelScope
    ) -> Future[tuple[T | None, BaseException | None]]:
        try:
            future = portal.start_task_soon(self._serve, function, scope)
        except RuntimeError:  # the portal has closed since `check_open`
            raise self.session.closed_error() from None
        self._waited_for.add(future)
        if self._ended.done():
            future.cancel()
        return future

    def check_process(self) -> None:
        """Raise ConfigurationError in a forked process."""
        if self.forked:
            raise ConfigurationError(
                "this BlockingStem was opened before a fork, and its thread is not in this process: open one in each"
            )
