"""Watching a status."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...ids import new_task_id
from ...status import TaskState
from ._backend_base import BackendTests
from ._make import ODD_NAMES, make_status

if TYPE_CHECKING:
    from ...abc import ResultBackend, StatusWatch
    from ...status import TaskStatus

__all__ = ["WatchTests"]


class WatchTests(BackendTests):
    """G12: who watches misses no end, and does not hang."""

    async def next(self, watch: StatusWatch) -> TaskStatus:
        """The next change, which must come."""
        with trio.fail_after(self.patience):
            return await watch.changed()

    async def until_end(self, watch: StatusWatch) -> TaskStatus:
        """The terminal status, which must come."""
        while not (status := await self.next(watch)).state.terminal:
            pass
        return status

    async def assert_silent(self, watch: StatusWatch) -> None:
        """No change comes."""
        with trio.move_on_after(self.pause) as scope:
            await watch.changed()
        assert scope.cancelled_caught

    async def test_changes_one_by_one(
        self, backend: ResultBackend, another_backend: ResultBackend, task_id: str
    ) -> None:
        """Each status that is recorded while nobody hurries is seen, through whichever connection (R5)."""
        async with another_backend.watch(task_id) as watch:
            for state in (TaskState.QUEUED, TaskState.RUNNING, TaskState.RETRYING):
                await self.write(backend, make_status(task_id, state))
                assert (await self.next(watch)).state is state
            final = make_status(task_id, TaskState.SUCCEEDED)
            await self.write(backend, final)
            assert await self.next(watch) == final
            await self.assert_silent(watch)

    async def test_change_is_waited_for(
        self, backend: ResultBackend, another_backend: ResultBackend, task_id: str
    ) -> None:
        """Who waits for a change is woken by it."""
        async with another_backend.watch(task_id) as watch, trio.open_nursery() as nursery:
            waiting = self.start(nursery, watch.changed)
            await self.pass_time(self.pause)
            assert not waiting.ended
            status = make_status(task_id)
            await self.write(backend, status)
            assert await waiting.result() == status

    async def test_watch_begins_when_entered(self, backend: ResultBackend, task_id: str) -> None:
        """What was recorded before the watch began is for `get`, not for the watch."""
        await self.write(backend, make_status(task_id))
        async with backend.watch(task_id) as watch:
            await self.assert_silent(watch)
            final = make_status(task_id, TaskState.SUCCEEDED)
            await self.write(backend, final)
            assert await self.next(watch) == final

    async def test_watch_then_get_misses_nothing(
        self, backend: ResultBackend, another_backend: ResultBackend, task_id: str
    ) -> None:
        """G12: who enters a watch and then reads sees the end in one of the two ways, whenever it comes."""

        async def wait_for_end(task: str) -> TaskStatus:
            async with another_backend.watch(task) as watch:
                status = await another_backend.get(task)
                if status is not None and status.state.terminal:
                    return status
                return await self.until_end(watch)

        for number in range(30):
            task = f"{task_id}-{number}"
            await self.write(backend, make_status(task))
            final = make_status(task, TaskState.SUCCEEDED)
            async with trio.open_nursery() as nursery:
                waiting = self.start(nursery, partial(wait_for_end, task))
                await self.pass_time(self.pause / 50 * (number % 5))
                await self.write(backend, final)
                assert await waiting.result() == final

    async def test_last_status_is_never_skipped(self, backend: ResultBackend, task_id: str) -> None:
        """G12: of statuses that follow each other quickly some may be skipped, the last one never is."""
        async with backend.watch(task_id) as quick, backend.watch(task_id) as slow, trio.open_nursery() as nursery:
            reading = self.start(nursery, partial(self.until_end, quick))
            for deliveries in range(1, 50):
                await self.write(
                    backend,
                    make_status(task_id, TaskState.RUNNING, deliveries=deliveries),
                    make_status(task_id, TaskState.RETRYING, deliveries=deliveries),
                )
            final = make_status(task_id, TaskState.FAILED, deliveries=50)
            await self.write(backend, final)
            assert await reading.result() == final
            assert await self.until_end(slow) == final
            for watch in (quick, slow):
                await self.assert_silent(watch)

    async def test_changes_move_forward(self, backend: ResultBackend, task_id: str) -> None:
        """G5: a status that was refused is not shown to anybody."""
        async with backend.watch(task_id) as watch:
            final = make_status(task_id, TaskState.SUCCEEDED, deliveries=2)
            await self.write(backend, final)
            assert await backend.record([make_status(task_id, deliveries=2)]) == [False]
            assert await self.next(watch) == final
            await self.assert_silent(watch)

    async def test_progress_is_a_change(self, backend: ResultBackend, task_id: str) -> None:
        """A record of equal version is a change like any other."""
        async with backend.watch(task_id) as watch:
            for number in range(3):
                status = make_status(task_id, reason=f"step {number}")
                await self.write(backend, status)
                assert await self.next(watch) == status

    async def test_two_watches(self, backend: ResultBackend, another_backend: ResultBackend, task_id: str) -> None:
        """Each watch of a task sees its changes, whatever the others see or whether they go."""
        async with backend.watch(task_id) as first:
            async with another_backend.watch(task_id) as second, backend.watch(task_id) as third:
                status = make_status(task_id)
                await self.write(backend, status)
                for watch in (first, second, third):
                    assert await self.next(watch) == status
            final = make_status(task_id, TaskState.SUCCEEDED)
            await self.write(backend, final)
            assert await self.next(first) == final

    async def test_other_tasks_do_not_matter(self, backend: ResultBackend, task_id: str) -> None:
        """A watch sees its own task only, whatever the ids look like."""
        names = [f"{task_id}{name}" for name in ODD_NAMES]
        async with AsyncExitStack() as stack:
            silent = await stack.enter_async_context(backend.watch(task_id))
            watches = [await stack.enter_async_context(backend.watch(name)) for name in names]
            statuses = [make_status(name) for name in names]
            await self.write(backend, *statuses)
            for status, watch in zip(statuses, watches, strict=True):
                assert await self.next(watch) == status
            await self.assert_silent(silent)
            await self.assert_silent(watches[0])

    async def test_cancelled_wait_loses_nothing(self, backend: ResultBackend, task_id: str) -> None:
        """G12: a status that comes while `changed` is being cancelled is seen by it, or by the next one."""
        async with backend.watch(task_id) as watch:
            for deliveries in range(1, 21):
                status = make_status(task_id, deliveries=deliveries)
                async with trio.open_nursery() as nursery:
                    waiting = self.start(nursery, watch.changed)
                    await self.pass_time(self.pause / 10)
                    await self.write(backend, status)
                    seen = await waiting.cancel()
                assert (seen or [await self.next(watch)]) == [status]

    async def test_many_watches(self, backend: ResultBackend, another_backend: ResultBackend) -> None:
        """A hundred tasks are watched at once, and each watch sees its end."""
        finals = [make_status(new_task_id(), TaskState.SUCCEEDED) for _ in range(100)]
        async with AsyncExitStack() as stack:
            watches = [await stack.enter_async_context(another_backend.watch(final.id)) for final in finals]
            await self.write(backend, *finals)
            for final, watch in zip(finals, watches, strict=True):
                assert await self.next(watch) == final
