"""Broker and result backend on one file, as one store."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from ...abc import JointStore
from .backend import SqliteResultBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...abc import ResultBackend
    from ...envelope import Envelope, Lease
    from ...outcome import Settlement
    from ...status import TaskStatus
    from .broker import SqliteBroker

__all__ = ["join"]


def join(broker: SqliteBroker, backend: ResultBackend) -> JointStore | None:
    """Both as one, if they are on one file and may share its thread; otherwise None."""
    if isinstance(backend, SqliteResultBackend) and backend.settings == broker.settings:
        return _SqliteJointStore(broker)
    return None


@final
class _SqliteJointStore(JointStore):
    """Writes statuses in the transactions that move tasks."""

    def __init__(self, broker: SqliteBroker) -> None:
        self._broker = broker

    async def publish(self, entries: Sequence[tuple[Envelope, TaskStatus]], *, delay: float = 0.0) -> list[bool]:
        """See `JointStore.publish`. In steps of 500 tasks, or 16 MiB."""
        return await self._broker.publish_with(entries, delay)

    async def settle(self, endings: Sequence[tuple[Lease, Settlement, TaskStatus]]) -> list[bool]:
        """See `JointStore.settle`. In steps of 500 deliveries."""
        return await self._broker.settle_with(endings)
