"""What an observer sees of a task's life, in order: signals, statuses and settlements (G6, G8).

Statuses and settlements are traced when the store has confirmed them. A status ``running`` is written beside the
handler, and not at all when that has ended before; so handlers here that are to show it take a second.
"""

from __future__ import annotations

from functools import partial

import pytest
import trio

from stem_trio import (
    FixedRetryStrategy,
    Stem,
    StemSignals,
    StoreUnavailableError,
    TaskContext,
    TaskState,
    WorkerLifecycleConfig,
    task,
)
from tests.lifecycle.support import PUBLISH_SIGNALS, TASK_SIGNALS, WORKER_SIGNALS

RECEIVED = ["task_received", "task_prerun"]
SUCCEEDED = ["status succeeded", "settle Complete", "task_succeeded", "task_postrun"]
RETRIED = ["status retrying", "settle Retry", "task_retry", "task_postrun"]
DEAD = ["status failed", "settle MoveToDead", "task_failed", "task_dead_lettered"]


@pytest.fixture
def traced(world):
    """The world, with everything that happens to tasks in its trace."""
    world.watch_stores()
    world.listen(*TASK_SIGNALS)
    return world


async def run(world, *tasks, seconds: float = 100, **options) -> None:
    """Run a worker for some time, then let it drain; the trace is then about what it did."""
    world.trace.clear()
    options.setdefault("retry_strategy", FixedRetryStrategy(10))
    async with world.worker(*tasks, **options) as worker:
        await trio.sleep(seconds)
        await worker.shutdown()


def facts(world) -> list[tuple[int, int]]:
    """Attempt and deliveries of each event."""
    return [(event.attempt, event.deliveries) for _, event in world.events]


async def test_success(traced, autojump_clock):
    """G6: the result is recorded, then settled, and then told."""

    @task
    async def job() -> int:
        traced.trace.append("handler")
        await trio.sleep(1)
        return 3

    task_id = await traced.enqueue(job)
    await run(traced, job)
    assert traced.trace == [*RECEIVED, "handler", "status running", *SUCCEEDED]
    assert {event.task_id for _, event in traced.events} == {task_id}
    assert {event.task_name for _, event in traced.events} == {job.name}
    assert bytes(traced.event("task_succeeded").value) == b"3"
    assert traced.event("task_postrun").state is TaskState.SUCCEEDED
    assert traced.event("task_prerun").context.id == task_id
    assert facts(traced) == [(0, 1)] * 4


async def test_success_at_once(traced, autojump_clock):
    """A task that ends before its status could say that it runs never has one that says so."""

    @task
    async def job() -> None:
        traced.trace.append("handler")

    await traced.enqueue(job)
    await run(traced, job)
    assert traced.trace == [*RECEIVED, "handler", *SUCCEEDED]


async def test_retry_then_success(traced, autojump_clock):
    """A failed run is recorded and settled as one that comes back, and told; then everything begins anew."""

    @task(max_retries=2)
    async def job(context: TaskContext) -> None:
        traced.trace.append(f"handler {context.attempt}")
        await trio.sleep(1)
        if context.attempt < 2:
            raise ConnectionError("not yet")

    await traced.enqueue(job)
    await run(traced, job)
    assert traced.trace == [
        *(*RECEIVED, "handler 0", "status running", *RETRIED),
        *(*RECEIVED, "handler 1", "status running", *RETRIED),
        *(*RECEIVED, "handler 2", "status running", *SUCCEEDED),
    ]
    assert facts(traced) == [(0, 1)] * 4 + [(1, 2)] * 4 + [(2, 3)] * 4
    retries = [event for name, event in traced.events if name == "task_retry"]
    assert [(event.delay, event.reason, event.error.type) for event in retries] == [(10, None, "ConnectionError")] * 2
    now = retries[0].occurred_at.timestamp()
    assert retries[0].next_retry_at.timestamp() == pytest.approx(now + 10)
    ends = [event.state for name, event in traced.events if name == "task_postrun"]
    assert ends == [TaskState.RETRYING, TaskState.RETRYING, TaskState.SUCCEEDED]


async def test_exhausted_failure(traced, autojump_clock):
    """G8: the last failure is recorded, put with the dead letters, and told as both."""

    @task(max_retries=1)
    async def job() -> None:
        await trio.sleep(1)
        raise ValueError("no")

    task_id = await traced.enqueue(job)
    await run(traced, job)
    assert traced.trace == [
        *(*RECEIVED, "status running", *RETRIED),
        *(*RECEIVED, "status running", *DEAD, "task_postrun"),
    ]
    failed, dead = traced.event("task_failed"), traced.event("task_dead_lettered")
    assert failed.reason == dead.reason == "max-retries-exhausted"
    assert failed.error.message == "no"
    assert dead.detail == "ValueError: no"
    assert traced.events[-1][1].state is TaskState.FAILED
    assert await traced.state(task_id) == "failed"


@pytest.mark.parametrize("left", [True, False])
async def test_explicit_retry(traced, autojump_clock, left):
    """A retry that the handler asks for is one like any other, with its reason; there may be none left."""

    @task(max_retries=1 if left else 0)
    async def job(context: TaskContext) -> None:
        await trio.sleep(1)
        if context.attempt == 0:
            context.retry(after=30, reason="quota")

    await traced.enqueue(job)
    await run(traced, job)
    if left:
        assert traced.trace == [
            *(*RECEIVED, "status running", *RETRIED),
            *(*RECEIVED, "status running", *SUCCEEDED),
        ]
        event = traced.event("task_retry")
        assert (event.delay, event.reason) == (30, "quota")
        assert event.error.type == "stem_trio.errors.TaskRetryRequest"
    else:
        assert traced.trace == [*RECEIVED, "status running", *DEAD, "task_postrun"]


async def test_expiry(traced, autojump_clock):
    """G8: a task that came too late is recorded and told as expired; its handler is not heard of."""

    @task
    async def job() -> None:
        traced.trace.append("handler")

    task_id = await traced.enqueue(job, expires=5)
    await trio.sleep(5)
    await run(traced, job)
    assert traced.trace == ["status expired", "settle Complete", "task_expired"]
    assert await traced.state(task_id) == "expired"


@pytest.mark.parametrize("delay", [0, 3600])
async def test_revocation_before_the_run(traced, autojump_clock, delay):
    """G8: a task that is revoked while it waits is ended by the next worker, delayed or not, and never starts."""

    @task
    async def job() -> None:
        traced.trace.append("handler")

    task_id = await traced.enqueue(job, delay=delay)
    assert await traced.stem.revoke(task_id, reason="changed my mind")
    await run(traced, job)
    assert traced.trace == ["status revoked", "settle Complete", "task_revoked"]
    assert traced.event("task_revoked").reason == "changed my mind"
    assert (await traced.status(task_id)).reason == "changed my mind"


async def test_revocation_during_the_run(traced, autojump_clock):
    """G8: one that is revoked while it runs is cancelled, and then recorded, settled and told."""

    @task(max_retries=3)
    async def job() -> None:
        try:
            await trio.sleep_forever()
        finally:
            traced.trace.append("cancelled")

    task_id = await traced.enqueue(job)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, traced, job)
        await trio.sleep(5)
        assert await traced.stem.revoke(task_id)
    ended = ["status revoked", "settle Complete", "task_revoked", "task_postrun"]
    assert traced.trace == [*RECEIVED, "status running", "cancelled", *ended]
    assert traced.event("task_revoked").reason is None
    assert traced.event("task_postrun").state is TaskState.REVOKED


async def test_revocation_of_a_task_that_waits_for_a_retry(traced, autojump_clock):
    """G8: nor does a task that failed once come back when it is revoked meanwhile."""

    @task(max_retries=3)
    async def job() -> None:
        await trio.sleep(1)
        raise ValueError

    task_id = await traced.enqueue(job)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, traced, job)
        await trio.sleep(5)
        assert await traced.stem.revoke(task_id)
    ended = ["status revoked", "settle Complete", "task_revoked"]
    assert traced.trace == [*RECEIVED, "status running", *RETRIED, *ended]


@pytest.mark.parametrize("retries", [0, 1])
async def test_hard_limit(traced, autojump_clock, retries):
    """A run that reaches its hard limit is cancelled, and counts as failed, with a retry if one is left."""

    @task(max_retries=retries, hard_time_limit=7, soft_time_limit=5)
    async def job(context: TaskContext) -> None:
        try:
            await trio.sleep_forever() if context.attempt == 0 else None
        finally:
            traced.trace.append("handler ends")

    await traced.enqueue(job)
    await run(traced, job)
    first = [*RECEIVED, "status running", "task_soft_timeout", "handler ends"]
    if retries:
        assert traced.trace == [*first, *RETRIED, *RECEIVED, "handler ends", *SUCCEEDED]
        assert traced.event("task_retry").error.type == "stem_trio.errors.HardTimeLimitError"
    else:
        assert traced.trace == [*first, *DEAD, "task_postrun"]
        assert traced.event("task_failed").reason == "max-retries-exhausted"
    assert traced.event("task_soft_timeout").limit == 5


async def test_lease_loss(traced, autojump_clock):
    """G3, G4: a worker that has lost the lease records nothing, settles nothing, and says so."""

    @task(visibility_timeout=6)
    async def job() -> None:
        try:
            await trio.sleep_forever()
        finally:
            traced.trace.append(f"cancelled at {trio.current_time():g}")

    task_id = await traced.enqueue(job)
    traced.faults.fail("broker.renew")
    traced.faults.hang("broker.claim", skip=1)
    await run(traced, job, seconds=20)
    assert traced.trace == [*RECEIVED, "status running", "cancelled at 6", "task_lease_lost", "task_postrun"]
    assert traced.event("task_postrun").state is None
    assert await traced.state(task_id) == "running"
    delivery = (await traced.claim())[task_id]
    assert (delivery.attempt, delivery.strikes) == (0, 1)


async def test_release_of_a_run(traced, autojump_clock):
    """G10: a task that is given back is ready again first; then that is recorded, and told, each in its own time."""

    @task
    async def job() -> None:
        try:
            await trio.sleep_forever()
        finally:
            traced.trace.append("cancelled")

    await traced.enqueue(job)
    traced.trace.clear()
    async with traced.worker(job) as worker:
        await trio.sleep(3)
        await worker.shutdown("hard")
    assert traced.trace[:5] == [*RECEIVED, "status running", "cancelled", "settle Release"]
    told = [step for step in traced.trace[5:] if step != "status queued"]
    assert told == ["task_released", "task_postrun"]
    assert len(traced.trace) == 8
    assert traced.event("task_released").started
    assert traced.event("task_postrun").state is TaskState.QUEUED


async def test_release_of_what_waits(traced, autojump_clock):
    """G10: so is one that had not been started, of which no run is told."""

    @task
    async def job() -> None:
        await trio.sleep(10)

    first = await traced.enqueue(job)
    second = await traced.enqueue(job)
    traced.trace.clear()
    async with traced.worker(job, concurrency=1, prefetch=1) as worker:
        await trio.sleep(3)
        await worker.shutdown()
    steps = [step for step in traced.trace if step not in {"status queued", "task_released"}]
    assert steps == [*RECEIVED, "status running", "settle Release", *SUCCEEDED]
    assert traced.trace.index("settle Release") < traced.trace.index("status queued")
    assert traced.trace.index("settle Release") < traced.trace.index("task_released")
    released = traced.event("task_released")
    assert (released.task_id, released.started) == (second, False)
    assert {event.task_id for name, event in traced.events if name != "task_released"} == {first}


async def test_unknown_task(traced, autojump_clock):
    """G8: a name that the worker does not know ends with the dead letters, and its handler is not heard of."""

    @task
    async def job() -> None: ...

    task_id = await traced.enqueue(job)
    await run(traced)
    assert traced.trace == DEAD
    assert traced.event("task_failed").reason == "unregistered-task"
    assert await traced.state(task_id) == "failed"


async def test_arguments_that_do_not_fit(traced, autojump_clock):
    """G8: arguments that the worker's task does not take end likewise: the producer has another version of it."""

    @task(name="job")
    async def old(a: int) -> None: ...

    @task(name="job")
    async def new(a: int, b: int) -> None: ...

    await traced.enqueue(old, 1)
    await run(traced, new)
    assert traced.trace == DEAD
    assert traced.event("task_dead_lettered").reason == "invalid-arguments"


async def test_poison(traced, autojump_clock):
    """G7, G8: a task that has ended too many workers is not started again."""

    @task(max_strikes=2, visibility_timeout=5)
    async def job() -> None:
        traced.trace.append("handler")

    task_id = await traced.enqueue(job)
    for _ in range(2):
        assert task_id in await traced.claim()
        await trio.sleep(6)
    await run(traced, job)
    assert traced.trace == DEAD
    assert traced.event("task_failed").reason == "poison"


async def test_result_that_cannot_be_kept(traced, autojump_clock):
    """G8: a result that JSON cannot hold is a failure for good: the handler has done its work."""

    @task
    async def job():
        await trio.sleep(1)
        return object()

    await traced.enqueue(job)
    await run(traced, job)
    assert traced.trace == [*RECEIVED, "status running", *DEAD, "task_postrun"]
    assert traced.event("task_failed").reason == "unserializable-result"


async def test_settlement_that_is_refused(traced, autojump_clock):
    """G3: when the settlement comes too late, the worker is told, and says that it has lost the lease."""

    @task(visibility_timeout=4)
    async def job() -> None:
        await trio.sleep(1)

    await traced.enqueue(job)
    # The worker is cut off between record and settlement, for longer than its lease lasts.
    traced.faults.hang("broker.renew")
    traced.faults.hang("broker.claim", skip=1)
    traced.faults.at("broker.settle:before", partial(trio.sleep, 5), times=1)
    await run(traced, job, seconds=20)
    written = [*RECEIVED, "status running", "status succeeded"]
    assert traced.trace == [*written, "settle Complete (refused)", "task_lease_lost", "task_postrun"]


async def test_child(traced, autojump_clock):
    """A child is published through the worker's producer and its signals, before its parent is over."""
    traced.listen(*PUBLISH_SIGNALS)

    @task
    async def child(context: TaskContext) -> None:
        await trio.sleep(1)

    @task
    async def parent(context: TaskContext) -> None:
        await trio.sleep(1)
        await child.with_options(delay=10).enqueue(context)

    parent_id = await traced.enqueue(parent)
    await run(traced, parent, child)
    publish = ["before_task_publish", "publish", "status queued", "after_task_publish"]
    assert traced.trace == [
        *(*RECEIVED, "status running", *publish, *SUCCEEDED),
        *(*RECEIVED, "status running", *SUCCEEDED),
    ]
    published = traced.event("after_task_publish")
    assert (published.envelope.parent_id, published.envelope.root_id, published.delay) == (parent_id, parent_id, 10)


# --- the worker's own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["warm", "soft", "hard"])
async def test_life_of_a_worker(world, autojump_clock, mode):
    """A worker is initialised, ready, beats, stops, and is gone, in this order."""
    world.listen(*WORKER_SIGNALS)
    worker = world.worker(heartbeat_interval=10)
    async with worker:
        await trio.sleep(25)
        await worker.shutdown(mode)
    beats = [i for i, name in enumerate(world.trace) if name == "worker_heartbeat"]
    assert len(beats) == 3
    # The first heartbeat may come before or after the worker is ready.
    assert sorted(world.trace[1:3]) == ["worker_heartbeat", "worker_ready"]
    assert world.trace[:1] == ["worker_init"]
    assert world.trace[3:] == ["worker_heartbeat", "worker_heartbeat", "worker_stopping", "worker_shutdown"]
    assert {event.worker for _, event in world.events} == {worker.id}
    assert {event.queues for _, event in world.events} == {("default",)}
    assert [event.mode for name, event in world.events[-2:]] == [mode, mode]
    beat = world.events[beats[-1]][1].heartbeat
    assert (beat.worker, beat.state, beat.concurrency) == (worker.id, "running", 32)
    assert (beat.sent_at - beat.started_at) == pytest.approx(20)


async def test_tasks_end_before_their_worker(world, autojump_clock):
    """Whatever is told of tasks is told between the worker's beginning and its end."""
    world.listen(*TASK_SIGNALS, "worker_init", "worker_ready", "worker_stopping", "worker_shutdown")

    @task
    async def job() -> None:
        await trio.sleep(5)

    await world.enqueue(job)
    async with world.worker(job):
        await trio.sleep(1)
    ended = ["task_succeeded", "task_postrun", "worker_shutdown"]
    assert world.trace == ["worker_init", "worker_ready", *RECEIVED, "worker_stopping", *ended]


async def test_life_of_a_worker_that_fails(world, autojump_clock):
    """G8: a worker that fails says that it is gone, too."""
    world.listen("worker_init", "worker_ready", "worker_stopping", "worker_shutdown")

    def fail() -> None:
        raise RuntimeError

    world.faults.at("broker.claim:before", fail)
    with pytest.raises(RuntimeError):
        await world.worker(lifecycle=WorkerLifecycleConfig()).run()
    assert world.trace == ["worker_init", "worker_ready", "worker_stopping", "worker_shutdown"]
    assert [event.mode for _, event in world.events[2:]] == ["hard", "hard"]


# --- the producer's -------------------------------------------------------------------------------------------------


@pytest.fixture
def producer(world):
    """A producer over stores that fail on demand, everything that it does in the trace."""
    world.watch_stores()
    world.listen(*PUBLISH_SIGNALS, "task_revoked")
    return Stem(world.broker, world.backend, signals=world.signals, clock=world.clock)


@task(name="job")
async def plain(number: int = 0) -> None: ...


async def test_publishing(world, producer):
    """A task is announced, published, recorded, and told of."""
    handle = await plain.with_options(delay=5).enqueue(producer, 1)
    assert world.trace == ["before_task_publish", "publish", "status queued", "after_task_publish"]
    before, after = world.event("before_task_publish"), world.event("after_task_publish")
    assert before.envelope == after.envelope
    assert (before.envelope.id, before.delay, after.delay) == (handle.id, 5, 5)


async def test_publishing_several(world, producer):
    """Tasks that are enqueued together take each step together, in their order."""
    ids = await producer.enqueue_many([plain.bind(number) for number in range(3)])
    steps = ["before_task_publish", "publish", "status queued", "after_task_publish"]
    assert world.trace == [step for step in steps for _ in range(3)]
    assert [event.envelope.id for _, event in world.events] == ids * 2


async def test_publishing_what_is_there_already(world, producer):
    """An id that the broker holds is announced, before it is known to be there; one that is over is not even that."""
    once = plain.with_options(task_id="mine")
    await once.enqueue(producer)
    world.trace.clear()
    await once.enqueue(producer)
    assert world.trace == ["before_task_publish"]
    async with world.worker(plain, signals=StemSignals()):
        await producer.wait_for_task("mine")
    world.trace.clear()
    await once.enqueue(producer)
    assert world.trace == []


async def test_publishing_that_fails(world, producer):
    """What could not be published is not told of."""
    world.faults.fail("broker.publish")
    with pytest.raises(StoreUnavailableError):
        await plain.enqueue(producer)
    assert world.trace == ["before_task_publish"]


async def test_recording_that_fails(world, producer):
    """What could not be recorded is told of nevertheless: it is enqueued."""
    world.faults.fail("backend.record")
    await plain.enqueue(producer)
    assert world.trace == ["before_task_publish", "publish", "after_task_publish"]


async def test_publishing_without_a_backend(world, producer):
    """Without a backend there is nothing to record."""
    bare = Stem(world.broker, signals=world.signals, clock=world.clock)
    await plain.enqueue(bare)
    assert world.trace == ["before_task_publish", "publish", "after_task_publish"]


async def test_purging(world, producer):
    """G8: purged tasks are recorded, removed, and told of as revoked, by nobody's worker."""
    await producer.enqueue_many([plain.bind(1), plain.with_options(delay=60).bind(2)])
    world.trace.clear()
    world.events.clear()
    assert await producer.purge("default") == 2
    assert world.trace == ["status revoked", "status revoked", "task_revoked", "task_revoked"]
    assert {(event.reason, event.worker) for _, event in world.events} == {("purged", "")}
