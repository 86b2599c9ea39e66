"""How one run ends: the status that is recorded, the place that the task goes to, the count, and the signals."""

from __future__ import annotations

import contextvars
import math

import msgspec
import pytest
import trio
import trio.testing

from stem_trio import (
    FixedRetryStrategy,
    FunctionTaskHandler,
    RetryPolicy,
    SerializationError,
    StoreUnavailableError,
    TaskContext,
    TaskOptions,
    TaskRetryRequest,
    TaskState,
    TaskStatus,
    task,
)
from stem_trio.clock import to_datetime
from stem_trio.control import CONTROL_CHANNEL, RevokeTasks, encode_control

GONE = (0, 0, 0, 0)
READY = (1, 0, 0, 0)
DELAYED = (0, 1, 0, 0)
DEAD = (0, 0, 0, 1)


def only(**count):
    """The totals of a worker whose runs all ended one way."""
    names = ("succeeded", "failed", "retried", "revoked", "expired", "released", "lease_lost")
    return {name: count.get(name, 0) for name in names}


class Stop(BaseException):
    """Not an Exception, like SystemExit."""


# --- by itself ----------------------------------------------------------------------------------------------------


async def test_success(rig, autojump_clock):
    """G1, G8: a returned value is recorded, the task is deleted, counted, and told of."""

    @task(name="add")
    async def add(left: int, right: int) -> int:
        return left + right

    rig.listen()
    handle = await rig.enqueue(add, 2, 3)
    async with rig.worker(add) as worker:
        assert await handle.result(timeout=1) == 5
    status = await rig.status(handle)
    assert status.state is TaskState.SUCCEEDED
    assert (status.attempt, status.deliveries, status.worker) == (0, 1, worker.id)
    assert status.error is None
    assert await rig.places() == GONE
    assert worker.totals == only(succeeded=1)
    assert rig.heard == ["task_succeeded", "task_postrun"]
    assert rig.event("task_succeeded").value == msgspec.Raw(b"5")
    assert rig.event("task_succeeded").worker == worker.id
    assert rig.event("task_postrun").state is TaskState.SUCCEEDED


async def test_ignored_result(rig, autojump_clock):
    """With `ignore_result` the status is kept, the value is not even encoded."""

    @task(name="opaque", ignore_result=True)
    async def opaque():
        return object()

    rig.listen("task_succeeded")
    handle = await rig.enqueue(opaque)
    async with rig.worker(opaque):
        assert await handle.result(timeout=1) is None
    status = await rig.status(handle)
    assert (status.state, status.value) == (TaskState.SUCCEEDED, None)
    assert rig.event("task_succeeded").value is None


async def test_failure_without_retries(rig, autojump_clock):
    """G8: an exception is recorded with its traceback, and the task put with the dead letters."""

    @task(name="boom")
    async def boom() -> None:
        raise ValueError("no such luck")

    rig.listen()
    handle = await rig.enqueue(boom)
    async with rig.worker(boom) as worker:
        result = await handle.wait(timeout=1)
    assert result.state is TaskState.FAILED
    assert result.reason == "max-retries-exhausted"
    assert (result.error.type, result.error.message) == ("ValueError", "no such luck")
    assert "in boom" in result.error.traceback
    letter = await rig.dead_letter(handle)
    assert (letter.reason, letter.detail) == ("max-retries-exhausted", "ValueError: no such luck")
    assert (letter.attempt, letter.deliveries, letter.strikes) == (0, 1, 0)
    assert await rig.places() == DEAD
    assert worker.totals == only(failed=1)
    assert rig.heard == ["task_failed", "task_dead_lettered", "task_postrun"]
    assert rig.event("task_failed").reason == rig.event("task_dead_lettered").reason == "max-retries-exhausted"
    assert rig.event("task_dead_lettered").detail == "ValueError: no such luck"


async def test_unknown_task(rig, autojump_clock):
    """G8: a name that the worker does not know is a failure with its own reason, not a crash."""

    @task(name="from.the.future")
    async def unknown() -> None: ...

    @task(name="known", max_retries=3)
    async def known() -> None: ...

    rig.listen()
    handle = await rig.enqueue(unknown)
    async with rig.worker(known) as worker:
        result = await handle.wait(timeout=1)
    assert (result.state, result.reason) == (TaskState.FAILED, "unregistered-task")
    assert "from.the.future" in result.error.message
    assert "known: known" in result.error.message
    assert (await rig.dead_letter(handle)).reason == "unregistered-task"
    assert worker.totals == only(failed=1)
    assert rig.heard == ["task_failed", "task_dead_lettered"]  # no postrun: no handler was reached
    assert (await rig.status(handle)).started_at is None


async def test_invalid_arguments(rig, autojump_clock):
    """G8: arguments that do not fit are a failure that no retry can help."""

    @task(name="pay", max_retries=5)
    async def old(amount: str) -> None: ...

    @task(name="pay", max_retries=5)
    async def new(amount: int) -> None: ...

    handle = await rig.enqueue(old, "much")
    async with rig.worker(new) as worker:
        result = await handle.wait(timeout=1)
    assert (result.state, result.reason) == (TaskState.FAILED, "invalid-arguments")
    assert "'amount'" in result.error.message
    assert result.error.retryable is False
    assert (await rig.dead_letter(handle)).reason == "invalid-arguments"
    assert worker.totals == only(failed=1)


async def test_unserializable_result(rig, ledger, autojump_clock):
    """G8: a result that JSON cannot hold fails the task for good: running it again would repeat its effects."""

    @task(name="opaque", max_retries=5)
    async def opaque(context: TaskContext):
        with ledger.run(context):
            return object()

    handle = await rig.enqueue(opaque)
    async with rig.worker(opaque) as worker:
        result = await handle.wait(timeout=1)
    assert (result.state, result.reason) == (TaskState.FAILED, "unserializable-result")
    assert "object cannot be represented" in result.error.message
    assert (await rig.dead_letter(handle)).reason == "unserializable-result"
    assert worker.totals == only(failed=1)
    ledger.assert_exactly_once()


# --- never started ------------------------------------------------------------------------------------------------


async def test_expired_before_the_claim(rig, ledger, autojump_clock):
    """G8: a task that nobody claimed in time is not started, and that is recorded and told."""

    @task(name="late", expires=5)
    async def late(context: TaskContext) -> None:
        with ledger.run(context):
            pass

    rig.listen()
    handle = await rig.enqueue(late)
    await trio.sleep(5)
    async with rig.worker(late) as worker:
        result = await handle.wait(timeout=1)
    assert result.state is TaskState.EXPIRED
    assert ledger.runs == []
    assert await rig.places() == GONE
    assert worker.totals == only(expired=1)
    assert rig.heard == ["task_expired"]


@pytest.mark.parametrize(("slot_free_after", "state"), [(4.0, TaskState.SUCCEEDED), (6.0, TaskState.EXPIRED)])
async def test_expired_while_held(rig, autojump_clock, slot_free_after, state):
    """G8: a delivery that waits for a slot of the worker expires there too."""

    @task(name="slow")
    async def slow() -> None:
        await trio.sleep(slot_free_after)

    @task(name="late", expires=5)
    async def late() -> None: ...

    await rig.enqueue(slow)
    handle = await rig.enqueue(late)
    async with rig.worker(slow, late, concurrency=1, prefetch=1) as worker:
        await trio.testing.wait_all_tasks_blocked()
        assert await rig.places() == (0, 0, 2, 0)
        assert (await handle.wait(timeout=10)).state is state
    assert worker.totals["expired"] == (state is TaskState.EXPIRED)


async def test_expiry_is_told_by_the_clock_of_the_store(rig, autojump_clock):
    """G13: the hand-out says what time it is; a worker whose own clock is a day ahead starts the task all the same."""

    class Tomorrow:
        def now(self):
            return rig.clock.now() + 86_400

    @task(name="soon", expires=60)
    async def soon() -> None: ...

    handle = await rig.enqueue(soon)
    async with rig.worker(soon, clock=Tomorrow()):
        assert (await handle.wait(timeout=1)).state is TaskState.SUCCEEDED


async def test_poison(rig, ledger, autojump_clock):
    """G7, G8: after so many hand-outs without outcome a task is put with the dead letters, and not started again."""

    @task(name="killer", max_strikes=3, visibility_timeout=10, max_retries=9)
    async def killer(context: TaskContext) -> None:
        with ledger.run(context):
            pass

    rig.listen()
    handle = await rig.enqueue(killer)
    for strikes in range(3):  # three workers die with it in their hands
        [delivery] = await rig.broker.claim(["default"], consumer="dying", limit=1, wait=20)
        assert delivery.strikes == strikes
    async with rig.worker(killer) as worker:
        result = await handle.wait(timeout=20)
    assert ledger.runs == []
    assert (result.state, result.reason) == (TaskState.FAILED, "poison")
    letter = await rig.dead_letter(handle)
    assert (letter.reason, letter.strikes, letter.attempt, letter.deliveries) == ("poison", 3, 0, 4)
    assert worker.totals == only(failed=1)
    assert rig.heard == ["task_failed", "task_dead_lettered"]


async def test_one_strike_less_is_not_poison(rig, ledger, autojump_clock):
    """G7: the last hand-out that is allowed is used."""

    @task(name="survivor", max_strikes=3, visibility_timeout=10)
    async def survivor(context: TaskContext) -> None:
        with ledger.run(context):
            pass

    await rig.enqueue(survivor)
    for _ in range(2):
        await rig.broker.claim(["default"], consumer="dying", limit=1, wait=20)
    await trio.sleep(10)
    async with rig.worker(survivor):
        await trio.testing.wait_all_tasks_blocked()
    ledger.assert_exactly_once()
    assert ledger.runs[0].deliveries == 3


# --- revoked ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0, 3600])
async def test_revoked_before_the_claim(rig, ledger, autojump_clock, delay):
    """G8: a task revoked while it waits, or is delayed, is ended by the next worker at once, unstarted."""

    @task(name="unwanted")
    async def unwanted(context: TaskContext) -> None:
        with ledger.run(context):
            pass

    rig.listen()
    handle = await rig.enqueue(unwanted, delay=delay)
    assert await handle.revoke(reason="changed my mind")
    async with rig.worker(unwanted) as worker:
        result = await handle.wait(timeout=1)
    assert (result.state, result.reason) == (TaskState.REVOKED, "changed my mind")
    assert ledger.runs == []
    assert await rig.places() == GONE
    assert worker.totals == only(revoked=1)
    assert rig.heard == ["task_revoked"]
    assert rig.event("task_revoked").reason == "changed my mind"


async def test_revoked_while_held(rig, ledger, autojump_clock):
    """G8: a delivery that is revoked while it waits for a slot is not started."""

    @task(name="slow")
    async def slow() -> None:
        await trio.sleep(4)

    @task(name="unwanted")
    async def unwanted(context: TaskContext) -> None:
        with ledger.run(context):
            pass

    await rig.enqueue(slow)
    handle = await rig.enqueue(unwanted)
    async with rig.worker(slow, unwanted, concurrency=1, prefetch=1) as worker:
        await trio.testing.wait_all_tasks_blocked()
        assert await handle.revoke()
        result = await handle.wait(timeout=10)
    assert (result.state, result.reason) == (TaskState.REVOKED, None)
    assert ledger.runs == []
    assert worker.totals == only(revoked=1, succeeded=1)


async def test_revoked_while_held_and_too_late_besides(rig, autojump_clock):
    """Of several reasons not to start a task, that it was revoked comes first."""

    @task(name="slow")
    async def slow() -> None:
        await trio.sleep(4)

    @task(name="unwanted", expires=2)
    async def unwanted() -> None: ...

    await rig.enqueue(slow)
    handle = await rig.enqueue(unwanted)
    async with rig.worker(slow, unwanted, concurrency=1, prefetch=1):
        await trio.testing.wait_all_tasks_blocked()
        assert await handle.revoke(reason="unwanted")
        result = await handle.wait(timeout=10)
    assert (result.state, result.reason) == (TaskState.REVOKED, "unwanted")


async def test_revoked_while_running(rig, ledger, autojump_clock):
    """G8: a running handler is cancelled at once, whatever retries it has left, and its cleanup runs."""

    @task(name="endless", max_retries=5)
    async def endless(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep_forever()

    rig.listen()
    handle = await rig.enqueue(endless)
    async with rig.worker(endless) as worker:
        await trio.sleep(100)
        assert await handle.revoke(reason="too long")
        result = await handle.wait(timeout=0.1)
    assert (result.state, result.reason) == (TaskState.REVOKED, "too long")
    assert ledger.ends == ["Cancelled"]
    assert ledger.runs[0].ended - ledger.runs[0].began == pytest.approx(100)
    assert await rig.places() == GONE
    assert worker.totals == only(revoked=1)
    assert rig.heard == ["task_revoked", "task_postrun"]


async def test_revoked_twice_keeps_the_first_end(rig, autojump_clock):
    """A second revocation of a run that is being cancelled changes nothing."""

    @task(name="slow-to-die")
    async def slow_to_die() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)

    handle = await rig.enqueue(slow_to_die)
    async with rig.worker(slow_to_die) as worker:
        await trio.testing.wait_all_tasks_blocked()
        await handle.revoke(reason="first")
        await trio.sleep(1)
        await handle.revoke(reason="second")
        assert (await handle.wait(timeout=10)).state is TaskState.REVOKED
    assert worker.totals == only(revoked=1)


async def test_revocation_that_comes_after_the_handler_has_ended(rig, autojump_clock):
    """G6: a finished run that is only waiting to be recorded is not revoked any more."""

    @task(name="done")
    async def done() -> int:
        return 1

    rig.faults.fail("backend.record", times=3)
    handle = await rig.enqueue(done)
    async with rig.worker(done) as worker:
        await trio.testing.wait_all_tasks_blocked()
        await rig.broker.broadcast(CONTROL_CHANNEL, encode_control(RevokeTasks((handle.id,), "late")))
        assert (await handle.wait(timeout=10)).state is TaskState.SUCCEEDED
    assert worker.totals == only(succeeded=1)


async def test_revocation_of_somebody_elses_task(rig, autojump_clock):
    """A revocation of a task that the worker does not hold is none of its business."""

    @task(name="mine")
    async def mine() -> int:
        await trio.sleep(1)
        return 1

    handle = await rig.enqueue(mine)
    async with rig.worker(mine):
        await trio.testing.wait_all_tasks_blocked()
        await rig.broker.broadcast(CONTROL_CHANNEL, encode_control(RevokeTasks(("somebody-elses",), "")))
        assert await handle.result(timeout=10) == 1


# --- what handlers do about being cancelled -----------------------------------------------------------------------


async def test_handler_that_ends_well_though_cancelled(rig, ledger, autojump_clock):
    """What was done all the same is recorded as done: a handler that returns has succeeded, revoked or not."""

    @task(name="stubborn")
    async def stubborn(context: TaskContext) -> str:
        with ledger.run(context):
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                return "done anyway"

    handle = await rig.enqueue(stubborn)
    async with rig.worker(stubborn) as worker:
        await trio.testing.wait_all_tasks_blocked()
        await handle.revoke()
        assert await handle.result(timeout=1) == "done anyway"
    assert worker.totals == only(succeeded=1)


async def test_handler_that_cancels_its_own_scope(rig, autojump_clock):
    """A handler that cancels `context.cancel_scope` has failed, says its status, and is retried like any failure."""

    @task(name="suicidal", max_retries=1)
    async def suicidal(context: TaskContext) -> str:
        if context.attempt == 0:
            context.cancel_scope.cancel()
            await trio.sleep(1)
        return "second thoughts"

    rig.listen("task_retry")
    handle = await rig.enqueue(suicidal)
    async with rig.worker(suicidal) as worker:
        assert await handle.result(timeout=1) == "second thoughts"
    assert rig.event("task_retry").error.message == "the handler cancelled its own scope"
    assert worker.totals == only(retried=1, succeeded=1)


async def test_handler_that_gives_its_own_scope_a_deadline(rig, autojump_clock):
    """The deadline of the scope is the lease; a handler that moves it forward fails then, and holds nothing back."""

    @task(name="impatient")
    async def impatient(context: TaskContext) -> None:
        context.cancel_scope.deadline = trio.current_time() + 2
        await trio.sleep_forever()

    handle = await rig.enqueue(impatient)
    async with rig.worker(impatient) as worker:
        result = await handle.wait(timeout=3)
    assert (result.state, result.error.message) == (TaskState.FAILED, "the handler cancelled its own scope")
    assert worker.totals == only(failed=1)


@pytest.mark.parametrize(
    "error", [SystemExit(3), Stop("halt"), GeneratorExit(), ExceptionGroup("two", [OSError(), ValueError()])]
)
async def test_whatever_a_handler_raises_is_its_own_failure(rig, autojump_clock, error):
    """What a handler lets out fails its task, be it meant to end the process; the worker goes on."""

    @task(name="wild")
    async def wild() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    @task(name="tame")
    async def tame() -> str:
        return "here"

    handle = await rig.enqueue(wild)
    async with rig.worker(wild, tame) as worker:
        result = await handle.wait(timeout=1)
        assert result.state is TaskState.FAILED
        assert result.error.type.endswith(type(error).__name__)
        assert await (await rig.enqueue(tame)).result(timeout=1) == "here"
    assert worker.totals == only(failed=1, succeeded=1)


@pytest.mark.parametrize("retries", [0, 1])
async def test_base_exception_from_a_nursery_of_the_handler(rig, autojump_clock, retries):
    """A group that is no `ExceptionGroup`, and holds no cancellation, is a failure too."""

    @task(name="wild", max_retries=retries)
    async def wild() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_raise, SystemExit(1))
            nursery.start_soon(trio.sleep_forever)

    handle = await rig.enqueue(wild)
    async with rig.worker(wild) as worker:
        result = await handle.wait(timeout=1)
    assert result.error.type == "BaseExceptionGroup"
    assert worker.totals == only(failed=1, retried=retries)


async def _raise(error):
    raise error


async def _fail_when_cancelled():
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        raise ValueError("cleanup went wrong") from None


async def _fails_over_its_cancellation() -> None:
    """Ends, once it is cancelled, with a group of a Cancelled and a ValueError."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_fail_when_cancelled)
        nursery.start_soon(trio.sleep_forever)


@task(name="troubled", hard_time_limit=50, visibility_timeout=300, max_retries=1)
async def troubled(context: TaskContext) -> str:
    if context.attempt == 0 and context.deliveries == 1:
        await _fails_over_its_cancellation()
    return "recovered"


async def test_mixed_group_at_the_hard_limit(rig, autojump_clock):
    """A nursery that fails over being cancelled at the hard limit has timed out, and is retried."""
    rig.listen("task_retry")
    handle = await rig.enqueue(troubled)
    async with rig.worker(troubled) as worker:
        assert await handle.result(timeout=51) == "recovered"
    assert rig.event("task_retry").error.type == "stem_trio.errors.HardTimeLimitError"
    assert worker.totals == only(retried=1, succeeded=1)


async def test_mixed_group_at_the_loss_of_the_lease(rig, autojump_clock):
    """G4: a nursery that fails over the loss of its lease has lost it, and has no failure to its name."""
    handle = await rig.enqueue(troubled, hard_time_limit=None, visibility_timeout=10)
    rig.faults.fail("broker.renew")
    async with rig.worker(troubled) as worker:
        assert await handle.result(timeout=20) == "recovered"
    assert worker.totals == only(lease_lost=1, succeeded=1)
    assert (await rig.status(handle)).attempt == 0


async def test_mixed_group_at_a_revocation(rig, autojump_clock):
    """G8: a nursery that fails over being revoked is revoked."""
    handle = await rig.enqueue(troubled)
    async with rig.worker(troubled) as worker:
        await trio.sleep(1)
        await handle.revoke(reason="enough")
        assert (await handle.wait(timeout=1)).state is TaskState.REVOKED
    assert worker.totals == only(revoked=1)


async def test_mixed_group_at_shutdown(rig, autojump_clock):
    """G7, G10: a nursery that fails over a hard shutdown is given back with its attempts as they were."""
    handle = await rig.enqueue(troubled)
    async with rig.worker(troubled) as worker:
        await trio.sleep(1)
        await worker.shutdown("hard")
        assert await rig.places() == READY
    assert worker.totals == only(released=1)
    assert ((await rig.status(handle)).state, (await rig.status(handle)).attempt) == (TaskState.QUEUED, 0)
    async with rig.worker(troubled):
        assert await handle.result(timeout=1) == "recovered"


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("how", ["limit", "lease", "revoke", "drain"])
async def test_error_in_place_of_a_cancellation(rig, autojump_clock, how, grouped):
    """While it is being cancelled, what a handler raises counts for nothing: the reason for the cancellation does."""

    @task(name="clumsy", max_retries=1, visibility_timeout=10, hard_time_limit=5 if how == "limit" else None)
    async def clumsy(context: TaskContext) -> str:
        if context.deliveries == 1 and grouped:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_fail_when_cancelled)
        elif context.deliveries == 1:
            await _fail_when_cancelled()
        return "recovered"

    handle = await rig.enqueue(clumsy)
    if how == "lease":
        rig.faults.fail("broker.renew")
    async with rig.worker(clumsy) as worker:
        await trio.sleep(1)
        if how == "revoke":
            await handle.revoke()
            await handle.wait(timeout=1)
        elif how == "drain":
            await worker.shutdown("hard")
        else:
            assert await handle.result(timeout=20) == "recovered"
    expected = {
        "limit": only(retried=1, succeeded=1),
        "lease": only(lease_lost=1, succeeded=1),
        "revoke": only(revoked=1),
        "drain": only(released=1),
    }
    assert worker.totals == expected[how]


async def test_stray_cancellation(rig, autojump_clock):
    """A Cancelled that a handler kept from elsewhere does not cancel its run: it fails, and nobody else notices."""

    @task(name="shared")
    async def shared() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep(1)
            except trio.Cancelled as error:
                kept = error
        raise kept

    @task(name="grouped")
    async def grouped() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep(1)
            except trio.Cancelled as error:
                kept = error
        raise BaseExceptionGroup("kept", [kept, ValueError("and this")])

    handles = [await rig.enqueue(shared), await rig.enqueue(grouped)]
    async with rig.worker(shared, grouped) as worker:
        for handle in handles:
            result = await handle.wait(timeout=1)
            assert result.state is TaskState.FAILED
            assert result.error.type in ("trio.Cancelled", "BaseExceptionGroup")
    assert worker.totals == only(failed=2)


@pytest.mark.parametrize("grouped", [False, True])
async def test_keyboard_interrupt(rig, autojump_clock, grouped):
    """G10: Ctrl-C in a handler ends the worker and is passed on; everything it held is given back, free of charge."""

    @task(name="interrupted")
    async def interrupted() -> None:
        await trio.sleep(1)
        if grouped:
            raise BaseExceptionGroup("from a nursery", [KeyboardInterrupt()])
        raise KeyboardInterrupt

    @task(name="bystander")
    async def bystander() -> None:
        await trio.sleep_forever()

    bystanders = await rig.enqueue_many(bystander, 5)
    handle = await rig.enqueue(interrupted)
    worker = rig.worker(interrupted, bystander, concurrency=6, prefetch=2)
    with pytest.raises(KeyboardInterrupt):
        await worker.run()
    assert await rig.places() == (6, 0, 0, 0)
    assert worker.totals == only(released=6)
    for task_id in [*bystanders, handle.id]:
        status = await rig.status(task_id)
        assert (status.state, status.attempt) == (TaskState.QUEUED, 0)
    assert all(waiting.attempt == 0 for waiting in await rig.broker.peek("default"))


async def test_errors_over_an_interrupt_elsewhere(rig, autojump_clock):
    """G7: what handlers raise over being cancelled, because the worker ends with an error, is no failure of theirs."""

    @task(name="interrupted")
    async def interrupted() -> None:
        await trio.sleep(1)
        raise KeyboardInterrupt

    @task(name="clumsy")
    async def clumsy() -> None:
        await _fail_when_cancelled()

    await rig.enqueue_many(clumsy, 3)
    await rig.enqueue(interrupted)
    worker = rig.worker(interrupted, clumsy)
    with pytest.raises(KeyboardInterrupt):
        await worker.run()
    assert await rig.places() == (4, 0, 0, 0)
    assert worker.totals == only(released=4)


async def test_shutdown_beats_the_hard_limit(rig, autojump_clock):
    """G7: a handler whose cleanup after a shutdown takes it past its hard limit has spent no attempt."""

    @task(name="slow.cleanup", hard_time_limit=10, visibility_timeout=300)
    async def slow_cleanup() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(8)
            raise ValueError("cleanup went wrong") from None

    await rig.enqueue(slow_cleanup)
    async with rig.worker(slow_cleanup) as worker:
        await trio.sleep(5)
        await worker.shutdown("hard")
    assert await rig.places() == READY
    assert worker.totals == only(released=1)


# --- errors that are hard to describe -----------------------------------------------------------------------------


class UnspeakableError(Exception):
    """Fails when asked what it is."""

    def __str__(self):
        raise RuntimeError("no words")


async def test_error_that_cannot_be_described(rig, autojump_clock):
    """An exception whose text cannot be had fails its task, not the worker."""

    @task(name="mute")
    async def mute() -> None:
        raise UnspeakableError

    handle = await rig.enqueue(mute)
    async with rig.worker(mute) as worker:
        result = await handle.wait(timeout=1)
    assert result.error.type.endswith("UnspeakableError")
    assert worker.totals == only(failed=1)


async def test_error_whose_traceback_cannot_be_had(rig, autojump_clock):
    """Nor does one on which the standard library's own formatting fails."""

    @task(name="broken")
    async def broken() -> None:
        error = SyntaxError("odd")
        error.filename, error.lineno, error.text = "f", 1, 5  # text ought to be text
        raise error

    handle = await rig.enqueue(broken)
    async with rig.worker(broken) as worker:
        error = (await handle.wait(timeout=1)).error
    assert (error.type, error.traceback) == ("SyntaxError", "<no traceback: AttributeError>")
    assert worker.totals == only(failed=1)


async def test_error_that_is_no_unicode(rig, autojump_clock):
    """An exception with half a surrogate pair in it (from a file name, say) can be stored by any backend."""

    @task(name="filename")
    async def filename() -> None:
        raise ValueError("no such file: \udcff")

    handle = await rig.enqueue(filename)
    async with rig.worker(filename):
        result = await handle.wait(timeout=1)
    assert result.error.message == "no such file: \\udcff"
    (await rig.status(handle)).encode()
    msgspec.json.encode(await rig.dead_letter(handle))


async def test_enormous_error(rig, autojump_clock):
    """G14: neither message nor traceback of an exception grow without bounds; both ends are kept."""

    @task(name="verbose")
    async def verbose() -> None:
        raise ValueError("start " + "x" * 1_000_000 + " end")

    handle = await rig.enqueue(verbose)
    async with rig.worker(verbose):
        error = (await handle.wait(timeout=1)).error
    assert len(error.traceback) < 20_000
    assert "shortened" in error.traceback
    assert len(error.message) < 10_000
    assert error.message.startswith("start ")
    assert error.message.endswith(" end")
    assert len((await rig.dead_letter(handle)).detail) < 10_000


# --- isolation ----------------------------------------------------------------------------------------------------

_variable = contextvars.ContextVar("variable", default="clean")


async def test_context_variables_do_not_leak_between_runs(rig, autojump_clock):
    """A handler that sets a context variable sets it for its own run, whichever run made room for the next."""

    @task(name="setter")
    async def setter() -> str:
        seen = _variable.get()
        _variable.set("dirty")
        await trio.lowlevel.checkpoint()
        return seen

    ids = await rig.enqueue_many(setter, 10)
    async with rig.worker(setter, concurrency=2, prefetch=4):
        for task_id in ids:
            assert (await rig.stem.wait_for_task(task_id, timeout=1)).value == "clean"


async def test_listeners_before_a_run_share_its_context(rig, autojump_clock):
    """What a `task_prerun` listener sets is there in the handler: that is how tracing is bound to a run."""

    @task(name="reader")
    async def reader() -> str:
        return _variable.get()

    rig.signals.task_prerun.connect(lambda event: _variable.set(f"for {event.context.name}") and None)
    async with rig.worker(reader):
        assert await (await rig.enqueue(reader)).result(timeout=1) == "for reader"
    assert _variable.get() == "clean"


# --- asking for a retry -------------------------------------------------------------------------------------------


async def test_retry_on_request(rig, autojump_clock):
    """G7: `context.retry` ends the run; the next one comes after as long as asked, with one attempt more."""

    @task(name="polling", max_retries=1)
    async def polling(context: TaskContext) -> int:
        if context.attempt == 0:
            context.retry(after=90, reason="not ready")
        return context.attempt

    rig.listen()
    handle = await rig.enqueue(polling)
    began = trio.current_time()
    async with rig.worker(polling, retry_strategy=FixedRetryStrategy(5)) as worker:
        await trio.testing.wait_all_tasks_blocked()
        status = await rig.status(handle)
        assert (status.state, status.reason) == (TaskState.RETRYING, "not ready")
        assert status.next_retry_at == pytest.approx(rig.clock.now() + 90)
        assert await rig.places() == DELAYED
        assert await handle.result(timeout=100) == 1
    assert trio.current_time() - began == pytest.approx(90)
    assert worker.totals == only(retried=1, succeeded=1)
    event = rig.event("task_retry")
    assert (event.delay, event.reason, event.attempt) == (90, "not ready", 0)
    assert event.next_retry_at == to_datetime(status.next_retry_at)
    assert rig.heard == ["task_retry", "task_postrun", "task_succeeded", "task_postrun"]


async def test_retry_on_request_without_a_time(rig, autojump_clock):
    """Without `after` the worker's strategy says how long to wait."""

    @task(name="polling", max_retries=1)
    async def polling(context: TaskContext) -> None:
        if context.attempt == 0:
            context.retry()

    rig.listen("task_retry")
    handle = await rig.enqueue(polling)
    async with rig.worker(polling, retry_strategy=FixedRetryStrategy(5)):
        await handle.result(timeout=10)
    assert (rig.event("task_retry").delay, rig.event("task_retry").reason) == (5, None)


async def test_retry_on_request_within_nurseries(rig, autojump_clock):
    """A request that nurseries have wrapped is a request; beside another error it is part of a failure."""

    @task(name="deep", max_retries=1)
    async def deep(context: TaskContext) -> None:
        if context.attempt == 0:
            async with trio.open_nursery() as outer:
                outer.start_soon(trio.sleep_forever)
                async with trio.open_nursery():
                    context.retry(after=7, reason="wrapped")

    @task(name="both", max_retries=1)
    async def both(context: TaskContext) -> None:
        if context.attempt == 0:
            raise ExceptionGroup("two", [ValueError(), TaskRetryRequest(7.0, "not alone")])

    rig.listen("task_retry")
    async with rig.worker(deep, both, retry_strategy=FixedRetryStrategy(5)):
        await (await rig.enqueue(deep)).result(timeout=10)
        await (await rig.enqueue(both)).result(timeout=10)
    [(_, first), (_, second)] = rig.events
    assert (first.delay, first.reason, first.error.type) == (7, "wrapped", "stem_trio.errors.TaskRetryRequest")
    assert (second.delay, second.reason, second.error.type) == (5, None, "ExceptionGroup")


async def test_retries_exhausted(rig, ledger, autojump_clock):
    """G7: a request for one run more than allowed is a failure."""

    @task(name="never.ready", max_retries=2)
    async def never_ready(context: TaskContext) -> None:
        with ledger.run(context):
            context.retry(after=10, reason="still not")

    rig.listen()
    handle = await rig.enqueue(never_ready)
    async with rig.worker(never_ready) as worker:
        result = await handle.wait(timeout=30)
    assert [run.attempt for run in ledger.runs] == [0, 1, 2]
    assert (result.state, result.reason, result.attempt) == (TaskState.FAILED, "max-retries-exhausted", 2)
    letter = await rig.dead_letter(handle)
    assert (letter.attempt, letter.deliveries, letter.strikes) == (2, 3, 0)
    assert worker.totals == only(retried=2, failed=1)


@pytest.mark.parametrize("after", [math.inf, math.nan, -1.0, "soon"])
async def test_request_with_an_impossible_time(rig, autojump_clock, after):
    """A request made by hand, whose time is none, is granted at the time of the strategy."""

    @task(name="odd", max_retries=1)
    async def odd(context: TaskContext) -> None:
        if context.attempt == 0:
            raise TaskRetryRequest(after)

    rig.listen("task_retry")
    handle = await rig.enqueue(odd)
    async with rig.worker(odd, retry_strategy=FixedRetryStrategy(5)):
        await handle.result(timeout=10)
    assert rig.event("task_retry").delay == 5


@pytest.mark.parametrize("by", ["request", "strategy", "policy"])
async def test_retry_in_the_far_future(rig, autojump_clock, by):
    """A delay beyond the calendar is cut to ten years, as the producer's are: it cannot be told of as a date."""
    far = 1e12

    policy = RetryPolicy(base=far, max=far, jitter=0) if by == "policy" else None

    @task(name="patient", max_retries=1, retry_policy=policy)
    async def patient(context: TaskContext) -> None:
        if by == "request":
            context.retry(after=far)
        raise ValueError

    rig.listen("task_retry")
    handle = await rig.enqueue(patient)
    async with rig.worker(patient, retry_strategy=FixedRetryStrategy(far)) as worker:
        await trio.testing.wait_all_tasks_blocked()
        assert (await rig.status(handle)).state is TaskState.RETRYING
    assert rig.event("task_retry").delay == 10 * 365 * 86_400
    assert worker.totals == only(retried=1)


@pytest.mark.parametrize("reason", [ConnectionError("away"), "half \udcff", "x" * 100_000])
async def test_reason_that_cannot_be_stored_as_it_is(rig, autojump_clock, reason):
    """Whatever a handler gives as reason, an exception for instance, becomes text that any backend can store."""

    @task(name="excuse", max_retries=1)
    async def excuse(context: TaskContext) -> None:
        context.retry(after=60, reason=reason)

    handle = await rig.enqueue(excuse)
    async with rig.worker(excuse):
        await trio.testing.wait_all_tasks_blocked()
        status = await rig.status(handle)
        assert status.state is TaskState.RETRYING
        assert TaskStatus.decode(status.encode()) == status
        assert len(status.reason) < 10_000


# --- children -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [False, True])
async def test_children(rig, autojump_clock, by_name):
    """A child has lineage and trace headers of its parent, and nothing else."""
    seen = []

    @task(name="child")
    async def child(context: TaskContext, depth: int) -> None:
        seen.append(context)
        if depth < 2:
            await submit(context, depth + 1)

    async def submit(context, depth):
        if by_name:
            return await context.enqueue("child", {"depth": depth})
        return str(await child.with_options().enqueue(context, depth))

    headers = {"traceparent": "00-1", "tracestate": "a=b", "baggage": "k=v", "authorization": "secret"}
    handle = await rig.enqueue(
        child,
        0,
        headers=headers,
        meta={"customer": 7},
        priority=9,
        max_retries=5,
        expires=60,
        visibility_timeout=77,
        soft_time_limit=10,
        hard_time_limit=20,
        queue="special",
    )
    async with rig.worker(child, queues=["special", "default"]) as worker:
        with trio.fail_after(10):
            while len(seen) < 3 or worker.in_flight:
                await worker.wait_settled()
    first, second, third = seen
    assert (first.parent_id, first.root_id) == (None, handle.id)
    assert (second.parent_id, second.root_id) == (handle.id, handle.id)
    assert (third.parent_id, third.root_id) == (second.id, handle.id)
    for context in (second, third):
        assert context.headers == {"traceparent": "00-1", "tracestate": "a=b", "baggage": "k=v"}
        assert context.meta == {}
        assert context.queue == "default"
        envelope = context._delivery.envelope
        assert (envelope.priority, envelope.max_retries, envelope.expires_at) == (0, 0, None)
        assert (envelope.visibility_timeout, envelope.soft_time_limit, envelope.hard_time_limit) == (30, None, None)
        assert envelope.parent_attempt == 0
    status = await rig.status(third.id)
    assert (status.parent_id, status.root_id) == (second.id, handle.id)


async def test_child_of_a_retry_names_the_attempt(rig, autojump_clock):
    """A child knows which attempt of its parent made it."""
    children = []

    @task(name="leaf")
    async def leaf(context: TaskContext) -> None:
        children.append(context._delivery.envelope)

    @task(name="parent", max_retries=1)
    async def parent(context: TaskContext) -> None:
        await leaf.with_options(headers={"traceparent": "own"}).enqueue(context)
        if context.attempt == 0:
            raise ValueError

    handle = await rig.enqueue(parent, headers={"traceparent": "parents"})
    async with rig.worker(parent, leaf) as worker:
        await handle.result(timeout=1)
        with trio.fail_after(10):
            while len(children) < 2 or worker.in_flight:
                await worker.wait_settled()
    assert [envelope.parent_attempt for envelope in children] == [0, 1]
    assert {envelope.headers["traceparent"] for envelope in children} == {"own"}


# --- what is seen of a run, and what it sees ----------------------------------------------------------------------


async def test_running_status_and_progress(rig, autojump_clock):
    """G5: while it runs, a task's status says so, since when, where, and how far it is."""
    reached = trio.Event()
    go_on = trio.Event()

    @task(name="long")
    async def long(context: TaskContext) -> str:
        await trio.sleep(3)
        await context.progress(10)
        await context.progress(50, {"rows": 5})
        reached.set()
        await go_on.wait()
        return "done"

    handle = await rig.enqueue(long)
    assert (await handle.status()).state is TaskState.QUEUED
    began = rig.clock.now()
    async with rig.worker(long) as worker:
        await trio.testing.wait_all_tasks_blocked()
        status = await handle.status()
        assert (status.state, status.worker, status.progress) == (TaskState.RUNNING, worker.id, None)
        assert status.started_at == pytest.approx(began)
        await reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        status = await handle.status()
        assert status.state is TaskState.RUNNING
        assert (status.progress.percent, status.progress.decode()) == (50, {"rows": 5})
        assert status.progress.at == pytest.approx(began + 3)
        assert status.started_at == pytest.approx(began)
        go_on.set()
        assert await handle.result(timeout=1) == "done"
    assert (await handle.status()).started_at == pytest.approx(began)


async def test_progress_that_json_cannot_hold(rig, autojump_clock):
    """G15: progress with data that cannot be stored is refused by name, in the handler."""

    @task(name="opaque")
    async def opaque(context: TaskContext) -> None:
        await context.progress(1, object())

    handle = await rig.enqueue(opaque)
    async with rig.worker(opaque):
        result = await handle.wait(timeout=1)
    assert result.error.type.endswith(SerializationError.__name__)


async def test_progress_after_the_end(rig, autojump_clock):
    """G5: a report that comes after the end, from a task that outlived its handler, changes nothing."""
    contexts = []

    @task(name="leaky")
    async def leaky(context: TaskContext) -> str:
        contexts.append(context)
        return "done"

    handle = await rig.enqueue(leaky)
    async with rig.worker(leaky):
        await handle.result(timeout=1)
        await contexts[0].progress(50)
        await trio.testing.wait_all_tasks_blocked()
        assert (await handle.status()).state is TaskState.SUCCEEDED
        assert (await handle.status()).progress is None


async def test_what_the_context_tells(rig, autojump_clock):
    """A handler sees its task, its worker, and its limits."""
    seen = {}

    @task(name="curious", hard_time_limit=60, soft_time_limit=30, max_retries=1, visibility_timeout=40)
    async def curious(context: TaskContext) -> None:
        seen["deadline"] = context.deadline - trio.current_time()
        seen["lease"] = context.cancel_scope.deadline - trio.current_time()
        seen["worker"] = context.worker
        seen["soft"] = context.soft_limit_reached.is_set()
        seen["cancelled"] = context.cancelled.is_set()

    @task(name="unlimited")
    async def unlimited(context: TaskContext) -> None:
        seen["unlimited"] = context.deadline

    async with rig.worker(curious, unlimited) as worker:
        await (await rig.enqueue(curious)).result(timeout=1)
        await (await rig.enqueue(unlimited)).result(timeout=1)
    assert seen == {
        "deadline": pytest.approx(60),
        "lease": pytest.approx(40),
        "worker": worker.id,
        "soft": False,
        "cancelled": False,
        "unlimited": math.inf,
    }


async def test_class_and_function_handlers(rig, autojump_clock):
    """Tasks without a signature get context and arguments as they are."""

    async def entrypoint(context, args):
        return [context.name, dict(args)]

    handler = FunctionTaskHandler("email.send", entrypoint, options=TaskOptions(max_retries=2))
    stem = rig.worker(handler).stem
    task_id = await stem.enqueue("email.send", {"to": "a@b.c"})
    async with rig.worker(handler):
        assert (await stem.wait_for_task(task_id, timeout=1)).value == ["email.send", {"to": "a@b.c"}]


async def test_inline_sync_handler(rig, autojump_clock):
    """A sync function may be told to run on the loop; nothing is awaited for it."""

    @task(name="quick", isolation="inline")
    def quick(value: int) -> int:
        return value * 2

    async with rig.worker(quick):
        assert await (await rig.enqueue(quick, 4)).result(timeout=1) == 8


# --- listeners before a run ---------------------------------------------------------------------------------------


async def test_listeners_are_awaited_before_the_handler(rig, autojump_clock):
    """`task_received`, then `task_prerun`, then the handler; `started_at` is when the handler starts."""
    order = []

    @task(name="listened")
    async def listened(context: TaskContext) -> None:
        order.append("handler")

    @rig.signals.task_received.connect
    async def received(event):
        await trio.sleep(2)
        order.append(("received", event.task_name, event.attempt, event.deliveries))

    @rig.signals.task_prerun.connect
    async def prerun(event):
        await trio.sleep(3)
        order.append(("prerun", event.context.id == event.task_id))

    handle = await rig.enqueue(listened)
    began = rig.clock.now()
    async with rig.worker(listened) as worker:
        await handle.result(timeout=10)
        assert worker.id == (await rig.status(handle)).worker
    assert order == [("received", "listened", 0, 1), ("prerun", True), "handler"]
    assert (await rig.status(handle)).started_at == pytest.approx(began + 5)


async def test_received_alone(rig, autojump_clock):
    """A listener of `task_received` alone is told of a handler that wants no context."""

    @task(name="plain")
    async def plain() -> None: ...

    rig.listen("task_received")
    async with rig.worker(plain):
        await (await rig.enqueue(plain)).result(timeout=1)
    assert rig.heard == ["task_received"]


async def test_listener_that_fails_or_hangs(rig, autojump_clock):
    """Listeners cannot hurt a task: one that raises is reported, one that hangs is given up."""

    @task(name="listened", visibility_timeout=5)
    async def listened() -> str:
        return "ran"

    @rig.signals.task_received.connect
    def broken(event):
        raise ValueError("bad listener")

    @rig.signals.task_prerun.connect
    async def hanging(event):
        await trio.sleep_forever()

    async with rig.worker(listened):
        assert await (await rig.enqueue(listened)).result(timeout=100) == "ran"
    assert [(name, type(error)) for name, error in rig.listener_errors] == [
        ("task_received", ValueError),
        ("task_prerun", TimeoutError),
    ]


@pytest.mark.parametrize("how", ["revoke", "lease"])
async def test_cancelled_while_listeners_are_at_work(rig, ledger, autojump_clock, how):
    """A run that is cancelled before its handler has begun never starts it, even if the listener takes no notice."""

    @task(name="prevented", visibility_timeout=20)
    async def prevented(context: TaskContext) -> None:
        with ledger.run(context):
            pass  # no checkpoint: nothing would stop it once started

    @rig.signals.task_prerun.connect
    async def slow(event):
        if event.deliveries == 1:
            with trio.CancelScope(shield=True):
                await trio.sleep(25 if how == "lease" else 10)

    handle = await rig.enqueue(prevented)
    if how == "lease":
        rig.faults.fail("broker.renew")
    async with rig.worker(prevented) as worker:
        await trio.sleep(5)
        if how == "revoke":
            await handle.revoke()
        result = await handle.wait(timeout=60)
    if how == "revoke":
        assert result.state is TaskState.REVOKED
        assert (await rig.status(handle)).started_at is None
        assert worker.totals == only(revoked=1)
        assert ledger.runs == []
    else:
        assert result.state is TaskState.SUCCEEDED
        assert worker.totals == only(lease_lost=1, succeeded=1)
        assert [run.deliveries for run in ledger.runs] == [2]


# --- leases, from inside ------------------------------------------------------------------------------------------


async def test_heartbeat_of_a_handler(rig, autojump_clock):
    """`context.heartbeat` renews the lease at once, and the next renewal counts from there."""
    deadlines = []

    @task(name="beating", visibility_timeout=30)
    async def beating(context: TaskContext) -> None:
        began = trio.current_time()
        await trio.sleep(9)
        await context.heartbeat()
        deadlines.append(context.cancel_scope.deadline - began)
        await trio.sleep(9.5)  # the renewal that was due at 10 is due at 19 now
        deadlines.append(context.cancel_scope.deadline - began)
        await trio.sleep(1)
        deadlines.append(context.cancel_scope.deadline - began)

    async with rig.worker(beating):
        await (await rig.enqueue(beating)).result(timeout=30)
    assert deadlines == [pytest.approx(39), pytest.approx(39), pytest.approx(49)]
    assert rig.faults.trace.count("broker.renew:before") == 2


async def test_heartbeat_that_cannot_reach_the_broker(rig, autojump_clock):
    """G11: the handler is told, the lease stands as it was, and the worker goes on trying."""
    caught = []

    @task(name="beating", visibility_timeout=30)
    async def beating(context: TaskContext) -> str:
        rig.faults.fail("broker.renew", times=1)
        try:
            await context.heartbeat()
        except StoreUnavailableError as error:
            caught.append(error)
        await trio.sleep(60)
        return "fine"

    async with rig.worker(beating) as worker:
        assert await (await rig.enqueue(beating)).result(timeout=100) == "fine"
    assert len(caught) == 1
    assert worker.totals == only(succeeded=1)
