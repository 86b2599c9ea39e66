"""Another version of the Redis scripts, for one process: the same text under other hashes."""

from __future__ import annotations

from stem_trio.stores.redis import backend as backend_module
from stem_trio.stores.redis import broker as broker_module
from stem_trio.stores.redis.script import Script


def comment_scripts(comment: str) -> None:
    """Put a comment before every script that this process has loaded."""
    for module in (broker_module, backend_module):
        for name, value in list(vars(module).items()):
            if isinstance(value, Script):
                setattr(module, name, Script(f"-- {comment}\n{value._source}"))


def script_hashes() -> set[str]:
    """The hashes by which this process calls its scripts."""
    return {
        value._hash
        for module in (broker_module, backend_module)
        for value in vars(module).values()
        if isinstance(value, Script)
    }
