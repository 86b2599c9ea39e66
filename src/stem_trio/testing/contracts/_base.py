"""What the suites share: how they deal with time, and work in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, final

import pytest
import trio
import trio.testing

from ...ids import new_task_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["Background", "StoreContract"]

T = TypeVar("T")


def _run_on_fake_clock(
    function: Callable[[], Awaitable[T]], *, clock: trio.abc.Clock | None, instruments: Sequence[trio.abc.Instrument]
) -> T:
    clock = clock or trio.testing.MockClock(autojump_threshold=0)
    return trio.run(function, clock=clock, instruments=instruments)


@final
class Background(Generic[T]):
    """A call that runs in a nursery; its cancel scope can be used to end it.

    Args:
        nursery: where it runs.
        function: what is called, without arguments.
        patience: how long `result` waits.
    """

    def __init__(self, nursery: trio.Nursery, function: Callable[[], Awaitable[T]], patience: float) -> None:
        self.cancel_scope = trio.CancelScope()
        self._function = function
        self._patience = patience
        self._values: list[T] = []
        self._ended = trio.Event()
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        with self.cancel_scope:
            self._values.append(await self._function())
        self._ended.set()

    @property
    def ended(self) -> bool:
        """Whether the call has returned or was cancelled."""
        return self._ended.is_set()

    async def result(self) -> T:
        """What it returned.

        Raises:
            trio.TooSlowError: it has not returned in time.
        """
        with trio.fail_after(self._patience):
            await self._ended.wait()
        return self._values[0]

    async def cancel(self) -> list[T]:
        """End it, and tell what it had returned already: one value or none."""
        self.cancel_scope.cancel()
        with trio.fail_after(self._patience):
            await self._ended.wait()
        return self._values


class StoreContract:
    """Base of the suites.

    Override the lengths where a store, or the machine it is tested on, needs others. No test relies on anything being
    quick, except that what it does between two steps takes less than `short`.

    Attributes:
        fake_clock: whether the tests run on a fake clock, which jumps whenever everybody waits, so they take no time.
            For stores that count time by `trio.current_time`, and wait for nothing outside of the trio run.
        short: seconds that leases, delays and retentions last that are meant to end during a test.
        long: seconds that those last that are not.
        patience: seconds a test waits for something that must come, before it fails.
        pause: seconds in which a call that was started in the background is sure to have reached the store.
    """

    pytestmark: ClassVar[Any] = [pytest.mark.trio]

    fake_clock: bool = False
    short: float = 0.5
    long: float = 60.0
    patience: float = 15.0
    pause: float = 0.05

    async def pass_time(self, seconds: float) -> None:
        """Let time pass for the store. Override where the store's time is not trio's or the machine's."""
        await trio.sleep(seconds)

    async def pass_short(self) -> None:
        """Let what lasts for `short` end for certain."""
        await self.pass_time(self.short * 1.5)

    def start(self, nursery: trio.Nursery, function: Callable[[], Awaitable[T]]) -> Background[T]:
        """Call a function in the background."""
        return Background(nursery, function, self.patience)

    @pytest.fixture(autouse=True)
    def run_on_fake_clock(self, request: pytest.FixtureRequest) -> None:
        """Replace the clock of the run, if so wanted.

        pytest-trio takes a clock from a test's own arguments only; this spares each test one it does not look at.
        """
        if self.fake_clock:
            request.node.add_marker(pytest.mark.trio(run=_run_on_fake_clock), append=False)

    @pytest.fixture
    def queue(self) -> str:
        """The name of a queue that nobody else uses."""
        return f"q-{new_task_id()}"

    @pytest.fixture
    def other_queue(self) -> str:
        """The name of another one."""
        return f"o-{new_task_id()}"
