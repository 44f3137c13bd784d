"""What a hostile client may send, kind by kind, as bytes for a connection of its own.

`hostile_inputs` makes the list. Each is sent as it stands; the server answers with a status, or closes the connection.
A 5xx is a fault, but for 501 and 503, which are refusals too. Whoever is `slow` sends one byte a second behind it and
waits until the server has enough of that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

COMPLETIONS, CHAT, TOKENIZE = "/v1/completions", "/v1/chat/completions", "/tokenize"
_MESSAGES = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class HostileInput:
    """One connection's worth."""

    kind: str
    data: bytes
    slow: bool = False
    leaves: bool = False
    """Whether it is gone as soon as all is sent."""


def hostile_inputs(key: str | None) -> list[HostileInput]:
    """The whole list; `key` goes along where a request is meant to be let in."""
    headers = f"authorization: Bearer {key}\r\n".encode() if key else b""
    return [
        *(HostileInput("HTTP that is none", data) for data in _broken_http(headers)),
        *(HostileInput("paths", _request(path, headers, method=b"GET")) for path in _paths()),
        *(HostileInput("bodies", data) for data in _bodies(headers)),
        *(HostileInput("JSON", _request(path, headers, body)) for path, body in _documents()),
        *(HostileInput("values", _post(path, headers, fields)) for path, fields in _values()),
        *(HostileInput("templates", _post(CHAT, headers, _templated(template))) for template in _templates()),
        *(HostileInput("constraints", _post(COMPLETIONS, headers, fields)) for fields in _constraints()),
        *(HostileInput("long texts", _post(TOKENIZE, headers, {"prompt": text})) for text in _long_texts()),
        *(HostileInput("pipelines", data) for data in _pipelines(headers)),
        *(HostileInput("slow senders", data, slow=True) for data in _slow_beginnings(headers) for _ in range(25)),
        *(HostileInput("vanishing", data, leaves=True) for data in _abandoned(headers) for _ in range(25)),
    ]


def _request(path: str | bytes, headers: bytes, body: bytes = b"", method: bytes = b"POST") -> bytes:
    where = path.encode() if isinstance(path, str) else path
    length = b"content-length: %d\r\nconnection: close\r\n" % len(body)
    return method + b" " + where + b" HTTP/1.1\r\nhost: x\r\n" + headers + length + b"\r\n" + body


def _post(path: str, headers: bytes, fields: dict[str, Any]) -> bytes:
    return _request(path, headers, json.dumps({"max_tokens": 16, **fields}).encode())


def _broken_http(headers: bytes) -> Iterator[bytes]:
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 500  # TLS
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield b"GET /health\r\n\r\n"
    yield b"\0" * 10_000
    yield b"GET /health HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n"
    yield b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 100_000 + b"\r\n"
    yield b"GET /health HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 4_000_000 + b"\r\n\r\n"
    yield b"GET /" + b"a" * 4_000_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"
    for length in (b"-1", b"18446744073709551616", b"5\r\ncontent-length: 6", b"0x10"):
        yield b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n" + headers + b"content-length: " + length + b"\r\n\r\n{}"
    for chunk in (b"FFFFFFFFFFFFFFFFF\r\n", b"-1\r\n", b"zz\r\n", b"5;" + b"a" * 1_000_000 + b"\r\n"):
        yield b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n" + headers + b"transfer-encoding: chunked\r\n\r\n" + chunk


def _paths() -> Iterator[bytes]:
    yield from (b"/../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"//v1//models", b"/v1%2fmodels", b"/%00", b"*")
    yield from (b"/health/../v1/models", b"/health;/../metrics", b"http://x/v1/models", b"/docs/../../server/app.py")
    yield from (b"/docs/%2e%2e%2f%2e%2e%2fserver/app.py", b"/%ff%fe", b"/%0d%0ax-evil:1", b"/" + b"a/" * 30_000)


def _bodies(headers: bytes) -> Iterator[bytes]:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n" + headers
    yield head + b"content-length: 99999999999\r\n\r\n"
    yield head + b"transfer-encoding: chunked\r\n\r\n" + (b"100000\r\n" + b" " * 2**20 + b"\r\n") * 64
    yield _request(COMPLETIONS, b"", b" " * 2**24)  # without a key
    yield _request(COMPLETIONS, headers + b"content-encoding: gzip\r\n", b"\x1f\x8b" + b"\0" * 1000)
    yield _request(COMPLETIONS, headers + b"content-type: multipart/form-data; boundary=x\r\n", b"--x\r\n" * 100_000)


def _documents() -> Iterator[tuple[str, bytes]]:
    for opening in (b"[", b'{"a":', b'{"prompt":[', b'[{"a":'):
        yield COMPLETIONS, opening * 200_000
    nested = b"[" * 900 + b"]" * 900
    for field in (b"prompt", b"stop", b"logit_bias", b"guided_json", b"response_format", b"extra_args", b"nobody"):
        yield COMPLETIONS, b'{"prompt": "a", "' + field + b'": ' + nested + b"}"
    for value in (b"NaN", b"Infinity", b"-Infinity", b"1e999999", b"1" * 100_000, b"0x10", b"1.", b"'a'"):
        yield COMPLETIONS, b'{"prompt": "a", "max_tokens": 4, "temperature": ' + value + b"}"
    yield COMPLETIONS, b'{"prompt": "a", "prompt": "b", "max_tokens": 4, "max_tokens": 99999999}'
    yield COMPLETIONS, b'{"prompt": "' + b"\xff\xfe\xfd" + b'"}'
    yield COMPLETIONS, b'{"prompt": "\\ud800", "max_tokens": 4}'
    yield COMPLETIONS, b'{"prompt": "a\\u0000b", "max_tokens": 4}'
    yield COMPLETIONS, b'\xef\xbb\xbf{"prompt": "a", "max_tokens": 4}'
    yield CHAT, b'{"messages": [{"role": "\\udfff", "content": "a"}]}'
    yield COMPLETIONS, b"null"
    yield COMPLETIONS, b""


def _values() -> Iterator[tuple[str, dict[str, Any]]]:
    for field in ("max_tokens", "n", "best_of", "seed", "top_k", "logprobs", "prompt_logprobs", "min_tokens"):
        for number in (2**70, -(2**70), 2**63 - 1, -(2**63), -1):
            yield COMPLETIONS, {"prompt": "a", field: number}
    for field in ("temperature", "top_p", "min_p", "presence_penalty", "repetition_penalty"):
        for number in (1e308, -1e308, 5e-324, 2**70):
            yield COMPLETIONS, {"prompt": "a", field: number}
    yield COMPLETIONS, {"prompt": list(range(500_000))}
    yield COMPLETIONS, {"prompt": ["a"] * 50_000}
    yield COMPLETIONS, {"prompt": [[2**31]]}
    yield COMPLETIONS, {"prompt": "a", "stop": [str(n) for n in range(100_000)]}
    yield COMPLETIONS, {"prompt": "a", "stop": "a" * 1_000_000}
    yield COMPLETIONS, {"prompt": "a", "stop_token_ids": list(range(500_000))}
    yield COMPLETIONS, {"prompt": "a", "logit_bias": {str(n): 1 for n in range(200_000)}}
    yield COMPLETIONS, {"prompt": "a", "bad_words": ["b" * 100] * 10_000}
    yield COMPLETIONS, {"prompt": "a", "truncate_prompt_tokens": 2**40}
    yield COMPLETIONS, {"prompt": "a", "cache_salt": "s" * 1_000_000}
    yield COMPLETIONS, {"prompt": "a", "model": "../../etc/passwd"}
    yield CHAT, {"messages": _MESSAGES * 50_000}
    yield CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 100_000}]}
    yield CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///"}}]}]}
    yield CHAT, {"messages": _MESSAGES, "tools": [{"type": "function", "function": {"name": "f" * 100_000}}]}
    tools = [{"type": "function", "function": {"name": f"f{n}", "parameters": {"$ref": "#"}}} for n in range(1000)]
    yield CHAT, {"messages": _MESSAGES, "tools": tools, "tool_choice": "required"}


def _templated(template: str) -> dict[str, Any]:
    return {"messages": _MESSAGES, "chat_template": template}


def _templates() -> Iterator[str]:
    yield "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    yield "{{ 'x' * 10 ** 10 }}"
    yield "{{ '%9999999999d' % 1 }}"
    yield "{{ '{:9999999999}'.format(1) }}"
    yield "{{ ('a' * 10 ** 7)|replace('a', 'b' * 10000) }}"
    yield "{{ 9 ** 9 ** 9 }}"
    yield "{{ ''.__class__.__mro__ }}"
    yield "{{ cycler.__init__.__globals__ }}"
    yield "{% include '/etc/passwd' %}"
    yield "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"
    yield "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}"
    yield "{% if 1 %}" * 3000 + "{% endif %}" * 3000
    yield "{{ '\\ud800' }}"
    yield "{" * 200_000


def _constraints() -> Iterator[dict[str, Any]]:
    regexes = [
        "((a{1,100}){1,100}){1,100}",
        "((a|aa){1,500}){1,50}",
        r"[\s\S]{0,20000}",
        "(a*)*b",
        "(.*a){20}",
        "(x+x+)+y",
        r"(?:(?:[a-z]{1,40}\d){1,30}x){2,30}",
        "|".join(f"{n * 7919 % 1000003:x}" for n in range(20_000)),
        "(" * 5000 + "a" + ")" * 5000,
        "a{99999999999}",
        r"(a)\1",
        "[",
    ]
    schemas: list[Any] = [
        {"enum": [f"value {n * 7919 % 1000003:x}" for n in range(20_000)]},
        {"type": "object", "properties": {f"property{n}": {"type": "string"} for n in range(2000)}},
        {"$ref": "#"},
        {"$ref": "http://127.0.0.1:1/schema"},
        {"type": "string", "minLength": 5, "maxLength": 2},
        "[" * 100_000,
        '{"items":' * 30_000 + "{}" + "}" * 30_000,
        {"type": "array", "uniqueItems": True, "items": {"type": "integer"}, "minItems": 500},
        {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$", "maxLength": 5000},
        {"anyOf": [{"required": [chr(97 + n)]} for n in range(26)], "not": {"anyOf": [{}]}},
        {"type": "integer", "multipleOf": 1e-300},
        {"type": "array", "minItems": 10**12},
    ]
    grammars = [
        'root ::= root root | "a"',
        "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000,
        "root ::= nobody",
        'root ::= "a"{99999999}',
        "\n".join(f'r{n} ::= r{n + 1} r{n + 1} | "a"' for n in range(2000)),
        "",
    ]
    yield from ({"prompt": "a", "guided_regex": regex} for regex in regexes)
    yield from ({"prompt": "a", "guided_json": schema} for schema in schemas)
    yield from ({"prompt": "a", "guided_grammar": grammar} for grammar in grammars)
    yield {"prompt": "a", "guided_choice": [f"item {n * 7919 % 1000003:x} of the list" for n in range(20_000)]}
    yield {"prompt": "a", "guided_choice": []}
    yield {"prompt": "a", "guided_regex": "a", "guided_choice": ["a"]}


def _long_texts() -> Iterator[str]:
    for character in ("a", " ", "0", "\n", "é", "\U0001f600", "<", "\\u0301"):
        yield character * (1_000_000 // len(character.encode()))
    yield "<|im_end|>" * 50_000


def _pipelines(headers: bytes) -> Iterator[bytes]:
    health = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    yield health * 2000 + _request("/health", b"", method=b"GET")
    body = b'{"prompt": "a", "max_tokens": 1}'
    post = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n" + headers + b"content-length: %d\r\n\r\n" % len(body) + body
    yield post * 100 + _request("/health", b"", method=b"GET")
    yield _request(COMPLETIONS, b"", _request("/v1/models", headers, method=b"GET"))


def _slow_beginnings(headers: bytes) -> Iterator[bytes]:
    yield b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-slow: "
    yield b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n" + headers + b"content-length: 100000\r\n\r\n"


def _abandoned(headers: bytes) -> Iterator[bytes]:
    yield b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n" + headers + b"content-length: 1000\r\n\r\n{"
    yield _post(COMPLETIONS, headers, {"prompt": "a", "max_tokens": 2000, "ignore_eos": True, "stream": True})
    yield _post(COMPLETIONS, headers, {"prompt": "a", "max_tokens": 2000, "ignore_eos": True})
    yield _post(COMPLETIONS, headers, {"prompt": "a", "guided_regex": "((a{1,100}){1,100}){1,100}"})
