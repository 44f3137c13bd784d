"""The document at /openapi.json and the page at /docs, asked as a browser and as a fuzzer do."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from tests.running_server import RunningServer

GENERATES = ("/v1/completions", "/v1/chat/completions", "/invocations", "/tokenize", "/detokenize")
CASES = 4
"""Of each path; `schemathesis run` tries more."""
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "negative_data_rejection",
)


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> dict[str, Any]:
    response = http.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    return response.json()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, said) for path, of in document["paths"].items() for method, said in of.items()]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'\$ref': '#/components/schemas/(\w+)'", str(document)))
    assert {"CompletionRequest", "ChatCompletionEvent", "ErrorResponse"} <= references
    assert references <= set(document["components"]["schemas"])


def test_document_has_every_path_of_the_server(document: dict[str, Any], http: httpx.Client) -> None:
    """A path that is counted by its name is a path of ours."""
    for path, method, _ in operations(document):
        http.request(method, path.replace("{model}", "demo"))
    counted = set(re.findall(r'http_requests_total\{handler="([^"]+)"', http.get("/metrics").text)) - {"other"}
    pages = {path for path in counted if path in ("/", "/redoc", "/openapi.json") or path.startswith("/docs")}
    named = {path.replace("{model}", "{model:path}") for path in document["paths"]}
    assert counted - pages <= named


def test_fields_have_types_limits_and_descriptions(document: dict[str, Any]) -> None:
    fields = document["components"]["schemas"]["CompletionRequest"]["properties"]
    assert fields["temperature"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 2}
    assert "most likely token" in fields["temperature"]["description"]
    assert fields["stream_options"]["anyOf"][0] == {"$ref": "#/components/schemas/StreamOptions"}
    assert fields["cache_salt"]["anyOf"][0] == {"type": "string", "maxLength": 128}
    assert document["components"]["schemas"]["CompletionRequest"]["required"] == ["prompt"]


def test_limits_of_the_document_are_those_of_the_server(document: dict[str, Any], http: httpx.Client) -> None:
    alone = {"temperature", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed", "priority"}
    limits = {
        (name, limit): schema[limit]
        for name, field in document["components"]["schemas"]["CompletionRequest"]["properties"].items()
        for schema in field.get("anyOf", [])
        for limit in ("minimum", "maximum")
        if limit in schema
    }
    assert alone < {name for name, _ in limits}
    for (name, limit), value in limits.items():
        outside = value - 1 if limit == "minimum" else value + 1
        refused = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1, name: outside})
        assert refused.status_code == 400, (name, outside)
        assert refused.json()["error"]["param"] == name
        if name in alone:
            taken = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1, name: value})
            assert taken.status_code == 200, taken.text


def test_examples_are_answered(document: dict[str, Any], http: httpx.Client) -> None:
    for path in GENERATES:
        example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        response = http.post(path, json=example)
        assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("path", "fields", "content_type"),
    [
        ("/v1/completions", {}, "text/event-stream"),
        ("/v1/messages", {}, "text/event-stream"),
        ("/generate", {}, "application/x-ndjson"),
        ("/generate", {"stream_separator": "\0"}, "text/plain"),
        ("/invocations", {}, "text/event-stream"),
    ],
)
def test_streams_are_described(
    document: dict[str, Any], http: httpx.Client, path: str, fields: dict[str, str], content_type: str
) -> None:
    operation = document["paths"][path]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    response = http.post(path, json={**example, "stream": True, **fields})
    assert response.headers["content-type"].partition(";")[0] == content_type
    described = operation["responses"]["200"]["content"][content_type]["schema"]
    if content_type == "text/event-stream":
        objects = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
        data = described["properties"]["data"]
        schema = data.get("anyOf", [data])[0]["contentSchema"]
        assert ({"const": "[DONE]"} in data.get("anyOf", ())) == response.text.endswith("data: [DONE]\n\n")
    else:
        separator = fields.get("stream_separator", "\n")
        assert f"U+{ord(separator):04X}" in described["description"]
        *objects, end = response.text.split(separator)
        assert end == ""
        schema = described["contentSchema"]
    judge = Draft202012Validator({**schema, "components": document["components"]})
    assert objects
    for text in objects:
        judge.validate(json.loads(text))
    assert not judge.is_valid({"text": 5})


def test_errors_have_what_the_document_says(
    document: dict[str, Any], server: RunningServer, http: httpx.Client
) -> None:
    """The statuses of any path, with their bodies and headers."""
    said = document["paths"]["/v1/completions"]["post"]["responses"]
    assert {"400", "401", "404", "408", "413", "429", "500", "503", "504"} < set(said)
    assert {"Retry-After", "X-Request-Id"} == set(said["503"]["headers"]) == set(said["429"]["headers"])
    judge = Draft202012Validator({"$ref": "#/components/schemas/ErrorResponse", "components": document["components"]})
    answers = (
        http.post("/v1/completions", content=b"{"),
        httpx.post(f"{server.url}/v1/completions", timeout=60),
        http.post("/v1/completions", json={"prompt": "a", "model": "other"}),
        http.post("/v1/completions", content=b" " * 50_000_000),
    )
    assert [answer.status_code for answer in answers] == [400, 401, 404, 413]
    for answer in answers:
        judge.validate(answer.json())
        assert set(said[str(answer.status_code)]["headers"]) <= {name.title() for name in answer.headers} | {
            "WWW-Authenticate"
        }
    assert answers[1].headers["www-authenticate"] == "Bearer"


def test_what_the_model_does_not_answer_is_not_described_as_served(document: dict[str, Any]) -> None:
    for path in ("/v1/embeddings", "/score", "/rerank", "/classify", "/pooling"):
        operation = document["paths"][path]["post"]
        assert operation["tags"] == ["Not served"]
        assert "200" not in operation["responses"]
    body = document["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    names = {choice["$ref"].rpartition("/")[2] for choice in body["anyOf"]}
    assert names == {"ChatCompletionRequest", "CompletionRequest"}


def test_key_is_asked_for_where_the_document_says_so(document: dict[str, Any], server: RunningServer) -> None:
    assert document["components"]["securitySchemes"]["apiKey"] == {"type": "http", "scheme": "bearer"}
    for path, method, operation in operations(document):
        without_key = httpx.request(method, server.url + path.replace("{model}", "demo"), timeout=60)
        assert (without_key.status_code == 401) == ("security" in operation) == ("401" in operation["responses"]), path


def test_no_request_is_answered_otherwise_than_documented(document: dict[str, Any], server: RunningServer) -> None:
    """Requests that the document allows, and some that it forbids: no 5xx, no status or answer beside the document."""
    described = schemathesis.openapi.from_dict(document)
    described.config.update(base_url=server.url)
    described.config.output.sanitization.update(enabled=False)
    for found in described.exclude(tag="Not served").get_all_operations():

        @settings(max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=_cases(found.ok()))
        def ask(case: Any) -> None:
            response = case.call(headers=server.headers, timeout=60)
            case.validate_response(response, checks=CHECKS.get_by_names(CHECKED))

        ask()


def _cases(operation: Any) -> Any:
    allowed = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if not operation.body:
        return allowed
    return allowed | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)


class _Links(HTMLParser):
    """What a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"script": "src", "link": "href"}.get(tag)
        self.found += [value for name, value in attrs if name == wanted and value]


def test_docs_page_loads_all_it_needs_from_this_server(http: httpx.Client) -> None:
    page = http.get("/", follow_redirects=True)
    assert page.url.path == "/docs"
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "unsafe" not in policy
    links = _Links()
    links.feed(page.text)
    loaded = [link for link in links.found if not link.startswith("data:")]
    assert len(loaded) == 3
    for link in loaded:
        assert "//" not in link
        response = http.get(urljoin(str(page.url), link))
        assert response.status_code == 200
        assert len(response.content) > 100
        assert response.headers["content-type"].startswith("text/css" if link.endswith(".css") else "text/javascript")
    start = http.get("/docs/start.js").text
    assert '"openapi.json"' in start
    assert http.get("/redoc", follow_redirects=True).url.path == "/docs"


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/docs/swagger-ui-bundle.js"])
def test_docs_need_the_key(server: RunningServer, path: str) -> None:
    assert httpx.get(server.url + path, timeout=60).status_code == 401
