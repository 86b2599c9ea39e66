"""A socket with as few detours as there can be between it and the scheduler.

trio's own stream tries, checks and waits in an order that suits everybody. Here one task reads and one task writes, for
as long as the connection lives; that a read nearly always has to wait, and a write nearly never, is known beforehand.
It saves two scheduler ticks and two system calls for each exchange.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, final

import trio

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["SocketStream"]

_READ_SIZE: Final = 64 * 1024


@final
class SocketStream(trio.abc.Stream):
    """A connected socket as a stream. One task may read, and one may write, at the same time.

    Args:
        stream: what was opened by trio; its socket is taken over.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = socket.socket(fileno=stream.socket.detach())
        self._socket.setblocking(False)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes, and return some; none at the end.

        Cancellation: no bytes are lost.

        Raises:
            OSError: the connection is broken.
            trio.ClosedResourceError: the stream is closed.
        """
        size = max_bytes or _READ_SIZE
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(size)
            except BlockingIOError:
                continue  # whoever says that it is readable need not be right

    async def send_all(self, data: Buffer) -> None:
        """Send bytes. Returns at once, without a checkpoint, when the operating system takes them all.

        Cancellation: some bytes may have been sent.

        Raises:
            OSError: the connection is broken.
            trio.ClosedResourceError: the stream is closed.
        """
        left = memoryview(data)
        while True:
            try:
                left = left[self._socket.send(left) :]
                if not left:
                    return
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the operating system takes bytes."""
        await trio.lowlevel.wait_writable(self._socket)

    async def aclose(self) -> None:
        """Close the socket. Cancellation: it is closed all the same."""
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()
