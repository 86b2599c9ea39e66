"""Celery with Redis for both broker and results."""

from __future__ import annotations

import time

from celery import Celery

from rivals.drive import PATIENCE, ThreadProducer
from rivals.mark import begin, end, mark
from rivals.settings import URL

app = Celery("rivals", broker=URL, backend=URL)


@app.task(name="noop")
def noop(number: int) -> None:
    """Count."""
    mark()


@app.task(name="echo")
def echo(number: int) -> int:
    """Return the argument."""
    return number


@app.task(name="sleeper")
def sleeper(number: int) -> None:
    """Sleep."""
    begin()
    time.sleep(0.1)
    end()


class CeleryProducer(ThreadProducer):
    """Enqueues through the tasks."""

    def enqueue(self, number: int) -> None:
        """See `ThreadProducer.enqueue`."""
        noop.delay(number)

    def enqueue_sleeper(self, number: int) -> None:
        """See `ThreadProducer.enqueue_sleeper`."""
        sleeper.delay(number)

    def round_trip(self, number: int) -> object:
        """See `ThreadProducer.round_trip`."""
        result: object = echo.delay(number).get(timeout=PATIENCE)
        return result


producer = CeleryProducer
