"""Fault points for stores that write a task and its status in one step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from stem_trio import Broker, Envelope, Lease, ResultBackend, TaskStatus
from stem_trio.abc import JointStore
from stem_trio.outcome import Settlement
from stem_trio.testing.faults import Faults, FaultyBackend, FaultyBroker


class FaultyJoint(JointStore):
    """A joint store whose operations pass through faults, as ``joint.publish`` and ``joint.settle``.

    Args:
        inner: the one that does it.
        faults: what goes wrong.
    """

    def __init__(self, inner: JointStore, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def publish(self, entries: Sequence[tuple[Envelope, TaskStatus]], *, delay: float = 0.0) -> list[bool]:
        """See `JointStore.publish`."""
        return await self._faults.around("joint.publish", partial(self._inner.publish, entries, delay=delay))

    async def settle(self, endings: Sequence[tuple[Lease, Settlement, TaskStatus]]) -> list[bool]:
        """See `JointStore.settle`."""
        return await self._faults.around("joint.settle", partial(self._inner.settle, endings))


def faulty(
    broker: Broker, backend: ResultBackend, faults: Faults, *, joint: bool
) -> tuple[FaultyBroker, FaultyBackend]:
    """Stores that pass through faults, apart from each other or as one."""
    outer = FaultyBroker(broker, faults)
    if joint:
        inner = broker.join(backend)
        assert inner is not None, "these stores share no place"
        outer.join = lambda _: FaultyJoint(inner, faults)
    return outer, FaultyBackend(backend, faults)
