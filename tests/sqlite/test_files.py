"""Which files are taken, and what is said of those that are not."""

from __future__ import annotations

import os
import sqlite3

import pytest
import trio

from stem_trio.errors import ConfigurationError, InvalidOptionError, StoreError, StoreUnavailableError
from stem_trio.stores.sqlite import SqliteBroker, SqliteFileError, SqliteResultBackend, schema
from stem_trio.stores.sqlite.address import parse_path
from stem_trio.stores.sqlite.errors import translate
from stem_trio.testing.contracts import make_envelope


async def refused(file, match, kind=ConfigurationError):
    """The store says why it does not take a file, and where it is."""
    with pytest.raises(kind, match=match) as caught:
        async with SqliteBroker.open(file, busy_timeout=0.1):
            pass  # pragma: no cover - not reached
    assert str(file) in str(caught.value)
    return caught.value


# --- addresses ----------------------------------------------------------------------------------------------------


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = tmp_path.resolve()
    assert parse_path("sqlite:///stem.db") == here / "stem.db"
    assert parse_path(f"sqlite:///{here}/stem.db") == here / "stem.db"
    assert parse_path("SQLITE:///a%20b.db") == here / "a b.db"
    assert parse_path("stem.db") == here / "stem.db"
    assert parse_path(tmp_path / "stem.db") == here / "stem.db"
    (tmp_path / "link.db").symlink_to("stem.db")
    assert parse_path("link.db") == here / "stem.db"


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://", "memory://"),
        ("sqlite:///", "memory://"),
        ("sqlite://:memory:", "memory://"),
        (":memory:", "memory://"),
        ("sqlite://stem.db", "no host"),
        ("sqlite:///stem.db?mode=ro", "do not stand in the URL"),
        ("file:stem.db?mode=ro", "own URIs"),
        ("redis://localhost/0", "not a scheme of SQLite"),
        ("", "names no file"),
        ("folder/", "names no file"),
        ("a\0b", "names no file"),
        (7, "URL or a path, not int"),
        (b"stem.db", "URL or a path, not bytes"),
    ],
)
def test_addresses_that_are_refused(address, match):
    """G15: an address that names no file is refused with the remedy."""
    with pytest.raises(ConfigurationError, match=match):
        SqliteBroker.open(address)


@pytest.mark.parametrize(
    "options",
    [{"synchronous": "full-ish"}, {"synchronous": None}, {"busy_timeout": -1}, {"busy_timeout": "soon"}],
)
def test_options_that_are_refused(file, options):
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        SqliteResultBackend.open(file, **options)
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        SqliteBroker.open(file, **options)


@pytest.mark.parametrize("synchronous", ["OFF", "normal", "FULL", "EXTRA"])
async def test_synchronous(file, synchronous):
    async with SqliteBroker.open(file, synchronous=synchronous) as broker:
        number = await broker._engine.call(lambda work: work.value("PRAGMA synchronous"))
        assert number == ["OFF", "NORMAL", "FULL", "EXTRA"].index(synchronous.upper())


# --- files that are not ours --------------------------------------------------------------------------------------


async def test_no_directory(tmp_path):
    await refused(tmp_path / "nowhere" / "stem.db", "there is no directory")


async def test_a_directory_in_its_place(tmp_path):
    await refused(tmp_path, "is a directory")


async def test_not_a_database(file):
    file.write_bytes(b"nothing of the kind " * 1000)
    before = file.read_bytes()
    await refused(file, "not an SQLite database")
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


async def test_database_of_another_program(file):
    """A foreign database is neither used nor changed."""
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE tasks (id INTEGER)")
    connection.close()
    before = file.read_bytes()
    await refused(file, "another program")
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


async def test_empty_file(file):
    """An empty file is as good as none."""
    file.touch()
    async with SqliteBroker.open(file) as broker:
        assert await broker.publish([make_envelope(queue="q")]) == [True]


async def test_newer_schema(file):
    async with SqliteBroker.open(file):
        pass
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    await refused(file, "schema 99, made by a newer version")


async def test_migration(file, monkeypatch):
    """A file of an older schema is brought up to date with its content, at once or not at all."""
    async with SqliteBroker.open(file) as broker:
        await broker.publish([make_envelope(queue="q")])
    (first,) = schema.load_migrations()

    second = "ALTER TABLE tasks ADD COLUMN colour TEXT DEFAULT 'red';\nCREATE TABLE more (a);\n"
    monkeypatch.setattr(schema, "load_migrations", lambda: (first, second + "INSERT INTO unknown VALUES (1);\n"))
    await refused(file, "no such table: unknown", StoreError)
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert "colour" not in [row[1] for row in connection.execute("PRAGMA table_info(tasks)")]
    connection.close()

    monkeypatch.setattr(schema, "load_migrations", lambda: (first, second))
    async with SqliteBroker.open(file) as broker:
        assert await broker._engine.call(lambda work: work.value("SELECT colour FROM tasks")) == "red"
        assert await broker._engine.call(lambda work: work.value("PRAGMA user_version")) == 2
        assert (await broker.stats("q")).ready == 1
    monkeypatch.undo()
    await refused(file, "newer version")


async def test_many_open_a_new_file_at_the_same_time(file, run_program):
    async with run_program("open_it") as first, run_program("open_it") as second, run_program("open_it") as third:
        for program in (first, second, third):
            assert await program.rest() == ["opened 0"]


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "match"),
    [
        ("SQLITE_BUSY", StoreUnavailableError, "locked by another program"),
        ("SQLITE_BUSY_SNAPSHOT", StoreUnavailableError, "locked by another program"),
        ("SQLITE_LOCKED", StoreUnavailableError, "locked by another program"),
        ("SQLITE_FULL", StoreUnavailableError, "free some"),
        ("SQLITE_IOERR_FSYNC", StoreUnavailableError, "just now"),
        ("SQLITE_CANTOPEN", StoreUnavailableError, "just now"),
        ("SQLITE_NOMEM", StoreUnavailableError, "just now"),
        ("SQLITE_INTERRUPT", StoreUnavailableError, "being closed"),
        ("SQLITE_READONLY_DBMOVED", StoreUnavailableError, "moved or deleted"),
        ("SQLITE_READONLY", ConfigurationError, "write permission"),
        ("SQLITE_PERM", ConfigurationError, "permissions"),
        ("SQLITE_CORRUPT_VTAB", SqliteFileError, "backup"),
        ("SQLITE_NOTADB", SqliteFileError, "damaged"),
        ("SQLITE_TOOBIG", StoreError, "refused"),
        (None, StoreError, "refused"),
    ],
)
@pytest.mark.parametrize("committing", [False, True])
def test_errors_of_sqlite(file, name, kind, match, committing):
    """G15: each error of SQLite has its own here, which names the file and the remedy."""
    error = sqlite3.OperationalError("what SQLite says")
    if name is not None:
        error.sqlite_errorname = name
        error.sqlite_errorcode = getattr(sqlite3, name)
    told = translate(error, file, committing=committing)
    assert type(told) is kind
    assert str(file) in str(told)
    assert match in str(told)
    unsure = committing and name in ("SQLITE_IOERR_FSYNC", "SQLITE_INTERRUPT")
    assert getattr(told, "maybe_applied", False) is unsure


# --- files that cannot be used ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["file", "directory"])
async def test_read_only(file, run_program, what):
    if what == "file":
        async with SqliteBroker.open(file):
            pass
        file.chmod(0o444)
    for folder in (file.parent, file.parent.parent, file.parent.parent.parent):
        folder.chmod(0o555 if folder is file.parent else 0o755)  # so that one who is not root gets there
    async with run_program("open_without_rights") as program:
        (said,) = await program.rest()
    file.parent.chmod(0o700)
    assert said.startswith(f"ConfigurationError {file}")
    assert "writ" in said


async def test_full_disk(file):
    """G11: a full disk is an error of the call that meets it, with the remedy; what was there stays, and room helps."""
    async with SqliteBroker.open(file) as broker, SqliteResultBackend.open(file) as backend:
        small = make_envelope(queue="q")
        await broker.publish([small])
        engine = broker._engine

        def limit(work, pages):
            work.value(f"PRAGMA max_page_count = {pages}")

        pages = await engine.call(lambda work: work.value("PRAGMA page_count"))
        await engine.call(lambda work: limit(work, pages))
        large = [make_envelope(queue="q", headers={"x": "y" * 100_000}) for _ in range(3)]
        results = []

        async def publish(envelope):
            try:
                results.append(await broker.publish([envelope]))
            except StoreUnavailableError as error:
                results.append(("no space is left" in str(error), error.maybe_applied))

        async with trio.open_nursery() as nursery:  # in one transaction, which SQLite gives up as a whole
            for envelope in (large[0], large[1], small, large[2]):
                nursery.start_soon(publish, envelope)
        assert sorted(results, key=str) == [(True, False)] * 3 + [[False]]
        assert await backend.get("x") is None
        assert (await broker.stats("q")).ready == 1
        await engine.call(lambda work: limit(work, 100_000))
        assert await broker.publish(large) == [True] * 3


async def test_damaged_file(file):
    """What cannot be read is said to be damaged, with what to do; no other file is touched."""
    async with SqliteBroker.open(file) as broker:
        await broker.publish([make_envelope(queue="q", headers={"x": "y" * 500}) for _ in range(500)])
    content = bytearray(file.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    file.write_bytes(content)

    async def use():
        async with SqliteBroker.open(file) as broker:
            for _ in range(10):
                await broker.claim(["q"], consumer="w", limit=100, wait=0)

    with pytest.raises(SqliteFileError, match="is damaged") as caught:
        await use()
    assert caught.value.path == file
    assert ".recover" in str(caught.value)


async def test_file_that_goes_away(file, monkeypatch):
    """G1: nothing is written to a file that nobody else would find: SQLite itself would go on with it."""
    every = 0.1
    monkeypatch.setattr("stem_trio.stores.sqlite.transactor._CHECK_EVERY", every)
    async with SqliteBroker.open(file) as broker:
        assert await broker.publish([make_envelope(queue="q")]) == [True]
        file.rename(file.with_name("elsewhere.db"))
        await trio.sleep(every)
        for _ in range(3):
            with pytest.raises(StoreError, match="moved or deleted"):
                await broker.publish([make_envelope(queue="q")])
        file.with_name("elsewhere.db").rename(file)
        await trio.sleep(every)
        assert (await broker.stats("q")).ready == 1
