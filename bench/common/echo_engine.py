"""An engine that computes nothing: each step gives every live request the next of some tokens, over and over.

Speaks the wire of `engine_core`, so that a front-end cannot tell: what it costs to serve is then the front-end's alone.
A request with the cache salt `IDLE` is taken and never answered.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import zmq

import zqserve.engine_core.engine_process as engine_process
from zqserve.engine_core.messages import (
    AbortRequests,
    EngineOutput,
    EngineReady,
    EngineRequest,
    EngineStats,
    FinishReason,
    FromEngine,
    Heartbeat,
    Hello,
    StepOutputs,
)
from zqserve.engine_core.pulse import Pulse
from zqserve.engine_core.wire import pack, unpack_to_engine

IDLE = "idle"
HEARTBEAT_SECONDS = 1.0


@dataclass
class _Live:
    """A request that is being answered."""

    request: EngineRequest
    token_ids: Sequence[int]
    num_tokens: int = 0

    def next_output(self) -> EngineOutput:
        token_id = self.token_ids[self.num_tokens % len(self.token_ids)]
        self.num_tokens += 1
        finish_reason: FinishReason | None = "length" if self.num_tokens == self.request.params.max_tokens else None
        return EngineOutput(self.request.key, [token_id], finish_reason)


class EchoEngine:
    """The engine's end of the socket."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        *,
        vocab_size: int,
        max_model_len: int,
        token_ids: Sequence[int] = (),
    ) -> None:
        """token_ids: what every answer is made of; none: the tokens of its own prompt."""
        self._socket = engine_process.bind_socket(context, address)
        self._token_ids = token_ids
        self._ready = EngineReady(
            max_model_len=max_model_len, vocab_size=vocab_size, num_blocks=2**16, block_size=16, dtype="none"
        )
        self._live: dict[bytes, dict[int, _Live]] = {}
        self.num_steps = 0

    @property
    def num_front_ends(self) -> int:
        """Those that have greeted it."""
        return len(self._live)

    @property
    def num_live(self) -> int:
        """Requests that get tokens."""
        return sum(map(len, self._live.values()))

    def close(self) -> None:
        """Be gone."""
        self._socket.close(linger=0)

    def take_in(self, seconds: float) -> None:
        """Wait so long at most for messages, and take in all that are there."""
        if not self._socket.poll(int(seconds * 1000)):
            return
        while True:
            try:
                client, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            live = self._live.setdefault(client, {})
            message = unpack_to_engine(frames)
            if isinstance(message, EngineRequest) and message.cache_salt != IDLE:
                live[message.key] = _Live(message, self._token_ids or message.prompt_token_ids)
            elif isinstance(message, AbortRequests):
                for key in message.keys:
                    live.pop(key, None)
            elif isinstance(message, Hello):
                self._send(client, self._ready)

    def step(self) -> None:
        """One token for each live request; one message for each front-end that has any."""
        self.num_steps += 1
        for client, live in self._live.items():
            if not live:
                continue
            outputs = [one.next_output() for one in live.values()]
            self._send(client, StepOutputs(outputs, self._stats()))
            for output in outputs:
                if output.finish_reason is not None:
                    del live[output.key]

    def beat(self) -> None:
        """Tell the front-ends that the loop turns."""
        for client in self._live:
            self._send(client, Heartbeat(self._stats()))

    def _stats(self) -> EngineStats:
        return EngineStats(num_running=self.num_live, num_steps=self.num_steps)

    def _send(self, client: bytes, message: FromEngine) -> None:
        self._socket.send_multipart([client, *pack(message)])


def main() -> None:
    """The process in the engine's place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True)
    parser.add_argument("--pulse", type=int, required=True, help="file descriptor on which to show that the loop turns")
    parser.add_argument("--parent", type=int, required=True, help="process to die with")
    parser.add_argument("--vocab-size", type=int, required=True)
    parser.add_argument("--max-model-len", type=int, required=True)
    parser.add_argument("--steps-per-second", type=float, required=True)
    args = parser.parse_args()
    engine_process.begin_process(b"echo-engine", args.parent)
    engine = EchoEngine(zmq.Context(), args.address, vocab_size=args.vocab_size, max_model_len=args.max_model_len)
    pulse = Pulse(args.pulse)
    pulse.beat()
    next_step = next_beat = time.monotonic()
    while True:
        now = time.monotonic()
        engine.take_in(max(0.0, (next_step if engine.num_live else next_beat) - now))
        now = time.monotonic()
        if engine.num_live and now >= next_step:
            engine.step()
            # A step that came late is not made up for: the front-end would get two at once.
            next_step = now + 1 / args.steps_per_second
        if now >= next_beat:
            pulse.beat()
            engine.beat()
            next_beat = now + HEARTBEAT_SECONDS


if __name__ == "__main__":
    main()
