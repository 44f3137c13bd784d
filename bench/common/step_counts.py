"""What a decode step does, counted: in the scheduler, on the wire, and in an engine with a model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

import zmq

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore, build_engine_core
from zqserve.engine_core.engine_process import EngineServer, bind_socket
from zqserve.engine_core.messages import EngineRequest, FromEngine, StepOutputs
from zqserve.engine_core.pulse import Pulse
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.wire import pack, unpack_from_engine

from .counting import blocks_kept, calls, instructions, torch_operations
from .null_runner import NullRunner, add_requests, distinct_prompt, null_core

BATCH = 32
PROMPT_TOKENS = 64
STEPS = 64
"""Counted together: a sequence gets a block every 16 steps, and the engine looks through its accounts every 64."""
MODEL_STEPS = 16
"""The same with a model, whose steps take longer."""

Counts = Iterator[tuple[str, float]]


def scheduler_counts() -> Counts:
    """Of a step without a model."""
    alone = _scheduler_instructions(BATCH, num_waiting=0)
    yield f"instructions a step, {BATCH} running", alone
    yield "instructions for one more running", (alone - _scheduler_instructions(1, num_waiting=0)) / (BATCH - 1)
    yield "1,000 waiting over none", round(_scheduler_instructions(BATCH, num_waiting=1000) / alone, 4)
    yield f"blocks of memory kept a step, {BATCH} running", _blocks_kept_a_step()


def wire_counts() -> Counts:
    """Of the messages in which a front-end gets its tokens."""
    sizes: list[int] = []
    messages = list(_messages_of_steps(BATCH, STEPS, sizes))
    steps = [message for message in messages if isinstance(message, StepOutputs)]
    num_tokens = sum(len(output.token_ids) for message in steps for output in message.outputs)
    yield f"messages a step, {BATCH} running", len(steps) / STEPS
    yield f"bytes a token, {BATCH} running", round(sum(sizes) / num_tokens, 2)


def engine_counts(model: str) -> Counts:
    """Of a step with a model."""
    config = EngineConfig(model=model, max_num_seqs=BATCH, num_blocks=1024, num_threads=1, dtype="float32")
    core = build_engine_core(config, progress=lambda line: None)
    alone = _a_step(core, 1, instructions)
    yield "instructions a step, 1 running", alone
    yield "instructions for one more running", round((_a_step(core, BATCH, instructions) - alone) / (BATCH - 1), 2)
    yield "calls of functions a step, 1 running", _a_step(core, 1, calls)
    yield "torch operations a step, 1 running", _a_step(core, 1, torch_operations)
    yield f"torch operations a step, {BATCH} running", _a_step(core, BATCH, torch_operations)


def _scheduler_instructions(batch: int, num_waiting: int) -> float:
    core = null_core(max_num_seqs=batch, context=PROMPT_TOKENS + STEPS + 32)
    add_requests(core, batch + num_waiting, prompt_tokens=PROMPT_TOKENS, max_tokens=STEPS + 16)
    core.step()
    return instructions(lambda: _steps(core)) / STEPS


def _blocks_kept_a_step() -> float:
    core = null_core(max_num_seqs=BATCH, context=PROMPT_TOKENS + 3 * STEPS)
    add_requests(core, BATCH, prompt_tokens=PROMPT_TOKENS, max_tokens=3 * STEPS)
    _steps(core)
    return round(blocks_kept(lambda: _steps(core)) / STEPS, 2)


def _a_step(core: EngineCore, batch: int, count: Callable[[Callable[[], object]], int]) -> float:
    """What is counted in `MODEL_STEPS` decode steps, for one of them."""
    add_requests(core, batch, prompt_tokens=MODEL_STEPS, max_tokens=3 * MODEL_STEPS)
    _steps(core, MODEL_STEPS)
    core.check()  # so that no look at the accounts falls into the steps that are counted
    counted = count(lambda: _steps(core, MODEL_STEPS)) / MODEL_STEPS
    core.abort_client(b"")
    core.reset_prefix_cache()
    return counted


def _steps(core: EngineCore, number: int = STEPS) -> None:
    for _ in range(number):
        core.step()


def _messages_of_steps(batch: int, num_steps: int, sizes: list[int]) -> Iterator[FromEngine]:
    """What a front-end receives in so many turns of the engine's loop; the bytes of each message go into `sizes`."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/engine"
        core = null_core(max_num_seqs=batch, context=PROMPT_TOKENS + num_steps + 32)
        engine = EngineServer(core, bind_socket(context, address), Pulse(None))
        front_end = context.socket(zmq.DEALER)
        front_end.connect(address)
        try:
            for key in range(batch):
                params = SamplingParams(temperature=0, seed=1, max_tokens=num_steps + 16, ignore_eos=True)
                prompt = distinct_prompt(key, PROMPT_TOKENS, NullRunner.vocab_size)
                front_end.send_multipart(pack(EngineRequest(key=key, prompt_token_ids=prompt, params=params)))
            num_running = 0
            while num_running < batch:
                engine.turn()
                message = unpack_from_engine(front_end.recv_multipart())
                if isinstance(message, StepOutputs):
                    num_running = len(message.outputs)
            for _ in range(num_steps):
                engine.turn()
            while front_end.poll(200):
                frames = front_end.recv_multipart()
                message = unpack_from_engine(frames)
                if isinstance(message, StepOutputs):
                    sizes.append(sum(map(len, frames)))
                yield message
        finally:
            context.destroy(linger=0)
