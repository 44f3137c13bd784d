"""Models, tokenization, probes, metrics, keys and ids."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any

import httpx
import pytest

from tests.faults.processes import wait_until
from tests.running_server import RunningServer
from tests.sdk_types import read_error, read_model, read_models

TEXT = "The capital of France is Paris."


@pytest.fixture(scope="module")
def http(server: RunningServer) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers=server.headers, timeout=60)


def test_models_lists_every_name_and_answers_for_each(server: RunningServer) -> None:
    client = server.openai()
    cards = client.models.list().data
    assert [card.id for card in cards] == ["demo", "alias"]
    assert [card.root for card in cards] == ["demo", "demo"]  # pyright: ignore[reportAttributeAccessIssue]
    assert client.models.retrieve("alias") == cards[1]


def test_model_card_tells_the_context(http: httpx.Client) -> None:
    card = http.get("/v1/models/demo").json()
    assert read_model(card) == read_models(http.get("/v1/models").json())[0]
    assert card["object"] == "model"
    assert card["max_model_len"] > 0
    assert card["permission"][0]["object"] == "model_permission"


def test_unknown_model_card_is_404(http: httpx.Client) -> None:
    response = http.get("/v1/models/some/other")
    assert response.status_code == 404
    assert response.json()["error"]["param"] == "model"


def test_tokens_make_the_text_again(http: httpx.Client) -> None:
    answer = http.post("/tokenize", json={"prompt": TEXT, "add_special_tokens": False}).json()
    assert answer["count"] == len(answer["tokens"])
    assert answer["token_strs"] is None
    assert http.post("/detokenize", json={"tokens": answer["tokens"]}).json() == {"prompt": TEXT}
    strings = http.post("/tokenize", json={"prompt": TEXT, "return_token_strs": True}).json()
    assert len(strings["token_strs"]) == strings["count"]


def test_count_of_tokenize_is_that_of_usage(http: httpx.Client) -> None:
    count = http.post("/tokenize", json={"prompt": TEXT}).json()["count"]
    usage = http.post("/v1/completions", json={"prompt": TEXT, "max_tokens": 1}).json()["usage"]
    assert count == usage["prompt_tokens"]
    messages = {"messages": [{"role": "user", "content": TEXT}]}
    count = http.post("/tokenize", json=messages).json()["count"]
    usage = http.post("/v1/chat/completions", json={**messages, "max_tokens": 1}).json()["usage"]
    assert count == usage["prompt_tokens"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_generation_prompt": False},
        {"add_generation_prompt": False, "continue_final_message": True},
        {"add_special_tokens": True},
        {"chat_template": "<|im_start|>{{ messages[0].content }}{{ end }}", "chat_template_kwargs": {"end": "!"}},
    ],
)
def test_tokens_of_a_conversation_are_those_that_chat_reads(http: httpx.Client, options: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": TEXT}], **options}
    shown = {"return_token_ids": True, "return_prompt_text": True}
    chat = http.post("/v1/chat/completions", json={**body, **shown, "max_tokens": 1}).json()
    answer = http.post("/tokenize", json={**body, "return_token_strs": True}).json()
    assert answer["tokens"] == chat["prompt_token_ids"]
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"]) == chat["usage"]["prompt_tokens"]
    text = http.post("/detokenize", json={"tokens": answer["tokens"]}).json()["prompt"]
    assert text == chat["prompt_text"]
    assert text.startswith("<|im_start|>")  # a special token


@pytest.mark.parametrize("path", ["/health", "/ping", "/version"])
def test_probes_need_no_key(server: RunningServer, path: str) -> None:
    assert httpx.get(server.url + path, timeout=60).status_code == 200


def test_version_is_that_of_the_package(http: httpx.Client) -> None:
    assert http.get("/version").json() == {"version": version("zqserve")}


def test_load_counts_the_requests_that_run(http: httpx.Client) -> None:
    def load() -> int:
        answer = http.get("/load").json()
        assert set(answer) == {"server_load"}
        return answer["server_load"]

    body = {"prompt": TEXT, "ignore_eos": True, "max_tokens": 2000, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        wait_until(lambda: load() == 1)
    wait_until(lambda: load() == 0)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_ping_is_as_health(http: httpx.Client, method: str) -> None:
    health, ping = http.get("/health"), http.request(method, "/ping")
    assert (ping.status_code, ping.content) == (health.status_code, health.content) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/completions"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/metrics"),
        ("GET", "/no-such-path"),
    ],
)
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer", "Basic a-key-for-tests", "a-key-for-tests"])
def test_everything_else_needs_a_key(server: RunningServer, method: str, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    response = httpx.request(method, server.url + path, headers=headers, timeout=60)
    assert response.status_code == 401
    error = read_error(response)
    assert (error.type, error.param) == ("AuthenticationError", None)
    assert "API key" in error.message
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("authorization", ["Bearer a-key-for-tests", "Bearer another-key", "bearer another-key"])
def test_each_key_opens(server: RunningServer, authorization: str) -> None:
    headers = {"authorization": authorization}
    assert httpx.get(f"{server.url}/v1/models", headers=headers, timeout=60).status_code == 200


def test_request_id_is_made_up_echoed_or_cleaned(http: httpx.Client) -> None:
    made_up = [http.get("/version").headers["x-request-id"] for _ in range(2)]
    assert made_up[0] != made_up[1]
    assert http.get("/version", headers={"x-request-id": "my-id.1"}).headers["x-request-id"] == "my-id.1"
    assert http.get("/version", headers={"x-request-id": 'a "b\t<c>'}).headers["x-request-id"] == "abc"
    assert len(http.get("/version", headers={"x-request-id": "x" * 5000}).headers["x-request-id"]) == 128


def test_metrics_count_what_requests_bring(http: httpx.Client) -> None:
    def value(name: str) -> float:
        response = http.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain")
        found = re.search(rf"^{re.escape(name)} (\S+)$", response.text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    label = '{model_name="demo"}'
    finished = 'vllm:request_success_total{finished_reason="length",model_name="demo"}'
    http_requests = 'http_requests_total{handler="/v1/completions",method="POST",status="200"}'
    names = [
        f"vllm:generation_tokens_total{label}",
        f"vllm:prompt_tokens_total{label}",
        f"vllm:e2e_request_latency_seconds_count{label}",
        f"vllm:time_to_first_token_seconds_count{label}",
        f"vllm:inter_token_latency_seconds_count{label}",
        f"vllm:time_per_output_token_seconds_count{label}",
        f"vllm:request_queue_time_seconds_count{label}",
        finished,
        http_requests,
    ]
    before = [value(name) for name in names]
    answer = http.post("/v1/completions", json={"prompt": TEXT, "max_tokens": 5, "ignore_eos": True}).json()
    brought = [value(name) - old for name, old in zip(names, before, strict=True)]
    assert brought == [5, answer["usage"]["prompt_tokens"], 1, 1, 4, 4, 1, 1, 1]
    for gauge in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "gpu_cache_usage_perc"):
        assert value(f"vllm:{gauge}{label}") >= 0


def test_web_pages_of_other_origins_get_no_permission(http: httpx.Client) -> None:
    response = http.get("/version", headers={"origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in response.headers
