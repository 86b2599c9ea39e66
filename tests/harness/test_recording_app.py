"""The app for tests: what it remembers, and the time that it keeps."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
import trio

from stem_trio import (
    FunctionTaskHandler,
    InvalidOptionError,
    PayloadTooLargeError,
    StemSignals,
    SystemClock,
    TaskContext,
    TaskState,
    UnregisteredTaskError,
    signals,
    task,
)
from stem_trio.testing.app import EnqueuedTask, RecordingStemApp


@task(name="mail", queue="mails", priority=2)
async def mail(to: str, subject: str = "Hi", on: date | None = None) -> None: ...


@task(name="invite")
async def invite(context: TaskContext, names: list[str]) -> None:
    for name in names:
        await mail.with_options(delay=60).enqueue(context, name, subject="Come")


def new_app(**options) -> RecordingStemApp:
    return RecordingStemApp.for_test(**({"tasks": [mail, invite]} | options))


def receivers(entries) -> list[str]:
    return [entry.args["to"] for entry in entries]


# --- what was enqueued ----------------------------------------------------------------------------------------------


async def test_nothing_was_enqueued(autojump_clock):
    """A new app remembers nothing; before it is opened, too."""
    app = new_app()
    assert app.enqueued() == []
    async with app:
        assert app.enqueued() == app.enqueued(mail) == app.enqueued("mail") == []


async def test_entry(autojump_clock):
    """An entry has all that was said about the task."""
    async with new_app() as app:
        call = mail.with_options(
            delay=timedelta(minutes=1), priority=9, queue="urgent", headers={"h": "1"}, meta={"m": [1, None]}
        )
        handle = await call.enqueue(app, "a@b.c", on=date(2025, 10, 1))
        assert app.enqueued() == [
            EnqueuedTask(
                id=handle.id,
                name="mail",
                args={"to": "a@b.c", "on": "2025-10-01"},
                queue="urgent",
                priority=9,
                delay=60.0,
                headers={"h": "1"},
                meta={"m": [1, None]},
                parent_id=None,
            )
        ]
        await app.enqueue("mail", {"to": "x"})
        entry = app.enqueued()[-1]
        assert (entry.queue, entry.priority, entry.delay, entry.headers, entry.meta) == ("mails", 2, 0.0, {}, {})


async def test_every_way_to_enqueue_is_remembered(autojump_clock):
    """By name, by call, many at once, and by the producer itself: in the order in which they were enqueued."""
    async with new_app() as app:
        await app.enqueue("mail", {"to": "a"})
        await mail.enqueue(app, "b")
        await app.enqueue_many([mail.bind("c"), mail.bind("d")])
        await app.submit(app.call("mail", {"to": "e"}))
        await app.stem.enqueue("mail", {"to": "f"})
        assert receivers(app.enqueued()) == ["a", "b", "c", "d", "e", "f"]


async def test_by_task_name_and_arguments(autojump_clock):
    """Entries are found by task, by name, and by some of their arguments."""

    async def other(context, args) -> None: ...

    handler = FunctionTaskHandler(name="other", entrypoint=other)
    async with new_app(tasks=[mail, handler]) as app:
        await mail.enqueue(app, "a", subject="one")
        await mail.enqueue(app, "b", subject="one")
        await mail.enqueue(app, "a")
        await app.enqueue("other", {"to": "a", "n": None, "deep": {"x": [1, 2]}})
        assert len(app.enqueued()) == 4
        assert receivers(app.enqueued(mail)) == receivers(app.enqueued("mail")) == ["a", "b", "a"]
        assert len(app.enqueued(handler)) == len(app.enqueued("other")) == 1
        assert receivers(app.enqueued(mail, subject="one")) == ["a", "b"]
        assert len(app.enqueued("mail", to="a")) == 2
        assert len(app.enqueued(mail, to="a", subject="one")) == 1
        # Of any task.
        assert len(app.enqueued(to="a")) == 3
        # Arguments as JSON gives them.
        assert len(app.enqueued(deep={"x": [1, 2]})) == 1
        # An argument that was not given is not None.
        assert app.enqueued(mail, n=None) == []
        assert len(app.enqueued(handler, n=None)) == 1
        assert app.enqueued("no.such.task") == []
        assert app.enqueued(mail, to="nobody") == []
        assert app.enqueued(mail, no_such_argument=1) == []


async def test_children_are_remembered(autojump_clock):
    """What handlers enqueue is remembered with the task that did."""
    async with new_app() as app:
        handle = await invite.enqueue(app, ["a", "b"])
        await app.drain()
        children = app.enqueued(mail)
        assert receivers(children) == ["a", "b"]
        assert {child.parent_id for child in children} == {handle.id}
        assert {child.delay for child in children} == {60}
        assert app.enqueued(invite)[0].parent_id is None
        assert trio.current_time() == 60


async def test_retries_are_no_entries(autojump_clock):
    """A task that runs again was enqueued once."""

    @task(max_retries=2)
    async def flaky(context: TaskContext) -> None:
        if context.attempt < 2:
            raise ConnectionError

    async with new_app(tasks=[flaky]) as app:
        handle = await flaky.enqueue(app)
        await app.drain()
        assert (await handle.status()).state is TaskState.SUCCEEDED
        assert len(app.enqueued()) == 1


async def test_what_was_refused_is_no_entry(autojump_clock):
    """G15: what was refused, or known already, was not enqueued."""
    async with new_app(max_payload_size=1000) as app:
        with pytest.raises(UnregisteredTaskError):
            await app.enqueue("no.such.task")
        with pytest.raises(PayloadTooLargeError):
            await app.enqueue("mail", {"to": 1000 * "x"})
        await app.enqueue("mail", {"to": "a"}, task_id="mine", delay=10)
        await app.enqueue("mail", {"to": "b"}, task_id="mine", delay=10)
        assert receivers(app.enqueued()) == ["a"]


async def test_the_list_is_the_callers(autojump_clock):
    """Changing what `enqueued` returned changes nothing else; it can be asked when the app is closed."""
    async with new_app() as app:
        await mail.enqueue(app, "a")
        app.enqueued().clear()
        assert len(app.enqueued()) == 1
    assert len(app.enqueued()) == 1


async def test_remembered_before_listeners_are_told(autojump_clock):
    """A listener of the test's finds the task among those that were enqueued."""
    app = new_app()
    seen = []

    @app.stem.signals.after_task_publish.connect
    def on_publish(event) -> None:
        seen.append([entry.id for entry in app.enqueued()])

    async with app:
        handle = await mail.enqueue(app, "a")
    assert seen == [[handle.id]]


# --- the clock and the signals --------------------------------------------------------------------------------------


async def test_clock_follows_trios(autojump_clock):
    """Moments that the app writes down advance with the clock of the test."""
    async with new_app(tasks=[mail]) as app:
        first = await mail.enqueue(app, "a")
        await trio.sleep(3 * 3600)
        second = await mail.enqueue(app, "b")
        await app.drain()
        began, ended = (await first.status()).updated_at, (await second.status()).updated_at
        assert ended - began == pytest.approx(3 * 3600)
        # An eta is a moment by that clock.
        eta = datetime.fromtimestamp(app.stem.clock.now() + 3600, UTC)
        third = await mail.with_options(eta=eta).enqueue(app, "c")
        assert app.enqueued(to="c")[0].delay == pytest.approx(3600)
        before = trio.current_time()
        await third.result()
        assert trio.current_time() - before == pytest.approx(3600)


async def test_each_has_its_own(autojump_clock):
    """Apps for tests share nothing: what one enqueues the other does not remember, nor do the process-wide signals."""
    heard = []
    connection = signals.default.after_task_publish.connect(heard.append)
    try:
        async with new_app() as one, new_app() as two:
            await mail.enqueue(one, "a")
            assert receivers(one.enqueued()) == ["a"]
            assert two.enqueued() == []
            assert one.stem.signals is not two.stem.signals
            assert one.stem.clock is not two.stem.clock
            assert one.broker is not two.broker
            assert one.backend is not two.backend
    finally:
        connection.cancel()
    assert heard == []


async def test_options_are_those_of_the_app(autojump_clock):
    """Clock and signals can be given, like every option; bad ones are refused as by the app."""
    own_signals, clock = StemSignals(), SystemClock()
    heard = []
    own_signals.after_task_publish.connect(heard.append)
    async with new_app(signals=own_signals, clock=clock, queues=["mails"], concurrency=3) as app:
        await mail.enqueue(app, "a")
        assert app.stem.clock is clock
        assert app.worker.queues == ("mails",)
        assert len(heard) == len(app.enqueued()) == 1
    with pytest.raises(InvalidOptionError):
        new_app(concurrency=0)
