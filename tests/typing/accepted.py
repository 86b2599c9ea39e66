# pyright: strict
"""What a type checker must accept, and the types that it must see. Never run: mypy and pyright read it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_type

from stem_trio import (
    AsyncioStem,
    BlockingStem,
    Broker,
    RedisBroker,
    RedisResultBackend,
    RedisStreamsBroker,
    ResultBackend,
    StemApp,
    StemClient,
    StemRedisAdapter,
    StemStoreAdapter,
    StemStoreOverrides,
    Worker,
    open_backend,
    open_broker,
)
from stem_trio.context import TaskContext
from stem_trio.events import PublishEvent, TaskEvent, TaskRetry, WorkerEvent, WorkerStopped
from stem_trio.handle import ResultSource, TaskHandle
from stem_trio.integrations import BlockingTaskHandle
from stem_trio.options import UNSET, TaskOptions
from stem_trio.retry import ExponentialJitterRetryStrategy, FixedRetryStrategy, RetryPolicy, RetryStrategy
from stem_trio.signals import Signal, SignalConnection, StemSignals
from stem_trio.status import TaskResult, TaskState, TaskStatus
from stem_trio.task import (
    AnyTask,
    CallOptions,
    FunctionTaskHandler,
    SupportsSubmit,
    TaskCall,
    TaskDefinition,
    TaskHandler,
    TaskRegistry,
    TaskSource,
    define,
    task,
)

# --- functions under `task` -------------------------------------------------------------------------------------------


@task(name="email.send", queue="mail", max_retries=3, visibility_timeout=dt.timedelta(minutes=1))
async def send_email(context: TaskContext, to: str, subject: str = "Hi") -> int:
    context.logger.info("sending to %s", to)
    return 1


@task
async def ping() -> None: ...


@task
async def context_only(context: TaskContext) -> str:
    return context.id


@task
async def load(path: Path, *, limit: int | None = None) -> list[dict[str, int]]:
    raise NotImplementedError


@task
def resize(path: Path, width: int) -> str:
    raise NotImplementedError


@task()
def resize_with_context(context: TaskContext, path: Path, /, width: int = 100) -> tuple[int, int]:
    raise NotImplementedError


@task(isolation="inline", options=TaskOptions(queue="a"))
async def any_options(a: int, b: int = 2, *, c: str) -> float:
    raise NotImplementedError


@task
async def optional_context(context: TaskContext | None, to: str) -> bool:
    raise NotImplementedError


async def enqueue_typed(app: SupportsSubmit) -> None:
    handle = await send_email.enqueue(app, to="a@b.c")
    assert_type(handle, TaskHandle[int])
    assert_type(await handle.result(timeout=10), int)
    assert_type(await handle.result(dt.timedelta(seconds=10)), int)
    assert_type(await handle.wait(), TaskResult[int])
    assert_type((await handle.wait()).unwrap(), int)
    assert_type((await handle.wait()).value, int | None)
    assert_type(await handle.status(), TaskStatus)
    assert_type((await handle.status()).state, TaskState)
    assert_type(await handle.revoke(reason="by hand"), bool)
    assert_type(handle.id, str)

    assert_type(await send_email.enqueue(app, "a@b.c"), TaskHandle[int])
    assert_type(await send_email.enqueue(app, "a@b.c", "Hello"), TaskHandle[int])
    assert_type(await send_email.enqueue(app, "a@b.c", subject="Hello"), TaskHandle[int])
    assert_type(await ping.enqueue(app), TaskHandle[None])
    assert_type(await context_only.enqueue(app), TaskHandle[str])
    assert_type(await load.enqueue(app, Path("a"), limit=3), TaskHandle[list[dict[str, int]]])
    assert_type(await resize.enqueue(app, Path("a"), 5), TaskHandle[str])
    assert_type(await resize_with_context.enqueue(app, Path("a"), width=5), TaskHandle[tuple[int, int]])
    assert_type(await any_options.enqueue(app, 1, c="x"), TaskHandle[float])
    assert_type(await optional_context.enqueue(app, "a"), TaskHandle[bool])


async def enqueue_with_options(app: SupportsSubmit) -> None:
    handle = await send_email.with_options(delay=30, priority=9).enqueue(app, "a@b.c")
    assert_type(handle, TaskHandle[int])
    bound = send_email.with_options(
        options=TaskOptions(queue="mail"),
        queue="slow",
        max_retries=1,
        visibility_timeout=dt.timedelta(minutes=5),
        soft_time_limit=None,
        hard_time_limit=10,
        expires=dt.datetime.now(dt.UTC),
        retry_policy=RetryPolicy(base=1),
        max_strikes=2,
        result_ttl=60.0,
        ignore_result=True,
        delay=dt.timedelta(hours=1),
        headers={"traceparent": "00-1"},
        meta={"any": ["json"]},
        task_id="order-5",
    )
    assert_type(await bound.enqueue(app, to="a"), TaskHandle[int])
    assert_type(bound.bind("a", "b"), TaskCall[int])
    assert_type(resize.with_options(eta=dt.datetime.now(dt.UTC)).bind(Path("a"), width=1), TaskCall[str])
    options: CallOptions = {"priority": 3}
    assert_type(await resize.with_options(**options).enqueue(app, Path("a"), 1), TaskHandle[str])


async def bind_calls(app: SupportsSubmit, addresses: Sequence[str]) -> None:
    calls = [send_email.bind(to=address) for address in addresses]
    assert_type(calls, list[TaskCall[int]])
    assert_type(await app.submit(calls[0]), TaskHandle[int])
    mixed: list[TaskCall[Any]] = [send_email.bind("a"), resize.bind(Path("a"), 1), ping.bind()]
    assert_type(mixed[0].args, bytes)


async def call_as_functions(ctx: TaskContext) -> None:
    assert_type(await send_email(ctx, "a@b.c"), int)
    assert_type(await send_email(ctx, to="a@b.c", subject="Hello"), int)
    assert_type(await load(Path("a"), limit=1), list[dict[str, int]])
    assert_type(resize(Path("a"), width=1), str)
    assert_type(resize_with_context(ctx, Path("a")), tuple[int, int])
    assert_type(await optional_context(ctx, "a"), bool)
    await ping()


@task
async def parent(context: TaskContext) -> None:
    handle = await send_email.enqueue(context, "a@b.c")
    assert_type(handle, TaskHandle[int])
    assert_type(await context.submit(ping.bind()), TaskHandle[None])
    assert_type(await context.enqueue("email.send", {"to": "a"}, delay=5, priority=1), str)
    await context.heartbeat()
    await context.extend_lease(dt.timedelta(minutes=1))
    await context.progress(50, {"done": 1})
    with context.raise_at_soft_limit():
        await context.cancelled.wait()
    assert_type(context.meta, dict[str, Any])
    assert_type(context.headers, Mapping[str, str])
    assert_type(context.deadline, float)


@task
async def always_retries(context: TaskContext) -> int:
    context.retry(after=5, reason="busy")  # never returns, hence nothing is missing below


# --- handlers ---------------------------------------------------------------------------------------------------------


class EmailTask(TaskHandler[None]):
    name = "email.send"
    options = TaskOptions(max_retries=2)

    async def call(self, context: TaskContext, args: Mapping[str, Any]) -> None: ...


class CountTask(TaskHandler[int]):
    name = "count"

    def call(self, context: TaskContext, args: Mapping[str, Any]) -> int:
        return len(args)


class NamedTask(TaskHandler[dict[str, int]]):
    def __init__(self, name: str) -> None:
        self.name = name

    async def call(self, context: TaskContext, args: Mapping[str, Any]) -> dict[str, int]:
        return {"n": len(args)}


async def async_entrypoint(context: TaskContext, args: Mapping[str, Any]) -> None: ...


def sync_entrypoint(context: TaskContext, args: Mapping[str, Any]) -> int:
    raise NotImplementedError


async def counting_entrypoint(context: TaskContext, args: Mapping[str, Any]) -> int:
    return len(args)


async def loose_entrypoint(context: Any, args: Any) -> None: ...


function_handler = FunctionTaskHandler(name="a", entrypoint=async_entrypoint)
other_handler = FunctionTaskHandler("b", sync_entrypoint, options=TaskOptions(queue="q"))
assert_type(function_handler, FunctionTaskHandler[None])
assert_type(other_handler, FunctionTaskHandler[int])
assert_type(FunctionTaskHandler("c", counting_entrypoint), FunctionTaskHandler[int])
assert_type(FunctionTaskHandler("d", loose_entrypoint), FunctionTaskHandler[None])
lambda_handler = FunctionTaskHandler(name="c", entrypoint=lambda context, args: args["n"])

tasks: list[AnyTask] = [EmailTask(), CountTask(), NamedTask("x"), function_handler, other_handler, send_email, resize]
registry = TaskRegistry([EmailTask(), send_email, ping])
assert_type(registry.register(resize), TaskDefinition)
assert_type(registry.get("x"), TaskDefinition | None)
assert_type(define(send_email), TaskDefinition)
wide: TaskHandler[object] = CountTask()

# --- options and retries ----------------------------------------------------------------------------------------------

options = TaskOptions(queue=UNSET, expires=None, soft_time_limit=dt.timedelta(seconds=5), retry_policy=None)
assert_type(options.merge(TaskOptions(priority=3)), TaskOptions)
RetryPolicy(retry_on=ConnectionError, never_retry=ConnectionRefusedError, base=dt.timedelta(seconds=1), max=60)
RetryPolicy(retry_on=(OSError, KeyError), never_retry=[ConnectionRefusedError], factor=3)
strategies: list[RetryStrategy] = [ExponentialJitterRetryStrategy(base=0.2, max=1.0, seed=7), FixedRetryStrategy(5)]


class OwnStrategy:
    def next_delay(self, attempt: int, error: BaseException | None) -> float:
        return attempt * 1.0


strategies.append(OwnStrategy())

# --- signals ----------------------------------------------------------------------------------------------------------


def report(signal: str, error: Exception) -> None: ...


signals = StemSignals(listener_timeout=dt.timedelta(seconds=5), on_error=report)
assert_type(signals.task_retry, Signal[TaskRetry])


@signals.task_retry.connect
async def on_retry(event: TaskRetry) -> None:
    assert_type(event.next_retry_at, dt.datetime)
    assert_type(event.task_id, str)


@signals.worker_ready.connect
def on_ready(event: WorkerEvent) -> str:
    return event.worker


def on_any_task(event: TaskEvent) -> None: ...


async def on_any_worker(event: WorkerEvent) -> None: ...


assert_type(on_retry, SignalConnection[TaskRetry])
on_retry.cancel()
signals.task_retry.connect(on_any_task, once=True, priority=3)
signals.task_failed.connect(on_any_task, where=lambda event: event.reason == "poison")
signals.worker_shutdown.connect(on_any_worker)
signals.worker_stopping.connect(lambda event: print(event.mode))
signals.before_task_publish.connect(lambda event: print(event.envelope.id, event.delay))


async def send(publish: PublishEvent, stopped: WorkerStopped) -> None:
    await signals.after_task_publish.send(publish)
    await signals.worker_init.send(stopped)


# --- stores by URL ----------------------------------------------------------------------------------------------------


class FileAdapter(StemStoreAdapter):
    schemes = frozenset({"file"})

    def broker(self, url: str, *, size: int = 5, **options: Any) -> Broker:
        raise NotImplementedError


async def stores_by_url(broker: Broker) -> None:
    async with open_broker("redis://h", prefix="x") as opened, open_backend("redis://h", db=1) as results:
        assert_type(opened, Broker)
        assert_type(results, ResultBackend)
    async with RedisStreamsBroker.connect("redis://h") as streams, RedisResultBackend.connect("redis://h", db=1) as own:
        assert_type(streams, RedisBroker)
        assert_type(own, RedisResultBackend)
        Worker(broker=streams, backend=own, tasks=[EmailTask()], queues=["default"], concurrency=64)
    assert_type(StemClient.from_url("memory://"), StemClient)
    assert_type(StemApp.from_url(tasks=tasks), StemApp)
    async with StemClient.from_url(
        "redis://h",
        overrides=StemStoreOverrides(broker=broker, backend="redis://h/1"),
        adapters=[StemRedisAdapter(prefix="x"), FileAdapter()],
        store_options={"command_timeout": dt.timedelta(seconds=1)},
        tasks=[function_handler],
    ) as client:
        assert_type(client, StemClient)
        assert_type(await client.enqueue("a", options=TaskOptions(queue="reports")), str)
    async with StemApp.from_url("sqlite:///file.db", tasks=tasks, concurrency=5) as app:
        assert_type(app, StemApp)


# --- tasks by where they are written ----------------------------------------------------------------------------------

sources: list[TaskSource] = [send_email, EmailTask(), dt, "package.module", "package.module:attribute"]
assert_type(TaskRegistry(sources).register_all([dt, ping]), list[TaskDefinition])
StemClient.in_memory(tasks=["package.module"])
StemApp.in_memory(tasks=[dt, resize])


# --- from code that is not on trio ------------------------------------------------------------------------------------


def is_either(source: ResultSource, submits: SupportsSubmit) -> None: ...


async def from_asyncio() -> None:
    async with AsyncioStem.from_url("memory://", tasks=[send_email], store_timeout=2) as stem:
        assert_type(stem, AsyncioStem)
        is_either(stem, stem)
        handle = await send_email.enqueue(stem, to="a@b.c")
        assert_type(handle, TaskHandle[int])
        assert_type(await handle.result(timeout=1), int)
        assert_type(await stem.wait_for_task(handle), TaskResult[int])
        assert_type(await stem.wait_for_task("id"), TaskResult[Any])
        assert_type(await stem.enqueue("email.send", {"to": "a@b.c"}, delay=5), str)


def from_blocking_code() -> None:
    with BlockingStem.in_memory(tasks=[send_email]) as stem:
        assert_type(stem, BlockingStem)
        handle = stem.submit(send_email.bind(to="a@b.c"))
        assert_type(handle, BlockingTaskHandle[int])
        assert_type(handle.result(timeout=1), int)
        assert_type(stem.wait_for_task(handle), TaskResult[int])
        assert_type(stem.enqueue_many([send_email.bind("a@b.c")]), list[str])
        assert_type(stem.status(handle), TaskStatus | None)
