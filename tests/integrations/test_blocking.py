"""The host for blocking code: trio in a thread, used from any number of others."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

from stem_trio import (
    ArgumentsError,
    BlockingStem,
    ConfigurationError,
    StemConfig,
    StoreClosedError,
    StoreError,
    StoreUnavailableError,
    TaskFailedError,
    TaskState,
    UnknownTaskError,
    WaitTimeoutError,
)
from stem_trio.integrations import BlockingTaskHandle, _portal

from .support import BugError, Stage, StagedClient, add, fails, make_app, make_client, staged

ROOT = Path(__file__).parents[2]


def until(condition) -> None:
    """Wait until a condition holds."""
    turn, waited = threading.Event(), 0
    while not condition():
        waited += 1
        assert waited < 10_000
        turn.wait(0.001)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


# --- what a producer does -----------------------------------------------------------------------------------------


def test_everything_that_a_producer_does():
    """All that a client does can be done from blocking code."""
    with BlockingStem(make_client()) as stem:
        assert {task.name for task in stem.registry} == {"add", "fails"}
        first = stem.enqueue("add", args={"a": 1, "b": 2})
        assert stem.status(first).state is TaskState.QUEUED
        second = stem.submit(stem.call("add", {"a": 3, "b": 4}, priority=9))
        third, fourth = stem.enqueue_many(add.bind(n, n) for n in range(2))
        assert stem.revoke(second, reason="why")
        assert stem.purge("default") == 4  # the revoked one too, as no worker has seen it
        for task_id in (first, third, fourth):
            assert stem.wait_for_task(task_id, timeout=5).reason == "purged"
        assert stem.status("nobody") is None
        with pytest.raises(UnknownTaskError):
            stem.wait_for_task("nobody")
        assert stem.replay_dead_letters("default", ["nobody"]) == [None]
    assert "BlockingStem" not in threads()


def test_typed_tasks():
    """A typed task is submitted by its bound call, and its handle is for blocking code."""
    with BlockingStem(make_app()) as stem:
        handle = stem.submit(add.bind(a=1, b=2))
        assert isinstance(handle, BlockingTaskHandle)
        assert (handle.name, handle.created, str(handle)) == ("add", True, handle.id)
        assert repr(handle) == f"<BlockingTaskHandle add {handle.id}>"
        assert handle.result(timeout=5) == 3
        assert handle.wait().value == 3
        assert handle.status().state is TaskState.SUCCEEDED
        assert stem.wait_for_task(handle).value == 3
        assert stem.status(handle).state is TaskState.SUCCEEDED
        assert not handle.revoke()
        failed = stem.submit(fails.with_options(max_retries=0).bind())
        with pytest.raises(TaskFailedError, match="on purpose"):
            failed.result(timeout=5)
        late = stem.submit(add.with_options(delay=60, task_id="mine").bind(1, 2))
        assert not stem.submit(add.with_options(delay=60, task_id="mine").bind(1, 2)).created
        with pytest.raises(WaitTimeoutError):
            late.result(timeout=0)
        assert late.revoke(reason="enough")


def test_wrong_arguments_reach_no_store():
    """G15: bad arguments are refused before anything is written."""
    with BlockingStem(make_client()) as stem:
        with pytest.raises(ArgumentsError) as caught:
            stem.enqueue("add", {"a": 1, "b": "two"})
        assert caught.value.argument == "b"
        assert stem.purge("default") == 0


def test_from_url_and_from_config():
    """It is made of what a client is made of, and can be opened and closed without a block."""
    config = StemConfig.from_environment({"STEM_BROKER_URL": "memory://"})
    for stem in (
        BlockingStem.from_url("memory://", tasks=[add]),
        BlockingStem.from_config(config, tasks=[add]),
        BlockingStem.in_memory(tasks=[add]),
        BlockingStem(make_client),
    ):
        for _ in range(2):  # it may be opened again
            assert stem.open() is stem
            assert stem.submit(add.bind(1, 2)).status().state is TaskState.QUEUED
            stem.close()
            stem.close()


def test_over_redis_from_many_threads(redis_url, prefix):
    """Any number of threads may enqueue and ask at once."""
    with BlockingStem.from_url(redis_url, tasks=[add], store_options={"prefix": prefix}) as stem:

        def one(n):
            task_id = stem.enqueue("add", {"a": n, "b": n})
            assert stem.status(task_id).state is TaskState.QUEUED
            return task_id

        with ThreadPoolExecutor(16) as pool:
            ids = list(pool.map(one, range(200)))
        assert len(set(ids)) == 200
        assert stem.purge("default") == 200


# --- errors -------------------------------------------------------------------------------------------------------


def test_errors_arrive_as_they_were_raised():
    """The very exception arrives, and its traceback shows both sides; an exit takes nobody else along."""
    with BlockingStem(StagedClient.on(staged())) as stem:
        for error in (BugError("mine"), SystemExit(3)):
            with pytest.raises(type(error)) as caught:
                stem._run(lambda client, error=error: client.status(error))
            assert caught.value is error
            names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            assert names[0] == "test_errors_arrive_as_they_were_raised"
            assert names[-1] == "status"
            assert "_serve" in names
        assert stem.purge("default") == 0


def test_store_that_cannot_be_reached(tmp_path):
    """What keeps the stores from opening is raised by opening, and no thread is left of the attempt."""
    stem = BlockingStem.from_url(f"unix://{tmp_path}/nobody.sock", tasks=[add])
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            stem.open()
        assert "BlockingStem" not in threads()
    with pytest.raises(StoreClosedError, match=r"open\(\)"):
        stem.status("x")


def test_function_that_makes_no_client():
    """A function that makes the client may fail, and until it was called there are no tasks to ask for."""

    def factory():
        raise BugError("no client")

    stem = BlockingStem(factory)
    with pytest.raises(StoreClosedError):
        _ = stem.registry
    with pytest.raises(BugError):
        stem.open()
    with pytest.raises(ConfigurationError, match="StemClient"):
        BlockingStem("memory://")  # type: ignore[arg-type]


def in_thread(function, *args):
    """Call a function in a thread; returns a future."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function, *args)
    pool.shutdown(wait=False)
    return future


def test_stores_that_break():
    """When a store breaks all calls fail by name, and closing raises what has happened."""
    stage = staged()
    with pytest.raises(BugError, match="own task"):
        with BlockingStem(StagedClient.on(stage)) as stem:
            waiting = in_thread(stem.status, "x")
            until(lambda: stage.began)
            stem._thread._soon(stage.breaking.set)
            with pytest.raises(StoreClosedError):
                waiting.result(10)
            with pytest.raises(StoreClosedError, match="BugError"):
                stem.submit(add.bind(1, 2))
    assert isinstance(stage.closed_with[0], trio.Cancelled)
    assert "BlockingStem" not in threads()


def test_trio_run_that_breaks():
    """When trio itself breaks nobody waits for ever."""

    async def broken():
        raise BugError("system task")

    stage = staged()
    with pytest.raises(trio.TrioInternalError):
        with BlockingStem(StagedClient.on(stage)) as stem:
            waiting = in_thread(stem.status, "x")
            until(lambda: stage.began)
            stem._thread._soon(lambda: trio.lowlevel.spawn_system_task(broken))
            with pytest.raises(StoreClosedError):
                waiting.result(10)
            with pytest.raises(StoreClosedError):
                stem.status("x")


# --- opening and closing ------------------------------------------------------------------------------------------


def test_closing_ends_what_is_under_way():
    """Closing cancels the calls of other threads, who are told, and ends after them; it may be done twice at once."""
    stage = staged()
    stage.cleanup = 0.02
    stem = BlockingStem(StagedClient.on(stage)).open()
    stem.enqueue("add", {"a": 1, "b": 2})
    waiting = [in_thread(stem.status, "x") for _ in range(3)]
    until(lambda: stage.began == 3)
    for closing in [in_thread(stem.close) for _ in range(3)]:
        closing.result(10)
    assert stage.cleaned_before_closing == 3
    assert stage.closed_with == [None]
    for future in waiting:
        assert isinstance(future.exception(10), StoreClosedError)
    assert "BlockingStem" not in threads()


def test_block_that_raises():
    """An error of the block comes out as it is, and the client is told of it."""
    stage, error = staged(), BugError("mine")
    with pytest.raises(BugError) as caught:
        with BlockingStem(StagedClient.on(stage)):
            raise error
    assert caught.value is error
    assert stage.closed_with == [error]


def test_used_where_it_cannot_be():
    """Every wrong place has an error of its own, with the remedy."""
    stem = BlockingStem(make_client())

    async def in_a_loop():
        for function in (stem.open, stem.close, stem.submit, lambda _: BlockingStem(make_client()).open()):
            with pytest.raises(ConfigurationError) as caught:
                function(*([add.bind(1, 2)] if function not in (stem.open, stem.close) else []))
            messages.append(str(caught.value))

    with pytest.raises(StoreClosedError, match="with block"):
        stem.enqueue("add", {"a": 1, "b": 2})
    with stem:
        with pytest.raises(StoreError, match="open already"):
            stem.open()
        messages: list[str] = []
        trio.run(in_a_loop)
        assert all("StemClient" in message for message in messages)
        messages.clear()
        asyncio.run(in_a_loop())
        assert all("AsyncioStem" in message for message in messages)
        # A thread of a program with a loop is fine: nothing stands still.
        assert asyncio.run(asyncio.to_thread(stem.purge, "default")) == 0
        stem.enqueue("add", {"a": 1, "b": 2})
    with pytest.raises(StoreClosedError, match="with block"):
        stem.status("x")


def test_forgotten():
    """One that is thrown away without being closed says so, and closes by itself."""
    stage = staged()
    stems = [BlockingStem(StagedClient.on(stage)).open()]
    thread = stems[0]._thread._thread
    with pytest.warns(ResourceWarning, match="not closed"):
        stems.clear()
    thread.join(10)
    assert not thread.is_alive()
    assert stage.closed_with == [None]


# --- Ctrl-C -------------------------------------------------------------------------------------------------------


def interrupt_when(condition) -> threading.Thread:
    """Press Ctrl-C in the main thread once a condition holds."""

    def press():
        until(condition)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks are POSIX's")


@posix
def test_ctrl_c_cancels_the_call():
    """A KeyboardInterrupt in a waiting thread has cancelled what it waited for, and comes after its end."""
    stage = staged()
    stage.cleanup = 0.05
    with BlockingStem(StagedClient.on(stage)) as stem:
        presser = interrupt_when(lambda: stage.began)
        with pytest.raises(KeyboardInterrupt):
            stem.status("x")
        presser.join()
        assert (stage.cancelled, stage.cleaned) == (1, 1)
        assert stem.purge("default") == 0


@posix
def test_ctrl_c_is_bounded(monkeypatch, caplog):
    """Trio work that takes its time to end does not hold up Ctrl-C for ever."""
    monkeypatch.setattr(_portal, "_GRACE", 0.05)
    stage = staged()
    stage.holding = trio.Event()
    with caplog.at_level(logging.WARNING), BlockingStem(StagedClient.on(stage)) as stem:
        presser = interrupt_when(lambda: stage.began)
        with pytest.raises(KeyboardInterrupt):
            stem.status("x")
        presser.join()
        assert (stage.cancelled, stage.cleaned) == (1, 0)
        stem._thread._soon(stage.holding.set)
    assert stage.cleaned == 1
    assert "an interrupted call has not ended within 0.05 s" in caplog.text


@posix
def test_ctrl_c_while_opening_and_closing(monkeypatch):
    """Ctrl-C gives up stores that do not open, and cuts short stores that do not close."""
    stem = BlockingStem(StagedClient.on(Stage()))
    presser = interrupt_when(lambda: "BlockingStem" in threads())
    with pytest.raises(KeyboardInterrupt):
        stem.open()
    presser.join()
    until(lambda: "BlockingStem" not in threads())
    monkeypatch.setattr(_portal, "_GRACE", 0.05)
    stage = staged()
    stage.holding = trio.Event()
    stem = BlockingStem(StagedClient.on(stage)).open()
    waiting = in_thread(stem.status, "x")
    until(lambda: stage.began)
    presser = interrupt_when(lambda: stage.cancelled)
    thread = stem._thread
    with pytest.raises(KeyboardInterrupt):
        stem.close()
    presser.join()
    thread._soon(stage.holding.set)
    with pytest.raises(StoreClosedError):
        waiting.result(10)
    until(lambda: "BlockingStem" not in threads())


# --- processes ----------------------------------------------------------------------------------------------------


def program(code: str) -> subprocess.CompletedProcess[str]:
    head = "from stem_trio import *\n@task(name='add')\nasync def add(a: int, b: int) -> int: ...\n"
    command = [sys.executable, "-W", "default", "-W", "ignore::DeprecationWarning", "-c", head + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


@posix
def test_after_a_fork():
    """A forked process is told what to do, hangs nowhere, and disturbs nobody."""
    done = program("""
import gc, os, sys
def use(stem):
    for function in (lambda: stem.enqueue("add", {"a": 1, "b": 2}), lambda: stem.open()):
        try:
            function()
        except ConfigurationError as error:
            print(error, flush=True)
with BlockingStem.in_memory(tasks=[add]) as stem:
    if os.fork() == 0:
        use(stem)
        stem.close()
        with BlockingStem.in_memory(tasks=[add]) as own:
            own.enqueue("add", {"a": 1, "b": 2})
        del stem
        gc.collect()
        sys.exit(0)
    if os.fork() == 0:
        raise SystemExit(0)  # through the with block
    assert [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)] == [0, 0]
    stem.enqueue("add", {"a": 1, "b": 2})
    print("parent", stem.purge("default"))
""")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    first, second, parent = done.stdout.splitlines()
    assert first == second
    assert "before a fork" in first
    assert parent == "parent 1"


@pytest.mark.parametrize("where", ["stem = ", "def main():\n  stem = ", "import builtins\nbuiltins.stem = "])
def test_program_that_ends_without_closing(where):
    """A program that forgets to close ends at once, and is told."""
    done = program(f"{where}BlockingStem.in_memory(tasks=[add]).open()\n" + ("main()\n" if "main" in where else ""))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("ResourceWarning: a BlockingStem was not closed") == 1
    assert "Traceback" not in done.stderr


def test_program_that_ends_while_a_thread_waits():
    """A daemon thread that waits for a task keeps no program from ending."""
    done = program("""
import threading
stem = BlockingStem.in_memory(tasks=[add]).open()
handle = stem.submit(add.bind(1, 2))
threading.Thread(target=handle.wait, daemon=True).start()
""")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("ResourceWarning") == 1
