"""/invocations, the paths that are known and not served, and what needs a flag; texts of any length in /tokenize."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.sdk_types import read_chat_completion

CONVERSATION = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "The capital of France is", "seed": 1, "max_tokens": 4}),
        ("/v1/chat/completions", {"messages": CONVERSATION, "seed": 1, "max_tokens": 4, "prompt": None}),
    ],
)
def test_invocations_answers_as_the_endpoint_of_the_body_does(
    http: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    direct, invoked = (http.post(p, json=body).json() for p in (path, "/invocations"))
    assert invoked["object"] == direct["object"]
    assert invoked["choices"] == direct["choices"]
    streamed = http.post("/invocations", json={**body, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "none of messages, prompt."),
        ({"prompt": None}, "messages, prompt"),
        ({"documents": ["a"]}, "none of messages, prompt."),
        ({"input": "a"}, "--task embedding"),
        ({"query": "a", "documents": ["b"]}, "--task embedding"),
        ({"text_1": "a", "text_2": "b"}, "--task embedding"),
        ({"prompt": "a", "temperature": 3}, "temperature"),
        ({"prompt": "a", "messages": CONVERSATION}, "two endpoints"),
        ([], "`object`"),
    ],
)
def test_body_that_no_endpoint_answers_is_refused(http: httpx.Client, body: Any, said: str) -> None:
    response = http.post("/invocations", json=body)
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/v1/audio/transcriptions", 404, "text models"),
        ("/v1/audio/translations", 404, "text models"),
        ("/v1/load_lora_adapter", 501, "merge"),
        ("/v1/unload_lora_adapter", 501, "merge"),
    ],
)
def test_known_paths_that_are_not_served_say_why(http: httpx.Client, path: str, status: int, said: str) -> None:
    response = http.post(path, content=b"anything")
    assert response.status_code == status
    error = response.json()["error"]
    assert said in error["message"]
    kind = {404: "NotFoundError", 501: "NotImplementedError"}[status]
    assert (error["type"], error["param"], error["code"]) == (kind, None, status)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/reset_prefix_cache"), ("GET", "/server_info"), ("GET", "/tokenizer_info")]
)
def test_paths_that_need_a_flag_are_not_there_without(http: httpx.Client, method: str, path: str) -> None:
    assert http.request(method, path).status_code == 404


def test_texts_of_any_length_are_tokenised(http: httpx.Client) -> None:
    empty = http.post("/tokenize", json={"prompt": "", "return_token_strs": True, "add_special_tokens": False}).json()
    assert (empty["count"], empty["tokens"], empty["token_strs"]) == (0, [], [])
    assert http.post("/detokenize", json={"tokens": []}).json() == {"prompt": ""}
    text = "The capital of France is Paris. " * 1000
    answer = http.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert answer["count"] > answer["max_model_len"]
    assert len(answer["token_strs"]) == answer["count"]
    assert http.post("/detokenize", json={"tokens": answer["tokens"]}).json()["prompt"].endswith(text)


def test_metrics_have_the_names_that_dashboards_read(http: httpx.Client) -> None:
    http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2, "ignore_eos": True})
    shown = {line.split()[2] for line in http.get("/metrics").text.splitlines() if line.startswith("# TYPE")}
    names = (
        "num_requests_running num_requests_waiting kv_cache_usage_perc gpu_cache_usage_perc num_preemptions_total "
        "prompt_tokens_total generation_tokens_total prefix_cache_queries_total prefix_cache_hits_total "
        "iteration_tokens_total request_success_total request_prompt_tokens request_generation_tokens "
        "request_params_n request_params_max_tokens time_to_first_token_seconds inter_token_latency_seconds "
        "time_per_output_token_seconds request_time_per_output_token_seconds e2e_request_latency_seconds "
        "request_queue_time_seconds request_inference_time_seconds request_prefill_time_seconds "
        "request_decode_time_seconds"
    )
    assert {f"vllm:{name}" for name in names.split()} | {"http_requests_total"} <= shown


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"allowed_token_ids": [0], "min_tokens": 1}, "allowed_token_ids"),  # 0 ends the answer
        ({"allowed_token_ids": ["a"], "bad_words": ["a"]}, "allowed_token_ids"),
        ({"allowed_token_ids": ["a"], "bad_words": ["aa"]}, None),
        ({"allowed_token_ids": ["a"], "guided_regex": "(a|aa)b"}, None),
    ],
)
def test_fields_that_leave_no_token_are_the_callers_mistake(
    http: httpx.Client, fields: dict[str, Any], param: str | None
) -> None:
    def token_id(text: str | int) -> int:
        body = {"prompt": text, "add_special_tokens": False}
        return text if isinstance(text, int) else http.post("/tokenize", json=body).json()["tokens"][0]

    fields = {**fields, "allowed_token_ids": [token_id(text) for text in fields["allowed_token_ids"]]}
    response = http.post("/v1/completions", json={"prompt": "b", "max_tokens": 4, **fields})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("value", [5e-324, 1e-40])
def test_tiny_numbers_choose_as_small_ones_do(http: httpx.Client, value: float) -> None:
    def text(**fields: float) -> str:
        body = {"prompt": "The capital of France is", "max_tokens": 4, "seed": 3, **fields}
        return http.post("/v1/completions", json=body).json()["choices"][0]["text"]

    assert text(temperature=value) == text(temperature=1e-6)
    assert text(temperature=value, repetition_penalty=value) == text(temperature=1e-6, repetition_penalty=1e-20)


def test_batch_answers_each_conversation_as_if_alone(http: httpx.Client) -> None:
    others = [[{"role": "user", "content": text}] for text in ("Hello", "Name a colour.")]
    fields = {"max_tokens": 6, "seed": 5, "logprobs": True, "model": "alias"}
    batch = http.post("/v1/chat/completions/batch", json={"messages": [CONVERSATION, *others], **fields}).json()
    alone = [
        http.post("/v1/chat/completions", json={"messages": messages, **fields}).json()
        for messages in (CONVERSATION, *others)
    ]
    read_chat_completion(batch)
    assert batch["model"] == "demo"
    assert [choice["index"] for choice in batch["choices"]] == [0, 1, 2]
    for choice, single in zip(batch["choices"], alone, strict=True):
        assert {**choice, "index": 0} == single["choices"][0]
    for count in ("prompt_tokens", "completion_tokens"):
        assert batch["usage"][count] == sum(single["usage"][count] for single in alone)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": CONVERSATION}, "messages[0]"),
        ({"messages": [CONVERSATION, []]}, "messages[1]"),
        ({"messages": [CONVERSATION, [{"role": "user", "content": 5}]]}, "messages[1][0].content"),
        ({"messages": [CONVERSATION] * 1025}, "messages"),
        ({"stream": True}, "stream"),
        ({"n": 2}, "n"),
        ({"tools": []}, "tools"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"temperature": 3}, "temperature"),
    ],
)
def test_batch_names_what_it_does_not_take(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    response = http.post("/v1/chat/completions/batch", json={"messages": [CONVERSATION], **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param, response.text
    assert param in response.json()["error"]["message"]
