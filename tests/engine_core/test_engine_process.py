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
    MessageLost,
    StepOutputs,
    ToEngine,
)
from zqserve.engine_core.pulse import Pulse
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.wire import IncomingNumbers, pack, seal, unpack_from_engine

from .paged_model import EOS, PagedModel, generate_alone

PROMPT = [7, 11, 13, 17, 19, 23]
DEADLINE_SECONDS = 240


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

    def __init__(self, address: str, **limits: int) -> None:
        """limits: of the socket, see `bind_socket`."""
        self.address = address
        self.context = zmq.Context()
        self.model = PagedModel(max_model_len=100_000, num_blocks=25_000)
        self.core = EngineCore(self.model, EngineConfig(model=""))
        socket = bind_socket(self.context, address, **{"send_high_water_mark": 1000, **limits})
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


@pytest.mark.parametrize(
    "frames",
    [[b""], [b"zq0", b"x"], seal(b"\xff\xff"), [b"a", b"b", b"c", b"d"], [pack(Hello())[0], b"x"]],
    ids=["one-frame", "another-version", "no-message", "four-frames", "wrong-checksum"],
)
def test_who_sends_what_makes_no_sense_is_told_so_and_forgotten_and_the_others_are_served(
    engine: Engine, caplog: pytest.LogCaptureFixture, frames: list[bytes]
) -> None:
    honest, broken = engine.front_end(), engine.front_end()
    honest.send(request(0, max_tokens=40))
    broken.send(request(0, max_tokens=90_000))
    engine.turn_until_received(broken, StepOutputs)
    broken.socket.send_multipart(frames)
    broken.send(request(1, max_tokens=90_000))  # comes too late
    lost = engine.turn_until_received(broken, MessageLost)
    assert lost == MessageLost(is_senders_fault=frames == seal(b"\xff\xff"))
    assert tokens(engine.turn_until_ended(honest, {0})[0]) == expected_tokens(40)
    assert not engine.core.has_unfinished()
    heartbeat = engine.turn_until_received(honest, Heartbeat)
    assert isinstance(heartbeat, Heartbeat)
    assert heartbeat.stats.num_dropped_messages == 1
    assert caplog.text.count("A message of a front-end was dropped") == 1
    engine.turn_until_received(broken, MessageLost)  # again, with each beat


def test_a_message_that_comes_twice_is_taken_once(engine: Engine) -> None:
    front_end = engine.front_end()
    frames = pack(request(0), 1)
    for _ in range(3):
        front_end.socket.send_multipart(frames)
    assert tokens(engine.turn_until_ended(front_end, {0})[0]) == expected_tokens(4)
    heartbeat = engine.turn_until_received(front_end, Heartbeat)
    assert isinstance(heartbeat, Heartbeat)
    assert heartbeat.stats.num_dropped_messages == 2


def test_a_message_that_is_missing_is_noticed(engine: Engine) -> None:
    front_end = engine.front_end()
    front_end.socket.send_multipart(pack(request(0), 2))
    assert engine.turn_until_received(front_end, MessageLost) == MessageLost()


def test_the_engine_numbers_what_it_sends(engine: Engine) -> None:
    front_end, numbers = engine.front_end(), IncomingNumbers()
    front_end.send(Hello(), request(0))
    end = time.monotonic() + DEADLINE_SECONDS
    while numbers.last < 5:
        assert time.monotonic() < end
        if front_end.socket.poll(20):
            unpack_from_engine(front_end.socket.recv_multipart(), numbers)
        else:
            engine.server.turn()


def test_a_flood_of_what_makes_no_sense_is_logged_in_few_lines(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    front_ends = [engine.front_end() for _ in range(40)]
    for number, front_end in enumerate(front_ends):
        front_end.socket.send_multipart([b"x"] if number % 2 else [b"zq0", b"x"])
        engine.turn_until_received(front_end, MessageLost)
    assert caplog.text.count("was dropped") == 2
    assert "were dropped" not in caplog.text


def test_a_message_that_is_too_large_ends_the_connection_of_its_sender_alone(tmp_path: Path) -> None:
    engine = Engine(f"ipc://{tmp_path}/engine", max_message_bytes=1000)
    honest, sender = engine.front_end(), engine.front_end()
    honest.send(request(0, max_tokens=40))
    sender.send(request(0, max_tokens=90_000))
    engine.turn_until_received(sender, StepOutputs)
    sender.socket.send_multipart([b"", bytes(2000)])
    assert tokens(engine.turn_until_ended(honest, {0})[0]) == expected_tokens(40)
    end = time.monotonic() + DEADLINE_SECONDS
    while engine.core.has_unfinished():
        assert time.monotonic() < end
        engine.server.turn()
    engine.context.destroy(linger=0)


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
