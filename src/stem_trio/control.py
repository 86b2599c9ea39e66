"""Messages that producers and operators broadcast to workers; what they change is also kept in the stores."""

from __future__ import annotations

from typing import Final, final

import msgspec

__all__ = ["CONTROL_CHANNEL", "ControlMessage", "RevokeTasks", "decode_control", "encode_control"]

CONTROL_CHANNEL: Final = "control"


@final
class RevokeTasks(msgspec.Struct, frozen=True, tag="revoke", tag_field="type"):
    """Cancel these tasks where they run.

    Attributes:
        ids: ids of tasks.
        reason: why, may be empty.
    """

    ids: tuple[str, ...]
    reason: str = ""


ControlMessage = RevokeTasks
"""Any message; a union once there are several."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(ControlMessage)


def encode_control(message: ControlMessage) -> bytes:
    """The wire form of a message."""
    return _encoder.encode(message)


def decode_control(data: bytes) -> ControlMessage:
    """A message from its wire form. Raises `msgspec.DecodeError` when it is not one."""
    return _decoder.decode(data)
