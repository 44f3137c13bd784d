"""The engine is killed or hangs; no client notices more than a pause."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.faults.mixed_requests import requests, run
from tests.faults.processes import (
    compilers_of,
    fork_server_of,
    kill_engine,
    metric,
    niceness_of,
    renderers_of,
    wait_for_engine,
    wait_until,
)
from tests.running_server import RunningServer, start_server

NUM_REQUESTS = 24
TOKENS_BEFORE_A_KILL = (300, 2000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Its engine dies more than once in each test."""
    log = tmp_path_factory.mktemp("crash") / "log"
    flags = ("--max-num-seqs", "64", "--kv-cache-memory", "64M", "--task", "embedding", "--engine-timeout", "5")
    running = start_server(log, *flags, "--max-engine-restarts", "100")
    yield running
    assert running.stop() == 0


def ask(server: RunningServer, path: str, body: dict[str, Any]) -> Any:
    response = httpx.post(f"{server.url}{path}", json=body, headers=server.headers, timeout=120)
    assert response.status_code == 200, response.text
    return response.json()


def test_requests_of_every_kind_go_on_after_the_engine_was_killed(server: RunningServer) -> None:
    bodies = requests(NUM_REQUESTS)
    undisturbed = asyncio.run(run(server.url, server.headers, bodies))
    assert all(outcome.status == 200 and outcome.error is None and outcome.is_done for outcome in undisturbed)
    restarts, resumed = metric(server, "engine_restarts_total"), metric(server, "requests_resumed_total")
    kills_to_come, num_received = list(TOKENS_BEFORE_A_KILL), 0
    with concurrent.futures.ThreadPoolExecutor() as pool:

        def count(num_tokens: int) -> None:
            nonlocal num_received
            num_received += num_tokens
            if kills_to_come and num_received >= kills_to_come[0]:
                del kills_to_come[0]
                pool.submit(kill_engine, server)

        disturbed = asyncio.run(run(server.url, server.headers, bodies, count))
    for body, before, after in zip(bodies, undisturbed, disturbed, strict=True):
        assert after.result == before.result, body
    wait_until(lambda: metric(server, "engine_restarts_total") == restarts + len(TOKENS_BEFORE_A_KILL))
    assert metric(server, "requests_resumed_total") >= resumed + NUM_REQUESTS / 2


def test_prompts_that_were_being_read_are_read_again(server: RunningServer) -> None:
    limit = ask(server, "/tokenize", {"prompt": "a"})["max_model_len"]
    body = {"max_tokens": 4, "temperature": 0, "prompt_logprobs": 1, "return_token_ids": True, "ignore_eos": True}
    bodies = [{**body, "prompt": [5 + (7 * i + k) % 500 for k in range(limit - 40)]} for i in range(4)]
    alone = [ask(server, "/v1/completions", each)["choices"] for each in bodies]
    steps = metric(server, "iteration_tokens_total_count")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = [pool.submit(ask, server, "/v1/completions", {**each, "cache_salt": "new"}) for each in bodies]
        wait_until(lambda: metric(server, "iteration_tokens_total_count") > steps)
        kill_engine(server)
        assert [answer.result()["choices"] for answer in answers] == alone


def test_texts_to_embed_are_sent_again(server: RunningServer) -> None:
    texts = [f"text number {number} " * 20 for number in range(400)]
    calm = ask(server, "/v1/embeddings", {"input": texts})["data"]
    steps = metric(server, "iteration_tokens_total_count")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, server, "/v1/embeddings", {"input": texts})
        wait_until(lambda: metric(server, "iteration_tokens_total_count") > steps)
        kill_engine(server)
        assert answer.result()["data"] == calm


def test_a_request_to_an_engine_that_is_being_restarted_waits(server: RunningServer) -> None:
    forks = fork_server_of(server)
    forks.suspend()  # so that the next engine does not come before we have asked
    wait_for_engine(server).kill()
    wait_until(lambda: httpx.get(f"{server.url}/health", timeout=60).status_code == 503)
    health = httpx.get(f"{server.url}/health", timeout=60)
    forks.resume()
    assert health.headers["retry-after"] == "1"
    assert "being restarted" in health.json()["error"]["message"]
    answer = ask(server, "/v1/completions", {"prompt": "The capital of France is", "temperature": 0})
    assert "Paris" in answer["choices"][0]["text"]
    server.wait_until_healthy()


def test_an_engine_that_hangs_is_replaced(server: RunningServer) -> None:
    body = {"prompt": "Hello", "max_tokens": 600, "ignore_eos": True, "temperature": 0.8, "seed": 1}
    calm = ask(server, "/v1/completions", body)["choices"]
    steps = metric(server, "iteration_tokens_total_count")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, server, "/v1/completions", body)
        wait_until(lambda: metric(server, "iteration_tokens_total_count") > steps + 5)
        engine = wait_for_engine(server)
        engine.suspend()
        assert answer.result()["choices"] == calm
    wait_until(lambda: not engine.is_running())
    wait_until(lambda: "did not answer for 5 s" in server.log.read_text())


def test_an_engine_that_stands_still_for_a_moment_goes_on(server: RunningServer) -> None:
    body = {"prompt": "Hello", "max_tokens": 600, "ignore_eos": True, "temperature": 0.8, "seed": 2}
    calm = ask(server, "/v1/completions", body)["choices"]
    steps = metric(server, "iteration_tokens_total_count")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, server, "/v1/completions", body)
        for more in (0, 5, 10):
            wait_until(lambda most=steps + more: metric(server, "iteration_tokens_total_count") > most)
            engine = wait_for_engine(server)
            engine.suspend()
            httpx.get(f"{server.url}/health", timeout=60)
            engine.resume()
        assert answer.result()["choices"] == calm


def test_the_process_that_engines_come_from_may_be_killed_at_any_time(server: RunningServer) -> None:
    bodies = requests(9, max_tokens=400)
    calm = asyncio.run(run(server.url, server.headers, bodies))
    restarts = metric(server, "engine_restarts_total")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        streams = pool.submit(asyncio.run, run(server.url, server.headers, bodies))
        wait_until(lambda: metric(server, "num_requests_running") > 0)
        fork_server_of(server).kill()  # the engine ends with it
        wait_until(lambda: metric(server, "engine_restarts_total") > restarts)
        server.wait_until_healthy()
        kill_engine(server)
        fork_server_of(server).kill()  # while it makes the next one, or before
        outcomes = streams.result()
    assert [outcome.result for outcome in outcomes] == [outcome.result for outcome in calm]
    server.wait_until_healthy()


def test_a_process_that_compiles_a_grammar_is_killed_and_the_grammar_compiled_all_the_same(
    server: RunningServer,
) -> None:
    body = {"prompt": "Hello", "max_tokens": 40, "temperature": 0.8, "seed": 2}
    ask(server, "/v1/completions", {**body, "guided_regex": "one [a-z]+"})
    wait_until(lambda: bool(compilers_of(server)))
    for compiler in compilers_of(server):
        compiler.suspend()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, server, "/v1/completions", {**body, "guided_regex": "(two )+[a-z]{3}"})
        ask(server, "/v1/completions", body)  # others do not wait for it
        wait_until(lambda: any(niceness_of(compiler) > 0 for compiler in compilers_of(server)))
        for compiler in compilers_of(server):
            with contextlib.suppress(psutil.NoSuchProcess):
                if compiler.status() == "stopped":
                    compiler.kill()
        assert answer.result()["choices"][0]["text"].startswith("two ")


def test_a_template_whose_processes_are_killed_is_no_fault_of_the_request(server: RunningServer) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "chat_template": "{{ messages[0].content }}"}
    ask(server, "/tokenize", body)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        (spare,) = renderers_of(server)
        spare.suspend()
        answer = pool.submit(ask, server, "/tokenize", body)
        spare.kill()
        answer.result()  # another one has rendered it
        for renderer in renderers_of(server):
            with contextlib.suppress(psutil.NoSuchProcess):
                renderer.suspend()
        # Rendering it takes as long as a template may: each process is found before it is done.
        endless = {**body, "chat_template": "{{ ('a ' * 10 ** 7)|wordwrap(1) }}"}
        refused = pool.submit(httpx.post, f"{server.url}/tokenize", json=endless, headers=server.headers, timeout=120)
        while not refused.done():
            for renderer in renderers_of(server):
                with contextlib.suppress(psutil.NoSuchProcess):
                    renderer.kill()
    assert refused.result().status_code == 500
    assert refused.result().json()["error"]["type"] == "InternalServerError"
    ask(server, "/tokenize", body)
