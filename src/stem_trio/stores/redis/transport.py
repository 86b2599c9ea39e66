"""A connection that is kept up: commands go out when there is one, and wait for the next when there is not.

What was under way when a connection is lost has either been carried out or not, and nobody can know. Commands that are
safe to repeat (fenced, idempotent, or reading) are repeated on the next connection, within their time; others fail with
an error that says so. A server that turns out not to serve (it is loading, or has become a replica) has done nothing:
its connection is given up, and everything it refused goes to the next one.
"""

from __future__ import annotations

import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio

from ...errors import ConfigurationError, StoreClosedError, StoreTimeoutError, StoreUnavailableError
from .connection import Argument, Connection, Waiter, pack
from .errors import ConnectionLostError, NotServingError, ReplyError, translate
from .handshake import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .address import RedisAddress

__all__ = ["RedisTransport"]

_FIRST_WAIT: Final = 0.02
_LONGEST_WAIT: Final = 5.0

_logger = logging.getLogger(__name__)


@final
class RedisTransport:
    """A supervised connection, shared by everything that sends commands through it.

    Args:
        address: where the server is.
        command_timeout: seconds for which a command waits for a connection, or is repeated on new ones.
        connect_timeout: seconds that one attempt to connect may take.
        patience: seconds after which a connection without an answer is given up; infinity for blocking commands.
        on_push: called with out-of-band messages (subscriptions).
        on_connect: called with each new connection, before anybody else uses it; may submit commands.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        command_timeout: float = 10.0,
        connect_timeout: float = 5.0,
        patience: float = 10.0,
        on_push: Callable[[Any], None] | None = None,
        on_connect: Callable[[Connection], None] | None = None,
    ) -> None:
        self.address: Final = address
        self._command_timeout = command_timeout
        self._connect_timeout = connect_timeout
        self._patience = patience
        self._on_push = on_push
        self._on_connect = on_connect
        self._connection: Connection | None = None
        self._up = trio.Event()
        self._closed = False
        self._last_problem: str = "not connected yet"
        self._refusal: Exception | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a connection up, for ever. Started once the first one is.

        Cancellation: the connection is closed; whoever waits gets a `StoreClosedError`.

        Raises:
            StoreUnavailableError: the first attempt to connect failed.
            ConfigurationError: the server refuses access at the first attempt.
        """
        try:
            stream = await connect(self.address, timeout=self._connect_timeout)
            started = False
            wait = _FIRST_WAIT
            while True:
                self._connection = Connection(stream, patience=self._patience, on_push=self._on_push)
                if self._on_connect is not None:
                    self._on_connect(self._connection)
                self._up.set()
                if not started:
                    started = True
                    task_status.started()
                began = trio.current_time()
                try:
                    await self._connection.run()
                except ConnectionLostError as error:
                    problem = f"lost: {error}" if self._refusal is None else f"given up: {self._refusal}"
                    self._last_problem = f"connection to Redis at {self.address.label} {problem}"
                self._withdraw()
                self._refusal = None
                _logger.warning("%s; connecting again", self._last_problem)
                if trio.current_time() - began > _LONGEST_WAIT:
                    wait = _FIRST_WAIT
                stream, wait = await self._connect_again(wait)
                _logger.info("connected to Redis at %s again", self.address.label)
        finally:
            self._closed = True
            if self._connection is not None:
                self._connection.close("the store was closed")
                self._connection = None
            self._up.set()

    async def _connect_again(self, wait: float) -> tuple[trio.abc.Stream, float]:
        while True:
            # Jitter from the first attempt on: fifty workers lose their server at the same moment.
            await trio.sleep(wait * (0.5 + random.random()))
            wait = min(wait * 2, _LONGEST_WAIT)
            try:
                return await connect(self.address, timeout=self._connect_timeout), wait
            except (StoreUnavailableError, ConfigurationError) as error:
                # Access may be refused for a while too, as when passwords are changed.
                self._last_problem = str(error)
                _logger.warning("%s; will try again", error)

    def _withdraw(self) -> None:
        """Nobody is to use the connection any more."""
        if self._connection is not None:
            self._connection = None
            self._up = trio.Event()

    async def call(self, *command: Argument, repeatable: bool = False) -> Any:
        """Send one command and return its reply, as RESP3 types it.

        Cancellation: as `pipeline`.

        Raises:
            StoreUnavailableError: see `pipeline`; also when the server cannot do it just now.
            ConfigurationError: the user may not do it.
            RedisReplyError: the server refuses the command.
        """
        [reply] = await self.pipeline([pack(command)], repeatable=repeatable)
        if isinstance(reply, ReplyError):
            raise translate(reply) from reply
        return reply

    async def pipeline(
        self,
        packed: Sequence[bytes],
        *,
        repeatable: bool = False,
        timeout: float | None = None,
        on_abandoned: Callable[[list[Any]], None] | None = None,
    ) -> list[Any]:
        """Send commands together, and return their replies; error replies are among them, not raised.

        Args:
            packed: commands, packed by `pack`.
            repeatable: whether it does no harm to carry them out twice.
            timeout: seconds for exactly these. Otherwise they have `command_timeout` to meet a connection, and answers
                are watched over for the connection as a whole, which costs nothing for each command.
            on_abandoned: called with the replies if they come after a cancellation, or after the time is over.

        Cancellation: the commands may or may not be carried out.

        Raises:
            StoreUnavailableError: no connection in time, or it was lost and the commands must not be repeated;
                `maybe_applied` tells whether they may have been carried out.
            StoreTimeoutError: no answer in time.
            StoreClosedError: the transport does not run.
        """
        send = partial(self._exchange, packed=packed, on_abandoned=on_abandoned)
        return await self.exchange(send, repeatable=repeatable, timeout=timeout)

    async def exchange(
        self,
        send: Callable[[Connection], Awaitable[list[Any]]],
        *,
        repeatable: bool = False,
        timeout: float | None = None,
        began: float | None = None,
        sent: bool = False,
    ) -> list[Any]:
        """Do something over the connection, again on the next one where that is needed and allowed.

        Args:
            send: submits commands to the connection that it is given, and returns their replies; raises
                `ConnectionLostError` when there are none.
            repeatable: as for `pipeline`.
            timeout: as for `pipeline`.
            began: when an attempt of the caller's own began, before this; its time counts from then.
            sent: whether that may have had its effect.

        Cancellation: as that of `send`.

        Raises:
            StoreError: see `pipeline`.
        """
        if began is None:
            began = trio.current_time()
        under_way = False  # whether this exchange may have its effect yet; `sent`: whether one before may have had it
        connection = self._connection
        # The way of nearly all commands: no scope of their own, the connection watches over its answers.
        if timeout is None and connection is not None and connection.writable:
            try:
                replies = await send(connection)
            except ConnectionLostError as error:
                self.lost(connection, error, repeatable=repeatable)
                sent = sent or error.sent
            else:
                if not self.goes_elsewhere(connection, replies, repeatable=repeatable):
                    return replies
        seconds = self._command_timeout if timeout is None else timeout
        with trio.move_on_at(began + seconds):
            while True:
                connection = await self.connected()
                await connection.wait_writable()
                under_way = True
                try:
                    replies = await send(connection)
                except ConnectionLostError as error:
                    self.lost(connection, error, repeatable=repeatable)
                    sent = sent or error.sent
                else:
                    if not self.goes_elsewhere(connection, replies, repeatable=repeatable):
                        return replies
                under_way = False
        if under_way:
            raise StoreTimeoutError(f"Redis at {self.address.label}", seconds)
        raise StoreUnavailableError(f"{self._last_problem} (for {seconds:g} s)", maybe_applied=sent)

    @property
    def ready(self) -> Connection | None:
        """The connection, if a command may be submitted to it at once."""
        connection = self._connection
        return connection if connection is not None and connection.writable else None

    def submit_nowait(self, packed: bytes) -> None:
        """Send a command whose reply nobody waits for; without a connection, do not."""
        if self._connection is not None:
            self._connection.submit([packed], Waiter(1))

    @staticmethod
    async def _exchange(
        connection: Connection, *, packed: Sequence[bytes], on_abandoned: Callable[[list[Any]], None] | None
    ) -> list[Any]:
        waiter = Waiter(len(packed), on_abandoned)
        connection.submit(packed, waiter)
        return await waiter.wait()

    def lost(self, connection: Connection, error: ConnectionLostError, *, repeatable: bool) -> None:
        """A connection has gone: let nobody use it any more. Raise, unless the commands may go out again."""
        if self._closed:
            raise StoreClosedError("the Redis store was closed") from error
        problem = f"connection to Redis at {self.address.label} lost: {error}"
        if connection is self._connection:
            # Before `run` has noticed: who asks for a connection is to wait for the next one, not to be given this.
            self._last_problem = problem
            self._withdraw()
        if error.sent and not repeatable:
            raise StoreUnavailableError(problem, maybe_applied=True) from error

    def goes_elsewhere(self, connection: Connection, replies: list[Any], *, repeatable: bool) -> bool:
        """Whether the commands are to be sent again, to the server that serves when this one does not."""
        for reply in replies:
            if isinstance(reply, NotServingError):
                break
        else:
            return False
        if connection is self._connection:
            self._refusal = reply
            self._withdraw()
            connection.abandon()
        return repeatable or all(isinstance(reply, NotServingError) for reply in replies)

    async def connected(self) -> Connection:
        """The connection; waits for one.

        Raises:
            StoreClosedError: the transport does not run.
        """
        while self._connection is None:
            if self._closed:
                raise StoreClosedError("the Redis store is used outside of its `async with` block")
            await self._up.wait()
        return self._connection
