"""Waiting for tasks: it misses nothing, never hangs, and tells apart how it ended (G12)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import attrs
import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stem_trio import (
    ConfigurationError,
    FixedRetryStrategy,
    InvalidOptionError,
    ResultDecodeError,
    ResultError,
    Stem,
    StoreClosedError,
    StoreTimeoutError,
    StoreUnavailableError,
    TaskContext,
    TaskError,
    TaskExpiredError,
    TaskFailedError,
    TaskResult,
    TaskRevokedError,
    TaskState,
    UnknownTaskError,
    WaitTimeoutError,
    task,
)
from stem_trio.settlement import purged_status, running_status
from tests.producer.support import job


@dataclass
class Report:
    pages: int
    size: tuple[float, float]


async def write(world, task_id: str, **changes) -> None:
    """Write a newer status of a task, as a worker would."""
    status = await world.status(task_id)
    newer = msgspec.structs.replace(status, version=status.version + 8, deliveries=status.deliveries + 1, **changes)
    assert await world.memory_backend.record([newer]) == [True]


async def succeed(world, task_id: str, value: bytes = b"1", **changes) -> None:
    """Have a task end well."""
    await write(world, task_id, state=TaskState.SUCCEEDED, value=msgspec.Raw(value), **changes)


# --- what comes of it -----------------------------------------------------------------------------------------------


async def test_result(world, stem, autojump_clock):
    """A task's end has its value, state and attempt, by handle or by id."""

    @task(name="report", queue="jobs", max_retries=1)
    async def report(context: TaskContext, pages: int) -> Report:
        if context.attempt == 0:
            raise ValueError
        return Report(pages, (1.5, 2.5))

    stem.registry.register(report)
    handle = await report.enqueue(stem, 3)
    async with world.worker(report, queue="jobs"):
        results = [await stem.wait_for_task(handle), await stem.wait_for_task(handle.id), await handle.wait()]
    for result in results:
        assert result == TaskResult(
            task_id=handle.id, state=TaskState.SUCCEEDED, value=Report(3, (1.5, 2.5)), error=None, attempt=1
        )
        assert result.unwrap() == Report(3, (1.5, 2.5))
    assert await handle.result() == Report(3, (1.5, 2.5))


async def test_result_by_id_of_an_unknown_kind(world, stem, make_stem, autojump_clock):
    """A producer that does not know the task gets the value as JSON has it."""
    task_id = await stem.enqueue("job", {"number": 1})
    await succeed(world, task_id, b'{"pages":3,"size":[1.5,2.5]}')
    stranger = make_stem(tasks=[])
    assert (await stranger.wait_for_task(task_id)).value == {"pages": 3, "size": [1.5, 2.5]}


@pytest.mark.parametrize("value", [None, "ignored"])
async def test_no_value(world, stem, autojump_clock, value):
    """A value may be nothing, or dropped."""

    @task(name="plain", queue="jobs", ignore_result=value == "ignored")
    async def plain() -> None:
        return value

    handle = await plain.enqueue(stem)
    async with world.worker(plain, queue="jobs"):
        assert await handle.result() is None
    assert ((await handle.status()).value is None) == (value == "ignored")


async def test_failure(world, stem, autojump_clock):
    """G12: a failed task is told by an error that says with what."""

    @task(name="fails", queue="jobs")
    async def fails() -> None:
        raise KeyError("colour")

    handle = await fails.enqueue(stem)
    async with world.worker(fails, queue="jobs"):
        result = await handle.wait()
    assert (result.state, result.value, result.reason) == (TaskState.FAILED, None, "max-retries-exhausted")
    assert (result.error.type, result.error.message) == ("KeyError", "'colour'")
    for raising in (result.unwrap, None):
        with pytest.raises(TaskFailedError, match="KeyError: 'colour'") as caught:
            raising() if raising else await handle.result()
        assert (caught.value.task_id, caught.value.error) == (handle.id, result.error)
        assert isinstance(caught.value, ResultError)


async def test_revoked(world, stem, autojump_clock):
    """G12: so is a revoked one, with the reason."""
    handle = await job.enqueue(stem, 1)
    await handle.revoke(reason="sold out")
    async with world.worker(job, queue="jobs"):
        result = await handle.wait()
        assert (result.state, result.value, result.error, result.reason) == (TaskState.REVOKED, None, None, "sold out")
        with pytest.raises(TaskRevokedError, match="sold out") as caught:
            await handle.result()
    assert (caught.value.task_id, caught.value.reason) == (handle.id, "sold out")


async def test_expired(world, stem, autojump_clock):
    """G12: and an expired one."""
    handle = await job.with_options(expires=5).enqueue(stem, 1)
    await trio.sleep(6)
    async with world.worker(job, queue="jobs"):
        with pytest.raises(TaskExpiredError) as caught:
            await handle.result()
    assert caught.value.task_id == handle.id
    assert (await handle.wait(0)).state is TaskState.EXPIRED


async def test_value_of_another_type(world, stem, autojump_clock):
    """G12: a value that is not of the annotated type is told apart from all that."""
    handle = await job.enqueue(stem, 1)
    await succeed(world, handle.id, b'"seven"')
    for target in (handle, handle.id):
        with pytest.raises(ResultDecodeError, match=r"Expected `int`, got `str`") as caught:
            await stem.wait_for_task(target)
        assert caught.value.task_id == handle.id
        assert isinstance(caught.value, TypeError)


async def test_waits_through_retries(world, stem, autojump_clock):
    """A task between two runs is not over."""

    @task(name="flaky", queue="jobs", max_retries=2)
    async def flaky(context: TaskContext) -> int:
        if context.attempt < 2:
            raise ValueError
        return context.attempt

    handle = await flaky.enqueue(stem)
    async with world.worker(flaky, queue="jobs", retry_strategy=FixedRetryStrategy(60)):
        assert await handle.result() == 2
    assert trio.current_time() == 120


# --- nothing is missed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "point", ["backend.watch:before", "backend.watch:after", "backend.get:before", "backend.get:after"]
)
async def test_end_at_any_moment(world, stem, autojump_clock, point):
    """G12: whenever a task ends while somebody begins to wait for it, the wait is over at once."""
    handle = await job.enqueue(stem, 1)
    world.faults.at(point, lambda: succeed(world, handle.id), times=1)
    assert await handle.result(timeout=100) == 1
    assert trio.current_time() == 0


async def test_end_after_many_changes(world, stem, autojump_clock):
    """G12: however many statuses come before the last one, the last one is seen."""
    handle = await job.enqueue(stem, 1)
    results = []

    async def wait() -> None:
        results.append(await handle.wait())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        for _ in range(30):
            await write(world, handle.id, state=TaskState.RUNNING)
        await succeed(world, handle.id)
    assert [result.value for result in results] == [1] * 5


async def test_end_that_is_there_already(world, stem, autojump_clock):
    """G12: who comes late gets the end all the same."""
    handle = await job.enqueue(stem, 1)
    await succeed(world, handle.id)
    await trio.sleep(1000)
    assert await handle.result(timeout=0) == 1
    assert await handle.result(timeout=None) == 1


async def test_waiting_again_after_a_replay(world, stem, autojump_clock):
    """G12: a failure that was replayed is not the end any more."""

    @task(name="flaky", queue="jobs")
    async def flaky(context: TaskContext) -> int:
        if context.deliveries == 1:
            raise ValueError
        return context.deliveries

    handle = await flaky.enqueue(stem)
    async with world.worker(flaky, queue="jobs"):
        assert (await handle.wait()).state is TaskState.FAILED
    await stem.replay_dead_letters("jobs", [handle.id], delay=30)
    async with world.worker(flaky, queue="jobs"):
        assert await handle.result() == 2
    assert trio.current_time() == 30


# --- how long it takes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [5, 5.0, timedelta(seconds=5)])
async def test_timeout(world, stem, autojump_clock, timeout):
    """G12: a task that is not over in time is told by an error that has the last status seen."""
    handle = await job.enqueue(stem, 1)
    with pytest.raises(WaitTimeoutError, match=r"not finished after 5 s \(last seen: queued\)") as caught:
        await handle.result(timeout)
    assert trio.current_time() == 5
    assert caught.value.status == await handle.status()
    assert caught.value.task_id == handle.id
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, ResultError)


async def test_timeout_has_the_last_status_seen(world, stem, autojump_clock):
    """G12: which may be a newer one than there was when the wait began."""

    @task(name="slow", queue="jobs")
    async def slow(context: TaskContext) -> None:
        await context.progress(40, {"page": 4})
        await trio.sleep_forever()

    handle = await slow.enqueue(stem)
    async with world.worker(slow, queue="jobs") as worker:
        with pytest.raises(WaitTimeoutError, match="last seen: running") as caught:
            await handle.wait(10)
        assert caught.value.status.progress.percent == 40
        assert caught.value.status.progress.decode() == {"page": 4}
        await worker.shutdown("hard")


@pytest.mark.parametrize("ended", [True, False])
async def test_just_looking(world, stem, autojump_clock, ended):
    """G12: a timeout of 0 looks once, and takes no time."""
    handle = await job.enqueue(stem, 1)
    if ended:
        await succeed(world, handle.id)
        assert (await handle.wait(0)).value == 1
    else:
        with pytest.raises(WaitTimeoutError) as caught:
            await handle.wait(timedelta(0))
        assert caught.value.status.state is TaskState.QUEUED
    with pytest.raises(UnknownTaskError):
        await stem.wait_for_task("nobody", 0)
    assert trio.current_time() == 0


async def test_looking_takes_its_time(world, stem, autojump_clock):
    """A store that needs a moment to answer does not turn a look into a timeout."""
    handle = await job.enqueue(stem, 1)
    await succeed(world, handle.id)
    world.faults.at("backend.watch:before", partial(trio.sleep, 3))
    assert await handle.result(0) == 1
    assert trio.current_time() == 3


@pytest.mark.parametrize("timeout", [-1, math.nan, math.inf, "5", True])
async def test_bad_timeout(world, stem, autojump_clock, timeout):
    """G15: a timeout that is none is refused by name."""
    with pytest.raises(InvalidOptionError, match="timeout="):
        await stem.wait_for_task("x", timeout)
    assert world.faults.trace == []


# --- unknown tasks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 0, 5])
async def test_unknown(world, stem, autojump_clock, timeout):
    """G12: a task that nobody knows is told at once, however long one would wait for it."""
    with pytest.raises(UnknownTaskError, match="no task 'nobody' is known") as caught:
        await stem.wait_for_task("nobody", timeout)
    assert trio.current_time() == 0
    assert caught.value.task_id == "nobody"
    assert isinstance(caught.value, LookupError)
    assert await stem.status("nobody") is None


async def test_forgotten(world, stem, autojump_clock):
    """G12, G14: a result whose retention has ended is as unknown as if it had never been."""
    handle = await job.enqueue(stem, 1)
    await succeed(world, handle.id, ttl=60.0)
    await trio.sleep(61)
    for call in (handle.wait, handle.result, handle.status):
        with pytest.raises(UnknownTaskError):
            await call()


# --- stores that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["backend.watch", "backend.get"])
@pytest.mark.parametrize("timeout", [None, 0, 3, 100])
async def test_store_that_hangs(world, make_stem, autojump_clock, operation, timeout):
    """G11, G12: a store that does not answer is given up after `store_timeout`, or at the caller's own timeout."""
    stem = make_stem(store_timeout=7)
    task_id = await stem.enqueue("job", {"number": 1})
    world.faults.hang(operation)
    with pytest.raises(WaitTimeoutError if timeout == 3 else StoreTimeoutError) as caught:
        await stem.wait_for_task(task_id, timeout)
    assert trio.current_time() == (3 if timeout == 3 else 7)
    if timeout == 3:
        assert caught.value.status is None
        assert "last seen: no status" in str(caught.value)


async def test_store_timeout_bounds_looking_only(world, make_stem, autojump_clock):
    """It does not bound the wait for the task itself."""
    stem = make_stem(store_timeout=7)
    handle = await job.enqueue(stem, 1)
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            await trio.sleep(500)
            await succeed(world, handle.id)

        nursery.start_soon(end)
        assert await handle.result() == 1
    assert trio.current_time() == 500


@pytest.mark.parametrize("operation", ["backend.watch", "backend.get"])
async def test_store_that_is_away(world, stem, autojump_clock, operation):
    """G11: a store that cannot be reached is told at once."""
    task_id = await stem.enqueue("job", {"number": 1})
    world.faults.fail(operation)
    with pytest.raises(StoreUnavailableError):
        await stem.wait_for_task(task_id)


async def test_status_of_a_store_that_hangs(world, make_stem, autojump_clock):
    """G11: nor does asking for a status hang."""
    stem = make_stem(store_timeout=7)
    handle = await job.enqueue(stem, 1)
    world.faults.hang("backend.get")
    with pytest.raises(StoreTimeoutError):
        await handle.status()
    assert trio.current_time() == 7


async def test_store_that_is_closed_meanwhile(world, autojump_clock):
    """G12: waiting in a store that is closed comes to an end."""
    async with trio.open_nursery() as nursery:
        stem = Stem(world.memory_broker, world.memory_backend, tasks=[job])
        task_id = await stem.enqueue("job", {"number": 1})

        async def wait() -> None:
            with pytest.raises(StoreClosedError):
                await stem.wait_for_task(task_id)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await world.memory_backend.__aexit__(None, None, None)
    await world.memory_backend.__aenter__()


async def test_without_a_backend(world, make_stem, autojump_clock):
    """Without a result backend there is nothing to wait in, and the error says what to change."""
    stem = make_stem(backend=None)
    handle = await job.enqueue(stem, 1)
    for call in (handle.status, handle.wait, handle.result, handle.revoke):
        with pytest.raises(ConfigurationError, match="no result backend"):
            await call()
    assert await world.places("jobs") == (1, 0, 0, 0)


# --- cancellation ---------------------------------------------------------------------------------------------------


async def test_cancelled(world, stem, autojump_clock):
    """Cancelling the wait leaves the task alone, and nothing behind in the store."""
    handle = await job.enqueue(stem, 1)
    with trio.move_on_after(5) as scope:
        await handle.result()
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    assert world.memory_backend._watches == {}
    async with world.worker(job, queue="jobs"):
        assert await handle.result() == 1


async def test_timed_out_waits_leave_nothing_behind(world, stem, autojump_clock):
    """G14: nor do waits that time out, or find nothing."""
    handle = await job.enqueue(stem, 1)
    with pytest.raises(WaitTimeoutError):
        await handle.wait(1)
    with pytest.raises(UnknownTaskError):
        await stem.wait_for_task("nobody")
    assert world.memory_backend._watches == {}


# --- handles --------------------------------------------------------------------------------------------------------


async def test_handle(world, stem, autojump_clock):
    """A handle tells what it stands for, and is as good as the id."""
    handle = await job.with_options(task_id="mine").enqueue(stem, 1)
    assert (handle.id, str(handle), handle.name, handle.created) == ("mine", "mine", "job", True)
    assert repr(handle) == "<TaskHandle job mine>"
    status = await handle.status()
    assert status == await stem.status(handle) == await stem.status("mine")
    assert status.state is TaskState.QUEUED


async def test_handle_decodes_by_its_own_task(world, make_stem, autojump_clock):
    """A handle's value has the type of the task that it was enqueued with, whatever is registered by that name."""

    @task(name="job")
    async def other(number: int) -> str:
        return str(number)

    stem = make_stem()
    handle = await other.enqueue(stem, 1)
    await succeed(world, handle.id, b'"one"')
    assert await handle.result() == "one"
    with pytest.raises(ResultDecodeError):
        await stem.wait_for_task(handle.id)


def test_result_without_a_recorded_error():
    """A failure of which nothing is recorded is told as that."""
    result = TaskResult(task_id="x", state=TaskState.FAILED, value=None, error=None, attempt=0)
    with pytest.raises(TaskFailedError, match="no error recorded"):
        result.unwrap()
    error = TaskError(type="E", message="m")
    assert attrs.evolve(result, error=error).error is error


async def test_older_status_does_not_end_a_wait(world, stem, autojump_clock):
    """G5: a record that comes too late is refused, and nobody who waits is woken by it."""
    handle = await job.enqueue(stem, 1)
    delivery = (await world.claim("jobs"))[handle.id]
    now = world.clock.now()
    running = running_status(delivery, now=now, worker="w", started_at=now)
    assert await world.memory_backend.record([running]) == [True]
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(WaitTimeoutError, match="last seen: running"):
                await handle.wait(5)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        late = purged_status(delivery.envelope, now=now, deliveries=0)
        assert await world.memory_backend.record([late]) == [False]
