"""An app: producer, stores and worker in one block."""

from __future__ import annotations

import signal
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stem_trio import (
    ArgumentsError,
    FixedRetryStrategy,
    FunctionTaskHandler,
    InMemoryBroker,
    InMemoryResultBackend,
    InvalidOptionError,
    PayloadTooLargeError,
    RegistrationError,
    Stem,
    StemApp,
    StemSignals,
    StoreClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    TaskContext,
    TaskOptions,
    TaskState,
    UnknownTaskError,
    UnregisteredTaskError,
    WorkerLifecycleConfig,
    WorkerState,
    WorkerStateError,
    signals,
    task,
)
from stem_trio._groups import inner_error, raise_unchanged, single_error
from stem_trio.testing.contracts import make_envelope
from stem_trio.testing.faults import Faults
from tests.app.support import BugError, make_app


@task(name="add")
async def add(a: int, b: int) -> int:
    return a + b


@task(name="sleeps")
async def sleeps(seconds: float = float("inf")) -> float:
    await trio.sleep(seconds)
    return seconds


# --- the worker starts when it is needed ----------------------------------------------------------------------------


async def test_nothing_enqueued(autojump_clock):
    """An app that enqueues nothing never starts its worker."""
    faults = Faults()
    async with make_app(add, faults=faults) as app:
        await trio.sleep(100)
        assert app.worker.state is WorkerState.CREATED
        assert await app.status("x") is None
    assert app.worker.state is WorkerState.STOPPED
    assert faults.trace == ["backend.get:before", "backend.get:after"]


STARTS = {
    "enqueue": lambda app: app.enqueue("add", {"a": 1, "b": 2}),
    "submit": lambda app: app.submit(app.call("add", {"a": 1, "b": 2})),
    "enqueue_many": lambda app: app.enqueue_many([add.bind(1, 2)]),
    "typed": lambda app: add.enqueue(app, 1, 2),
    "drain": lambda app: app.drain(),
    "start": lambda app: app.start(),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
async def test_what_starts_the_worker(autojump_clock, start):
    """The worker is ready when the first thing that needs it has returned."""
    async with make_app(add) as app:
        await start(app)
        assert app.worker.state is WorkerState.RUNNING
        await start(app)
        await app.start()
    assert app.worker.state is WorkerState.STOPPED


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
async def test_concurrent_first_calls(autojump_clock, start):
    """Any number of first calls start one worker."""
    listened = StemSignals()
    started = []
    listened.worker_init.connect(lambda event: started.append(event.worker))
    async with make_app(add, signals=listened) as app:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(start, app)
        await app.drain()
    assert started == [app.worker.id]


@pytest.mark.parametrize("number", range(6))  # which task has the first turn is random
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
async def test_first_call_that_is_cancelled(autojump_clock, number, steps):
    """G10: a first call that is cancelled leaves an app that works, or comes to its end, and does not hang."""
    async with make_app(add) as app:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel() -> None:
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel)
                await app.enqueue("add", {"a": 1, "b": 2})
        if number % 2:
            assert await (await add.enqueue(app, 1, 2)).result() == 3
            assert app.worker.state is WorkerState.RUNNING
    assert app.worker.state is WorkerState.STOPPED


@pytest.mark.parametrize("number", range(6))
async def test_first_call_of_somebody_cancelled_already(autojump_clock, number):
    """G10: nor does one hang that leaves at once, before the worker has had its turn."""
    with trio.fail_after(60):
        async with make_app(add) as app:
            with trio.CancelScope() as scope:
                scope.cancel()
                await app.enqueue("add", {"a": 1, "b": 2})
    assert app.worker.state is WorkerState.STOPPED
    assert app.worker.in_flight == 0


async def test_refused_calls_start_nothing(autojump_clock):
    """G15: input that is refused does not even start the worker."""
    async with make_app(add) as app:
        with pytest.raises(UnregisteredTaskError):
            await app.enqueue("subtract")
        with pytest.raises(ArgumentsError):
            await app.enqueue("add", {"a": "x", "b": 1})
        with pytest.raises(ArgumentsError):
            await add.enqueue(app, "x", 1)
        assert app.worker.state is WorkerState.CREATED


async def test_outside_of_the_block():
    """An app that is not open says so."""
    app = make_app(add)
    for call in (STARTS["enqueue"], STARTS["start"], STARTS["drain"]):
        with pytest.raises(WorkerStateError, match="not open"):
            await call(app)
    with pytest.raises(StoreClosedError):
        await app.status("x")
    async with app:
        await app.start()
    with pytest.raises(WorkerStateError, match="not open"):
        await app.start()


async def test_opened_once(autojump_clock):
    """An app is opened once, and says so, inside of its block and after it."""
    async with make_app(add) as app:
        with pytest.raises(WorkerStateError, match="opened once"):
            async with app:
                raise AssertionError("not reached")
        assert await (await add.enqueue(app, 1, 2)).result() == 3
    with pytest.raises(WorkerStateError, match="opened once"):
        await app.__aenter__()


async def test_store_that_cannot_be_opened():
    """When a store cannot be opened the other one is closed, and the app can be opened once that is put right."""
    broker, backend = InMemoryBroker(), InMemoryResultBackend()
    app = StemApp(broker, backend, tasks=[add], signals=StemSignals())
    async with backend:
        with pytest.raises(StoreError, match="open already"):
            await app.__aenter__()
    with pytest.raises(StoreClosedError):
        await broker.stats("default")
    async with app:
        assert await (await add.enqueue(app, 1, 2)).result() == 3


# --- options --------------------------------------------------------------------------------------------------------


async def test_queues_come_from_the_tasks(autojump_clock):
    """The worker claims from the default queue, and from those that tasks name."""

    @task(name="a", queue="mail")
    async def a() -> None: ...

    @task(name="b", queue="reports")
    async def b() -> None: ...

    @task(name="c", queue="mail")
    async def c() -> None: ...

    app = make_app(a, b, c)
    assert app.worker.queues == ("default", "mail", "reports")
    async with app:
        handles = [await job.enqueue(app) for job in (a, b, c)]
        assert [(await handle.wait()).state for handle in handles] == [TaskState.SUCCEEDED] * 3
    assert make_app(a, queues=["only"]).worker.queues == ("only",)


async def test_options_reach_the_worker(autojump_clock):
    """What is said to the app is heard by its worker."""
    faults = Faults()

    @task(name="flaky", max_retries=1)
    async def flaky(context: TaskContext) -> int:
        if context.attempt == 0:
            raise ValueError
        return context.attempt

    app = make_app(
        flaky,
        sleeps,
        faults=faults,
        concurrency=2,
        prefetch=1,
        retry_strategy=FixedRetryStrategy(77),
        lifecycle=WorkerLifecycleConfig(soft_grace_period=9),
        heartbeat_interval=20,
        store_timeout=5,
    )
    async with app:
        assert await (await flaky.enqueue(app)).result() == 1
        assert trio.current_time() == 77
        await app.enqueue_many([sleeps.bind() for _ in range(5)])
        await wait_all_tasks_blocked()
        assert app.worker.in_flight == 3
        [beat] = await app.backend.list_heartbeats()
        assert beat.concurrency == 2
        beats = faults.trace.count("backend.put_heartbeat:after")
        await trio.sleep(100)
        assert faults.trace.count("backend.put_heartbeat:after") == beats + 5
        left = trio.current_time()
    assert trio.current_time() == left + 9


async def test_size_of_children(autojump_clock):
    """The limit of the app holds for what its handlers enqueue, too: as large, and as small."""

    @task(name="child")
    async def child(text: str) -> int:
        return len(text)

    @task(name="parent")
    async def parent(context: TaskContext, size: int) -> int:
        handle = await child.enqueue(context, "x" * size)
        return len(handle.id)

    async with make_app(parent, child, max_payload_size=500_000) as app:
        assert await (await parent.enqueue(app, 400_000)).result() == 36
        result = await (await parent.enqueue(app, 600_000)).wait()
        assert result.error.type == "stem_trio.errors.PayloadTooLargeError"
    async with make_app(parent, child, max_payload_size=9_000) as app:
        assert (await (await parent.enqueue(app, 20_000)).wait()).state is TaskState.FAILED
        with pytest.raises(PayloadTooLargeError):
            await child.enqueue(app, "x" * 20_000)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("concurrency", 0),
        ("prefetch", -1),
        ("queues", []),
        ("queues", "default"),
        ("heartbeat_interval", 0),
        ("max_payload_size", 0),
        ("store_timeout", 0),
    ],
)
def test_bad_options(option, value):
    """G15: options are checked when the app is made, and named."""
    with pytest.raises(InvalidOptionError, match=f"{option}="):
        make_app(add, **{option: value})


def test_bad_tasks():
    """G15: so are its tasks."""
    with pytest.raises(RegistrationError):
        StemApp.in_memory(tasks=[FunctionTaskHandler])


def test_defaults():
    """An app that is told nothing uses the process's signals, for both of its parts."""
    app = StemApp.in_memory(tasks=[add])
    assert app.stem.signals is app.worker.stem.signals is signals.default
    assert app.registry is app.worker.stem.registry
    assert isinstance(app.broker, InMemoryBroker)
    assert isinstance(app.backend, InMemoryResultBackend)


async def test_in_memory_class_method():
    """Everything in one process, nothing to install."""
    seen = []

    async def send_email(context, args):
        seen.append((context.name, args))

    handler = FunctionTaskHandler(name="email.send", entrypoint=send_email, options=TaskOptions(priority=3))
    async with StemApp.in_memory(tasks=[handler], signals=StemSignals()) as app:
        task_id = await app.enqueue("email.send", args={"to": "hello@example.com"})
        result = await app.wait_for_task(task_id, timeout=30)
        assert result.state is TaskState.SUCCEEDED
    assert seen == [("email.send", {"to": "hello@example.com"})]


# --- leaving the block ----------------------------------------------------------------------------------------------


async def test_leaving_is_a_warm_shutdown(autojump_clock):
    """G10: leaving the block waits for what runs, up to the grace period."""
    async with make_app(sleeps) as app:
        handle = await sleeps.enqueue(app, 20)
        await trio.sleep(1)
        backend = app.backend.inner
    assert trio.current_time() == 20
    async with backend:
        assert (await backend.get(handle.id)).state is TaskState.SUCCEEDED


class Labelled(ExceptionGroup):
    """A group whose class would be lost if it were copied."""


ERRORS = {
    "error": BugError("mine"),
    "interrupt": KeyboardInterrupt(),
    "stop": StopAsyncIteration(),
    "base group": BaseExceptionGroup("mine", [KeyboardInterrupt()]),
    "group of a class": Labelled("mine", [BugError("a")]),
    "exit": SystemExit(3),
    "group": ExceptionGroup("mine", [BugError("a"), ValueError("b")]),
    "group of one": ExceptionGroup("mine", [BugError("a")]),
}


@pytest.mark.parametrize("started", [True, False])
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
async def test_leaving_with_an_error_is_a_hard_shutdown(autojump_clock, error, started):
    """G10: an error in the block cancels what runs, gives it back, and comes out as it is, with its own cause."""
    cause = OSError("cause")
    app = make_app(sleeps)
    broker = app.broker.inner
    with pytest.raises(type(error)) as caught:
        async with app:
            if started:
                await sleeps.enqueue(app)
                await trio.sleep(2)
            raise error from cause
    assert caught.value is error
    assert caught.value.__cause__ is cause
    assert trio.current_time() == (2 if started else 0)
    assert app.worker.state is (WorkerState.STOPPED if started else WorkerState.CREATED)
    async with broker:
        assert (await broker.stats("default")).ready == started


async def test_leaving_by_cancellation(autojump_clock):
    """G10: a cancellation goes through the block, and leaves nothing running."""
    with trio.move_on_after(3) as scope:
        async with make_app(sleeps) as app:
            await sleeps.enqueue(app)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert app.worker.state is WorkerState.STOPPED
    assert trio.current_time() == 3


async def test_leaving_that_is_cancelled(autojump_clock):
    """G10: a cancellation while the block is left turns the warm shutdown into a hard one."""
    app = make_app(sleeps)
    with trio.move_on_after(3) as scope:
        async with app:
            await sleeps.enqueue(app)
            await trio.sleep(1)
    assert scope.cancelled_caught
    assert trio.current_time() == 3
    assert app.worker.state is WorkerState.STOPPED
    async with app.broker.inner as broker:
        assert (await broker.stats("default")).ready == 1


async def test_error_while_another_is_handled(autojump_clock):
    """An error comes out with the context in which it was raised."""
    first = KeyError("first")
    with pytest.raises(BugError) as caught:
        async with make_app(add) as app:
            await app.start()
            try:
                raise first
            except KeyError:
                raise BugError  # noqa: B904 - the context is the point
    assert caught.value.__context__ is first


async def test_worker_fails_while_the_block_fails_with_a_group(autojump_clock):
    """A group of the block's that the worker's failure has had a part in is told of without the cancellation."""
    faults = Faults()

    def fail() -> None:
        raise StoreError("worker")

    async def clean_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise BugError

    faults.at("backend.put_heartbeat:before", fail, skip=1)
    with pytest.RaisesGroup(StoreError, pytest.RaisesGroup(BugError)):
        async with make_app(add, faults=faults, heartbeat_interval=5) as app:
            await app.start()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(clean_up)
                nursery.start_soon(trio.sleep_forever)


@pytest.mark.parametrize("error", [StoreError("refused"), BugError("a bug")], ids=repr)
@pytest.mark.parametrize(
    "point",
    [
        "broker.claim:before",
        "broker.claim:after",
        "broker.settle:before",
        "broker.settle:after",
        "broker.subscribe:before",
        "broker.receive:before",
        "backend.record:before",
        "backend.put_heartbeat:before",
    ],
)
async def test_worker_that_fails_at_any_point(autojump_clock, point, error):
    """Wherever the worker fails, the block is cancelled at once and that very error comes out."""
    faults = Faults()

    def fail() -> None:
        raise error

    app = make_app(add, faults=faults)
    outside = Stem(app.broker.inner, app.backend.inner, tasks=[add], signals=StemSignals(), clock=app.stem.clock)
    cancelled = False
    with pytest.raises(type(error)) as caught:
        async with app:
            await add.enqueue(outside, 1, 2)
            faults.at(point, fail)
            try:
                await app.start()
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled = True
                raise
    assert caught.value is error
    assert cancelled
    assert trio.current_time() < 1
    assert app.worker.state is WorkerState.STOPPED
    with pytest.raises(StoreClosedError):
        await app.broker.stats("default")


async def test_worker_that_fails_while_the_block_is_left(autojump_clock):
    """A worker that fails in its warm shutdown is heard of too."""
    faults = Faults()

    def fail() -> None:
        raise StoreError("broken")

    with pytest.raises(StoreError, match="broken"):
        async with make_app(sleeps, faults=faults) as app:
            await sleeps.enqueue(app, 5)
            await trio.sleep(1)
            faults.at("broker.settle:before", fail)
    assert trio.current_time() == 5


async def test_outage_is_no_failure(autojump_clock):
    """G11: while the stores are away enqueueing fails by name; the app goes on when they are back."""
    faults = Faults()
    async with make_app(add, faults=faults) as app:
        await app.start()
        faults.down = True
        with pytest.raises(StoreUnavailableError) as caught:
            await app.enqueue("add", {"a": 1, "b": 2})
        assert not caught.value.maybe_applied
        await trio.sleep(600)
        assert app.worker.state is WorkerState.RUNNING
        faults.clear()
        assert await (await add.enqueue(app, 1, 2)).result(timeout=60) == 3


@pytest.mark.parametrize(("wanted", "installed"), [(None, False), (False, False), (True, True)])
def test_signals_of_the_system_are_the_host_s(wanted, installed):
    """The worker of an app leaves the operating system's signals alone unless it is told otherwise."""
    seen = []

    async def main() -> None:
        before = signal.getsignal(signal.SIGTERM)
        async with make_app(add, lifecycle=WorkerLifecycleConfig(install_signal_handlers=wanted)) as app:
            await app.start()
            seen.append(signal.getsignal(signal.SIGTERM) is not before)
        seen.append(signal.getsignal(signal.SIGTERM) is before)

    trio.run(main)
    assert seen == [installed, True]


async def test_worker_that_fails(autojump_clock):
    """A worker that fails cancels the block, and its error comes out of it as it is."""
    faults = Faults()

    def fail() -> None:
        raise StoreError("broken") from OSError("cause")

    faults.at("backend.put_heartbeat:before", fail, skip=1)
    with pytest.raises(StoreError, match="broken") as caught:
        async with make_app(sleeps, faults=faults, heartbeat_interval=5) as app:
            await sleeps.enqueue(app)
            await trio.sleep_forever()
    assert isinstance(caught.value.__cause__, OSError)
    assert trio.current_time() == 5
    assert app.worker.state is WorkerState.STOPPED


async def test_worker_that_cannot_start(autojump_clock):
    """So does one that fails before it is ready; whoever waits for it is not left waiting."""
    faults = Faults()

    def fail() -> None:
        raise StoreError("broken")

    faults.at("broker.subscribe:before", fail)
    with pytest.raises(StoreError, match="broken"):
        async with make_app(sleeps, faults=faults) as app:
            await app.enqueue("sleeps")
            await trio.sleep_forever()


async def test_worker_and_block_that_fail(autojump_clock):
    """When both fail, a group tells of both."""
    faults = Faults()

    def fail() -> None:
        raise StoreError("worker")

    faults.at("backend.put_heartbeat:before", fail, skip=1)
    with pytest.RaisesGroup(BugError, StoreError):
        async with make_app(sleeps, faults=faults, heartbeat_interval=5) as app:
            await app.start()
            try:
                await trio.sleep_forever()
            finally:
                raise BugError


async def test_worker_that_was_stopped_by_hand(autojump_clock):
    """The worker may be shut down within the block: tasks are then enqueued for others."""
    async with make_app(add) as app:
        await app.start()
        await app.worker.shutdown()
        handle = await add.enqueue(app, 1, 2)
        assert (await handle.status()).state is TaskState.QUEUED
    assert (app.worker.state, app.worker.in_flight) == (WorkerState.STOPPED, 0)


# --- drain ----------------------------------------------------------------------------------------------------------


async def test_drain_of_nothing(autojump_clock):
    """Nothing to wait for, nothing waited for."""
    async with make_app(add) as app:
        await app.drain()
        await app.drain()
    assert trio.current_time() == 0


async def test_drain(autojump_clock):
    """Delays, retries, children and what runs are waited for, in no more time than they take."""

    @task(name="child", queue="children")
    async def child() -> None:
        await trio.sleep(2)

    @task(name="parent", max_retries=2)
    async def parent(context: TaskContext) -> None:
        if context.attempt < 2:
            raise ValueError
        await child.with_options(delay=5000).enqueue(context)

    async with make_app(parent, child, retry_strategy=FixedRetryStrategy(1000)) as app:
        handle = await parent.with_options(delay=3600).enqueue(app)
        await app.drain()
        assert trio.current_time() == pytest.approx(3600 + 2 * 1000 + 5000 + 2)
        assert (await handle.status()).state is TaskState.SUCCEEDED
        assert app.worker.totals["succeeded"] == 2
        assert app.worker.in_flight == 0


async def test_drain_looks_at_the_worker_s_queues_only(autojump_clock):
    """What waits in a queue that the worker does not claim from would be waited for in vain."""

    @task(name="elsewhere", queue="elsewhere")
    async def elsewhere() -> None: ...

    async with make_app(elsewhere, queues=["default"]) as app:
        handle = await elsewhere.enqueue(app)
        await app.drain()
        assert (await handle.status()).state is TaskState.QUEUED


async def test_drain_waits_for_listeners(autojump_clock):
    """After a drain listeners have been told of everything, slow ones too."""
    listened = StemSignals()
    heard = []

    @listened.task_succeeded.connect
    async def slow(event) -> None:
        await trio.sleep(3)
        heard.append(event.task_id)

    async with make_app(add, signals=listened) as app:
        ids = await app.enqueue_many([add.bind(1, number) for number in range(4)])
        await app.drain()
        assert sorted(heard) == sorted(ids)


async def test_drain_waits_for_what_listeners_enqueue(autojump_clock):
    """A listener that enqueues a follow-up is no way around the drain."""
    app = make_app(add)
    values = []

    @app.stem.signals.task_succeeded.connect
    async def follow_up(event) -> None:
        values.append((await app.wait_for_task(event.task_id)).value)
        if len(values) < 4:
            await trio.sleep(5)
            await app.enqueue("add", {"a": values[-1], "b": 1}, delay=60)

    async with app:
        await add.enqueue(app, 0, 1)
        await app.drain()
        assert values == [1, 2, 3, 4]
        assert (await app.broker.stats("default")).unfinished == 0


@pytest.mark.parametrize("latency", [0.1, 1, 3])
async def test_drain_sees_a_child_whose_parent_ends_between_two_counts(autojump_clock, latency):
    """A child in a queue that was counted before its parent ended is not overlooked, however slow the store is."""
    ran = []

    @task(name="parent", queue="second")
    async def parent(context: TaskContext) -> None:
        await trio.sleep(latency / 2)
        await child.with_options(delay=100).enqueue(context)

    @task(name="child")
    async def child() -> None:
        ran.append(trio.current_time())

    faults = Faults()
    faults.at("broker.stats:after", partial(trio.sleep, latency))
    async with make_app(child, parent, faults=faults) as app:
        assert app.worker.queues == ("default", "second")
        await parent.enqueue(app)
        await app.drain()
        assert ran == [pytest.approx(100 + latency / 2)]


async def test_drain_does_not_wait_for_dead_letters(autojump_clock):
    """G8: a task that was given up is over."""

    @task(name="broken", max_retries=0)
    async def broken() -> None:
        raise BugError

    async with make_app(broken) as app:
        handle = await broken.enqueue(app)
        await app.drain()
        assert (await app.broker.stats("default")).dead == 1
        assert (await handle.status()).state is TaskState.FAILED


async def test_drain_with_tasks_in_other_hands(autojump_clock):
    """A task that another worker holds is waited for, too, and when that dies, until it has been run."""
    async with make_app(add) as app:
        await app.broker.publish([])
        task_id = await app.stem.enqueue("add", {"a": 1, "b": 2}, visibility_timeout=600)
        [delivery] = await app.broker.claim(["default"], consumer="other", limit=1, wait=0)
        assert delivery.envelope.id == task_id
        await app.drain()
        assert trio.current_time() == pytest.approx(600, abs=40)
        assert (await app.status(task_id)).state is TaskState.SUCCEEDED


async def test_concurrent_drains(autojump_clock):
    """Several may wait for the same end."""
    ends = []

    async with make_app(sleeps) as app, trio.open_nursery() as nursery:
        await sleeps.enqueue(app, 10)

        async def drain() -> None:
            await app.drain()
            ends.append(trio.current_time())

        for _ in range(3):
            nursery.start_soon(drain)
    assert ends == [10] * 3


async def test_cancelled_drain(autojump_clock):
    """Cancelling a drain changes nothing."""
    async with make_app(sleeps) as app:
        handle = await sleeps.enqueue(app, 10)
        with trio.move_on_after(3) as scope:
            await app.drain()
        assert scope.cancelled_caught
        assert await handle.result() == 10


async def test_drain_without_a_broker(autojump_clock):
    """G11: a broker that cannot be reached, or does not answer, is told within bounded time."""
    faults = Faults()
    async with make_app(add, faults=faults, store_timeout=4) as app:
        await app.start()
        faults.fail("broker.stats")
        with pytest.raises(StoreUnavailableError):
            await app.drain()
        faults.clear()
        faults.hang("broker.stats")
        with pytest.raises(StoreTimeoutError):
            await app.drain()
        assert trio.current_time() == 4
        faults.clear()


# --- several apps ---------------------------------------------------------------------------------------------------


async def test_two_apps_keep_to_themselves(autojump_clock):
    """Two apps in one process share nothing: tasks, statuses, signals, control, or their ends."""
    heard: dict[str, list[str]] = {"one": [], "two": []}

    def app_named(name: str) -> StemApp:
        @task(name="job")
        async def job() -> str:
            await trio.sleep(5)
            return name

        listened = StemSignals()
        listened.task_succeeded.connect(lambda event: heard[name].append(event.task_id))
        return make_app(job, signals=listened)

    async with app_named("one") as one:
        async with app_named("two") as two:
            first = [await one.enqueue("job") for _ in range(3)] + [await one.enqueue("job", delay=50)]
            second = [await two.enqueue("job") for _ in range(3)] + [await two.enqueue("job", delay=50)]
            await trio.sleep(1)
            assert await one.status(second[0]) is None
            with pytest.raises(UnknownTaskError):
                await one.revoke(second[0])
            assert await two.purge("default") == 1
            await two.drain()
        assert two.worker.state is WorkerState.STOPPED
        assert one.worker.state is WorkerState.RUNNING
        await one.drain()
        assert [(await one.wait_for_task(task_id, 0)).value for task_id in first] == ["one"] * 4
        assert sorted(heard["one"]) == sorted(first)
    assert sorted(heard["two"]) == sorted(second[:3])
    assert one.worker.id != two.worker.id


async def test_app_that_fails_leaves_the_other_alone(autojump_clock):
    """Nor does one's failure touch the other, as long as they are not nested in each other."""
    results = []

    async def good() -> None:
        async with make_app(add) as app:
            await trio.sleep(10)
            results.append(await (await add.enqueue(app, 1, 2)).result())

    async def bad() -> None:
        faults = Faults()
        faults.at("broker.claim:before", partial(trio.sleep, 3), times=1)

        def fail() -> None:
            raise BugError

        faults.at("broker.claim:before", fail)
        with pytest.raises(BugError):
            async with make_app(add, faults=faults) as app:
                await app.start()
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(good)
        nursery.start_soon(bad)
    assert results == [3]


# --- exception groups -----------------------------------------------------------------------------------------------


def test_single_error():
    """One error is found however deep it is; of several the group itself stands."""
    error = BugError("mine")
    deep = ExceptionGroup("outer", [ExceptionGroup("inner", [error])])
    several = ExceptionGroup("inner", [error, KeyError("other")])
    assert single_error(deep) is error
    assert single_error(several) is several
    assert single_error(ExceptionGroup("outer", [several])) is several


def test_inner_error():
    """One layer is taken off, and no more: what a nursery has wrapped may be a group itself."""
    error = BugError("mine")
    inner = ExceptionGroup("inner", [error])
    several = ExceptionGroup("several", [error, KeyError("other")])
    assert inner_error(ExceptionGroup("outer", [inner])) is inner
    assert inner_error(inner) is error
    assert inner_error(several) is several


def test_inner_error_that_trio_has_copied():
    """The group that the block has raised counts, not the copy of it; unless there is more to tell."""
    body = Labelled("mine", [BugError("a")])
    copy = ExceptionGroup("mine", list(body.exceptions))
    assert inner_error(ExceptionGroup("nursery", [copy]), body) is body
    both = ExceptionGroup("nursery", [copy, KeyError("other")])
    assert inner_error(both, body) is both


def test_raise_unchanged():
    """An error leaves its group with the cause and the context that it had."""
    cause, context = KeyError("cause"), OSError("context")
    error = BugError("mine")
    error.__cause__, error.__context__ = cause, context
    with pytest.raises(BugError) as caught:
        try:
            raise ExceptionGroup("outer", [error])
        except ExceptionGroup as group:
            raise_unchanged(inner_error(group))
    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__context__ is context


async def test_drain_of_a_stopped_worker(autojump_clock):
    """G12: to drain what nobody will run any more is refused, and does not hang; nothing left is no error."""
    app = StemApp.in_memory(tasks=[], signals=StemSignals())
    async with app:
        await app.start()
        await app.worker.shutdown()
        await app.drain()
        envelope = make_envelope(queue="default")
        await app.broker.publish([envelope])
        with pytest.raises(WorkerStateError, match="1 task"):
            await app.drain()
