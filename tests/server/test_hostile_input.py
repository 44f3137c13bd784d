"""Clients that want the server ill: each is refused or served, nothing leaks, and the streams beside go on.

Sockets are raw where a client library would be too well-behaved.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.running_server import API_KEY, ROOT, RunningServer, start_server

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
KEY = f"Authorization: Bearer {API_KEY}\r\n".encode()
BODY = b'{"prompt": "Hello", "max_tokens": 1}'
USER = [{"role": "user", "content": "Hello"}]
SECRET = "the-secret-of-another-user"
MAX_BODY = 4 * 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """It logs as much as it can."""
    flags = ["--log-level", "debug", "--log-prompts", "--access-log", "--enable-prompt-tokens-details"]
    flags += ["--body-timeout", "1", "--max-body-size", "4M", "--kv-cache-memory", "64M", "--max-num-seqs", "64"]
    running = start_server(tmp_path_factory.mktemp("hostile") / "log", *flags)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def _streams_beside(server: RunningServer) -> Iterator[None]:
    """While the tests of this file run, three clients read streams; all of them are whole and the same."""
    stop = threading.Event()

    def read_streams() -> list[tuple[int, str | None, str]]:
        client = server.openai()
        read = []
        while not stop.is_set() or not read:
            stream = client.completions.create(
                model="demo", prompt=SECRET, max_tokens=200, temperature=0, stream=True, extra_body={"ignore_eos": True}
            )
            choices = [chunk.choices[0] for chunk in stream]
            read.append((len(choices), choices[-1].finish_reason, "".join(choice.text for choice in choices)))
        return read

    with concurrent.futures.ThreadPoolExecutor() as pool:
        readers = [pool.submit(read_streams) for _ in range(3)]
        yield
        stop.set()
        read = [stream for reader in readers for stream in reader.result(120)]
    assert {reason for _, reason, _ in read} == {"length"}
    assert len({text for _, _, text in read}) == 1


@pytest.fixture(autouse=True)
def _server_is_unharmed(server: RunningServer) -> Iterator[None]:
    """The same processes as before, no exception in the log."""
    before = {child.pid for child in psutil.Process(server.process.pid).children()}
    yield
    assert {child.pid for child in psutil.Process(server.process.pid).children()} == before
    assert "Traceback" not in server.log.read_text(errors="replace")


def talk(server: RunningServer, data: bytes, *, until: bytes = b"") -> bytes:
    """What the server answers to these bytes until it closes the connection, or has sent `until`."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        answer = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read on
            connection.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while not (until and until in answer) and (piece := connection.recv(65536)):
                answer += piece
        return answer


def request(method: bytes, path: bytes, *, headers: bytes = KEY, body: bytes = b"", close: bool = True) -> bytes:
    head = b"%b %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n" % (method, path, headers, len(body))
    return head + (b"Connection: close\r\n" if close else b"") + b"\r\n" + body


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answers)]


def check_harmless(text: str) -> None:
    """An answer tells nothing of this machine, of the code or of others."""
    for leak in (str(ROOT), "site-packages", "Traceback", ".py", SECRET, API_KEY):
        assert leak not in text


# The connection


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/models",
        b"//v1/models",
        b"//v1//models",
        b"/%76%31/models",
        b"/v1%2fmodels",
        b"/v1/models?/health",
        b"/v1/models#/health",
        b"/health/../v1/models",
        b"/health/%2e%2e/v1/models",
        b"/health%2f..%2fv1%2fmodels",
        b"/health;/../v1/models",
        b"/health%00/../v1/models",
        b"/health/",
        b"/HEALTH",
        b"http://x/v1/models",
        b"http://x/health/../v1/models",
        b"http://health@x/v1/models",
        b"health",
        b"*",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"TRACE", b"CONNECT", b"get"])
def test_no_spelling_of_a_path_gets_past_the_key(server: RunningServer, method: bytes, path: bytes) -> None:
    answer = talk(server, request(method, path, headers=b""))
    assert statuses(answer) in ([401], [400])
    assert statuses(talk(server, request(method, path, headers=b"Authorization: Bearer \r\nx-api-key: \r\n"))) == (
        statuses(answer)
    )


def test_a_path_that_is_none_is_answered_as_such(server: RunningServer) -> None:
    for path in (b"/%ff%fe%00", b"/%0d%0aX-Evil:1", b"//v1/models", b"/../../etc/passwd", b"/" + b"a" * 50_000):
        answer = talk(server, request(b"GET", path))
        assert statuses(answer) == [404]
        assert b"\nX-Evil" not in answer
        check_harmless(answer.decode(errors="replace"))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 500, 400),
        (b"GET /health\r\n\r\n", 400),
        (b"GET /health HTTP/1.2\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n", 431),
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}{}{}", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n{}{}{}", 400),
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    ],
)
def test_what_is_no_http_is_refused_and_the_connection_closed(server: RunningServer, data: bytes, status: int) -> None:
    answer = talk(server, data)
    assert statuses(answer) in ([status], [])  # nothing: it closed while we were still sending


@pytest.mark.parametrize("chunk", [b"FFFFFFFFFFFFFFFFF\r\n", b"-1\r\n", b"24;" + b"a" * 100_000 + b"\r\n", b"zz\r\n"])
def test_a_body_of_broken_chunks_is_400(server: RunningServer, chunk: bytes) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + KEY + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = talk(server, head + chunk + BODY + b"\r\n0\r\n\r\n")
    assert statuses(answer) == [400]
    assert b"broke off" in answer


def test_a_client_that_leaves_amid_its_body_is_no_error_of_the_server(server: RunningServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + KEY + b"Content-Length: 100\r\n\r\n{")
            time.sleep(0.05)


@pytest.mark.parametrize("length", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_that_does_not_come_is_408(server: RunningServer, length: bytes) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + KEY + length + b"\r\n"
    assert statuses(talk(server, head, until=b"after 1 s")) == [408]


def test_a_body_that_drips_is_408(server: RunningServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=0.05) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + KEY + b"Content-Length: 100000\r\n\r\n")
        answer = b""
        while not answer:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may be over: the answer waits
                connection.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(65536)
    assert statuses(answer) == [408]


def test_large_bodies_are_refused_before_they_are_read(server: RunningServer) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + KEY
    announced = talk(server, head + b"Content-Length: 99999999999\r\n\r\n")
    assert statuses(announced) == [413]
    chunks = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    assert statuses(talk(server, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks * 8)) in ([413], [])
    # Without a key nobody's body is read, however long.
    assert statuses(talk(server, request(b"POST", COMPLETIONS.encode(), headers=b"", body=b" " * 2**20))) in ([401], [])


def test_pipelined_requests_are_answered_one_by_one_whatever_becomes_of_them(server: RunningServer) -> None:
    post = request(b"POST", COMPLETIONS.encode(), body=BODY, close=False)
    bad = request(b"POST", COMPLETIONS.encode(), body=b"{", close=False)
    unknown = request(b"GET", b"/none", close=False)
    stranger = request(b"POST", COMPLETIONS.encode(), headers=b"", body=BODY, close=False)
    health = request(b"GET", b"/health", headers=b"")
    answers = talk(server, post + bad + stranger + unknown + post + health)
    assert statuses(answers) == [200, 400, 401, 404, 200, 200]


def test_a_request_inside_an_unread_body_is_not_served(server: RunningServer) -> None:
    inner = request(b"GET", b"/v1/models")
    answers = talk(server, request(b"POST", COMPLETIONS.encode(), headers=b"", body=inner))
    assert statuses(answers) == [401]


def test_old_and_upgrading_clients_are_served_as_http_1(server: RunningServer) -> None:
    old = b"POST /v1/completions HTTP/1.0\r\n%bContent-Length: %d\r\n\r\n%b" % (KEY, len(BODY), BODY)
    assert statuses(talk(server, old)) == [200]
    h2c = KEY + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    assert statuses(talk(server, request(b"POST", COMPLETIONS.encode(), headers=h2c, body=BODY))) == [200]
    websocket = (
        KEY + b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    assert statuses(talk(server, request(b"GET", b"/v1/models", headers=websocket))) == [200]


# What the body says


def test_a_body_of_too_many_parts_is_refused_before_it_is_decoded(http: httpx.Client) -> None:
    bodies = [
        b'{"prompt": [' + b"[1]," * 900_000 + b"[1]]}",
        b'{"messages": [], "chat_template_kwargs": {"a": [' + b"{}," * 1_300_000 + b"{}]}}",
    ]
    for body in bodies:
        response = http.post(CHAT, content=body)
        assert response.status_code == 400
        assert "arrays, objects and keys" in response.json()["error"]["message"]


@pytest.mark.parametrize("depth", [200, 400, 600, 900])
@pytest.mark.parametrize(
    "field",
    ["chat_template_kwargs", "tools", "documents", "messages", "guided_json", "response_format", "user", "unknown"],
)
def test_no_depth_of_any_field_breaks_anything(http: httpx.Client, field: str, depth: int) -> None:
    nested = '{"a": [' * depth + "]}" * depth
    values = {
        "tools": f'[{{"type": "function", "function": {{"name": "f", "parameters": {{"properties": {nested}}}}}}}]',
        "documents": f"[{nested}]",
        "messages": f'[{{"role": "user", "content": "Hello", "a": {nested}}}]',
        "response_format": f'{{"type": "json_schema", "json_schema": {{"name": "x", "schema": {nested}}}}}',
    }
    fields = {"messages": json.dumps(USER), "max_tokens": "1", field: values.get(field, nested)}
    text = "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"
    response = http.post(CHAT, content=text)
    assert response.status_code in (200, 400), response.text


@pytest.mark.parametrize(
    "field",
    [
        *("n", "best_of", "max_tokens", "max_completion_tokens", "min_tokens", "top_k", "seed", "logprobs"),
        *("top_logprobs", "prompt_logprobs", "truncate_prompt_tokens", "priority", "stream_interval", "temperature"),
        *("top_p", "min_p", "presence_penalty", "repetition_penalty", "length_penalty", "stop_token_ids", "prompt"),
        *("allowed_token_ids", "echo", "stop", "logit_bias"),
    ],
)
@pytest.mark.parametrize("number", [2**70, -(2**70), 2**63, 2**63 - 1, -(2**63), 2**31])
def test_no_number_breaks_anything(http: httpx.Client, field: str, number: int) -> None:
    value: Any = [number] if field.endswith("ids") or field == "prompt" else number
    if field == "logit_bias":
        value = {str(number): 1.0}
    for path, prompt in ((COMPLETIONS, {"prompt": "Hello"}), (CHAT, {"messages": USER})):
        response = http.post(path, json={**prompt, "max_tokens": 1, field: value})
        assert response.status_code in (200, 400), response.text


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"stop": ["x" * 5000]}, "stop", "4096"),
        ({"guided_json": '{"const": 1e99999999999999999999}'}, "guided_json", "exponent"),
        ({"guided_regex": "((a{1,9999}){1,9999}){1,9999}"}, "guided_regex", "too far"),
        ({"bad_words": [f"word{i}" for i in range(300)]}, "bad_words", "256"),
        ({"bad_words": ["x" * 100_000]}, "bad_words", "16384"),
        ({"allowed_token_ids": [5] * 3000}, "allowed_token_ids", "vocabulary"),
        ({"stop_token_ids": [5] * 3000}, "stop_token_ids", "vocabulary"),
        ({"prompt": ["a"] * 1024, "n": 100}, "n", "102400 answers"),
        ({"prompt": [5] * 2000, "n": 16_000}, "n", "32000000 tokens"),
        ({"prompt": [[5] * 2000] * 80, "prompt_logprobs": 20}, "prompt_logprobs", "3360000"),
        ({"prompt": [[5] * 2000] * 80, "echo": True, "logprobs": 20}, "prompt_logprobs", "3360000"),
    ],
)
def test_what_would_take_long_or_much_is_refused_with_the_limit(
    http: httpx.Client, fields: dict[str, Any], param: str, said: str
) -> None:
    response = http.post(COMPLETIONS, json={"prompt": "Hello", "max_tokens": 1, **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert said in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": "\\ud800", "max_tokens": 1}',
        b'{"prompt": "a", "stop": ["\\udfff"]}',
        b'{"prompt": "a", "guided_json": {"const": "\\ud800"}}',
        b'{"prompt": "a", "guided_json": "{\\"const\\": \\"\\\\ud800\\"}"}',
        b'{"prompt": "a", "user": "\\udc00\\ud800"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'{"prompt": "\xc0\x80"}',
        b'\xef\xbb\xbf{"prompt": "a"}',
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": 1e400}',
        b'{"prompt": 5, "prompt": ["a", 5]}',
    ],
)
def test_text_that_is_none_is_400(http: httpx.Client, body: bytes) -> None:
    response = http.post(COMPLETIONS, content=body)
    assert response.status_code == 400
    check_harmless(response.text)


def test_half_a_surrogate_pair_in_the_name_of_a_tool_is_400(http: httpx.Client) -> None:
    tool = b'{"type": "function", "function": {"name": "\\ud800"}}'
    body = b'{"messages": [{"role": "user", "content": "x"}], "tools": [' + tool + b"]}"
    assert http.post(CHAT, content=body).status_code == 400


def test_nul_is_a_character_like_any_other(http: httpx.Client) -> None:
    fields = {"prompt": "a\0b", "stop": ["\0"], "user": "\0", "cache_salt": "\0", "request_id": "a\0b", "max_tokens": 2}
    assert http.post(COMPLETIONS, json=fields).status_code == 200
    choice = http.post(COMPLETIONS, json={"prompt": "a", "guided_choice": ["\0\0"]}).json()["choices"][0]
    assert choice["text"] == "\0\0"


@pytest.mark.parametrize("character", ["a", "0", "é"])
def test_a_long_run_of_one_character_is_tokenised_aside(http: httpx.Client, character: str) -> None:
    # Unspaced runs are where tokenizers take longest; the probe beside shows that nobody waits for them.
    text = character * 500_000
    with concurrent.futures.ThreadPoolExecutor() as pool, httpx.Client(base_url=http.base_url, timeout=60) as probe:
        probe.get("/health")  # connected, it takes little time
        answer = pool.submit(http.post, "/tokenize", content=json.dumps({"prompt": text}, ensure_ascii=False))
        num_probes = 0
        while not answer.done():
            assert probe.get("/health").status_code == 200
            num_probes += 1
    assert answer.result().json()["count"] >= 1
    assert num_probes > 3
    assert http.post(COMPLETIONS, json={"prompt": text}).status_code == 400


# Templates of requests


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10 ** 10 }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '{:9999999999}'.format(1) }}",
        "{{ 'a'|center(10 ** 10) }}",
        "{{ ('a' * 10 ** 7)|replace('a', 'b' * 10000) }}",
        "{{ messages|tojson(indent=10 ** 10) }}",
        "{{ '\\t'.expandtabs(10 ** 10) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ lipsum.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
        "{{ '\\ud800' }}",
    ],
)
def test_a_template_that_takes_too_much_or_reaches_too_far_is_400(http: httpx.Client, template: str) -> None:
    response = http.post(CHAT, json={"messages": USER, "max_tokens": 1, "chat_template": template})
    assert response.status_code == 400
    check_harmless(response.text)


def test_a_single_operation_of_a_template_is_ended_by_the_time_limit(http: httpx.Client) -> None:
    template = "{{ ('a ' * 10 ** 7)|wordwrap(1) }}"
    response = http.post("/tokenize", json={"messages": USER, "chat_template": template})
    assert response.status_code == 400
    assert "longer than 5 s" in response.json()["error"]["message"]


def test_a_harmless_template_of_a_request_makes_the_prompt(http: httpx.Client) -> None:
    fields = {"messages": USER, "chat_template": "{{ messages[0].content }}!"}
    plain = http.post("/tokenize", json={"prompt": "Hello!", "add_special_tokens": False}).json()
    assert http.post("/tokenize", json=fields).json()["tokens"] == plain["tokens"]


# What others can learn


def test_cached_prefixes_are_shared_within_a_salt_alone(http: httpx.Client) -> None:
    def num_cached(salt: str | None) -> int:
        fields = {} if salt is None else {"cache_salt": salt}
        usage = http.post(COMPLETIONS, json={"prompt": [7] * 100, "max_tokens": 1, **fields}).json()["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    assert [num_cached(salt) for salt in ("mine", "mine", "yours", None, None, "mine")] == [0, 96, 0, 0, 96, 96]


def test_no_answer_tells_of_the_machine_or_of_others(http: httpx.Client) -> None:
    answers = [
        http.get("/v1/models/..%2f..%2fetc"),
        http.get("/nowhere"),
        http.get("/openapi.json"),
        http.get("/metrics"),
        http.get("/version"),
        http.post(COMPLETIONS, json={"model": "../../etc/passwd"}),
        http.post(COMPLETIONS, content=b"\xff"),
        http.post(CHAT, json={"messages": USER, "chat_template": "{{ 1 / 0 }}"}),
        http.post(COMPLETIONS, json={"prompt": "a", "guided_grammar": "root ::= x"}),
        http.post("/tokenize", json={"prompt": 5}),
    ]
    for answer in answers:
        check_harmless(answer.text)
        assert answer.status_code != 500


def test_keys_are_neither_logged_nor_shown(server: RunningServer, http: httpx.Client) -> None:
    for headers in (
        {"authorization": "Bearer a-wrong-key"},
        {"x-api-key": "a-wrong-key"},
        {"authorization": "Basic x"},
    ):
        assert (
            httpx.post(server.url + COMPLETIONS, headers=headers, json={"prompt": "a"}, timeout=60).status_code == 401
        )
    assert http.post(COMPLETIONS, json={"prompt": "a", "max_tokens": 1}).status_code == 200
    log = server.log.read_text(errors="replace")
    for key in (API_KEY, "another-key", "a-wrong-key"):
        assert key not in log


def test_a_log_cannot_be_forged(server: RunningServer, http: httpx.Client) -> None:
    forged = "\n2026-01-01 00:00:00,000 ERROR forged-by-{}\r\n\x1b[31m\u2028\u0085x"
    for field in ("prompt", "model", "user", "cache_salt", "request_id"):
        http.post(COMPLETIONS, json={"prompt": "a", "max_tokens": 1, field: forged.format(field)})
    http.post(CHAT, json={"messages": [{"role": forged.format("role"), "content": forged.format("content")}]})
    http.get("/%0a2026-01-01%20ERROR%20forged-by-path%1b")
    talk(server, request(b"GET", b"/health", headers=b"X-Request-Id: forged-by-header\t\x85\r\n"))
    http.post(COMPLETIONS, json={"prompt": "a", "guided_regex": forged.format("regex") + "("})
    lines = re.split(r"[\n\r\u2028\u0085]", server.log.read_text(errors="replace"))
    assert not [line for line in lines if re.match(r"\d{4}-\d\d-\d\d.{0,20} ERROR forged", line)]
    assert "\x1b" not in "".join(lines)
