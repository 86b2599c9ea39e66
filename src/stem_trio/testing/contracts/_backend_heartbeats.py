"""Heartbeats of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ...ids import new_task_id
from ._backend_base import BackendTests
from ._make import ODD_NAMES, make_heartbeat

if TYPE_CHECKING:
    from ...abc import ResultBackend
    from ...status import WorkerHeartbeat

__all__ = ["HeartbeatTests"]


class HeartbeatTests(BackendTests):
    """A worker is listed from its first heartbeat until it says goodbye, or is not heard of any more."""

    @pytest.fixture
    def worker(self) -> str:
        """What the ids of this test's workers begin with."""
        return f"w-{new_task_id()}"

    async def listed(self, backend: ResultBackend, worker: str) -> list[WorkerHeartbeat]:
        """The heartbeats of this test's workers; a store may know others."""
        return [heartbeat for heartbeat in await backend.list_heartbeats() if heartbeat.worker.startswith(worker)]

    async def test_heartbeats_are_listed(
        self, backend: ResultBackend, another_backend: ResultBackend, worker: str
    ) -> None:
        """Heartbeats are listed for everybody, ordered by worker, each field as it was (R10)."""
        beats = {
            name: make_heartbeat(
                f"{worker}{name}",
                host=f"host {name}",
                pid=4711,
                state="draining",
                queues=("a", name),
                concurrency=64,
                in_flight=3,
                running=2,
                totals={"succeeded": 5, "failed": 1},
                started_at=1_700_000_000.25,
                sent_at=1_700_000_001.5,
            )
            for name in ODD_NAMES
        }
        for beat in beats.values():
            await backend.put_heartbeat(beat, ttl=self.long)
        expected = sorted(beats.values(), key=lambda beat: beat.worker)
        assert await self.listed(backend, worker) == expected
        assert await self.listed(another_backend, worker) == expected

    async def test_newer_heartbeat_replaces(self, backend: ResultBackend, worker: str) -> None:
        """A worker has one heartbeat, its last one (R11)."""
        await backend.put_heartbeat(make_heartbeat(worker, running=1, totals={"failed": 1}), ttl=self.long)
        last = make_heartbeat(worker, running=2)
        await backend.put_heartbeat(last, ttl=self.long)
        assert await self.listed(backend, worker) == [last]

    async def test_heartbeats_expire(self, backend: ResultBackend, worker: str) -> None:
        """G14: a heartbeat is listed for its time, and no longer (R12)."""
        await backend.put_heartbeat(make_heartbeat(f"{worker}-gone"), ttl=self.short)
        kept = make_heartbeat(f"{worker}-kept")
        await backend.put_heartbeat(kept, ttl=self.long)
        await self.pass_short()
        assert await self.listed(backend, worker) == [kept]

    async def test_heartbeats_keep_a_worker_listed(self, backend: ResultBackend, worker: str) -> None:
        """Each heartbeat counts from when it is put; one that comes after all of them were lost is listed again."""
        beat = make_heartbeat(worker)
        await backend.put_heartbeat(beat, ttl=self.short)
        await backend.put_heartbeat(beat, ttl=self.long)
        await self.pass_short()
        assert await self.listed(backend, worker) == [beat]
        await backend.put_heartbeat(beat, ttl=self.short)
        await self.pass_short()
        assert await self.listed(backend, worker) == []
        await backend.put_heartbeat(beat, ttl=self.long)
        assert await self.listed(backend, worker) == [beat]

    async def test_removed_heartbeat(self, backend: ResultBackend, worker: str) -> None:
        """A worker that has ended is not listed; removing it again, or one that never was, is no error."""
        stays = make_heartbeat(f"{worker}-b")
        await backend.put_heartbeat(make_heartbeat(f"{worker}-a"), ttl=self.long)
        await backend.put_heartbeat(stays, ttl=self.long)
        for _ in range(2):
            await backend.remove_heartbeat(f"{worker}-a")
            assert await self.listed(backend, worker) == [stays]
        await backend.remove_heartbeat(f"{worker}-unknown")
