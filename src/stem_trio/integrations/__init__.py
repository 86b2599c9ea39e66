"""Producers for code that is not on trio: in an asyncio program, and in blocking code.

Both run a `StemClient` on trio, `AsyncioStem` as a guest of the running loop and `BlockingStem` in a thread.
"""

from __future__ import annotations

from .asyncio_host import AsyncioStem
from .blocking import BlockingStem, BlockingTaskHandle

__all__ = ["AsyncioStem", "BlockingStem", "BlockingTaskHandle"]
