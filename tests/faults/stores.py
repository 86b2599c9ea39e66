"""Stores by their URL: the one place in this folder that knows which stores there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from stem_trio import Broker, ResultBackend
from stem_trio.stores.url import open_backend, open_broker

on_a_server = pytest.mark.parametrize("store_url", ["redis"], indirect=True)
"""Mark of tests of what only a store on a server has: a way to it, and scripts there."""


@asynccontextmanager
async def open_stores(
    url: str, prefix: str, *, backend_url: str | None = None, **options: Any
) -> AsyncGenerator[tuple[Broker, ResultBackend], None]:
    """A broker and a result backend, open.

    Args:
        url: where they are; for SQLite a folder.
        prefix: keeps them apart from those of other tests in the same place.
        backend_url: where the backend is, if elsewhere.
        options: those of the stores.
    """
    backend_url = backend_url or url
    if url.startswith("redis"):
        options = {"prefix": prefix, "command_timeout": 4.0, "connect_timeout": 2.0, **options}
    else:
        # What is confirmed has to outlive processes here, not the machine.
        options = {"synchronous": "NORMAL", **options}
        url, backend_url = f"{url}/{prefix}.db", f"{backend_url}/{prefix}.db"
    async with open_broker(url, **options) as broker, open_backend(backend_url, **options) as backend:
        yield broker, backend
