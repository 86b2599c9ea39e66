"""Dramatiq with its Redis broker and results."""

from __future__ import annotations

import time
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from rivals.drive import PATIENCE, ThreadProducer
from rivals.mark import begin, end, mark
from rivals.settings import URL

broker: Any = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def noop(number: int) -> None:
    """Count."""
    mark()


@dramatiq.actor(store_results=True)
def echo(number: int) -> int:
    """Return the argument."""
    return number


@dramatiq.actor(store_results=True)
def sleeper(number: int) -> None:
    """Sleep."""
    begin()
    time.sleep(0.1)
    end()


class DramatiqProducer(ThreadProducer):
    """Enqueues through the actors."""

    def enqueue(self, number: int) -> None:
        """See `ThreadProducer.enqueue`."""
        noop.send(number)

    def enqueue_sleeper(self, number: int) -> None:
        """See `ThreadProducer.enqueue_sleeper`."""
        sleeper.send(number)

    def round_trip(self, number: int) -> object:
        """See `ThreadProducer.round_trip`."""
        result: object = echo.send(number).get_result(block=True, timeout=int(PATIENCE * 1000))
        return result


producer = DramatiqProducer
