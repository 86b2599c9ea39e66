"""A state machine that drives any broker and result backend, and compares them with a plain model after every step.

A test for a store subclasses `StoreMachine` with a `stores` of its own::

    class Machine(StoreMachine):
        stores = StoresUnderTest(open=lambda stepper: (stepper.enter(MyBroker(...)), stepper.enter(MyBackend(...))))


    TestMyStores = Machine.TestCase

Whatever is published is new (ids and names of queues are), so a store may keep its content between examples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations

import attrs
import msgspec
import trio
import trio.testing
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stem_trio.abc import Broker, ResultBackend
from stem_trio.envelope import Delivery, Lease
from stem_trio.ids import new_task_id
from stem_trio.outcome import Complete, MoveToDead, Release, Retry
from stem_trio.status import Rank
from stem_trio.testing.contracts import make_envelope, make_status
from stem_trio.testing.contracts._make import RANKS
from stem_trio.testing.stepper import Started, Stepper

from .queue_model import BackendModel, BrokerModel

WORKERS = ("w1", "w2")
ACTIONS = (
    *["publish"] * 3,
    *["claim"] * 5,
    *["settle"] * 5,
    *["renew"] * 2,
    *["pass_time"] * 4,
    *["wait_for_work"] * 2,
    *["revoke", "purge", "purge_dead_letters"],
    *["replay"] * 2,
    *["record"] * 2,
)
"""What a step may be, weighted so that there is something to do for everybody."""
PATIENCE = 10.0

# Quarters are exact in binary, so that model and store come to the very same sums, and many moments coincide.
quarters = st.integers(1, 240).map(lambda n: n / 4)


@attrs.frozen(kw_only=True)
class StoresUnderTest:
    """How the machine gets its stores, and what it may expect of them.

    Attributes:
        open: returns an open broker and an open backend; called once for each example, with the run they live in.
        clock: makes the clock of that run; None for the real one. On the real one no time is taken to pass between two
            steps, so durations must be long against what a step takes, and `jumps` longer than the short ones of them.
        exact: whether time is exact, and what the memory stores say beyond the contract holds, too. False for stores
            on the real clock; then ready and delayed, and due and not due, are not told apart where it would take a
            clock reading to do so.
        durations: lengths of delays, leases and retentions.
        jumps: how much time passes at a time.
        dead_letter_retention: seconds for which the broker keeps dead letters.
    """

    open: Callable[[Stepper], tuple[Broker, ResultBackend]]
    clock: Callable[[], trio.abc.Clock | None] = trio.testing.MockClock
    exact: bool = True
    durations: st.SearchStrategy[float] = quarters
    jumps: st.SearchStrategy[float] = quarters
    dead_letter_retention: float = 100.0


class StoreMachine(RuleBasedStateMachine):
    """Producers, two workers and an operator at work on one store, in any order that hypothesis can think of.

    Each step makes one call and tells the model the same. Time passes in one kind of step only. A worker crashes by
    forgetting its leases: they are kept among the stale ones, by which a frozen worker may come back to settle.

    All steps are one rule: of several, hypothesis leaves out some for a whole example, and without those who publish or
    those who claim nothing of interest happens.
    """

    stores: StoresUnderTest

    @initialize(looking=st.booleans())
    def begin(self, looking):
        self.stepper = Stepper(clock=self.stores.clock())
        self.stepper.open()
        self.broker, self.backend = self.stores.open(self.stepper)
        self.model = BrokerModel(self.stores.dead_letter_retention, self.stores.exact)
        self.results = BackendModel()
        unique = new_task_id()
        self.queues = [f"{unique}-{name}" for name in ("a", "b|:{}")]
        self.task_ids: list[str] = []  # every id that was ever published
        self.homes: dict[str, str] = {}  # in which queue it was
        self.status_ids = [new_task_id() for _ in range(3)]
        self.held: dict[str, list[Lease]] = {worker: [] for worker in WORKERS}  # what each worker thinks it holds
        self.used: list[Lease] = []  # leases that were settled, or forgotten in a crash
        self.waiting: Started[list[Delivery]] | None = None
        self.wait_queues: list[str] = []
        self.wait_limit = 0
        # Looking at a queue makes a store tidy up; bugs that hide behind that are found in the runs without.
        self.looking = looking
        self.time = 0.0

    def teardown(self):
        if not hasattr(self, "stepper"):
            return
        try:
            if self.waiting is not None:
                assert self.waiting.cancel() == []
                self.waiting = None
            self.looking = True
            self.matches_the_model()
        finally:
            self.stepper.close()

    # --- steps --------------------------------------------------------------------------------------------------------

    @rule(action=st.sampled_from(ACTIONS), data=st.data())
    def step(self, action, data):
        getattr(self, action)(data)

    def call(self, function, *args, **options):
        """One call: the moment at which it was made, to which the model is brought up too, and what it returned."""

        async def call():
            return trio.current_time(), await function(*args, **options)

        now, result = self.stepper.run(call)  # one step: each is two changes of threads, most of what this test takes
        if not self.stores.exact:
            now = self.time
        self.model.advance(now)
        self.results.advance(now)
        return now, result

    def leases(self):
        return self.believed() + self.used

    def believed(self):
        return [lease for held in self.held.values() for lease in held]

    def draw_leases(self, data):
        """Good ones mostly, then those that workers believe in, or any there ever were; perhaps one of them twice."""
        good = [lease for lease in self.leases() if self.model.held_by(lease)]
        choice = data.draw(st.sampled_from([good, good, self.believed(), self.leases()]))
        return self.draw_some(data, choice or self.leases(), max_size=4)

    def draw_some(self, data, items, max_size=3):
        return data.draw(st.lists(st.sampled_from(items), min_size=1, max_size=max_size))

    def draw_duration(self, data):
        return data.draw(self.stores.durations)

    def draw_delay(self, data):
        return data.draw(st.one_of(st.just(0.0), st.just(0.0), self.stores.durations))

    def draw_settlement(self, data):
        return data.draw(
            st.one_of(
                st.just(Complete()),
                st.builds(Retry, st.one_of(st.just(0.0), self.stores.durations)),
                st.just(MoveToDead("reason", "detail")),
                st.just(Release()),
            )
        )

    # --- producers ----------------------------------------------------------------------------------------------------

    def publish(self, data):
        """New tasks for either queue; and such that are held, or were once, as by a producer that repeats itself."""
        batch = [
            make_envelope(
                queue=data.draw(st.sampled_from(self.queues)),
                priority=data.draw(st.sampled_from([0, 0, 0, 3, 9])),
                visibility_timeout=self.draw_duration(data),
            )
            for _ in range(data.draw(st.integers(1, 5)))
        ]
        if data.draw(st.booleans()):
            task_ids = self.draw_some(data, [*self.task_ids, batch[0].id])
            homes = {batch[0].id: batch[0].queue, **self.homes}
            batch += [make_envelope(queue=homes[task_id], id=task_id) for task_id in task_ids]
        delay = self.draw_delay(data)
        now, answers = self.call(self.broker.publish, batch, delay=delay)
        assert answers == [self.model.publish(envelope, now, delay) for envelope in batch]
        self.homes |= {envelope.id: envelope.queue for envelope in batch}
        self.task_ids = list(self.homes)

    # --- workers ------------------------------------------------------------------------------------------------------

    def claim(self, data):
        worker = data.draw(st.sampled_from(WORKERS))
        limit = data.draw(st.integers(1, 4))
        queues = data.draw(st.sampled_from([self.queues, self.queues[:1], self.queues[1:]]))
        now, deliveries = self.call(self.broker.claim, queues, consumer=worker, limit=limit, wait=0)
        self.model.claim(queues, limit, deliveries, now)
        self.held[worker] += [delivery.lease for delivery in deliveries]

    def wait_for_work(self, data):
        """A claim that stays until there is something; whenever that is, an invariant below sees that it comes."""
        if self.waiting is not None:
            self.stop_waiting()
        self.wait_queues = data.draw(st.sampled_from([self.queues, self.queues[:1]]))
        self.wait_limit = limit = data.draw(st.integers(1, 3))
        self.waiting = self.stepper.start(
            partial(self.broker.claim, self.wait_queues, consumer=WORKERS[0], limit=limit, wait=float("inf"))
        )

    def stop_waiting(self):
        assert self.waiting.cancel() == []
        self.waiting = None

    def settle(self, data):
        if not self.leases():
            self.claim(data)
            return
        batch = [(lease, self.draw_settlement(data)) for lease in self.draw_leases(data)]
        now, answers = self.call(self.broker.settle, batch)
        assert answers == [self.model.settle(lease, settlement, now) for lease, settlement in batch]
        for lease, _ in batch:
            for held in self.held.values():
                if lease in held:
                    held.remove(lease)
                    self.used.append(lease)

    def renew(self, data):
        if not self.leases():
            self.claim(data)
            return
        batch = self.draw_leases(data)
        if data.draw(st.booleans()):
            batch = [msgspec.structs.replace(lease, duration=self.draw_duration(data)) for lease in batch]
        now, answers = self.call(self.broker.renew, batch)
        assert answers == [self.model.renew(lease, now) for lease in batch]

    def crash(self, worker):
        """A worker forgets what it holds."""
        self.used += self.held[worker]
        self.held[worker] = []

    # --- operators ----------------------------------------------------------------------------------------------------

    def draw_task_ids(self, data, queue, *places):
        """Ids in these places of the queue mostly, or any."""
        there = [task.id for task in self.model.at(queue, *places)]
        known = [*self.task_ids, "unknown"]
        return self.draw_some(data, data.draw(st.sampled_from([there, there, known])) or known)

    def revoke(self, data):
        queue = data.draw(st.sampled_from(self.queues))
        task_ids = self.draw_task_ids(data, queue, "ready", "delayed", "leased")
        reason = data.draw(st.sampled_from(["", "because"]))
        _, answers = self.call(self.broker.revoke, queue, task_ids, reason=reason)
        assert answers == [self.model.revoke(queue, task_id, reason) for task_id in task_ids]

    def purge(self, data):
        queue = data.draw(st.sampled_from(self.queues))
        everything = data.draw(st.sampled_from([True, False, False]))
        task_ids = None if everything else self.draw_task_ids(data, queue, "ready", "delayed")
        _, count = self.call(self.broker.purge, queue, task_ids)
        assert count == self.model.purge(queue, task_ids, "ready", "delayed")

    def purge_dead_letters(self, data):
        queue = data.draw(st.sampled_from(self.queues))
        everything = data.draw(st.sampled_from([True, False, False]))
        task_ids = None if everything else self.draw_task_ids(data, queue, "dead")
        _, count = self.call(self.broker.purge_dead_letters, queue, task_ids)
        assert count == self.model.purge(queue, task_ids, "dead")

    def replay(self, data):
        queue = data.draw(st.sampled_from(self.queues))
        task_ids = self.draw_task_ids(data, queue, "dead")
        delay = self.draw_delay(data)
        now, letters = self.call(self.broker.replay_dead_letters, queue, task_ids, delay=delay)
        assert len(letters) == len(task_ids)
        for task_id, letter in zip(task_ids, letters, strict=True):
            task = self.model.tasks.get(task_id)
            numbers = task and task.numbers
            assert (letter is not None) is self.model.replay(queue, task_id, now, delay)
            if letter is not None:
                assert letter.envelope == task.envelope
                assert (letter.attempt, letter.deliveries, letter.strikes) == numbers

    # --- statuses -----------------------------------------------------------------------------------------------------

    def record(self, data):
        """In any order: late, early, again."""
        batch = []
        for _ in range(data.draw(st.integers(1, 4))):
            deliveries = data.draw(st.integers(0, 3))
            state, rank = data.draw(st.sampled_from(RANKS))
            batch.append(
                make_status(
                    data.draw(st.sampled_from(self.status_ids)),
                    state,
                    deliveries=deliveries,
                    version=deliveries * Rank.SPAN + rank,
                    ttl=self.draw_duration(data),
                )
            )
        now, answers = self.call(self.backend.record, batch)
        assert answers == [self.results.record(status, now) for status in batch]

    # --- time ---------------------------------------------------------------------------------------------------------

    def pass_time(self, data):
        """And who was to do something meanwhile may have crashed."""
        for worker in data.draw(st.sampled_from([(), (), *combinations(WORKERS, 1), WORKERS])):
            self.crash(worker)
        jumps = self.stores.jumps
        if self.stores.exact:
            moments = sorted({task.until for task in self.model.tasks.values() if task.place != "ready"})
            if moments:  # the very moment at which something happens, or the last one before it
                ahead = st.sampled_from(moments).map(lambda moment: moment - self.stepper.now())
                jumps = st.one_of(jumps, ahead, ahead.map(lambda seconds: seconds - 0.25)).filter(lambda s: s > 0)
        seconds = data.draw(jumps)
        if self.waiting is not None and not self.stores.exact:
            self.stop_waiting()  # it would be served somewhere on the way, at a moment the model cannot know
        self.stepper.advance(seconds)
        self.time += seconds

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def matches_the_model(self):
        """Whoever waits for work is given it; every accepted task is in exactly one place, the one it should be in."""
        if self.waiting is not None:
            self.waiting_claim_is_served()
        if self.looking:
            now, (queues, statuses) = self.call(self.look)
            for queue, seen in queues.items():
                self.queue_matches(queue, now, *seen)
            assert statuses == {task_id: self.results.get(task_id) for task_id in self.status_ids}

    def waiting_claim_is_served(self):
        now, _ = self.call(trio.testing.wait_all_tasks_blocked)
        if not any(self.model.at(queue, "ready") for queue in self.wait_queues):
            assert not self.waiting.ended
            return
        # Under a clock that stands still nothing would end a wait for what does not come.
        assert self.waiting.ended or not self.stores.exact, "a claim was not woken"
        deliveries = self.waiting.result(PATIENCE)
        assert deliveries, "a claim that waits for ever came back with nothing"
        self.model.claim(self.wait_queues, self.wait_limit, deliveries, now)
        self.held[WORKERS[0]] += [delivery.lease for delivery in deliveries]
        self.waiting = None

    async def look(self):
        """Everything that can be seen of the stores."""
        broker = self.broker
        queues = {
            queue: (
                await broker.stats(queue),
                await broker.peek(queue, limit=1000),
                await broker.list_dead_letters(queue, limit=1000),
            )
            for queue in self.queues
        }
        return queues, {task_id: await self.backend.get(task_id) for task_id in self.status_ids}

    def queue_matches(self, queue, now, stats, shown, letters):
        ready, delayed, leased, dead = self.model.counts(queue)
        assert stats.dead == dead
        assert stats.unfinished == ready + delayed + leased
        if self.stores.exact:
            assert (stats.ready, stats.delayed, stats.leased) == (ready, delayed, leased)
            expected = self.model.waiting(queue)
            assert [waiting.envelope.id for waiting in shown] == [task.id for task in expected]
            for waiting, task in zip(shown, expected, strict=True):
                assert waiting.place == task.place
                assert waiting.due_in == (task.until - now if task.place == "delayed" else 0.0)
                assert (waiting.attempt, waiting.deliveries) == (task.attempt, task.deliveries)
            assert [letter.envelope.id for letter in letters] == [task.id for task in self.model.dead(queue)]
        # No task is shown in two places, and none that ought to be gone.
        places = [waiting.envelope.id for waiting in shown] + [letter.envelope.id for letter in letters]
        assert len(set(places)) == len(places)
        assert set(places) <= {task.id for task in self.model.at(queue, "ready", "delayed", "leased", "dead")}
        for letter in letters:
            task = self.model.tasks[letter.envelope.id]
            assert (letter.attempt, letter.deliveries, letter.strikes) == task.numbers
            assert (letter.reason, letter.detail) == (task.reason, task.detail)
