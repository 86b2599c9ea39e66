# pyright: strict
"""What a type checker must refuse: mypy and pyright report an error in each line marked ``# E:``, and in no other.

Never run. `check_refused.py` compares the marks with what the checkers say.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stem_trio import (
    Broker,
    ResultBackend,
    StemApp,
    StemClient,
    StemRedisAdapter,
    StemStoreAdapter,
    StemStoreOverrides,
    open_broker,
)
from stem_trio.context import TaskContext
from stem_trio.envelope import Envelope
from stem_trio.events import TaskFailed, TaskRetry, WorkerEvent, WorkerStopped
from stem_trio.options import TaskOptions
from stem_trio.retry import ExponentialJitterRetryStrategy, FixedRetryStrategy, RetryPolicy, RetryStrategy
from stem_trio.signals import StemSignals
from stem_trio.status import TaskResult, TaskState
from stem_trio.task import FunctionTaskHandler, SupportsSubmit, Task, TaskCall, TaskHandler, TaskRegistry, task


@task(name="email.send")
async def send_email(context: TaskContext, to: str, subject: str = "Hi") -> int:
    return 1


@task
def resize(path: Path, width: int) -> str:
    return ""


@task
async def load(size: int, *, limit: int) -> None: ...


async def plain(to: str) -> None: ...


# --- arguments --------------------------------------------------------------------------------------------------------


async def arguments(app: SupportsSubmit, ctx: TaskContext) -> None:
    await send_email.enqueue(app, 5)  # E: to is text
    await send_email.enqueue(app, to=5)  # E: to is text
    await send_email.enqueue(app)  # E: to is missing
    await send_email.enqueue(app, "a", cc="b")  # E: there is no cc
    await send_email.enqueue(app, "a", "b", "c")  # E: one too many
    await send_email.enqueue(app, ctx, "a")  # E: the context is not an argument
    await send_email.enqueue(app, "a", context=ctx)  # E: nor by its name
    await send_email.enqueue("a")  # E: no target
    await resize.enqueue(app, "a", 5)  # E: path is a Path
    await resize.enqueue(app, Path("a"))  # E: width is missing
    await load.enqueue(app, 1, 2)  # E: limit is keyword-only
    await load.enqueue(app, 1)  # E: limit is missing
    await send_email.with_options(delay=5).enqueue(app, 5)  # E: to is text here too
    await send_email.with_options(delay=5).enqueue(app)  # E: to is missing here too
    send_email.bind(5)  # E: to is text
    send_email.bind()  # E: to is missing
    resize.bind(path=Path("a"), width=1, height=2)  # E: there is no height
    resize.with_options(delay=5).bind(Path("a"), "wide")  # E: width is an int


async def ordinary_calls(ctx: TaskContext) -> None:
    await send_email("a@b.c")  # E: by hand it takes its context
    await send_email(ctx, 5)  # E: to is text
    resize(Path("a"), "wide")  # E: width is an int
    await resize(Path("a"), 1)  # E: it is no async function
    plain.enqueue(ctx, "a")  # E: it is no task


# --- results ----------------------------------------------------------------------------------------------------------


async def results(app: SupportsSubmit) -> None:
    handle = await send_email.enqueue(app, "a")
    text: str = await handle.result()  # E: the result is an int
    value: int = (await handle.wait()).value  # E: it may be None
    other: TaskResult[str] = await handle.wait()  # E: it is the result of an int
    await handle.result(timeout="soon")  # E: a timeout is seconds or a timedelta
    await handle.revoke("by hand")  # E: the reason is keyword-only
    call: TaskCall[str] = send_email.bind("a")  # E: a call that gives an int
    state: TaskState = (await handle.status()).state.value  # E: the value of a state is text


# --- options ----------------------------------------------------------------------------------------------------------

send_email.with_options(prioritiy=3)  # E: misspelt
send_email.with_options(priority="high")  # E: an int
send_email.with_options(isolation="inline")  # E: belongs to the task
send_email.with_options(eta=5)  # E: a datetime
send_email.with_options(headers={"a": 1})  # E: text to text
send_email.with_options(task_id=5)  # E: text
task(isolation="process")  # E: inline or thread
task(queue=5)  # E: text
task(retries=3)  # E: misspelt
task(visibility_timeout=None)  # E: a task has one
task("email.send")  # E: the name is given by keyword
TaskOptions(priority="high")  # E: an int
TaskOptions(expires=dt.datetime.now(dt.UTC))  # E: a task expires after a time, a call at a moment
TaskOptions("mail")  # E: options are given by name
TaskOptions(delay=5)  # E: belongs to the call
TaskOptions().queue = "mail"  # E: immutable
RetryPolicy(retry_on="KeyError")  # E: a class
RetryPolicy(retry_on=KeyError())  # E: a class, not an error
RetryPolicy(never_retry=(KeyError, int))  # E: int is no error
RetryPolicy(base="2s")  # E: seconds or a timedelta
ExponentialJitterRetryStrategy(2.0, 300.0, 7)  # E: the seed is keyword-only
FixedRetryStrategy("1s")  # E: seconds or a timedelta


class WrongStrategy:
    def next_delay(self, attempt: str) -> float:
        return 0.0


strategy: RetryStrategy = WrongStrategy()  # E: takes the attempt and the error


# --- handlers ---------------------------------------------------------------------------------------------------------


class WrongArguments(TaskHandler[None]):
    name = "a"

    async def call(self, to: str) -> None: ...  # E: it is called with context and arguments


class WrongResult(TaskHandler[int]):
    name = "b"

    async def call(self, context: TaskContext, args: Mapping[str, Any]) -> str:  # E: it says that it returns an int
        return ""


class WrongOptions(TaskHandler[None]):
    name = "c"
    options = {"queue": "mail"}  # E: options are TaskOptions  # noqa: RUF012

    async def call(self, context: TaskContext, args: Mapping[str, Any]) -> None: ...


class Abstract(TaskHandler[None]):
    name = "d"


class Subclass(Task[..., ..., Any, Any]): ...  # E: final


async def one_argument(context: TaskContext) -> None: ...


Abstract()  # E: it has no call
FunctionTaskHandler("e", one_argument)  # E: it is called with context and arguments
FunctionTaskHandler("f", "send_email")  # E: a function
TaskRegistry([plain])  # E: no task
TaskRegistry([Abstract])  # E: a class, not an instance
TaskRegistry([dt, "package.module", 5])  # E: a number is no task


# --- signals ----------------------------------------------------------------------------------------------------------

signals = StemSignals()


async def on_retry(event: TaskRetry) -> None: ...


def on_stopped(event: WorkerStopped) -> None: ...


signals.task_failed.connect(on_retry)  # E: another event
signals.worker_ready.connect(on_stopped)  # E: it wants more than the event has
signals.task_failed.connect(print, where=lambda event: event.next_retry_at)  # E: a failure has no next run
signals.task_retry.connect(priority=3)  # E: without a listener
signals.task_retried.connect(on_retry)  # E: misspelt
signals.task_retry = signals.task_retry  # E: signals stay


async def send(event: WorkerEvent, failed: TaskFailed) -> None:
    await signals.worker_shutdown.send(event)  # E: too little said
    failed.reason = "other"  # E: immutable


# --- the context ------------------------------------------------------------------------------------------------------


async def in_a_handler(context: TaskContext, envelope: Envelope) -> None:
    await context.extend_lease("1m")  # E: seconds or a timedelta
    await context.progress("half")  # E: a number
    await context.enqueue("a", priorty=3)  # E: misspelt
    context.headers["a"] = "b"  # E: read-only
    context.attempt = 3  # E: read-only
    envelope.priority = 3  # E: immutable
    context.retry(5)  # E: by keyword; stands last, for it does not return


# --- stores by URL ----------------------------------------------------------------------------------------------------


class WrongAdapter(StemStoreAdapter):
    schemes = "file"  # E: a frozenset

    def backend(self, url: str, **options: Any) -> Broker:  # E: a result backend
        raise NotImplementedError


def stores_by_url(broker: Broker, backend: ResultBackend) -> None:
    open_broker(5)  # E: a URL is text
    open_broker("redis://h", adapters=StemRedisAdapter())  # E: a list of adapters
    StemStoreOverrides(broker=backend)  # E: a result backend is no broker
    StemStoreOverrides(backend=broker)  # E: a broker is no result backend
    StemStoreOverrides("redis://h")  # E: by keyword
    StemClient.from_url(5)  # E: a URL is text
    StemClient.from_url("memory://", overrides={"backend": "memory://"})  # E: overrides are a class of their own
    StemApp.from_url("memory://", store_options=["prefix"])  # E: a mapping
    StemRedisAdapter("redis://h")  # E: options by keyword
