"""The driver of the state machines."""

from __future__ import annotations

import math
import threading
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from stem_trio.testing.stepper import Stepper


@pytest.fixture
def clock():
    return trio.testing.MockClock()


@pytest.fixture
def stepper(clock):
    with Stepper(clock=clock) as stepper:
        yield stepper


def test_call_returns_or_raises(stepper):
    async def divide(a, b):
        await trio.lowlevel.checkpoint()
        return a / b

    assert stepper.run(divide, 6, 3) == 2
    with pytest.raises(ZeroDivisionError):
        stepper.run(divide, 6, 0)
    assert stepper.run(divide, 6, 2) == 3


def test_time_passes_when_told_to(stepper):
    begin = stepper.now()
    sleep = stepper.start(partial(trio.sleep, 10))
    stepper.advance(9.5)
    assert not sleep.ended
    stepper.advance(0.5)
    assert sleep.ended
    assert sleep.result() is None
    assert stepper.now() == begin + 10


def test_real_clock():
    with Stepper() as stepper:
        begin = stepper.now()
        stepper.advance(0.01)
        assert stepper.now() >= begin + 0.01


def test_started_call(stepper):
    event = trio.Event()

    async def wait():
        await event.wait()
        raise KeyError

    waiting = stepper.start(wait)
    assert not waiting.ended
    with pytest.raises(trio.TooSlowError):
        waiting.result(timeout=0)

    async def set_event():
        event.set()

    stepper.run(set_event)
    stepper.settle()
    assert waiting.ended
    with pytest.raises(KeyError):
        waiting.result(timeout=math.inf)
    assert waiting.cancel() == []


def test_cancelled_call(stepper):
    waiting = stepper.start(trio.sleep_forever)
    assert waiting.cancel() == []
    with pytest.raises(RuntimeError, match="cancelled"):
        waiting.result()


def test_contexts_are_left_after_everything_else(clock):
    log = []

    @asynccontextmanager
    async def context(name):
        async with trio.open_nursery() as nursery:  # belongs to the task that entered it
            log.append(f"enter {name}")
            yield name
            log.append(f"leave {name}")
            nursery.cancel_scope.cancel()

    async def background():
        try:
            await trio.sleep_forever()
        finally:
            log.append("cancelled")

    with Stepper(clock=clock) as stepper:
        assert [stepper.enter(context(name)) for name in "ab"] == ["a", "b"]
        stepper.start(background)
    assert log == ["enter a", "enter b", "cancelled", "leave b", "leave a"]
    assert "stepper" not in [thread.name for thread in threading.enumerate()]


def test_error_on_entering(stepper):
    @asynccontextmanager
    async def context():
        raise KeyError("on entering")
        yield

    with pytest.raises(KeyError):
        stepper.enter(context())


def test_error_on_leaving(clock):
    @asynccontextmanager
    async def context():
        yield
        raise KeyError("on leaving")

    stepper = Stepper(clock=clock)
    stepper.open()
    stepper.enter(context())
    with pytest.raises(ExceptionGroup) as caught:
        stepper.close()
    assert caught.group_contains(KeyError)


def test_run_that_has_ended(clock):
    @asynccontextmanager
    async def context():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            yield

    async def fail():
        await trio.sleep(1)
        raise KeyError("while held")

    stepper = Stepper(clock=clock)
    stepper.open()
    stepper.enter(context())
    with pytest.raises((trio.RunFinishedError, trio.Cancelled)):
        stepper.advance(1)
    with pytest.raises(ExceptionGroup) as caught:
        stepper.close()
    assert caught.group_contains(KeyError)
