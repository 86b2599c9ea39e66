"""The host for asyncio programs, on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib.util
import logging
import os
import random
import signal
import sys
import threading
import traceback

import anyio
import pytest
import trio

from stem_trio import (
    ArgumentsError,
    AsyncioStem,
    ConfigurationError,
    StemConfig,
    StemSignals,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
    TaskFailedError,
    TaskHandle,
    TaskState,
    UnknownTaskError,
    WaitTimeoutError,
    task,
)
from stem_trio.integrations import asyncio_host

from .support import BugError, Stage, StagedClient, add, fails, make_app, make_client, staged

LOOPS = ["asyncio"] if importlib.util.find_spec("uvloop") is None else ["asyncio", "uvloop"]


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "asyncio":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


@pytest.fixture(params=LOOPS)
def loop_factory(request):
    return lambda: new_loop(request.param)


@pytest.fixture
def run(loop_factory, caplog):
    """Run a coroutine function as a program in debug mode, and see that it leaves nothing behind."""

    def run(main, *, logs=()):
        async def checked():
            async with asyncio.timeout(30):
                value = await main()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert not trio.lowlevel.in_trio_run()
            return value

        with caplog.at_level(logging.INFO), asyncio.Runner(debug=True, loop_factory=loop_factory) as runner:
            runner.get_loop().slow_callback_duration = 0.5
            value = runner.run(checked())
        gc.collect()  # what was not awaited, or never looked at, says so now
        noted = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
        assert len(noted) == len(logs), noted
        for text, part in zip(noted, logs, strict=True):
            assert part in text
        return value

    return run


async def until(condition) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of what happens on trio asyncio has no events
            await asyncio.sleep(0.001)


# --- what a producer does -----------------------------------------------------------------------------------------


def test_everything_that_a_producer_does(run):
    """All that a client does can be done from asyncio."""

    async def main():
        async with AsyncioStem(make_client()) as stem:
            assert {task.name for task in stem.registry} == {"add", "fails"}
            first = await stem.enqueue("add", args={"a": 1, "b": 2})
            assert (await stem.status(first)).state is TaskState.QUEUED
            second = await stem.submit(stem.call("add", {"a": 3, "b": 4}, priority=9))
            third, fourth = await stem.enqueue_many(add.bind(n, n) for n in range(2))
            assert await stem.revoke(second, reason="why")
            assert await stem.purge("default") == 4  # the revoked one too, as no worker has seen it
            for task_id in (first, third, fourth):
                assert (await stem.wait_for_task(task_id, timeout=5)).reason == "purged"
            assert await stem.status("nobody") is None
            with pytest.raises(UnknownTaskError):
                await stem.wait_for_task("nobody")
            assert await stem.replay_dead_letters("default", ["nobody"]) == [None]

    run(main)


def test_typed_tasks(run):
    """A typed task is enqueued from asyncio, and its handle is for asyncio."""

    async def main():
        async with AsyncioStem(make_app()) as stem:
            handle = await add.enqueue(stem, a=1, b=2)
            assert isinstance(handle, TaskHandle)
            assert handle.created
            assert await handle.result(timeout=5) == 3
            assert (await handle.wait()).value == 3
            assert (await handle.status()).state is TaskState.SUCCEEDED
            assert (await stem.wait_for_task(handle)).value == 3
            assert not await handle.revoke()
            failed = await fails.with_options(max_retries=0).enqueue(stem)
            with pytest.raises(TaskFailedError, match="on purpose"):
                await failed.result(timeout=5)
            late = await add.with_options(delay=60, task_id="mine").enqueue(stem, 1, 2)
            assert not (await add.with_options(delay=60, task_id="mine").enqueue(stem, 1, 2)).created
            with pytest.raises(WaitTimeoutError):
                await late.result(timeout=0)
            assert await late.revoke()

    run(main, logs=["task fails"])


def test_wrong_arguments_reach_no_store(run):
    """G15: bad arguments are refused before anything is written."""

    async def main():
        async with AsyncioStem(make_client()) as stem:
            with pytest.raises(ArgumentsError) as caught:
                await add.enqueue(stem, a=1, b="two")  # type: ignore[arg-type]
            assert caught.value.argument == "b"
            with pytest.raises(ArgumentsError):
                await stem.enqueue("add", {"a": 1})
            assert await stem.purge("default") == 0

    run(main)


def test_from_url_and_from_config(run):
    """It is made of what a client is made of."""

    async def main():
        config = StemConfig.from_environment({"STEM_BROKER_URL": "memory://"})
        for stem in (
            AsyncioStem.from_url("memory://", tasks=[add]),
            AsyncioStem.from_config(config, tasks=[add]),
            AsyncioStem.in_memory(tasks=[add]),
            AsyncioStem(make_client),
        ):
            for _ in range(2):  # it may be opened again
                async with stem as entered:
                    assert entered is stem
                    assert (await (await add.enqueue(stem, 1, 2)).status()).state is TaskState.QUEUED

    run(main)


def test_over_redis(run, redis_url, prefix):
    """Sockets of the guest work: many calls at once over a real server."""

    async def main():
        async with AsyncioStem.from_url(redis_url, tasks=[add], store_options={"prefix": prefix}) as stem:
            ids = await asyncio.gather(*(stem.enqueue("add", {"a": n, "b": n}) for n in range(50)))
            assert len(set(ids)) == 50
            assert all(status.state is TaskState.QUEUED for status in [await stem.status(id_) for id_ in ids[:3]])
            assert await stem.purge("default") == 50

    run(main)


def test_listeners_see_the_context_of_the_caller(run):
    """Context variables of the asyncio task are there in what runs for it on trio."""
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    signals, seen = StemSignals(), []
    signals.before_task_publish.connect(lambda event: seen.append(request.get()))

    async def main():
        async def handle(name):
            request.set(name)
            await add.enqueue(stem, 1, 2)

        async with AsyncioStem(make_client(signals=signals)) as stem:
            await asyncio.gather(handle("a"), handle("b"))

    run(main)
    assert sorted(seen) == ["a", "b"]


# --- cancellation -------------------------------------------------------------------------------------------------


def test_cancelling_reaches_trio_and_waits_for_its_end(run):
    """A cancelled asyncio task has cancelled its trio task, and ends after it."""
    stage = staged()
    stage.cleanup = 0.05

    async def main():
        async with AsyncioStem(StagedClient.on(stage)) as stem:
            waiting = asyncio.create_task(stem.status("x"))
            await until(lambda: stage.began)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert (stage.cancelled, stage.cleaned) == (1, 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await stem.status("x")
            assert stage.cleaned == 2
            with pytest.raises(ExceptionGroup) as caught:
                async with asyncio.TaskGroup() as group:
                    group.create_task(stem.status("x"))
                    await until(lambda: stage.began == 3)
                    raise BugError
            assert caught.group_contains(BugError)
            assert stage.cleaned == 3
            # anyio cancels again in each pass of the loop, for as long as a task is in the scope.
            with anyio.move_on_after(0.1) as scope:
                await stem.status("x")
            assert scope.cancelled_caught
            assert stage.cleaned == 4
            assert asyncio.current_task().cancelling() == 0

    run(main)


def test_cancelled_before_it_has_begun(run):
    """A call that is cancelled before trio has heard of it is not made."""
    stage = staged()

    async def main():
        async with AsyncioStem(StagedClient.on(stage)) as stem:
            waiting = asyncio.create_task(stem.status("x"))
            asyncio.get_running_loop().call_soon(waiting.cancel)  # it has asked, and trio has not had its turn
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert stage.began == 0

    run(main)


def test_cancelled_with_its_answer_on_the_way(run, monkeypatch):
    """Cancelling a call that has ended already is a cancellation, and its error does not go unseen."""
    error, settle = BugError("seen"), asyncio_host._Call.settle

    async def main():
        def settle_and_cancel(*args):
            settle(*args)
            assert waiting.cancel()

        async with AsyncioStem(StagedClient.on(staged())) as stem:
            monkeypatch.setattr(asyncio_host._Call, "settle", settle_and_cancel)
            waiting = asyncio.create_task(stem.status(error))
            with pytest.raises(asyncio.CancelledError) as caught:
                await waiting
            assert caught.value.__cause__ is error

    run(main)


def test_an_error_while_being_cancelled(run):
    """A cancellation stays one; what went wrong on the way is its cause."""
    stage = staged()
    stage.at_end = BugError("in the cleanup")

    async def main():
        async with AsyncioStem(StagedClient.on(stage)) as stem:
            waiting = asyncio.create_task(stem.status("x"))
            await until(lambda: stage.began)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await waiting
            assert caught.value.__cause__ is stage.at_end

    run(main)


def test_waiting_for_what_was_cancelled_is_bounded(run, monkeypatch):
    """Trio work that takes its time to end is not waited for without end; the block still waits for it."""
    monkeypatch.setattr(asyncio_host, "_GRACE", 0.05)
    stage = staged()
    stage.holding = trio.Event()

    async def main():
        async with AsyncioStem(StagedClient.on(stage)) as stem:
            waiting = asyncio.create_task(stem.status("x"))
            await until(lambda: stage.began)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert (stage.cancelled, stage.cleaned) == (1, 0)
            asyncio.get_running_loop().call_later(0.02, stage.holding.set)
        assert stage.cleaned == 1

    run(main, logs=["a call that was cancelled has not ended within 0.05 s"])


def test_many_calls_cancelled_at_random(run):
    """G1: whatever is cancelled at whichever moment, what was answered is there, and nothing is left over."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def main():
        async with AsyncioStem(make_client()) as stem:
            done: list[str] = []

            async def one(n: int) -> None:
                done.append(await stem.enqueue("add", {"a": n, "b": n}))

            for _ in range(10):
                tasks = [asyncio.create_task(one(n)) for n in range(20)]
                for some in chance.sample(tasks, 10):
                    asyncio.get_running_loop().call_later(chance.random() * 0.003, some.cancel)
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(result is None or isinstance(result, asyncio.CancelledError) for result in outcomes)
            for task_id in done:
                assert (await stem.status(task_id)).state is TaskState.QUEUED
            assert len(done) <= await stem.purge("default") <= 200
            assert not stem._stay._calls

    run(main)


# --- errors -------------------------------------------------------------------------------------------------------


def test_errors_arrive_as_they_were_raised(run):
    """The very exception arrives, and its traceback shows both sides."""
    error = BugError("mine")

    async def main():
        async with AsyncioStem(StagedClient.on(staged())) as stem:
            with pytest.raises(BugError) as caught:
                await stem.status(error)
            assert caught.value is error
            names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            assert names[0] == "main"
            assert names[-1] == "status"
            assert "_serve" in names

    run(main)


def test_store_that_cannot_be_reached(run, tmp_path):
    """What keeps the stores from opening is raised on entering, and nothing is left of the attempt."""

    async def main():
        stem = AsyncioStem.from_url(f"unix://{tmp_path}/nobody.sock", tasks=[add])
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                await stem.__aenter__()
            assert not trio.lowlevel.in_trio_run()
            with pytest.raises(StoreClosedError):
                await stem.status("x")

    run(main)


def test_function_that_makes_no_client(run):
    """A function that makes the client may fail, and until it was called there are no tasks to ask for."""

    def factory():
        raise BugError("no client")

    async def main():
        stem = AsyncioStem(factory)
        with pytest.raises(StoreClosedError):
            _ = stem.registry
        with pytest.raises(BugError):
            await stem.__aenter__()
        with pytest.raises(ConfigurationError, match="StemClient"):
            AsyncioStem("memory://")  # type: ignore[arg-type]

    run(main)


def test_stores_that_break(run):
    """When a store breaks all calls fail by name, and leaving the block raises what has happened."""
    stage = staged()

    async def main():
        with pytest.raises(BugError, match="own task"):
            async with AsyncioStem(StagedClient.on(stage)) as stem:
                waiting = asyncio.create_task(stem.status("x"))
                await until(lambda: stage.began)
                stage.breaking.set()
                with pytest.raises(StoreClosedError, match=r"have failed \(BugError\)") as caught:
                    await waiting
                assert isinstance(caught.value.__cause__, BugError)
                with pytest.raises(StoreClosedError, match="BugError"):
                    await add.enqueue(stem, 1, 2)
        assert isinstance(stage.closed_with[0], trio.Cancelled)

    run(main)


def test_trio_run_that_breaks(run):
    """When trio itself breaks nobody waits for ever."""

    async def broken():
        raise BugError("system task")

    stage = staged()

    async def main():
        with pytest.raises(trio.TrioInternalError):
            async with AsyncioStem(StagedClient.on(stage)) as stem:
                waiting = asyncio.create_task(stem.status("x"))
                await until(lambda: stage.began)
                trio.lowlevel.spawn_system_task(broken)
                with pytest.raises(StoreClosedError, match="TrioInternalError"):
                    await waiting
                with pytest.raises(StoreClosedError, match="TrioInternalError"):
                    await stem.status("x")

    run(main)


# --- opening and closing ------------------------------------------------------------------------------------------


def test_closing_ends_what_is_under_way(run):
    """Leaving the block cancels the calls of others, who are told, and ends after them."""
    stage = staged()
    stage.cleanup = 0.02

    async def main():
        async with AsyncioStem(StagedClient.on(stage)) as stem:
            await stem.enqueue("add", {"a": 1, "b": 2})
            waiting = [asyncio.create_task(stem.status("x")) for _ in range(3)]
            await until(lambda: stage.began == 3)
        assert stage.cleaned_before_closing == 3
        assert stage.closed_with == [None]
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, StoreClosedError)
            assert "unknown" in str(result)

    run(main)


def test_block_that_raises(run):
    """An error of the block comes out as it is, and the client is told of it."""
    stage, error = staged(), BugError("mine")

    async def main():
        with pytest.raises(BugError) as caught:
            async with AsyncioStem(StagedClient.on(stage)):
                raise error
        assert caught.value is error
        assert stage.closed_with == [error]

    run(main)


def test_entering_is_cancelled(run):
    """Stores that do not open are given up by a cancellation, and trio with them."""

    async def main():
        stem = AsyncioStem(StagedClient.on(Stage()))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await stem.__aenter__()
        assert not trio.lowlevel.in_trio_run()

    run(main)


def test_leaving_is_cancelled(run, monkeypatch):
    """A cancellation on the way out closes the stores all the same, and is not held up for ever."""
    monkeypatch.setattr(asyncio_host, "_GRACE", 0.05)
    stage = staged()
    stage.holding = trio.Event()

    async def main():
        stem = AsyncioStem(StagedClient.on(stage))
        await stem.__aenter__()
        waiting = asyncio.create_task(stem.status("x"))
        await until(lambda: stage.began)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await stem.__aexit__(None, None, None)
        stage.holding.set()
        with pytest.raises(StoreClosedError):
            await waiting
        await until(lambda: not trio.lowlevel.in_trio_run())
        assert isinstance(stage.closed_with[0], trio.Cancelled)

    run(main, logs=["have not closed within 0.05 s"])


def test_used_where_it_cannot_be(run, loop_factory):
    """Every wrong place has an error of its own, with the remedy."""
    stem = AsyncioStem(make_client())

    async def in_another_loop():
        with pytest.raises(ConfigurationError, match="in each loop"):
            await stem.status("x")
        with pytest.raises(ConfigurationError, match="in each loop"):
            await stem.__aexit__(None, None, None)

    def other_thread():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(in_another_loop())

    async def main():
        with pytest.raises(StoreClosedError, match="async with"):
            await stem.enqueue("add", {"a": 1, "b": 2})
        async with stem:
            with pytest.raises(StoreError, match="open already"):
                await stem.__aenter__()
            await asyncio.to_thread(other_thread)
            await stem.enqueue("add", {"a": 1, "b": 2})
        with pytest.raises(StoreClosedError, match="async with"):
            await stem.status("x")

    run(main)


async def test_on_trio():
    """On trio it names the class that is meant for it."""
    with pytest.raises(ConfigurationError, match="StemClient"):
        await AsyncioStem(make_client()).__aenter__()


def test_used_by_what_runs_in_it(run):
    """A task that runs in the guest is on trio, and cannot use what is for asyncio."""

    @task(name="inside", max_retries=0)
    async def inside() -> None:
        await stem.status("x")

    stem = AsyncioStem(make_app(tasks=[inside]))

    async def main():
        async with stem:
            with pytest.raises(TaskFailedError, match="StemClient"):
                await (await inside.enqueue(stem)).result(timeout=5)

    run(main, logs=["task inside"])


def test_several_in_one_loop(run):
    """Several may be open at once, in any order; they share one trio run, and not their troubles."""
    stage = staged()

    async def main():
        first, second = AsyncioStem(make_client()), AsyncioStem(StagedClient.on(stage))
        await asyncio.gather(first.__aenter__(), second.__aenter__())
        third = AsyncioStem(make_client)
        async with third:
            stage.breaking.set()
            with pytest.raises(StoreClosedError):
                await second.status("x")
            await first.enqueue("add", {"a": 1, "b": 2})
            await first.__aexit__(None, None, None)
            with pytest.raises(BugError):
                await second.__aexit__(None, None, None)
            await third.enqueue("add", {"a": 1, "b": 2})
            assert len(third._stay._guest.on_failure) == 1  # nothing is kept of those that have left
        # One enters while trio is just about to end with the other, at each step of that.
        for passes in range(8):
            await first.__aenter__()
            guest = first._stay._guest
            leaving = asyncio.create_task(first.__aexit__(None, None, None))
            while not guest.ending:  # noqa: ASYNC110 - in the very next pass of the loop
                await asyncio.sleep(0)
            for _ in range(passes):
                await asyncio.sleep(0)
            async with third:
                await third.enqueue("add", {"a": 1, "b": 2})
            await leaving

    run(main)


def test_trio_that_is_somebody_elses_guest(run):
    """A trio run in this thread that is not ours is not taken over."""

    async def main():
        ended = asyncio.get_running_loop().create_future()
        stop = trio.Event()
        loop = asyncio.get_running_loop()
        trio.lowlevel.start_guest_run(
            stop.wait,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=ended.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        try:
            with pytest.raises(ConfigurationError, match="trio run is under way"):
                await AsyncioStem(make_client()).__aenter__()
        finally:
            stop.set()
            await ended

    run(main)


def test_loop_closed_within_the_block(loop_factory, caplog):
    """A loop that ends before the block leaves no trace: its stores close as soon as somebody needs the thread."""
    stage = staged()
    stem = AsyncioStem(StagedClient.on(stage))
    loop = loop_factory()
    loop.run_until_complete(stem.__aenter__())
    waiting = loop.create_task(stem.status("x"))
    loop.run_until_complete(until(lambda: stage.began))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiting)
    loop.close()

    async def afterwards():
        hooks = sys.get_asyncgen_hooks()
        with pytest.raises(ConfigurationError, match="in each loop"):
            await stem.status("x")
        async with AsyncioStem(make_client()) as other:
            await other.enqueue("add", {"a": 1, "b": 2})
            assert len(stage.closed_with) == 1
        assert sys.get_asyncgen_hooks() == hooks
        async with stem:
            assert await stem.purge("default") == 0

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(afterwards())
    assert "closed within the block" in caplog.text
    assert trio.run(trio.sleep, 0) is None


def test_two_loops_of_one_thread(loop_factory):
    """Trio is the guest of one loop; another one in the same thread is told so."""
    first, second = loop_factory(), loop_factory()
    one, other = AsyncioStem(make_client()), AsyncioStem(make_client())
    first.run_until_complete(one.__aenter__())
    with pytest.raises(ConfigurationError, match="another event loop"):
        second.run_until_complete(other.__aenter__())
    first.run_until_complete(one.__aexit__(None, None, None))
    second.run_until_complete(other.__aenter__())
    second.run_until_complete(other.__aexit__(None, None, None))
    for loop in (first, second):
        loop.close()


def test_in_another_thread_than_the_main_one(loop_factory):
    """A loop in any thread may be the host."""
    states = []

    async def main():
        async with AsyncioStem(make_app()) as stem:
            states.append(await (await add.enqueue(stem, 1, 2)).result(timeout=5))

    def program():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    threads = [threading.Thread(target=program) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert states == [3, 3, 3]


# --- signals of the operating system ------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_signals_stay_the_hosts(run):
    """Handlers that the loop has installed are called as ever, within the block and after it."""
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, lambda: seen.append("usr1"))
        before = signal.getsignal(signal.SIGINT)
        async with AsyncioStem(make_client()) as stem:
            assert signal.getsignal(signal.SIGINT) is before
            await stem.enqueue("add", {"a": 1, "b": 2})
            os.kill(os.getpid(), signal.SIGUSR1)
            await until(lambda: seen)
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: len(seen) == 2)
        loop.remove_signal_handler(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGINT) is before

    run(main)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_is_raised_in_the_hosts_code():
    """Where nobody handles SIGINT, Ctrl-C is raised in the host's loop, and not inside of trio."""
    loop = asyncio.new_event_loop()
    stem = AsyncioStem(make_client())
    loop.run_until_complete(stem.__aenter__())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    loop.call_later(0.01, signal.raise_signal, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(10))
    loop.run_until_complete(stem.enqueue("add", {"a": 1, "b": 2}))
    loop.run_until_complete(stem.__aexit__(None, None, None))
    pending = asyncio.all_tasks(loop)
    for left in pending:
        left.cancel()
    loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    loop.close()


def test_ctrl_c_in_a_program(loop_factory):
    """Ctrl-C cancels the program's main task, which leaves the block in good order."""
    closed = []

    async def main():
        async with AsyncioStem(make_client()) as stem:
            try:
                handle = await add.enqueue(stem, 1, 2)
                asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGINT)
                await handle.result()
            finally:
                closed.append(not await stem.purge("nothing"))

    with pytest.raises(KeyboardInterrupt), asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert closed == [True]
    assert not trio.lowlevel.in_trio_run()
