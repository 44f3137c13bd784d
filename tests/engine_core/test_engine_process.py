"""The engine's loop over real sockets."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore
from zqserve.engine_core.engine_process import EngineServer, bind_socket
from zqserve.engine_core.messages import (
    AbortRequests,
    EngineOutput,
    EngineReady,
    EngineRequest,
    FromEngine,
    Heartbeat,
    Hello,
    StepOutputs,
    ToEngine,
)
from zqserve.engine_core.pulse import Pulse
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.wire import pack, unpack_from_engine

from .paged_model import EOS, PagedModel, generate_alone

PROMPT = [7, 11, 13, 17, 19, 23]
DEADLINE_SECONDS = 60


def request(key: int, max_tokens: int = 4) -> EngineRequest:
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    return EngineRequest(key=key, prompt_token_ids=PROMPT, params=params, eos_token_ids=[EOS])


class FrontEnd:
    """A client's side of the socket."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.RCVHWM, 1)
        self.socket.connect(address)

    def send(self, *messages: ToEngine) -> None:
        for message in messages:
            self.socket.send_multipart(pack(message))

    def receive(self, timeout_seconds: float = 0.0) -> FromEngine | None:
        if self.socket.poll(int(timeout_seconds * 1000)):
            return unpack_from_engine(self.socket.recv_multipart())
        return None


class Engine:
    """An `EngineServer` with a model that needs no weights, turned by the test itself."""

    def __init__(self, address: str, send_high_water_mark: int = 1000) -> None:
        self.address = address
        self.context = zmq.Context()
        self.model = PagedModel(max_model_len=100_000, num_blocks=25_000)
        self.core = EngineCore(self.model, EngineConfig(model=""))
        socket = bind_socket(self.context, address, send_high_water_mark=send_high_water_mark)
        self.server = EngineServer(self.core, socket, Pulse(None))

    def front_end(self) -> FrontEnd:
        return FrontEnd(self.context, self.address)

    def turn_until_received(self, front_end: FrontEnd, kind: type[FromEngine]) -> FromEngine:
        """Turn the loop until the front-end gets a message of that kind; others are dropped."""
        end = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < end:
            # A moment for what is on its way: an idle engine would sleep up to a second.
            message = front_end.receive(timeout_seconds=0.02)
            if isinstance(message, kind):
                return message
            if message is None:
                self.server.turn()
        raise AssertionError(f"no {kind.__name__} came")

    def turn_until_ended(self, front_end: FrontEnd, keys: set[int]) -> dict[int, list[EngineOutput]]:
        outputs: dict[int, list[EngineOutput]] = {key: [] for key in keys}
        missing = set(keys)
        while missing:
            message = self.turn_until_received(front_end, StepOutputs)
            assert isinstance(message, StepOutputs)
            for output in message.outputs:
                outputs[output.key].append(output)
                if output.finish_reason is not None:
                    missing.remove(output.key)
        return outputs


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(f"ipc://{tmp_path}/engine")
    yield engine
    engine.context.destroy(linger=0)


def tokens(outputs: list[EngineOutput]) -> list[int]:
    return [token_id for output in outputs for token_id in output.token_ids]


def expected_tokens(num_tokens: int) -> list[int]:
    return generate_alone(request(0, num_tokens), 10_000)[0]


def test_hello_is_answered_with_what_the_engine_is(engine: Engine) -> None:
    front_end = engine.front_end()
    front_end.send(Hello())
    ready = engine.turn_until_received(front_end, EngineReady)
    assert ready == EngineReady(
        max_model_len=100_000, vocab_size=64, num_blocks=25_000, block_size=4, dtype="float32", max_beam_width=256
    )


def test_each_front_end_gets_its_own_tokens_in_one_message_a_step(engine: Engine) -> None:
    front_ends = [engine.front_end(), engine.front_end()]
    for front_end in front_ends:
        front_end.send(request(0), request(1))
    for front_end in front_ends:
        outputs = engine.turn_until_ended(front_end, {0, 1})
        assert tokens(outputs[0]) == tokens(outputs[1]) == expected_tokens(4)
        assert len(outputs[0]) == 4


def test_an_idle_and_a_busy_engine_both_beat(engine: Engine) -> None:
    front_end = engine.front_end()
    front_end.send(Hello())
    idle = engine.turn_until_received(front_end, Heartbeat)
    assert isinstance(idle, Heartbeat)
    assert idle.stats.num_running == 0
    front_end.send(request(0, max_tokens=90_000))
    engine.turn_until_received(front_end, StepOutputs)
    busy = engine.turn_until_received(front_end, Heartbeat)
    assert isinstance(busy, Heartbeat)
    assert busy.stats.num_running == 1


def test_a_loop_that_turns_shows_it_on_its_pipe(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    context = zmq.Context()
    core = EngineCore(PagedModel(max_model_len=64, num_blocks=64), EngineConfig(model=""))
    server = EngineServer(core, bind_socket(context, f"ipc://{tmp_path}/engine"), Pulse(writer))
    server.turn()  # an idle one waits for its next beat
    assert os.read(reader, 10) == b"."
    os.close(reader)
    server.turn()  # nobody looks any more
    context.destroy(linger=0)
    os.close(writer)


def test_messages_that_make_no_sense_are_dropped_and_the_others_served(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    front_end = engine.front_end()
    for frames in ([b""], [b"zq0", b"x"], [b"zq1", b"\xff\xff"], [b"a", b"b", b"c", b"d"]):
        front_end.socket.send_multipart(frames)
    front_end.send(request(0))
    assert tokens(engine.turn_until_ended(front_end, {0})[0]) == expected_tokens(4)
    engine.turn_until_received(front_end, Heartbeat)
    assert "A message was dropped: a message has 2 frames, got 1." in caplog.text
    assert "4 messages were dropped so far" in caplog.text
    assert caplog.text.count("dropped") == 2


def test_an_aborted_request_sends_nothing_more(engine: Engine) -> None:
    front_end = engine.front_end()
    front_end.send(request(0, max_tokens=90_000))
    engine.turn_until_received(front_end, StepOutputs)
    front_end.send(AbortRequests([0]))
    while engine.core.has_unfinished():
        engine.server.turn()
    assert engine.core.stats().num_running == 0


def test_the_requests_of_a_front_end_that_vanished_are_aborted(engine: Engine) -> None:
    front_end = engine.front_end()
    front_end.send(request(0, max_tokens=90_000))
    engine.turn_until_received(front_end, StepOutputs)
    front_end.socket.close()
    end = time.monotonic() + DEADLINE_SECONDS
    while engine.core.has_unfinished():
        assert time.monotonic() < end
        engine.server.turn()
    assert not engine.model.live


def test_a_front_end_that_does_not_read_loses_its_requests_and_is_told_and_holds_up_nobody(
    tmp_path: Path,
) -> None:
    engine = Engine(f"ipc://{tmp_path}/engine", send_high_water_mark=2)
    stalled, reading = engine.front_end(), engine.front_end()
    keys = set(range(200))
    stalled.send(*(request(key, max_tokens=90_000) for key in keys))
    engine.server.turn()
    reading.send(request(0, max_tokens=20))
    assert tokens(engine.turn_until_ended(reading, {0})[0]) == expected_tokens(20)
    end = time.monotonic() + DEADLINE_SECONDS
    while engine.core.has_unfinished():
        assert time.monotonic() < end
        engine.server.turn()
    outputs = engine.turn_until_ended(stalled, keys)
    assert {tuple(output.error for output in outputs[key] if output.finish_reason) for key in keys} == {
        ("The front-end did not read its answers for too long.",)
    }
    engine.context.destroy(linger=0)


def test_the_module_comes_without_torch() -> None:
    code = "import sys, zqserve.engine_core.engine_process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
