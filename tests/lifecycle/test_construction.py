"""Making a worker: what is refused before it runs (G15), and what it says of itself."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
import trio

from stem_trio import (
    DuplicateTaskError,
    ExponentialJitterRetryStrategy,
    FunctionTaskHandler,
    InMemoryBroker,
    InMemoryResultBackend,
    InvalidOptionError,
    RegistrationError,
    StemSignals,
    StoreTimeoutError,
    TaskRegistry,
    Worker,
    WorkerState,
    signals,
    task,
)
from stem_trio.worker.worker import DEFAULT_CONCURRENCY


@task(name="job")
async def job() -> None: ...


def make(**options) -> Worker:
    return Worker(InMemoryBroker(), InMemoryResultBackend(), **options)


@pytest.mark.parametrize(
    ("options", "queues"),
    [
        ({}, ("default",)),
        ({"queue": "mail"}, ("mail",)),
        ({"queues": ["a", "b", "a"]}, ("a", "b")),
        ({"queues": ("one: two | é",)}, ("one: two | é",)),
        ({"queues": (name for name in "ab")}, ("a", "b")),
    ],
)
def test_queues(options, queues):
    """What a worker claims from, each queue once."""
    assert make(**options).queues == queues


REFUSED = [
    ({"queue": "a", "queues": ["b"]}, "queues=", "either queue or queues"),
    ({"queues": "mail"}, "queues=", "for one use queue"),
    ({"queues": []}, "queues=", "at least one"),
    ({"queues": ["a", ""]}, "queues=''", "non-empty"),
    ({"queues": ["a", 3]}, "queues=3", "non-empty"),
    ({"queue": " a"}, "queue=' a'", "blanks"),
    ({"queue": "a\nb"}, "queue=", "printable"),
    ({"queue": "x" * 201}, "queue=", "200"),
    ({"concurrency": 0}, "concurrency=0", "at least 1"),
    ({"concurrency": 2.0}, "concurrency=2.0", "integer"),
    ({"concurrency": True}, "concurrency=True", "integer"),
    ({"concurrency": None}, "concurrency=None", "integer"),
    ({"prefetch": -1}, "prefetch=-1", "at least 0"),
    ({"prefetch": "2"}, "prefetch='2'", "integer"),
    ({"heartbeat_interval": 0}, "heartbeat_interval=0", "more than 0"),
    ({"heartbeat_interval": None}, "heartbeat_interval=None", "seconds"),
    ({"store_timeout": 0}, "store_timeout=0", "more than 0"),
    ({"store_timeout": math.inf}, "store_timeout=inf", "finite"),
    ({"max_payload_size": 0}, "max_payload_size=0", "at least 1"),
]


@pytest.mark.parametrize(("options", "name", "remedy"), REFUSED, ids=[str(options) for options, _, _ in REFUSED])
def test_refused(options, name, remedy):
    """G15: an option out of its range is refused by name, with what to do."""
    with pytest.raises(InvalidOptionError) as caught:
        make(**options)
    assert str(caught.value).startswith(name)
    assert remedy in str(caught.value)


def test_tasks():
    """G15: tasks are checked when the worker is made; a registry may be shared, and added to."""
    with pytest.raises(RegistrationError):
        make(tasks=[print])
    with pytest.raises(DuplicateTaskError):
        make(tasks=[job, FunctionTaskHandler("job", print)])
    registry = TaskRegistry([job])
    worker = make(tasks=[FunctionTaskHandler("other", print), job], registry=registry)
    assert worker.stem.registry is registry
    assert [definition.name for definition in registry] == ["job", "other"]


def test_defaults():
    """What a worker does that is told nothing."""
    worker = make()
    setup = worker._setup
    assert (setup.concurrency, setup.prefetch, setup.capacity) == (DEFAULT_CONCURRENCY, None, 64)
    assert isinstance(setup.retry_strategy, ExponentialJitterRetryStrategy)
    assert worker.stem.signals is setup.signals is signals.default
    assert (setup.store_timeout, worker._heartbeat_interval) == (10.0, 10.0)


def test_prefetch():
    """At most the concurrency once more, unless it is said."""
    assert [make(concurrency=n)._setup.capacity for n in (1, 3, 100)] == [2, 6, 200]
    assert make(concurrency=1, prefetch=0)._setup.capacity == 1
    assert make(concurrency=1, prefetch=7)._setup.capacity == 8


def test_durations_as_timedeltas():
    """Durations are seconds or timedeltas."""
    worker = make(heartbeat_interval=timedelta(minutes=1), store_timeout=timedelta(seconds=2))
    assert (worker._heartbeat_interval, worker._setup.store_timeout) == (60.0, 2.0)


def test_identity():
    """A worker's id is readable, and never that of another; it says what it is and where in its life."""
    first, second = make(name="mailer"), make(name="mailer")
    assert first.id.startswith("mailer-")
    assert first.id != second.id
    assert repr(first) == f"<Worker {first.id} created>"
    assert first.state is WorkerState.CREATED
    assert first.in_flight == 0
    assert set(first.totals.values()) == {0}


async def test_stem_of_a_worker(world, autojump_clock):
    """The producer of a worker knows its tasks, and bounds its stores by the same timeout."""
    listened = StemSignals()
    worker = world.worker(job, signals=listened, store_timeout=3)
    assert worker.stem.signals is listened
    world.faults.hang("broker.publish")
    with pytest.raises(StoreTimeoutError, match="did not answer within 3 s"):
        await worker.stem.enqueue("job")
    assert trio.current_time() == 3


async def test_group_from_the_block_of_a_worker(autojump_clock):
    """A group that the block of `async with worker` raises comes out as the very object it is."""
    async with InMemoryBroker() as broker, InMemoryResultBackend() as backend:
        raised = ExceptionGroup("mine", [ValueError("one")])
        with pytest.raises(ExceptionGroup) as caught:
            async with Worker(broker, backend):
                raise raised
        assert caught.value is raised
