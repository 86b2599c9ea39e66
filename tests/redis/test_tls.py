"""TLS as our side of it goes: whom we trust, whom we take a server for, and who we say that we are.

The server of the wheel knows no TLS, so a small proxy on trio ends it before the server.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

from stem_trio import ConfigurationError, StoreUnavailableError
from stem_trio.stores.redis import RedisBroker, RedisCommands, Tls
from stem_trio.testing.contracts import make_envelope


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@asynccontextmanager
async def tls_proxy(redis_url, context):
    """Ends TLS before the server; the port where it does so."""
    host, _, port = redis_url.partition("://")[2].rpartition("@")[2].partition("/")[0].partition(":")

    async def pump(source, sink, scope):
        try:
            async for data in source:
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def handle(stream):
        secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await secure.do_handshake()
            async with await trio.open_tcp_stream(host, int(port)) as server, trio.open_nursery() as nursery:
                nursery.start_soon(pump, secure, server, nursery.cancel_scope)
                nursery.start_soon(pump, server, secure, nursery.cancel_scope)
        except trio.BrokenResourceError:
            pass  # refused: that is what some of the tests are about
        finally:
            await trio.aclose_forcefully(secure)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def server_context(authority, *names, client_authority=None):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    if client_authority is not None:
        client_authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_a_custom_authority(redis_url, prefix, authority, ca_file):
    """With its authority in `ca_certs` a server is trusted, and a task goes there and back, over every connection."""
    async with tls_proxy(redis_url, server_context(authority, "localhost")) as port:
        async with RedisBroker.connect(f"rediss://localhost:{port}?ssl_ca_certs={ca_file}", prefix=prefix) as broker:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def claim():
                    [delivery] = await broker.claim(["q"], consumer="c", limit=1, wait=20)
                    assert delivery.envelope == envelope

                async with broker.subscribe("channel") as inbox:
                    await broker.broadcast("channel", b"hello")
                    assert await inbox.receive() == b"hello"
                envelope = make_envelope(queue="q")
                await broker.publish([envelope])


async def test_an_unknown_authority(redis_url, authority, tmp_path):
    """A server whose certificate nobody vouches for is refused, and the message says what to look at."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    async with tls_proxy(redis_url, server_context(authority, "localhost")) as port:
        for url in (f"rediss://localhost:{port}", f"rediss://localhost:{port}?ssl_ca_certs={other}"):
            with pytest.raises(ConfigurationError, match=r"ca_certs.*CERTIFICATE_VERIFY_FAILED"):
                async with RedisCommands.connect(url):
                    pass  # pragma: no cover


async def test_another_host(redis_url, authority, ca_file):
    """A certificate of another host is refused, unless names are not to be checked."""
    async with tls_proxy(redis_url, server_context(authority, "elsewhere.example")) as port:
        url = f"rediss://localhost:{port}?ssl_ca_certs={ca_file}"
        with pytest.raises(ConfigurationError, match="localhost"):
            async with RedisCommands.connect(url):
                pass  # pragma: no cover
        async with RedisCommands.connect(f"{url}&ssl_check_hostname=false") as commands:
            assert await commands.ping()


async def test_files_that_cannot_be_used(redis_url, authority, tmp_path):
    """A file that is no certificate is an error of configuration that names it, and leaves no connection open."""
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    async with tls_proxy(redis_url, server_context(authority, "localhost")) as port:
        with pytest.raises(ConfigurationError, match=r"junk\.pem"):
            async with RedisCommands.connect(f"rediss://localhost:{port}?ssl_ca_certs={junk}"):
                pass  # pragma: no cover


async def test_no_verification(redis_url, authority):
    """With ssl_cert_reqs=none, or Tls(verify=False), anybody is trusted."""
    async with tls_proxy(redis_url, server_context(authority, "elsewhere.example")) as port:
        async with RedisCommands.connect(f"rediss://localhost:{port}?ssl_cert_reqs=none") as commands:
            assert await commands.ping()
        async with RedisCommands.connect(f"redis://localhost:{port}", tls=Tls(verify=False)) as commands:
            assert await commands.ping()


async def test_client_certificate(redis_url, authority, ca_file, tmp_path):
    """A server that wants to know its clients gets our certificate; without one it lets nobody in."""
    clients = trustme.CA()
    mine = clients.issue_cert("me@example.org")
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    mine.cert_chain_pems[0].write_to_path(certfile)
    mine.private_key_pem.write_to_path(keyfile)
    async with tls_proxy(redis_url, server_context(authority, "localhost", client_authority=clients)) as port:
        url = f"rediss://localhost:{port}?ssl_ca_certs={ca_file}"
        async with RedisCommands.connect(f"{url}&ssl_certfile={certfile}&ssl_keyfile={keyfile}") as commands:
            assert await commands.ping()
        # Which of the two it is, depends on whether the server's alert comes before the end of the connection.
        with pytest.raises((ConfigurationError, StoreUnavailableError), match=f"localhost:{port}"):
            async with RedisCommands.connect(url):
                pass  # pragma: no cover


async def test_no_tls_at_the_other_end(redis_url, ca_file):
    """A server that does not speak TLS, and waits for more, is given up in time."""
    plain = redis_url.replace("redis://", "rediss://").split("?")[0]
    with pytest.raises(StoreUnavailableError, match=r"cannot connect to Redis at"):
        async with RedisCommands.connect(f"{plain}?ssl_ca_certs={ca_file}", connect_timeout=0.5):
            pass  # pragma: no cover
