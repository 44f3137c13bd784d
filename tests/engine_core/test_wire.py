"""Frames to messages: what is sent comes back, and whatever else arrives is a WireError."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore
from zqserve.engine_core.messages import (
    PROTOCOL,
    AbortRequests,
    BeamOutput,
    EngineOutput,
    EngineReady,
    EngineRequest,
    EngineStats,
    FromEngine,
    Grammar,
    Heartbeat,
    Hello,
    MessageLost,
    ResetPrefixCache,
    StepOutputs,
    ToEngine,
    TokenLogprobs,
)
from zqserve.engine_core.pooling.pooling_messages import Pooled, PoolingRequest
from zqserve.engine_core.pooling.pooling_params import PoolingParams
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.wire import (
    IncomingNumbers,
    WireError,
    pack,
    seal,
    unpack_from_engine,
    unpack_to_engine,
)

from .paged_model import EOS, PagedModel

KEYS = st.integers(0, 2**63 - 1)
IDS = st.lists(st.integers(0, 2**31 - 1), max_size=5)
NUMBERS = st.floats(allow_nan=False)
REASONS = st.sampled_from(["stop", "length", "abort", "error"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.floats(0, 2),
    top_k=st.integers(0, 99),
    seed=st.integers(0, 2**63 - 1),
    stop=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5), max_size=2),
    max_tokens=st.none() | st.integers(0, 2**31),
    logprobs=st.none() | st.integers(0, 5),
    logit_bias=st.none() | st.dictionaries(st.integers(0, 9), st.floats(-100, 100), max_size=3),
)
LOGPROBS = st.none() | st.lists(st.builds(TokenLogprobs, IDS, st.lists(NUMBERS, max_size=3), KEYS), max_size=2)
TO_ENGINE = st.one_of(
    st.builds(
        EngineRequest,
        key=KEYS,
        prompt_token_ids=IDS,
        params=PARAMS,
        sample_index=st.integers(0, 9),
        output_token_ids=IDS,
        bad_words_token_ids=st.lists(IDS, max_size=2),
        arrival_time=NUMBERS,
        cache_salt=TEXTS,
        user=TEXTS,
        grammar=st.none() | st.builds(Grammar, st.binary(max_size=9), st.binary(max_size=9)),
    ),
    st.builds(PoolingRequest, key=KEYS, prompt_token_ids=IDS, params=st.just(PoolingParams()), user=TEXTS),
    st.builds(AbortRequests, st.lists(KEYS, max_size=5)),
    st.just(Hello()),
    st.just(ResetPrefixCache()),
)
OUTPUTS = st.builds(
    EngineOutput,
    KEYS,
    IDS,
    st.none() | REASONS,
    st.none() | KEYS,
    LOGPROBS,
    LOGPROBS,
    KEYS,
    st.none() | NUMBERS,
    st.none() | TEXTS,
    st.booleans(),
    st.none() | st.builds(Pooled, st.binary(max_size=9), IDS),
    st.none() | st.lists(st.builds(BeamOutput, IDS, REASONS, NUMBERS, st.none() | KEYS, LOGPROBS), max_size=2),
)
FROM_ENGINE = st.one_of(
    st.builds(StepOutputs, st.lists(OUTPUTS, max_size=3), st.just(EngineStats(num_running=1))),
    st.builds(Heartbeat, st.builds(EngineStats, KEYS, KEYS, NUMBERS)),
    st.just(EngineReady(max_model_len=8, vocab_size=9, num_blocks=10, block_size=16, dtype="bfloat16")),
    st.builds(MessageLost, st.booleans()),
)


@given(TO_ENGINE, st.integers(0, 2**64 - 1))
def test_a_message_to_the_engine_comes_back_as_it_was(message: ToEngine, number: int) -> None:
    assert unpack_to_engine(pack(message, number)) == message


@given(FROM_ENGINE, st.integers(0, 2**64 - 1))
def test_a_message_from_the_engine_comes_back_as_it_was(message: FromEngine, number: int) -> None:
    assert unpack_from_engine(pack(message, number)) == message


@pytest.mark.parametrize(
    ("frames", "fault", "text"),
    [
        ([], "frames", "2 frames, got 0"),
        ([PROTOCOL], "frames", "2 frames, got 1"),
        ([*pack(Hello()), b""], "frames", "2 frames, got 3"),
        ([b"zq0" + pack(Hello())[0][3:], pack(Hello())[1]], "version", "b'zq2' is spoken here, got b'zq0'"),
        ([b"zq1", pack(Hello())[1]], "version", "b'zq2' is spoken here, got b'zq1'"),
        ([PROTOCOL, pack(Hello())[1]], "damaged", "15 bytes, got 3"),
        ([pack(Hello())[0], pack(ResetPrefixCache())[1]], "damaged", "checksum"),
        (seal(msgspec.msgpack.encode({"type": "nonsense"})), "undecodable", "undecodable message"),
        (seal(b"\x91" * 100_000), "undecodable", "undecodable message"),
        (seal(b"\x81\xa4type\xa5he\xcalo"), "undecodable", "undecodable message"),
        (pack(Heartbeat(EngineStats())), "undecodable", "undecodable message"),
    ],
)
def test_frames_that_are_no_message_to_the_engine_are_refused_with_the_reason(
    frames: list[bytes], fault: str, text: str
) -> None:
    with pytest.raises(WireError) as caught:
        unpack_to_engine(frames)
    assert caught.value.fault == fault
    assert text in str(caught.value)


def test_parameters_out_of_range_are_refused() -> None:
    payload = msgspec.msgpack.encode(
        {"type": "request", "key": 0, "prompt_token_ids": [1], "params": {"temperature": -1.0}}
    )
    with pytest.raises(WireError, match="temperature"):
        unpack_to_engine(seal(payload))


def test_each_message_is_taken_once_and_in_its_order() -> None:
    numbers = IncomingNumbers()
    frames = [pack(AbortRequests([number]), number) for number in range(1, 5)]
    assert unpack_to_engine(frames[0], numbers) == AbortRequests([1])
    with pytest.raises(WireError) as caught:
        unpack_to_engine(frames[0], numbers)
    assert not caught.value.loses_something
    assert unpack_to_engine(frames[1], numbers) == AbortRequests([2])
    with pytest.raises(WireError, match="message 3 is due, got 4") as caught:
        unpack_to_engine(frames[3], numbers)
    assert caught.value.loses_something
    assert unpack_to_engine(pack(Hello()), numbers) == Hello()  # from one that does not count


@given(st.lists(st.binary(max_size=60), max_size=3) | st.binary(max_size=60).map(seal))
def test_no_bytes_raise_anything_but_a_wire_error(frames: list[bytes]) -> None:
    for unpack in (unpack_to_engine, unpack_from_engine):
        try:
            unpack(frames)
        except WireError:
            continue


@st.composite
def _mutated(draw: st.DrawFn, whole: bytes, other: bytes) -> bytes:
    """Bits flipped, bytes cut out or put in, or the beginning of one message and the end of another."""
    data = bytearray(whole)
    for kind in draw(st.lists(st.sampled_from(["flip", "cut", "insert", "splice"]), min_size=1, max_size=3)):
        at = draw(st.integers(0, len(data)))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "splice":
            data[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)


@given(st.data(), TO_ENGINE, TO_ENGINE, FROM_ENGINE, FROM_ENGINE)
def test_what_was_changed_on_its_way_is_never_taken_for_another_message(
    data: st.DataObject, to: ToEngine, to_other: ToEngine, by: FromEngine, by_other: FromEngine
) -> None:
    for message, frames, other, unpack in (
        (to, pack(to, 7), pack(to_other, 8), unpack_to_engine),
        (by, pack(by, 7), pack(by_other, 8), unpack_from_engine),
    ):
        pairs = zip(frames, other, strict=True)
        changed = [data.draw(_mutated(*pair)) if data.draw(st.booleans()) else pair[0] for pair in pairs]
        if data.draw(st.booleans()):
            changed.reverse()
        try:
            assert unpack(changed) == message
        except WireError:
            continue


GOOD = EngineRequest(
    key=1,
    prompt_token_ids=[7, 11, 13],
    params=SamplingParams(max_tokens=3, logprobs=1, min_tokens=1, logit_bias={5: 1.0}, stop_token_ids=[9], seed=3),
    eos_token_ids=[EOS],
    bad_words_token_ids=[[5, 6]],
    output_token_ids=[8],
)


@given(st.data())
def test_a_forged_request_is_refused_or_as_good_as_any(data: st.DataObject) -> None:
    """It has the right seal, and comes to an engine in which another one runs."""
    payload = data.draw(_mutated(pack(GOOD)[1], pack(AbortRequests([1, 2]))[1]))
    try:
        message = unpack_to_engine(seal(payload))
    except WireError:
        return
    core = EngineCore(PagedModel(max_model_len=100, num_blocks=100), EngineConfig(model=""))
    core.add_request(GOOD, b"honest")
    if isinstance(message, EngineRequest | PoolingRequest):
        core.add_request(message, b"forger")
    elif isinstance(message, AbortRequests):
        core.abort(b"forger", message.keys)
    told: list[EngineOutput] = []
    for _ in range(8):
        told += core.step().get(b"honest", [])
    assert [output.finish_reason for output in told] == [None, "length"]
    core.abort_client(b"forger")
    core.check()
    assert core.stats().kv_cache_usage == 0


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"bad_words_token_ids": [[]]}, "bad word has no tokens"),
        ({"bad_words_token_ids": [[64]]}, "outside of the vocabulary of 64"),
        ({"eos_token_ids": [-1]}, "outside of the vocabulary"),
        ({"output_token_ids": [-1]}, "outside of the vocabulary"),
        ({"sample_index": 2**64 - 1}, "not below 16384"),
        ({"sample_index": -1}, "not below 16384"),
        *(
            ({"params": GOOD.params.clone(**{name: value})}, "outside of the vocabulary")
            for name, value in (
                ("logit_bias", {99: 1.0}),
                ("allowed_token_ids", [1, 64]),
                ("stop_token_ids", [2**40]),
            )
        ),
    ],
)
def test_a_forged_request_that_would_fail_the_step_is_refused(changes: dict[str, object], error: str) -> None:
    core = EngineCore(PagedModel(max_model_len=100, num_blocks=100), EngineConfig(model=""))
    core.add_request(msgspec.structs.replace(GOOD, **changes), b"forger")
    (output,) = core.step()[b"forger"]
    assert output.finish_reason == "error"
    assert error in (output.error or "")
