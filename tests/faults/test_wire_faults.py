"""What comes over the socket between front-end and engine and makes no sense: nobody's answer is another one by it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.faults.mixed_requests import requests, run
from tests.faults.processes import engine_of, metric, wait_until
from tests.running_server import RunningServer, start_server
from zqserve.engine_core.messages import AbortRequests, EngineRequest, Hello, MessageLost
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.wire import pack, seal, unpack_from_engine

NOBODY = 65534


def test_a_bad_line_changes_no_answer(server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = requests(12, max_tokens=200)
    good = asyncio.run(run(server.url, server.headers, bodies))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "noisy_site"))
    noisy = start_server(tmp_path / "log", "--max-num-seqs", "64", "--kv-cache-memory", "64M")
    outcomes = asyncio.run(run(noisy.url, noisy.headers, bodies))
    assert [outcome.result for outcome in outcomes] == [outcome.result for outcome in good]
    assert metric(noisy, "messages_dropped_total") > 0
    assert metric(noisy, "requests_resumed_total") > 0
    assert metric(noisy, "engine_restarts_total") == 0
    assert noisy.stop() == 0
    log = noisy.log.read_text()
    assert "Traceback" not in log
    assert 1 <= log.count("A message of the engine was dropped") <= 5  # once for each kind of fault


def test_another_process_at_the_engines_socket_disturbs_nobody(server: RunningServer) -> None:
    bodies = requests(10, max_tokens=150)
    calm = asyncio.run(run(server.url, server.headers, bodies))
    dropped = metric(server, "engine_messages_dropped_total")
    engine = engine_of(server)
    has_begun = threading.Event()
    context = zmq.Context()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        streams = pool.submit(asyncio.run, run(server.url, server.headers, bodies, lambda _: has_begun.set()))
        assert has_begun.wait(120)
        for frames in _forgeries():
            stranger = context.socket(zmq.DEALER)
            stranger.connect(f"ipc://{engine_socket(server)}")
            stranger.send_multipart(frames)
            if frames[0][:3] != b"zq2" or len(frames) != 2:
                assert stranger.poll(60_000)
                assert isinstance(unpack_from_engine(stranger.recv_multipart()), MessageLost)
            stranger.close(linger=1000)
        outcomes = streams.result()
    context.destroy(linger=0)
    assert [outcome.result for outcome in outcomes] == [outcome.result for outcome in calm]
    wait_until(lambda: metric(server, "engine_messages_dropped_total") >= dropped + 6)
    assert engine_of(server) == engine
    wait_until(lambda: metric(server, "num_requests_running") == 0)
    assert server.log.read_text().count("A message of a front-end was dropped") <= 5


def _forgeries() -> Iterator[list[bytes]]:
    """What the engine is sent by somebody who knows the protocol, or does not."""
    params = SamplingParams(max_tokens=5, seed=1, bad_words=[])
    forged = EngineRequest(key=1, prompt_token_ids=[5], params=params, bad_words_token_ids=[[], [2**40]])
    yield [b""]
    yield [b"zq0", b"x"]
    yield [os.urandom(15), os.urandom(1000)]
    yield [*pack(Hello()), b""]
    yield [b"", bytes(1 << 20)]
    yield [b"GET / HTTP/1.1\r\n\r\n"]
    yield pack(AbortRequests(list(range(10_000))))  # the numbers that a front-end gives its requests
    yield pack(forged)
    yield seal(b"\xdf" + b"\xff" * 9)


def test_no_other_user_reaches_the_engines_socket(server: RunningServer) -> None:
    path = Path(engine_socket(server))
    assert path.is_socket()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    if os.getuid() != 0:
        return  # who is not root cannot be another user
    code = "import os, socket, sys; os.setgroups([]); os.setgid({0}); os.setuid({0}); {1}"
    connect = "socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    for user, is_let_in in ((0, True), (NOBODY, False)):
        command = [sys.executable, "-c", code.format(user, connect), str(path)]
        done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
        assert (done.returncode == 0) == is_let_in
        assert (b"PermissionError" in done.stderr) != is_let_in


def engine_socket(server: RunningServer) -> str:
    """The path at which the engine listens."""
    engine = engine_of(server)
    assert engine is not None
    paths = {str(connection.laddr) for connection in engine.net_connections("unix")}
    (path,) = [path for path in paths if path.endswith("/engine")]
    return path
