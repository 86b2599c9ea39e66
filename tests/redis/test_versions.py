"""Redis 6.2 is the oldest server: nothing is used that it does not have."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from stem_trio.stores.redis import RedisBroker, RedisCommands, RedisResultBackend
from stem_trio.testing.contracts import make_envelope, make_status
from tests.redis.servers import redis_binary, serve, until

OLDEST = (6, 2, 0)
SENT = {
    *("HELLO", "AUTH", "SELECT", "PING", "INFO", "EVAL", "EVALSHA", "BLPOP", "LPUSH", "SUBSCRIBE", "UNSUBSCRIBE"),
    *("PUBLISH", "CLIENT ID", "CLIENT UNBLOCK", "GET", "MULTI", "EXEC", "TIME"),
}
"""What goes over connections, apart from scripts; commands of transactions are found in the source."""


def scripts():
    folder = resources.files("stem_trio.stores.redis").joinpath("scripts")
    return {script.name: script.read_text() for script in folder.iterdir() if script.name.endswith(".lua")}


def commands_of_scripts():
    return {name for text in scripts().values() for name in re.findall(r"redis\.p?call\(\s*'([A-Za-z]+)'", text)}


def commands_of_the_package():
    """What modules of the package write out as the first word of a command."""
    folder = resources.files("stem_trio.stores.redis")
    text = "".join(folder.joinpath(f"{name}.py").read_text() for name in ("backend", "broker", "wait", "pubsub"))
    found = set(re.findall(r'(?:call|pack\(|submit|_transaction)?\(\s*"([A-Z]{3,})"[,)]', text))
    assert {"GET", "ZADD", "BLPOP"} <= found  # the pattern still finds what is there
    return found - {"CLIENT"}


def test_scripts_call_by_name():
    """Every call in a script names its command, so that the list of them is complete."""
    for name, text in scripts().items():
        assert len(re.findall(r"redis\.p?call\(", text)) == len(re.findall(r"redis\.p?call\(\s*'", text)), name


async def test_commands_are_old_enough(redis_url):
    """Every command of scripts and modules is there since Redis 6.2."""
    names = commands_of_scripts() | commands_of_the_package() | SENT
    assert {"ZPOPMIN", "ZMSCORE", "HMGET"} <= names
    async with RedisCommands.connect(redis_url, decode_responses=True) as commands:
        docs = {}
        for name in sorted(names):
            command, _, sub = name.partition(" ")
            found = (await commands.execute_command("COMMAND DOCS", command)).get(command.lower())
            assert found, name
            docs[name] = found["subcommands"][f"{command}|{sub}".lower()] if sub else found
    since = {name: tuple(int(part) for part in doc["since"].split(".")) for name, doc in docs.items()}
    assert {name: version for name, version in since.items() if version > OLDEST} == {}


OPTIONS_OF_7 = r"\b(NX|XX|GT|LT)\b.*PEXPIRE|redis\.acl_check_cmd|redis\.setresp\(|#!lua"


def test_nothing_of_lua_in_version_7():
    """Nothing in scripts asks for what only later servers know."""
    for name, text in scripts().items():
        assert not re.search(OPTIONS_OF_7, text), name


@pytest.mark.skipif(redis_binary() is None, reason="no redis-server on this machine")
async def test_on_the_installed_redis(prefix):
    """The stores work on the Redis server of this machine, where there is one; the contract suites run there too."""
    with serve(binary=redis_binary()) as server:
        async with (
            RedisCommands.connect(server.url) as commands,
            RedisBroker.connect(server.url, prefix=prefix) as broker,
            RedisResultBackend.connect(server.url, prefix=prefix) as backend,
        ):
            assert (await commands.info("server"))["redis_version"]
            envelope = make_envelope(queue="q")
            await broker.publish([envelope])
            [delivery] = await broker.claim(["q"], consumer="c", limit=1, wait=10)
            assert await broker.renew([delivery.lease]) == [True]
            assert await backend.record([make_status(envelope.id)]) == [True]

            async def served():
                return (await backend.get(envelope.id)) is not None

            await until(served)
