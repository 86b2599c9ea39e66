"""Masters that are found through sentinels, real ones: discovery, and a fail-over under way."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

import pytest
import trio

from stem_trio import ConfigurationError, StoreUnavailableError
from stem_trio.outcome import Complete
from stem_trio.stores.redis import RedisBroker, RedisCommands
from stem_trio.stores.redis.connection import pack
from stem_trio.testing.contracts import make_envelope
from tests.redis.servers import fake_server, free_port, serve, until


@contextmanager
def sentinels_of(master, *lines):
    with serve(
        f"sentinel monitor main 127.0.0.1 {master.port} 1",
        "sentinel down-after-milliseconds main 500",
        "sentinel failover-timeout main 2000",
        *lines,
        sentinel=True,
    ) as sentinel:
        yield sentinel


@pytest.fixture(scope="module")
def master():
    with serve() as server:
        yield server


@pytest.fixture(scope="module")
def sentinel(master):
    with sentinels_of(master) as sentinel:
        yield sentinel


async def test_discovery(master, sentinel):
    """The sentinel says where the master is; the URL's database and client name are those of the connection to it."""
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main/2?client_name=found"
    async with RedisCommands.connect(url) as commands:
        assert (await commands.info("server"))["tcp_port"] == master.port
        assert await commands.client_getname() == b"found"
        assert (await commands.client_info())["db"] == 2


async def test_one_sentinel_is_dead(master, sentinel):
    """The list is gone through: one that refuses, one that hangs, one that talks nonsense, then the good one."""
    async with fake_server() as hangs, fake_server() as babbles:
        hangs.answers["SENTINEL"] = None
        babbles.answers["SENTINEL"] = b"HTTP/1.1 200 OK\r\n\r\n"
        hosts = ",".join(f"127.0.0.1:{port}" for port in (1, hangs.port, babbles.port, sentinel.port))
        async with RedisCommands.connect(f"redis+sentinel://{hosts}/main") as commands:
            assert await commands.ping()


async def test_an_unknown_service(sentinel):
    """A service that no sentinel knows is an error of configuration, if all of them were asked."""
    with pytest.raises(ConfigurationError, match=r"'other'.*does not know the service.*check the name of the service"):
        async with RedisCommands.connect(f"redis+sentinel://127.0.0.1:{sentinel.port}/other"):
            pass  # pragma: no cover
    with pytest.raises(StoreUnavailableError, match="'other'"):
        async with RedisCommands.connect(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/other"):
            pass  # pragma: no cover


async def test_no_sentinel(master):
    """With no sentinel to be reached it is an outage; a server that is none is an error of configuration."""
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1: "):
        async with RedisCommands.connect("redis+sentinel://127.0.0.1:1/main"):
            pass  # pragma: no cover
    with pytest.raises(ConfigurationError, match="unknown command"):
        async with RedisCommands.connect(f"redis+sentinel://127.0.0.1:{master.port}/main"):
            pass  # pragma: no cover


async def test_passwords(master):
    """Sentinels have users of their own, apart from those of the master; what they refuse shows no secret."""
    with sentinels_of(master, "requirepass key-of-sentinel") as guarded:
        host = f"127.0.0.1:{guarded.port}"
        async with RedisCommands.connect(f"redis+sentinel://{host}/main?sentinel_password=key-of-sentinel") as commands:
            assert await commands.ping()
        for query in ("", "?sentinel_password=not-the-key"):
            with pytest.raises(ConfigurationError, match="user and password at the sentinels") as caught:
                async with RedisCommands.connect(f"redis+sentinel://{host}/main{query}"):
                    pass  # pragma: no cover
            assert "not-the-key" not in str(caught.value)
    async with fake_server() as old:
        old.answers["AUTH"] = lambda words: f"-ERR unknown command, with args beginning with: {words}\r\n".encode()
        with pytest.raises(ConfigurationError) as caught:
            async with RedisCommands.connect(f"redis+sentinel://127.0.0.1:{old.port}/main?sentinel_password=key"):
                pass  # pragma: no cover
        assert "'key'" not in str(caught.value)


@pytest.mark.parametrize("by", ["command", "kill"])
async def test_fail_over(by, prefix):
    """G11: a master that is replaced, in good order or by its death, is left for the new one, and tasks go on."""
    with (
        serve() as first,
        serve(f"replicaof 127.0.0.1 {first.port}") as second,
        ExitStack() as stack,
    ):
        async with RedisCommands.connect(first.url) as commands:
            # A sentinel asks for replicas when it starts, and then only every ten seconds.
            await until(lambda: replicates(commands, second.port))
        sentinel = stack.enter_context(sentinels_of(first))
        url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main"
        async with RedisBroker.connect(url, prefix=prefix, command_timeout=30) as broker:
            before, waits, after = (make_envelope(queue="q") for _ in range(3))
            got = []
            await broker.publish([before, waits])
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def run():
                    while len(got) < 3:
                        try:
                            deliveries = await broker.claim(["q"], consumer="c", limit=1, wait=30)
                        except StoreUnavailableError:
                            continue  # as a worker does; it was about to wait when there was nowhere to
                        for delivery in deliveries:
                            got.append(delivery.envelope.id)
                            await broker.settle([(delivery.lease, Complete())])

                await until(lambda: settled(broker))
                if by == "kill":
                    async with RedisCommands.connect(first.url) as commands:
                        await until(lambda: replicates(commands, second.port))
                    first.kill()
                else:
                    await fail_over(sentinel, first, second)
                # Repeated by the client until there is a master again.
                assert await broker.publish([after]) in ([True], [False])
            assert got[-1] == after.id
            assert set(got) == {before.id, waits.id, after.id}
            assert (await broker.stats("q")).unfinished == 0
            assert broker._transport.address.label.startswith("master 'main'")
        async with RedisCommands.connect(url) as commands:
            assert (await commands.info("server"))["tcp_port"] == second.port


async def ask(server, *command):
    """The beginning of the reply to a command, on a connection that only this is about."""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(pack(command))
        return await stream.receive_some()


async def fail_over(sentinel, old, new):
    async def accepted():
        return (await ask(sentinel, "SENTINEL", "FAILOVER", "main")).startswith(b"+OK")

    async def over():
        return str(new.port).encode() in await ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")

    await until(accepted)
    await until(over)
    # The sentinel does so eight seconds later. What the old master accepts meanwhile is lost: so replication goes.
    assert (await ask(old, "REPLICAOF", "127.0.0.1", new.port)).startswith(b"+OK")


async def replicates(commands, port):
    """Whether the replica has caught up."""
    role, offset, replicas = await commands.execute_command("ROLE")
    return role == b"master" and [(int(replica[1]), int(replica[2])) for replica in replicas] == [(port, offset)]


async def settled(broker):
    return (await broker.stats("q")).unfinished == 0
