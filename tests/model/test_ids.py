"""Identifiers of tasks and workers."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid

import pytest

from stem_trio.ids import _Sequence, new_task_id, new_worker_id

FAR_FUTURE_MS = 1 << 47
COUNTER_VALUES = 1 << 12


def milliseconds(task_id: str) -> int:
    """The time part of an id."""
    return uuid.UUID(task_id).int >> 80


def counter(task_id: str) -> int:
    """The counter of an id."""
    return (uuid.UUID(task_id).int >> 64) & 0xFFF


def test_ids_are_uuids_of_version_7():
    """Any UUID library can read an id and finds version, variant and canonical spelling right."""
    for _ in range(200):
        parsed = uuid.UUID(task_id := new_task_id())
        assert str(parsed) == task_id
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_ids_carry_the_time():
    """The first 48 bits are the machine's time in milliseconds."""
    sequence = _Sequence()
    before = time.time_ns() // 1_000_000
    task_id = sequence.next()
    assert before <= milliseconds(task_id) <= time.time_ns() // 1_000_000
    assert counter(task_id) == 0


def test_ids_are_unique_and_ascend():
    """More ids than the random pool holds are all different, and in the order in which they were made."""
    made = [new_task_id() for _ in range(5000)]
    assert len(set(made)) == len(made)
    assert made == sorted(made)


def test_random_parts_differ():
    """Ids differ in their random part too, also where the pool of random bytes is refilled."""
    sequence = _Sequence()
    assert len({sequence.next()[-16:] for _ in range(2000)}) == 2000


def test_a_clock_that_steps_back_does_not_break_the_order():
    """While the machine's clock is behind the last id, ids count on from there."""
    sequence = _Sequence()
    sequence._start(FAR_FUTURE_MS)
    made = [sequence.next() for _ in range(3)]
    assert [(milliseconds(i), counter(i)) for i in made] == [(FAR_FUTURE_MS, n) for n in (1, 2, 3)]


def test_counter_overflow_carries_into_the_time():
    """When a millisecond has no counter values left, the next one is begun, and order holds."""
    sequence = _Sequence()
    sequence._start(FAR_FUTURE_MS)
    made = [sequence.next() for _ in range(COUNTER_VALUES + 1)]
    assert (milliseconds(made[-3]), counter(made[-3])) == (FAR_FUTURE_MS, COUNTER_VALUES - 1)
    assert (milliseconds(made[-2]), counter(made[-2])) == (FAR_FUTURE_MS + 1, 0)
    assert (milliseconds(made[-1]), counter(made[-1])) == (FAR_FUTURE_MS + 1, 1)
    assert made == sorted(made)


def test_a_new_millisecond_resets_the_counter():
    """The counter starts at 0 whenever the clock has moved on."""
    sequence = _Sequence()
    sequence._counter = 7
    assert counter(sequence.next()) == 0


def test_threads_share_one_sequence():
    """Ids made by several threads at once are unique, and ascend within each thread."""
    start = threading.Barrier(4)
    made: list[list[str]] = [[] for _ in range(4)]

    def work(mine: list[str]) -> None:
        start.wait()
        mine.extend(new_task_id() for _ in range(2000))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({task_id for mine in made for task_id in mine}) == 8000
    assert all(mine == sorted(mine) for mine in made)


def test_reset_forgets_the_random_bytes():
    """After a reset nothing of what was fetched ahead is used."""
    sequence = _Sequence()
    sequence.next()
    assert sequence._pool
    sequence.reset()
    assert not sequence._pool
    assert uuid.UUID(sequence.next()).version == 7


FORK = """
import os
from stem_trio.ids import new_task_id

new_task_id()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, new_task_id().encode())
    os._exit(0)
os.wait()
print(new_task_id(), os.read(read, 100).decode())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_makes_ids_of_its_own():
    """Parent and child do not share the random bytes that the parent had fetched ahead."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True, timeout=30)
    parent, child = done.stdout.split()
    assert parent[-16:] != child[-16:]


def test_worker_ids_name_host_and_process():
    """A worker's id says where it runs."""
    host, pid, _ = new_worker_id().rsplit("-", 2)
    assert (host, pid) == (socket.gethostname(), str(os.getpid()))


def test_worker_ids_take_a_name():
    """A given name takes the place of the host's."""
    assert re.fullmatch(rf"mailer-{os.getpid()}-[0-9a-f]{{8}}", new_worker_id("mailer"))


def test_worker_ids_are_new_each_time():
    """A restarted worker is told apart from what it was before, even with the same process id."""
    assert len({new_worker_id("w") for _ in range(100)}) == 100
