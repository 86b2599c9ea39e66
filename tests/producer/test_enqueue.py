"""Enqueueing: what is refused, before anything is written (G15), and what is written."""

from __future__ import annotations

import enum
import math
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import trio

from stem_trio import (
    ArgumentsError,
    DuplicateTaskError,
    EnqueueError,
    FunctionTaskHandler,
    InMemoryBroker,
    InMemoryResultBackend,
    InvalidOptionError,
    InvalidScheduleError,
    PayloadTooLargeError,
    RegistrationError,
    RetryPolicy,
    SerializationError,
    Stem,
    StemError,
    StemSignals,
    StoreClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    TaskOptions,
    TaskRegistry,
    TaskState,
    UnregisteredTaskError,
    signals,
    task,
)
from stem_trio.abc import JointStore
from stem_trio.ids import new_task_id
from stem_trio.producer import DEFAULT_MAX_PAYLOAD_SIZE, Lineage
from stem_trio.task import make_call
from stem_trio.testing.faults import Faults, FaultyBroker
from tests.producer.support import job

YEAR = 365 * 86_400.0
NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - it is to be refused


async def only(world, queue="jobs"):
    """The one task that waits in a queue."""
    [waiting] = await world.memory_broker.peek(queue)
    return waiting


def at(world, seconds: float) -> datetime:
    """A moment so many seconds from now."""
    return datetime.fromtimestamp(world.clock.now() + seconds, UTC)


# --- what is refused ------------------------------------------------------------------------------------------------

REFUSED = {
    # arguments
    "missing": ({"args": {}}, ArgumentsError, "argument 'number': is missing"),
    "none given": ({"args": None}, ArgumentsError, "argument 'number': is missing"),
    "unknown": ({"args": {"number": 1, "colour": "red"}}, ArgumentsError, "argument 'colour': is not an argument"),
    "wrong type": ({"args": {"number": "one"}}, ArgumentsError, "argument 'number': Expected `int`"),
    "no JSON": ({"args": {"number": object()}}, ArgumentsError, "argument 'number': values of type object"),
    "half a character": ({"args": {"number": 1, "text": "\ud800"}}, ArgumentsError, "argument 'text'"),
    "list": ({"args": [1]}, ArgumentsError, "must be a mapping"),
    "names": ({"args": {1: 1}}, ArgumentsError, "names must be text"),
    # options
    "no option": ({"colour": "red"}, InvalidOptionError, "colour='red': is not an option of a call"),
    "priority": ({"priority": 10}, InvalidOptionError, "priority=10"),
    "priority below": ({"priority": -1}, InvalidOptionError, "priority=-1"),
    "priority type": ({"priority": 1.5}, InvalidOptionError, "priority=1.5"),
    "queue": ({"queue": ""}, InvalidOptionError, "queue=''"),
    "queue type": ({"queue": None}, InvalidOptionError, "queue=None"),
    "retries": ({"max_retries": -1}, InvalidOptionError, "max_retries=-1"),
    "lease": ({"visibility_timeout": 0}, InvalidOptionError, "visibility_timeout=0"),
    "short lease": ({"visibility_timeout": 0.01}, InvalidOptionError, "at least 0.05"),
    "hard limit": ({"hard_time_limit": -3}, InvalidOptionError, "hard_time_limit=-3"),
    "limits": ({"soft_time_limit": 5, "hard_time_limit": 5}, InvalidOptionError, "must be less than hard_time_limit"),
    "retention": ({"result_ttl": 0}, InvalidOptionError, "result_ttl=0"),
    "strikes": ({"max_strikes": 0}, InvalidOptionError, "max_strikes=0"),
    "ignore": ({"ignore_result": 1}, InvalidOptionError, "ignore_result=1"),
    "isolation": ({"isolation": "thread"}, InvalidOptionError, "isolation='thread': is not an option of a call"),
    "isolation in options": (
        {"options": TaskOptions(isolation="thread")},
        InvalidOptionError,
        "isolation='thread': belongs to the task",
    ),
    "options": ({"options": {"queue": "x"}}, InvalidOptionError, "must be TaskOptions"),
    "policy": ({"retry_policy": 3}, InvalidOptionError, "retry_policy=3"),
    "policy filters": (
        {"retry_policy": RetryPolicy(retry_on=ValueError)},
        InvalidOptionError,
        "classes do not travel",
    ),
    # schedule
    "delay": ({"delay": -1}, InvalidScheduleError, "delay: delay=-1: must not be negative"),
    "delay nan": ({"delay": math.nan}, InvalidScheduleError, "delay"),
    "delay inf": ({"delay": math.inf}, InvalidScheduleError, "delay"),
    "delay huge": ({"delay": 10**400}, InvalidScheduleError, "delay"),
    "delay text": ({"delay": "5"}, InvalidScheduleError, "delay"),
    "delay bool": ({"delay": True}, InvalidScheduleError, "delay"),
    "delay timedelta": ({"delay": timedelta(seconds=-1)}, InvalidScheduleError, "delay"),
    "delay in ms": ({"delay": 11 * YEAR}, InvalidScheduleError, "delay: lies more than ten years ahead"),
    "eta naive": ({"eta": NAIVE}, InvalidScheduleError, "eta: must be a datetime with a time zone"),
    "eta number": ({"eta": 1_800_000_000}, InvalidScheduleError, "eta: must be a datetime"),
    "eta far": ({"eta": datetime(9999, 1, 1, tzinfo=UTC)}, InvalidScheduleError, "eta: lies more than ten years"),
    "eta and delay": ({"eta": datetime.now(UTC), "delay": 0}, InvalidScheduleError, "either delay or eta"),
    "expires": ({"expires": 0}, InvalidOptionError, "expires=0"),
    "expires negative": ({"expires": -5}, InvalidOptionError, "expires=-5"),
    "expires naive": ({"expires": NAIVE}, InvalidScheduleError, "expires: must be a datetime"),
    "expires past": ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, InvalidScheduleError, "would expire before"),
    "expires before delay": ({"expires": 5, "delay": 5}, InvalidScheduleError, "would expire before"),
    # headers, meta, id
    "headers": ({"headers": ["a"]}, SerializationError, "headers: must be a mapping"),
    "header name": ({"headers": {1: "a"}}, SerializationError, "headers[1]"),
    "header value": ({"headers": {"a": 1}}, SerializationError, "headers['a']"),
    "half a header": ({"headers": {"a": "\ud800"}}, SerializationError, "headers: "),
    "meta": ({"meta": ["a"]}, SerializationError, "meta: must be a mapping"),
    "meta names": ({"meta": {1: "a"}}, SerializationError, "meta: must be a mapping with text"),
    "meta value": ({"meta": {"a": object()}}, SerializationError, "meta: values of type object"),
    "id": ({"task_id": ""}, InvalidOptionError, "task_id=''"),
    "id type": ({"task_id": 7}, InvalidOptionError, "task_id=7"),
    "id control": ({"task_id": "a\nb"}, InvalidOptionError, "task_id"),
    "id long": ({"task_id": "x" * 201}, InvalidOptionError, "task_id"),
    # size
    "too large": ({"args": {"number": 1, "text": "x" * 300_000}}, PayloadTooLargeError, "over the limit of 262144"),
    "meta too large": ({"meta": {"text": "x" * 300_000}}, PayloadTooLargeError, "over the limit"),
    "headers too large": ({"headers": {"text": "x" * 300_000}}, PayloadTooLargeError, "over the limit"),
}


@pytest.mark.parametrize(("options", "error", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("way", ["enqueue", "submit", "enqueue_many", "known id"])
async def test_refused(world, stem, way, options, error, message, autojump_clock):
    """G15: bad input is refused by name, whichever way it takes, before a store is asked anything."""
    world.listen("before_task_publish")
    options = {"args": {"number": 1}} | options
    if way == "known id":
        options = {"task_id": "known"} | options
    with pytest.raises(error) as caught:
        if way == "enqueue_many":
            await stem.enqueue_many([stem.call("job", {"number": 1}), stem.call("job", **options)])
        elif way == "submit":
            await stem.submit(stem.call("job", **options))
        else:
            await stem.enqueue("job", **options)
    assert message in str(caught.value)
    assert isinstance(caught.value, StemError)
    assert world.faults.trace == []
    assert world.trace == []
    # What is known once the call is made: the first of the list is not enqueued either.
    assert await world.places("jobs") == (0, 0, 0, 0)


@pytest.mark.parametrize("name", ["jobs", "", "Job", None, 3])
async def test_unknown_name(world, stem, name, autojump_clock):
    """G15: a task that is not registered is refused, with those that are."""
    with pytest.raises(UnregisteredTaskError, match=r"known: job") as caught:
        await stem.enqueue(name, {"number": 1})
    assert (caught.value.name, caught.value.known) == (name, ("job",))
    assert isinstance(caught.value, EnqueueError)
    assert isinstance(caught.value, LookupError)
    assert world.faults.trace == []


async def test_unknown_name_without_any(world, autojump_clock):
    """G15: nor are there any to be named where none is registered."""
    with pytest.raises(UnregisteredTaskError, match="known: none"):
        await Stem(world.broker).enqueue("job")


async def test_typed_calls_are_checked_alike(world, stem, autojump_clock):
    """G15: calls by `Task.enqueue` are checked before anything is written, too."""
    with pytest.raises(ArgumentsError, match="argument 'number'"):
        await job.enqueue(stem, "one")
    with pytest.raises(InvalidScheduleError):
        await job.with_options(delay=-1).enqueue(stem, 1)
    with pytest.raises(InvalidOptionError):
        await job.with_options(priority=11).enqueue(stem, 1)
    assert world.faults.trace == []


async def test_several_are_refused_together(world, stem, autojump_clock):
    """G15: one bad schedule among many calls refuses all of them."""
    calls = [job.bind(number) for number in range(5)]
    calls.append(job.with_options(delay=-1).bind(5))
    with pytest.raises(InvalidScheduleError):
        await stem.enqueue_many(calls)
    assert world.faults.trace == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_payload_size", 0),
        ("max_payload_size", 1.5),
        ("max_payload_size", None),
        ("store_timeout", 0),
        ("store_timeout", -1),
        ("store_timeout", "10"),
        ("store_timeout", math.inf),
    ],
)
def test_bad_options_of_the_producer(option, value):
    """G15: the producer's own options are checked, and named."""
    with pytest.raises(InvalidOptionError, match=f"{option}="):
        Stem(InMemoryBroker(), **{option: value})


def test_bad_tasks_of_the_producer():
    """G15: what is no task, or has the name of another, is refused when the producer is made."""
    with pytest.raises(RegistrationError, match="is not a task"):
        Stem(InMemoryBroker(), tasks=[len])
    other = FunctionTaskHandler("job", print)
    with pytest.raises(DuplicateTaskError):
        Stem(InMemoryBroker(), tasks=[job, other])
    registry = TaskRegistry([job])
    assert Stem(InMemoryBroker(), tasks=[job], registry=registry).registry is registry


def test_defaults_of_the_producer():
    """A producer that is told nothing uses the machine's clock and the process's signals."""
    stem = Stem(InMemoryBroker())
    assert stem.signals is signals.default
    assert stem.clock.now() == pytest.approx(datetime.now(UTC).timestamp(), abs=60)
    assert list(stem.registry) == []
    assert stem.backend is None


# --- size -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["args", "meta", "headers"])
async def test_size_is_that_of_the_encoded_task(world, make_stem, where, autojump_clock):
    """G15: a task of exactly the limit is accepted, one of a byte more is not."""

    @task(name="blob")
    async def blob(text: str = "") -> None: ...

    def options(size: int) -> dict:
        text = {"text": "x" * size}
        return {where: text, "task_id": "id" * 18}

    probe = make_stem(tasks=[blob])
    await probe.enqueue("blob", **options(20_000))
    size = len((await only(world, "default")).envelope.encode())
    await world.memory_broker.purge("default")
    stem = make_stem(tasks=[blob], max_payload_size=size)
    with pytest.raises(PayloadTooLargeError) as caught:
        await stem.enqueue("blob", **options(20_001))
    assert (caught.value.size, caught.value.limit) == (size + 1, size)
    await stem.enqueue("blob", **options(20_000))


async def test_long_names_count(world, make_stem, autojump_clock):
    """G15: names and ids count too, also where the limit is small and the arguments are smaller."""
    name = "\N{GRINNING FACE}" * 200

    @task(name=name, queue=name)
    async def named() -> None: ...

    stem = make_stem(tasks=[named], max_payload_size=1500)
    with pytest.raises(PayloadTooLargeError, match="over the limit of 1500"):
        await named.with_options(task_id=name).enqueue(stem)
    assert world.faults.trace == []


def test_default_size():
    """A quarter of a mebibyte."""
    assert DEFAULT_MAX_PAYLOAD_SIZE == 262_144


# --- what is written ------------------------------------------------------------------------------------------------


async def test_envelope(world, stem, autojump_clock):
    """The envelope has what the call says, and the status says that it waits."""
    task_id = await stem.enqueue(
        "job",
        {"number": 7, "text": "é"},
        queue="other",
        priority=9,
        max_retries=4,
        visibility_timeout=timedelta(minutes=1),
        soft_time_limit=5,
        hard_time_limit=6.5,
        expires=600,
        retry_policy=RetryPolicy(base=1, max=8, factor=3, jitter=0.5),
        max_strikes=5,
        result_ttl=timedelta(hours=1),
        ignore_result=True,
        delay=timedelta(seconds=30),
        headers={"traceparent": "00-ab"},
        meta={"tenant": 5, "tags": ["a", None]},
    )
    waiting = await only(world, "other")
    envelope = waiting.envelope
    assert (envelope.id, envelope.name, envelope.queue, envelope.priority) == (task_id, "job", "other", 9)
    assert msgspec.json.decode(envelope.args) == {"number": 7, "text": "é"}
    assert envelope.created_at == world.clock.now()
    assert envelope.expires_at == world.clock.now() + 600
    assert (envelope.max_retries, envelope.max_strikes, envelope.ignore_result) == (4, 5, True)
    assert (envelope.visibility_timeout, envelope.result_ttl) == (60.0, 3600.0)
    assert (envelope.soft_time_limit, envelope.hard_time_limit) == (5.0, 6.5)
    assert (envelope.backoff.base, envelope.backoff.max, envelope.backoff.factor) == (1, 8, 3)
    assert envelope.headers == {"traceparent": "00-ab"}
    assert msgspec.json.decode(envelope.meta) == {"tenant": 5, "tags": ["a", None]}
    assert (envelope.parent_id, envelope.parent_attempt, envelope.root_id) == (None, None, None)
    assert (waiting.place, waiting.due_in) == ("delayed", 30)
    status = await world.status(task_id)
    assert (status.state, status.name, status.queue, status.version) == (TaskState.QUEUED, "job", "other", 0)
    assert (status.attempt, status.deliveries, status.worker) == (0, 0, None)


async def test_nothing_said(world, stem, autojump_clock):
    """A call that says nothing has the task's options, and an id of its own that sorts by time."""
    before = new_task_id()
    ids = [await stem.enqueue("job", {"number": number}) for number in range(3)]
    assert [before, *ids] == sorted([before, *ids])
    envelope = (await world.memory_broker.peek("jobs"))[0].envelope
    assert (envelope.priority, envelope.expires_at, envelope.backoff, envelope.headers) == (0, None, None, {})
    assert msgspec.json.decode(envelope.meta) == {}


async def test_options_object_and_single_options(world, make_stem, autojump_clock):
    """A call's own options go over its `options=`, which go over the task's."""

    @task(name="opts", queue="a", priority=1, max_retries=1, max_strikes=7)
    async def opts() -> None: ...

    stem = make_stem(tasks=[opts])
    await stem.enqueue("opts", options=TaskOptions(queue="b", priority=2), priority=3)
    envelope = (await only(world, "b")).envelope
    assert (envelope.queue, envelope.priority, envelope.max_retries, envelope.max_strikes) == ("b", 3, 1, 7)


async def test_back_to_defaults(world, make_stem, autojump_clock):
    """A call can set back to its default what the task has set: that is not the same as saying nothing."""

    @task(
        name="opts",
        queue="a",
        priority=5,
        max_retries=9,
        hard_time_limit=60,
        soft_time_limit=50,
        expires=100,
        retry_policy=RetryPolicy(base=0),
        ignore_result=True,
        result_ttl=60,
    )
    async def opts() -> None: ...

    stem = make_stem(tasks=[opts])
    await stem.enqueue("opts")
    envelope = (await only(world, "a")).envelope
    assert (envelope.hard_time_limit, envelope.expires_at) == (60, world.clock.now() + 100)
    # The task's own policy is known to the worker.
    assert envelope.backoff is None
    await stem.enqueue(
        "opts",
        queue="default",
        priority=0,
        max_retries=0,
        hard_time_limit=None,
        soft_time_limit=None,
        expires=None,
        retry_policy=None,
        ignore_result=False,
        result_ttl=86_400,
    )
    envelope = (await only(world, "default")).envelope
    assert (envelope.priority, envelope.max_retries, envelope.ignore_result) == (0, 0, False)
    assert (envelope.hard_time_limit, envelope.soft_time_limit, envelope.expires_at) == (None, None, None)
    assert envelope.result_ttl == 86_400


async def test_policy_of_a_call(world, make_stem, autojump_clock):
    """Only a policy that takes the place of the task's own has to travel."""
    policy = RetryPolicy(base=3)

    @task(name="opts", retry_policy=policy)
    async def opts() -> None: ...

    stem = make_stem(tasks=[opts])
    for options, base in [({}, None), ({"retry_policy": RetryPolicy(base=7)}, 7), ({"max_retries": 4}, None)]:
        await stem.enqueue("opts", **options)
        backoff = (await only(world, "default")).envelope.backoff
        assert (backoff.base if backoff else None) == base
        await world.memory_broker.purge("default")


@pytest.mark.parametrize(
    ("option", "due"),
    [
        ({}, 0),
        ({"delay": 0}, 0),
        ({"delay": 2.5}, 2.5),
        ({"delay": 10 * YEAR}, 10 * YEAR),
        ({"delay": None}, 0),
        ({"eta": None}, 0),
    ],
)
async def test_delay(world, stem, option, due, autojump_clock):
    """When a task may start, by seconds from now."""
    await stem.enqueue("job", {"number": 1}, **option)
    waiting = await only(world)
    assert (waiting.place, waiting.due_in) == ("delayed" if due else "ready", due)


async def test_eta(world, stem, autojump_clock):
    """When a task may start, by the time of day; a moment that has passed means now."""
    await stem.enqueue("job", {"number": 1}, eta=at(world, 90))
    assert (await only(world)).due_in == pytest.approx(90)
    await stem.purge("jobs")
    await stem.enqueue("job", {"number": 1}, eta=at(world, -90))
    assert (await only(world)).place == "ready"


async def test_expiry(world, make_stem, autojump_clock):
    """When a task is too late, by seconds or by the time of day; a call may say it is never."""

    @task(name="opts", expires=60)
    async def opts() -> None: ...

    stem = make_stem(tasks=[opts])
    moment = at(world, 20)
    for options, expires in [
        ({}, 60),
        ({"expires": 10}, 10),
        ({"expires": timedelta(minutes=2)}, 120),
        ({"expires": moment}, 20),
        ({"expires": moment, "delay": 19}, 20),
        ({"expires": None}, None),
    ]:
        await stem.enqueue("opts", **options)
        found = (await only(world, "default")).envelope.expires_at
        assert found == (None if expires is None else pytest.approx(world.clock.now() + expires))
        await world.memory_broker.purge("default")
    with pytest.raises(InvalidScheduleError, match="would expire before"):
        await stem.enqueue("opts", delay=60)


async def test_text_that_is_an_enum(world, stem, autojump_clock):
    """Names that are members of an enum are taken as the text that they are."""

    class Queue(enum.StrEnum):
        MAIL = "mail"

    await stem.enqueue("job", {"number": 1}, queue=Queue.MAIL)
    assert type((await only(world, "mail")).envelope.queue) is str


async def test_enqueue_without_a_backend(world, make_stem, autojump_clock):
    """A producer without a backend enqueues, and records nothing."""
    stem = make_stem(backend=None)
    handle = await job.enqueue(stem, 1)
    assert handle.created
    assert world.faults.trace == ["broker.publish:before", "broker.publish:after"]
    again = await job.with_options(task_id=handle.id).enqueue(stem, 1)
    assert not again.created


async def test_lineage(world, stem, autojump_clock):
    """A child has its parent's lineage and trace headers, its own over them."""
    lineage = Lineage("p", 2, "r", {"traceparent": "t", "baggage": "b"})
    [handle] = await stem.publish([job.with_options(headers={"baggage": "mine"}).bind(1)], lineage)
    envelope = (await only(world)).envelope
    assert (envelope.parent_id, envelope.parent_attempt, envelope.root_id) == ("p", 2, "r")
    assert envelope.headers == {"traceparent": "t", "baggage": "mine"}
    status = await world.status(handle.id)
    assert (status.parent_id, status.root_id) == ("p", "r")


# --- several at once ------------------------------------------------------------------------------------------------


async def test_enqueue_many(world, stem, autojump_clock):
    """Several calls take one round trip for each distinct delay, and their ids come in their order."""
    calls = [job.with_options(delay=number % 3).bind(number) for number in range(9)]
    calls.append(stem.call("job", {"number": 9}))
    ids = await stem.enqueue_many(iter(calls))
    assert world.faults.trace.count("broker.publish:before") == 3
    assert world.faults.trace.count("backend.record:before") == 3
    waiting = {w.envelope.id: w for w in await world.memory_broker.peek("jobs")}
    numbers = [msgspec.json.decode(waiting[task_id].envelope.args)["number"] for task_id in ids]
    assert numbers == list(range(10))
    assert [waiting[task_id].due_in for task_id in ids] == [0, 1, 2] * 3 + [0]


async def test_enqueue_none(world, stem, autojump_clock):
    """Nothing to enqueue is nothing to ask a store."""
    assert await stem.enqueue_many([]) == []
    assert world.faults.trace == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_part_of_several_fails(world, stem, when, autojump_clock):
    """G11: when only a part could be published, the error does not say that nothing was."""
    world.faults.fail("broker.publish", when=when, skip=1)
    with pytest.raises(StoreUnavailableError) as caught:
        await stem.enqueue_many([job.bind(1), job.with_options(delay=5).bind(2)])
    assert caught.value.maybe_applied
    assert await world.places("jobs") == (1, int(when == "after"), 0, 0)


# --- ids of the caller's own ----------------------------------------------------------------------------------------


async def test_same_id_while_it_waits(world, stem, autojump_clock):
    """An id that the broker holds is left as it is, and the handle says so."""
    first = await job.with_options(task_id="mine").enqueue(stem, 1)
    second = await job.with_options(task_id="mine", delay=5).enqueue(stem, 2)
    assert (first.created, second.created) == (True, False)
    assert (str(first), str(second)) == ("mine", "mine")
    waiting = await only(world)
    assert (waiting.place, msgspec.json.decode(waiting.envelope.args)["number"]) == ("ready", 1)
    assert await stem.enqueue("job", {"number": 3}, task_id="mine") == "mine"


async def test_same_id_when_it_is_dead(world, stem, autojump_clock):
    """So is one that is held as a dead letter, also when nobody remembers its status."""

    @task(name="fails", queue="jobs")
    async def fails() -> None:
        raise ValueError

    stem.registry.register(fails)
    await fails.with_options(task_id="mine", result_ttl=60).enqueue(stem)
    async with world.worker(fails, queue="jobs"):
        await stem.wait_for_task("mine")
    assert await world.places("jobs") == (0, 0, 0, 1)
    await trio.sleep(61)
    assert await world.memory_backend.get("mine") is None
    assert not (await fails.with_options(task_id="mine").enqueue(stem)).created


async def test_same_id_when_it_is_over(world, stem, autojump_clock):
    """An id whose task is over enqueues nothing as long as its result is kept, and is free again then."""
    once = job.with_options(task_id="mine", result_ttl=60)
    await once.enqueue(stem, 1)
    async with world.worker(job, queue="jobs"):
        assert await (await once.enqueue(stem, 2)).result() == 1
        handle = await once.enqueue(stem, 3)
        assert not handle.created
        assert await handle.result() == 1
        assert await world.places("jobs") == (0, 0, 0, 0)
        await trio.sleep(61)
        handle = await once.enqueue(stem, 4)
        assert handle.created
        assert await handle.result() == 4


async def test_same_id_twice_in_one_batch(world, stem, autojump_clock):
    """Of several calls with one id the first one counts, with the same delay or another."""
    mine = job.with_options(task_id="mine")
    later = job.with_options(task_id="mine", delay=5)
    calls = [mine.bind(1), job.bind(2), mine.bind(3), later.bind(4), job.with_options(task_id="yours").bind(5)]
    handles = await stem.publish(calls)
    assert [handle.created for handle in handles] == [True, True, False, False, True]
    assert await world.places("jobs") == (3, 0, 0, 0)


async def test_id_that_is_over_among_others(world, stem, autojump_clock):
    """A batch may hold ids that are over, ids that wait, and new ones."""
    await job.with_options(task_id="over").enqueue(stem, 1)
    async with world.worker(job, queue="jobs"):
        await stem.wait_for_task("over")
    await job.with_options(task_id="waits").enqueue(stem, 2)
    handles = await stem.publish([job.with_options(task_id=name).bind(3) for name in ("over", "waits", "new")])
    assert [handle.created for handle in handles] == [False, False, True]


async def test_repeating_after_doubt(world, stem, autojump_clock):
    """G11: repeating a call with its id after an error enqueues it once, whether the broker had it or not."""
    world.faults.fail("broker.publish", when="after", times=1)
    world.faults.fail("broker.publish", when="before", skip=2, times=1)
    for attempt in range(2):
        call = job.with_options(task_id=f"id {attempt}").bind(attempt)
        with pytest.raises(StoreUnavailableError) as caught:
            await stem.submit(call)
        assert caught.value.maybe_applied == (attempt == 0)
        handle = await stem.submit(call)
        assert handle.created == (attempt == 1)
    assert await world.places("jobs") == (2, 0, 0, 0)


# --- stores that fail -----------------------------------------------------------------------------------------------


async def test_broker_that_is_away(world, stem, autojump_clock):
    """G11: the producer gets a typed error, and nothing is recorded of a task that is not there."""
    world.faults.fail("broker.publish")
    with pytest.raises(StoreUnavailableError) as caught:
        await stem.enqueue("job", {"number": 1})
    assert not caught.value.maybe_applied
    assert world.faults.trace == ["broker.publish:before"]


@pytest.mark.parametrize(
    ("operation", "options"),
    [("broker.publish", {}), ("backend.get", {"task_id": "mine"})],
)
async def test_store_that_hangs(world, make_stem, operation, options, autojump_clock):
    """G11: a store that does not answer is given up after `store_timeout`, with an error that says what is known."""
    stem = make_stem(store_timeout=timedelta(seconds=3))
    world.faults.hang(operation)
    with pytest.raises(StoreTimeoutError) as caught:
        await stem.enqueue("job", {"number": 1}, **options)
    assert trio.current_time() == 3
    assert caught.value.maybe_applied
    assert (caught.value.operation, caught.value.seconds) == (operation.split(".")[1], 3.0)
    assert await world.places("jobs") == (0, 0, 0, 0)


@pytest.mark.parametrize("failure", ["away", "refuses", "hangs"])
async def test_record_that_fails(world, stem, caplog, failure, autojump_clock):
    """G1: a task that the broker has is enqueued, whatever becomes of its record; and it runs."""

    def refuse() -> None:
        raise StoreError("no")

    match failure:
        case "away":
            world.faults.fail("backend.record")
        case "refuses":
            world.faults.at("backend.record:before", refuse)
        case "hangs":
            world.faults.hang("backend.record")
    handle = await job.enqueue(stem, 5)
    assert handle.created
    assert trio.current_time() == (10 if failure == "hangs" else 0)
    assert "enqueued 1 task(s), but could not record that" in caplog.text
    assert await world.memory_backend.get(handle.id) is None
    world.faults.clear()
    async with world.worker(job, queue="jobs") as worker:
        await worker.wait_settled()
        assert await handle.result(0) == 5


async def test_late_record(world, stem, autojump_clock):
    """G5: the producer's record never replaces what a worker has written meanwhile."""

    async def be_slow() -> None:
        await trio.sleep(5)

    slow = Stem(world.broker, world.backend, signals=StemSignals(), clock=world.clock)
    async with world.worker(job, queue="jobs") as worker:
        world.faults.at("backend.record:before", be_slow, times=1)
        handle = await job.enqueue(slow, 1)
        assert worker.totals["succeeded"] == 1
        assert (await handle.status()).state is TaskState.SUCCEEDED


async def test_closed_stores(world, make_stem, autojump_clock):
    """A producer whose stores are closed says so."""
    stem = Stem(InMemoryBroker(), tasks=[job])
    with pytest.raises(StoreClosedError):
        await stem.enqueue("job", {"number": 1})


# --- cancellation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("point", "there"), [("broker.publish:before", 0), ("broker.publish:after", 1)])
async def test_cancelled(world, stem, point, there, autojump_clock):
    """G1: a call that is cancelled has enqueued the task whole, or not at all."""
    world.faults.at(point, trio.sleep_forever)
    with trio.move_on_after(1) as scope:
        await stem.enqueue("job", {"number": 1})
    assert scope.cancelled_caught
    assert await world.places("jobs") == (there, 0, 0, 0)


async def test_cancelled_while_recording(world, stem, autojump_clock):
    """G1: one that is cancelled after that leaves a task that runs, and is recorded when it does."""
    world.faults.at("backend.record:before", trio.sleep_forever, times=1)
    with trio.move_on_after(1):
        await stem.enqueue("job", {"number": 1}, task_id="mine")
    async with world.worker(job, queue="jobs") as worker:
        await worker.wait_settled()
    assert await world.state("mine") == "succeeded"


async def test_listener_that_is_slow(world, stem, autojump_clock):
    """Listeners of a producer are awaited, up to their own timeout."""

    @world.signals.before_task_publish.connect
    async def slow(event) -> None:
        await trio.sleep(3)

    await stem.enqueue("job", {"number": 1})
    assert trio.current_time() == 3


def test_call_without_options():
    """A call that says nothing shares the options of its task."""
    definition = job.definition
    assert make_call(definition, b"{}", {}).options is definition.effective
    assert job.bind(1).name == "job"


# --- joint stores -------------------------------------------------------------------------------------------------


@task(name="send")
async def send(to: str) -> None:
    """Nothing."""


class Repeating(JointStore):
    """Its first attempt has been applied, and it knows the ids when it makes the second."""

    def __init__(self) -> None:
        self.entries = []

    async def publish(self, entries, *, delay=0.0):
        await trio.lowlevel.checkpoint()
        self.entries += entries
        return [False] * len(entries)

    async def settle(self, endings):
        raise NotImplementedError


class JoinedBroker(FaultyBroker):
    """One that is joined with whatever backend."""

    joint: JointStore

    def join(self, backend):
        return self.joint


@pytest.fixture
async def repeating():
    async with InMemoryBroker() as broker, InMemoryResultBackend() as backend:
        joined = JoinedBroker(broker, Faults())
        joined.joint = Repeating()
        yield Stem(joined, backend, tasks=[send], signals=StemSignals()), joined.joint


@pytest.mark.parametrize("together", [False, True])
async def test_publication_that_was_repeated(repeating, together):
    """An id that was made for this very call can be known only of an earlier attempt at it: the task is enqueued."""
    stem, joint = repeating
    calls = [send.bind("a"), send.with_options(task_id="mine").bind("b")]
    handles = await stem.publish(calls) if together else [await stem.submit(call) for call in calls]
    assert [handle.created for handle in handles] == [True, False]
    assert [envelope.id for envelope, _ in joint.entries] == [handle.id for handle in handles]
    assert [status.state for _, status in joint.entries] == [TaskState.QUEUED] * 2


async def test_events_of_joint_stores(repeating):
    """Listeners are told of tasks that are published with their status, as of others."""
    stem, _ = repeating
    told = []
    for signal in (stem.signals.before_task_publish, stem.signals.after_task_publish):
        signal.connect(lambda event: told.append(event.envelope.id))
    handle = await stem.submit(send.bind("a"))
    assert told == [handle.id] * 2


async def test_joint_store_that_hangs(repeating, autojump_clock):
    """G11: what does not promise to answer is waited for as long as the producer says, and no longer."""
    stem, joint = repeating

    async def hang(entries, *, delay=0.0):
        await trio.sleep_forever()

    joint.publish = hang
    with pytest.raises(StoreTimeoutError):
        await stem.submit(send.bind("a"))
    assert trio.current_time() >= 10
