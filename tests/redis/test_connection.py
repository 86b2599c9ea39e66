"""Properties of one connection, over streams that slice, stall, break and talk nonsense."""

from __future__ import annotations

import random
import secrets
from itertools import pairwise

import hiredis
import pytest
import trio
import trio.testing

from stem_trio import StoreUnavailableError
from stem_trio.stores.redis.address import parse_address
from stem_trio.stores.redis.connection import Connection, Waiter, pack
from stem_trio.stores.redis.errors import ConnectionLostError
from stem_trio.stores.redis.transport import RedisTransport
from tests.redis.servers import HELLO, fake_server, running


class SlicedEcho(trio.abc.Stream):
    """A server on a stream: answers ECHO, in its order, in pieces as small and as late as chance will have it."""

    def __init__(self, rng):
        self._rng = rng
        self._reader = hiredis.Reader()
        self._bytes = bytearray()
        self._more = trio.Event()

    async def send_all(self, data):
        for number in range(0, len(data), 7):
            self._reader.feed(bytes(data[number : number + 7]))
            if self._rng.random() < 0.02:
                await trio.lowlevel.checkpoint()
        while command := self._reader.gets():
            if self._rng.random() < 0.1:
                self._bytes += b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\npush\r\n"
            if command[1].startswith(b"error"):
                self._bytes += b"-ERR %s\r\n" % command[1]
            else:
                self._bytes += b"$%d\r\n%s\r\n" % (len(command[1]), command[1])
        self._more.set()
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self):
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes=None):
        while not self._bytes:
            await self._more.wait()
            self._more = trio.Event()
        await trio.lowlevel.checkpoint()
        size = self._rng.choice([1, 2, 5, 20, 1000])
        data = bytes(self._bytes[:size])
        del self._bytes[:size]
        return data

    async def aclose(self):
        await trio.lowlevel.checkpoint()


async def run_connection(connection, *, task_status=trio.TASK_STATUS_IGNORED):
    task_status.started()
    with pytest.raises(ConnectionLostError):
        await connection.run()


def submitted(connection, *command):
    waiter = Waiter(1)
    connection.submit([pack(command)], waiter)
    return waiter


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_everybody_gets_their_own(seed, autojump_clock):
    """Whoever is cancelled, however the bytes are cut, whatever comes between: each caller gets its own replies."""
    seed = secrets.randbits(32) if seed is None else seed
    print(f"seed: {seed}")
    rng = random.Random(seed)
    pushes, answered = [], []
    connection = Connection(SlicedEcho(rng), patience=1000.0, on_push=pushes.append)

    async def caller(number):
        for turn in range(8):
            words = [
                f"{rng.choice(['ok', 'error'])}-{number}-{turn}-{part}" for part in range(rng.choice([1, 1, 1, 3]))
            ]
            waiter = Waiter(len(words))
            with trio.move_on_after(rng.choice([0, 0.01, 5, 1000])) as scope:
                await trio.sleep(rng.choice([0, 0, 0.01]))
                connection.submit([pack(("ECHO", word)) for word in words], waiter)
                replies = await waiter.wait()
                got = [
                    str(reply).removeprefix("ERR ") if isinstance(reply, Exception) else reply.decode()
                    for reply in replies
                ]
                assert got == words
                answered.append(number)
            if scope.cancelled_caught:
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        async with trio.open_nursery() as callers:
            for number in range(40):
                callers.start_soon(caller, number)
        last = Waiter(1)
        connection.submit([pack(("ECHO", "last"))], last)
        assert await last.wait() == [b"last"]
        assert connection.pending == 0
        nursery.cancel_scope.cancel()
    assert len(answered) > 50
    assert pushes


async def test_back_pressure(autojump_clock):
    """With a reader that stalls, callers wait with little in the queue, and go on when it goes on."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    connection = Connection(ours, high_water=1000)
    sent = []

    async def caller(number):
        await connection.wait_writable()
        sent.append(number)
        connection.submit([pack(("SET", "key", "x" * 400))], Waiter(1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        for number in range(20):
            nursery.start_soon(caller, number)
            await trio.testing.wait_all_tasks_blocked()
        assert 2 <= len(sent) <= 4
        assert not connection.writable
        received = 0
        while received < 20 * len(pack(("SET", "key", "x" * 400))):
            received += len(await theirs.receive_some(100))
        await trio.testing.wait_all_tasks_blocked()
        assert connection.writable
        assert sorted(sent) == list(range(20))
        nursery.cancel_scope.cancel()


async def test_waiting_to_send_ends_with_the_connection(autojump_clock):
    """Who waits because of a stalled reader is not left waiting when the connection goes, and has sent nothing."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    connection = Connection(ours, high_water=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_connection, connection)
        first = Waiter(1)
        connection.submit([pack(("SET", "key", "x" * 100))], first)
        second = Waiter(1)

        async def waiting():
            await connection.wait_writable()
            connection.submit([pack(("PING",))], second)

        nursery.start_soon(waiting)
        await trio.testing.wait_all_tasks_blocked()
        await trio.aclose_forcefully(theirs)
    for waiter, sent in ((first, True), (second, False)):
        with pytest.raises(ConnectionLostError) as caught:
            await waiter.wait()
        assert caught.value.sent is sent


async def test_patience(autojump_clock):
    """A connection that owes an answer for so long is given up, whatever else it answers; an idle one is kept."""
    ours, theirs = trio.testing.memory_stream_pair()
    connection = Connection(ours, patience=10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_connection, connection)
        await trio.sleep(1000)
        first, second, third = (Waiter(1) for _ in range(3))
        connection.submit([pack(("PING",))], first)
        connection.submit([pack(("PING",))], second)
        began = trio.current_time()
        await trio.sleep(8)
        await theirs.send_all(b"+PONG\r\n")
        assert await first.wait() == [b"PONG"]
        with pytest.raises(ConnectionLostError, match=r"no answer within 10 s") as caught:
            await second.wait()
        assert caught.value.sent
        assert 10 <= trio.current_time() - began <= 10 + 2.5
        connection.submit([pack(("PING",))], third)
        with pytest.raises(ConnectionLostError) as caught:
            await third.wait()
        assert not caught.value.sent


@pytest.mark.parametrize("moment", [1000.0, 1000.1, 1001.0, 1002.4])
async def test_patience_is_never_cut_short(moment, autojump_clock):
    """However the moment of a command falls, its answer has all the time there is."""
    ours, theirs = trio.testing.memory_stream_pair()
    connection = Connection(ours, patience=10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await trio.sleep(moment)
        waiter = submitted(connection, "PING")
        await trio.sleep(9.9)
        await theirs.send_all(b"+PONG\r\n")
        assert await waiter.wait() == [b"PONG"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 200 OK\r\n\r\n", b"\x00\x01", b"$x\r\n", b"*-7\r\n"])
async def test_nonsense(garbage, autojump_clock):
    """Bytes that are no reply end the connection, with an error for whoever waits."""
    ours, theirs = trio.testing.memory_stream_pair()
    connection = Connection(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_connection, connection)
        waiter = Waiter(1)
        connection.submit([pack(("PING",))], waiter)
        await trio.testing.wait_all_tasks_blocked()
        await theirs.send_all(garbage)
        with pytest.raises(ConnectionLostError):
            await waiter.wait()
    with pytest.raises(ConnectionLostError) as caught:
        await submitted(connection, "PING").wait()
    assert not caught.value.sent


async def test_a_reply_that_nobody_asked_for(autojump_clock):
    """Replies can no longer be told apart after that: the connection ends."""
    ours, theirs = trio.testing.memory_stream_pair()
    connection = Connection(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_connection, connection)
        waiter = submitted(connection, "PING")
        await theirs.send_all(b"+PONG\r\n+PONG\r\n")
        assert await waiter.wait() == [b"PONG"]
    with pytest.raises(ConnectionLostError, match="a reply to no command"):
        await submitted(connection, "PING").wait()


async def test_big_replies(redis_url, prefix):
    """Replies of many megabytes, and of many parts, come whole, and those behind them too."""
    big = secrets.token_bytes(1) * 20_000_000
    async with running(RedisTransport(parse_address(redis_url))) as transport:
        got = {}

        async def call(name, *command):
            got[name] = await transport.call(*command)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "big", "ECHO", big)
            nursery.start_soon(call, "small", "ECHO", "small")
            nursery.start_soon(call, "many", "EVAL", "local t = {} for i = 1, 100000 do t[i] = i end return t", 0)
            nursery.start_soon(call, "last", "ECHO", "last")
        assert got["big"] == big
        assert got["many"] == list(range(1, 100001))
        assert (got["small"], got["last"]) == (b"small", b"last")


async def test_one_write_for_each_tick(autojump_clock):
    """What is submitted in one tick leaves in one write."""
    writes = []
    ours, theirs = trio.testing.memory_stream_pair()

    class Counted(trio.abc.SendStream):
        async def send_all(self, data):
            writes.append(bytes(data))
            await ours.send_stream.send_all(data)

        async def wait_send_all_might_not_block(self):
            await ours.send_stream.wait_send_all_might_not_block()

        async def aclose(self):
            await ours.send_stream.aclose()

    connection = Connection(trio.StapledStream(Counted(), ours.receive_stream))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_connection, connection)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(100):
            connection.submit([pack(("ECHO", str(number)))], Waiter(1))
        await trio.testing.wait_all_tasks_blocked()
        assert len(writes) == 1
        await trio.aclose_forcefully(theirs)


async def test_what_was_never_sent():
    """A command that no connection was there for says that it was not applied; one under way, that it may have been."""
    async with (
        fake_server() as fake,
        running(RedisTransport(parse_address(fake.url), command_timeout=0.3)) as transport,
    ):
        fake.answers["HELLO"] = None
        fake.answers["SET"] = b""
        with pytest.raises(StoreUnavailableError) as caught:
            await transport.call("SET", "key", 1)
        assert caught.value.maybe_applied
        for repeatable in (True, False):
            with pytest.raises(StoreUnavailableError) as caught:
                await transport.call("SET", "key", 1, repeatable=repeatable)
            assert not caught.value.maybe_applied
        assert [command[0] for command in fake.commands].count("SET") == 1


async def test_a_repeatable_one_that_was_sent_in_vain():
    """A command that may be repeated, and was, without an answer in its time, may have been applied."""
    async with (
        fake_server() as fake,
        running(RedisTransport(parse_address(fake.url), command_timeout=0.3)) as transport,
    ):
        fake.answers["SET"] = b""
        with pytest.raises(StoreUnavailableError) as caught:
            await transport.call("SET", "key", 1, repeatable=True)
        assert caught.value.maybe_applied
        assert [command[0] for command in fake.commands].count("SET") > 1


async def test_repeatable_ones_are_repeated():
    """G11: what may be repeated is, on the next connection, and its caller never learns."""
    async with fake_server() as fake, running(RedisTransport(parse_address(fake.url))) as transport:
        fake.answers["GET"] = lambda _: b"" if fake.connections < 3 else b"$5\r\nvalue\r\n"
        assert await transport.call("GET", "key", repeatable=True) == b"value"
        assert fake.connections == 3
        with pytest.raises(StoreUnavailableError) as caught:
            fake.answers["INCR"] = b""
            await transport.call("INCR", "key")
        assert caught.value.maybe_applied
        assert [command[0] for command in fake.commands].count("INCR") == 1


async def test_jitter_and_backoff(autojump_clock, monkeypatch):
    """G11: attempts to connect begin at once, get rarer up to one in five seconds, and clients do not keep step."""
    from stem_trio.stores.redis import transport as module

    async def attempts():
        moments = []

        async def connect(address, *, timeout):
            moments.append(trio.current_time())
            if len(moments) > 1:
                raise StoreUnavailableError("down")
            ours, theirs = trio.testing.memory_stream_pair()
            await theirs.aclose()
            return ours

        monkeypatch.setattr(module, "connect", connect)
        async with running(RedisTransport(parse_address("redis://nowhere"))):
            await trio.sleep(60)
        return [after - before for before, after in pairwise(moments)]

    one, two = await attempts(), await attempts()
    assert one[0] < 0.05
    assert all(2.5 <= gap <= 7.5 for gap in one[10:])
    assert sum(abs(mine - theirs) > 0.01 for mine, theirs in zip(one, two, strict=False)) > 3
    assert len(one) < 30


def test_hello_of_the_fake_server():
    """The fake server says what a real one would."""
    reader = hiredis.Reader()
    reader.feed(HELLO)
    assert reader.gets() == {b"server": b"redis", b"version": b"7.0.0", b"role": b"master"}
