"""Waiting for work on connections of its own, without asking again and again.

A claim that finds nothing blocks on the wake lists of its queues. Scripts that make work put one entry there, if there
is none, and the server hands it to the one that waits longest; whoever takes work and leaves some wakes the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import trio

from .connection import Connection, pack
from .errors import ReplyError
from .transport import RedisTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .address import RedisAddress
    from .errors import ConnectionLostError

__all__ = ["WakeWaiter"]

_LONGEST: Final = 60.0
"""Seconds for which one command blocks at most."""
_SHORTEST: Final = 0.001
"""Zero would block for ever."""
_GRACE: Final = 2.0
"""Seconds after the end of its time until a command without a reply shows that the connection is dead."""


@final
class _Pop:
    """The reply to one blocking pop; handed back if nobody waits for it any more."""

    __slots__ = ("_hand_back", "_task", "abandoned", "done")

    def __init__(self, hand_back: Callable[[bytes], None]) -> None:
        self._hand_back = hand_back
        self._task: trio.lowlevel.Task | None = None
        self.done = False
        self.abandoned = False

    def put(self, value: Any) -> None:
        """The reply: None, [list, entry], or an error."""
        self.done = True
        if self.abandoned and value is not None and not isinstance(value, ReplyError):
            self._hand_back(value[0])
        self._wake()

    def fail(self, error: ConnectionLostError) -> None:  # noqa: ARG002 - the claim that follows meets the outage itself
        """The connection has gone."""
        self.done = True
        self._wake()

    def _wake(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait(self) -> None:
        """Wait for the reply. Cancellation: it stays the caller's duty to abandon this."""
        if not self.done:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)


@final
class _ClientId:
    """Takes the reply to CLIENT ID."""

    def __init__(self) -> None:
        self.value: int | None = None

    def put(self, value: Any) -> None:
        self.value = value if isinstance(value, int) else None

    def fail(self, error: ConnectionLostError) -> None:
        """Then there is nobody to unblock either."""


@final
class _Blocker:
    """One connection to block on."""

    def __init__(self, address: RedisAddress, options: dict[str, Any]) -> None:
        # No watching over answers: that they do not come is the purpose.
        unwatched: dict[str, Any] = {**options, "patience": float("inf"), "on_connect": self._on_connect}
        self.transport = RedisTransport(address, **unwatched)
        self.client = _ClientId()

    def _on_connect(self, connection: Connection) -> None:
        self.client = _ClientId()
        connection.submit([pack(("CLIENT", "ID"))], self.client)


@final
class WakeWaiter:
    """Blocks until there may be work.

    Args:
        address: where the server is.
        options: of the transports.
        main: for commands that undo what a cancelled wait has begun.
        nursery: where connections live.
    """

    def __init__(
        self, address: RedisAddress, options: dict[str, Any], main: RedisTransport, nursery: trio.Nursery
    ) -> None:
        self._address = address
        self._options = options
        self._main = main
        self._nursery = nursery
        self._idle: list[_Blocker] = []

    async def wait(self, keys: Sequence[str], seconds: float) -> None:
        """Wait until one of the lists had an entry, or for so long; may return early.

        Cancellation: an entry that was popped for nobody is put back.

        Raises:
            StoreUnavailableError: the server cannot be reached.
        """
        blocker = self._idle.pop() if self._idle else await self._open()
        seconds = min(max(seconds, _SHORTEST), _LONGEST)
        pop = _Pop(self._hand_back)
        connection: Connection | None = None
        try:
            with trio.move_on_after(seconds + _GRACE) as scope:
                connection = await blocker.transport.connected()
                connection.submit([pack(("BLPOP", *keys, f"{seconds:.3f}"))], pop)
                await pop.wait()
            if scope.cancelled_caught and connection is not None:
                connection.abandon()
        finally:
            # Of one that has met no connection, nothing is under way.
            if connection is not None and not pop.done:
                pop.abandoned = True
                if blocker.client.value is not None:
                    self._main.submit_nowait(pack(("CLIENT", "UNBLOCK", blocker.client.value)))
            # The next one to use it queues up behind the reply that is still to come.
            self._idle.append(blocker)

    async def _open(self) -> _Blocker:
        blocker = _Blocker(self._address, self._options)
        await self._nursery.start(blocker.transport.run)
        return blocker

    def _hand_back(self, key: bytes) -> None:
        self._main.submit_nowait(pack(("LPUSH", key, 1)))
