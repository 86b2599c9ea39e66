"""What the harness tells the programs that it starts, by environment variables."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["CONCURRENCY", "MARK", "TUNED", "URL", "VARIANT"]

URL: Final = os.environ.get("RIVALS_URL", "redis://127.0.0.1:6379/0")
MARK: Final = os.environ.get("RIVALS_MARK", "")
TUNED: Final = os.environ.get("RIVALS_TUNED") == "1"
"""Whether to poll each millisecond, where there is a setting for it."""
VARIANT: Final = os.environ.get("RIVALS_VARIANT", "")
CONCURRENCY: Final = 100
