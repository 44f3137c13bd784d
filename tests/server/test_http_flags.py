"""Flags of the command line that change what the HTTP interface does; one server has them all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.faults.processes import wait_until
from tests.running_server import RunningServer, start_server

FLAGS = (
    *("--root-path", "/api", "--allowed-origins", "https://friend.example", "--no-guard-metrics", "--access-log"),
    *("--max-body-size", "1k", "--no-trust-request-chat-template", "--response-role", "bot", "--max-logprobs", "2"),
    *("--enable-prompt-tokens-details", "--return-tokens-as-token-ids", "--max-model-len", "128"),
    *("--override-generation-config", '{"temperature": 0, "max_new_tokens": 5}', "--kv-cache-memory", "16M"),
    *("--chat-template", "{% for m in messages %}{{ m.content }}{% endfor %}{{ tail }}", "--log-prompts"),
    *("--max-log-len", "9", "--default-chat-template-kwargs", '{"tail": "!"}', "--logprobs-mode", "processed"),
    *("--disable-access-log-for-endpoints", "/version,/load", "--enable-force-include-usage"),
    *("--sse-keep-alive-interval", "0.001", "--stream-interval", "3", "--async-scheduling"),
    *("--no-guard-docs", "--dev-endpoints", "--enable-tokenizer-info-endpoint", "--grammar-timeout", "0.001"),
    *("--middleware", "tests.server.operators_middleware.Stamp", "tests.server.operators_middleware.count"),
)
MESSAGES = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


@pytest.fixture(scope="module")
def flagged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = start_server(tmp_path_factory.mktemp("flags") / "log", *FLAGS, wait=False)
    server.url += "/api"
    server.wait_until_healthy()
    yield server
    server.stop()


def post(server: RunningServer, path: str, **body: Any) -> httpx.Response:
    return httpx.post(server.url + path, json=body, headers=server.headers, timeout=60)


def test_root_path_stands_in_front_of_every_path(flagged: RunningServer) -> None:
    assert httpx.get(f"{flagged.url}/version", timeout=60).status_code == 200
    assert httpx.get(f"{flagged.url}/v1/models", timeout=60).status_code == 401
    assert httpx.get(f"{flagged.url}/v1/models", headers=flagged.headers, timeout=60).status_code == 200


def test_only_named_origins_get_permission(flagged: RunningServer) -> None:
    def preflight(origin: str) -> httpx.Response:
        headers = {"origin": origin, "access-control-request-method": "POST"}
        return httpx.options(f"{flagged.url}/v1/completions", headers=headers, timeout=60)

    friend = preflight("https://friend.example")
    assert friend.status_code == 200
    assert friend.headers["access-control-allow-origin"] == "https://friend.example"
    assert preflight("https://stranger.example").status_code == 400
    refused = httpx.get(f"{flagged.url}/v1/models", headers={"origin": "https://friend.example"}, timeout=60)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://friend.example"


def test_metrics_may_be_left_unguarded(flagged: RunningServer) -> None:
    assert httpx.get(f"{flagged.url}/metrics", timeout=60).status_code == 200


def test_body_limit_is_the_one_of_the_flag(flagged: RunningServer) -> None:
    response = post(flagged, "/v1/completions", prompt="x" * 1000)
    assert response.status_code == 413
    assert "1000" in response.json()["error"]["message"]


def test_a_constraint_that_takes_too_long_is_refused(flagged: RunningServer) -> None:
    patterns = [{"pattern": f"^(.*[a-{last}]){{9}}.*$"} for last in "bcdef"]  # some 50 ms of work
    schema = {"type": "string", "allOf": patterns, "minLength": 40}
    response = post(flagged, "/v1/completions", prompt="x", guided_json=schema)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("BadRequestError", "guided_json")
    assert "takes longer than 0.001 s" in error["message"]
    assert post(flagged, "/v1/completions", prompt="x").status_code == 200


def test_template_of_a_request_is_refused(flagged: RunningServer) -> None:
    response = post(flagged, "/v1/chat/completions", messages=MESSAGES, chat_template="x")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "chat_template"


def test_template_and_role_are_those_of_the_flags(flagged: RunningServer) -> None:
    answer = post(flagged, "/v1/chat/completions", messages=MESSAGES, return_prompt_text=True).json()
    assert answer["prompt_text"] == MESSAGES[0]["content"] + "!"
    assert answer["choices"][0]["message"]["role"] == "bot"


def test_template_variables_of_a_request_win_over_those_of_the_flag(flagged: RunningServer) -> None:
    arguments = {"messages": MESSAGES, "return_prompt_text": True, "chat_template_kwargs": {"tail": "?"}}
    assert post(flagged, "/v1/chat/completions", **arguments).json()["prompt_text"].endswith("word.?")


def test_middleware_of_the_operator_sees_every_request(flagged: RunningServer) -> None:
    for path, status in (("/version", 200), ("/v1/models", 401), ("/absent", 401)):
        answer = httpx.get(flagged.url + path, timeout=60)
        assert answer.status_code == status
        assert answer.headers["x-stamp"] == "class"
        assert answer.headers["x-counted"] == "function"


def test_streams_bring_events_of_several_tokens_and_usage_without_being_asked(flagged: RunningServer) -> None:
    answer = post(flagged, "/v1/completions", prompt="What is", stream=True, ignore_eos=True, return_token_ids=True)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    sizes = [len(event["choices"][0]["token_ids"]) for event in events[:-1]]
    assert sum(sizes) == 5
    assert all(size >= 3 for size in sizes[:-1])  # more than three where the reader was late
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 5


def test_silent_streams_get_comments(flagged: RunningServer) -> None:
    answer = post(flagged, "/v1/completions", prompt=list(range(5, 105)), stream=True, ignore_eos=True)
    comments = [line for line in answer.text.splitlines() if line.startswith(":")]
    assert set(comments) == {": keep-alive"}
    assert answer.text.splitlines()[-2] == "data: [DONE]"


def test_processed_logprobs_are_of_what_was_drawn_from(flagged: RunningServer) -> None:
    arguments = {"prompt": "What is", "logprobs": 2, "max_tokens": 1}
    drawn = post(flagged, "/v1/completions", **arguments, temperature=0.5, top_k=1).json()["choices"][0]["logprobs"]
    assert sorted(drawn["top_logprobs"][0].values()) == [-9999.0, 0.0]
    plain = post(flagged, "/v1/completions", **arguments, temperature=1).json()["choices"][0]["logprobs"]
    cold = post(flagged, "/v1/completions", **arguments, temperature=0.5).json()["choices"][0]["logprobs"]
    first, second = sorted(plain["top_logprobs"][0].values())[-2:]
    colder, coldest = sorted(cold["top_logprobs"][0].values())[-2:]
    assert coldest - colder == pytest.approx(2 * (second - first), abs=1e-3)


def test_a_flag_without_an_effect_is_told_once(flagged: RunningServer) -> None:
    assert flagged.log.read_text().count("--async-scheduling has no effect") == 1


def test_generation_config_gives_defaults_and_caps_every_request(flagged: RunningServer) -> None:
    arguments = {"prompt": "What is", "ignore_eos": True, "return_token_ids": True}
    silent = post(flagged, "/v1/completions", **arguments).json()
    assert silent["usage"]["completion_tokens"] == 5
    assert post(flagged, "/v1/completions", max_tokens=9, **arguments).json()["usage"]["completion_tokens"] == 5
    greedy = post(flagged, "/v1/completions", temperature=0, **arguments).json()
    assert silent["choices"] == greedy["choices"]


def test_limits_are_those_of_the_flags(flagged: RunningServer) -> None:
    assert (
        httpx.get(f"{flagged.url}/v1/models/demo", headers=flagged.headers, timeout=60).json()["max_model_len"] == 128
    )
    response = post(flagged, "/v1/completions", prompt="a", logprobs=3)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "logprobs"


def test_tokens_are_ids_and_cached_tokens_are_counted(flagged: RunningServer) -> None:
    arguments = {"prompt": list(range(5, 55)), "logprobs": 0, "return_token_ids": True}
    post(flagged, "/v1/completions", **arguments)
    answer = post(flagged, "/v1/completions", **arguments).json()
    choice = answer["choices"][0]
    assert choice["logprobs"]["tokens"] == [f"token_id:{token_id}" for token_id in choice["token_ids"]]
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 48


def test_logs_show_requests_and_the_beginning_of_prompts(flagged: RunningServer) -> None:
    post(flagged, "/v1/completions", prompt="Beginning of a prompt", max_tokens=1, request_id="shown")
    access = '"POST /api/v1/completions HTTP/1.1" 200'
    # Lines are written behind the answer.
    wait_until(lambda: "cmpl-shown" in flagged.log.read_text() and access in flagged.log.read_text())
    lines = [line for line in flagged.log.read_text().splitlines() if "cmpl-shown" in line]
    assert len(lines) == 1
    assert "'Beginning'" in lines[0]
    assert "of a prompt" not in flagged.log.read_text()
    assert "GET /api/version" not in flagged.log.read_text()


def test_docs_open_without_a_key_and_behind_the_root_path(flagged: RunningServer) -> None:
    page = httpx.get(f"{flagged.url}/", follow_redirects=True, timeout=60)
    assert page.url.path == "/api/docs"
    for name in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text):
        assert httpx.get(page.url.join(name), timeout=60).status_code == 200
    document = httpx.get(page.url.join("openapi.json"), timeout=60).json()
    assert document["servers"] == [{"url": "/api"}]
    assert httpx.put(page.url, timeout=60).headers["allow"] == "GET, HEAD"
    assert document["paths"]["/v1/models"]["get"]["security"]
    assert httpx.get(f"{flagged.url}/v1/models", timeout=60).status_code == 401


def test_development_endpoints_answer(flagged: RunningServer) -> None:
    prompt = list(range(100, 140))
    for expected in (0, 32, 0):
        if not expected:
            assert post(flagged, "/reset_prefix_cache").status_code == 200
        usage = post(flagged, "/v1/completions", prompt=prompt).json()["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == expected
    assert httpx.get(f"{flagged.url}/server_info", timeout=60).status_code == 401
    response = httpx.get(f"{flagged.url}/server_info", headers=flagged.headers, timeout=60)
    assert response.json()["config"]["max_logprobs"] == 2
    assert response.json()["max_model_len"] == response.json()["engine"]["max_model_len"] == 128
    assert flagged.api_key not in response.text


def test_tokenizer_info_has_the_template_in_use(flagged: RunningServer) -> None:
    info = httpx.get(f"{flagged.url}/tokenizer_info", headers=flagged.headers, timeout=60).json()
    assert info["chat_template"].endswith("{{ tail }}")
    assert info["tokenizer_class"]
