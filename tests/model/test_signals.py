"""Signals: who is called, in which order, and what a listener cannot break."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial

import pytest
import trio
import trio.testing

from stem_trio import signals as module
from stem_trio.errors import InvalidOptionError
from stem_trio.signals import Signal, SignalConnection, StemSignals

LOGGER = "stem_trio.signals"


class Stop(BaseException):
    """What no `except Exception` may catch."""


@pytest.fixture
def reports():
    """What was reported to `on_error`: names of signals and errors."""
    return []


@pytest.fixture
def signals(reports):
    """Signals of their own for each test."""
    return StemSignals(on_error=lambda name, error: reports.append((name, error)))


@pytest.fixture
def signal(signals):
    """One signal; which, does not matter."""
    return signals.task_retry


# --- connecting -------------------------------------------------------------------------------------------------------


def test_every_signal_goes_by_its_name():
    """The attribute's name and the signal's are the same, and these are all there are."""
    found = {name: value for name, value in vars(StemSignals()).items() if isinstance(value, Signal)}
    assert all(value.name == name for name, value in found.items())
    assert set(found) == {
        "before_task_publish",
        "after_task_publish",
        "task_received",
        "task_prerun",
        "task_postrun",
        "task_succeeded",
        "task_failed",
        "task_retry",
        "task_revoked",
        "task_expired",
        "task_dead_lettered",
        "task_lease_lost",
        "task_soft_timeout",
        "task_released",
        "worker_init",
        "worker_ready",
        "worker_heartbeat",
        "worker_stopping",
        "worker_shutdown",
        "worker_child_init",
        "worker_child_shutdown",
    }


async def test_two_sets_of_signals_are_independent():
    """A listener of one application hears nothing of another, nor of the process-wide signals."""
    one, two, heard = StemSignals(), StemSignals(), []
    one.task_retry.connect(heard.append)
    await two.task_retry.send("two")
    await module.default.task_retry.send("default")
    await one.task_failed.send("another signal")
    assert heard == []
    await one.task_retry.send("one")
    assert heard == ["one"]


def test_the_process_wide_signals_exist():
    """There is one set of signals for those who are given none, and nobody listens to it at first."""
    assert isinstance(module.default, StemSignals)
    assert not any(value for value in vars(module.default).values() if isinstance(value, Signal))


def test_a_signal_is_true_while_somebody_listens(signal):
    """The test for listeners is cheap, and right before, during and after."""
    assert not signal
    first, second = signal.connect(print), signal.connect(print)
    assert signal
    first.cancel()
    assert signal
    second.cancel()
    assert not signal


def test_a_signal_prints_its_name(signal):
    """A signal in a log says which it is."""
    signal.connect(print)
    assert repr(signal) == "<Signal task_retry, 1 connected>"


def test_a_connection_tells_what_it_is(signal):
    """What was given to `connect` can be read from what it returns."""
    connection = signal.connect(print, where=bool, once=True, priority=3)
    assert isinstance(connection, SignalConnection)
    assert (connection.handler, connection.where, connection.once, connection.priority) == (print, bool, True, 3)
    plain = signal.connect(print)
    assert (plain.where, plain.once, plain.priority) == (None, False, 0)


@pytest.mark.parametrize(
    ("arguments", "option", "remedy"),
    [
        ({"handler": "on_retry"}, "handler", "must be a function of the event"),
        ({"handler": None}, "handler", "must be a function of the event"),
        ({"handler": print, "where": "x"}, "where", "must be a function of the event, or None"),
        ({"handler": print, "priority": 1.5}, "priority", "must be an integer"),
        ({"handler": print, "priority": None}, "priority", "must be an integer"),
        ({"handler": print, "priority": -1_000_001}, "priority", "must be at least -1000000"),
    ],
)
def test_bad_connections(signal, arguments, option, remedy):
    """What cannot be called, or ordered, is refused by name, and is not connected."""
    with pytest.raises(InvalidOptionError) as caught:
        signal.connect(**arguments)
    assert caught.value.option == option
    assert str(caught.value).endswith(remedy)
    assert not signal


@pytest.mark.parametrize("timeout", [0, -1, None, "1"])
def test_bad_listener_timeout(timeout):
    """The time that a listener may take must be positive."""
    with pytest.raises(InvalidOptionError, match=r"^listener_timeout="):
        StemSignals(listener_timeout=timeout)


def test_listener_timeout():
    """The time that a listener may take is 30 seconds unless told."""
    assert StemSignals().listener_timeout == 30.0
    assert StemSignals(listener_timeout=timedelta(minutes=1)).listener_timeout == 60.0


# --- calling ----------------------------------------------------------------------------------------------------------


async def test_sync_and_async_listeners_get_the_event(signal):
    """Functions, async functions, methods, partials and objects can all listen."""
    heard = []

    def sync(event):
        heard.append(("sync", event))
        return "ignored"

    async def asynchronous(event):
        await trio.lowlevel.checkpoint()
        heard.append(("async", event))

    class Callable:
        async def __call__(self, event):
            heard.append(("object", event))

    for listener in (sync, asynchronous, partial(asynchronous), Callable(), heard.append):
        signal.connect(listener)
    await signal.send(1)
    assert heard == [("sync", 1), ("async", 1), ("async", 1), ("object", 1), 1]


async def test_one_listener_ends_before_the_next_begins(signal, autojump_clock):
    """Async listeners are awaited in turn."""
    log = []

    async def slow(event):
        log.append("slow begins")
        await trio.sleep(5)
        log.append("slow ends")

    signal.connect(slow)
    signal.connect(lambda event: log.append("next"))
    await signal.send(None)
    assert log == ["slow begins", "slow ends", "next"]


async def test_order_is_by_priority_then_connection(signal):
    """Higher priorities come first; equal ones in the order in which they connected."""
    log = []
    for name, priority in [("a", 0), ("b", 10), ("c", -5), ("d", 0), ("e", 10), ("f", -1_000_000)]:
        signal.connect(partial(lambda name, event: log.append(name), name), priority=priority)
    await signal.send(None)
    assert log == ["b", "e", "a", "d", "c", "f"]


async def test_where_chooses_events(signal):
    """A listener with `where` hears those events alone of which it is true."""
    even, everything = [], []
    signal.connect(even.append, where=lambda event: event % 2 == 0)
    signal.connect(everything.append)
    for event in range(4):
        await signal.send(event)
    assert even == [0, 2]
    assert everything == [0, 1, 2, 3]


async def test_sending_to_nobody_is_no_checkpoint(signal):
    """Where nobody listens, an event costs nothing."""
    with trio.testing.assert_no_checkpoints():
        await signal.send(None)


@pytest.mark.parametrize("is_async", [False, True])
async def test_connect_decorates(signal, is_async):
    """A decorated listener is called by the signal, and can still be called by hand."""
    heard = []
    if is_async:

        @signal.connect
        async def listener(event):
            heard.append(event)
            return "result"

        assert await listener("by hand") == "result"
    else:

        @signal.connect
        def listener(event):
            heard.append(event)
            return "result"

        assert listener("by hand") == "result"
    await signal.send("by signal")
    assert heard == ["by hand", "by signal"]
    listener.cancel()
    await signal.send("too late")
    assert heard == ["by hand", "by signal"]


# --- ending -----------------------------------------------------------------------------------------------------------


async def test_cancel_ends_one_connection(signal):
    """A function that is connected twice is called twice, until one connection ends; ending it again is no error."""
    heard = []
    listener = heard.append
    first = signal.connect(listener)
    signal.connect(listener)
    await signal.send(1)
    first.cancel()
    first.cancel()
    await signal.send(2)
    assert heard == [1, 1, 2]


async def test_cancelled_during_dispatch(signal):
    """A listener that is disconnected by one before it is not called any more."""
    log = []
    signal.connect(lambda event: second.cancel())
    second = signal.connect(lambda event: log.append("second"))
    signal.connect(lambda event: log.append("third"))
    await signal.send(None)
    assert log == ["third"]


async def test_a_listener_may_cancel_itself(signal):
    """A listener that ends itself, or one that was called before it, changes nothing for the others."""
    log = []
    first = signal.connect(lambda event: log.append("first"))

    @signal.connect
    async def second(event):
        first.cancel()
        second.cancel()
        await trio.lowlevel.checkpoint()
        log.append("second goes on")

    signal.connect(lambda event: log.append("third"))
    await signal.send(None)
    assert log == ["first", "second goes on", "third"]
    await signal.send(None)
    assert log[3:] == ["third"]


async def test_connected_during_dispatch(signal):
    """A listener that connects while an event is sent hears the next one first."""
    heard = []
    signal.connect(lambda event: signal.connect(heard.append), once=True)
    await signal.send(1)
    assert heard == []
    await signal.send(2)
    assert heard == [2]


async def test_once(signal):
    """A listener that listens once is gone after the first event."""
    heard = []
    signal.connect(heard.append, once=True)
    await signal.send(1)
    assert not signal
    await signal.send(2)
    assert heard == [1]


async def test_once_waits_for_an_event_that_it_wants(signal):
    """An event that `where` turns down does not count."""
    heard = []
    signal.connect(heard.append, once=True, where=lambda event: event > 1)
    for event in (1, 2, 3):
        await signal.send(event)
    assert heard == [2]


async def test_once_is_used_up_by_a_failure(signal, reports, caplog):
    """An event whose listener fails was handled all the same."""
    signal.connect(lambda event: 1 / 0, once=True)
    await signal.send(1)
    await signal.send(2)
    assert len(reports) == 1


async def test_once_in_overlapping_sends(signal, autojump_clock):
    """Of two sends under way at the same time only one calls it, be it async itself or behind an async one."""
    log = []

    async def slow(event):
        await trio.sleep(1)
        log.append(("slow", event))

    signal.connect(slow)
    signal.connect(slow, once=True)
    signal.connect(lambda event: log.append(("quick", event)), once=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(signal.send, 1)
        nursery.start_soon(signal.send, 2)
    assert len([name for name, _ in log if name == "slow"]) == 3
    assert len([name for name, _ in log if name == "quick"]) == 1


async def test_a_listener_may_send_again(signal):
    """A signal sent from its own listener does not call a listener that is used up."""
    heard = []

    async def again(event):
        heard.append(event)
        await signal.send(event + 1)

    signal.connect(again, once=True)
    signal.connect(heard.append)
    await signal.send(1)
    assert heard == [1, 2, 1]


# --- what listeners cannot break --------------------------------------------------------------------------------------


def fail(event):
    raise ValueError("boom")


async def fail_async(event):
    await trio.lowlevel.checkpoint()
    raise ValueError("boom")


@pytest.mark.parametrize(
    "connect",
    [
        lambda signal: signal.connect(fail),
        lambda signal: signal.connect(fail_async),
        lambda signal: signal.connect(print, where=fail),
        lambda signal: signal.connect(lambda: None),  # takes no event
    ],
    ids=["listener", "async listener", "where", "signature"],
)
async def test_errors_are_logged_and_reported(signal, reports, caplog, connect):
    """An error goes to the log and to `on_error`, not to the sender, and later listeners are called."""
    heard = []
    connect(signal)
    signal.connect(heard.append)
    with caplog.at_level(logging.ERROR, LOGGER):
        await signal.send("event")
    assert heard == ["event"]
    [(name, error)] = reports
    [record] = caplog.records
    assert name == "task_retry"
    assert (record.name, record.levelname, record.getMessage()) == (LOGGER, "ERROR", "a listener of task_retry failed")
    assert record.exc_info[1] is error
    assert isinstance(error, ValueError | TypeError)


async def test_a_where_that_fails_chooses_nothing(signal, reports, caplog):
    """A listener whose `where` fails is not called, and stays connected even if it listens once."""
    heard = []
    signal.connect(heard.append, where=lambda event: 1 // event, once=True)
    await signal.send(0)
    assert (heard, len(reports)) == ([], 1)
    await signal.send(1)
    assert heard == [1]


async def test_errors_are_logged_without_on_error(caplog):
    """Without `on_error` the log has it."""
    signals = StemSignals()
    signals.worker_init.connect(fail)
    await signals.worker_init.send(None)
    assert [record.getMessage() for record in caplog.records] == ["a listener of worker_init failed"]


async def test_an_on_error_that_fails_is_logged(caplog):
    """A report that fails itself does not reach the sender either, and both errors are in the log."""

    def report(name, error):
        raise RuntimeError("the report is broken")

    signals, heard = StemSignals(on_error=report), []
    signals.worker_init.connect(fail)
    signals.worker_init.connect(heard.append)
    await signals.worker_init.send("event")
    assert heard == ["event"]
    assert [str(record.exc_info[1]) for record in caplog.records] == ["boom", "the report is broken"]
    assert caplog.records[1].getMessage() == "the on_error report of the signals failed"


@pytest.mark.parametrize("where", [False, True])
@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, SystemExit])
async def test_base_exceptions_are_not_swallowed(signal, reports, caplog, error, where):
    """What is no `Exception` ends the dispatch and reaches the sender, unlogged."""
    heard = []

    def interrupt(event):
        raise error

    signal.connect(*([print] if where else [interrupt]), where=interrupt if where else None)
    signal.connect(heard.append)
    with pytest.raises(error):
        await signal.send(None)
    assert (heard, reports, caplog.records) == ([], [], [])


async def test_a_base_exception_of_on_error_is_not_swallowed(caplog):
    """The same holds for `on_error`."""

    def report(name, error):
        raise Stop

    signals = StemSignals(on_error=report)
    signals.worker_init.connect(fail)
    with pytest.raises(Stop):
        await signals.worker_init.send(None)


async def test_a_listener_that_hangs_is_given_up(reports, caplog, autojump_clock):
    """After the timeout a listener is cancelled, which is reported as an error, and the next one is called."""
    signals, log = StemSignals(listener_timeout=2.5, on_error=lambda *report: reports.append(report)), []

    async def hang(event):
        try:
            await trio.sleep_forever()
        finally:
            log.append(trio.current_time())

    signals.task_failed.connect(hang)
    signals.task_failed.connect(log.append)
    start = trio.current_time()
    await signals.task_failed.send("event")
    assert log == [pytest.approx(start + 2.5), "event"]
    [(name, error)] = reports
    assert name == "task_failed"
    assert isinstance(error, TimeoutError)
    assert str(error) == "the listener did not return within 2.5 s"


async def test_each_listener_has_the_whole_timeout(reports, caplog, autojump_clock):
    """A slow listener takes nothing from the time of the next one."""
    signals, log = StemSignals(listener_timeout=2, on_error=lambda *report: reports.append(report)), []

    async def slow(event):
        await trio.sleep(1.9)
        log.append(event)

    signals.task_failed.connect(slow)
    signals.task_failed.connect(slow)
    await signals.task_failed.send("event")
    assert (log, reports) == (["event", "event"], [])


async def test_an_error_during_the_timeouts_cancellation_is_reported(reports, caplog, autojump_clock):
    """A listener that fails while it is being given up is reported with that error."""
    signals = StemSignals(listener_timeout=1, on_error=lambda *report: reports.append(report))

    async def hang(event):
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleanup failed")

    signals.task_failed.connect(hang)
    await signals.task_failed.send("event")
    [(_, error)] = reports
    assert isinstance(error, ValueError)


async def test_cancelling_the_sender_cancels_the_listener(signal, reports, caplog, autojump_clock):
    """Cancellation passes through: the listener under way ends, later ones are not called, nothing is reported."""
    log = []

    async def hang(event):
        try:
            await trio.sleep_forever()
        finally:
            log.append("cancelled")

    signal.connect(hang)
    signal.connect(log.append)
    with trio.move_on_after(1) as scope:
        await signal.send("event")
    assert scope.cancelled_caught
    assert (log, reports, caplog.records) == (["cancelled"], [], [])
