"""Broker and result backend on one server, as one store."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from ...abc import JointStore
from .backend import RedisResultBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...abc import ResultBackend
    from ...envelope import Envelope, Lease
    from ...outcome import Settlement
    from ...status import TaskStatus
    from .broker import RedisBroker

__all__ = ["join"]


def join(broker: RedisBroker, backend: ResultBackend) -> JointStore | None:
    """Both as one, if a script that the broker calls reaches the keys of the backend too; otherwise None."""
    if isinstance(backend, RedisResultBackend) and backend.address == broker.address:
        return _RedisJointStore(broker, backend)
    return None


@final
class _RedisJointStore(JointStore):
    """Writes statuses in the scripts that move tasks. They have no hash tag in common: a cluster would refuse it."""

    def __init__(self, broker: RedisBroker, backend: RedisResultBackend) -> None:
        self._broker = broker
        self._keyspace = backend.keyspace

    @property
    def answers_within(self) -> float:
        """See `JointStore.answers_within`."""
        return self._broker.answers_within

    async def publish(self, entries: Sequence[tuple[Envelope, TaskStatus]], *, delay: float = 0.0) -> list[bool]:
        """See `JointStore.publish`."""
        envelopes = [envelope for envelope, _ in entries]
        return await self._broker.publish_with(envelopes, delay, [status for _, status in entries], self._keyspace)

    async def settle(self, endings: Sequence[tuple[Lease, Settlement, TaskStatus]]) -> list[bool]:
        """See `JointStore.settle`."""
        return await self._broker.settle_with(endings, self._keyspace)
