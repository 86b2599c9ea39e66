"""One connection to a Redis server: many commands at once, sent together, answered in order.

Commands that are submitted within one scheduler tick leave in one write. Replies come back in the order of the
commands, so each waiter has its place in a queue; one that is cancelled gives up its reply, which is still read and
dropped, and the others never notice.
"""

from __future__ import annotations

import math
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, final

import trio

from ...errors import ConfigurationError
from .errors import ConnectionLostError, reply_error
from .stream import SocketStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .address import RedisAddress

try:
    import hiredis
except ImportError as _error:  # pragma: no cover - the extra is part of every test environment
    raise ConfigurationError('the Redis store needs hiredis; pip install "stem-trio[redis]"') from _error

__all__ = ["Argument", "Connection", "LateCommand", "Reply", "Waiter", "open_stream", "pack"]

Argument = bytes | str | int | float

# hiredis ships annotations that know single arguments only.
pack: Final[Callable[[tuple[Argument, ...]], bytes]] = cast("Any", hiredis.pack_command)
_NOTHING: Final = object()
_BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, hiredis.ProtocolError)
# Not more: the allocator would fetch larger pieces from the operating system each time, and give them back.
_READ_SIZE: Final = 64 * 1024


class Reply(Protocol):
    """Whoever takes one reply from the queue."""

    def put(self, value: Any) -> None:
        """One reply has come; an error reply is a `ReplyError`. Must not raise."""

    def fail(self, error: ConnectionLostError) -> None:
        """The connection has gone. Called for each reply that is owed."""


class LateCommand(Reply, Protocol):
    """A command that is put together when it is about to be sent, and takes its own, single reply."""

    def pack(self) -> bytes:
        """The command. Must not raise; from here on it does not change any more."""
        ...


@final
class Waiter:
    """The reply to one command, or the replies to several that were submitted together.

    Args:
        count: how many replies belong to it.
        on_abandoned: called with the replies when whoever waited for them was cancelled before they came.
    """

    __slots__ = ("_abandoned", "_left", "_on_abandoned", "_task", "_values", "error")

    def __init__(self, count: int, on_abandoned: Callable[[list[Any]], None] | None = None) -> None:
        self._left = count
        self._on_abandoned = on_abandoned
        self._abandoned = False
        self._values: list[Any] = []
        self._task: trio.lowlevel.Task | None = None
        self.error: ConnectionLostError | None = None

    def put(self, value: Any) -> None:
        """One reply has come."""
        self._values.append(value)
        self._left -= 1
        if self._left == 0:
            self._wake()
            if self._abandoned and self._on_abandoned is not None:
                self._on_abandoned(self._values)

    def fail(self, error: ConnectionLostError) -> None:
        """The connection has gone."""
        if self.error is None:
            self.error = error
            self._left = 0
            self._wake()

    def _wake(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        self._abandoned = True
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait(self) -> list[Any]:
        """The replies, error replies among them as `ReplyError`.

        Cancellation: the commands are carried out all the same; their replies are dropped.

        Raises:
            ConnectionLostError: the connection went away before the last of them.
        """
        if self._left:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        else:
            # Not one that can be cancelled: the replies are here, and may be more than words.
            await trio.lowlevel.cancel_shielded_checkpoint()
        if self.error is not None:
            raise self.error
        return self._values


@final
class Connection:
    """An open stream that speaks RESP. `run` moves the bytes; `submit` may be called from then on.

    Args:
        stream: the stream, ready for commands.
        patience: seconds for which a command may be without an answer before the connection is given up, and a quarter
            of that more. Watched for the whole connection, not for each command: answers come in order.
        high_water: bytes waiting to be sent above which `wait_writable` waits.
        on_push: called with out-of-band messages.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        patience: float = math.inf,
        high_water: int = 4 * 1024 * 1024,
        on_push: Callable[[Any], None] | None = None,
    ) -> None:
        self._stream = stream
        self._patience = patience
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._on_push = on_push
        self._out: list[bytes | LateCommand] = []
        self._out_bytes = 0
        self._high_water = high_water
        self._pending: deque[Reply] = deque()
        self._submitted = 0
        self._written = 0
        # For each write: how many commands had left with it, and when. Trimmed by whoever watches.
        self._marks: deque[tuple[int, float]] = deque(maxlen=None if patience < math.inf else 0)
        self._writer: trio.lowlevel.Task | None = None
        self._writable: trio.Event | None = None
        self._lost: str | None = None
        self._abandoned = trio.CancelScope()

    @property
    def pending(self) -> int:
        """Commands without a reply yet."""
        return len(self._pending)

    def submit(self, packed: Sequence[bytes], reply: Reply) -> None:
        """Have commands sent, and their replies put into `reply`. Never waits."""
        if self._lost is not None:
            reply.fail(ConnectionLostError(self._lost, sent=False))
            return
        for command in packed:
            self._out.append(command)
            self._out_bytes += len(command)
            self._pending.append(reply)
        self._submitted += len(packed)
        self._wake_writer()

    def submit_late(self, command: LateCommand) -> None:
        """Have a command sent that others may still be added to until it leaves. Never waits."""
        if self._lost is not None:
            command.fail(ConnectionLostError(self._lost, sent=False))
            return
        self._out.append(command)
        self._pending.append(command)
        self._submitted += 1
        self._wake_writer()

    def expect(self, size: int) -> None:
        """So many bytes more are going to leave with a late command."""
        self._out_bytes += size

    def _wake_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            trio.lowlevel.reschedule(writer)

    @property
    def writable(self) -> bool:
        """Whether little enough is waiting to be sent."""
        return self._out_bytes <= self._high_water

    async def wait_writable(self) -> None:
        """Wait until not too much is waiting to be sent; returns at once, without a checkpoint, if so.

        Cancellation: nothing was submitted.
        """
        while self._out_bytes > self._high_water and self._lost is None:
            if self._writable is None:
                self._writable = trio.Event()
            await self._writable.wait()

    def _let_write(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set()

    async def run(self) -> None:
        """Send and receive until the connection ends; it always does so by raising.

        Cancellation: the stream is closed; whoever waits for a reply gets an error.

        Raises:
            ConnectionLostError: the connection has gone.
        """
        try:
            with self._abandoned:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    if self._patience < math.inf:
                        nursery.start_soon(self._watch)
                    await self._read()
            self.close("the server did not answer")
            raise ConnectionLostError("the server did not answer", sent=True)
        except BaseExceptionGroup as group:
            lost, other = group.split(_BROKEN)
            if lost is None or other is not None:
                raise
            problem = lost.exceptions[0]
            reason = str(problem) or type(problem).__name__
            self.close(reason)
            raise ConnectionLostError(reason, sent=True) from problem
        finally:
            self.close("the connection was closed")
            await trio.aclose_forcefully(self._stream)

    def close(self, reason: str) -> None:
        """Fail everything that waits. The stream is left to `run`."""
        if self._lost is not None:
            return
        self._lost = reason
        first = self._submitted - len(self._pending)
        pending, self._pending = self._pending, deque()
        self._out = []
        for number, reply in enumerate(pending, first):
            reply.fail(ConnectionLostError(reason, sent=number < self._written))
        self._let_write()

    def abandon(self) -> None:
        """The server does not answer any more: let `run` end."""
        self._abandoned.cancel()

    async def _watch(self) -> None:
        """End the connection when a command gets no answer in time: it may be dead without knowing it."""
        while True:
            await trio.sleep(self._patience / 4)
            answered = self._submitted - len(self._pending)
            while self._marks and self._marks[0][0] <= answered:
                self._marks.popleft()
            if self._marks and trio.current_time() - self._marks[0][1] >= self._patience:
                raise trio.BrokenResourceError(f"no answer within {self._patience:g} s")

    async def _write(self) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            if not self._out:
                self._writer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(abort)
            out, self._out = self._out, []
            leaving = self._out_bytes
            # Counted before the bytes leave: a part of them may arrive.
            self._written = self._submitted
            self._marks.append((self._written, trio.current_time()))
            packed = [command if type(command) is bytes else cast("LateCommand", command).pack() for command in out]
            await self._stream.send_all(b"".join(packed) if len(packed) > 1 else packed[0])
            self._out_bytes -= leaving
            self._let_write()

    async def _read(self) -> None:
        reader, pending = self._reader, self._pending
        while True:
            data = await self._stream.receive_some(_READ_SIZE)
            if not data:
                raise trio.BrokenResourceError("the server closed the connection")
            reader.feed(bytes(data))
            while (value := reader.gets()) is not _NOTHING:
                kind = type(value)
                if kind is hiredis.PushNotification:
                    if self._on_push is not None:
                        self._on_push(value)
                    continue
                if kind is hiredis.ReplyError:
                    value = reply_error(str(value))
                if not pending:
                    raise trio.BrokenResourceError("the server sent a reply to no command")
                pending.popleft().put(value)


async def open_stream(address: RedisAddress, host: str, port: int) -> trio.abc.Stream:
    """Connect to a server, up to and with TLS.

    Cancellation: nothing stays open.

    Raises:
        OSError: it cannot be reached.
        trio.BrokenResourceError: TLS could not be agreed on.
        ConfigurationError: the files for TLS cannot be used.
    """
    if address.path is not None:
        return SocketStream(await trio.open_unix_socket(address.path))
    context = None if address.tls is None else address.tls.context()
    stream = await trio.open_tcp_stream(host, port)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if context is None:
        return SocketStream(stream)
    secure = trio.SSLStream(stream, context, server_hostname=host)
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(secure)
        raise
    return secure
