"""Stores that fail on demand: every operation passes through, with a point before and a point after."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from stem_trio import Broker, InMemoryBroker, InMemoryResultBackend, ResultBackend, StoreError, StoreUnavailableError
from stem_trio.testing.faults import Faults, FaultyBackend, FaultyBroker

# Every operation of the contracts, called with arguments that tell them all apart.
CALLS = {
    "broker": {
        "publish": ((["envelope"],), {"delay": 3.0}),
        "claim": ((["a", "b"],), {"consumer": "me", "limit": 5, "wait": 7.0}),
        "renew": ((["lease"],), {}),
        "settle": (([("lease", "settlement")],), {}),
        "revoke": (("a", ["id"]), {"reason": "enough"}),
        "revocations": (("a", ["id"]), {}),
        "peek": (("a",), {"limit": 3, "offset": 4}),
        "purge": (("a", ["id"]), {}),
        "stats": (("a",), {}),
        "list_dead_letters": (("a",), {"limit": 3, "offset": 4}),
        "get_dead_letter": (("a", "id"), {}),
        "replay_dead_letters": (("a", ["id"]), {"delay": 5.0}),
        "purge_dead_letters": (("a", ["id"]), {}),
        "broadcast": (("channel", b"message"), {}),
    },
    "backend": {
        "record": ((["status"],), {}),
        "get": (("id",), {}),
        "put_heartbeat": (("heartbeat",), {"ttl": 6.0}),
        "remove_heartbeat": (("me",), {}),
        "list_heartbeats": ((), {}),
    },
}
DEFAULTS = {
    "publish": ((["envelope"],), {}, (["envelope"],), {"delay": 0.0}),
    "revoke": (("a", ["id"]), {}, ("a", ["id"]), {"reason": ""}),
    "peek": (("a",), {}, ("a",), {"limit": 100, "offset": 0}),
    "purge": (("a",), {}, ("a", None), {}),
    "list_dead_letters": (("a",), {}, ("a",), {"limit": 50, "offset": 0}),
    "replay_dead_letters": (("a", ["id"]), {}, ("a", ["id"]), {"delay": 0.0}),
    "purge_dead_letters": (("a",), {}, ("a", None), {}),
}
SILENT = {"broadcast", "put_heartbeat", "remove_heartbeat"}
OPERATIONS = [(store, operation) for store, calls in CALLS.items() for operation in calls]
every_operation = pytest.mark.parametrize(("store", "operation"), OPERATIONS)


class Spy:
    """A store that writes down how it is called, and answers with a value of its own."""

    def __init__(self) -> None:
        self.calls = []
        self.answer = object()

    async def __aenter__(self):
        self.calls.append("open")
        return self

    async def __aexit__(self, *details) -> None:
        self.calls.append(("close", details))

    def __getattr__(self, operation):
        async def call(*args, **kwargs):
            await trio.lowlevel.checkpoint()
            self.calls.append((operation, args, kwargs))
            return self.answer

        return call


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture
def spy():
    return Spy()


@pytest.fixture
def perform(faults, spy):
    """Calls an operation of a store around the spy."""
    stores = {"broker": FaultyBroker(spy, faults), "backend": FaultyBackend(spy, faults)}

    async def perform(store, operation):
        args, kwargs = CALLS[store][operation]
        return await getattr(stores[store], operation)(*args, **kwargs)

    return perform


def test_all_operations_are_known_here():
    """What the contracts ask for is what is tested here."""
    other = {"__aenter__", "__aexit__"}
    assert set(CALLS["broker"]) == Broker.__abstractmethods__ - other - {"subscribe"}
    assert set(CALLS["backend"]) == ResultBackend.__abstractmethods__ - other - {"watch"}


# --- passing through ------------------------------------------------------------------------------------------------


@every_operation
async def test_operation_passes_through(faults, spy, perform, store, operation):
    """Arguments and answer are those of the store inside; the call has a point before it and one after it."""
    effects = []
    faults.at(f"{store}.{operation}:before", lambda: effects.append(len(spy.calls)))
    faults.at(f"{store}.{operation}:after", lambda: effects.append(len(spy.calls)))
    answer = await perform(store, operation)
    args, kwargs = CALLS[store][operation]
    assert spy.calls == [(operation, args, kwargs)]
    assert answer is (None if operation in SILENT else spy.answer)
    assert effects == [0, 1]
    assert faults.trace == [f"{store}.{operation}:before", f"{store}.{operation}:after"]


@pytest.mark.parametrize("operation", DEFAULTS)
async def test_defaults_are_those_of_the_contract(faults, spy, operation):
    """What a caller leaves out arrives as the contract says."""
    given, named, args, kwargs = DEFAULTS[operation]
    await getattr(FaultyBroker(spy, faults), operation)(*given, **named)
    assert spy.calls == [(operation, args, kwargs)]


@every_operation
async def test_failure_before(faults, spy, perform, store, operation):
    """A failure before the effect leaves the store untouched, and says so."""
    faults.fail(f"{store}.{operation}")
    with pytest.raises(StoreUnavailableError, match=f"{store}.{operation}") as caught:
        await perform(store, operation)
    assert not caught.value.maybe_applied
    assert spy.calls == []
    assert faults.trace == [f"{store}.{operation}:before"]


@every_operation
async def test_failure_after(faults, spy, perform, store, operation):
    """A failure after the effect leaves open whether there was one."""
    faults.fail(f"{store}.{operation}", when="after")
    with pytest.raises(StoreUnavailableError) as caught:
        await perform(store, operation)
    assert caught.value.maybe_applied
    assert [call[0] for call in spy.calls] == [operation]


@every_operation
@pytest.mark.parametrize(("when", "effects"), [("before", 0), ("after", 1)])
async def test_hanging(autojump_clock, faults, spy, perform, store, operation, when, effects):
    """An operation that hangs does so until it is cancelled, before or after its effect."""
    faults.hang(f"{store}.{operation}", when=when)
    with trio.move_on_after(1000) as scope:
        await perform(store, operation)
    assert scope.cancelled_caught
    assert len(spy.calls) == effects


@every_operation
async def test_down(faults, spy, perform, store, operation):
    """While the stores are down nothing takes effect; then everything does again."""
    faults.down = True
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="down") as caught:
            await perform(store, operation)
        assert not caught.value.maybe_applied
    assert spy.calls == []
    faults.down = False
    await perform(store, operation)
    assert len(spy.calls) == 1


async def test_going_down_under_way(faults, spy, perform):
    """An operation that has taken effect already returns, however the store is by then."""

    def go_down() -> None:
        faults.down = True

    faults.at("broker.settle:before", go_down)
    assert await perform("broker", "settle") is spy.answer
    with pytest.raises(StoreUnavailableError):
        await perform("broker", "settle")


async def test_down_is_a_checkpoint(faults, perform):
    """A loop over a store that is down can be cancelled."""
    faults.down = True
    with trio.CancelScope() as scope:
        scope.cancel()
        await perform("broker", "claim")
    assert scope.cancelled_caught


@pytest.mark.parametrize("make", [FaultyBroker, FaultyBackend])
async def test_opening_and_closing(faults, spy, make):
    """Opening and closing is done by the store inside, and has no points."""
    boom = ValueError("boom")
    store = make(spy, faults)
    faults.down = True
    with pytest.raises(ValueError, match="boom"):
        async with store as entered:
            assert entered is store
            raise boom
    opened, (closed, details) = spy.calls
    assert (opened, closed) == ("open", "close")
    assert details == (ValueError, boom, boom.__traceback__)
    assert faults.trace == []


# --- rules ----------------------------------------------------------------------------------------------------------


async def outcomes(perform, count, store="broker", operation="settle"):
    """How so many calls end, one after the other: "." returns, "x" fails."""
    text = ""
    for _ in range(count):
        try:
            await perform(store, operation)
            text += "."
        except StoreUnavailableError:
            text += "x"
    return text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "xxxxxx"),
        ({"times": 2}, "xx...."),
        ({"skip": 2}, "..xxxx"),
        ({"skip": 2, "times": 1}, "..x..."),
        ({"times": 0}, "......"),
    ],
    ids=str,
)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_skip_and_times(faults, perform, options, expected, when):
    """`skip` calls pass, `times` calls fail then, and the rest pass again."""
    faults.fail("broker.settle", when=when, **options)
    assert await outcomes(perform, 6) == expected


async def test_skip_and_times_of_hanging(autojump_clock, faults, perform):
    """They count calls that hang, too."""
    faults.hang("broker.settle", skip=1, times=1)
    seconds = []
    for _ in range(3):
        began = trio.current_time()
        with trio.move_on_after(10):
            await perform("broker", "settle")
        seconds.append(trio.current_time() - began)
    assert seconds == [0, 10, 0]


async def test_rules_are_of_one_point(faults, perform):
    """A rule for one operation does not touch another, of either store."""
    faults.fail("broker.settle")
    for store, operation in OPERATIONS:
        if operation != "settle":
            assert await outcomes(perform, 1, store, operation) == "."


async def test_several_rules_at_a_point(faults, perform):
    """Rules at one point act in their order; one that raises ends the operation, and each counts for itself."""
    acted = []
    faults.at("broker.settle:before", lambda: acted.append("first"))
    faults.fail("broker.settle", times=1)
    faults.at("broker.settle:before", lambda: acted.append("last"), skip=1)
    assert await outcomes(perform, 3) == "x.."
    assert acted == ["first", "first", "first", "last"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_action_raises(faults, perform, when):
    """What an action raises the operation raises, as it is."""
    error = StoreError("refused")

    def refuse() -> None:
        raise error

    faults.at(f"backend.get:{when}", refuse)
    with pytest.raises(StoreError) as caught:
        await perform("backend", "get")
    assert caught.value is error


async def test_async_action(autojump_clock, faults, spy, perform):
    """An async action is awaited: it makes a store slow."""
    faults.at("backend.get:before", partial(trio.sleep, 3))

    async def more() -> None:
        await trio.sleep(4)

    faults.at("backend.get:after", more)
    assert await perform("backend", "get") is spy.answer
    assert trio.current_time() == 7


async def test_action_changes_the_rules(faults, perform):
    """An action may add rules, which count from the next time on, and clear them all."""
    faults.at("broker.settle:before", lambda: faults.fail("broker.settle"), times=1)
    assert await outcomes(perform, 3) == ".xx"
    faults.clear()
    faults.at("broker.settle:before", faults.clear)
    faults.fail("broker.settle", when="after")
    assert await outcomes(perform, 2) == ".."


async def test_clear(faults, perform):
    """After `clear` everything works; the trace stays."""
    faults.fail("broker.settle")
    faults.down = True
    assert await outcomes(perform, 2) == "xx"
    faults.clear()
    assert not faults.down
    assert await outcomes(perform, 2) == ".."
    assert faults.trace == ["broker.settle:before"] * 2 + ["broker.settle:before", "broker.settle:after"] * 2


async def test_one_serves_several_stores(faults, perform):
    """Broker and backend may share one, and go down together; the trace has both in order."""
    await perform("backend", "record")
    await perform("broker", "settle")
    assert faults.trace == [
        "backend.record:before",
        "backend.record:after",
        "broker.settle:before",
        "broker.settle:after",
    ]


# --- subscriptions and watches --------------------------------------------------------------------------------------


@pytest.fixture
async def broker(faults):
    async with FaultyBroker(InMemoryBroker(), faults) as broker:
        yield broker


async def test_subscription(faults, broker):
    """Messages pass through; subscribing has two points, and so has each message."""
    async with broker.subscribe("a") as subscription:
        assert faults.trace == ["broker.subscribe:before", "broker.subscribe:after"]
        faults.trace.clear()
        await broker.broadcast("a", b"one")
        await broker.broadcast("a", b"two")
        faults.trace.clear()
        assert [await subscription.receive(), await subscription.receive()] == [b"one", b"two"]
        assert faults.trace == ["broker.receive:before", "broker.receive:after"] * 2
        faults.fail("broker.receive", times=1)
        with pytest.raises(StoreUnavailableError):
            await subscription.receive()
    assert broker.inner._channels == {}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_subscribing_fails(faults, broker, when):
    """A subscription that fails, at either point, leaves nobody subscribed."""
    faults.fail("broker.subscribe", when=when)
    with pytest.raises(StoreUnavailableError) as caught:
        async with broker.subscribe("a"):
            pytest.fail("nobody is subscribed")
    assert caught.value.maybe_applied == (when == "after")
    assert broker.inner._channels == {}


async def test_message_lost_on_the_way(faults, broker):
    """A message that was received when the failure came is gone, as it is with a connection that breaks."""
    async with broker.subscribe("a") as subscription:
        await broker.broadcast("a", b"one")
        await broker.broadcast("a", b"two")
        faults.fail("broker.receive", when="after", times=1)
        with pytest.raises(StoreUnavailableError):
            await subscription.receive()
        assert await subscription.receive() == b"two"


async def test_subscription_while_down(faults, broker):
    """A store that is down takes no subscriber and hands out no message."""
    async with broker.subscribe("a") as subscription:
        await broker.broadcast("a", b"one")
        faults.down = True
        with pytest.raises(StoreUnavailableError):
            await subscription.receive()
        with pytest.raises(StoreUnavailableError):
            async with broker.subscribe("a"):
                pytest.fail("nobody is subscribed")
        faults.clear()
        assert await subscription.receive() == b"one"


class WatchSpy:
    """A backend whose watches can be told apart, and counted."""

    def __init__(self) -> None:
        self.watched = []
        self.open = 0

    @asynccontextmanager
    async def watch(self, task_id):
        self.watched.append(task_id)
        self.open += 1
        try:
            yield self
        finally:
            self.open -= 1


async def test_watch(faults):
    """A watch is the one of the store inside, with a point before it is entered and one after."""
    inner = WatchSpy()
    faults.at("backend.watch:before", lambda: inner.watched.append("before"))
    faults.at("backend.watch:after", lambda: inner.watched.append("after"))
    async with FaultyBackend(inner, faults).watch("id") as watch:
        assert watch is inner
        assert inner.open == 1
    assert inner.open == 0
    assert inner.watched == ["before", "id", "after"]
    assert faults.trace == ["backend.watch:before", "backend.watch:after"]


@pytest.mark.parametrize(("when", "watched"), [("before", []), ("after", ["id"])])
async def test_watching_fails(faults, when, watched):
    """A watch that fails, at either point, is not left open."""
    inner = WatchSpy()
    faults.fail("backend.watch", when=when)
    with pytest.raises(StoreUnavailableError):
        async with FaultyBackend(inner, faults).watch("id"):
            pytest.fail("nothing is watched")
    assert inner.watched == watched
    assert inner.open == 0


async def test_error_inside_of_watch_and_subscription(faults, broker):
    """An error of the block passes through both, and both are closed."""
    boom = ValueError("boom")
    async with InMemoryResultBackend() as inner:
        with pytest.raises(ValueError, match="boom") as caught:
            async with broker.subscribe("a"), FaultyBackend(inner, faults).watch("id"):
                raise boom
        assert caught.value is boom
        assert inner._watches == {}
    assert broker.inner._channels == {}
