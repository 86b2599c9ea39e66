"""Check that mypy and pyright refuse exactly the lines of `refused.py` that are marked ``# E:``.

Run it from anywhere: ``python tests/typing/check_refused.py``. It uses the tools that are installed beside the running
interpreter, and the project's own configuration of them. Exits with 1 when a checker misses a mark, or refuses a line
that has none.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFUSED = Path(__file__).resolve().with_name("refused.py")
MARK = re.compile(r"# E: \S")

Errors = dict[int, list[str]]


def marked() -> set[int]:
    """Numbers of the lines that must be refused."""
    lines = REFUSED.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if MARK.search(line)}


def run(tool: str, *arguments: str) -> str:
    """What a type checker prints; the code here is imported from ``src``, installed or not."""
    env = os.environ | {"MYPYPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", tool, *arguments, str(REFUSED)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode != 1:  # 0: nothing to complain about; more than 1: it did not work
        raise SystemExit(f"{tool} ended with {done.returncode}, 1 was expected:\n{done.stdout}{done.stderr}")
    return done.stdout


def mypy() -> Errors:
    """Errors of mypy by line."""
    errors: Errors = {}
    for line in run("mypy", "--strict", "--output=json").splitlines():
        report = json.loads(line)
        if report["severity"] == "error":
            add(errors, report["file"], report["line"], report["message"])
    return errors


def pyright() -> Errors:
    """Errors of pyright by line, which it counts from 0."""
    errors: Errors = {}
    for report in json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable))["generalDiagnostics"]:
        if report["severity"] == "error":
            add(errors, report["file"], report["range"]["start"]["line"] + 1, report["message"])
    return errors


def add(errors: Errors, file: str, line: int, message: str) -> None:
    """Keep an error, which has to be in the one file that is meant to have some."""
    if not (ROOT / file).samefile(REFUSED):
        raise SystemExit(f"{file}:{line}: {message}")
    errors.setdefault(line, []).append(message)


def main() -> int:
    """Compare, and tell the differences."""
    expected = marked()
    failed = False
    for checker in (mypy, pyright):
        errors = checker()
        for line in sorted(expected - errors.keys()):
            print(f"{REFUSED.name}:{line}: {checker.__name__} accepts a line that is marked")
        for line in sorted(errors.keys() - expected):
            print(f"{REFUSED.name}:{line}: {checker.__name__} refuses a line that is not marked: {errors[line]}")
        failed |= expected != errors.keys()
    verdict = "see above" if failed else "mypy and pyright refuse them, and no other"
    print(f"{len(expected)} lines to be refused: {verdict}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
