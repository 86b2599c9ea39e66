"""Tasks and their statuses on one server: what a producer and a worker make of it."""

from __future__ import annotations

import pytest
import trio

from stem_trio import Stem, StemSignals, TaskState, Worker, task
from stem_trio.outcome import Complete
from stem_trio.settlement import submitted_status
from stem_trio.status import Rank
from stem_trio.stores.redis import RedisBroker, RedisCommands, RedisResultBackend
from stem_trio.testing.contracts import make_envelope, make_status


@task(name="double")
async def double(n: int) -> int:
    return 2 * n


@pytest.fixture
async def stores(redis_url, prefix):
    async with (
        RedisBroker.connect(redis_url, prefix=prefix) as broker,
        RedisResultBackend.connect(redis_url, prefix=prefix) as backend,
    ):
        yield broker, backend


async def test_watchers_are_told_at_once(stores):
    """G12: by the server, not by looking again, which happens every ten seconds."""
    broker, backend = stores
    joint = broker.join(backend)
    envelope = make_envelope()
    with trio.fail_after(5):
        async with backend.watch(envelope.id) as watch:
            status = submitted_status(envelope, now=1.0, delay=0.0)
            assert await joint.publish([(envelope, status)]) == [True]
            assert await watch.changed() == status
            [delivery] = await broker.claim(["default"], consumer="c", limit=1, wait=0)
            end = make_status(envelope.id, TaskState.SUCCEEDED, version=Rank.SPAN + Rank.TERMINAL)
            assert await joint.settle([(delivery.lease, Complete(), end)]) == [True]
            assert await watch.changed() == end


async def test_round_trips(stores, redis_url):
    """Three tasks that are enqueued together, and run together, cost one script call for each step."""
    broker, backend = stores
    stem = Stem(broker, backend, tasks=[double], signals=StemSignals())
    async with RedisCommands.connect(redis_url) as commands:
        await commands.config_resetstat()
        ids = await stem.enqueue_many([double.bind(n) for n in range(3)])
        assert (await commands.info("commandstats"))["cmdstat_evalsha"]["calls"] == 1
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(double.enqueue, stem, n)
        assert (await commands.info("commandstats"))["cmdstat_evalsha"]["calls"] == 2
        async with Worker(broker, backend, tasks=[double], signals=StemSignals()):
            with trio.fail_after(10):
                results = [await stem.wait_for_task(task_id) for task_id in ids]
        assert [result.value for result in results] == [0, 2, 4]


async def test_chosen_id_that_is_over(stores):
    """An id that has been used up enqueues nothing, in one round trip."""
    broker, backend = stores
    stem = Stem(broker, backend, tasks=[double], signals=StemSignals())
    chosen = double.with_options(task_id="mine")
    async with Worker(broker, backend, tasks=[double], signals=StemSignals()):
        handle = await chosen.enqueue(stem, 4)
        assert handle.created
        assert await handle.result(timeout=10) == 8
    again = await chosen.enqueue(stem, 5)
    assert not again.created
    assert (await broker.stats("default")).unfinished == 0
    assert await again.result(timeout=10) == 8
