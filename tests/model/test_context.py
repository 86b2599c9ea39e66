"""What a handler sees of its run, and what it may ask for."""

from __future__ import annotations

import logging
import math
from datetime import timedelta

import msgspec
import pytest
import trio
import trio.testing

from stem_trio.context import TaskContext
from stem_trio.errors import InvalidOptionError, SerializationError, SoftTimeLimitError, TaskRetryRequest
from stem_trio.task import task

from .support import Support, make_delivery, make_envelope


@pytest.fixture
def support():
    """What the context asks of the runtime."""
    return Support()


@pytest.fixture
def context(support):
    """The context of a second run, third hand-out, of a child task."""
    envelope = make_envelope(
        headers={"x": "1"}, meta=msgspec.Raw(b'{"a":[1]}'), parent_id="id-0", parent_attempt=3, root_id="id-00"
    )
    return TaskContext(make_delivery(envelope, attempt=1, deliveries=3), support)


# --- what is being run ------------------------------------------------------------------------------------------------


def test_what_is_being_run(context):
    """The context tells of the task what its delivery does."""
    assert (context.id, context.name, context.queue) == ("id-1", "mail.send", "mail")
    assert (context.attempt, context.deliveries) == (1, 3)
    assert (context.parent_id, context.root_id) == ("id-0", "id-00")
    assert context.worker == "worker-1"
    assert dict(context.headers) == {"x": "1"}
    assert context.meta == {"a": [1]}
    assert repr(context) == "<TaskContext mail.send id-1 attempt 1>"


def test_the_first_task_of_a_line(support):
    """A task that nobody's handler enqueued has no parent, and is the root of its line."""
    context = TaskContext(make_delivery(), support)
    assert (context.parent_id, context.root_id) == (None, "id-1")
    assert (dict(context.headers), context.meta) == ({}, {})


def test_headers_are_read_only(context):
    """A handler cannot change what the next run will get."""
    with pytest.raises(TypeError):
        context.headers["x"] = "2"


def test_meta_is_the_handlers_own(context):
    """Changing the meta changes nothing for others."""
    context.meta["a"].append(2)
    assert context.meta == {"a": [1]}


def test_limits_come_from_the_runtime(support):
    """Scope, deadline and events are those of the run."""
    support.deadline = 55.0
    context = TaskContext(make_delivery(), support)
    assert context.cancel_scope is support.cancel_scope
    assert context.deadline == 55.0
    assert context.cancelled is support.cancelled
    assert context.soft_limit_reached is support.soft_limit_reached
    assert context.cancelled is not context.soft_limit_reached


def test_there_is_no_deadline_without_a_limit(context):
    """Without a hard limit the deadline is infinitely far."""
    assert context.deadline == math.inf


# --- logging ----------------------------------------------------------------------------------------------------------


def test_log_records_say_which_run_they_are_of(context, caplog):
    """Each record carries what identifies the run."""
    with caplog.at_level(logging.INFO, "stem_trio.task"):
        context.logger.info("sent %d", 3)
    [record] = caplog.records
    assert (record.name, record.getMessage()) == ("stem_trio.task", "sent 3")
    names = ("task_id", "task_name", "attempt", "queue", "worker")
    assert [getattr(record, name) for name in names] == ["id-1", "mail.send", 1, "mail", "worker-1"]


def test_log_records_keep_the_callers_extra(context, caplog):
    """What the handler adds to a record is kept; it cannot pass itself off as another run."""
    context.logger.warning("sent", extra={"to": "a@b.c", "task_id": "another"})
    context.logger.warning("sent", extra=None)
    assert [record.task_id for record in caplog.records] == ["id-1", "id-1"]
    assert caplog.records[0].to == "a@b.c"
    assert not hasattr(caplog.records[1], "to")


def test_the_logger_is_made_once(context):
    """A handler that logs in a loop does not make a logger each time."""
    assert context.logger is context.logger


# --- the soft limit ---------------------------------------------------------------------------------------------------


async def test_a_block_is_cut_short_at_the_soft_limit(context, support, autojump_clock):
    """The block is cancelled when the limit passes, which is then raised; what follows runs on."""
    start = trio.current_time()
    support.soft_limit = start + 10
    log = []
    with pytest.raises(SoftTimeLimitError, match=r"^task 'mail.send' reached its soft time limit$"):
        with context.raise_at_soft_limit():
            try:
                await trio.sleep(60)
            finally:
                log.append(trio.current_time() - start)
    assert log == [pytest.approx(10)]
    await trio.sleep(60)


async def test_a_block_that_ends_in_time_is_left_alone(context, support, autojump_clock):
    """Before the limit nothing happens, and after the block the limit is no matter any more."""
    support.soft_limit = trio.current_time() + 10
    with context.raise_at_soft_limit():
        await trio.sleep(9)
    await trio.sleep(9)


async def test_a_block_that_begins_after_the_soft_limit(context, support, autojump_clock):
    """When the limit has passed already, the block is cut at its first checkpoint."""
    support.soft_limit = trio.current_time() - 1
    log = []
    with pytest.raises(SoftTimeLimitError):
        with context.raise_at_soft_limit():
            log.append("begins")
            await trio.lowlevel.checkpoint()
            log.append("goes on")
    assert log == ["begins"]


async def test_an_error_in_the_block_passes_through(context, support, autojump_clock):
    """An error of the work itself is not turned into another."""
    support.soft_limit = trio.current_time() + 10
    with pytest.raises(ValueError, match="boom"):
        with context.raise_at_soft_limit():
            raise ValueError("boom")


async def test_another_cancellation_is_not_the_soft_limit(context, autojump_clock):
    """A block that is cancelled from outside does not claim to have reached the limit."""
    with trio.move_on_after(1) as outer:
        with context.raise_at_soft_limit():
            await trio.sleep_forever()
    assert outer.cancelled_caught


# --- the lease --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [90, 90.0, timedelta(seconds=90)])
async def test_renewals(context, support, by):
    """A heartbeat renews as the lease is, an extension for longer."""
    await context.heartbeat()
    await context.extend_lease(by)
    assert support.calls == [("renew", None), ("renew", 90.0)]


@pytest.mark.parametrize("by", [0, -1, None, "90", math.inf])
async def test_bad_extensions(context, support, by):
    """An extension that is none is refused by name, and the lease is left alone."""
    with pytest.raises(InvalidOptionError, match=r"^by="):
        await context.extend_lease(by)
    assert support.calls == []


# --- progress ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "data", "raw"),
    [(0, None, None), (100, 0, b"0"), (33.3, {"done": 1}, b'{"done":1}'), (50, "", b'""'), (1, [], b"[]")],
)
async def test_progress_with_data(context, support, percent, data, raw):
    """Progress is passed on as a float, with its data as JSON, and without data as none."""
    await context.progress(percent, data)
    [(name, sent, sent_data)] = support.calls
    assert (name, sent, type(sent)) == ("progress", percent, float)
    assert sent_data == (None if raw is None else msgspec.Raw(raw))


async def test_progress_without_data(context, support):
    """A percentage alone will do."""
    await context.progress(5)
    assert support.calls == [("progress", 5.0, None)]


@pytest.mark.parametrize("percent", [-0.1, 100.1, math.nan, "50", None, True])
async def test_bad_percentages(context, support, percent):
    """A percentage that is none is refused by name, and nothing is told."""
    with pytest.raises(InvalidOptionError, match=r"^percent="):
        await context.progress(percent)
    assert support.calls == []


@pytest.mark.parametrize("data", [object(), {"a": object()}, "\ud800"])
async def test_bad_progress_data(context, support, data):
    """Data that JSON cannot hold is refused by name, and nothing is told."""
    with pytest.raises(SerializationError, match=r"^data: ") as caught:
        await context.progress(5, data)
    assert caught.value.field == "data"
    assert support.calls == []


# --- retry ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "after", "reason", "text"),
    [
        ({}, None, None, "retry requested"),
        ({"after": 0}, 0.0, None, "retry requested"),
        ({"after": 5, "reason": "busy"}, 5.0, "busy", "busy"),
        ({"after": timedelta(minutes=1)}, 60.0, None, "retry requested"),
    ],
)
def test_retry(context, arguments, after, reason, text):
    """Asking for a retry raises what the worker looks for."""
    with pytest.raises(TaskRetryRequest) as caught:
        context.retry(**arguments)
    assert (caught.value.after, caught.value.reason, str(caught.value)) == (after, reason, text)


@pytest.mark.parametrize("after", [-1, "5", math.inf])
def test_bad_retries(context, after):
    """A wait that is none is refused by name."""
    with pytest.raises(InvalidOptionError, match=r"^after="):
        context.retry(after=after)


# --- children ---------------------------------------------------------------------------------------------------------


async def test_children_by_name(context, support):
    """A child is enqueued by the runtime, with the arguments and options given."""
    assert await context.enqueue("child", {"a": 1}, priority=3, delay=5) == "the id"
    assert await context.enqueue("child") == "the id"
    assert support.calls == [
        ("enqueue", "child", {"a": 1}, {"priority": 3, "delay": 5}),
        ("enqueue", "child", None, {}),
    ]


async def test_typed_children(context, support):
    """A task can be enqueued on a context as on a producer."""

    @task
    def child(a: int) -> int: ...

    assert await child.enqueue(context, 1) == "the handle"
    assert await child.with_options(priority=3).enqueue(context, 2) == "the handle"
    calls = [call for _, call in support.calls]
    assert [(call.name, call.args, call.options.priority) for call in calls] == [
        (child.name, b'{"a":1}', 0),
        (child.name, b'{"a":2}', 3),
    ]
