"""What is specific to the result backend in memory; everything else is in the contract."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from stem_trio.errors import InvalidOptionError, StoreClosedError, StoreError
from stem_trio.status import Rank, TaskState
from stem_trio.stores.memory import InMemoryResultBackend
from stem_trio.testing.contracts import make_heartbeat, make_status

RUNNING, DONE = TaskState.RUNNING, TaskState.SUCCEEDED


@pytest.fixture
async def backend():
    async with InMemoryResultBackend() as backend:
        yield backend


async def watch(backend):
    async with backend.watch("a"):
        pass


OPERATIONS = {
    "record": lambda backend: backend.record([make_status("a", DONE, deliveries=2)]),
    "get": lambda backend: backend.get("a"),
    "watch": watch,
    "put_heartbeat": lambda backend: backend.put_heartbeat(make_heartbeat("w2"), ttl=10.0),
    "remove_heartbeat": lambda backend: backend.remove_heartbeat("w1"),
    "list_heartbeats": lambda backend: backend.list_heartbeats(),
}
each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


async def one_of_each(backend):
    status, heartbeat = make_status("a"), make_heartbeat("w1")
    assert await backend.record([status]) == [True]
    await backend.put_heartbeat(heartbeat, ttl=60.0)
    return status, heartbeat


class TestOpenAndClosed:
    @each_operation
    async def test_closed_backend_refuses(self, operation):
        backend = InMemoryResultBackend()
        with pytest.raises(StoreClosedError, match="InMemoryResultBackend"):
            await operation(backend)
        async with backend:
            pass
        with pytest.raises(StoreClosedError, match="InMemoryResultBackend"):
            await operation(backend)

    async def test_open_backend_cannot_be_opened(self, backend):
        with pytest.raises(StoreError, match="open already"):
            await backend.__aenter__()

    async def test_content_is_kept_and_time_goes_on_while_closed(self, mock_clock):
        backend = InMemoryResultBackend()
        async with backend:
            status, heartbeat = await one_of_each(backend)
        mock_clock.jump(59.0)
        async with backend:
            assert await backend.get("a") == status
            assert await backend.list_heartbeats() == [heartbeat]
        mock_clock.jump(1.0)
        async with backend:
            assert await backend.list_heartbeats() == []

    def test_no_time_passes_between_two_runs(self):
        backend = InMemoryResultBackend()

        async def first():
            async with backend:
                await one_of_each(backend)
                await trio.sleep(20.0)

        async def second():
            async with backend:
                await trio.sleep(39.0)
                assert len(await backend.list_heartbeats()) == 1
                await trio.sleep(1.5)
                assert await backend.list_heartbeats() == []
                await trio.sleep(539.0)
                assert await backend.get("a") is not None
                await trio.sleep(1.0)
                assert await backend.get("a") is None

        late = trio.testing.MockClock(autojump_threshold=0)
        late.jump(1e6)
        trio.run(first, clock=late)
        trio.run(second, clock=trio.testing.MockClock(autojump_threshold=0))

    async def test_closing_ends_every_wait(self):
        backend = InMemoryResultBackend()
        refused = []

        async def wait_for(task_id, task_status):
            async with backend.watch(task_id) as watch:
                task_status.started()
                with pytest.raises(StoreClosedError):
                    await watch.changed()
                refused.append(task_id)

        async with trio.open_nursery() as nursery:
            async with backend:
                for task_id in "aab":
                    await nursery.start(wait_for, task_id)
                await trio.testing.wait_all_tasks_blocked()
        assert sorted(refused) == ["a", "a", "b"]

    async def test_watch_of_an_earlier_opening(self):
        backend = InMemoryResultBackend()
        async with backend:
            old = backend.watch("a")
            watch = await old.__aenter__()
            await backend.record([make_status("a")])
        async with backend, backend.watch("a") as new:
            await backend.record([make_status("a", DONE)])
            assert (await watch.changed()).state is RUNNING, "what it saw while it was open"
            with pytest.raises(StoreClosedError):
                await watch.changed()
            await old.__aexit__(None, None, None)
            assert (await new.changed()).state is DONE

    @pytest.mark.parametrize("count", [0, -1, 1.5, True])
    def test_options_are_checked(self, count):
        with pytest.raises(InvalidOptionError, match="max_finished"):
            InMemoryResultBackend(max_finished=count)


class TestOperations:
    @each_operation
    async def test_each_is_a_checkpoint(self, backend, operation):
        with trio.testing.assert_checkpoints():
            await operation(backend)

    @each_operation
    async def test_cancelled_before_it_does_nothing(self, backend, operation):
        status, heartbeat = await one_of_each(backend)
        with trio.CancelScope() as scope:
            scope.cancel()
            await operation(backend)
        assert scope.cancelled_caught
        assert await backend.get("a") == status
        assert await backend.list_heartbeats() == [heartbeat]
        assert backend._watches == {}

    async def test_changed_is_a_checkpoint(self, backend):
        async with backend.watch("a") as watch:
            await backend.record([make_status("a")])
            with trio.testing.assert_checkpoints():
                await watch.changed()


class TestRetention:
    async def test_status_expires_at_its_moment(self, backend, mock_clock):
        await backend.record([make_status(str(number)) for number in range(10)])  # what is swept before it
        await backend.record([make_status("a", DONE, ttl=10.0)])
        mock_clock.jump(9.75)
        assert await backend.record([make_status("a")]) == [False]
        assert await backend.get("a") is not None
        mock_clock.jump(0.25)
        assert await backend.get("a") is None
        assert await backend.record([make_status("a")]) == [True]
        assert (await backend.get("a")).state is RUNNING

    async def test_finished_are_bounded_in_number(self, mock_clock):
        async with InMemoryResultBackend(max_finished=3) as backend:
            await backend.record([make_status("unfinished")])
            for number in range(5):
                await backend.record([make_status(str(number), DONE)])
            kept = [await backend.get(str(number)) is not None for number in range(5)]
            assert kept == [False, False, True, True, True]
            assert await backend.get("unfinished") is not None

    async def test_what_runs_again_is_not_counted_as_finished(self, mock_clock):
        replayed = 8 + Rank.REPLAYED
        async with InMemoryResultBackend(max_finished=2) as backend:
            await backend.record([make_status("a", DONE), make_status("b", DONE)])
            await backend.record([make_status("a", TaskState.QUEUED, version=replayed)])
            await backend.record([make_status("c", DONE)])
            assert None not in [await backend.get(task_id) for task_id in "abc"]
            # It ends for the second time: now it is the newest, and b makes room for it.
            await backend.record([make_status("a", DONE, deliveries=2)])
            assert [await backend.get(task_id) is not None for task_id in "abc"] == [True, False, True]

    async def test_finished_one_that_expired_is_not_counted(self, mock_clock):
        async with InMemoryResultBackend(max_finished=2) as backend:
            await backend.record([make_status("a", DONE, ttl=1.0), make_status("b", DONE)])
            mock_clock.jump(1.0)
            await backend.record([make_status("c", DONE)])
            assert await backend.get("b") is not None

    @pytest.mark.parametrize("state", [RUNNING, DONE])
    async def test_expired_ones_do_not_pile_up(self, backend, mock_clock, state):
        kept = make_status("kept", ttl=1e9)
        await backend.record([kept])
        most = 0
        for number in range(3000):
            await backend.record([make_status(str(number), state, ttl=100.0)])
            mock_clock.jump(1.0)
            most = max(most, len(backend._records), len(backend._ring))
        assert most < 250  # 100 are in force at a time
        assert await backend.get("kept") == kept

    async def test_ring_holds_each_record_once(self, backend, mock_clock):
        for number in range(100):
            await backend.record([make_status(str(number), DONE)])
            await backend.record([make_status(str(number % 7), DONE, deliveries=number + 2)])
        assert len(backend._ring) == len(backend._records) == 100

    async def test_records_that_made_room_leave_the_ring(self, mock_clock):
        async with InMemoryResultBackend(max_finished=10) as backend:
            for number in range(1000):
                await backend.record([make_status(str(number), DONE)])
            assert len(backend._records) == len(backend._finished) == 10
            assert len(backend._ring) < 30

    async def test_heartbeats_of_dead_workers_do_not_pile_up(self, backend, mock_clock):
        for number in range(100):
            await backend.put_heartbeat(make_heartbeat(str(number)), ttl=10.0)
            mock_clock.jump(5.0)
        assert len(backend._heartbeats) == 2


class TestWatch:
    async def test_end_is_not_skipped_for_what_follows(self, backend, mock_clock):
        async with backend.watch("a") as watch:
            end = make_status("a", DONE)
            again = make_status("a", TaskState.QUEUED, version=8 + Rank.REPLAYED)
            rerun = make_status("a", RUNNING, deliveries=2)
            assert await backend.record([make_status("a"), end, again, rerun]) == [True] * 4
            assert await watch.changed() == end
            assert await watch.changed() == rerun

    async def test_only_the_last_of_two_ends_is_kept(self, backend, mock_clock):
        async with backend.watch("a") as watch:
            last = make_status("a", DONE, deliveries=3)
            await backend.record([make_status("a", DONE), make_status("a", deliveries=2), last])
            assert await watch.changed() == last
            with trio.move_on_after(0):
                await watch.changed()
                raise AssertionError("nothing else is to be seen")

    async def test_several_wait_at_one_watch(self, backend, mock_clock):
        """Each change goes to one of them; the others wait on."""
        seen = []

        async def wait(watch):
            seen.append(await watch.changed())

        async with backend.watch("a") as watch, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait, watch)
            for deliveries in range(1, 4):
                await trio.testing.wait_all_tasks_blocked()
                assert len(seen) == deliveries - 1
                await backend.record([make_status("a", deliveries=deliveries)])
        assert [status.deliveries for status in seen] == [1, 2, 3]

    async def test_ended_watch(self, backend, mock_clock):
        async with backend.watch("a") as watch:
            pass
        with pytest.raises(StoreClosedError, match="watch has ended"):
            await watch.changed()
        assert backend._watches == {}
