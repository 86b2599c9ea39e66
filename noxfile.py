"""Checks of this project; `nox --list` names them, `nox` runs the default ones.

With ``--no-venv`` the sessions use the environment at hand and install nothing, which is how `.ci/run` calls them.
"""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.5"
nox.options.sessions = ["tests", "lint", "types", "docs"]
nox.options.default_venv_backend = "uv|virtualenv"
# An interpreter that this machine lacks is skipped: not an error (nox makes it one where CI is set), not a download.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]

# Whatever these patterns leave over is the core, whose every line and branch is tested. The rest is reported only.
NOT_CORE = [
    "*/stem_trio/cli/*",
    "*/stem_trio/demo/*",
    "*/stem_trio/integrations/*",
    "*/stem_trio/stores/postgres/*",
    "*/stem_trio/stores/redis/*",
    "*/stem_trio/stores/sqlite/*",
]


def install(session: nox.Session, *extras: str) -> None:
    """Install this project with `extras`, unless the session runs in an environment that is not its own."""
    if session.virtualenv.venv_backend != "none":
        session.install("-e", f".[{','.join(extras)}]")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite, on every interpreter present."""
    install(session, "test")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style: ruff's rules and format."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types: mypy and pyright, on what must pass and on what must be refused."""
    install(session, "lint", "test")
    session.run("mypy")
    # Named, because pyright prefers a pyrightconfig.json in any folder above.
    session.run("pyright", "--project", "pyproject.toml")
    session.run("python", "tests/typing/check_refused.py")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation without a warning, and the next changelog entry."""
    install(session, "docs", "lint", "testing")
    session.run("sphinx-build", "-W", "-n", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs)
    session.run("towncrier", "build", "--draft", "--version", "next")


@nox.session
def examples(session: nox.Session) -> None:
    """Only the example programs."""
    install(session, "test")
    session.run("python", "-m", "pytest", "tests/examples", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Branch coverage: complete for the core, reported for the rest."""
    install(session, "test")
    session.run("coverage", "erase")
    # Not `pytest --cov`: pytest loads our plugin, and with it the package, before pytest-cov begins to measure.
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under=0")
    session.run("coverage", "report", f"--omit={','.join(NOT_CORE)}", "--fail-under=100")
