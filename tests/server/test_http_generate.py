"""POST /generate as its three forerunners had it; the curl lines are those of their documents."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.running_server import RunningServer

VLLM = """curl http://localhost:8000/generate \\
    -d '{
        "prompt": "San Francisco is a",
        "use_beam_search": true,
        "n": 4,
        "temperature": 0
    }'
"""
OUTLINES_SCHEMA = """curl http://127.0.0.1:8000/generate \\
    -d '{
        "prompt": "What is the capital of France?",
        "schema": {"type": "string", "maxLength": 5}
        }'
"""
OUTLINES_REGEX = r"""curl http://127.0.0.1:8000/generate \
    -d '{
        "prompt": "What is Pi? Give me the first 15 digits: ",
        "regex": "(-)?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-][0-9]+)?"
        }'
"""
BENTOML = """curl -X 'POST' \\
  'http://localhost:3000/generate' \\
  -H 'accept: application/json' \\
  -H 'Content-Type: application/json' \\
  -d '{
  "prompt": "Give me a character description."
}'
"""
PROMPT = "The capital of France is"


def run_curl(server: RunningServer, line: str) -> Any:
    """What the line prints, asked of this server and with its key."""
    words = shlex.split(line.replace("\\\n", " "))
    words = [re.sub(r"^http://[^/]+", server.url, word) for word in words]
    key = f"authorization: Bearer {server.api_key}"
    done = subprocess.run([*words, "-sS", "-H", key], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def ask(server: RunningServer, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/generate", content=json.dumps(body), headers=server.headers, timeout=60)


def post(server: RunningServer, **body: Any) -> Any:
    response = ask(server, **body)
    assert response.status_code == 200, response.text
    return response.json()


def test_vllms_quickstart_brings_four_texts_behind_the_prompt(server: RunningServer) -> None:
    texts = run_curl(server, VLLM)["text"]
    assert len(set(texts)) == 4
    assert all(text.startswith("San Francisco is a") for text in texts)


def test_outlines_schema_brings_a_short_json_string_alone(server: RunningServer) -> None:
    (text,) = run_curl(server, OUTLINES_SCHEMA)["text"]
    assert len(json.loads(text)) <= 5


def test_outlines_regex_brings_a_number_alone(server: RunningServer) -> None:
    (text,) = run_curl(server, OUTLINES_REGEX)["text"]
    assert re.fullmatch(r"(-)?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]*)?", text)


def check_character(character: Any) -> None:
    assert list(character) == ["name", "age", "armor", "weapon", "strength"]
    assert len(character["name"]) <= 10
    assert isinstance(character["age"], int)
    assert isinstance(character["strength"], int)
    assert character["armor"] in ("leather", "chainmail", "plate")
    assert character["weapon"] in ("sword", "axe", "mace", "spear", "bow", "crossbow")


def test_bentomls_guide_gets_its_character_with_the_default_prompt_or_none(server: RunningServer) -> None:
    check_character(run_curl(server, BENTOML))
    check_character(post(server))


def test_a_json_schema_of_ones_own_as_text_or_as_an_object_brings_the_value(server: RunningServer) -> None:
    schema = {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 2, "maxItems": 2}
    for given in (schema, json.dumps(schema)):
        value = post(server, prompt="Two colours:", json_schema=given)
        assert len(value) == 2
        assert set(value) <= {"red", "blue"}


def test_a_plain_prompt_is_continued_by_16_tokens(server: RunningServer) -> None:
    (text,) = post(server, prompt=PROMPT, ignore_eos=True, temperature=0)["text"]
    completion = httpx.post(
        f"{server.url}/v1/completions",
        json={"prompt": PROMPT, "ignore_eos": True, "temperature": 0},
        headers=server.headers,
        timeout=60,
    ).json()
    assert completion["usage"]["completion_tokens"] == 16
    assert text == PROMPT + completion["choices"][0]["text"]


def test_best_of_and_n_bring_the_likeliest(server: RunningServer) -> None:
    body: dict[str, Any] = {"prompt": PROMPT, "seed": 5, "temperature": 1.5, "max_tokens": 6}
    many = post(server, n=6, **body)["text"]
    best = post(server, n=2, best_of=6, **body)["text"]
    assert len(best) == 2
    assert set(best) <= set(many)


def test_the_prompt_stands_in_front_or_not_as_the_request_says(server: RunningServer) -> None:
    (plain,) = post(server, prompt=PROMPT, echo_prompt=False, temperature=0)["text"]
    (echoed,) = post(server, prompt=PROMPT, temperature=0)["text"]
    assert echoed == PROMPT + plain
    (guided,) = post(server, prompt=PROMPT, regex=" [A-Z][a-z]+", echo_prompt=True)["text"]
    assert guided.startswith(PROMPT + " ")


def test_the_schema_goes_before_the_regex(server: RunningServer) -> None:
    (text,) = post(server, prompt=PROMPT, schema={"enum": ["seven"]}, regex="a+")["text"]
    assert text == '"seven"'


@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_a_stream_repeats_all_texts_as_they_grow(server: RunningServer, separator: str) -> None:
    body: dict[str, Any] = {"prompt": PROMPT, "n": 2, "temperature": 0, "max_tokens": 64, "ignore_eos": True}
    if separator == "\0":
        body["stream_separator"] = separator
    response = ask(server, stream=True, **body)
    assert response.status_code == 200
    *objects, end = response.text.split(separator)
    assert end == ""
    states = [json.loads(text)["text"] for text in objects]
    assert states[-1] == post(server, **body)["text"]
    # A slow reader gets several steps in one object, so their number is not known; that the text grows is.
    assert len(states) >= 3
    for before, after in pairwise(states):
        assert all(new.startswith(old) for old, new in zip(before, after, strict=True))
    assert all(text.startswith(PROMPT) for state in states for text in state)


def test_a_guided_stream_grows_to_the_unary_text(server: RunningServer) -> None:
    body: dict[str, Any] = {"prompt": PROMPT, "regex": "[a-z ]{60}", "temperature": 0, "max_tokens": 80}
    response = ask(server, stream=True, **body)
    states = [json.loads(line)["text"][0] for line in response.text.splitlines()]
    assert [states[-1]] == post(server, **body)["text"]
    assert all(new.startswith(old) for old, new in pairwise(states))
    assert re.fullmatch("[a-z ]{60}", states[-1])


def test_a_streamed_search_is_one_object(server: RunningServer) -> None:
    body: dict[str, Any] = {"prompt": PROMPT, "n": 3, "use_beam_search": True, "max_tokens": 8}
    response = ask(server, stream=True, **body)
    assert [json.loads(line) for line in response.text.splitlines()] == [post(server, **body)]


def test_a_prompt_of_token_ids_is_shown_as_text(server: RunningServer) -> None:
    ids = httpx.post(f"{server.url}/tokenize", json={"prompt": PROMPT}, headers=server.headers, timeout=60).json()[
        "tokens"
    ]
    assert post(server, prompt=ids, temperature=0) == post(server, prompt=PROMPT, temperature=0)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"schema": {}}, "prompt", "required"),
        ({"prompt": ["a"]}, "prompt[0]", "expected `int`"),
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens", "at least 1"),
        ({"prompt": "a", "schema": {"type": "strin"}}, "schema", "strin"),
        ({"prompt": "a", "schema": 3}, "schema", "object"),
        ({"prompt": "a", "regex": "("}, "regex", ""),
        ({"prompt": "a", "json_schema": "{"}, "json_schema", ""),
        ({"prompt": "a", "regex": "a", "json_schema": {}}, "regex", "Only one constraint"),
        ({"prompt": "a", "schema": {}, "guided_choice": ["a"]}, "schema", "Only one constraint"),
        ({"prompt": "a", "json_schema": {}, "n": 2}, "n", "one JSON value"),
        ({"prompt": "a", "json_schema": {}, "stream": True}, "stream", "one JSON value"),
        ({"prompt": "a", "json_schema": {"enum": ["abcdefgh"]}, "max_tokens": 1}, "max_tokens", "limit"),
        ({"prompt": "a", "json_schema": {"enum": ["abcdefgh"]}, "stop": "d"}, "stop", "stop string"),
        ({"prompt": "a", "logprobs": 1}, "logprobs", "/v1/completions"),
        ({"prompt": "a", "echo": True}, "echo", "echo_prompt"),
        ({"prompt": "a", "stream": True, "stream_separator": ";"}, "stream_separator", "must be"),
        ({"prompt": "a", "use_beam_search": True, "n": 65}, "n", "at most 64 beams"),
    ],
)
def test_what_makes_no_sense_is_refused(server: RunningServer, body: dict[str, Any], param: str, message: str) -> None:
    response = ask(server, **body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("BadRequestError", 400, param)
    assert message in error["message"]


def test_a_model_that_is_not_served_is_not_found(server: RunningServer) -> None:
    assert ask(server, prompt="a", model="other").status_code == 404
    assert post(server, prompt="a", model="alias")["text"]
