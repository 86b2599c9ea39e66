"""Revoking, purging and replaying: what becomes of the tasks, their statuses, and who is told (G8, G15)."""

from __future__ import annotations

import logging
import math
from datetime import timedelta
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stem_trio import (
    FixedRetryStrategy,
    InvalidOptionError,
    Stem,
    StemSignals,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    TaskContext,
    TaskState,
    UnknownTaskError,
    Worker,
    task,
)
from tests.producer.support import job


@task(name="sleeps", queue="jobs", max_retries=2)
async def sleeps(seconds: float = math.inf) -> None:
    await trio.sleep(seconds)


@task(name="fails", queue="jobs")
async def fails(context: TaskContext, times: int = 10) -> int:
    if context.deliveries <= times:
        raise ValueError("again")
    return context.deliveries


def worker(world, **options):
    """A worker for all of them."""
    return world.worker(job, sleeps, fails, queue="jobs", **options)


async def dead(world, stem, count: int = 1) -> list[str]:
    """Ids of tasks that have failed for good."""
    ids = await stem.enqueue_many([fails.bind(times=1) for _ in range(count)])
    async with worker(world):
        for task_id in ids:
            await stem.wait_for_task(task_id)
    assert await world.places("jobs") == (0, 0, 0, count)
    return ids


# --- revoke ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["id", "handle", "method"])
@pytest.mark.parametrize("delay", [0, 3600])
async def test_revoke_what_waits(world, stem, autojump_clock, by, delay):
    """G8: a task that waits, delayed or not, is ended by the next worker, at once, and recorded with the reason."""
    handle = await sleeps.with_options(delay=delay).enqueue(stem)
    match by:
        case "id":
            assert await stem.revoke(handle.id, reason="why") is True
        case "handle":
            assert await stem.revoke(handle, reason="why") is True
        case "method":
            assert await handle.revoke(reason="why") is True
    assert (await handle.status()).state is TaskState.QUEUED
    async with worker(world):
        result = await handle.wait()
    assert (result.state, result.reason) == (TaskState.REVOKED, "why")
    assert trio.current_time() == 0
    assert await world.places("jobs") == (0, 0, 0, 0)


async def test_revoke_what_runs(world, stem, autojump_clock):
    """G8: a task that runs is cancelled at once, on whichever worker it is."""
    async with worker(world, concurrency=1), worker(world, concurrency=1):
        handles = [await sleeps.enqueue(stem) for _ in range(2)]
        await trio.sleep(5)
        assert [(await handle.status()).state for handle in handles] == [TaskState.RUNNING] * 2
        for handle in handles:
            assert await handle.revoke()
            result = await handle.wait()
            assert (result.state, result.reason, result.attempt) == (TaskState.REVOKED, None, 0)
    assert trio.current_time() == 5


async def test_revoke_what_is_claimed_and_waits_for_a_slot(world, stem, autojump_clock):
    """G8: nor does a task start that a worker has claimed already, and has no slot for."""
    async with worker(world, concurrency=1, prefetch=1):
        first = await sleeps.enqueue(stem, 10)
        second = await sleeps.enqueue(stem, 10)
        await trio.sleep(1)
        assert await world.places("jobs") == (0, 0, 2, 0)
        assert await second.revoke(reason="why")
        assert (await first.wait()).state is TaskState.SUCCEEDED
        assert (await second.wait()).reason == "why"
    assert trio.current_time() == 10


async def test_revoke_what_waits_for_a_retry(world, stem, autojump_clock):
    """G8: nor does one run again that has failed and waits."""
    handle = await fails.with_options(max_retries=3).enqueue(stem)
    async with worker(world, retry_strategy=FixedRetryStrategy(60)) as running:
        await running.wait_settled()
        assert (await handle.status()).state is TaskState.RETRYING
        assert await handle.revoke()
        assert (await handle.wait()).state is TaskState.REVOKED
    assert await world.places("jobs") == (0, 0, 0, 0)


@pytest.mark.parametrize("end", ["succeeded", "failed"])
async def test_revoke_what_is_over(world, stem, autojump_clock, end):
    """A task that is over is not revoked any more, and nothing is said of it."""
    [task_id] = await dead(world, stem)
    if end == "succeeded":
        await stem.replay_dead_letters("jobs", [task_id])
        async with worker(world):
            await stem.wait_for_task(task_id)
    world.faults.trace.clear()
    assert await stem.revoke(task_id) is False
    assert world.faults.trace == ["backend.get:before", "backend.get:after"]
    assert await world.state(task_id) == end


async def test_revoke_what_nobody_knows(world, stem, autojump_clock):
    """G15: a task that nobody knows is told by name."""
    with pytest.raises(UnknownTaskError, match="'nobody'"):
        await stem.revoke("nobody")
    assert not any(point.startswith("broker") for point in world.faults.trace)


async def test_revoke_what_the_broker_does_not_have(world, stem, autojump_clock):
    """A task of which only a status is left cannot be revoked: nobody is told to."""
    handle = await job.enqueue(stem, 1)
    await world.memory_broker.purge("jobs")
    world.faults.trace.clear()
    assert await handle.revoke() is False
    assert "broker.broadcast:before" not in world.faults.trace


@pytest.mark.parametrize("operation", ["backend.get", "broker.revoke", "broker.broadcast"])
@pytest.mark.parametrize("failure", ["away", "hangs"])
async def test_revoke_with_a_store_that_fails(world, make_stem, autojump_clock, operation, failure):
    """G11: the error comes in bounded time, and repeating is safe; what was marked never starts in any case."""
    stem = make_stem(store_timeout=4)
    handle = await job.enqueue(stem, 1)
    if failure == "away":
        world.faults.fail(operation, times=1)
    else:
        world.faults.hang(operation, times=1)
    with pytest.raises(StoreUnavailableError if failure == "away" else StoreTimeoutError):
        await handle.revoke(reason="first")
    assert trio.current_time() == (0 if failure == "away" else 4)
    if operation != "broker.broadcast":
        assert await handle.revoke(reason="second")
    async with worker(world):
        assert (await handle.wait()).reason == ("first" if operation == "broker.broadcast" else "second")


async def test_revoke_twice(world, stem, autojump_clock):
    """Revoking again what has not ended yet gives it another reason."""
    handle = await job.enqueue(stem, 1)
    assert await handle.revoke(reason="first")
    assert await handle.revoke(reason="second")
    async with worker(world):
        assert (await handle.wait()).reason == "second"


async def test_revoke_when_no_worker_hears_of_it(world, stem, autojump_clock):
    """G8: a worker that misses the message carries it out when the task comes back to it."""
    world.faults.at("broker.receive:before", trio.sleep_forever)
    handle = await fails.with_options(max_retries=3).enqueue(stem, 1)
    async with worker(world, retry_strategy=FixedRetryStrategy(60)) as running:
        await running.wait_settled()
        assert await handle.revoke()
        assert (await handle.wait()).state is TaskState.REVOKED


async def test_cancelled_revocation_can_be_repeated(world, stem, autojump_clock):
    """A call that is cancelled may have marked the task; doing it again is no error."""
    handle = await job.enqueue(stem, 1)
    world.faults.at("broker.revoke:after", trio.sleep_forever, times=1)
    with trio.move_on_after(1) as scope:
        await handle.revoke(reason="first")
    assert scope.cancelled_caught
    assert await handle.revoke(reason="second")


# --- purge ----------------------------------------------------------------------------------------------------------


async def test_purge(world, stem, autojump_clock):
    """G8: what waits is removed and recorded as revoked; what runs, is dead, or is elsewhere stays."""
    [letter] = await dead(world, stem)
    running = await sleeps.enqueue(stem, 5)
    async with worker(world, concurrency=1, prefetch=0):
        await wait_all_tasks_blocked()
        waiting = [
            await job.enqueue(stem, 1),
            await job.with_options(delay=100).enqueue(stem, 2),
            await job.with_options(priority=9).enqueue(stem, 3),
        ]
        elsewhere = await job.with_options(queue="other").enqueue(stem, 4)
        assert await stem.purge("jobs") == 3
        assert await world.places("jobs") == (0, 0, 1, 1)
        for handle in waiting:
            result = await handle.wait(0)
            assert (result.state, result.reason) == (TaskState.REVOKED, "purged")
        assert (await running.wait()).state is TaskState.SUCCEEDED
        assert await world.state(elsewhere.id) == "queued"
        assert await world.state(letter) == "failed"
        assert await stem.purge("jobs") == 0
        assert await stem.purge("never heard of") == 0


async def test_purge_ends_waiting(world, stem, autojump_clock):
    """G12: whoever waits for a purged task is told."""
    handle = await job.enqueue(stem, 1)
    results = []
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            results.append(await handle.wait())

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await stem.purge("jobs")
    assert results[0].reason == "purged"


async def test_purge_what_waits_for_a_retry(world, stem, autojump_clock):
    """G5, G8: nor does a task come back that has failed and waits; its record is newer than that of the failure."""
    world.listen("task_revoked")
    handle = await fails.with_options(max_retries=3).enqueue(stem)
    async with worker(world, retry_strategy=FixedRetryStrategy(60)) as running:
        await running.wait_settled()
    assert (await handle.status()).state is TaskState.RETRYING
    assert await stem.purge("jobs") == 1
    assert (await handle.wait(0)).state is TaskState.REVOKED
    assert world.event("task_revoked").attempt == 1
    assert world.event("task_revoked").deliveries == (await handle.status()).deliveries == 1


async def test_purge_of_many(world, stem, autojump_clock):
    """A long queue is purged in steps, and told of task by task."""
    world.listen("task_revoked")
    ids = await stem.enqueue_many([job.with_options(delay=number % 2 * 60).bind(number) for number in range(1203)])
    assert await stem.purge("jobs") == 1203
    assert world.faults.trace.count("broker.purge:before") == 3
    assert sorted(event.task_id for _, event in world.events) == sorted(ids)
    assert {await world.state(task_id) for task_id in ids} == {"revoked"}


async def test_purge_beside_a_claim(world, stem, autojump_clock):
    """G1, G5: a task that is claimed between record and removal is run, and its newer status stands."""
    handle = await job.enqueue(stem, 7)
    deliveries = {}

    async def claim() -> None:
        deliveries.update(await world.claim("jobs"))

    world.faults.at("broker.purge:before", claim, times=1)
    assert await stem.purge("jobs") == 0
    assert list(deliveries) == [handle.id]
    assert await world.places("jobs") == (0, 0, 1, 0)
    async with worker(world):
        await trio.sleep(60)
    assert await handle.result(0) == 7


@pytest.mark.parametrize("operation", ["broker.peek", "backend.record", "broker.purge"])
@pytest.mark.parametrize("failure", ["away", "hangs"])
async def test_purge_with_a_store_that_fails(world, make_stem, autojump_clock, operation, failure):
    """G11: the error comes in bounded time, and repeating is safe."""
    stem = make_stem(store_timeout=4)
    handle = await job.enqueue(stem, 1)
    if failure == "away":
        world.faults.fail(operation, times=1)
    else:
        world.faults.hang(operation, times=1)
    with pytest.raises(StoreUnavailableError if failure == "away" else StoreTimeoutError):
        await stem.purge("jobs")
    assert trio.current_time() == (0 if failure == "away" else 4)
    assert await world.places("jobs") == (1, 0, 0, 0)
    assert await stem.purge("jobs") == 1
    assert (await handle.wait(0)).reason == "purged"


async def test_purge_without_a_backend(world, make_stem, autojump_clock):
    """Without a backend there is nothing to record."""
    stem = make_stem(backend=None)
    await job.enqueue(stem, 1)
    assert await stem.purge("jobs") == 1
    assert not any(point.startswith("backend") for point in world.faults.trace)


# --- replay ---------------------------------------------------------------------------------------------------------


async def test_replay(world, stem, autojump_clock):
    """A dead letter goes back with its attempts forgotten, is recorded as waiting, and runs."""
    [task_id] = await dead(world, stem)
    [letter] = await stem.replay_dead_letters("jobs", [task_id])
    assert (letter.envelope.id, letter.reason, letter.deliveries) == (task_id, "max-retries-exhausted", 1)
    status = await world.status(task_id)
    assert (status.state, status.attempt, status.deliveries, status.error) == (TaskState.QUEUED, 0, 1, None)
    assert await world.places("jobs") == (1, 0, 0, 0)
    async with worker(world):
        assert (await stem.wait_for_task(task_id)).value == 2


@pytest.mark.parametrize("delay", [30, timedelta(seconds=30)])
async def test_replay_later(world, stem, autojump_clock, delay):
    """It may be put back for later."""
    [task_id] = await dead(world, stem)
    await stem.replay_dead_letters("jobs", [task_id], delay=delay)
    assert await world.places("jobs") == (0, 1, 0, 0)
    async with worker(world):
        assert (await stem.wait_for_task(task_id)).value == 2
    assert trio.current_time() == 30


async def test_replay_several(world, stem, autojump_clock):
    """Each id has its own answer, None where there is no such dead letter."""
    ids = await dead(world, stem, 3)
    letters = await stem.replay_dead_letters("jobs", [ids[2], "nobody", ids[0], ids[0]])
    assert [letter and letter.envelope.id for letter in letters] == [ids[2], None, ids[0], None]
    assert [await world.state(task_id) for task_id in ids] == ["queued", "failed", "queued"]


async def test_replay_nothing(world, stem, autojump_clock):
    """Nothing to put back is nothing to record."""
    assert await stem.replay_dead_letters("jobs", []) == []
    assert await stem.replay_dead_letters("elsewhere", ["x"]) == [None]
    assert not any(point.startswith("backend") for point in world.faults.trace)


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, "5", None, True])
async def test_replay_with_a_bad_delay(world, stem, autojump_clock, delay):
    """G15: a delay that is none is refused by name, and nothing is put back."""
    [task_id] = await dead(world, stem)
    world.faults.trace.clear()
    with pytest.raises(InvalidOptionError, match="delay="):
        await stem.replay_dead_letters("jobs", [task_id], delay=delay)
    assert world.faults.trace == []


@pytest.mark.parametrize("failure", ["away", "refuses", "hangs"])
async def test_replay_that_cannot_be_recorded(world, stem, autojump_clock, caplog, failure):
    """G1: what is back in its queue is so, whatever becomes of the record; a worker writes a newer one."""
    [task_id] = await dead(world, stem)

    def refuse() -> None:
        raise StoreError("no")

    match failure:
        case "away":
            world.faults.fail("backend.record", times=1)
        case "refuses":
            world.faults.at("backend.record:before", refuse, times=1)
        case "hangs":
            world.faults.hang("backend.record", times=1)
    with caplog.at_level(logging.WARNING):
        [letter] = await stem.replay_dead_letters("jobs", [task_id])
    assert letter is not None
    assert "replayed 1 task(s), but could not record that" in caplog.text
    assert await world.state(task_id) == "failed"
    async with worker(world) as running:
        await running.wait_settled()
    assert await world.state(task_id) == "succeeded"


@pytest.mark.parametrize("failure", ["away", "hangs"])
async def test_replay_with_a_broker_that_fails(world, make_stem, autojump_clock, failure):
    """G11: the error comes in bounded time, and repeating is safe."""
    stem = make_stem(store_timeout=4)
    [task_id] = await dead(world, stem)
    if failure == "away":
        world.faults.fail("broker.replay_dead_letters", times=1)
    else:
        world.faults.hang("broker.replay_dead_letters", times=1)
    with pytest.raises(StoreUnavailableError if failure == "away" else StoreTimeoutError):
        await stem.replay_dead_letters("jobs", [task_id])
    assert [letter is not None for letter in await stem.replay_dead_letters("jobs", [task_id])] == [True]


async def test_record_of_a_replay_that_comes_late(world, stem, autojump_clock):
    """G5: a worker may be quicker than the record of the replay, which then is refused."""
    [task_id] = await dead(world, stem)
    world.faults.at("backend.record:before", partial(trio.sleep, 5), times=1)
    quick = Worker(
        world.memory_broker,
        world.memory_backend,
        tasks=[fails],
        queue="jobs",
        signals=StemSignals(),
        clock=world.clock,
    )
    async with quick:
        await stem.replay_dead_letters("jobs", [task_id])
        assert trio.current_time() == 5
    status = await world.status(task_id)
    assert (status.state, status.deliveries) == (TaskState.SUCCEEDED, 2)


async def test_replay_without_a_backend(world, make_stem, stem, autojump_clock):
    """Without a backend there is nothing to record."""
    [task_id] = await dead(world, stem)
    bare = Stem(world.broker, clock=world.clock, signals=world.signals)
    world.faults.trace.clear()
    assert (await bare.replay_dead_letters("jobs", [task_id]))[0] is not None
    assert not any(point.startswith("backend") for point in world.faults.trace)


async def test_dead_again(world, stem, autojump_clock):
    """G8: a task that fails again after a replay is dead again, and has all its attempts again before that."""
    handle = await fails.with_options(max_retries=2).enqueue(stem)
    async with worker(world):
        assert (await handle.wait()).attempt == 2
    await stem.replay_dead_letters("jobs", [handle.id])
    assert (await handle.status()).state is TaskState.QUEUED
    async with worker(world):
        result = await handle.wait()
    assert (result.state, result.attempt) == (TaskState.FAILED, 2)
    assert (await handle.status()).deliveries == 6
