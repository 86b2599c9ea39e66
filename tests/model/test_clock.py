"""Wall clocks."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
import trio
import trio.testing

from stem_trio.clock import SystemClock, TrioClock, to_datetime


def test_system_clock_is_the_machines():
    """The system clock shows what `time.time` shows."""
    before = time.time()
    assert before <= SystemClock().now() <= time.time()


async def test_trio_clock_follows_the_fake_clock(autojump_clock):
    """The clock begins where it is told to, and advances with the time of trio."""
    clock = TrioClock(start=500.0)
    assert clock.now() == pytest.approx(500.0)
    await trio.sleep(3600)
    assert clock.now() == pytest.approx(4100.0)


async def test_trio_clock_begins_when_it_is_first_read(autojump_clock):
    """Time that passes before the first reading does not count."""
    clock = TrioClock(start=500.0)
    await trio.sleep(100)
    assert clock.now() == pytest.approx(500.0)


async def test_trio_clock_default_is_a_plausible_date(mock_clock):
    """Without a start the clock shows a fixed day in this century."""
    assert to_datetime(TrioClock().now()) == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_trio_clock_starts_anew_in_each_run():
    """One clock serves several trio runs, although each run counts its time from another moment."""
    clock = TrioClock(start=500.0)

    async def main() -> tuple[float, float]:
        first = clock.now()
        await trio.sleep(10)
        return first, clock.now()

    for jump in (0.0, 12345.0):
        fake = trio.testing.MockClock(autojump_threshold=0)
        fake.jump(jump)
        assert trio.run(main, clock=fake) == pytest.approx((500.0, 510.0))


def test_trio_clock_needs_a_trio_run():
    """Outside of trio there is no time to follow."""
    with pytest.raises(RuntimeError):
        TrioClock().now()


def test_to_datetime_is_aware_and_utc():
    """Moments are handed out as aware datetimes."""
    moment = to_datetime(86_400.5)
    assert moment == datetime(1970, 1, 2, 0, 0, 0, 500_000, tzinfo=UTC)
    assert moment.tzinfo is UTC
