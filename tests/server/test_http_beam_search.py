"""Beam search through /v1/completions and /v1/chat/completions."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.faults.processes import metric, wait_until
from tests.running_server import RunningServer

from .test_http_completions import events, post
from .test_worker_metrics import connection, counted
from .test_worker_metrics import post as request

PROMPT = "The capital of France is"
SEARCH: dict[str, Any] = {"use_beam_search": True, "temperature": 0}


def refused(server: RunningServer, **body: Any) -> dict[str, Any]:
    body = {"prompt": PROMPT, **SEARCH, **body}
    response = httpx.post(f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=60)
    assert response.status_code == 400, response.text
    return response.json()["error"]


def texts(answer: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def test_n_is_the_number_of_beams_and_of_answers(server: RunningServer) -> None:
    answer = server.openai().completions.create(
        model="demo", prompt=PROMPT, n=4, max_tokens=12, temperature=0, extra_body={"use_beam_search": True}
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in answer.choices}) == 4
    assert all(choice.finish_reason in ("stop", "length") for choice in answer.choices)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(PROMPT.split())


def test_best_of_is_the_width_where_fewer_answers_are_wanted(server: RunningServer) -> None:
    wide = post(server, prompt=PROMPT, n=5, max_tokens=10, **SEARCH)
    best = post(server, prompt=PROMPT, n=2, best_of=5, max_tokens=10, **SEARCH)
    assert texts(best) == texts(wide)[:2]


def test_several_prompts_number_their_answers_through(server: RunningServer) -> None:
    answer = post(server, prompt=[PROMPT, "Once upon a"], n=2, max_tokens=5, **SEARCH)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    alone = post(server, prompt="Once upon a", n=2, max_tokens=5, **SEARCH)
    assert texts(answer)[2:] == texts(alone)


def test_logprobs_and_echo_are_those_of_the_found_tokens(server: RunningServer) -> None:
    answer = post(server, prompt=PROMPT, n=2, max_tokens=4, logprobs=2, echo=True, return_token_ids=True, **SEARCH)
    for choice in answer["choices"]:
        assert choice["text"].startswith(PROMPT)
        logprobs = choice["logprobs"]
        num_prompt_tokens = len(choice["prompt_token_ids"])
        assert logprobs["token_logprobs"][0] is None
        assert len(logprobs["tokens"]) == num_prompt_tokens + len(choice["token_ids"])
        assert "".join(logprobs["tokens"]).replace("<|endoftext|>", "") == choice["text"]
        assert all(len(top) in (2, 3) for top in logprobs["top_logprobs"][num_prompt_tokens:])
    sums = [sum(choice["logprobs"]["token_logprobs"][5:]) / len(choice["token_ids"]) for choice in answer["choices"]]
    assert sums == sorted(sums, reverse=True)


def test_a_stream_brings_each_answer_as_a_whole_at_the_end(server: RunningServer) -> None:
    body: dict[str, Any] = {"prompt": PROMPT, "n": 3, "best_of": 4, "max_tokens": 10, **SEARCH}
    whole = post(server, **body)
    *choices, usage = events(server, **body, stream_options={"include_usage": True})
    assert [event["choices"][0] for event in choices] == whole["choices"]
    assert usage["usage"] == whole["usage"]


def test_chat_finds_its_best_answers_too(server: RunningServer) -> None:
    answer = server.openai().chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        n=2,
        max_tokens=16,
        logprobs=True,
        top_logprobs=1,
        extra_body={"use_beam_search": True},
    )
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[1].message.content != answer.choices[0].message.content
    for choice in answer.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content


def test_every_answer_of_a_guided_search_is_valid(server: RunningServer) -> None:
    answer = post(
        server,
        prompt=PROMPT,
        n=4,
        max_tokens=60,
        guided_json={
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}, "size": {"type": "integer", "maximum": 99}},
            "required": ["city", "size"],
            "additionalProperties": False,
        },
        **SEARCH,
    )
    for text in texts(answer):
        value = json.loads(text)
        assert value["city"] in ("Paris", "Rome")
        assert value["size"] <= 99


def test_fewer_answers_come_where_fewer_exist(server: RunningServer) -> None:
    answer = post(server, prompt=PROMPT, n=8, max_tokens=4, guided_regex="7|8", **SEARCH)
    assert sorted(texts(answer)) == ["7", "8"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]


def test_min_tokens_and_stop_hold_for_every_beam(server: RunningServer) -> None:
    answer = post(server, prompt=PROMPT, n=4, max_tokens=16, min_tokens=6, return_token_ids=True, **SEARCH)
    assert all(len(choice["token_ids"]) >= 6 for choice in answer["choices"])
    answer = post(server, prompt="Once upon a", n=4, max_tokens=16, stop=[" was", "."], **SEARCH)
    assert all(" was" not in text and "." not in text for text in texts(answer))
    assert {choice["stop_reason"] for choice in answer["choices"]} & {" was", "."}


def test_many_searches_at_once_find_what_each_finds_alone(server: RunningServer) -> None:
    bodies = [{"prompt": f"The number {i} is", "n": 1 + i % 4, "max_tokens": 12, **SEARCH} for i in range(12)]
    alone = [texts(post(server, **body)) for body in bodies]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda body: texts(post(server, **body)), bodies))
    assert together == alone


def test_a_client_that_leaves_ends_its_search(server: RunningServer) -> None:
    body = {"prompt": PROMPT, "n": 8, "max_tokens": 1900, "ignore_eos": True, **SEARCH}
    before = counted(server, "/v1/completions", "POST", 499)
    with connection(server) as client:
        client.sendall(request(server, "/v1/completions", **body))
        wait_until(lambda: metric(server, "num_requests_running") > 0)
    wait_until(lambda: counted(server, "/v1/completions", "POST", 499) == before + 1)
    wait_until(lambda: metric(server, "num_requests_running") == 0)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"n": 65}, "n", "at most 64 beams"),
        ({"best_of": 65}, "best_of", "at most 64 beams"),
        ({"temperature": 0.5}, "temperature", "must be 0 or 1"),
        ({"top_p": 0.9}, "top_p", "must be 1.0"),
        ({"top_k": 5}, "top_k", "must be 0"),
        ({"min_p": 0.1}, "min_p", "must be 0.0"),
        ({"max_tokens": 0, "echo": True}, "max_tokens", "at least 1"),
        ({"length_penalty": 40}, "length_penalty", "between -10.0 and 10.0"),
        ({"early_stopping": "soon"}, "early_stopping", "soon"),
        ({"use_beam_search": "yes"}, "use_beam_search", "bool"),
        ({"use_beam_search": False, "length_penalty": 2}, "length_penalty", "needs use_beam_search"),
        ({"use_beam_search": None, "early_stopping": True}, "early_stopping", "needs use_beam_search"),
    ],
)
def test_what_makes_no_sense_is_refused(server: RunningServer, body: dict[str, Any], param: str, message: str) -> None:
    error = refused(server, **body)
    assert error["param"] == param
    assert message in error["message"]
