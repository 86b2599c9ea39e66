"""The program that enqueues: ``python -m rivals.produce MODULE ACTION COUNT``, in the environment of a contender.

The last line that it prints is its report, as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any, cast

from .drive import Producer

__all__ = ["main"]


def act(producer: Producer, action: str, count: int) -> dict[str, Any]:
    """Do one thing, and tell how long it took."""
    if action == "latency":
        return {"latencies": producer.latency(count)}
    processor = time.process_time()
    if action == "sequential":
        seconds = producer.sequential(count)
    elif action == "concurrent":
        seconds = producer.concurrent(count)
    elif action == "batch":
        seconds = producer.batch(count)
    elif action == "sleepers":
        seconds = producer.concurrent(count, sleepers=True)
    else:
        raise SystemExit(f"no such action: {action}")
    return {"count": count, "seconds": seconds, "cpu_seconds": time.process_time() - processor}


def main() -> None:
    """Read the command line."""
    module, action, count = sys.argv[1:]
    producer = cast("Producer", importlib.import_module(module).producer())
    report = act(producer, action, int(count))
    producer.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
