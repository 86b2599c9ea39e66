"""Listens to what is broadcast to all workers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, final

import msgspec
import trio

from ..control import CONTROL_CHANNEL, ControlMessage, decode_control
from ..errors import StoreUnavailableError
from .setup import Backoff

if TYPE_CHECKING:
    from .held import Holdings
    from .setup import Setup

__all__ = ["ControlListener"]

_logger = logging.getLogger(__name__)


@final
class ControlListener:
    """Carries out control messages. What they ask is kept in the broker too: one that is missed is not lost."""

    def __init__(self, setup: Setup, holdings: Holdings) -> None:
        self._setup = setup
        self._holdings = holdings

    async def run(self) -> None:
        """Receive messages, for ever.

        Cancellation: the channel is left.

        Raises:
            StoreError: the broker refuses for a reason other than being away.
        """
        backoff = Backoff()
        while True:
            try:
                async with self._setup.broker.subscribe(CONTROL_CHANNEL) as channel:
                    backoff.reset()
                    while True:
                        self._handle(await channel.receive())
            except StoreUnavailableError as error:
                _logger.warning("cannot receive control messages, will try again: %s", error)
                await trio.sleep(backoff.next())

    def _handle(self, data: bytes) -> None:
        try:
            message = decode_control(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # msgspec wraps not all of them
            _logger.warning("ignoring a control message that cannot be read: %s", error)
            return
        self._revoke(message)

    def _revoke(self, message: ControlMessage) -> None:
        for task_id in message.ids:
            held = self._holdings.get(task_id)
            if held is not None:  # of a run that has ended, only the settlement is left: that goes on
                held.revoke(message.reason)
