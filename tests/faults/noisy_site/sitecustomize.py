"""On the PYTHONPATH of a server, it makes the line between front-end and engine a bad one, in both directions: now and
then a message is cut, changed, sent twice, too late, not at all, or as another version of the protocol would.
"""

from __future__ import annotations

import random
import sys

SHARE = 0.02
"""Of the messages that something happens to."""

if any(argument.startswith("zqserve") for argument in sys.orig_argv):
    import zmq

    send_multipart = zmq.Socket.send_multipart
    dice = random.Random(4)
    held_back: list[list[bytes]] = []

    def spoil(frames: list[bytes]) -> list[list[bytes]]:
        """What is sent in the place of a message: identity, if it has one, seal and payload."""
        *before, seal, payload = frames
        at = dice.randrange(len(payload))
        match dice.randrange(6):
            case 0:
                return [[*before, seal, payload[:at]]]
            case 1:
                return [[*before, seal, payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]]]
            case 2:
                return [frames, frames]
            case 3:
                held_back.append(frames)
                return []
            case 4:
                return [[*before, b"zq0" + seal[3:], payload]]
            case _:
                return []

    def send_badly(socket, frames, flags=0, **options):
        late, held_back[:] = held_back[:], []
        instead = spoil(frames) if dice.random() < SHARE else [frames]
        for message in [*instead, *late]:
            send_multipart(socket, message, flags, **options)

    zmq.Socket.send_multipart = send_badly
