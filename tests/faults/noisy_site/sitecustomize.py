"""On the PYTHONPATH of a server, it makes the line between front-end and engine a bad one, in both directions: now and
then a message is cut, changed, sent twice, too late, not at all, or as another version of the protocol would.
"""

from __future__ import annotations

import itertools
import random
import sys

PERIOD = 50
"""Something happens to one message of so many, in turn one thing after the other."""

if any(argument.startswith("zqserve") for argument in sys.orig_argv):
    import zmq

    send_multipart = zmq.Socket.send_multipart
    dice = random.Random(4)
    numbers, faults = itertools.count(1), itertools.cycle(range(6))
    held_back: list[list[bytes]] = []

    def spoil(frames: list[bytes]) -> list[list[bytes]]:
        """What is sent in the place of a message: identity, if it has one, seal and payload."""
        *before, seal, payload = frames
        at = dice.randrange(len(payload))
        match next(faults):
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
        instead = spoil(frames) if next(numbers) % PERIOD == 0 else [frames]
        for message in [*instead, *late]:
            send_multipart(socket, message, flags, **options)

    zmq.Socket.send_multipart = send_badly
