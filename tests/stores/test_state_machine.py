"""Any history of a store, as far as hypothesis can think of one, is the one that the model has."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from stem_trio.stores.memory import InMemoryBroker, InMemoryResultBackend
from tests.stores.state_machine import StoreMachine, StoresUnderTest


def open_memory(stepper):
    return stepper.enter(InMemoryBroker(dead_letter_retention=100.0)), stepper.enter(InMemoryResultBackend())


class MemoryMachine(StoreMachine):
    stores = StoresUnderTest(open=open_memory)


class InexactMachine(StoreMachine):
    """As a store on a server is driven: here it is about the machine itself, so the clock may be a fake one."""

    stores = StoresUnderTest(
        open=open_memory,
        exact=False,
        durations=st.sampled_from([0.5, 1000.0]),
        jumps=st.just(0.75),
        dead_letter_retention=1e6,
    )


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

TestInexact = InexactMachine.TestCase
TestInexact.settings = settings(max_examples=10, stateful_step_count=40, deadline=None)
