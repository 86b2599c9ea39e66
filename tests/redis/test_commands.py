"""redis-py's commands on trio: typed replies, redis-py's errors, and what a shared connection refuses."""

from __future__ import annotations

import pytest
import redis.exceptions
import trio

from stem_trio import InvalidOptionError, StoreTimeoutError, StoreUnavailableError
from stem_trio.stores.redis import RedisCommands, SharedConnectionError
from stem_trio.stores.redis.address import parse_address
from stem_trio.stores.redis.transport import RedisTransport
from tests.redis.servers import fake_server, running


@pytest.fixture
async def commands(redis_url):
    async with RedisCommands.connect(redis_url) as commands:
        yield commands


@pytest.fixture
async def text(redis_url):
    async with RedisCommands.connect(redis_url, decode_responses=True) as commands:
        yield commands


async def test_every_type_of_data(commands, prefix):
    """Replies are those of redis-py for RESP3."""
    key = f"{prefix}:{{0}}".format
    assert await commands.set(key("string"), "value", px=100_000) is True
    assert await commands.get(key("string")) == b"value"
    assert 0 < await commands.pttl(key("string")) <= 100_000
    assert await commands.get(key("nothing")) is None
    assert await commands.incrbyfloat(key("float"), 1.5) == 1.5
    assert await commands.hset(key("hash"), mapping={"a": 1, "b": b"\xff"}) == 2
    assert await commands.hgetall(key("hash")) == {b"a": b"1", b"b": b"\xff"}
    assert await commands.sadd(key("set"), "x", "y") == 2
    assert set(await commands.smembers(key("set"))) == {b"x", b"y"}
    assert await commands.zadd(key("sorted"), {"m": 1.5, "n": 2}) == 2
    assert await commands.zscore(key("sorted"), "m") == 1.5
    assert [list(pair) for pair in await commands.zrange(key("sorted"), 0, -1, withscores=True)] == [
        [b"m", 1.5],
        [b"n", 2.0],
    ]
    assert await commands.rpush(key("list"), 1, 2.5, "three", b"four") == 4
    assert await commands.lrange(key("list"), 0, -1) == [b"1", b"2.5", b"three", b"four"]
    entry = await commands.xadd(key("stream"), {"field": "value"})
    assert await commands.xrange(key("stream")) == [(entry, {b"field": b"value"})]
    assert await commands.xread({key("stream"): 0})
    assert await commands.exists(key("string"), key("hash")) == 2
    assert await commands.delete(key("string"), key("hash")) == 2
    assert (await commands.info("server"))["redis_version"]
    assert isinstance(await commands.time(), tuple)
    assert await commands.config_get("maxmemory")
    found = [found async for found in commands.scan_iter(match=f"{prefix}:*")]
    assert sorted(found) == sorted(key(name).encode() for name in ("float", "list", "set", "sorted", "stream"))


async def test_decoded(text, prefix):
    """With `decode_responses` text is text, in every part of a reply, but for what is never decoded."""
    await text.hset(prefix, mapping={"gr\u00fc\u00df": "dich"})
    assert await text.hgetall(prefix) == {"gr\u00fc\u00df": "dich"}
    assert [key async for key in text.scan_iter(match=prefix)] == [prefix]
    assert isinstance(await text.dump(prefix), bytes)
    assert await text.smembers(f"{prefix}:none") in (set(), [])
    assert await text.mget(f"{prefix}:none") == [None]


async def test_scripts(commands, text, prefix):
    """Scripts are registered as in redis-py, and loaded when the server does not know them."""
    for client, expected in ((commands, b"value"), (text, "value")):
        script = client.register_script(f"return ARGV[1] -- {prefix} {expected!r}")
        assert await script(args=["value"]) == expected
        await client.script_flush()
        assert await script(args=["value"]) == expected


async def test_errors(commands, prefix):
    """A refusal is redis-py's error, for which redis-py's users have handlers already."""
    await commands.set(prefix, "text")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        await commands.lpush(prefix, 1)
    with pytest.raises(redis.exceptions.NoScriptError):
        await commands.evalsha("0" * 40, 0)
    with pytest.raises(redis.exceptions.DataError, match="bool"):
        await commands.set(prefix, True)
    assert await commands.get(prefix) == b"text"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ASK 3999 127.0.0.1:6381", redis.exceptions.ClusterError),
        ("CLUSTERDOWN Hash slot not served", redis.exceptions.ClusterDownError),
        ("CROSSSLOT Keys in request don't hash to the same slot", redis.exceptions.ClusterError),
        ("DENIED Redis is running in protected mode", redis.exceptions.AuthenticationError),
        ("ERR syntax error", redis.exceptions.ResponseError),
        ("EXECABORT Transaction discarded", redis.exceptions.ExecAbortError),
        ("MOVED 3999 127.0.0.1:6381", redis.exceptions.ClusterError),
        ("NOAUTH Authentication required.", redis.exceptions.AuthenticationError),
        ("NOPERM this user has no permissions", redis.exceptions.NoPermissionError),
        ("NOSCRIPT No matching script.", redis.exceptions.NoScriptError),
        ("OOM command not allowed when used memory > 'maxmemory'.", redis.exceptions.OutOfMemoryError),
        ("TRYAGAIN Multiple keys request during rehashing of slot", redis.exceptions.ClusterError),
        ("WRONGPASS invalid username-password pair", redis.exceptions.AuthenticationError),
        ("ERR Error running script (call to f_8a05b7): @u: 3: -OOM not allowed", redis.exceptions.OutOfMemoryError),
    ],
)
async def test_kinds_of_errors(text, kind):
    """Each kind of refusal is the class of redis-py that its users know, with the whole text."""
    async with fake_server() as fake, running(RedisTransport(parse_address(fake.url))) as transport:
        fake.answers["GET"] = f"-{text}\r\n".encode()
        with pytest.raises(redis.exceptions.RedisError) as caught:
            await RedisCommands(transport).get("key")
        assert type(caught.value) is kind
        assert str(caught.value) == text


@pytest.mark.parametrize(
    "words",
    [
        ("SUBSCRIBE", "channel"),
        ("psubscribe", "channel*"),
        ("UNSUBSCRIBE",),
        ("MONITOR",),
        ("MULTI",),
        ("EXEC",),
        ("WATCH", "key"),
        ("SELECT", 1),
        ("AUTH", "password"),
        ("HELLO", 2),
        ("QUIT",),
        ("RESET",),
        ("CLIENT REPLY", "OFF"),
        ("CLIENT", "reply", "OFF"),
        (b"CLIENT", b"SETNAME", b"me"),
        ("CLIENT TRACKING", "ON"),
        ("BLPOP", "key", 0),
        ("BRPOPLPUSH", "a", "b", 0),
        ("BLMOVE", "a", "b", "LEFT", "LEFT", 0),
        ("BZPOPMIN", "key", 0),
        ("WAIT", 1, 0),
        ("XREAD", "BLOCK", 0, "STREAMS", "key", "$"),
        ("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "block", 0, "STREAMS", "key", ">"),
    ],
)
async def test_refused(commands, words):
    """What would change or hold up the connection for others is refused before it is sent, with what to do instead."""
    with pytest.raises(SharedConnectionError, match=r"cannot be used .*on a shared connection: .*;? ?"):
        await commands.execute_command(*words)
    assert await commands.ping()


async def test_refused_methods(commands, prefix):
    """The same by redis-py's methods; what merely looks like it goes through."""
    for call in (
        commands.blpop("key", timeout=1),
        commands.brpop("key", timeout=1),
        commands.client_reply("OFF"),
        commands.client_setname("me"),
        commands.wait(1, 100),
        commands.xread({"key": "$"}, block=0),
    ):
        with pytest.raises(SharedConnectionError):
            await call
    assert await commands.xread({"BLOCK": 0}) in ({}, [])
    assert await commands.set(prefix, "SUBSCRIBE")


async def test_concurrent(commands, prefix):
    """Many at once, some of them cancelled: each gets its own reply."""

    async def one(number):
        with trio.CancelScope() as scope:
            if number % 3 == 0:
                scope.cancel()
            assert await commands.echo(f"{prefix}-{number}") == f"{prefix}-{number}".encode()

    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(one, number)


async def test_reading_is_repeated_and_writing_is_not():
    """What only reads is repeated when the connection is lost; the rest says that it may have been applied."""
    async with fake_server() as fake, running(RedisTransport(parse_address(fake.url))) as transport:
        commands = RedisCommands(transport)
        fake.answers["GET"] = lambda _: b"" if fake.connections < 2 else b"$5\r\nvalue\r\n"
        fake.answers["INCRBY"] = b""
        assert await commands.get("key") == b"value"
        with pytest.raises(StoreUnavailableError) as caught:
            await commands.incr("key")
        assert caught.value.maybe_applied


async def test_time_limit():
    """A command has its time, exactly, and the client goes on after it."""
    async with fake_server() as fake, RedisCommands.connect(fake.url, timeout=0.1) as commands:
        fake.answers["GET"] = None
        with pytest.raises(StoreTimeoutError):
            await commands.get("key")
        fake.answers["GET"] = b"$4\r\nlate\r\n$5\r\nvalue\r\n"
    with pytest.raises(InvalidOptionError, match="timeout"):
        RedisCommands.connect("redis://h", timeout=0)


def test_nothing_secret_is_shown():
    """What shows a client names its server, and no more."""
    commands = RedisCommands(RedisTransport(parse_address("redis://ada:secret@host:1234")))
    assert repr(commands) == "<RedisCommands host:1234>"
