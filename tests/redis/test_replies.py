"""What becomes of a server's error replies: kinds of errors, and what is sent again elsewhere."""

from __future__ import annotations

import pytest
import trio

from stem_trio import ConfigurationError, StoreTimeoutError, StoreUnavailableError, TaskState
from stem_trio.outcome import Complete, MoveToDead, Retry
from stem_trio.stores.redis import RedisBroker, RedisCommands, RedisResultBackend
from stem_trio.stores.redis.address import parse_address
from stem_trio.stores.redis.connection import pack
from stem_trio.stores.redis.errors import (
    NoScriptError,
    NotServingError,
    RedisReplyError,
    ReplyError,
    reply_error,
    translate,
)
from stem_trio.stores.redis.transport import RedisTransport
from stem_trio.testing.contracts import make_envelope, make_status
from tests.redis.servers import fake_server, redis_binary, running, serve, until

IN_SCRIPT = "ERR Error running script (call to f_8a05b7): @user_script:3: @user_script: 3: -"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("LOADING Redis is loading the dataset in memory", StoreUnavailableError),
        ("READONLY You can't write against a read only replica.", StoreUnavailableError),
        (f"{IN_SCRIPT}READONLY You can't write against a read only replica.", StoreUnavailableError),
        ("MASTERDOWN Link with MASTER is down", StoreUnavailableError),
        ("BUSY Redis is busy running a script.", StoreUnavailableError),
        ("MISCONF Redis is configured to save RDB snapshots", StoreUnavailableError),
        ("NOREPLICAS Not enough good replicas to write.", StoreUnavailableError),
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreUnavailableError),
        (f"{IN_SCRIPT}OOM command not allowed when used memory > 'maxmemory'.", StoreUnavailableError),
        ("NOAUTH Authentication required.", ConfigurationError),
        ("NOPERM this user has no permissions", ConfigurationError),
        ("WRONGPASS invalid username-password pair", ConfigurationError),
        ("MOVED 3999 127.0.0.1:6381", ConfigurationError),
        ("ASK 3999 127.0.0.1:6381", ConfigurationError),
        ("CLUSTERDOWN Hash slot not served", ConfigurationError),
        ("CROSSSLOT Keys in request don't hash to the same slot", ConfigurationError),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", RedisReplyError),
        ("ERR unknown command 'NOSUCH'", RedisReplyError),
        (f"{IN_SCRIPT}WRONGTYPE Operation against a key", RedisReplyError),
    ],
)
def test_kinds(text, kind):
    """Each reply has its kind: an outage, which did nothing; a configuration to be mended; or a plain refusal."""
    error = translate(reply_error(text))
    assert type(error) is kind
    assert text in str(error)
    if isinstance(error, StoreUnavailableError):
        assert not error.maybe_applied


def test_replies_that_are_told_apart():
    """A reply knows its code, also from within a script; what is told apart by its class has one."""
    for code in ("LOADING", "READONLY", "MASTERDOWN"):
        for text in (f"{code} not now", f"{IN_SCRIPT}{code} not now"):
            error = reply_error(text)
            assert (type(error), error.code, str(error)) == (NotServingError, code, text)
    assert type(reply_error("NOSCRIPT No matching script.")) is NoScriptError
    assert type(reply_error("BUSY running a script")) is ReplyError
    assert reply_error("").code == ""


async def test_a_master_that_becomes_a_replica(prefix):
    """G11: a server that was failed over answers READONLY; what it refused goes out again, to where it is taken."""
    with serve() as server:
        async with (
            RedisBroker.connect(server.url, prefix=prefix) as broker,
            running(RedisTransport(parse_address(server.url))) as admin,
        ):
            await broker.publish([make_envelope(queue="q")])
            await admin.call("REPLICAOF", "127.0.0.1", 1)
            envelope = make_envelope(queue="q")
            answers = []

            async def publish():
                answers.append(await broker.publish([envelope]))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish)
                # It has been refused, and tries to get in where a replica is.
                await until(lambda: rejected(admin))
                assert not answers
                await admin.call("REPLICAOF", "NO", "ONE")
            assert answers == [[True]]
            assert (await broker.stats("q")).ready == 2


async def rejected(admin):
    stats = (await admin.call("INFO", "errorstats")).decode()
    return "errorstat_READONLY" in stats


async def test_a_replica_for_too_long(prefix):
    """It is an outage once the time of the command is over: nothing was done, and the error says so."""
    with serve() as server:
        async with (
            running(RedisTransport(parse_address(server.url), command_timeout=0.5)) as transport,
            running(RedisTransport(parse_address(server.url))) as admin,
        ):
            await admin.call("REPLICAOF", "127.0.0.1", 1)
            with pytest.raises(StoreUnavailableError, match=r"replica") as caught:
                await transport.call("SET", prefix, 1)
            assert not caught.value.maybe_applied


@pytest.mark.parametrize("code", ["LOADING", "READONLY", "MASTERDOWN"])
async def test_sent_again_on_a_new_connection(code):
    """Whoever does not serve is left, and a command that it refused, repeatable or not, is sent anew."""
    async with fake_server() as fake, running(RedisTransport(parse_address(fake.url))) as transport:
        fake.answers["INCR"] = lambda _: f"-{code} not now\r\n".encode() if fake.connections < 3 else b":1\r\n"
        assert await transport.call("INCR", "key") == 1
        assert fake.connections == 3
        assert sum(command[0] == "INCR" for command in fake.commands) == 3


async def test_half_of_a_pipeline():
    """Commands of which some were carried out are sent again only if they may be repeated."""
    async with fake_server() as fake, running(RedisTransport(parse_address(fake.url))) as transport:
        fake.answers["SET"] = lambda _: b"-READONLY not here\r\n" if fake.connections < 2 else b"+OK\r\n"
        both = [pack(("INCR", "a")), pack(("SET", "b", 1))]
        fake.answers["INCR"] = b":1\r\n"
        one, refused = await transport.pipeline(both)
        assert one == 1
        assert "READONLY" in str(refused)
        assert await transport.pipeline(both, repeatable=True) == [1, b"OK"]
        assert [command[0] for command in fake.commands].count("INCR") == 2


async def test_moved(redis_url, prefix):
    """A reply of a cluster that shows up later is an error of configuration."""
    async with fake_server() as fake, running(RedisTransport(parse_address(fake.url))) as transport:
        fake.answers["GET"] = b"-MOVED 3999 127.0.0.1:6381\r\n"
        with pytest.raises(ConfigurationError, match="Redis Cluster, which is not supported yet"):
            await transport.call("GET", "key")


async def test_out_of_memory(prefix):
    """G1: a server without memory refuses to publish, whole, and what it holds stays as it is."""
    with serve() as server:
        async with RedisBroker.connect(server.url, prefix=prefix) as broker, RedisCommands.connect(server.url) as admin:
            held = make_envelope(queue="q")
            await broker.publish([held])
            await admin.config_set("maxmemory", 1)
            with pytest.raises(StoreUnavailableError, match="no memory left") as caught:
                await broker.publish([make_envelope(queue="q")])
            assert not caught.value.maybe_applied
            await admin.config_set("maxmemory", 0)
            assert [task.envelope for task in await broker.peek("q")] == [held]


@pytest.mark.parametrize("server", ["default", "installed"])
async def test_work_goes_on_out_of_memory(prefix, server):
    """G1: what a full server holds can be claimed, renewed, revoked, and ended with its status: that frees it."""
    binary = redis_binary() if server == "installed" else None
    if server == "installed" and binary is None:
        pytest.skip("no redis-server on PATH")
    with serve(binary=binary) as full:
        async with (
            RedisBroker.connect(full.url, prefix=prefix) as broker,
            RedisResultBackend.connect(full.url, prefix=prefix) as backend,
            RedisCommands.connect(full.url) as admin,
        ):
            joint = broker.join(backend)
            envelopes = [make_envelope(queue="q") for _ in range(4)]
            await broker.publish(envelopes)
            await admin.config_set("maxmemory", 1)
            with pytest.raises(StoreUnavailableError, match="no memory left"):
                await joint.publish([(make_envelope(queue="q"), make_status("x"))])
            deliveries = await broker.claim(["q"], consumer="c", limit=4, wait=0)
            assert await broker.claim(["q"], consumer="d", limit=4, wait=0.01) == []
            leases = [delivery.lease for delivery in deliveries]
            assert await broker.renew(leases) == [True] * 4
            assert await broker.revoke("q", [envelopes[3].id]) == [True]
            assert await broker.settle([(leases[0], Complete()), (leases[1], Retry(100.0))]) == [True, True]
            ends = [make_status(envelope.id, TaskState.SUCCEEDED) for envelope in envelopes]
            assert await joint.settle(
                [(leases[2], MoveToDead("r", ""), ends[2]), (leases[3], Complete(), ends[3])]
            ) == [True, True]
            assert [await backend.get(end.id) for end in ends] == [None, None, ends[2], ends[3]]
            stats = await broker.stats("q")
            assert (stats.ready, stats.delayed, stats.leased, stats.dead) == (0, 1, 0, 1)


async def test_time_limit_of_one_command():
    """A command may have its own time: after it the caller goes on, and the reply that comes later hurts nobody."""
    async with fake_server() as fake, running(RedisTransport(parse_address(fake.url))) as transport:
        late = []
        fake.answers["GET"] = None
        with pytest.raises(StoreTimeoutError) as caught:
            await transport.pipeline([pack(("GET", "key"))], timeout=0.05, on_abandoned=late.extend)
        assert caught.value.maybe_applied
        # Its reply comes together with that of the next one.
        fake.answers["ECHO"] = b"$4\r\nlate\r\n$2\r\nme\r\n"
        assert await transport.call("ECHO", "me") == b"me"
        assert late == [b"late"]
        assert fake.connections == 1
