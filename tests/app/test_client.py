"""A client: a producer that owns its stores."""

from __future__ import annotations

import pytest
import trio

from stem_trio import (
    InMemoryBroker,
    InMemoryResultBackend,
    InvalidOptionError,
    PayloadTooLargeError,
    RegistrationError,
    StemClient,
    StemSignals,
    StoreClosedError,
    StoreError,
    StoreTimeoutError,
    TaskState,
    Worker,
    signals,
    task,
)
from stem_trio.clock import TrioClock
from stem_trio.testing.faults import Faults, FaultyBackend, FaultyBroker


@task(name="add")
async def add(a: int, b: int) -> int:
    return a + b


@task(name="fails")
async def fails() -> None:
    raise ValueError


def make_client(**options) -> StemClient:
    return StemClient.in_memory(**({"tasks": [add, fails], "signals": StemSignals()} | options))


def make_worker(client: StemClient, **options) -> Worker:
    return Worker(client.broker, client.backend, registry=client.registry, signals=StemSignals(), **options)


async def test_everything_that_a_producer_does(autojump_clock):
    """A client does what a producer does, with stores that are open within its block."""
    clock = TrioClock()
    async with make_client(clock=clock) as client:
        assert client.stem.clock is clock
        first = await client.enqueue("add", {"a": 1, "b": 2})
        second = await client.submit(client.call("add", {"a": 3, "b": 4}, priority=9))
        third = await add.enqueue(client, 5, 6)
        fourth, fifth = await client.enqueue_many([add.bind(7, 8), fails.bind()])
        revoked, also = [await add.with_options(delay=60).enqueue(client, 9, 10) for _ in range(2)]
        purged = await add.with_options(queue="other").enqueue(client, 9, 10)
        assert (await client.status(first)).state is TaskState.QUEUED
        assert await client.revoke(revoked, reason="why")
        assert await also.revoke()
        assert await client.purge("other") == 1
        async with make_worker(client):
            assert (await client.wait_for_task(first)).value == 3
            assert (await client.wait_for_task(second, 10)).value == 7
            assert await third.result() == 11
            assert (await client.wait_for_task(fourth)).value == 15
            assert (await client.wait_for_task(fifth)).state is TaskState.FAILED
            assert (await client.wait_for_task(revoked)).reason == "why"
            assert (await client.wait_for_task(purged)).reason == "purged"
        [letter] = await client.replay_dead_letters("default", [fifth], delay=5)
        assert letter.envelope.id == fifth
        assert (await client.status(fifth)).state is TaskState.QUEUED


async def test_stores_are_open_within_the_block():
    """The stores are opened by the block, and closed with it."""
    client = make_client()
    for _ in range(2):  # a client may be opened again
        with pytest.raises(StoreClosedError):
            await client.enqueue("add", {"a": 1, "b": 2})
        async with client as entered:
            assert entered is client
            await client.enqueue("add", {"a": 1, "b": 2})
    with pytest.raises(StoreClosedError):
        await client.status("x")


async def test_opened_twice():
    """It cannot be opened while it is open, and that changes nothing."""
    async with make_client() as client:
        with pytest.raises(StoreError, match="open already"):
            await client.__aenter__()
        await client.enqueue("add", {"a": 1, "b": 2})
    with pytest.raises(StoreClosedError):
        await client.enqueue("add", {"a": 1, "b": 2})


async def test_backend_that_cannot_be_opened():
    """When the backend cannot be opened the broker is closed again."""
    broker, backend = InMemoryBroker(), InMemoryResultBackend()
    client = StemClient(broker, backend, tasks=[add], signals=StemSignals())
    async with backend:
        with pytest.raises(StoreError, match="open already"):
            await client.__aenter__()
    with pytest.raises(StoreClosedError):
        await broker.stats("default")
    async with client:
        await client.enqueue("add", {"a": 1, "b": 2})


class Diary:
    """A store that writes down when it is opened and closed, and fails at what it is told to."""

    def __init__(self, name, entries, fails=()) -> None:
        self.name, self.entries, self.fails = name, entries, fails
        self.error: BaseException | None = None

    def write(self, what) -> None:
        self.entries.append(f"{what} {self.name}")
        if what in self.fails:
            raise ConnectionError(f"{what} {self.name}")

    async def __aenter__(self):
        await trio.lowlevel.checkpoint()
        self.write("open")
        if "hang" in self.fails:
            await trio.sleep_forever()
        return self

    async def __aexit__(self, kind, error, traceback) -> None:
        self.error = error
        self.write("close")

    def join(self, backend) -> None:
        """Nothing more than each alone."""


OPENED = ["open broker", "open backend"]
CLOSED = ["close backend", "close broker"]


async def test_stores_are_opened_and_closed_in_order():
    """The broker is opened first and closed last, and both are told why the block has ended."""
    entries = []
    broker, backend = Diary("broker", entries), Diary("backend", entries)
    async with StemClient(broker, backend):
        assert entries == OPENED
    assert entries == OPENED + CLOSED
    error = ExceptionGroup("mine", [ValueError("mine")])
    with pytest.raises(ExceptionGroup) as caught:
        async with StemClient(broker, backend):
            raise error
    assert caught.value is error
    assert broker.error is backend.error is error
    assert entries == (OPENED + CLOSED) * 2


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        ({"broker": ["open"]}, ["open broker"]),
        ({"backend": ["open"]}, ["open broker", "open backend", "close broker"]),
        ({"backend": ["close"]}, OPENED + CLOSED),
        ({"broker": ["close"]}, OPENED + CLOSED),
    ],
    ids=str,
)
async def test_store_that_fails_to_open_or_close(fails, expected):
    """Whatever was opened is closed, also where another store fails; the error comes out."""
    entries = []
    [(name, [what])] = fails.items()
    stores = [Diary(kind, entries, fails.get(kind, ())) for kind in ("broker", "backend")]
    with pytest.raises(ConnectionError, match=f"{what} {name}"):
        async with StemClient(*stores):
            pass
    assert entries == expected


async def test_cancelled_while_opening(autojump_clock):
    """A cancellation while the second store is opened closes the first."""
    entries = []
    broker = Diary("broker", entries)
    with trio.move_on_after(1) as scope:
        async with StemClient(broker, Diary("backend", entries, ["hang"])):
            pytest.fail("it cannot be open")
    assert scope.cancelled_caught
    assert entries == [*OPENED, "close broker"]
    assert isinstance(broker.error, trio.Cancelled)


async def test_error_in_the_block():
    """An error in the block closes the stores, and comes out as it is."""
    error = ValueError("mine")
    client = make_client()
    with pytest.raises(ValueError, match="mine") as caught:
        async with client:
            raise error
    assert caught.value is error
    with pytest.raises(StoreClosedError):
        await client.status("x")


async def test_options(autojump_clock):
    """What is said to the client is heard by its producer."""
    faults = Faults()
    client = StemClient(
        FaultyBroker(InMemoryBroker(), faults),
        FaultyBackend(InMemoryResultBackend(), faults),
        tasks=[add],
        max_payload_size=9000,
        store_timeout=3,
        signals=StemSignals(),
    )
    async with client:
        with pytest.raises(PayloadTooLargeError):
            await client.enqueue("add", {"a": 1, "b": 2}, meta={"x": "y" * 9000})
        faults.hang("broker.publish")
        with pytest.raises(StoreTimeoutError):
            await client.enqueue("add", {"a": 1, "b": 2})
        assert trio.current_time() == 3
    assert client.broker.faults is faults


def test_bad_options():
    """G15: options and tasks are checked when the client is made, and named."""
    with pytest.raises(InvalidOptionError, match="store_timeout="):
        make_client(store_timeout=0)
    with pytest.raises(InvalidOptionError, match="max_payload_size="):
        make_client(max_payload_size=0)
    with pytest.raises(RegistrationError):
        make_client(tasks=[print])


def test_defaults():
    """A client that is told nothing uses the process's signals."""
    client = StemClient.in_memory()
    assert client.stem.signals is signals.default
    assert len(client.registry) == 0
