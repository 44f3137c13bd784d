"""What a constraint promises where the model would rather do otherwise, and what is refused as one."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import jsonschema
import pytest

from tests.running_server import RunningServer
from tests.sdk_types import read_error

from . import test_http_chat, test_http_completions

PROMPT = "The capital of France is"
PATHS = ["/v1/completions", "/v1/chat/completions"]
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}
MANY_DIFFERENT = {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "uniqueItems": True}
ENDS = {"0": 100, "2": 100}
"""A bias with which the demo model would end every answer at once."""


def whole_and_streamed(server: RunningServer, path: str, **fields: Any) -> str:
    """The text of an answer, which is the same either way."""
    fields = {"max_tokens": 200, "seed": 3, "temperature": 1, **fields}
    if "chat" in path:
        fields = {"messages": [{"role": "user", "content": PROMPT}], **fields}
        text = test_http_chat.post(server, **fields)["choices"][0]["message"]["content"]
        pieces = [event["choices"][0]["delta"].get("content", "") for event in test_http_chat.events(server, **fields)]
    else:
        fields = {"prompt": PROMPT, **fields}
        text = test_http_completions.post(server, **fields)["choices"][0]["text"]
        pieces = [event["choices"][0]["text"] for event in test_http_completions.events(server, **fields)]
    assert "".join(pieces) == text
    return text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": "[a-z]{5}"}, "[a-z]{5}"),
        ({"guided_choice": ["seven", "seventy"]}, "seven"),
        ({"guided_json": {"enum": ["Oslo"]}}, '"Oslo"'),
        ({"guided_grammar": 'root ::= "(" root ")" | "()"'}, r"(\()+(\))+"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_answer_ends_where_it_is_complete_and_not_before(
    server: RunningServer, path: str, fields: dict[str, Any], pattern: str
) -> None:
    assert re.fullmatch(pattern, whole_and_streamed(server, path, logit_bias=ENDS, **fields))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("field", ["response_format", "structured_outputs"])
def test_the_newer_form_of_a_structural_tag(server: RunningServer, path: str, field: str) -> None:
    tag = {"type": "tag", "begin": "<city>", "content": {"type": "json_schema", "json_schema": CITY}, "end": "</city>"}
    given = {"type": "structural_tag", "format": tag}
    value = given if field == "response_format" else {"structural_tag": given}
    text = whole_and_streamed(server, path, **{field: value})
    inside = re.fullmatch("<city>(.*)</city>", text)
    assert inside
    jsonschema.validate(json.loads(inside[1]), CITY)


@pytest.mark.parametrize("field", ["response_format", "structured_outputs"])
def test_the_older_form_of_a_structural_tag(server: RunningServer, field: str) -> None:
    given = {
        "type": "structural_tag",
        "structures": [{"begin": " Paris", "schema": CITY, "end": "!"}],
        "triggers": [" Pa"],
    }
    value = given if field == "response_format" else {"structural_tag": json.dumps(given)}
    # It would say " Paris." if it were free to.
    text = whole_and_streamed(server, "/v1/completions", temperature=0, **{field: value})
    inside = re.match(" Paris([^!]*)!", text)
    assert inside
    jsonschema.validate(json.loads(inside[1]), CITY)


@pytest.mark.parametrize("backend", ["auto", "outlines", "xgrammar", "guidance", "lm-format-enforcer"])
def test_the_name_of_a_backend_makes_no_difference(server: RunningServer, backend: str) -> None:
    plain = whole_and_streamed(server, "/v1/completions", guided_json=CITY)
    assert whole_and_streamed(server, "/v1/completions", guided_json=CITY, guided_decoding_backend=backend) == plain


def test_strings_of_bounded_length_are_json_and_white_space_is_bounded(server: RunningServer) -> None:
    schema = {
        "type": "array",
        "items": {"type": "string", "minLength": 2, "maxLength": 7},
        "minItems": 2,
        "maxItems": 3,
    }
    fields = {"prompt": PROMPT, "guided_json": schema, "n": 16, "temperature": 2, "seed": 1, "max_tokens": 200}
    for choice in test_http_completions.post(server, **fields)["choices"]:
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["text"]), schema)
        outside = re.sub(r'"(\\.|[^"\\])*"', "s", choice["text"])
        assert re.fullmatch(r"\[s(, ?s)+\]", outside), choice["text"]


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": 2},
        {"stop": ['"large"']},
        {"min_tokens": 9},
        {"logit_bias": {"77": 100}},
        {"presence_penalty": 2, "repetition_penalty": 2, "top_k": 5, "top_p": 0.5, "min_p": 0.2},
        {"bad_words": ["Oslo"]},
        {"ignore_eos": True},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_constraint_holds_beside_other_fields(server: RunningServer, fields: dict[str, Any]) -> None:
    asked = {"prompt": [PROMPT, "A city:"], "n": 2, "guided_json": CITY, "max_tokens": 100, "seed": 9, **fields}
    whole = test_http_completions.post(server, **asked)["choices"]
    streamed = [""] * 4
    for event in test_http_completions.events(server, **asked):
        streamed[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert streamed == [choice["text"] for choice in whole]
    for choice in whole:
        if "stop" in fields:
            assert choice["stop_reason"] == '"large"'
            assert json.loads(choice["text"].rstrip(", ") + "}")["city"] in ("Oslo", "Rome")
        else:
            jsonschema.validate(json.loads(choice["text"]), CITY)
            assert "bad_words" not in fields or "Oslo" not in choice["text"]


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_that_the_limit_cuts_says_length(server: RunningServer, path: str) -> None:
    text = whole_and_streamed(server, path, guided_json=CITY, max_tokens=4)
    assert text.startswith("{")
    assert not text.endswith("}")
    asked = {"prompt": PROMPT} if "chat" not in path else {"messages": [{"role": "user", "content": PROMPT}]}
    body = {**asked, "guided_json": CITY, "max_tokens": 4}
    answer = httpx.post(server.url + path, json=body, headers=server.headers, timeout=60).json()
    assert (answer["choices"][0]["finish_reason"], answer["choices"][0]["stop_reason"]) == ("length", None)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"guided_regex": "a(b"}, "guided_regex", "position 1"),
        ({"guided_regex": r"(a)\1"}, "guided_regex", "position 3"),
        ({"guided_choice": []}, "guided_choice", "at least one"),
        ({"guided_choice": ["a", 5]}, "guided_choice[1]", "`str`"),
        ({"guided_json": {"properties": {"a": {"type": "int"}}}}, "guided_json", "/properties/a: type: 'int'"),
        ({"guided_json": {"type": "object", "minProperties": 2, "maxProperties": 1}}, "guided_json", "satisfies"),
        ({"guided_json": {"$ref": "https://elsewhere.example/s"}}, "guided_json", "$ref"),
        ({"guided_json": MANY_DIFFERENT}, "guided_json", "uniqueItems"),
        ({"guided_json": {"pattern": r"^(a)\1$"}}, "guided_json", "pattern"),
        ({"guided_grammar": 'root ::= "a" missing'}, "guided_grammar", "missing"),
        ({"guided_grammar": 'start: "a" missing'}, "guided_grammar", "missing"),
        ({"guided_whitespace_pattern": "("}, "guided_whitespace_pattern", "JSON"),
        ({"guided_json": CITY, "guided_whitespace_pattern": "("}, "guided_", "position"),
        ({"structured_outputs": {}}, "structured_outputs", "none of json, regex, choice"),
        ({"structured_outputs": {"regex": "["}}, "structured_outputs.regex", "position"),
        ({"structured_outputs": {"regex": "a", "json": CITY}}, "structured_outputs.regex", "Only one constraint"),
        ({"structured_outputs": {"structural_tag": {"type": "structural_tag"}}}, "structured_outputs", "triggers"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema.schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}, "response_format", "object"),
        ({"response_format": {"type": "structural_tag"}}, "response_format", "structures or format"),
    ],
)
def test_what_is_wrong_in_a_constraint_is_said_with_its_place(
    server: RunningServer, path: str, fields: dict[str, Any], param: str, said: str
) -> None:
    asked = {"prompt": PROMPT} if "chat" not in path else {"messages": [{"role": "user", "content": PROMPT}]}
    response = httpx.post(server.url + path, json={**asked, **fields}, headers=server.headers, timeout=60)
    assert response.status_code == 400, response.text
    error = read_error(response)
    assert error.type == "BadRequestError"
    assert (error.param or "").startswith(param)
    assert said in error.message
