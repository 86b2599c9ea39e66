"""A TCP proxy that does to connections what networks do to them."""

from __future__ import annotations

import math
import socket
import struct
from typing import Final

import trio

_RESET: Final = struct.pack("ii", 1, 0)
_READ_SIZE: Final = 65_536


class FaultProxy:
    """Stands between a server and those who connect to it.

    Args:
        host: host of the server.
        port: its port.

    Attributes:
        port: where the proxy listens, once it runs.
        latency: seconds by which each piece is late, in both directions.
        slice_size: bytes that go through at a time.
        slice_delay: seconds between two slices.
        limit: bytes towards the client after which a connection is reset.
        hang_at: a connection hangs when these bytes are sent to the server through it, before they have passed.
        down: whether connections are reset as soon as they are made.
        attempts: when somebody connected, by `trio.current_time`.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self.port = 0
        self.latency = 0.0
        self.slice_size = _READ_SIZE
        self.slice_delay = 0.0
        self.limit = math.inf
        self.hang_at: bytes | None = None
        self.down = False
        self.attempts: list[float] = []
        self._links: dict[Link, None] = {}
        self._to_server = trio.Event()
        self._to_client = trio.Event()
        self.heal()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and pass on, for ever."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    @property
    def links(self) -> int:
        """Connections that are open."""
        return len(self._links)

    def newest(self, count: int) -> list[Link]:
        """The connections that were made last."""
        return list(self._links)[-count:]

    def heal(self) -> None:
        """Let everything through again, what was held up too."""
        self.latency = self.slice_delay = 0.0
        self.slice_size = _READ_SIZE
        self.limit = math.inf
        self.hang_at = None
        self.down = False
        self._to_server.set()
        self._to_client.set()
        for link in self._links:
            link.resume()

    def blackhole(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Let nothing through, and break nothing off. What is sent meanwhile arrives after `heal`, as by TCP."""
        if to_server:
            self._to_server = trio.Event()
        if to_client:
            self._to_client = trio.Event()

    def reset(self) -> None:
        """Break all connections off, in both directions."""
        for link in tuple(self._links):
            link.reset()

    def cut(self) -> None:
        """Break all connections off, and let none be made until `heal`."""
        self.down = True
        self.reset()

    async def _serve(self, client: trio.SocketStream) -> None:
        self.attempts.append(trio.current_time())
        if self.down:
            _break_off(client)
            return
        try:
            server = await trio.open_tcp_stream(*self._server)
        except OSError:
            _break_off(client)
            return
        link = Link()
        self._links[link] = None
        try:
            with link.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, client, server, link, False)
                    nursery.start_soon(self._pump, server, client, link, True)
        finally:
            del self._links[link]
            _break_off(client)
            _break_off(server)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, link: Link, to_client: bool) -> None:
        try:
            while data := await source.receive_some(_READ_SIZE):
                await trio.sleep(self.latency)
                while data:
                    if not to_client and self.hang_at is not None and self.hang_at in data:
                        link.hang()
                    await link.wait_open()
                    await (self._to_client if to_client else self._to_server).wait()
                    piece, data = data[: self.slice_size], data[self.slice_size :]
                    await sink.send_all(piece)
                    if self.slice_delay:
                        await trio.sleep(self.slice_delay)
                    if to_client:
                        link.passed += len(piece)
                        if link.passed >= self.limit:
                            break
                if link.passed >= self.limit:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one side has gone: so does the other
        link.scope.cancel()


class Link:
    """One connection through the proxy.

    Attributes:
        scope: it ends with this.
        passed: bytes that went to the client.
    """

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.passed = 0
        self._open = trio.Event()
        self._open.set()

    def hang(self) -> None:
        """Let nothing through any more, in either direction, and tell nobody."""
        self._open = trio.Event()

    @property
    def hangs(self) -> bool:
        """Whether it hangs."""
        return not self._open.is_set()

    def resume(self) -> None:
        """Let everything through, what was held up too."""
        self._open.set()

    def reset(self) -> None:
        """Break it off."""
        self.scope.cancel()

    async def wait_open(self) -> None:
        """Wait until it does not hang."""
        await self._open.wait()


def _break_off(stream: trio.SocketStream) -> None:
    """Close with a reset, not in good order."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    stream.socket.close()
