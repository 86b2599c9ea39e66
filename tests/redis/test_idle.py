"""What it costs to wait: by the server's own count of commands."""

from __future__ import annotations

import pytest
import trio

from stem_trio import StemApp, TaskContext, task
from stem_trio.stores.redis import RedisBroker, RedisCommands, RedisResultBackend
from stem_trio.testing.contracts import make_envelope
from tests.redis.servers import serve, until

WORKERS = 50


@pytest.fixture(scope="module")
def own_server():
    """The server counts commands for all of its clients, so nobody else may use it."""
    with serve() as server:
        yield server


async def counts(commands):
    """How often which command was called since the last CONFIG RESETSTAT; in scripts, too, but not our own looking."""
    stats = await commands.info("commandstats")
    found = {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}
    for looking in ("info", "config|resetstat", "client|list"):
        found.pop(looking, None)
    return found


def sent(found):
    """How many of them came over a connection, and not out of a script."""
    by_clients = ("evalsha", "eval", "blpop", "publish", "client", "ping", "hello", "get", "multi", "exec", "subscribe")
    return sum(number for name, number in found.items() if name.split("|")[0] in by_clients)


async def blocked(commands):
    return sum(client["cmd"] == "blpop" for client in await commands.client_list())


@task(name="idle.noop")
async def noop(context: TaskContext) -> None:
    pass


async def test_an_idle_worker(own_server, prefix):
    """A worker that waits on several queues sends a handful of commands a second at most."""
    seconds = 3.0
    broker = RedisBroker.connect(own_server.url, prefix=prefix)
    backend = RedisResultBackend.connect(own_server.url, prefix=prefix)
    async with RedisCommands.connect(own_server.url) as commands:
        app = StemApp(
            broker, backend, tasks=[noop], queues=["one", "two", "three", "four"], concurrency=8, heartbeat_interval=1.0
        )
        async with app:
            await app.start()

            async def waits():
                return await blocked(commands) == 1

            await until(waits)
            await commands.config_resetstat()
            await trio.sleep(seconds)
            found = await counts(commands)
            print(found)
            assert sum(found.values()) / seconds < 5 + 5, found  # of which the heartbeat is 5 or 6
            assert found.get("blpop", 0) <= 1
            assert found.get("evalsha", 0) <= 1


async def test_fifty_idle_workers_and_one_task(own_server, prefix):
    """One task does not wake fifty workers: what it costs does not depend on how many of them wait."""
    async with RedisCommands.connect(own_server.url) as commands, trio.open_nursery() as nursery:
        got = []
        brokers = []
        for number in range(WORKERS):
            broker = RedisBroker.connect(own_server.url, prefix=prefix)
            brokers.append(broker)

            @nursery.start_soon
            async def wait(broker=broker, number=number):
                async with broker:
                    while True:
                        got.extend(await broker.claim(["q"], consumer=f"w{number}", limit=1, wait=1000))

        async def all_wait():
            return await blocked(commands) == WORKERS

        await until(all_wait)
        costs = []
        async with RedisBroker.connect(own_server.url, prefix=prefix) as producer:
            for number in range(1, 4):
                await producer.publish([])  # connected
                await commands.config_resetstat()
                await producer.publish([make_envelope(queue="q", visibility_timeout=1000.0)])

                async def claimed(number=number):
                    return len(got) == number

                await until(claimed)
                await until(all_wait)
                costs.append(sent(await counts(commands)))
        nursery.cancel_scope.cancel()
    # Publish; claim by the one that was woken; it wakes another to watch over the lease; both wait again.
    print(costs)
    assert max(costs) <= 12, costs
    assert len({delivery.envelope.id for delivery in got}) == 3


async def test_fifty_idle_workers_and_many_tasks(own_server, prefix):
    """A burst wakes as many as it has work for; each command that is sent has to do with a task."""
    async with RedisCommands.connect(own_server.url) as commands, trio.open_nursery() as nursery:
        got = []
        for number in range(WORKERS):

            @nursery.start_soon
            async def wait(number=number):
                async with RedisBroker.connect(own_server.url, prefix=prefix) as broker:
                    while True:
                        got.extend(await broker.claim(["q"], consumer=f"w{number}", limit=1, wait=1000))

        async def all_wait():
            return await blocked(commands) == WORKERS

        await until(all_wait)
        async with RedisBroker.connect(own_server.url, prefix=prefix) as producer:
            await commands.config_resetstat()
            await producer.publish([make_envelope(queue="q", visibility_timeout=1000.0) for _ in range(100)])

            async def claimed():
                return len(got) == 100

            await until(claimed)
            await until(all_wait)
            found = await counts(commands)
        nursery.cancel_scope.cancel()
    assert len({delivery.envelope.id for delivery in got}) == 100
    print(found)
    assert sent(found) < 100 * 4, found


async def test_waits_that_meet_no_connection(prefix):
    """G14: a claim that is cancelled while its connection is down leaves that to the next one; there is no second."""
    with serve() as server:
        url = f"{server.url}?client_name={prefix}"
        async with RedisBroker.connect(url, prefix=prefix) as broker, RedisCommands.connect(server.url) as admin:

            async def connections():
                return [client for client in await admin.client_list() if client["name"] == prefix]

            await broker.claim(["q"], consumer="c", limit=1, wait=0.01)
            [waiting] = [client for client in await connections() if client["cmd"] == "blpop"]
            await admin.config_set("maxclients", 2)
            await admin.client_kill_filter(_id=waiting["id"])
            for _ in range(5):
                with trio.move_on_after(0.02):
                    await broker.claim(["q"], consumer="c", limit=1, wait=10)
            await admin.config_set("maxclients", 100)
            envelope = make_envelope(queue="q")
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def claim():
                    [delivery] = await broker.claim(["q"], consumer="c", limit=1, wait=20)
                    assert delivery.envelope == envelope

                async def waits():
                    return any(client["cmd"] == "blpop" for client in await connections())

                await until(waits)
                await broker.publish([envelope])
            assert len(await connections()) == 2
