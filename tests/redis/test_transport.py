"""The transport on a real server: order under cancellation, reconnection, and what callers are told."""

import pytest
import trio

from stem_trio import ConfigurationError, StoreClosedError, StoreUnavailableError
from stem_trio.stores.redis.address import parse_address
from stem_trio.stores.redis.connection import pack
from stem_trio.stores.redis.errors import RedisReplyError
from stem_trio.stores.redis.transport import RedisTransport


@pytest.fixture
async def transport(redis_url, nursery):
    transport = RedisTransport(parse_address(redis_url), patience=2.0, command_timeout=5.0)
    await nursery.start(transport.run)
    return transport


@pytest.fixture
async def admin(redis_url, nursery):
    transport = RedisTransport(parse_address(redis_url))
    await nursery.start(transport.run)
    return transport


async def client_id(transport):
    return await transport.call("CLIENT", "ID")


async def test_replies_belong_to_their_commands(transport, prefix):
    """Many at once, each gets its own reply."""
    got = {}

    async def one(number):
        got[number] = await transport.call("ECHO", f"{prefix}-{number}")

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(one, number)
    assert got == {number: f"{prefix}-{number}".encode() for number in range(200)}


async def test_cancelled_waiters_do_not_shift_replies(transport):
    """One that gives up its reply leaves the others' alone."""

    async def cancelled(number):
        with trio.CancelScope() as scope:
            scope.cancel()
            await transport.call("ECHO", f"dropped {number}")

    async def kept(number):
        assert await transport.call("ECHO", str(number)) == str(number).encode()

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(cancelled, number)
            nursery.start_soon(kept, number)
    assert await transport.call("ECHO", "after") == b"after"


async def test_error_replies(transport):
    """A refused command raises; in a pipeline it stands among the others."""
    with pytest.raises(RedisReplyError, match="unknown command"):
        await transport.call("NOSUCHCOMMAND")
    ok, error, also_ok = await transport.pipeline([pack(("PING",)), pack(("NOSUCHCOMMAND",)), pack(("PING",))])
    assert (ok, also_ok) == (b"PONG", b"PONG")
    assert isinstance(error, Exception)


async def test_reconnects_when_killed(transport, admin):
    """G11: a connection that is cut is made again, and commands go on."""
    before = await client_id(transport)
    assert await admin.call("CLIENT", "KILL", "ID", before) == 1
    # Repeatable, so that it does not matter whether it meets the old connection or the new one.
    after = await transport.call("CLIENT", "ID", repeatable=True)
    assert after != before


async def test_lost_in_flight(transport, admin):
    """A command that was under way when the connection was cut fails, and says that it may have been applied."""
    ident = await client_id(transport)
    caught = []

    async def blocked():
        with pytest.raises(StoreUnavailableError) as info:
            await transport.call("BLPOP", "a-list-that-stays-empty", 30)
        caught.append(info.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(blocked)
        while b"cmd=blpop" not in await admin.call("CLIENT", "LIST", "ID", ident):
            await trio.lowlevel.checkpoint()
        await admin.call("CLIENT", "KILL", "ID", ident)
    assert caught[0].maybe_applied


async def test_no_answer_ends_the_connection(redis_url, nursery):
    """A connection that gives no answer is given up after its patience, and made anew."""
    transport = RedisTransport(parse_address(redis_url), patience=0.2, command_timeout=0.5)
    await nursery.start(transport.run)
    before = await client_id(transport)
    with pytest.raises(StoreUnavailableError, match="no answer"):
        await transport.call("BLPOP", "a-list-that-stays-empty", 30)
    assert await transport.call("CLIENT", "ID", repeatable=True) != before


async def test_server_that_is_not_there(nursery):
    """Opening fails with a typed error when nobody listens."""
    transport = RedisTransport(parse_address("redis://127.0.0.1:1"), connect_timeout=2)
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1"):
        await nursery.start(transport.run)


async def test_closed(transport, redis_url):
    """Commands are refused once the transport has ended."""
    with pytest.raises(StoreClosedError):
        async with trio.open_nursery() as nursery:
            mine = RedisTransport(parse_address(redis_url))
            await nursery.start(mine.run)
            nursery.cancel_scope.cancel()
        await mine.call("PING")


async def test_wrong_password(redis_url, nursery, admin):
    """Refused access is a configuration error, and shows no secret; the right password is let in."""
    await admin.call("ACL", "SETUSER", "tester", "on", ">right", "~*", "+@all")
    host = redis_url.partition("://")[2]
    with pytest.raises(ConfigurationError) as caught:
        await nursery.start(RedisTransport(parse_address(f"redis://tester:wrong@{host}")).run)
    assert "wrong" not in str(caught.value).replace("WRONGPASS", "")
    transport = RedisTransport(parse_address(f"redis://tester:right@{host}", client_name="tests"))
    await nursery.start(transport.run)
    assert await transport.call("ACL", "WHOAMI") == b"tester"
    assert await transport.call("CLIENT", "GETNAME") == b"tests"


async def test_credential_provider(redis_url, nursery, admin):
    """A credential provider is asked at each connection."""
    from redis.credentials import CredentialProvider

    asked = []

    class Provider(CredentialProvider):
        def get_credentials(self):
            asked.append(True)
            return ("provided", "secret")

    await admin.call("ACL", "SETUSER", "provided", "on", ">secret", "~*", "+@all")
    transport = RedisTransport(parse_address(redis_url, credentials=Provider()))
    await nursery.start(transport.run)
    assert await transport.call("ACL", "WHOAMI") == b"provided"
    ident = await client_id(transport)
    await admin.call("CLIENT", "KILL", "ID", ident)
    assert await transport.call("ACL", "WHOAMI", repeatable=True) == b"provided"
    assert len(asked) == 2


async def test_database(redis_url, nursery, prefix):
    """The database of the address is the one that is used."""
    other = RedisTransport(parse_address(redis_url, db=5))
    await nursery.start(other.run)
    await other.call("SET", prefix, 1)
    first = RedisTransport(parse_address(redis_url, db=4))
    await nursery.start(first.run)
    assert await first.call("GET", prefix) is None
    assert await other.call("GET", prefix) == b"1"
