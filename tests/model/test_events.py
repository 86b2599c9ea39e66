"""What signals carry."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stem_trio import events
from stem_trio.events import PublishEvent, TaskEvent, TaskReleased, TaskRetry, WorkerEvent, WorkerStopped

from .support import BOOM, make_envelope

MOMENT = datetime(2025, 1, 2, tzinfo=UTC)
RUN = {"envelope": make_envelope(), "attempt": 1, "deliveries": 2, "worker": "w", "occurred_at": MOMENT}


@pytest.mark.parametrize("name", events.__all__)
def test_every_event_is_an_immutable_record(name):
    """Events are shared by listeners: no field can be changed, and each is given by name."""
    kind = getattr(events, name)
    assert "occurred_at" in kind.__struct_fields__
    with pytest.raises(TypeError, match="positional"):
        kind(MOMENT)
    event = kind(**dict.fromkeys(kind.__struct_fields__))
    with pytest.raises(AttributeError, match="immutable"):
        event.occurred_at = MOMENT


@pytest.mark.parametrize("name", events.__all__)
def test_events_belong_to_publishing_a_task_or_a_worker(name):
    """A listener can be written for all events of a task, or of a worker."""
    assert issubclass(getattr(events, name), PublishEvent | TaskEvent | WorkerEvent)


def test_task_events_name_their_task():
    """The task's id and name can be read from the event itself."""
    event = TaskRetry(**RUN, error=BOOM, reason=None, delay=2.0, next_retry_at=MOMENT)
    assert (event.task_id, event.task_name) == ("id-1", "mail.send")


def test_events_compare_by_value():
    """Two events of different kinds, or of different content, are different."""
    assert TaskReleased(**RUN, started=True) == TaskReleased(**RUN, started=True)
    assert TaskReleased(**RUN, started=True) != TaskReleased(**RUN, started=False)
    worker = {"worker": "w", "queues": ("a",), "occurred_at": MOMENT}
    assert WorkerEvent(**worker) != WorkerStopped(**worker, mode="warm")
