"""Soft and hard time limits."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from stem_trio import FixedRetryStrategy, SoftTimeLimitError, TaskContext, TaskState, task
from stem_trio.worker.held import Phase
from stem_trio.worker.limits import SoftLimits

# --- soft ---------------------------------------------------------------------------------------------------------


async def test_soft_limit_sets_the_event(rig, autojump_clock):
    """At the soft limit the event is set and a signal sent, once; the handler goes on to succeed."""

    @task(name="long", soft_time_limit=60)
    async def long(context: TaskContext) -> float:
        began = trio.current_time()
        await context.soft_limit_reached.wait()
        reached = trio.current_time() - began
        await trio.sleep(1000)
        return reached

    rig.listen("task_soft_timeout", "task_succeeded")
    async with rig.worker(long) as worker:
        assert await (await rig.enqueue(long)).result(timeout=2000) == pytest.approx(60)
    assert rig.heard == ["task_soft_timeout", "task_succeeded"]
    event = rig.event("task_soft_timeout")
    assert (event.task_name, event.limit, event.attempt, event.deliveries) == ("long", 60, 0, 1)
    assert event.worker == worker.id


async def test_soft_limit_that_nobody_looks_at(rig, autojump_clock):
    """A handler that does not look, and no listeners: nothing happens."""

    @task(name="deaf", soft_time_limit=1)
    async def deaf() -> str:
        await trio.sleep(10)
        return "done"

    async with rig.worker(deaf):
        assert await (await rig.enqueue(deaf)).result(timeout=20) == "done"


async def test_soft_limit_is_per_call_and_counts_from_the_handler(rig, autojump_clock):
    """Limits of a call count; time that listeners take before the handler does not."""

    @task(name="long", soft_time_limit=60)
    async def long(context: TaskContext) -> float:
        began = trio.current_time()
        await context.soft_limit_reached.wait()
        return trio.current_time() - began

    @rig.signals.task_prerun.connect
    async def slow(event):
        await trio.sleep(5)

    async with rig.worker(long):
        assert await (await rig.enqueue(long, soft_time_limit=3)).result(timeout=20) == pytest.approx(3)


async def test_many_soft_limits_in_order(rig, autojump_clock):
    """Each run has its own limit, whatever the order in which they started."""
    reached = []

    @task(name="long", soft_time_limit=1)
    async def long(context: TaskContext, limit: float) -> None:
        began = trio.current_time()
        await context.soft_limit_reached.wait()
        assert trio.current_time() - began == pytest.approx(limit)
        reached.append(limit)

    limits = [30, 10, 50, 20, 40]
    async with rig.worker(long):
        handles = [await rig.enqueue(long, limit, soft_time_limit=limit) for limit in limits]
        for handle in handles:
            await handle.result(timeout=100)
    assert reached == sorted(limits)


async def test_raise_at_soft_limit(rig, autojump_clock):
    """A block under `raise_at_soft_limit` is cut short at the limit; what comes after it is not."""

    @task(name="partial", soft_time_limit=10)
    async def partial(context: TaskContext) -> list[str]:
        done = []
        with context.raise_at_soft_limit():
            await trio.sleep(4)
            done.append("first")
        try:
            with context.raise_at_soft_limit():
                await trio.sleep(4)
                done.append("second")
                await trio.sleep(4)
                done.append("never")
        except SoftTimeLimitError:
            done.append(f"cut at {trio.current_time() - began:g}")
        await trio.sleep(100)
        return done

    async with rig.worker(partial):
        began = trio.current_time()
        result = await (await rig.enqueue(partial)).result(timeout=200)
    assert result == ["first", "second", "cut at 10"]


async def test_raise_at_soft_limit_several_blocks(rig, autojump_clock):
    """Blocks of several tasks of one handler are all cut short."""

    @task(name="fan", soft_time_limit=10)
    async def fan(context: TaskContext) -> int:
        cut = 0

        async def part() -> None:
            nonlocal cut
            try:
                with context.raise_at_soft_limit():
                    await trio.sleep_forever()
            except SoftTimeLimitError:
                cut += 1

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(part)
        return cut

    async with rig.worker(fan):
        assert await (await rig.enqueue(fan)).result(timeout=20) == 3


async def test_raise_at_soft_limit_too_late(rig, autojump_clock):
    """A block that begins after the limit is cut short at its first checkpoint."""

    @task(name="late", soft_time_limit=10)
    async def late(context: TaskContext) -> float:
        await trio.sleep(15)
        began = trio.current_time()
        with pytest.raises(SoftTimeLimitError):
            with context.raise_at_soft_limit():
                await trio.sleep_forever()
        return trio.current_time() - began

    async with rig.worker(late):
        assert await (await rig.enqueue(late)).result(timeout=20) == 0


async def test_unhandled_soft_limit_is_a_failure(rig, autojump_clock):
    """A handler that lets the error out has failed, and is retried like any failure."""

    @task(name="plain", soft_time_limit=10, max_retries=1)
    async def plain(context: TaskContext) -> str:
        if context.attempt == 0:
            with context.raise_at_soft_limit():
                await trio.sleep_forever()
        return "second time"

    rig.listen("task_retry")
    async with rig.worker(plain):
        assert await (await rig.enqueue(plain)).result(timeout=20) == "second time"
    assert rig.event("task_retry").error.type == "stem_trio.errors.SoftTimeLimitError"


async def test_soft_limit_without_a_limit(rig, autojump_clock):
    """A task without a soft limit may use the block; nothing ever cuts it short."""

    @task(name="free")
    async def free(context: TaskContext) -> bool:
        with context.raise_at_soft_limit():
            await trio.sleep(1000)
        return context.soft_limit_reached.is_set()

    async with rig.worker(free):
        assert await (await rig.enqueue(free)).result(timeout=2000) is False


async def test_short_tasks_under_soft_limits_do_not_pile_up(rig, autojump_clock, monkeypatch):
    """G9: entries of runs that ended before their limit are cleared away, long before their limit."""
    lengths = []
    add = SoftLimits.add

    def spy(self, held, limit):
        add(self, held, limit)
        lengths.append(len(self._heap))

    monkeypatch.setattr(SoftLimits, "add", spy)

    @task(name="short", soft_time_limit=86_400)
    async def short() -> None: ...

    @task(name="long", soft_time_limit=3600)
    async def long(context: TaskContext) -> None:
        await context.soft_limit_reached.wait()

    handle = await rig.enqueue(long, priority=9)
    for _ in range(5):
        await rig.enqueue_many(short, 1000)
    async with rig.worker(short, long, concurrency=8) as worker:
        began = trio.current_time()
        await handle.result(timeout=4000)  # its entry was not cleared away with the others
        assert trio.current_time() - began == pytest.approx(3600)
    assert worker.totals["succeeded"] == 5001
    assert len(lengths) == 5001
    assert max(lengths) <= 1024


async def test_soft_limits_that_all_live_raise_the_mark():
    """Clearing away is put off while nothing can be cleared away: it must not be tried for each task."""

    class Entry:
        phase = Phase.RUNNING

    limits = SoftLimits(None, None)
    for _ in range(1023):
        limits.add(Entry(), 60)
    assert limits._compact_at == 1024
    limits.add(Entry(), 60)
    assert limits._compact_at == 2048
    for held in [entry[2] for entry in limits._heap[:1000]]:
        held.phase = Phase.FINISHED
    for _ in range(1024):
        limits.add(Entry(), 60)
    assert len(limits._heap) == 1048
    assert limits._compact_at == 2096


# --- hard ---------------------------------------------------------------------------------------------------------


async def test_hard_limit(rig, ledger, autojump_clock):
    """G8: at the hard limit the handler is cancelled; without retries the task has failed."""

    @task(name="endless", hard_time_limit=300)
    async def endless(context: TaskContext) -> None:
        with ledger.run(context):
            await trio.sleep_forever()

    rig.listen()
    handle = await rig.enqueue(endless)
    async with rig.worker(endless) as worker:
        result = await handle.wait(timeout=301)
    assert (result.state, result.reason) == (TaskState.FAILED, "max-retries-exhausted")
    assert result.error.type == "stem_trio.errors.HardTimeLimitError"
    assert "300 s" in result.error.message
    assert ledger.ends == ["Cancelled"]
    assert ledger.runs[0].ended - ledger.runs[0].began == pytest.approx(300)
    assert (await rig.dead_letter(handle)).reason == "max-retries-exhausted"
    assert worker.totals["failed"] == 1
    assert rig.heard == ["task_failed", "task_dead_lettered", "task_postrun"]


async def test_hard_limit_cancels_before_the_retry_is_visible(rig, ledger, autojump_clock):
    """The retry of a run that timed out starts when that run has ended, its cleanup included, and not before."""

    @task(name="slow", hard_time_limit=10, max_retries=1)
    async def slow(context: TaskContext) -> str:
        with ledger.run(context):
            if context.attempt:
                return "second time"
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(5)
                    states.append((await context_status()).state)
                    places.append(await rig.places())

    async def context_status():
        return await rig.status(handle)

    states, places = [], []
    handle = await rig.enqueue(slow)
    async with rig.worker(slow, retry_strategy=FixedRetryStrategy(0)) as worker:
        assert await handle.result(timeout=60) == "second time"
    assert states == [TaskState.RUNNING]
    assert places == [(0, 0, 1, 0)]
    first, second = ledger.runs
    assert first.ended - first.began == pytest.approx(15)
    assert second.began >= first.ended
    assert ledger.overlaps == []
    assert (worker.totals["retried"], worker.totals["succeeded"]) == (1, 1)


async def test_hard_limit_and_a_handler_that_ends_all_the_same(rig, autojump_clock):
    """What was done is done: a handler that returns after its hard limit has succeeded."""

    @task(name="stubborn", hard_time_limit=10, max_retries=3)
    async def stubborn() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)
        return "done"

    async with rig.worker(stubborn) as worker:
        assert await (await rig.enqueue(stubborn)).result(timeout=30) == "done"
    assert worker.totals["succeeded"] == 1


async def test_error_after_the_hard_limit(rig, autojump_clock):
    """An error raised past the limit, without the handler having noticed it, counts as the limit."""

    @task(name="blind", hard_time_limit=10)
    async def blind() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)
        raise ValueError("too late to matter")

    async with rig.worker(blind):
        result = await (await rig.enqueue(blind)).wait(timeout=30)
    assert result.error.type == "stem_trio.errors.HardTimeLimitError"


async def test_soft_then_hard(rig, autojump_clock):
    """Both limits of one run count from its beginning."""
    times = []

    @task(name="both", soft_time_limit=10, hard_time_limit=30)
    async def both(context: TaskContext) -> None:
        began = trio.current_time()
        assert context.deadline == began + 30
        try:
            await context.soft_limit_reached.wait()
            times.append(trio.current_time() - began)
            await trio.sleep_forever()
        finally:
            times.append(trio.current_time() - began)

    rig.listen("task_soft_timeout", "task_failed")
    async with rig.worker(both):
        await (await rig.enqueue(both)).wait(timeout=31)
    assert times == [pytest.approx(10), pytest.approx(30)]
    assert rig.heard == ["task_soft_timeout", "task_failed"]


async def test_a_run_within_its_limits(rig, autojump_clock):
    """Limits that are not reached change nothing, and an error within them is the handler's."""

    @task(name="quick", soft_time_limit=10, hard_time_limit=30)
    async def quick(fail: bool) -> str:
        await trio.sleep(5)
        if fail:
            raise ValueError("mine")
        return "in time"

    rig.listen("task_soft_timeout")
    async with rig.worker(quick):
        assert await (await rig.enqueue(quick, False)).result(timeout=6) == "in time"
        assert (await (await rig.enqueue(quick, True)).wait(timeout=6)).error.message == "mine"
        await trio.sleep(100)
    assert rig.heard == []
