"""Stores that live in the memory of one process: for tests, and for programs that are their own worker.

Everything the durable stores promise holds here too, except that the content ends with the process. One instance serves
any number of producers and workers within one trio run.
"""

from __future__ import annotations

from .backend import InMemoryResultBackend
from .broker import InMemoryBroker

__all__ = ["InMemoryBroker", "InMemoryResultBackend"]
