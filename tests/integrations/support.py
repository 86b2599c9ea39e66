"""What tests of both hosts share."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from stem_trio import InMemoryBroker, InMemoryResultBackend, StemApp, StemClient, StemSignals, task


@task(name="add")
async def add(a: int, b: int) -> int:
    return a + b


@task(name="fails")
async def fails() -> None:
    raise ValueError("on purpose")


def make_client(**options: Any) -> StemClient:
    return StemClient.in_memory(**({"tasks": [add, fails], "signals": StemSignals()} | options))


def make_app(**options: Any) -> StemApp:
    """A client that also runs the tasks."""
    return StemApp.in_memory(**({"tasks": [add, fails], "signals": StemSignals()} | options))


class BugError(Exception):
    """Something that nobody has thought of."""


@attrs.define
class Stage:
    """What happens on trio while a host waits for it; the host's side may be in another thread."""

    began: int = 0
    cancelled: int = 0
    cleaned: int = 0
    cleanup: float = 0.0
    holding: trio.Event | None = None  # what a cleanup waits for
    at_end: BaseException | None = None
    breaking: trio.Event = attrs.field(factory=trio.Event)
    opening: trio.Event = attrs.field(factory=trio.Event)
    closed_with: list[Any] = attrs.field(factory=list)
    cleaned_before_closing: int = -1


class StagedClient(StemClient):
    """A client on whose ``status`` one can wait in vain, and which breaks, opens and closes as it is told to."""

    stage: Stage

    @classmethod
    def on(cls, stage: Stage) -> StagedClient:
        client = cls(InMemoryBroker(), InMemoryResultBackend(), tasks=[add, fails], signals=StemSignals())
        client.stage = stage
        return client

    async def __aenter__(self) -> StagedClient:
        await self.stage.opening.wait()
        await super().__aenter__()
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(self._break)
        self._cancel = nursery.cancel_scope.cancel
        return self

    async def __aexit__(self, *reason: Any) -> None:
        self.stage.closed_with.append(reason[1])
        self.stage.cleaned_before_closing = self.stage.cleaned
        if not isinstance(reason[1], trio.Cancelled):
            self._cancel()
            reason = (None, None, None)
        try:
            await self._nursery.__aexit__(*reason)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await super().__aexit__(None, None, None)

    async def _break(self) -> None:
        await self.stage.breaking.wait()
        raise BugError("the store's own task")

    async def status(self, task: Any) -> Any:
        stage = self.stage
        stage.began += 1
        if isinstance(task, BaseException):
            raise task
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            stage.cancelled += 1
            with trio.CancelScope(shield=True):
                await trio.sleep(stage.cleanup)
                if stage.holding is not None:
                    await stage.holding.wait()
            stage.cleaned += 1
            if stage.at_end is not None:
                raise stage.at_end from None
            raise


def staged() -> Stage:
    """A stage whose client opens at once."""
    stage = Stage()
    stage.opening.set()
    return stage
