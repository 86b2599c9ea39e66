"""The virtual environment of each contender, made when first needed and kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

__all__ = ["REQUIREMENTS", "Environments", "default_folder"]

CHECKOUT: Final = Path(__file__).resolve().parents[2]

# Pinned: what is measured, and what decides its speed. hiredis goes to each that can use it.
REQUIREMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "stem": (
        "trio==0.35.0",
        "msgspec==0.22.0",
        "attrs==26.1.0",
        "anyio==4.16.0",
        "redis==8.1.0",
        "hiredis==3.5.0",
        "uvloop==0.23.0",
    ),
    "streaq": ("streaq==7.2.0", "coredis==6.9.0", "anyio==4.16.0", "uvloop==0.23.0", "trio==0.35.0"),
    "taskiq": ("taskiq==0.13.0", "taskiq-redis==1.2.4", "redis==8.1.0", "hiredis==3.5.0", "uvloop==0.23.0"),
    "saq": ("saq[redis,hiredis]==0.26.4", "redis==7.4.1", "hiredis==3.5.0", "uvloop==0.23.0", "typing_extensions"),
    "arq": ("arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0", "uvloop==0.23.0"),
    "dramatiq": ("dramatiq[redis]==2.2.1", "redis==8.1.0", "hiredis==3.5.0"),
    "celery": ("celery[redis]==5.7.0", "kombu==5.7.0", "redis==8.1.0", "hiredis==3.5.0"),
}
_PATIENCE: Final = 600
"""Seconds that an installation may take."""


def default_folder() -> Path:
    """Where environments are kept unless said otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "stem-trio" / "rivals"


class Environments:
    """The environments in a folder.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def program(self, environment: str, name: str) -> str:
        """The path of a program."""
        return str(self._folder / environment / "bin" / name)

    def prepare(self, names: Iterable[str]) -> None:
        """Make those that are missing or were made for other versions.

        Raises:
            RuntimeError: an installation failed; with the end of what it said.
        """
        for name in dict.fromkeys(names):
            path = self._folder / name
            stamp = path / "rivals-stamp"
            wanted = _digest(REQUIREMENTS[name])
            if stamp.exists() and stamp.read_text() == wanted:
                continue
            print(f"making the environment {name} in {path}", flush=True)
            if (path / "pyvenv.cfg").exists():  # and not whatever else may have that name
                shutil.rmtree(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            _run([sys.executable, "-m", "venv", str(path)])
            local = ["-e", f"{CHECKOUT}[redis]"] if name == "stem" else []
            install = [self.program(name, "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            _run([*install, *local, *REQUIREMENTS[name]])
            stamp.write_text(wanted)

    def versions(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Every package of some environments."""
        found: dict[str, dict[str, str]] = {}
        for name in dict.fromkeys(names):
            listing = _run(
                [self.program(name, "python"), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
            )
            found[name] = {package["name"].lower(): package["version"] for package in json.loads(listing)}
        return found


def _digest(requirements: tuple[str, ...]) -> str:
    text = "\n".join((sys.version, str(CHECKOUT), *requirements))
    return hashlib.sha256(text.encode()).hexdigest()


def _run(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{(ended.stdout + ended.stderr)[-2000:]}")
    return ended.stdout
