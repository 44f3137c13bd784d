"""Frames to messages: what is sent comes back, and whatever else arrives is a WireError."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zqserve.engine_core.messages import (
    PROTOCOL,
    AbortRequests,
    EngineOutput,
    EngineReady,
    EngineRequest,
    EngineStats,
    FromEngine,
    Heartbeat,
    Hello,
    ResetPrefixCache,
    StepOutputs,
    ToEngine,
    TokenLogprobs,
)
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.wire import WireError, pack, unpack_from_engine, unpack_to_engine


@pytest.mark.parametrize(
    "message",
    [
        EngineRequest(key=3, prompt_token_ids=[1, 2], params=SamplingParams(seed=5, stop=["x"]), cache_salt="s"),
        AbortRequests([1, 2]),
        Hello(),
        ResetPrefixCache(),
    ],
)
def test_a_message_to_the_engine_comes_back_as_it_was(message: ToEngine) -> None:
    assert unpack_to_engine(pack(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        StepOutputs(
            [EngineOutput(1, [2], "stop", 2, [TokenLogprobs([2, 3], [-0.5, -1.5], 1)], None, 16, 0.25)],
            EngineStats(num_running=1),
        ),
        Heartbeat(EngineStats()),
        EngineReady(max_model_len=8, vocab_size=9, num_blocks=10, block_size=16, dtype="bfloat16"),
    ],
)
def test_a_message_from_the_engine_comes_back_as_it_was(message: FromEngine) -> None:
    assert unpack_from_engine(pack(message)) == message


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ([], "2 frames, got 0"),
        ([PROTOCOL], "2 frames, got 1"),
        ([*pack(Hello()), b""], "2 frames, got 3"),
        ([b"zq0", pack(Hello())[1]], "protocol version b'zq1' is spoken here, got b'zq0'"),
        ([PROTOCOL, msgspec.msgpack.encode({"type": "nonsense"})], "undecodable message"),
        ([PROTOCOL, b"\x91" * 100_000], "undecodable message"),
        ([PROTOCOL, b"\x81\xa4type\xa5he\xcalo"], "undecodable message"),
        (pack(Heartbeat(EngineStats())), "undecodable message"),
    ],
)
def test_frames_that_are_no_message_to_the_engine_are_refused_with_the_reason(frames: list[bytes], error: str) -> None:
    with pytest.raises(WireError) as caught:
        unpack_to_engine(frames)
    assert error in str(caught.value)


def test_parameters_out_of_range_are_refused() -> None:
    payload = msgspec.msgpack.encode(
        {"type": "request", "key": 0, "prompt_token_ids": [1], "params": {"temperature": -1.0}}
    )
    with pytest.raises(WireError, match="temperature"):
        unpack_to_engine([PROTOCOL, payload])


@given(st.lists(st.binary(max_size=60), max_size=3) | st.binary(max_size=60).map(lambda payload: [PROTOCOL, payload]))
def test_no_bytes_raise_anything_but_a_wire_error(frames: list[bytes]) -> None:
    for unpack in (unpack_to_engine, unpack_from_engine):
        try:
            unpack(frames)
        except WireError:
            continue
