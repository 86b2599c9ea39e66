"""Which servers are taken, and what is said of the others. Fake servers, as the real ones are too good."""

from __future__ import annotations

import logging

import pytest
import trio

from stem_trio import ConfigurationError, StoreUnavailableError
from stem_trio.stores.redis import RedisBroker, RedisCommands
from stem_trio.stores.redis.address import parse_address
from stem_trio.stores.redis.transport import RedisTransport
from tests.redis.servers import HELLO, OK, fake_server, free_port, running, serve

SECRET = "top~secret"


async def refused(url, kind=ConfigurationError, **options):
    with pytest.raises(kind) as caught:
        async with RedisCommands.connect(url, connect_timeout=2, **options):
            pass  # pragma: no cover
    error = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__
    return str(caught.value)


def hello(**fields):
    parts = [b"%%%d\r\n" % len(fields)]
    for name, value in fields.items():
        parts += [b"+%s\r\n+%s\r\n" % (name.encode(), value.encode())]
    return b"".join(parts)


async def test_what_is_said_at_the_beginning():
    """User, password and name go out with HELLO 3, then the database, then a PING, which is not answered too early."""
    async with fake_server() as fake:
        url = fake.url.replace("//", f"//ada:{SECRET}@")
        async with running(RedisTransport(parse_address(f"{url}/2?client_name=me"))):
            pass
        hello = ["HELLO", "3", "AUTH", "ada", SECRET, "SETNAME", "me"]
        assert fake.commands == [hello, ["SELECT", "2"], ["PING"]]


@pytest.mark.parametrize(
    "answer",
    [
        lambda words: f"-ERR unknown command `HELLO`, with args beginning with: {words[1:]}\r\n".encode(),
        b"-NOPROTO unsupported protocol version\r\n",
        hello(server="redis", version="6.0.16", mode="standalone", role="master"),
    ],
)
async def test_servers_that_are_too_old(answer):
    """A server without RESP3, or older than 6.2, is named as such; a password that it repeats is not passed on."""
    async with fake_server() as fake:
        fake.answers["HELLO"] = answer
        assert "Redis 6.2 or later" in await refused(fake.url.replace("//", f"//ada:{SECRET}@"))


@pytest.mark.parametrize(
    "answer",
    [HELLO, hello(server="redis", version="6.2.0"), hello(server="valkey", version="1.0"), hello(server="df"), OK],
)
async def test_servers_that_are_good_enough(answer):
    """Whatever speaks RESP3 and says nothing against itself is taken."""
    async with fake_server() as fake:
        fake.answers["HELLO"] = answer
        async with RedisCommands.connect(fake.url) as commands:
            assert await commands.ping()


async def test_a_sentinel_is_not_a_server():
    """The URL of a sentinel is told from that of a server, with what to write instead."""
    with serve(sentinel=True) as sentinel:
        assert "redis+sentinel://" in await refused(sentinel.url)


async def test_a_node_of_a_cluster():
    """A node of a cluster is refused at once, with what to use instead."""
    with serve("cluster-enabled yes", f"cluster-port {free_port()}") as node:
        message = await refused(node.url)
        assert "not supported yet; use a single server, or one with Sentinel" in message
        with pytest.raises(ConfigurationError, match="Redis Cluster"):
            async with RedisBroker.connect(node.url):
                pass  # pragma: no cover


async def test_a_replica():
    """A replica is not written to: it is an outage until it is a master."""
    with serve() as master, serve(f"replicaof 127.0.0.1 {master.port}") as replica:
        assert "is a replica" in await refused(replica.url, StoreUnavailableError)
        async with RedisCommands.connect(master.url) as commands:
            assert await commands.ping()


@pytest.mark.parametrize(
    ("command", "answer", "kind", "says"),
    [
        ("PING", b"-LOADING Redis is loading the dataset in memory\r\n", StoreUnavailableError, "LOADING"),
        ("PING", b"-MASTERDOWN Link with MASTER is down\r\n", StoreUnavailableError, "MASTERDOWN"),
        ("PING", b"-NOPERM this user has no permissions to run the 'ping' command\r\n", ConfigurationError, "ping"),
        ("HELLO", b"-ERR max number of clients reached\r\n", StoreUnavailableError, "max number of clients"),
        ("HELLO", b"-NOAUTH HELLO must be called with the client already authenticated\r\n", ConfigurationError, "ACL"),
        ("HELLO", b"-DENIED Redis is running in protected mode\r\n", ConfigurationError, "protected mode"),
        ("HELLO", b"-ERR something else\r\n", ConfigurationError, "refuses the connection: ERR something else"),
        ("SELECT", b"-ERR DB index is out of range\r\n", ConfigurationError, "DB index is out of range"),
        ("HELLO", b"HTTP/1.1 400 Bad Request\r\n\r\n", StoreUnavailableError, "Protocol error"),
        ("HELLO", b"", StoreUnavailableError, "closed the connection"),
        ("HELLO", None, StoreUnavailableError, "within 2 s"),
    ],
)
async def test_refusals(command, answer, kind, says):
    """What may pass is an outage, what will not is an error of configuration."""
    async with fake_server() as fake:
        fake.answers[command] = answer
        assert says in await refused(f"{fake.url}/7", kind)


async def test_a_server_that_is_loading():
    """A server that is started again is used as soon as its data are loaded, and no sooner."""
    async with fake_server() as fake, RedisCommands.connect(fake.url) as commands:
        fake.answers["GET"] = b""
        pings = []

        def ping(words):
            pings.append(words)
            if len(pings) < 4:
                return b"-LOADING Redis is loading the dataset in memory\r\n"
            fake.answers["GET"] = b"$5\r\nvalue\r\n"
            return b"+PONG\r\n"

        fake.answers["PING"] = ping
        assert await commands.get("key") == b"value"
        assert len(pings) == 4


async def test_eviction_is_warned_of(caplog):
    """G1: a server that may delete tasks when its memory is full is told of, once for each store that is opened."""
    with serve("maxmemory 100mb", "maxmemory-policy allkeys-lru") as server:
        with caplog.at_level(logging.WARNING, "stem_trio"):
            async with (
                RedisBroker.connect(server.url) as broker,
                RedisCommands.connect(server.url) as commands,
            ):
                [warning] = [record.getMessage() for record in caplog.records]
                assert f"Redis at 127.0.0.1:{server.port} has maxmemory-policy allkeys-lru" in warning
                assert "it deletes tasks" in warning
                await commands.client_kill_filter(_type="normal", skipme=True)
                await broker.stats("q")
                await commands.config_set("maxmemory-policy", "noeviction")
            assert sum("allkeys-lru" in record.getMessage() for record in caplog.records) == 1
            caplog.clear()
            async with RedisBroker.connect(server.url):
                assert not caplog.records


@pytest.mark.parametrize(
    "answer",
    [
        b"-NOPERM this user has no permissions to run the 'info' command\r\n",
        b"$0\r\n\r\n",
        b"_\r\n",
        b"-ERR unknown command\r\n",
    ],
)
async def test_servers_that_do_not_tell_of_eviction(answer, caplog):
    """A server that refuses INFO is used without a word."""
    async with fake_server() as fake:
        fake.answers["INFO"] = answer
        with caplog.at_level(logging.WARNING, "stem_trio"):
            async with RedisBroker.connect(fake.url):
                pass
        assert not caplog.records


async def test_cancelled_connecting():
    """A cancellation while it connects leaves no connection behind."""
    async with fake_server() as fake:
        fake.answers["HELLO"] = None
        with trio.move_on_after(0.1) as scope:
            async with RedisCommands.connect(fake.url):
                pass  # pragma: no cover
        assert scope.cancelled_caught
        assert fake.connections == 1
