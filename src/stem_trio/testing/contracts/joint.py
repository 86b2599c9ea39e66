"""The contract of joint stores as a test suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from ...ids import new_task_id
from ...outcome import Complete, MoveToDead, Release, Retry, Settlement
from ...settlement import submitted_status
from ...status import Rank, TaskState
from ._base import StoreContract
from ._make import make_envelope, make_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...abc import Broker, JointStore, ResultBackend
    from ...envelope import Delivery, Envelope
    from ...status import TaskStatus

__all__ = ["JointStoreContract"]

SETTLEMENTS: Sequence[tuple[Settlement, TaskState, tuple[int, int, int, int]]] = (
    (Complete(), TaskState.SUCCEEDED, (0, 0, 0, 0)),
    (Retry(0.0), TaskState.RETRYING, (1, 0, 0, 0)),
    (Retry(1000.0), TaskState.RETRYING, (0, 1, 0, 0)),
    (MoveToDead("no", "why"), TaskState.FAILED, (0, 0, 0, 1)),
    (Release(), TaskState.QUEUED, (1, 0, 0, 0)),
)


class JointStoreContract(StoreContract):
    """A task and its status are one step.

    Needs a fixture `broker`, an open broker, and `backend`, an open backend that it can be joined with.
    """

    @pytest.fixture
    def joint(self, broker: Broker, backend: ResultBackend) -> JointStore:
        """Both as one."""
        joint = broker.join(backend)
        assert joint is not None, "these stores cannot be joined"
        return joint

    async def places(self, broker: Broker, queue: str) -> tuple[int, int, int, int]:
        """How many tasks are ready, delayed, leased, dead."""
        stats = await broker.stats(queue)
        return stats.ready, stats.delayed, stats.leased, stats.dead

    def entry(self, envelope: Envelope, delay: float = 0.0) -> tuple[Envelope, TaskStatus]:
        """A task with the status that a producer gives it."""
        return envelope, submitted_status(envelope, now=envelope.created_at, delay=delay)

    async def claimed(self, joint: JointStore, broker: Broker, queue: str, count: int = 1) -> list[Delivery]:
        """Tasks that were published, and are leased."""
        envelopes = [make_envelope(queue=queue, visibility_timeout=self.long) for _ in range(count)]
        assert await joint.publish([self.entry(envelope) for envelope in envelopes]) == [True] * count
        deliveries = await broker.claim([queue], consumer="c", limit=count, wait=0)
        assert [delivery.envelope for delivery in deliveries] == envelopes
        return deliveries

    def end(self, delivery: Delivery, state: TaskState) -> TaskStatus:
        """The status of how a delivery ended."""
        rank = Rank.TERMINAL if state.terminal else Rank.GIVEN_BACK
        version = delivery.deliveries * Rank.SPAN + rank
        return make_status(
            delivery.envelope.id, state, deliveries=delivery.deliveries, version=version, queue=delivery.lease.queue
        )

    # --- publishing ---------------------------------------------------------------------------------------------------

    async def test_published_with_its_status(
        self, joint: JointStore, broker: Broker, backend: ResultBackend, queue: str
    ) -> None:
        """G2: a task that was published is in its queue, and its status is read."""
        entries = [self.entry(make_envelope(queue=queue, priority=priority)) for priority in (1, 2)]
        assert await joint.publish(entries) == [True, True]
        assert [task.envelope for task in await broker.peek(queue)] == [entries[1][0], entries[0][0]]
        assert [await backend.get(envelope.id) for envelope, _ in entries] == [status for _, status in entries]

    async def test_published_with_a_delay(
        self, joint: JointStore, broker: Broker, backend: ResultBackend, queue: str
    ) -> None:
        """A delayed task is not handed out before its time, and has its status at once."""
        entry = self.entry(make_envelope(queue=queue), self.short)
        assert await joint.publish([entry], delay=self.short) == [True]
        assert await self.places(broker, queue) == (0, 1, 0, 0)
        assert await backend.get(entry[0].id) == entry[1]
        assert await broker.claim([queue], consumer="c", limit=1, wait=0) == []
        await self.pass_short()
        assert len(await broker.claim([queue], consumer="c", limit=1, wait=0)) == 1

    async def test_nothing_is_published(self, joint: JointStore) -> None:
        """No tasks are published without a word."""
        assert await joint.publish([]) == []
        assert await joint.settle([]) == []

    async def test_published_twice(self, joint: JointStore, broker: Broker, backend: ResultBackend, queue: str) -> None:
        """An id that is held is left as it is, its status too; so is the second of two in one call."""
        envelope = make_envelope(queue=queue)
        first, second = self.entry(envelope), (envelope, make_status(envelope.id, TaskState.QUEUED, deliveries=0))
        assert await joint.publish([first, second]) == [True, False]
        assert await joint.publish([second]) == [False]
        assert await self.places(broker, queue) == (1, 0, 0, 0)
        assert await backend.get(envelope.id) == first[1]

    async def test_published_after_its_end(
        self, joint: JointStore, broker: Broker, backend: ResultBackend, queue: str
    ) -> None:
        """G1: a publication that is repeated when the task is over already does not bring it back."""
        [delivery] = await self.claimed(joint, broker, queue)
        end = self.end(delivery, TaskState.SUCCEEDED)
        assert await joint.settle([(delivery.lease, Complete(), end)]) == [True]
        new = self.entry(make_envelope(queue=queue))
        assert await joint.publish([self.entry(delivery.envelope), new]) == [False, True]
        assert await self.places(broker, queue) == (1, 0, 0, 0)
        assert await backend.get(delivery.envelope.id) == end

    async def test_published_with_an_unfinished_status(
        self, joint: JointStore, broker: Broker, backend: ResultBackend, queue: str
    ) -> None:
        """A status alone is no task: what no queue holds, and is not over, is published. The newer status stands."""
        envelope = make_envelope(queue=queue)
        running = make_status(envelope.id, TaskState.RUNNING)
        assert await backend.record([running]) == [True]
        assert await joint.publish([self.entry(envelope)]) == [True]
        assert await self.places(broker, queue) == (1, 0, 0, 0)
        assert await backend.get(envelope.id) == running

    async def test_published_to_several_queues(
        self, joint: JointStore, broker: Broker, backend: ResultBackend, queue: str, other_queue: str
    ) -> None:
        """Many tasks for several queues get there in one call, in their order."""
        entries = [self.entry(make_envelope(queue=(queue, other_queue)[number % 2])) for number in range(1201)]
        assert await joint.publish(entries) == [True] * 1201
        for name, first in ((queue, 0), (other_queue, 1)):
            deliveries = await broker.claim([name], consumer="c", limit=500, wait=0)
            # Between calls that a store makes of one, others may come; within it order is as given.
            assert [task.envelope.id for task in deliveries[:50]] == [task.id for task, _ in entries[first:100:2]]
        assert await backend.get(entries[-1][0].id) == entries[-1][1]

    async def test_cancelled_publication(
        self, joint: JointStore, broker: Broker, backend: ResultBackend, queue: str
    ) -> None:
        """G2: a publication that is cancelled has been made whole or not at all."""
        for moment in (0.0, 0.0002, 0.0005, 0.001, 0.003):
            envelopes = [make_envelope(queue=queue) for _ in range(20)]
            with trio.move_on_after(moment):
                await joint.publish([self.entry(envelope) for envelope in envelopes])
            await self.pass_time(self.pause)
            held = {task.envelope.id for task in await broker.peek(queue, limit=1000)}
            for envelope in envelopes:
                assert (envelope.id in held) == (await backend.get(envelope.id) is not None)

    # --- settling -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("settlement", "state", "places"), SETTLEMENTS)
    async def test_settled_with_its_status(
        self,
        joint: JointStore,
        broker: Broker,
        backend: ResultBackend,
        queue: str,
        settlement: Settlement,
        state: TaskState,
        places: tuple[int, int, int, int],
    ) -> None:
        """G2, G6: a delivery that was settled is where it belongs, and its status is read."""
        [delivery] = await self.claimed(joint, broker, queue)
        end = self.end(delivery, state)
        assert await joint.settle([(delivery.lease, settlement, end)]) == [True]
        assert await self.places(broker, queue) == places
        assert await backend.get(delivery.envelope.id) == end

    async def test_stale_lease(self, joint: JointStore, broker: Broker, backend: ResultBackend, queue: str) -> None:
        """G3: with a stale lease neither the task nor its status changes, whatever the version says."""
        [delivery] = await self.claimed(joint, broker, queue)
        stale = msgspec.structs.replace(delivery.lease, token=delivery.lease.token + 1)
        before = await backend.get(delivery.envelope.id)
        newest = self.end(delivery, TaskState.SUCCEEDED)
        assert await joint.settle([(stale, Complete(), newest)]) == [False]
        assert await self.places(broker, queue) == (0, 0, 1, 0)
        assert await backend.get(delivery.envelope.id) == before
        assert await joint.settle([(delivery.lease, Complete(), newest)]) == [True]
        assert await joint.settle([(delivery.lease, Complete(), newest)]) == [False]

    async def test_newer_status(self, joint: JointStore, broker: Broker, backend: ResultBackend, queue: str) -> None:
        """G5: a newer status stands; the settlement is made all the same."""
        [delivery] = await self.claimed(joint, broker, queue)
        newer = make_status(delivery.envelope.id, TaskState.REVOKED, deliveries=9)
        assert await backend.record([newer]) == [True]
        assert await joint.settle([(delivery.lease, Complete(), self.end(delivery, TaskState.SUCCEEDED))]) == [True]
        assert await self.places(broker, queue) == (0, 0, 0, 0)
        assert await backend.get(delivery.envelope.id) == newer

    async def test_many_at_once(self, joint: JointStore, broker: Broker, backend: ResultBackend, queue: str) -> None:
        """Each of many deliveries, good and stale ones mixed, has its own answer."""
        deliveries = await self.claimed(joint, broker, queue, 30)
        leases = [
            msgspec.structs.replace(delivery.lease, token=1) if number % 3 == 0 else delivery.lease
            for number, delivery in enumerate(deliveries)
        ]
        ends = [self.end(delivery, TaskState.SUCCEEDED) for delivery in deliveries]
        answers = await joint.settle([(lease, Complete(), end) for lease, end in zip(leases, ends, strict=True)])
        assert answers == [number % 3 != 0 for number in range(30)]
        assert await self.places(broker, queue) == (0, 0, 10, 0)
        for number, end in enumerate(ends):
            found = await backend.get(end.id)
            assert found is not None
            assert found.state is (TaskState.QUEUED if number % 3 == 0 else TaskState.SUCCEEDED)

    async def test_watchers_are_told(
        self, joint: JointStore, broker: Broker, backend: ResultBackend, queue: str
    ) -> None:
        """G12: whoever watches is told of statuses that were written along with tasks."""
        envelope = make_envelope(id=new_task_id(), queue=queue, visibility_timeout=self.long)
        async with backend.watch(envelope.id) as watch:
            entry = self.entry(envelope)
            assert await joint.publish([entry]) == [True]
            with trio.fail_after(self.patience):
                assert await watch.changed() == entry[1]
            [delivery] = await broker.claim([queue], consumer="c", limit=1, wait=0)
            end = self.end(delivery, TaskState.FAILED)
            assert await joint.settle([(delivery.lease, MoveToDead("no", ""), end)]) == [True]
            with trio.fail_after(self.patience):
                assert await watch.changed() == end
