"""How one gets in: passwords, ACL users, credential providers, sockets, databases, names."""

from __future__ import annotations

import pytest
import trio
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider

from stem_trio import ConfigurationError, InvalidOptionError, StoreUnavailableError
from stem_trio.outcome import Complete
from stem_trio.status import TaskState
from stem_trio.stores.redis import RedisBroker, RedisCommands, RedisResultBackend
from stem_trio.stores.redis.address import parse_address
from stem_trio.testing.contracts import make_envelope, make_status
from tests.redis.servers import serve

SECRET = "top~secret"
LEAST = "-@all +@read +@write +@connection +@scripting +@pubsub +@transaction +time"


@pytest.fixture(scope="module")
def guarded():
    """A server with a password for the default user, and ACL users; also on a unix socket."""
    import tempfile

    with (
        tempfile.TemporaryDirectory(prefix="stem") as folder,
        serve(
            f"requirepass {SECRET}",
            f"user all on >{SECRET} ~* &* +@all",
            f"user least on >{SECRET} ~app:* &app:* {LEAST}",
            f"user deaf on >{SECRET} ~app:* resetchannels +@all",
            f"user reader on >{SECRET} ~* &* -@all +@read +@connection",
            f"user off off >{SECRET} ~* &* +@all",
            socket_path=f"{folder}/socket",
        ) as server,
    ):
        yield server


def url_of(server, login):
    return f"redis://{login}@127.0.0.1:{server.port}"


async def refused(url, **options):
    with pytest.raises(ConfigurationError) as caught:
        async with RedisCommands.connect(url, **options):
            pass  # pragma: no cover
    error = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__
    return str(caught.value)


async def test_password_of_the_default_user(guarded):
    """A password alone is that of the default user; without it, or with a wrong one, there is no way in."""
    async with RedisCommands.connect(url_of(guarded, f":{SECRET}")) as commands:
        assert await commands.acl_whoami() == b"default"
    assert "check user, password and ACL rules" in await refused(guarded.url)
    assert "wrong-password" not in await refused(url_of(guarded, ":wrong-password"))


async def test_acl_user(guarded):
    """An ACL user is let in with its password; with a wrong one, or when it is switched off, it is not."""
    async with RedisCommands.connect(url_of(guarded, f"all:{SECRET}")) as commands:
        assert await commands.acl_whoami() == b"all"
    await refused(url_of(guarded, "all:wrong"))
    await refused(url_of(guarded, f"off:{SECRET}"))
    await refused(url_of(guarded, f"nobody:{SECRET}"))


async def test_least_privileges(guarded):
    """The rules that the documentation names are enough for everything that the stores do."""
    url = url_of(guarded, f"least:{SECRET}")
    async with (
        RedisBroker.connect(url, prefix="app") as broker,
        RedisResultBackend.connect(url, prefix="app") as backend,
    ):
        envelope = make_envelope(queue="q")
        with trio.move_on_after(0.05):  # unblocked by CLIENT UNBLOCK
            await broker.claim(["q"], consumer="c", limit=1, wait=20)
        await broker.publish([envelope])
        [delivery] = await broker.claim(["q"], consumer="c", limit=1, wait=20)
        async with backend.watch(envelope.id) as watch:
            assert await backend.record([make_status(envelope.id, TaskState.RUNNING)]) == [True]
            assert (await watch.changed()).id == envelope.id
        assert await broker.renew([delivery.lease]) == [True]
        assert await broker.settle([(delivery.lease, Complete())]) == [True]
        assert (await broker.stats("q")).unfinished == 0
        assert await broker.list_dead_letters("q") == []
        async with broker.subscribe("channel") as inbox:
            await broker.broadcast("channel", b"hello")
            assert await inbox.receive() == b"hello"


async def test_a_user_without_the_rights(guarded):
    """What the ACL forbids is a configuration error that names the command, and the connection goes on."""
    async with RedisBroker.connect(url_of(guarded, f"reader:{SECRET}"), prefix="app") as broker:
        with pytest.raises(ConfigurationError, match=r"ACL rules.*evalsha"):
            await broker.publish([make_envelope(queue="q")])


async def test_a_user_without_channels(guarded):
    """A subscription that the ACL forbids is refused, and the next ones, allowed or not, get their own answers."""
    async with (
        RedisCommands.connect(url_of(guarded, f"all:{SECRET}")) as admin,
        RedisBroker.connect(url_of(guarded, f"deaf:{SECRET}"), prefix="app") as broker,
    ):
        for _ in range(3):
            with pytest.raises(ConfigurationError, match="ACL rules"):
                async with broker.subscribe("channel"):
                    pass  # pragma: no cover
        await admin.execute_command("ACL", "SETUSER", "deaf", "&app:broadcast:open")
        async with broker.subscribe("open") as inbox:
            with pytest.raises(ConfigurationError, match="ACL rules"):
                async with broker.subscribe("closed"):
                    pass  # pragma: no cover
            await broker.broadcast("open", b"hello")
            assert await inbox.receive() == b"hello"


class Provider(CredentialProvider):
    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    def get_credentials(self):
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_provider_is_asked_at_each_connection(guarded):
    """Credentials that change are taken up: each connection asks anew; a provider that fails is asked again."""
    provider = Provider(("all", SECRET), OSError("no token just now"), (SECRET,))
    async with RedisCommands.connect(guarded.url, credentials=provider) as commands:
        assert await commands.acl_whoami() == b"all"
        async with RedisCommands.connect(url_of(guarded, f":{SECRET}")) as admin:
            await admin.client_kill_filter(_id=await commands.client_id())
        assert await commands.acl_whoami() == b"default"
    assert provider.asked == 3


async def test_providers_of_redis_py(guarded):
    """redis-py's own provider serves."""
    provider = UsernamePasswordCredentialProvider("all", SECRET)
    async with RedisCommands.connect(guarded.url, credentials=provider) as commands:
        assert await commands.acl_whoami() == b"all"


@pytest.mark.parametrize("answer", [(), ("a", "b", "c"), None, (b"user", b"password")])
async def test_what_a_provider_must_not_return(guarded, answer):
    """Anything but one or two texts is a configuration error."""
    assert "credential provider must return" in await refused(guarded.url, credentials=Provider(answer))


async def test_a_provider_that_fails(guarded):
    """It is an outage that names the kind of the failure, and nothing of what it says."""
    with pytest.raises(StoreUnavailableError, match="RuntimeError") as caught:
        async with RedisCommands.connect(guarded.url, credentials=Provider(RuntimeError(SECRET))):
            pass  # pragma: no cover
    assert SECRET not in str(caught.value)


async def test_unix_socket(guarded):
    """A socket in the file system serves for all connections of a store."""
    url = f"unix://all:{SECRET}@{guarded.path}"
    async with RedisBroker.connect(url, prefix="app") as broker:
        envelope = make_envelope(queue="socket")
        await broker.publish([envelope])
        [delivery] = await broker.claim(["socket"], consumer="c", limit=1, wait=20)
        assert delivery.envelope == envelope
    with pytest.raises(StoreUnavailableError, match="no-such-socket"):
        async with RedisCommands.connect("unix:///no-such-socket"):
            pass  # pragma: no cover
    with pytest.raises(InvalidOptionError, match="unix socket"):
        from stem_trio.stores.redis import Tls

        parse_address(url, tls=Tls())


async def test_database(guarded):
    """The database of the URL is the one; one that the server does not have is a configuration error."""
    login = f":{SECRET}"
    async with (
        RedisCommands.connect(f"{url_of(guarded, login)}/3") as three,
        RedisCommands.connect(url_of(guarded, login), db=4) as four,
    ):
        await three.set("key", 1)
        assert await four.get("key") is None
        assert await three.get("key") == b"1"
    assert "DB index" in await refused(f"{url_of(guarded, login)}/99")


async def test_client_name(guarded):
    """The server shows our connections by the name that the URL gives them; RESP3 is what is spoken."""
    url = f"{url_of(guarded, f':{SECRET}')}?client_name=billing-worker"
    async with RedisBroker.connect(url, prefix="app"), RedisCommands.connect(url) as commands:
        clients = [client for client in await commands.client_list() if client["name"] == "billing-worker"]
        assert len(clients) == 2
        assert {client["resp"] for client in clients} == {"3"}
    with pytest.raises(InvalidOptionError, match="client_name"):
        parse_address("redis://h?client_name=two words")
