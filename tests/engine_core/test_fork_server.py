"""Engines forked from a process that has imported everything: real processes, a real model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine_process import EngineProcessArgs
from zqserve.engine_core.fork_server import ForkedProcess, ForkServer
from zqserve.engine_core.messages import EngineReady, EngineRequest, Hello, StepOutputs
from zqserve.engine_core.sampling_params import SamplingParams

from .test_engine_process import FrontEnd

DEADLINE_SECONDS = 240


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two small layers with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    """One for all tests that do not harm it."""
    server = ForkServer()
    yield server
    server.close()


def args(model: Path, folder: Path) -> EngineProcessArgs:
    config = EngineConfig(model=str(model), device="cpu", num_blocks=32, num_threads=1)
    return EngineProcessArgs(config=config, address=f"ipc://{folder}/engine")


def start(server: ForkServer, model: Path, folder: Path) -> ForkedProcess:
    """An engine whose pulse nobody looks at."""
    reader, writer = os.pipe()
    try:
        return server.start(args(model, folder), writer)
    finally:
        os.close(reader)
        os.close(writer)


def engine_pid(process: ForkedProcess) -> int:
    """Its pid, once the engine has begun."""
    wait_until(lambda: process.poll() is not None or process.pid is not None)
    assert process.pid is not None
    pid = process.pid
    wait_until(lambda: process_name(pid) == "zqserve-engine")
    return pid


def assert_serves(folder: Path, num_tokens: int = 5) -> None:
    """An engine answers at the address, if not now, then soon."""
    context = zmq.Context()
    try:
        front_end = FrontEnd(context, f"ipc://{folder}/engine")
        params = SamplingParams(max_tokens=num_tokens, ignore_eos=True)
        request = EngineRequest(key=0, prompt_token_ids=[7, 11, 13], params=params, eos_token_ids=[2])
        front_end.send(Hello(), request)
        ready = front_end.receive(timeout_seconds=DEADLINE_SECONDS)
        assert isinstance(ready, EngineReady)
        assert (ready.max_model_len, ready.vocab_size, ready.num_blocks) == (128, 64, 32)
        received = 0
        while received < num_tokens:
            message = front_end.receive(timeout_seconds=DEADLINE_SECONDS)
            assert message is not None
            if isinstance(message, StepOutputs):
                received += sum(len(output.token_ids) for output in message.outputs)
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize("end_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_fork_serves_a_model_and_ends_with_0_on_a_signal(
    fork_server: ForkServer, model_dir: Path, tmp_path: Path, end_signal: signal.Signals
) -> None:
    process = start(fork_server, model_dir, tmp_path)
    assert_serves(tmp_path)
    assert process.poll() is None
    os.kill(engine_pid(process), end_signal)
    assert process.wait(DEADLINE_SECONDS) == 0


def test_a_signal_while_the_model_loads_ends_the_fork_with_0(
    fork_server: ForkServer, model_dir: Path, tmp_path: Path
) -> None:
    process = start(fork_server, model_dir, tmp_path)
    engine_pid(process)
    process.terminate()
    assert process.wait(DEADLINE_SECONDS) == 0


def test_after_a_killed_engine_comes_another_from_the_same_server_which_has_one_thread(
    fork_server: ForkServer, model_dir: Path, tmp_path: Path
) -> None:
    servers = []
    for _ in range(2):
        process = start(fork_server, model_dir, tmp_path)
        assert_serves(tmp_path)
        servers.append(psutil.Process(engine_pid(process)).parent())
        process.kill()
        assert process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    assert servers[0] is not None
    assert servers[0] == servers[1]
    assert servers[0].num_threads() == 1  # a thread would be missing in a fork, with the locks that it holds


def test_a_killed_fork_server_takes_its_engine_along_and_is_replaced(model_dir: Path, tmp_path: Path) -> None:
    server = ForkServer()
    try:
        process = start(server, model_dir, tmp_path)
        pid = engine_pid(process)
        parent = psutil.Process(pid).parent()
        assert parent is not None
        parent.kill()
        assert process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
        wait_until(lambda: process_name(pid) is None)
        again = start(server, model_dir, tmp_path)
        assert again.poll() is None
        again.terminate()  # while it imports
        assert again.wait(DEADLINE_SECONDS) in (0, -signal.SIGTERM)
    finally:
        server.close()


def test_a_model_that_is_not_there_ends_the_fork_with_1_and_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server = ForkServer()
    try:
        assert start(server, tmp_path / "nothing", tmp_path).wait(DEADLINE_SECONDS) == 1
    finally:
        server.close()
    log = capfd.readouterr().err
    assert log.splitlines()[-1].endswith("is not the directory of a model: it has no config.json.")
    assert "Traceback" not in log


def test_no_process_outlives_a_killed_launcher(model_dir: Path, tmp_path: Path) -> None:
    code = "\n".join(
        [
            "import msgspec, os, sys, time",
            "from zqserve.engine_core.fork_server import EngineProcessArgs, ForkServer",
            "server = ForkServer()",
            "process = server.start(msgspec.json.decode(sys.argv[1], type=EngineProcessArgs), os.pipe()[1])",
            "while process.poll() is None and process.pid is None:",
            "    time.sleep(0.01)",
            "print(process.pid, flush=True)",
            "time.sleep(600)",
        ]
    )
    command = [sys.executable, "-c", code, msgspec.json.encode(args(model_dir, tmp_path)).decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        wait_until(lambda: process_name(pid) == "zqserve-engine")
        server = psutil.Process(pid).ppid()
        assert server != launcher.pid
        launcher.kill()
        wait_until(lambda: process_name(pid) is None)
        wait_until(lambda: process_name(server) is None)


def process_name(pid: int) -> str | None:
    """The name of a running process; None once it is gone or a zombie."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return None
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return None if fields["State"].startswith("Z") else fields["Name"]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
