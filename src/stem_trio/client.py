"""A producer together with the stores that it uses."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from .producer import DEFAULT_MAX_PAYLOAD_SIZE, Stem
from .stores.memory import InMemoryBroker, InMemoryResultBackend

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Self, Unpack

    from .abc import Broker, ResultBackend
    from .clock import WallClock
    from .envelope import DeadLetter
    from .handle import TaskHandle
    from .signals import StemSignals
    from .status import TaskResult, TaskStatus
    from .task import AnyTask, CallOptions, TaskCall, TaskRegistry

__all__ = ["StemClient"]

R = TypeVar("R")


class StemClient:
    """A producer that owns its stores: they are open within its ``async with`` block.

    Everything a `Stem` does, it does; see there for errors and cancellation.

    Args:
        broker: where tasks go; not open yet.
        backend: where statuses are; not open yet.
        tasks: the tasks that may be enqueued.
        signals: whose listeners to call; by default the process-wide ones.
        clock: the wall clock.
        max_payload_size: greatest size of an encoded task in bytes.
        store_timeout: seconds (or timedelta) that one call to a store may take.

    Raises:
        RegistrationError: one of the tasks is no task, or two have the same name.
        InvalidOptionError: an option is out of its range.

    Attributes:
        stem: the producer.
    """

    def __init__(
        self,
        broker: Broker,
        backend: ResultBackend,
        *,
        tasks: Iterable[AnyTask] = (),
        signals: StemSignals | None = None,
        clock: WallClock | None = None,
        max_payload_size: int = DEFAULT_MAX_PAYLOAD_SIZE,
        store_timeout: float | timedelta = 10.0,
    ) -> None:
        self.stem: Final = Stem(
            broker,
            backend,
            tasks=tasks,
            signals=signals,
            clock=clock,
            max_payload_size=max_payload_size,
            store_timeout=store_timeout,
        )
        self._broker = broker
        self._backend = backend
        self._stores = AsyncExitStack()

    @classmethod
    def in_memory(cls, *, clock: WallClock | None = None, **options: Any) -> Self:
        """One whose stores live in this process and end with it. Takes the options of the class."""
        return cls(InMemoryBroker(clock=clock), InMemoryResultBackend(), clock=clock, **options)

    @property
    def broker(self) -> Broker:
        """Where tasks go."""
        return self._broker

    @property
    def backend(self) -> ResultBackend:
        """Where statuses are."""
        return self._backend

    @property
    def registry(self) -> TaskRegistry:
        """The tasks that may be enqueued."""
        return self.stem.registry

    async def __aenter__(self) -> Self:
        """Open the stores."""
        async with AsyncExitStack() as stores:
            await stores.enter_async_context(self._broker)
            await stores.enter_async_context(self._backend)
            self._stores = stores.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the stores."""
        await self._stores.__aexit__(kind, error, traceback)

    async def enqueue(self, name: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]) -> str:
        """Enqueue a task by its name; as `Stem.enqueue`."""
        return (await self.submit(self.stem.call(name, args, **options))).id

    def call(self, name: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]) -> TaskCall[Any]:
        """A call to a task by its name; as `Stem.call`."""
        return self.stem.call(name, args, **options)

    async def submit(self, call: TaskCall[R]) -> TaskHandle[R]:
        """Enqueue one bound call; as `Stem.submit`."""
        return await self.stem.submit(call)

    async def enqueue_many(self, calls: Iterable[TaskCall[Any]]) -> list[str]:
        """Enqueue bound calls together; as `Stem.enqueue_many`."""
        return await self.stem.enqueue_many(calls)

    async def status(self, task: str | TaskHandle[Any]) -> TaskStatus | None:
        """What is known of a task; as `Stem.status`."""
        return await self.stem.status(task)

    @overload
    async def wait_for_task(self, task: TaskHandle[R], timeout: float | timedelta | None = None) -> TaskResult[R]: ...
    @overload
    async def wait_for_task(self, task: str, timeout: float | timedelta | None = None) -> TaskResult[Any]: ...
    async def wait_for_task(
        self, task: str | TaskHandle[Any], timeout: float | timedelta | None = None
    ) -> TaskResult[Any]:
        """Wait until a task is over; as `Stem.wait_for_task`."""
        return await self.stem.wait_for_task(task, timeout)

    async def revoke(self, task: str | TaskHandle[Any], *, reason: str | None = None) -> bool:
        """See to it that a task never starts again, and cancel it where it runs; as `Stem.revoke`."""
        return await self.stem.revoke(task, reason=reason)

    async def purge(self, queue: str) -> int:
        """Remove every task that waits in a queue; as `Stem.purge`."""
        return await self.stem.purge(queue)

    async def replay_dead_letters(
        self, queue: str, task_ids: Sequence[str], *, delay: float | timedelta = 0.0
    ) -> list[DeadLetter | None]:
        """Put dead letters back into their queue; as `Stem.replay_dead_letters`."""
        return await self.stem.replay_dead_letters(queue, task_ids, delay=delay)
