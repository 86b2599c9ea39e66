"""The names of the public surface are there, in the forms that programs rely on."""

from __future__ import annotations

import inspect

import attrs
import pytest
import trio

import stem_trio
from stem_trio import (
    InMemoryBroker,
    InMemoryResultBackend,
    StemApp,
    StemClient,
    StemSignals,
    TaskContext,
    TaskHandle,
    TaskOptions,
    TaskResult,
    TaskState,
    Worker,
    WorkerLifecycleConfig,
    task,
)
from stem_trio.signals import Signal


def test_signals():
    """Every signal, and how one connects to it."""
    worker = {"init", "ready", "heartbeat", "stopping", "shutdown", "child_init", "child_shutdown"}
    run = {"received", "prerun", "postrun", "soft_timeout"}
    end = {"succeeded", "failed", "retry", "revoked", "expired", "dead_lettered", "lease_lost", "released"}
    names = {f"worker_{name}" for name in worker} | {f"task_{name}" for name in run | end}
    names |= {"before_task_publish", "after_task_publish"}
    signals = StemSignals()
    assert {name for name in vars(signals) if isinstance(getattr(signals, name), Signal)} == names
    connect = inspect.signature(Signal.connect).parameters
    assert [*connect] == ["self", "handler", "where", "once", "priority"]
    assert all(connect[name].kind is inspect.Parameter.KEYWORD_ONLY for name in ("where", "once", "priority"))
    connection = signals.task_retry.connect(print)
    connection.cancel()
    assert not signals.task_retry
    assert isinstance(stem_trio.signals.default, StemSignals)


def test_results():
    """States, and what a result has."""
    states = {"QUEUED", "RUNNING", "RETRYING", "SUCCEEDED", "FAILED", "REVOKED", "EXPIRED"}
    assert {state.name for state in TaskState} == states
    fields = {field.name for field in attrs.fields(TaskResult)}
    assert {"task_id", "state", "value", "error", "attempt"} <= fields
    assert callable(TaskResult.unwrap)


def test_context():
    """What a handler may use."""
    names = ("id", "name", "attempt", "queue", "headers", "meta", "deadline", "logger", "cancelled", "cancel_scope")
    methods = ("heartbeat", "extend_lease", "progress", "enqueue", "retry")
    assert all(isinstance(inspect.getattr_static(TaskContext, name), property) for name in names)
    assert all(callable(getattr(TaskContext, name)) for name in methods)
    assert [*inspect.signature(TaskContext.retry).parameters] == ["self", "after", "reason"]
    assert [*inspect.signature(TaskContext.extend_lease).parameters] == ["self", "by"]
    assert [*inspect.signature(TaskContext.progress).parameters] == ["self", "percent", "data"]


def test_options():
    """Options by the names that programs use."""
    TaskOptions(queue="default", max_retries=3, visibility_timeout=30)
    WorkerLifecycleConfig(install_signal_handlers=True, soft_grace_period=30, force_shutdown_after=10)
    task(name="email.send", queue="mail", max_retries=3)
    worker = set(inspect.signature(Worker).parameters)
    assert {"broker", "backend", "tasks", "queue", "queues", "concurrency", "signals", "retry_strategy"} <= worker
    assert {"lifecycle", "signer"} <= worker
    assert {"tasks", "signals", "signer"} <= set(inspect.signature(StemClient).parameters)
    assert {"tasks", "signals", "signer", "retry_strategy", "lifecycle"} <= set(inspect.signature(StemApp).parameters)
    assert {"mode", "grace"} <= set(inspect.signature(Worker.shutdown).parameters)
    for name in ("status", "wait", "result", "revoke"):
        assert inspect.iscoroutinefunction(getattr(TaskHandle, name))


@pytest.mark.parametrize("mode", ["warm", "soft", "hard"])
async def test_stopping_by_name(mode, autojump_clock):
    """`worker.shutdown(mode=...)`, in a nursery that ends by itself then."""
    async with InMemoryBroker() as broker, InMemoryResultBackend() as backend, trio.open_nursery() as nursery:
        worker = Worker(broker=broker, backend=backend, tasks=[], queue="default", signals=StemSignals())
        await worker.start(nursery)
        await worker.shutdown(mode=mode)


def test_everything_public_is_there():
    """What the package says it exports, it has."""
    assert len(stem_trio.__all__) == len(set(stem_trio.__all__))
    for name in stem_trio.__all__:
        assert getattr(stem_trio, name) is not None
