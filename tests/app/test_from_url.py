"""Clients and apps from a URL: which stores they have, and that the same program runs over each of them."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from stem_trio import (
    ConfigurationError,
    FunctionTaskHandler,
    InMemoryBroker,
    InMemoryResultBackend,
    SqliteBroker,
    SqliteResultBackend,
    StemApp,
    StemClient,
    StemRedisAdapter,
    StemSignals,
    StemStoreAdapter,
    StemStoreOverrides,
    StoreClosedError,
    TaskOptions,
    TaskState,
    Worker,
    task,
)
from stem_trio.stores.redis import RedisBroker, RedisResultBackend
from stem_trio.testing.faults import Faults, FaultyBackend, FaultyBroker

CLASSES = [StemClient, StemApp]


@task(name="add", queue="sums")
async def add(a: int, b: int) -> int:
    return a + b


async def generate(context, args):
    return args["report_id"]


report = FunctionTaskHandler(name="report.generate", entrypoint=generate)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request):
    """A URL, and the options that make its stores this test's own."""
    if request.param == "memory":
        return "memory://", {}
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path')}/stem.db", {"synchronous": "OFF"}
    return request.getfixturevalue("redis_url"), {"prefix": request.getfixturevalue("prefix")}


# --- the same program over each store ---------------------------------------------------------------------------------


async def test_app(store):
    """The program of the first example runs over each store: only the URL changes."""
    url, options = store
    async with StemApp.from_url(url, store_options=options, tasks=[add, report], signals=StemSignals()) as app:
        task_id = await app.enqueue("report.generate", args={"report_id": "x"}, options=TaskOptions(queue="sums"))
        assert (await app.wait_for_task(task_id, timeout=10)).value == "x"
        assert await (await add.enqueue(app, 1, 2)).result(timeout=10) == 3
        await app.drain()
    assert app.worker.queues == ("default", "sums")


async def test_client_and_worker(redis_url, prefix):
    """What a client enqueues, a worker with stores of its own runs; each has its result backend in another database."""
    overrides = StemStoreOverrides(backend=redis_url.removesuffix("/0") + "/1")
    client = StemClient.from_url(
        redis_url,
        overrides=overrides,
        store_options={"prefix": prefix},
        adapters=[StemRedisAdapter()],
        tasks=[report],
        signals=StemSignals(),
    )
    async with client:
        task_id = await client.enqueue(
            "report.generate", args={"report_id": "monthly-2025-10"}, options=TaskOptions(queue="reports")
        )
        assert (await client.status(task_id)).state is TaskState.QUEUED
        async with (
            RedisBroker.connect(redis_url, prefix=prefix) as broker,
            RedisResultBackend.connect(redis_url, db=1, prefix=prefix) as backend,
            RedisResultBackend.connect(redis_url, prefix=prefix) as elsewhere,
        ):
            async with Worker(broker, backend, tasks=[report], queue="reports", signals=StemSignals()):
                assert (await client.wait_for_task(task_id, timeout=10)).value == "monthly-2025-10"
            assert await elsewhere.get(task_id) is None


# --- which stores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES)
async def test_the_url_is_for_both_stores(kind):
    """Without overrides broker and result backend are of the one URL. Nothing is opened before the block."""
    client = kind.from_url("memory://", tasks=[add], signals=StemSignals())
    assert type(client) is kind
    assert isinstance(client.broker, InMemoryBroker)
    assert isinstance(client.backend, InMemoryResultBackend)
    with pytest.raises(StoreClosedError):
        await client.broker.stats("default")
    client = kind.from_url("redis://h:7/3", tasks=[add], signals=StemSignals())
    assert isinstance(client.broker, RedisBroker)
    assert isinstance(client.backend, RedisResultBackend)
    assert (client.broker.address, client.broker.address.db) == (client.backend.address, 3)


@pytest.mark.parametrize("kind", CLASSES)
def test_overrides_and_options(kind):
    """Stores can be overridden one by one; options go to the stores, and to the class."""
    broker = InMemoryBroker()
    client = kind.from_url(
        "redis://h/1",
        overrides=StemStoreOverrides(broker=broker),
        store_options={"prefix": "mine"},
        tasks=[add],
        max_payload_size=77,
        signals=(signals := StemSignals()),
    )
    assert client.broker is broker
    assert client.backend.keyspace.prefix == "mine"
    assert client.stem.signals is signals
    assert client.stem._max_payload_size == 77


def test_options_of_an_app():
    """An app takes its own options too, those of its worker among them."""
    app = StemApp.from_url("memory://", queues=["a", "b"], signals=StemSignals())
    assert app.worker.queues == ("a", "b")


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"url": "reddis://:topsecret@h"}, "did you mean redis"),
        ({"url": "redis://:topsecret@h:x"}, "not a Redis URL"),
        ({"url": "memory://", "store_options": {"password": "topsecret"}}, "'password' has no effect"),
        ({"url": "memory://", "overrides": "redis://:topsecret@h"}, "overrides must be StemStoreOverrides, not str"),
        ({"url": "memory://", "adapters": ["redis"]}, "a str is no StemStoreAdapter"),
    ],
)
def test_refused(kind, arguments, problem):
    """G15: what cannot work is refused when the client is made, and no secret is shown."""
    with pytest.raises(ConfigurationError, match=problem) as caught:
        kind.from_url(**arguments)
    assert "topsecret" not in str(caught.value)


# --- without a URL ----------------------------------------------------------------------------------------------------


@pytest.fixture
def data_home(tmp_path, monkeypatch):
    """The user's data folder, which is not there yet."""
    home = tmp_path / "of the user" / "50%20data"
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    monkeypatch.setenv("STEM_BROKER_URL", "redis://nobody.invalid")
    return home


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems keep the user's data elsewhere")


@on_linux
async def test_without_a_url(data_home):
    """G1: both stores are in a file in the user's data folder, where the next program finds what this one left.

    Nobody else can read it. The environment is not asked for a URL.
    """
    async with StemClient.from_url(tasks=[add], signals=StemSignals()) as client:
        handle = await add.enqueue(client, 1, 2)
    assert isinstance(client.broker, SqliteBroker)
    assert isinstance(client.backend, SqliteResultBackend)
    file = data_home / "stem-trio" / "stem.db"
    assert client.broker.settings.path == client.backend.settings.path == file
    assert file.is_file()
    for folder in (file.parent, data_home, data_home.parent):
        assert mode(folder) == 0o700
    async with StemApp.from_url(None, tasks=[add], signals=StemSignals()) as app:
        await app.start()
        assert (await app.wait_for_task(handle.id, timeout=10)).value == 3


@on_linux
def test_without_a_url_or_a_setting(data_home, tmp_path, monkeypatch):
    """Without XDG_DATA_HOME the folder is in the home directory. One that is there is left as it is."""
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".local" / "share" / "stem-trio"
    folder.mkdir(parents=True)
    folder.chmod(0o750)
    app = StemApp.from_url(store_options={"synchronous": "NORMAL"}, signals=StemSignals())
    assert app.broker.settings.path == folder / "stem.db"
    assert app.broker.settings.synchronous == "NORMAL"
    assert mode(folder) == 0o750


def test_no_folder_without_need(data_home):
    """Where both stores are overridden, or a URL is given, nothing is made in the user's data folder."""
    overrides = StemStoreOverrides(broker="memory://", backend="memory://")
    assert isinstance(StemClient.from_url(overrides=overrides, signals=StemSignals()).broker, InMemoryBroker)
    StemClient.from_url("memory://", signals=StemSignals())
    assert not data_home.exists()


@on_linux
def test_one_store_without_a_url(data_home):
    """An override takes the place of one store, and the other is in the file."""
    client = StemClient.from_url(overrides=StemStoreOverrides(broker="memory://"), signals=StemSignals())
    assert isinstance(client.broker, InMemoryBroker)
    assert client.backend.settings.path.parent == data_home / "stem-trio"


@on_linux
@pytest.mark.parametrize("kind", CLASSES)
def test_no_place_for_the_file(kind, data_home, tmp_path, monkeypatch):
    """G15: a folder that cannot be made, or is nowhere in particular, is refused, with a remedy."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file" / "data"))
    with pytest.raises(ConfigurationError, match=r"/file cannot be made: File exists; pass a URL"):
        kind.from_url()
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: Path("data/stem-trio"))
    with pytest.raises(ConfigurationError, match=r"must be an absolute path, not 'data/stem-trio'; set HOME or"):
        kind.from_url()


# --- what stores of one adapter may share -----------------------------------------------------------------------------


class BrokerWithConnection(FaultyBroker):
    connected = False

    async def __aenter__(self):
        await super().__aenter__()
        self.connected = True
        return self

    async def __aexit__(self, *exc):
        self.connected = False
        await super().__aexit__(*exc)


class BorrowingBackend(FaultyBackend):
    """A result backend on the connection of a broker."""

    def __init__(self, broker) -> None:
        super().__init__(InMemoryResultBackend(), Faults())
        self.broker = broker
        self.found = []

    async def __aenter__(self):
        self.found.append(self.broker.connected)
        return await super().__aenter__()

    async def __aexit__(self, *exc):
        self.found.append(self.broker.connected)
        await super().__aexit__(*exc)


class SharingAdapter(StemStoreAdapter):
    schemes = frozenset({"shared"})

    def pair(self, broker_url, backend_url, **options):
        assert (broker_url, backend_url, options) == ("shared://x", "shared://x", {"size": 5})
        broker = BrokerWithConnection(InMemoryBroker(), Faults())
        return broker, BorrowingBackend(broker)


@pytest.mark.parametrize("kind", CLASSES)
async def test_sharing_a_connection(kind, autojump_clock):
    """The broker is open whenever the result backend of its pair is, so that it can lend it its connection."""
    client = kind.from_url(
        "shared://x", adapters=[SharingAdapter()], store_options={"size": 5}, tasks=[add], signals=StemSignals()
    )
    async with client:
        handle = await add.enqueue(client, 1, 2)
        if kind is StemApp:
            assert await handle.result() == 3
    assert client.backend.found == [True, True]
    assert not client.broker.connected


async def count_connections(broker, name) -> int:
    listed = await broker._transport.call("CLIENT", "LIST", repeatable=True)
    return listed.count(f" name={name} ".encode())


@pytest.mark.parametrize("kind", CLASSES)
async def test_redis_connections_are_shared(kind, redis_url, prefix):
    """For one URL, both stores share the connection for commands and the one for subscriptions."""
    client = kind.from_url(
        f"{redis_url}?client_name={prefix}", store_options={"prefix": prefix}, tasks=[add], signals=StemSignals()
    )
    async with client:
        assert await count_connections(client.broker, prefix) == 1
        if kind is StemClient:  # the worker of an app has one more, in which it waits
            async with client.backend.watch("any"), client.broker.subscribe("any"):
                assert await count_connections(client.broker, prefix) == 2
        handle = await add.enqueue(client, 1, 2)
        if kind is StemApp:
            assert await handle.result(timeout=10) == 3
    with pytest.raises(StoreClosedError):
        await client.backend.get(handle.id)


async def test_redis_client_opened_again(redis_url, prefix):
    """Stores that share connections can be opened again together."""
    client = StemClient.from_url(redis_url, store_options={"prefix": prefix}, tasks=[add], signals=StemSignals())
    for number in range(2):
        async with client:
            handle = await add.enqueue(client, number, 2)
            async with client.backend.watch(handle.id):
                assert (await handle.status()).state is TaskState.QUEUED


@pytest.mark.parametrize("backend", ["/1", "/0?client_name=another"])
async def test_redis_connections_that_differ_are_not_shared(redis_url, prefix, backend):
    """Another database, or other terms, take a connection of their own."""
    server = redis_url.rpartition("/")[0]
    broker, results = StemRedisAdapter(prefix=prefix).pair(f"{server}/0", f"{server}{backend}")
    async with broker, results:
        assert broker._transport is not results._transport
        assert await results.get("x") is None


async def test_redis_timeouts_that_differ(redis_url, prefix):
    """Connections with other timeouts are not shared either."""
    broker = RedisBroker.connect(redis_url, prefix=prefix)
    results = RedisResultBackend.connect(redis_url, prefix=prefix, command_timeout=3)
    results.borrow(broker)
    async with results:
        assert await results.get("x") is None


async def test_borrowing_from_a_broker_that_is_closed(redis_url, prefix):
    """A result backend that is opened without the broker of its pair says so, and can be opened with it later."""
    broker, backend = StemRedisAdapter(prefix=prefix).pair(redis_url, redis_url)
    with pytest.raises(StoreClosedError, match=r"RedisBroker .* is used outside of its"):
        async with backend:
            pytest.fail("it cannot be open")
    async with broker, backend:
        assert await backend.get("x") is None
