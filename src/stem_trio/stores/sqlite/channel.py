"""Subscriptions to broadcasts: each reads on from where it is, whenever something was sent."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

import trio

from ...errors import StoreClosedError
from . import statements
from .clock import MICRO
from .transaction import MESSAGES, key

if TYPE_CHECKING:
    from .engine import Engine
    from .transaction import Transaction

__all__ = ["SqliteSubscription", "send"]

_KEPT_FOR: Final = 600 * MICRO
_KEPT: Final = 10_000
_BATCH: Final = 100
"""Messages that are read, or cleared away, at a time."""


def send(work: Transaction, channel: str, message: bytes) -> None:
    """Send a message to those who are subscribed, and clear old ones away."""
    cursor = work.execute(statements.SEND, statements.bind(work.now.time, key(channel), message))
    number = cursor.lastrowid or 0
    work.run(statements.TRIM_MESSAGES, _BATCH, work.now.time - _KEPT_FOR, number - _KEPT)
    work.change.messages = True


@final
class SqliteSubscription:
    """One subscriber. Messages are kept for ten minutes, or until there are 10,000 newer ones.

    Args:
        engine: of the file.
        channel: what is subscribed to.
    """

    def __init__(self, engine: Engine, channel: str) -> None:
        self._engine: Engine | None = engine
        self._channel = key(channel)
        self._position = 0
        self._messages: deque[bytes] = deque()
        self._has_more = False
        self._lot = trio.lowlevel.ParkingLot()

    async def begin(self) -> None:
        """Have it in force: what is sent from now on is received."""
        assert self._engine is not None, "just made"
        self._engine.want(MESSAGES)
        self._position = await self._engine.call(_last, writes=False)

    def changed(self) -> None:
        """Something was sent to somebody."""
        self._has_more = True
        self._lot.unpark_all()

    def close(self) -> None:
        """Nothing is received any more, except for what was read before."""
        self._engine = None
        self._lot.unpark_all()

    def _read(self, work: Transaction) -> tuple[list[tuple[int, bytes]], int]:
        found = work.execute(statements.RECEIVE, statements.bind(self._position, self._channel, _BATCH)).fetchall()
        return found, found[-1][0] if len(found) == _BATCH else _last(work)

    def _add(self, read: tuple[list[tuple[int, bytes]], int]) -> None:
        found, position = read
        # Two may have read at the same time.
        self._messages.extend(body for number, body in found if number > self._position)
        self._position = max(self._position, position)
        if len(found) == _BATCH:
            self._has_more = True
        self._lot.unpark_all()

    async def receive(self) -> bytes:
        """See `Subscription.receive`.

        Raises:
            StoreClosedError: no message is left, and the subscription or the store has ended.
            StoreError: the file cannot be read; no message is lost by it.
        """
        # The checkpoint comes first: after a message is taken, nothing may be cancelled.
        await trio.lowlevel.checkpoint()
        while not self._messages:
            if self._engine is None:
                raise StoreClosedError("the subscription has ended")
            if not self._has_more:
                await self._lot.park()
                continue
            self._has_more = False
            try:
                await self._engine.call(self._read, writes=False, then=self._add)
            except BaseException:
                self._has_more = True  # the next call reads again
                raise
        return self._messages.popleft()


def _last(work: Transaction) -> int:
    return int(work.value(statements.LAST_MESSAGE))
