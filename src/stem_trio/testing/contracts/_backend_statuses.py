"""Writing and reading statuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from ...ids import new_task_id
from ...status import Progress, Rank, TaskError, TaskState
from ._backend_base import BackendTests
from ._make import ODD_NAMES, RANKS, make_status

if TYPE_CHECKING:
    from ...abc import ResultBackend
    from ...status import TaskStatus

__all__ = ["StatusTests"]

PROGRESS = Progress(percent=12.5, at=1_700_000_000.0, data=msgspec.Raw(b'{ "done": [1, 2] }'))
ERROR = TaskError(type="ValueError", message="línea 1\nline 2 🦆", traceback="Traceback ...\n", retryable=False)


class StatusTests(BackendTests):
    """Statuses are kept as they are, for as long as they ask, and move forward only."""

    async def test_recorded_status_is_read(
        self, backend: ResultBackend, another_backend: ResultBackend, task_id: str
    ) -> None:
        """A status that was recorded is read by everybody (R1)."""
        status = make_status(task_id)
        await self.write(backend, status)
        assert await backend.get(task_id) == status
        assert await another_backend.get(task_id) == status

    async def test_unknown_task(self, backend: ResultBackend, task_id: str) -> None:
        """G12: a task that nothing was recorded for is unknown, which is no error."""
        await self.write(backend, make_status(new_task_id()))
        assert await backend.get(task_id) is None

    @pytest.mark.parametrize("state", TaskState)
    async def test_every_field_is_kept(self, backend: ResultBackend, task_id: str, state: TaskState) -> None:
        """The status that is read equals the one that was recorded, field by field, in each state (R13, R14)."""
        status = make_status(
            task_id,
            state,
            deliveries=3,
            name="every.field",
            queue="队列 {a}:b|c",
            updated_at=1_700_000_000.123456,
            ttl=self.long,
            attempt=2,
            worker="host-1-abc",
            started_at=1_699_999_999.5,
            value=msgspec.Raw('{ "text": "ключ \\u00e4", "float": 1.0, "big": 10000000000000000000001 }'.encode()),
            error=ERROR,
            reason="why: {}|☠",
            next_retry_at=1_700_000_001.25,
            progress=PROGRESS,
            parent_id="parent",
            root_id="root",
        )
        await self.write(backend, status)
        read = await backend.get(task_id)
        assert read is not None
        assert read == status
        assert read.encode() == status.encode()

    async def test_large_value(self, backend: ResultBackend, task_id: str) -> None:
        """A returned value may be large."""
        status = make_status(task_id, TaskState.SUCCEEDED, value=msgspec.Raw(b'"' + b"x" * 200 * 1024 + b'"'))
        await self.write(backend, status)
        assert await backend.get(task_id) == status

    async def test_odd_ids(self, backend: ResultBackend, task_id: str) -> None:
        """A task id may be any text; no two of them are mixed up."""
        statuses = [make_status(f"{task_id}{name}", name=name) for name in ODD_NAMES]
        await self.write(backend, *statuses)
        for status in statuses:
            assert await backend.get(status.id) == status
        assert await backend.get(task_id) is None

    # --- order --------------------------------------------------------------------------------------------------------

    async def test_newer_status_replaces_older(self, backend: ResultBackend, task_id: str) -> None:
        """A newer status takes the place of the older one as a whole: its error does not linger (R4)."""
        await self.write(backend, make_status(task_id, TaskState.RETRYING, error=ERROR, reason="r", next_retry_at=1.0))
        newer = make_status(task_id, TaskState.SUCCEEDED, deliveries=2, value=msgspec.Raw(b"1"))
        await self.write(backend, newer)
        assert await backend.get(task_id) == newer

    async def test_statuses_move_forward_only(self, backend: ResultBackend) -> None:
        """G5: for each pair of states and deliveries the status of lower version is refused, the other one written."""
        steps = [(deliveries, state, rank) for deliveries in range(3) for state, rank in RANKS]

        def status(task_id: str, step: tuple[int, TaskState, int]) -> TaskStatus:
            deliveries, state, rank = step
            return make_status(task_id, state, deliveries=deliveries, version=deliveries * Rank.SPAN + rank)

        pairs = [(new_task_id(), first, second) for first in steps for second in steps]
        assert all(await backend.record([status(task_id, first) for task_id, first, _ in pairs]))
        answers = await backend.record([status(task_id, second) for task_id, _, second in pairs])
        for (task_id, first, second), written in zip(pairs, answers, strict=True):
            assert written is (status(task_id, second).version >= status(task_id, first).version)
        for number in range(0, len(pairs), 7):  # a sample: reading goes one by one
            task_id, first, second = pairs[number]
            read = await backend.get(task_id)
            assert read is not None
            expected = status(task_id, second if answers[number] else first)
            assert (read.state, read.version) == (expected.state, expected.version)

    @pytest.mark.parametrize("late", [TaskState.QUEUED, TaskState.RUNNING, TaskState.RETRYING])
    @pytest.mark.parametrize("end", [state for state in TaskState if state.terminal])
    async def test_end_is_not_overwritten(
        self, backend: ResultBackend, another_backend: ResultBackend, task_id: str, end: TaskState, late: TaskState
    ) -> None:
        """G5: a terminal status stands against whatever was delayed on its way, from whomever."""
        final = make_status(task_id, end, deliveries=2)
        await self.write(backend, final)
        assert await another_backend.record([make_status(task_id, late, deliveries=2)]) == [False]
        assert await another_backend.record([make_status(task_id, TaskState.SUCCEEDED, deliveries=1)]) == [False]
        assert await backend.get(task_id) == final

    async def test_equal_version_replaces(self, backend: ResultBackend, task_id: str) -> None:
        """A record of equal version replaces the one in place: progress is updated so, and a write can be repeated."""
        first = make_status(task_id, TaskState.RUNNING)
        second = make_status(task_id, TaskState.RUNNING, progress=PROGRESS)
        for status in (first, first, second):
            await self.write(backend, status)
            assert await backend.get(task_id) == status

    async def test_batch_is_recorded_in_order(self, backend: ResultBackend, task_id: str) -> None:
        """G5: within a batch, too, the version decides; the answers follow the batch's order."""
        other_id = new_task_id()
        running, ended = make_status(task_id), make_status(task_id, TaskState.SUCCEEDED)
        other = make_status(other_id)
        assert await backend.record([running, ended, running, other]) == [True, True, False, True]
        assert await backend.get(task_id) == ended
        assert await backend.get(other_id) == other

    async def test_recording_at_the_same_time(
        self, backend: ResultBackend, another_backend: ResultBackend, task_id: str
    ) -> None:
        """G2: whoever records at the same time, and in whatever order, the newest status stands in the end."""
        async with trio.open_nursery() as nursery:
            for deliveries in (3, 9, 1, 7, 5):
                for source, state in ((backend, TaskState.RUNNING), (another_backend, TaskState.RETRYING)):
                    nursery.start_soon(source.record, [make_status(task_id, state, deliveries=deliveries)])
        read = await backend.get(task_id)
        assert read is not None
        assert (read.deliveries, read.state) == (9, TaskState.RETRYING)

    async def test_empty_batch(self, backend: ResultBackend) -> None:
        """An empty batch is accepted and means nothing."""
        assert await backend.record([]) == []

    async def test_a_thousand_in_one_batch(self, backend: ResultBackend) -> None:
        """A batch of a thousand is recorded like one of one."""
        statuses = [make_status(new_task_id()) for _ in range(1000)]
        await self.write(backend, *statuses)
        for status in statuses[::100]:
            assert await backend.get(status.id) == status

    async def test_cancelled_record_is_whole_or_nothing(self, backend: ResultBackend, task_id: str) -> None:
        """G2: a status whose recording was cancelled is there or not; recording again is safe."""
        status = make_status(task_id)
        with trio.CancelScope() as scope:
            scope.cancel()
            await backend.record([status])
        assert await backend.get(task_id) in (None, status)
        await self.write(backend, status)
        assert await backend.get(task_id) == status

    # --- retention ----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", TaskState)
    async def test_retention_ends(self, backend: ResultBackend, task_id: str, state: TaskState) -> None:
        """G14: a status is kept for as long as it says itself, in whatever state, and no longer (R2, R3)."""
        kept = make_status(new_task_id(), state, ttl=self.long)
        gone = make_status(task_id, state, ttl=self.short)
        await self.write(backend, kept, gone)
        await self.pass_short()
        assert await backend.get(gone.id) is None
        assert await backend.get(kept.id) == kept

    async def test_retention_begins_anew(self, backend: ResultBackend, task_id: str) -> None:
        """G14: the retention of the last status counts, be it longer or shorter than that of the one before."""
        other_id = new_task_id()
        await self.write(backend, make_status(task_id, ttl=self.short), make_status(other_id, ttl=self.long))
        longer = make_status(task_id, TaskState.SUCCEEDED, ttl=self.long)
        await self.write(backend, longer, make_status(other_id, TaskState.SUCCEEDED, ttl=self.short))
        await self.pass_short()
        assert await backend.get(task_id) == longer
        assert await backend.get(other_id) is None

    async def test_refused_status_leaves_retention_alone(self, backend: ResultBackend, task_id: str) -> None:
        """G5: a status that is refused changes nothing, the retention of the one in place included."""
        other_id = new_task_id()
        end = make_status(task_id, TaskState.SUCCEEDED, ttl=self.long)
        other_end = make_status(other_id, TaskState.SUCCEEDED, ttl=self.short)
        await self.write(backend, end, other_end)
        late = [make_status(task_id, ttl=self.short), make_status(other_id, ttl=self.long)]
        assert await backend.record(late) == [False, False]
        await self.pass_short()
        assert await backend.get(task_id) == end
        assert await backend.get(other_id) is None

    async def test_new_life_after_retention(self, backend: ResultBackend, task_id: str) -> None:
        """G14: nothing is kept of a status whose retention has ended, not even its version."""
        await self.write(backend, make_status(task_id, TaskState.SUCCEEDED, deliveries=5, ttl=self.short))
        await self.pass_short()
        first = make_status(task_id, TaskState.QUEUED, deliveries=0)
        await self.write(backend, first)
        assert await backend.get(task_id) == first
