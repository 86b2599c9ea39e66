"""How a worker comes to its end: modes, deadlines, and the operating system's signals."""

from __future__ import annotations

import enum
import logging
import math
import os
import signal
import threading
from typing import TYPE_CHECKING, Final, Literal, final

import attrs
import trio

from .._validate import duration
from ..errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

__all__ = ["Shutdown", "ShutdownMode", "WorkerLifecycleConfig", "WorkerState", "watch_signals"]

_logger = logging.getLogger(__name__)

ModeName = Literal["warm", "soft", "hard"]


@final
class ShutdownMode(enum.IntEnum):
    """How urgently a worker stops; a later request may raise it, never lower it."""

    WARM = 1
    SOFT = 2
    HARD = 3

    @classmethod
    def of(cls, mode: ShutdownMode | ModeName) -> ShutdownMode:
        """A mode by its name. Raises InvalidOptionError."""
        if isinstance(mode, cls):
            return mode
        if isinstance(mode, str) and mode.upper() in cls.__members__:
            return cls[mode.upper()]
        raise InvalidOptionError("mode", mode, "must be 'warm', 'soft' or 'hard'")


@final
class WorkerState(enum.Enum):
    """Where a worker is in its life."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


def _soft_grace_period(value: object) -> float:
    return duration("soft_grace_period", value)


def _force_shutdown_after(value: object) -> float:
    return duration("force_shutdown_after", value)


@final
@attrs.frozen(kw_only=True)
class WorkerLifecycleConfig:
    """How a worker starts and stops.

    Args:
        install_signal_handlers: whether SIGTERM (warm), SIGINT (soft) and SIGQUIT (hard) stop the worker; a second
            signal makes it hard, a third one ends the process at once. None, the default: when `Worker.run` is awaited
            by the main task of the program in the main thread, and not when the worker runs in a nursery beside other
            things.
        soft_grace_period: seconds (or timedelta) that running handlers get, in a warm or soft shutdown, to end by
            themselves.
        force_shutdown_after: seconds (or timedelta) that cancelled handlers, and the settling of what has ended, get
            after that. What is not settled then comes back when its lease ends.

    Raises:
        InvalidOptionError: a duration is not one.
    """

    install_signal_handlers: bool | None = None
    soft_grace_period: float | timedelta = attrs.field(default=30.0, converter=_soft_grace_period)
    force_shutdown_after: float | timedelta = attrs.field(default=10.0, converter=_force_shutdown_after)

    @property
    def grace(self) -> float:
        """`soft_grace_period` in seconds."""
        return float(self.soft_grace_period)  # type: ignore[arg-type]  # the converter has made it one

    @property
    def force_after(self) -> float:
        """`force_shutdown_after` in seconds."""
        return float(self.force_shutdown_after)  # type: ignore[arg-type]  # the converter has made it one

    def signals_wanted(self, *, alone: bool) -> bool:
        """Whether to install signal handlers, given whether the worker is run by itself."""
        main = threading.current_thread() is threading.main_thread()
        if self.install_signal_handlers is None:
            return alone and main
        if self.install_signal_handlers and not main:
            raise InvalidOptionError(
                "install_signal_handlers", True, "needs the main thread; leave it out to have none in others"
            )
        return self.install_signal_handlers


@final
class Shutdown:
    """The steps of a shutdown, as deadlines of the worker's scopes.

    Fetching stops at once, by any mode. Runs may go on until the deadline of the drain scope. Everything, settlements
    included, is over at the deadline of the kill scope, which is also the only bound on the worker's shield.

    Args:
        config: for how long each step lasts.
        on_change: called after the mode was raised.

    Attributes:
        mode: what was asked for so far; None when nothing was.
        fetch: scope of the fetcher.
        drain: scope of the runs.
        grace: scope of whoever waits for the grace period to end.
        kill: scope of everything.
        stop_at: deadline of the kill scope.
        closed: whether all runs have ended, and only settling is left.
    """

    def __init__(self, config: WorkerLifecycleConfig, on_change: Callable[[], None]) -> None:
        self._config = config
        self._on_change = on_change
        self.mode: ShutdownMode | None = None
        self.fetch: Final = trio.CancelScope()
        self.drain: Final = trio.CancelScope()
        self.grace: Final = trio.CancelScope()
        self.kill: Final = trio.CancelScope(shield=True)
        self.stop_at = math.inf
        self.closed = False

    def request(self, mode: ShutdownMode, grace: float | None = None) -> None:
        """Stop, or stop more urgently. A request that is not more urgent than the last one changes nothing.

        Args:
            mode: how urgently.
            grace: seconds for running handlers, in place of the configured ones.
        """
        if self.closed or (self.mode is not None and mode <= self.mode):
            return
        now = trio.current_time()
        until = now if mode is ShutdownMode.HARD else now + (self._config.grace if grace is None else grace)
        # A step up never gives more time than there was left.
        until = min(until, self.drain.deadline)
        self.mode = mode
        self.stop_at = min(self.stop_at, until + self._config.force_after)
        self.kill.deadline = self.stop_at
        self.drain.deadline = self.grace.deadline = until
        if mode is ShutdownMode.HARD:
            self.drain.cancel()
        self.fetch.cancel()
        self._on_change()

    def close(self) -> None:
        """All runs have ended: bound what is left to do."""
        self.closed = True
        self.stop_at = min(self.stop_at, trio.current_time() + self._config.force_after)
        self.kill.deadline = self.stop_at


_MODES: Final = {"SIGTERM": ShutdownMode.WARM, "SIGINT": ShutdownMode.SOFT, "SIGQUIT": ShutdownMode.HARD}


async def watch_signals(shutdown: Shutdown, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Let the operating system's signals stop the worker, for ever. Started once the handlers are in place.

    Cancellation: the former handlers are put back.
    """
    modes = {getattr(signal, name): mode for name, mode in _MODES.items() if hasattr(signal, name)}
    count = 0
    with trio.open_signal_receiver(*modes) as signals:
        task_status.started()
        async for signum in signals:
            name = signal.Signals(signum).name
            # Counted, whatever else has asked the worker to stop: the first signal must not be what ends the process.
            count += 1
            if count == 1:
                _logger.info("%s: stopping (%s)", name, modes[signum].name.lower())
                shutdown.request(modes[signum])
            elif count == 2:
                _logger.warning("%s again: cancelling what runs, and giving it back", name)
                shutdown.request(ShutdownMode.HARD)
            else:
                _logger.error("%s once more: ending the process", name)
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
