"""Stores by URL: which adapter makes them, what is refused, and that nothing secret is shown."""

from __future__ import annotations

import subprocess
import sys

import attrs
import pytest

import stem_trio
from stem_trio import (
    ConfigurationError,
    InMemoryBroker,
    InMemoryResultBackend,
    InvalidOptionError,
    StemRedisAdapter,
    StemStoreAdapter,
    StemStoreOverrides,
    open_backend,
    open_broker,
)
from stem_trio.stores.adapters import StemMemoryAdapter, StemSqliteAdapter
from stem_trio.stores.redis import RedisBroker, RedisResultBackend, RedisStreamsBroker, Tls
from stem_trio.stores.redis.address import redact
from stem_trio.stores.sqlite import SqliteBroker, SqliteResultBackend
from stem_trio.stores.url import open_stores

OPENERS = [open_broker, open_backend]
OWN = [StemMemoryAdapter, StemRedisAdapter, StemSqliteAdapter]


class FileAdapter(StemStoreAdapter):
    """An adapter of somebody else, whose stores happen to be in memory; it remembers what it was asked for."""

    schemes = frozenset({"file", "files"})

    def __init__(self) -> None:
        self.asked = []

    def broker(self, url, **options):
        self.asked.append(("broker", url, options))
        return InMemoryBroker()

    def backend(self, url, **options):
        self.asked.append(("backend", url, options))
        return InMemoryResultBackend()


class OtherFileAdapter(FileAdapter):
    schemes = frozenset({"files"})


class OnlyBackendAdapter(StemStoreAdapter):
    schemes = frozenset({"results"})

    def backend(self, url, **options):
        return InMemoryResultBackend()


class OnlyBrokerAdapter(StemStoreAdapter):
    schemes = frozenset({"tasks"})

    def broker(self, url, **options):
        return InMemoryBroker()


# --- built in ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["memory://", "MEMORY://"])
def test_memory(url):
    """Each call makes a store of its own, with the options of its class; case does not count in a scheme."""
    first, second = open_broker(url), open_broker(url)
    assert isinstance(first, InMemoryBroker)
    assert first is not second
    assert isinstance(open_backend(url), InMemoryResultBackend)
    with pytest.raises(InvalidOptionError, match="max_dead_letters="):
        open_broker(url, max_dead_letters=0)
    with pytest.raises(InvalidOptionError, match="max_finished="):
        open_backend(url, max_finished=0)


@pytest.mark.parametrize("opener", OPENERS)
def test_memory_has_no_address(opener):
    """What follows the scheme would be ignored, hence is refused; it is not shown."""
    with pytest.raises(ConfigurationError, match="memory://: what follows has no effect") as caught:
        opener("memory://topsecret")
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://h",
        "unix:///run/redis.sock",
        "redis+sentinel://h/main",
        "rediss+sentinel://h/main",
        "Redis://h",
    ],
)
def test_redis_schemes(url):
    """All schemes of Redis are known without an adapter, and with one."""
    for adapters in ([], [StemRedisAdapter()]):
        assert isinstance(open_broker(url, adapters=adapters), RedisBroker)
        assert isinstance(open_backend(url, adapters=adapters), RedisResultBackend)
    assert RedisStreamsBroker is RedisBroker


@pytest.mark.parametrize("url", ["sqlite:///some.db", "SQLite:////tmp/some.db"])
def test_sqlite(url):
    """A file of SQLite, with the options of its stores."""
    assert isinstance(open_broker(url, max_dead_letters=5), SqliteBroker)
    assert isinstance(open_backend(url), SqliteResultBackend)
    stores = open_stores(url, options={"max_dead_letters": 5, "synchronous": "NORMAL"})
    assert [type(store) for store in stores] == [SqliteBroker, SqliteResultBackend]
    assert isinstance(open_backend(url, adapters=[StemSqliteAdapter(max_dead_letters=5)]), SqliteResultBackend)
    with pytest.raises(InvalidOptionError, match="max_dead_letters="):
        open_broker(url, adapters=[StemSqliteAdapter(max_dead_letters=0)])


def test_redis_options():
    """Options reach the store, those of the adapter under those of the call."""
    tls = Tls(verify=False)
    adapter = StemRedisAdapter(prefix="mine", tls=tls, max_dead_letters=5)
    broker = open_broker("rediss://h/1", adapters=[adapter], db=3)
    assert (broker.keyspace.prefix, broker.address.tls, broker.address.db) == ("mine", tls, 3)
    assert broker._max_dead == 5
    assert open_broker("redis://h", adapters=[adapter], prefix="other").keyspace.prefix == "other"
    # What only a broker takes is left out for the result backend: it was said to both.
    assert open_backend("redis://h", adapters=[adapter]).keyspace.prefix == "mine"
    with pytest.raises(InvalidOptionError, match="command_timeout="):
        open_backend("redis://h", command_timeout=0)


def test_redis_pair():
    """Two stores for two URLs; each gets the options that it takes."""
    broker, backend = open_stores(
        "redis://h/0",
        overrides=StemStoreOverrides(backend="redis://h/1"),
        options={"prefix": "mine", "max_dead_letters": 5},
    )
    assert (broker.address.db, broker.keyspace.prefix, broker._max_dead) == (0, "mine", 5)
    assert (backend.address.db, backend.keyspace.prefix) == (1, "mine")


@pytest.mark.parametrize("url", ["memory://", "redis://h", "sqlite:///x.db"])
def test_options_without_effect(url):
    """G15: an option that a store does not take is refused by its name; the value, maybe a secret, is not shown."""
    for call in (
        lambda: open_broker(url, passwrod="topsecret"),
        lambda: open_backend(url, passwrod="topsecret"),
        lambda: open_stores(url, options={"passwrod": "topsecret"}),
        lambda: open_broker(url, adapters=[kind(passwrod="topsecret") for kind in OWN]),
    ):
        with pytest.raises(ConfigurationError, match="the option 'passwrod' has no effect here; there are ") as caught:
            call()
        assert "topsecret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="'max_dead_letters' has no effect"):
        open_backend(url, max_dead_letters=5)
    for name in ("url", "adapters", "self", "broker_url"):
        with pytest.raises(ConfigurationError, match=f"'{name}' has no effect"):
            open_stores(url, options={name: 5})
        for store in ({"broker": InMemoryBroker()}, {"backend": InMemoryResultBackend()}):
            with pytest.raises(ConfigurationError, match=f"'{name}' has no effect"):
                open_stores(url, overrides=StemStoreOverrides(**store), options={name: 5})


# --- URLs that cannot be used -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (None, "must be text, not NoneType"),
        (b"redis://:topsecret@h", "must be text, not bytes"),
        ("", "begins with a scheme"),
        ("localhost:6379", "begins with a scheme"),
        ("://topsecret@h", "begins with a scheme"),
        ("user:topsecret@h://", "begins with a scheme"),
        ("reddis://:topsecret@h", r"nothing serves reddis://; did you mean rediss?://\?"),
        ("amqp://:topsecret@h", r"nothing serves amqp://; Known are memory, redis, .*adapters=.*stem_trio\.adapters"),
        ("postgresql://u:topsecret@h/db", "stores on Postgres are planned and not there yet"),
        ("postgres://u:topsecret@h/db", "stores on Postgres are planned and not there yet"),
        ("redis://u:topsecret@h:port", "not a Redis URL"),
        ("redis://u:topsecret@h?no_such=1", "'no_such' has no effect"),
        ("redis://u:top/secret@h/0", "write %2F for /"),
        ("redis://u:top?secret@h/0", r"%3F for \?"),
        ("redis://u:top#secret@h/0", "%23 for #"),
        ("redis://:123/secret@h/0", "write %2F for /"),
        ("redis://u:top?a=secret@h/0", "not a Redis URL"),
        ("redis+sentinel://u:top/secret@h,i/main", "write %2F for /"),
        ("redis+sentinel://u:topsecret@h", "service"),
        ("redis://[top", "not a Redis URL"),
        ("sqlite://host/file.db", "there is no host to name"),
        ("sqlite://", "a file is needed"),
    ],
)
def test_bad_url(opener, url, problem):
    """G15: a URL that cannot be used is refused with what to do; neither message nor cause holds a secret."""
    with pytest.raises(ConfigurationError, match=problem) as caught:
        opener(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "top" not in str(error)
        assert "secret" not in str(error)
        error = error.__cause__
    for opened in (
        lambda: open_stores(url),
        lambda: open_stores("memory://", overrides=StemStoreOverrides(broker=url)),
    ):
        if isinstance(url, str):
            with pytest.raises(ConfigurationError, match=problem):
                opened()


@pytest.mark.parametrize("url", ["redis://u:123/secret@h/0", "redis://u:123#secret@h", "redis://u:top"])
def test_redacted(url):
    """What may be the beginning of a password is not shown as host and port."""
    assert redact(url) == "redis://..."


@pytest.mark.parametrize("url", ["redis://h:6379/0?client_name=a@b", "redis://u:a%2Fb%40c@h:6379/0", "redis://h"])
def test_signs_that_are_fine(url):
    """Not every @ is out of place."""
    assert isinstance(open_broker(url), RedisBroker)


# --- adapters of others -----------------------------------------------------------------------------------------------


def test_explicit_adapter():
    """An adapter is asked for its schemes, with the URL and the options."""
    adapter = FileAdapter()
    assert isinstance(open_broker("file://a/B?c", adapters=[adapter], x=1), InMemoryBroker)
    assert isinstance(open_backend("FILES://a", adapters=[adapter]), InMemoryResultBackend)
    assert adapter.asked == [("broker", "file://a/B?c", {"x": 1}), ("backend", "files://a", {})]
    adapter.asked.clear()
    open_stores("file://a", adapters=[adapter], options={"x": 1})
    assert adapter.asked == [("broker", "file://a", {"x": 1}), ("backend", "file://a", {"x": 1})]


def test_explicit_adapter_wins():
    """An explicit adapter serves even a scheme that is built in, or planned."""

    class Mine(FileAdapter):
        schemes = frozenset({"redis", "postgresql"})

    for url in ("redis://h", "postgresql://h"):
        assert isinstance(open_broker(url, adapters=iter([Mine()])), InMemoryBroker)


def test_two_adapters_for_one_scheme():
    """Two adapters for one scheme are refused, both by name, whatever is opened; the same one twice is no harm."""
    with pytest.raises(ConfigurationError, match=r"FileAdapter and .*OtherFileAdapter both serve files://"):
        open_broker("memory://", adapters=[FileAdapter(), OtherFileAdapter()])
    adapter = FileAdapter()
    open_broker("file://", adapters=[adapter, adapter])


class NoSchemes(StemStoreAdapter):
    pass


class TextSchemes(StemStoreAdapter):
    schemes = "file"


class UpperCaseSchemes(StemStoreAdapter):
    schemes = frozenset({"File"})


@pytest.mark.parametrize(
    ("adapters", "problem"),
    [
        (StemRedisAdapter(), "adapters must be a list of adapters"),
        (StemRedisAdapter, "adapters must be a list of adapters"),
        ("redis", "adapters must be a list of adapters"),
        (5, "adapters must be a list of adapters"),
        ([StemRedisAdapter], "StemRedisAdapter is a class; pass an instance"),
        (["redis"], "a str is no StemStoreAdapter"),
        ([NoSchemes()], r"NoSchemes does not say which schemes it serves; set schemes = frozenset\(\{'name'\}\)"),
        ([TextSchemes()], "does not say which schemes"),
        ([UpperCaseSchemes()], "does not say which schemes"),
    ],
)
def test_bad_adapters(adapters, problem):
    """G15: what cannot serve as an adapter is refused."""
    with pytest.raises(ConfigurationError, match=problem):
        open_broker("memory://", adapters=adapters)


def test_half_an_adapter():
    """An adapter without a broker, or without a result backend, refuses to make one; together they do."""
    adapters = [OnlyBackendAdapter(), OnlyBrokerAdapter()]
    with pytest.raises(ConfigurationError, match=r"results:// \(OnlyBackendAdapter\) has no broker"):
        open_broker("results://", adapters=adapters)
    with pytest.raises(ConfigurationError, match=r"tasks:// \(OnlyBrokerAdapter\) has no result backend"):
        open_backend("tasks://", adapters=adapters)
    with pytest.raises(ConfigurationError, match="has no result backend"):
        open_stores("tasks://", adapters=adapters)
    stores = open_stores("tasks://", overrides=StemStoreOverrides(backend="results://"), adapters=adapters)
    assert [type(store) for store in stores] == [InMemoryBroker, InMemoryResultBackend]


@pytest.mark.parametrize(
    "call",
    [
        lambda adapters: open_broker("wrong://", adapters=adapters),
        lambda adapters: open_backend("wrong://", adapters=adapters),
        lambda adapters: open_stores("wrong://", adapters=adapters),
    ],
)
def test_adapter_that_makes_something_else(call):
    """What an adapter makes is looked at."""

    class Wrong(StemStoreAdapter):
        schemes = frozenset({"wrong"})

        def broker(self, url, **options):
            return object()

        backend = broker

    with pytest.raises(ConfigurationError, match=r"Wrong has made a object, which is no (Broker|ResultBackend)"):
        call([Wrong()])


# --- installed packages -----------------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs packages with entry points, as a package installer leaves them."""

    def install(package, code, **entries):
        site = tmp_path / package
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[stem_trio.adapters]", *lines]), encoding="utf-8")
        (site / f"{package}_module.py").write_text(code, encoding="utf-8")
        monkeypatch.syspath_prepend(site)

    yield install
    for name in [name for name in sys.modules if name.endswith("_module") and name.startswith("parcel")]:
        del sys.modules[name]


ADAPTER = """
from stem_trio import InMemoryBroker, StemStoreAdapter

class Parcel(StemStoreAdapter):
    schemes = frozenset({"parcel"})

    def broker(self, url, **options):
        broker = InMemoryBroker()
        return broker

instance = Parcel()
"""


@pytest.mark.parametrize("name", ["Parcel", "instance"])
def test_entry_point(install, name):
    """An installed package serves its scheme, by a class or by an instance."""
    install("parcel1", ADAPTER, parcel=f"parcel1_module:{name}")
    assert isinstance(open_broker("parcel://x"), InMemoryBroker)
    with pytest.raises(ConfigurationError, match=r"nothing serves parsel://; did you mean parcel://\?"):
        open_broker("parsel://x")
    with pytest.raises(ConfigurationError, match="Postgres are planned"):
        open_broker("postgresql://x")


def test_entry_point_for_both_stores(install):
    """Both stores of a program are made by one adapter, which may let them share something."""
    code = ADAPTER.replace(
        "instance =",
        """
    def pair(self, broker_url, backend_url, **options):
        from stem_trio import InMemoryResultBackend
        broker, backend = self.broker(broker_url), InMemoryResultBackend()
        broker.partner = backend
        return broker, backend

instance =""",
    )
    install("parcel1", code, parcel="parcel1_module:Parcel")
    broker, backend = open_stores("parcel://x")
    assert broker.partner is backend


def test_entry_point_under_two_names(install):
    """One adapter may be registered under several names."""
    install("parcel1", ADAPTER, one="parcel1_module:Parcel", two="parcel1_module:Parcel")
    assert isinstance(open_broker("parcel://x"), InMemoryBroker)


def test_two_entry_points_for_one_scheme(install):
    """Two packages that serve one scheme are both named; an explicit adapter settles it."""
    install("parcel1", ADAPTER, first="parcel1_module:Parcel")
    install("parcel2", ADAPTER, second="parcel2_module:Parcel")
    with pytest.raises(ConfigurationError, match="both serve parcel://") as caught:
        open_broker("parcel://x")
    for part in ("'first'", "of parcel1", "'second'", "of parcel2"):
        assert part in str(caught.value)

    class Mine(FileAdapter):
        schemes = frozenset({"parcel"})

    assert isinstance(open_broker("parcel://x", adapters=[Mine()]), InMemoryBroker)


@pytest.mark.parametrize(
    ("code", "name", "problem"),
    [
        ("raise OSError('no disk')", "Parcel", "OSError: no disk"),
        ("import no_such_module_at_all", "Parcel", "ModuleNotFoundError: .*no_such_module_at_all"),
        ("", "Parcel", "AttributeError: "),
        ("Parcel = 5", "Parcel", "a int is no StemStoreAdapter"),
        ("Parcel = object", "Parcel", "a type is no StemStoreAdapter"),
        (ADAPTER.replace("schemes =", "themes ="), "Parcel", "does not say which schemes"),
        (ADAPTER.replace("instance =", "    def __init__(self): 1 / 0 #"), "Parcel", "ZeroDivisionError"),
    ],
)
def test_broken_entry_point(install, code, name, problem):
    """An entry point that cannot be loaded is named, where its scheme may be the one that is asked for."""
    install("parcel1", code, broken=f"parcel1_module:{name}")
    with pytest.raises(ConfigurationError, match=f"'broken'.* of parcel1 could not be loaded: .*{problem}") as caught:
        open_broker("parcel://topsecret")
    assert caught.value.__cause__ is not None
    with pytest.raises(ConfigurationError, match=r"'broken'.* could not be loaded"):
        open_broker("postgresql://x")
    assert "topsecret" not in str(caught.value)
    # It is in nobody's way: neither in that of our own schemes, nor in that of another package.
    assert isinstance(open_broker("memory://"), InMemoryBroker)
    install("parcel2", ADAPTER, works="parcel2_module:Parcel")
    assert isinstance(open_broker("parcel://x"), InMemoryBroker)


def test_entry_points_are_not_looked_for_without_need(install):
    """For a scheme that is built in, or served by an explicit adapter, no package is imported."""
    install("parcel1", "", parcel="parcel1_module:Parcel")
    open_stores("memory://")
    open_broker("redis://h")
    open_broker("file://", adapters=[FileAdapter()])
    assert "parcel1_module" not in sys.modules


# --- overrides --------------------------------------------------------------------------------------------------------


def test_overrides():
    """Either store can be another one: by URL, or as it is."""
    broker, backend = InMemoryBroker(), InMemoryResultBackend()
    made = open_stores("memory://")
    assert [type(store) for store in made] == [InMemoryBroker, InMemoryResultBackend]
    assert open_stores("memory://", overrides=StemStoreOverrides(broker=broker))[0] is broker
    assert open_stores("memory://", overrides=StemStoreOverrides(backend=backend))[1] is backend
    both = StemStoreOverrides(broker=broker, backend=backend)
    assert open_stores("memory://", overrides=both) == (broker, backend)
    mixed = open_stores("memory://", overrides=StemStoreOverrides(backend="redis://h"))
    assert [type(store) for store in mixed] == [InMemoryBroker, RedisResultBackend]
    mixed = open_stores("memory://", overrides=StemStoreOverrides(broker="redis://h"))
    assert [type(store) for store in mixed] == [RedisBroker, InMemoryResultBackend]


def test_options_beside_overrides():
    """Options go to what is made here; where it is not clear to which of two, they are refused."""
    broker, backend = InMemoryBroker(), InMemoryResultBackend()
    options = {"prefix": "mine"}
    made = open_stores("redis://h", overrides=StemStoreOverrides(broker=broker), options=options)
    assert made[1].keyspace.prefix == "mine"
    made = open_stores("redis://h", overrides=StemStoreOverrides(backend=backend), options=options)
    assert made[0].keyspace.prefix == "mine"
    with pytest.raises(ConfigurationError, match="for redis:// or for memory://; make one of the stores with open_"):
        open_stores("redis://h", overrides=StemStoreOverrides(backend="memory://"), options=options)
    with pytest.raises(ConfigurationError, match="store_options have no effect here: both stores are given"):
        open_stores("redis://h", overrides=StemStoreOverrides(broker=broker, backend=backend), options=options)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"overrides": {"backend": "memory://"}}, "overrides must be StemStoreOverrides, not dict"),
        ({"options": [("a", 1)]}, "store_options must be a mapping of names to values, not list"),
        ({"options": {1: 2}}, "store_options must have names as keys, not int"),
    ],
)
def test_bad_arguments(arguments, problem):
    """G15: what is no override, and what is no option, is refused."""
    with pytest.raises(ConfigurationError, match=problem):
        open_stores("memory://", **arguments)


@pytest.mark.parametrize("field", ["broker", "backend"])
def test_bad_overrides(field):
    """G15: an override is a URL or a store of the right kind; nothing of a bad one is shown."""
    other = {"broker": InMemoryResultBackend(), "backend": InMemoryBroker()}[field]
    for value, problem in (
        (b"redis://:topsecret@h", f"{field} must be a URL or a .*, not bytes"),
        (other, f"{field} must be a URL or a "),
        ("h:topsecret", "begins with a scheme"),
    ):
        with pytest.raises(ConfigurationError, match=problem) as caught:
            StemStoreOverrides(**{field: value})
        assert "topsecret" not in str(caught.value)


def test_secrets_are_not_shown():
    """G15: no representation holds a password, neither of overrides, nor of adapters, nor of stores."""
    url = "redis://ada:topsecret@h/1"
    overrides = StemStoreOverrides(broker=url, backend=url)
    assert repr(overrides) == "StemStoreOverrides(broker='redis://...', backend='redis://...')"
    assert repr(StemStoreOverrides()) == "StemStoreOverrides(broker=None, backend=None)"
    adapter = StemRedisAdapter(credentials="topsecret")
    for shown in (adapter, *open_stores(url, overrides=overrides), *adapter.pair(url, url)):
        assert "topsecret" not in repr(shown)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        overrides.broker = None


# --- the package without its extras -----------------------------------------------------------------------------------


def run(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_no_client_library():
    """Importing the package, and using it in memory, imports neither redis nor hiredis; a name that needs them does."""
    run(
        "import sys, stem_trio\n"
        "stem_trio.StemClient.from_url('memory://')\n"
        "stem_trio.StemRedisAdapter(prefix='x')\n"
        "assert not {'redis', 'hiredis', 'sqlite3'} & sys.modules.keys(), sys.modules.keys()\n"
        "from stem_trio import RedisBroker, RedisResultBackend, RedisStreamsBroker\n"
        "assert RedisStreamsBroker is RedisBroker\n"
        "assert 'hiredis' in sys.modules\n"
        "assert 'sqlite3' not in sys.modules\n"
        "from stem_trio import SqliteBroker, SqliteResultBackend\n"
        "assert 'sqlite3' in sys.modules\n"
        "from stem_trio.stores.redis import RedisCommands\n"
        "assert 'redis' in sys.modules\n"
    )


def test_missing_extra():
    """Without what Redis needs, the error says what to install, each time; the rest works."""
    run(
        "import sys; sys.modules['hiredis'] = None\n"
        "import stem_trio\n"
        "from stem_trio import ConfigurationError, StemClient, StemRedisAdapter, open_backend, open_broker\n"
        "url = 'redis://:topsecret@h'\n"
        "def lazy_name():\n"
        "    from stem_trio import RedisStreamsBroker\n"
        "calls = [lambda: open_broker(url), lambda: open_backend(url), lambda: StemClient.from_url(url),\n"
        "         lambda: open_broker(url, adapters=[StemRedisAdapter()]), lazy_name]\n"
        "for call in calls * 2:\n"
        "    try:\n"
        "        call()\n"
        "    except ConfigurationError as error:\n"
        "        assert 'pip install \"stem-trio[redis]\"' in str(error), error\n"
        "        assert 'topsecret' not in str(error)\n"
        "    else:\n"
        "        raise AssertionError\n"
        "open_broker('memory://')\n"
    )


def test_missing_redis_py():
    """Without redis-py, of which the stores use nothing, its commands alone are missing."""
    run(
        "import sys; sys.modules['redis'] = None\n"
        "import stem_trio\n"
        "stem_trio.open_broker('redis://h')\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        from stem_trio.stores.redis import RedisCommands\n"
        "    except stem_trio.ConfigurationError as error:\n"
        "        assert 'pip install \"stem-trio[redis]\"' in str(error), error\n"
        "    else:\n"
        "        raise AssertionError\n"
    )


def test_unknown_name():
    """The package has what it exports, and nothing else."""
    with pytest.raises(AttributeError, match="module 'stem_trio' has no attribute 'RedisBorker'"):
        stem_trio.RedisBorker  # noqa: B018
    assert stem_trio.RedisBroker is RedisBroker


# --- real stores ------------------------------------------------------------------------------------------------------


async def test_open_redis(redis_url, prefix):
    """`async with open_broker(url)` is an open store, and so is the result backend of another database."""
    async with (
        open_broker(redis_url, prefix=prefix) as broker,
        open_backend(redis_url, prefix=prefix, db=1) as backend,
    ):
        assert (await broker.stats("default")).ready == 0
        assert await backend.get("x") is None
        assert isinstance(broker, RedisBroker)
        assert isinstance(backend, RedisResultBackend)


async def test_open_memory(autojump_clock):
    """What is opened by URL runs on the clock of the run."""
    async with open_broker("memory://") as broker:
        assert await broker.claim(["default"], consumer="c", limit=1, wait=3600) == []
