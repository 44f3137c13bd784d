"""Messages to frames and back: the two frames (seal, payload) that front-end and engine core exchange.

The seal says which protocol is spoken, the message's number and a checksum: what was cut, changed, reordered, repeated
or lost on the way is found out, and is a `WireError` instead of a wrong token. Used by both sides. The engine's ROUTER
puts the peer's identity in front of the frames, the front-end's DEALER sends and receives them as they are. Torch-free.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from . import messages
from .messages import PROTOCOL, FromEngine, ToEngine

_SEAL = struct.Struct(f"<{len(PROTOCOL)}sQI")
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises over bytes that are no message; the second one where the name of its type is no text."""

WireFault: TypeAlias = Literal["frames", "version", "damaged", "undecodable", "repeated", "missing"]


class WireError(ValueError):
    """Frames that are no message of this protocol version, or not the one that is due; the text says why."""

    def __init__(self, fault: WireFault, text: str) -> None:
        super().__init__(text)
        self.fault: WireFault = fault

    @property
    def loses_something(self) -> bool:
        """Whether the sender said something that has not arrived."""
        return self.fault != "repeated"


def pack(message: ToEngine | FromEngine, number: int = 0) -> list[bytes]:
    """The frames of a message, for `socket.send_multipart`.

    number: of the messages that this sender has sent to this receiver, from 1; 0 for a sender that does not count.
    """
    return seal(messages.encode(message), number)


def seal(payload: bytes, number: int = 0) -> list[bytes]:
    """The frames of a message that is encoded already."""
    return [_SEAL.pack(PROTOCOL, number, _checksum(payload, number)), payload]


class IncomingNumbers:
    """Which message of one sender is due."""

    def __init__(self) -> None:
        self.last = 0
        """Number of the last message that was taken."""

    def take(self, number: int) -> None:
        """Raise `WireError` unless it is the next one's, or that of a sender that does not count."""
        if number == 0:
            return
        if number <= self.last:
            raise WireError("repeated", f"message {number} has come already")
        if number > self.last + 1:
            raise WireError("missing", f"message {self.last + 1} is due, got {number}")
        self.last = number


def unpack_to_engine(frames: Sequence[bytes], numbers: IncomingNumbers | None = None) -> ToEngine:
    """The message that a front-end sent, if it is the next of its `numbers`. Raises `WireError`."""
    payload = _open(frames, numbers)
    try:
        return messages.decode_to_engine(payload)
    except _UNDECODABLE as error:
        raise WireError("undecodable", f"undecodable message: {error}") from None


def unpack_from_engine(frames: Sequence[bytes], numbers: IncomingNumbers | None = None) -> FromEngine:
    """The message that an engine sent, if it is the next of its `numbers`. Raises `WireError`."""
    payload = _open(frames, numbers)
    try:
        return messages.decode_from_engine(payload)
    except _UNDECODABLE as error:
        raise WireError("undecodable", f"undecodable message: {error}") from None


def _open(frames: Sequence[bytes], numbers: IncomingNumbers | None) -> bytes:
    """The payload of a message whose seal is right."""
    if len(frames) != 2:
        raise WireError("frames", f"a message has 2 frames, got {len(frames)}")
    head, payload = frames
    if head[: len(PROTOCOL)] != PROTOCOL:
        version = bytes(head[: len(PROTOCOL)])
        raise WireError("version", f"protocol version {PROTOCOL!r} is spoken here, got {version!r}")
    if len(head) != _SEAL.size:
        raise WireError("damaged", f"a seal has {_SEAL.size} bytes, got {len(head)}")
    _, number, checksum = _SEAL.unpack(head)
    if checksum != _checksum(payload, number):
        raise WireError("damaged", "the checksum is wrong")
    if numbers is not None:
        numbers.take(number)
    return payload


def _checksum(payload: bytes, number: int) -> int:
    return zlib.crc32(payload, number & 0xFFFF_FFFF)
