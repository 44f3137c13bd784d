"""Bad input: each mistake has its status, a message that says what is wrong, and the field; the server lives on."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection
from typing import Any

import httpx
import openai
import pytest

from tests.running_server import RunningServer

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    413: "RequestEntityTooLargeError",
}
USER = [{"role": "user", "content": "Hello"}]
BASE: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": "Hello", "max_tokens": 1},
    CHAT: {"messages": USER, "max_tokens": 1},
    "/tokenize": {"prompt": "Hello"},
    "/detokenize": {"tokens": [1]},
}


@pytest.fixture(scope="module")
def http(server: RunningServer) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers=server.headers, timeout=60)


@pytest.fixture(autouse=True)
def _server_still_answers(http: httpx.Client) -> Any:
    yield
    assert http.post(COMPLETIONS, json=BASE[COMPLETIONS]).status_code == 200


def check(response: httpx.Response, status: int, param: str | None, said: str) -> None:
    """The answer is the error object, and nothing else."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == status
    assert error["type"] == ("NotImplementedError" if said == "not supported" else TYPES[status])
    assert error["param"] == param, error
    assert said in error["message"], error
    assert len(error["message"]) < 1100


SHARED_FIELDS: list[tuple[str, Any, str]] = [
    # field, wrong value, what the message says
    ("n", "2", "`int"),
    ("n", 1.5, "`int"),
    ("n", True, "`int"),
    ("n", 0, "1"),
    ("n", 16385, "16384"),
    ("n", 10**30, "16384"),
    ("max_tokens", "many", "`int"),
    ("max_tokens", 0, "at least 1"),
    ("max_tokens", -1, "at least 1"),
    ("max_tokens", 10**9, "max_tokens"),
    ("min_tokens", -1, "at least 0"),
    ("min_tokens", 2, "max_tokens"),
    ("temperature", "hot", "`float"),
    ("temperature", -0.1, "between"),
    ("temperature", 2.1, "2.0"),
    ("top_p", 0, "above 0"),
    ("top_p", 1.1, "at most 1"),
    ("top_p", [], "`float"),
    ("top_k", -2, "top_k"),
    ("top_k", 0.5, "`int"),
    ("min_p", -0.1, "between"),
    ("min_p", 1.1, "between"),
    ("presence_penalty", 2.5, "2.0"),
    ("frequency_penalty", -2.5, "-2.0"),
    ("repetition_penalty", 0, "above 0"),
    ("repetition_penalty", {}, "`float"),
    ("seed", 2**63, "seed"),
    ("seed", "1", "`int"),
    ("stop", "", "empty"),
    ("stop", 5, "`str"),
    ("stop", ["a", ""], "empty"),
    ("stop", ["x"] * 65, "64"),
    ("stop_token_ids", [10**9], "stop_token_ids"),
    ("stop_token_ids", [-1], "stop_token_ids"),
    ("stop_token_ids", 3, "`array"),
    ("bad_words", [""], "empty"),
    ("bad_words", "word", "`array"),
    ("include_stop_str_in_output", "yes", "`bool"),
    ("ignore_eos", 1, "`bool"),
    ("skip_special_tokens", "no", "`bool"),
    ("spaces_between_special_tokens", 0, "`bool"),
    ("prompt_logprobs", -2, "prompt_logprobs"),
    ("prompt_logprobs", 10**6, "20"),
    ("logit_bias", {"word": 1}, "word"),
    ("logit_bias", {"1000000000": 1}, "logit_bias"),
    ("logit_bias", {"1": "much"}, "`float`"),
    ("logit_bias", [1], "`object"),
    ("allowed_token_ids", [], "empty"),
    ("allowed_token_ids", [10**9], "allowed_token_ids"),
    ("truncate_prompt_tokens", 0, "truncate_prompt_tokens"),
    ("truncate_prompt_tokens", -2, "truncate_prompt_tokens"),
    ("truncation_side", "middle", "middle"),
    ("add_special_tokens", "yes", "`bool"),
    ("echo", "yes", "`bool"),
    ("stream", "yes", "`bool"),
    ("stream_options", {"include_usage": True}, "stream"),
    ("stream_interval", 0, "at least 1"),
    ("priority", "high", "`int"),
    ("request_id", 7, "`str"),
    ("return_token_ids", "yes", "`bool"),
    ("return_tokens_as_token_ids", 3, "`bool"),
    ("cache_salt", 5, "`str"),
    ("user", 5, "`str"),
    ("model", 5, "`str"),
    ("best_of", 0, "best_of"),
    ("guided_json", 5, "object"),
    ("guided_json", [1], "object"),
    ("guided_json", "{", "guided_json"),
    ("guided_json", {"type": "nonsense"}, "type: 'nonsense'"),
    ("guided_json", {"type": "string", "minLength": 5, "maxLength": 2}, "guided_json"),
    ("guided_regex", 5, "`str"),
    ("guided_regex", "a(", "position"),
    ("guided_choice", [], "at least one"),
    ("guided_choice", "a", "`array"),
    ("guided_grammar", ["root"], "`str"),
    ("guided_grammar", "nonsense", "guided_grammar"),
    ("guided_json_object", "yes", "`bool"),
    ("guided_decoding_backend", "nobody", "outlines"),
    ("guided_decoding_backend", "xgrammar:quickly", "no-fallback"),
    ("guided_whitespace_pattern", " ", "JSON"),
    ("structured_outputs", 5, "`object"),
    ("structured_outputs", {}, "none of json"),
    ("structured_outputs", {"unheard": "of"}, "unheard"),
    ("response_format", "text", "`object"),
    ("response_format", {"type": "xml"}, "json_schema"),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "empty"}}, "schema"),
    ("response_format", {"type": "structural_tag"}, "structures"),
    # known, and not served yet
    ("logits_processors", ["x"], "not supported"),
    ("logprob_token_ids", [1], "not supported"),
    ("prompt_embeds", "AAAA", "not supported"),
]


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize(("field", "value", "said"), SHARED_FIELDS)
def test_wrong_value_of_a_field_is_named(http: httpx.Client, path: str, field: str, value: Any, said: str) -> None:
    check(http.post(path, json={**BASE[path], field: value}), 400, field, said)


@pytest.mark.parametrize(
    ("path", "fields", "param", "said"),
    [
        (COMPLETIONS, {"prompt": 5}, "prompt", "`str"),
        (COMPLETIONS, {"prompt": None}, "prompt", "null"),
        (COMPLETIONS, {"prompt": ""}, "prompt", "empty"),
        (COMPLETIONS, {"prompt": []}, "prompt", "empty"),
        (COMPLETIONS, {"prompt": [[]]}, "prompt", "empty"),
        (COMPLETIONS, {"prompt": ["a", 1]}, "prompt", "texts"),
        (COMPLETIONS, {"prompt": [1, 2.5]}, "prompt[1]", "float"),
        (COMPLETIONS, {"prompt": [[1], ["a"]]}, "prompt[1][0]", "`int`"),
        (COMPLETIONS, {"prompt": [-1]}, "prompt", "-1"),
        (COMPLETIONS, {"prompt": [10**9]}, "prompt", str(10**9)),
        (COMPLETIONS, {"prompt": ["a"] * 1025}, "prompt", "1024"),
        (COMPLETIONS, {"logprobs": -2}, "logprobs", "logprobs"),
        (COMPLETIONS, {"logprobs": 21}, "logprobs", "20"),
        (COMPLETIONS, {"logprobs": True}, "logprobs", "`int"),
        (COMPLETIONS, {"suffix": "end"}, "suffix", "not supported"),
        (COMPLETIONS, {"n": 3, "best_of": 2}, "best_of", "3"),
        (COMPLETIONS, {"best_of": 2, "stream": True}, "best_of", "stream"),
        (COMPLETIONS, {"prompt_logprobs": 1, "stream": True}, "prompt_logprobs", "stream"),
        (COMPLETIONS, {"stream": True, "stream_options": 1}, "stream_options", "`object"),
        (
            COMPLETIONS,
            {"stream": True, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
            "`bool",
        ),
        (CHAT, {"messages": []}, "messages", "empty"),
        (CHAT, {"messages": "Hello"}, "messages", "`array`"),
        (CHAT, {"messages": ["Hello"]}, "messages[0]", "`object`"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]", "image"),
        (CHAT, {"messages": [{"content": "Hello"}]}, "messages[0].role", "role"),
        (CHAT, {"messages": [*USER, {"role": 1, "content": "Hello"}]}, "messages[1].role", "role"),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "content"),
        (CHAT, {"logprobs": 1}, "logprobs", "`bool"),
        (CHAT, {"top_logprobs": 2}, "top_logprobs", "logprobs"),
        (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
        (CHAT, {"logprobs": True, "top_logprobs": -2}, "top_logprobs", "at least 0"),
        (CHAT, {"max_completion_tokens": 0}, "max_completion_tokens", "at least 1"),
        (
            CHAT,
            {"add_generation_prompt": True, "continue_final_message": True},
            "continue_final_message",
            "add_generation",
        ),
        (CHAT, {"chat_template": "{{"}, "chat_template", "template"),
        (CHAT, {"chat_template": "{{ ''.__class__.__mro__ }}"}, "chat_template", "template"),
        (CHAT, {"chat_template": "{{ raise_exception('no') }}"}, "chat_template", "no"),
        (CHAT, {"chat_template": 5}, "chat_template", "`str"),
        (CHAT, {"chat_template_kwargs": []}, "chat_template_kwargs", "`object"),
        (CHAT, {"documents": {}}, "documents", "`array"),
        ("/tokenize", {"prompt": 5}, "prompt", "`str`"),
        ("/tokenize", {"messages": 5}, "messages", "`array`"),
        ("/detokenize", {"tokens": "a"}, "tokens", "`array`"),
        ("/detokenize", {"tokens": [-1]}, "tokens", "-1"),
        ("/detokenize", {"tokens": [10**9]}, "tokens", str(10**9)),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]", "`int`"),
    ],
)
def test_wrong_value_of_an_endpoint_is_named(
    http: httpx.Client, path: str, fields: dict[str, Any], param: str, said: str
) -> None:
    check(http.post(path, json={**BASE[path], **fields}), 400, param, said)


@pytest.mark.parametrize(
    ("path", "param"),
    [(COMPLETIONS, "prompt"), (CHAT, "messages"), ("/tokenize", "prompt"), ("/detokenize", "tokens")],
)
def test_missing_field_is_named(http: httpx.Client, path: str, param: str) -> None:
    check(http.post(path, json={}), 400, param, "required")


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/tokenize", "/detokenize"])
def test_unknown_model_is_404(http: httpx.Client, path: str) -> None:
    check(http.post(path, json={**BASE[path], "model": "gpt-5"}), 404, "model", "gpt-5")


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/tokenize", "/detokenize"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"Hello", "not JSON"),
        (b"[]", "`object`"),
        (b"null", "`object`"),
        (b'{"prompt": "a", "messages": [], "tokens": []} and more', "not JSON"),
        (b'{"prompt": "\xff"}', "UTF-8"),
        (b'{"unknown": "\xff"}', "UTF-8"),
        (b'{"unknown": "\\ud800"}', "not JSON"),
        (b'{"unknown": NaN}', "not JSON"),
        (b'{"unknown": -Infinity}', "not JSON"),
        (b'{"guided_json": ' + b"[" * 100_000, "nested"),
    ],
)
def test_body_that_is_no_json_object_is_refused(http: httpx.Client, path: str, body: bytes, said: str) -> None:
    check(http.post(path, content=body), 400, None, said)


@pytest.mark.parametrize("number", [b"1e999", b"1" + b"0" * 400])
def test_number_out_of_range_is_refused(http: httpx.Client, number: bytes) -> None:
    body = b'{"prompt": "a", "temperature": ' + number + b"}"
    check(http.post(COMPLETIONS, content=body), 400, "temperature", "range")


def test_integer_beyond_all_bounds_is_refused(http: httpx.Client) -> None:
    body = b'{"prompt": "a", "seed": 1' + b"0" * 10_000 + b"}"
    response = http.post(COMPLETIONS, content=body)
    assert response.status_code == 400
    assert "error" in response.json()


def test_too_long_prompt_is_refused_with_both_numbers(http: httpx.Client) -> None:
    limit = http.get("/v1/models/demo").json()["max_model_len"]
    response = http.post(COMPLETIONS, json={"prompt": [5] * (limit + 10), "max_tokens": 1})
    check(response, 400, "input_tokens", str(limit))
    assert str(limit + 10) in response.json()["error"]["message"]


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_more_tokens_than_the_context_are_refused_with_both_numbers(http: httpx.Client, path: str) -> None:
    limit = http.get("/v1/models/demo").json()["max_model_len"]
    response = http.post(path, json={**BASE[path], "max_tokens": limit + 1})
    check(response, 400, "max_tokens", str(limit))
    assert str(limit + 1) in response.json()["error"]["message"]


@pytest.mark.parametrize("template", ["{{", "{{ raise_exception('no') }}", "{{ messages.nothing.at_all }}"])
def test_failing_template_leaves_the_connection_open(server: RunningServer, template: str) -> None:
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    connection.connect()
    first_socket = connection.sock
    for fields, status in (({"chat_template": template}, 400), ({}, 200)):
        connection.request("POST", CHAT, json.dumps({**BASE[CHAT], **fields}), server.headers)
        response = connection.getresponse()
        assert response.status == status
        body = json.loads(response.read())
        if status == 400:
            assert (body["error"]["type"], body["error"]["param"]) == ("BadRequestError", "chat_template")
        assert connection.sock is first_socket  # another one would be a new connection
    connection.close()


def test_options_needs_no_key(server: RunningServer) -> None:
    response = httpx.options(f"{server.url}{COMPLETIONS}", timeout=60)
    check(response, 405, None, "OPTIONS")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", COMPLETIONS, "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("PUT", "/ping", "POST"),
        ("POST", "/metrics", "GET"),
        ("PUT", "/v1/responses/x", "DELETE, GET"),
    ],
)
def test_wrong_method_is_405_and_names_the_right_one(http: httpx.Client, method: str, path: str, allowed: str) -> None:
    response = http.request(method, path)
    check(response, 405, None, method)
    assert allowed in response.headers["allow"]


@pytest.mark.parametrize("path", ["/v1", "/v1/completions/", "/v1/audio/transcriptions", "/x" * 500])
def test_unknown_path_is_404(http: httpx.Client, path: str) -> None:
    check(http.post(path, json={}, follow_redirects=False), 404, None, "no ")


def test_large_body_is_413_before_it_is_read(http: httpx.Client, server: RunningServer) -> None:
    check(http.post(COMPLETIONS, content=b" " * 50_000_000), 413, None, "33554432")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.api_key}\r\n"
        connection.sendall(f"{head}content-length: 50000000\r\n\r\n".encode())  # and no byte of it
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_large_body_of_unknown_length_is_413(http: httpx.Client) -> None:
    check(http.post(COMPLETIONS, content=(b" " * 1_000_000 for _ in range(50))), 413, None, "33554432")


def test_stream_that_fails_before_its_first_event_is_a_plain_error(http: httpx.Client) -> None:
    check(http.post(CHAT, json={**BASE[CHAT], "stream": True, "temperature": 3}), 400, "temperature", "2.0")


def test_sdk_raises_its_own_errors(server: RunningServer) -> None:
    client = server.openai()
    with pytest.raises(openai.BadRequestError) as bad:
        client.completions.create(model="demo", prompt="a", temperature=3)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="a")
    with pytest.raises(openai.AuthenticationError) as unknown:
        client.with_options(api_key="wrong").models.list()
    assert isinstance(unknown.value.body, dict)
    assert "API key" in json.dumps(unknown.value.body)
