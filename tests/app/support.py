"""What tests of apps share."""

from __future__ import annotations

from typing import Any

from stem_trio import InMemoryBroker, InMemoryResultBackend, StemApp, StemSignals
from stem_trio.clock import TrioClock
from stem_trio.testing.faults import Faults, FaultyBackend, FaultyBroker


class BugError(Exception):
    """Something that nobody has thought of."""


def make_app(*tasks, faults: Faults | None = None, **options: Any) -> StemApp:
    """An app in memory with signals of its own, on the clock of the test, whose stores may fail."""
    clock = TrioClock()
    faults = faults if faults is not None else Faults()
    options = {"signals": StemSignals(), "clock": clock} | options
    broker, backend = InMemoryBroker(clock=clock), InMemoryResultBackend()
    return StemApp(FaultyBroker(broker, faults), FaultyBackend(backend, faults), tasks=tasks, **options)
