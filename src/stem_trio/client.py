"""A producer together with the stores that it uses."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import attrs

from .producer import DEFAULT_MAX_PAYLOAD_SIZE, Stem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Self, Unpack

    from .abc import Broker, ResultBackend
    from .clock import WallClock
    from .config import StemConfig
    from .envelope import DeadLetter
    from .handle import TaskHandle
    from .signals import StemSignals
    from .signing import PayloadSigner
    from .status import TaskResult, TaskStatus
    from .stores.adapters import StemStoreAdapter
    from .stores.url import StemStoreOverrides
    from .task import CallOptions, TaskCall, TaskRegistry, TaskSource

__all__ = ["StemClient"]

R = TypeVar("R")


class StemClient:
    """A producer that owns its stores: they are open within its ``async with`` block.

    Everything a `Stem` does, it does; see there for errors and cancellation.

    Args:
        broker: where tasks go; not open yet.
        backend: where statuses are; not open yet.
        tasks: the tasks that may be enqueued; modules and dotted names too, see `TaskRegistry.register_all`.
        signals: whose listeners to call; by default the process-wide ones.
        clock: the wall clock.
        max_payload_size: greatest size of an encoded task in bytes.
        store_timeout: seconds (or timedelta) that one call to a store may take.
        signer: signs each task; see `Stem`.

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
        tasks: Iterable[TaskSource] = (),
        signals: StemSignals | None = None,
        clock: WallClock | None = None,
        max_payload_size: int = DEFAULT_MAX_PAYLOAD_SIZE,
        store_timeout: float | timedelta = 10.0,
        signer: PayloadSigner | None = None,
    ) -> None:
        self.stem: Final = Stem(
            broker,
            backend,
            tasks=tasks,
            signals=signals,
            clock=clock,
            max_payload_size=max_payload_size,
            store_timeout=store_timeout,
            signer=signer,
        )
        self._broker = broker
        self._backend = backend
        self._stores = AsyncExitStack()

    @classmethod
    def in_memory(cls, *, clock: WallClock | None = None, **options: Any) -> Self:
        """One whose stores live in this process and end with it. Takes the options of the class."""
        from .stores.memory import InMemoryBroker, InMemoryResultBackend  # noqa: PLC0415 - not in every worker's memory

        return cls(InMemoryBroker(clock=clock), InMemoryResultBackend(), clock=clock, **options)

    @classmethod
    def from_url(
        cls,
        url: str | None = None,
        *,
        overrides: StemStoreOverrides | None = None,
        adapters: Iterable[StemStoreAdapter] = (),
        store_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """One whose stores a URL stands for; they are connected to when it is entered.

        Args:
            url: of the broker and, without overrides, of the result backend too: ``memory://``,
                ``sqlite:///file.db``, ``redis://host:port/db``, or what an adapter serves. None for a SQLite file in
                the user's data folder, which is made if it is not there. Environment variables are not looked at;
                `from_config` with `StemConfig.from_environment` is for that.
            overrides: other stores, or other URLs.
            adapters: adapters for schemes that are not built in, or in place of those that are.
            store_options: what the stores take beside their URLs, as ``{"prefix": "shop"}`` for Redis.
            options: those of the class.

        Raises:
            ConfigurationError: URL or options cannot be used, nothing serves the scheme, something has to be
                installed, or the user's data folder cannot be made. Never shows what may be secret.
            RegistrationError: one of the tasks is no task, or two have the same name.
        """
        from .stores.url import open_stores  # noqa: PLC0415 - as above

        broker, backend = open_stores(url, overrides=overrides, adapters=adapters, options=store_options)
        return cls(broker, backend, **options)

    @classmethod
    def from_config(cls, config: StemConfig, *, overrides: StemStoreOverrides | None = None, **options: Any) -> Self:
        """One as it is configured, by `StemConfig.from_environment` for example; with a signer, if keys are configured.

        Args:
            config: what is configured.
            overrides: as for `from_url`; they go over the configured stores.
            options: those of `from_url` and of the class; they go over what is configured.

        Raises:
            ConfigurationError: as `from_url`; or a signer cannot be made of the configured keys.
            RegistrationError: as `from_url`.
        """
        from .stores.url import StemStoreOverrides  # noqa: PLC0415 - as above

        chosen = overrides if overrides is not None else StemStoreOverrides()
        if chosen.backend is None and config.backend_url is not None:
            chosen = attrs.evolve(chosen, backend=config.backend_url)
        return cls.from_url(config.broker_url, overrides=chosen, **{**cls._configured(config), **options})

    @classmethod
    def _configured(cls, config: StemConfig) -> dict[str, Any]:
        return config.client_options()

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
