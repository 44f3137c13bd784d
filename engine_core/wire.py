"""Messages to frames and back: the two frames (`PROTOCOL`, payload) that front-end and engine core exchange.

Used by both sides. The engine's ROUTER puts the peer's identity in front of the frames, the front-end's
DEALER sends and receives them as they are. Torch-free.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from . import messages
from .messages import PROTOCOL, FromEngine, ToEngine

_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises over bytes that are no message; the second one where the name of its type is no text."""


class WireError(ValueError):
    """Frames that are no message of this protocol version; the text says why."""


def pack(message: ToEngine | FromEngine) -> list[bytes]:
    """The frames of a message, for `socket.send_multipart`."""
    return [PROTOCOL, messages.encode(message)]


def unpack_to_engine(frames: Sequence[bytes]) -> ToEngine:
    """The message that a front-end sent. Raises `WireError`."""
    payload = _payload(frames)
    try:
        return messages.decode_to_engine(payload)
    except _UNDECODABLE as error:
        raise WireError(f"undecodable message: {error}") from None


def unpack_from_engine(frames: Sequence[bytes]) -> FromEngine:
    """The message that an engine sent. Raises `WireError`."""
    payload = _payload(frames)
    try:
        return messages.decode_from_engine(payload)
    except _UNDECODABLE as error:
        raise WireError(f"undecodable message: {error}") from None


def _payload(frames: Sequence[bytes]) -> bytes:
    if len(frames) != 2:
        raise WireError(f"a message has 2 frames, got {len(frames)}")
    version, payload = frames
    if version != PROTOCOL:
        raise WireError(f"protocol version {PROTOCOL!r} is spoken here, got {bytes(version[:16])!r}")
    return payload
