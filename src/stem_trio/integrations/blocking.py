"""A producer for blocking code: trio runs in a thread."""

from __future__ import annotations

import asyncio
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final, overload

import trio

from ..client import StemClient
from ..errors import ConfigurationError, StoreClosedError, StoreError
from ._portal import PortalThread
from ._session import check_source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Self, Unpack

    from ..config import StemConfig
    from ..envelope import DeadLetter
    from ..handle import TaskHandle
    from ..status import TaskResult, TaskStatus
    from ..task import CallOptions, TaskCall, TaskRegistry
    from ._session import ClientSource

__all__ = ["BlockingStem", "BlockingTaskHandle"]

R = TypeVar("R")
T = TypeVar("T")


@final
class BlockingStem:
    """A `StemClient` for code that blocks: scripts, Flask, Django. It is open within its ``with`` block.

    Trio runs in a thread of its own; any number of threads may use it at once. Ctrl-C in a thread that waits cancels
    what it waits for. Closing cancels the calls that are under way in other threads; they raise `StoreClosedError`.

    It does not survive a fork: open one in each process. One that is thrown away without being closed says so with a
    ResourceWarning, and lets nothing hang.

    Typed tasks are enqueued by their calls: ``stem.submit(send_email.bind(to="a@b.c"))``.

    Args:
        client: the client, not open; or a function that makes one, called on trio each time this is opened. With a
            `StemApp` tasks run in here too.

    Raises:
        ConfigurationError: it is neither.
    """

    def __init__(self, client: ClientSource) -> None:
        self._source: Final = check_source(client)
        self._lock = threading.Lock()
        self._thread: PortalThread | None = None
        self._forgotten: weakref.finalize[[PortalThread], BlockingStem] | None = None

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

    # --- opening and closing ----------------------------------------------------------------------------------------

    def open(self) -> Self:
        """Open the stores, where a ``with`` block does not fit; `close` closes them.

        Raises:
            StoreError: it is open already.
            StoreUnavailableError: a store cannot be reached.
            ConfigurationError: an event loop runs in this thread, which would stand still.
        """
        _refuse_loops()
        if self._thread is not None:
            self._thread.check_process()  # before the lock, which may be one that nobody will release
        with self._lock:
            if self._thread is not None:
                raise StoreError("this BlockingStem is open already: share it, or make another one")
            thread = PortalThread(self._source)
            thread.open()
            self._thread = thread
            self._forgotten = weakref.finalize(self, _forgotten, thread)
        return self

    def close(self) -> None:
        """Cancel what is under way, close the stores, and end the thread. Does nothing when it is not open.

        Raises:
            BaseException: what the stores have failed with, if they have.
        """
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread = self._thread
        # In a forked process there is nothing to wait for.
        if thread is None or thread.forked:
            return
        _refuse_loops()
        with self._lock:
            if self._thread is not thread:
                return
            assert self._forgotten is not None
            self._forgotten.detach()
            try:
                thread.close(kind, error, traceback)
            finally:
                self._thread = None

    # --- enqueueing -----------------------------------------------------------------------------------------------

    def call(self, name: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]) -> TaskCall[Any]:
        """A call to a task by its name, checked and encoded; as `Stem.call`."""
        return self._client.call(name, args, **options)

    def enqueue(self, name: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]) -> str:
        """Enqueue a task by its name; as `Stem.enqueue`.

        Raises:
            StoreClosedError: it is not open, or was closed during the call.
            ConfigurationError: it was opened before a fork, or an event loop runs in this thread.
        """
        return self.submit(self.call(name, args, **options)).id

    def submit(self, call: TaskCall[R]) -> BlockingTaskHandle[R]:
        """Enqueue one bound call; as `Stem.submit`."""
        return BlockingTaskHandle(self, self._run(lambda client: client.submit(call)))

    def enqueue_many(self, calls: Iterable[TaskCall[Any]]) -> list[str]:
        """Enqueue bound calls together; as `Stem.enqueue_many`."""
        bound = list(calls)
        return self._run(lambda client: client.enqueue_many(bound))

    # --- results and intervening ------------------------------------------------------------------------------------

    def status(self, task: str | BlockingTaskHandle[Any]) -> TaskStatus | None:
        """What is known of a task; as `Stem.status`."""
        return self._run(lambda client: client.status(str(task)))

    @overload
    def wait_for_task(self, task: BlockingTaskHandle[R], timeout: float | timedelta | None = None) -> TaskResult[R]: ...
    @overload
    def wait_for_task(self, task: str, timeout: float | timedelta | None = None) -> TaskResult[Any]: ...
    def wait_for_task(
        self, task: str | BlockingTaskHandle[Any], timeout: float | timedelta | None = None
    ) -> TaskResult[Any]:
        """Wait until a task is over; as `Stem.wait_for_task`."""
        wanted = task if isinstance(task, str) else task.handle
        return self._run(lambda client: client.wait_for_task(wanted, timeout))

    def revoke(self, task: str | BlockingTaskHandle[Any], *, reason: str | None = None) -> bool:
        """See to it that a task never starts again, and cancel it where it runs; as `Stem.revoke`."""
        return self._run(lambda client: client.revoke(str(task), reason=reason))

    def purge(self, queue: str) -> int:
        """Remove every task that waits in a queue; as `Stem.purge`."""
        return self._run(lambda client: client.purge(queue))

    def replay_dead_letters(
        self, queue: str, task_ids: Sequence[str], *, delay: float | timedelta = 0.0
    ) -> list[DeadLetter | None]:
        """Put dead letters back into their queue; as `Stem.replay_dead_letters`."""
        return self._run(lambda client: client.replay_dead_letters(queue, task_ids, delay=delay))

    # --- the way to trio --------------------------------------------------------------------------------------------

    @property
    def _client(self) -> StemClient:
        return self._source if isinstance(self._source, StemClient) else self._entered().session.client

    def _entered(self) -> PortalThread:
        thread = self._thread
        if thread is None:
            raise StoreClosedError("this BlockingStem is not open: use it within its with block, or call open()")
        return thread

    def _run(self, function: Callable[[StemClient], Awaitable[T]]) -> T:
        _refuse_loops()
        return self._entered().call(function)


@final
class BlockingTaskHandle(Generic[R]):
    """An enqueued task, as `TaskHandle`, for blocking code. Made by `BlockingStem.submit`.

    Attributes:
        handle: the handle that it stands for.
    """

    __slots__ = ("_stem", "handle")

    def __init__(self, stem: BlockingStem, handle: TaskHandle[R]) -> None:
        self._stem = stem
        self.handle: Final = handle

    @property
    def id(self) -> str:
        """Its id."""
        return self.handle.id

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.handle.name

    @property
    def created(self) -> bool:
        """False when the id was given by the caller and known already; see `TaskHandle`."""
        return self.handle.created

    def __repr__(self) -> str:
        return f"<BlockingTaskHandle {self.name} {self.id}>"

    def __str__(self) -> str:
        return self.id

    def status(self) -> TaskStatus:
        """What is known of the task now; as `TaskHandle.status`."""
        return self._stem._run(lambda _: self.handle.status())  # noqa: SLF001 - two halves of one thing

    def wait(self, timeout: float | timedelta | None = None) -> TaskResult[R]:
        """Wait until the task is over, however it ends; as `TaskHandle.wait`."""
        return self._stem.wait_for_task(self, timeout)

    def result(self, timeout: float | timedelta | None = None) -> R:
        """Wait until the task is over, and return what its handler returned; as `TaskHandle.result`."""
        return self.wait(timeout).unwrap()

    def revoke(self, *, reason: str | None = None) -> bool:
        """Never start the task, and cancel it if it runs; as `TaskHandle.revoke`."""
        return self._stem.revoke(self, reason=reason)


def _forgotten(thread: PortalThread) -> None:
    """End the thread of one that nobody refers to any more, or that the end of the program finds open."""
    if not thread.forked:
        # Not waited for: this is called wherever the last reference happens to go, on trio's thread too.
        thread.abandon()
        warnings.warn(
            "a BlockingStem was not closed: use it in a with block, or call close()", ResourceWarning, stacklevel=2
        )


def _refuse_loops() -> None:
    """Whoever waits in a thread with an event loop stops all that runs on it."""
    if trio.lowlevel.in_trio_task():
        raise ConfigurationError("BlockingStem would block the trio program that it is called in: use StemClient")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError("BlockingStem would block the asyncio program that it is called in: use AsyncioStem")
