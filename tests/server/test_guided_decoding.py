"""Constrained answers through the OpenAI SDK: each field, streamed and not, and together with all the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from typing import Any

import httpx
import jsonschema
import psutil
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field

from tests.running_server import RunningServer
from zqserve.engine_core.tokenizer import load_tokenizer

PROMPT = "Question: What is the capital of France?\nAnswer:"
MESSAGES: Any = [{"role": "user", "content": "Describe somebody."}]
CITIES = ["Paris", "London", "New York", "Paris, France"]
NUMBER = r"(-)?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-][0-9]+)?"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "smokes": {"type": "boolean"},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
GBNF = 'root ::= "a" root "b" | "ab"'
LARK = 'start: word ("," word)~1..3\nword: /[a-z]{2,5}/'


class Character(BaseModel):
    """The record of the Outlines documents."""

    name: str = Field(max_length=10)
    age: int = Field(ge=18, le=99)
    armor: str = Field(pattern="^(leather|chainmail|plate)$")
    strength: int = Field(ge=1, le=100)


@pytest.fixture(scope="module")
def client(server: RunningServer) -> OpenAI:
    return server.openai()


def complete(client: OpenAI, extra: dict[str, Any], **fields: Any) -> Any:
    settings = {"model": "demo", "prompt": PROMPT, "max_tokens": 300, "seed": 1, **fields}
    return client.completions.create(**settings, extra_body=extra)


def text_of(client: OpenAI, extra: dict[str, Any], *, chat: bool, stream: bool, **fields: Any) -> str:
    """A finished answer of either endpoint."""
    settings: dict[str, Any] = {"model": "demo", "max_tokens": 400, "extra_body": extra, "stream": stream, **fields}
    if chat:
        answer = client.chat.completions.create(messages=MESSAGES, **settings)
    else:
        answer = client.completions.create(prompt=PROMPT, **settings)
    if not stream:
        assert answer.choices[0].finish_reason == "stop"
        return answer.choices[0].message.content if chat else answer.choices[0].text
    choices = [chunk.choices[0] for chunk in answer]
    assert choices[-1].finish_reason == "stop"
    return "".join((choice.delta.content or "") if chat else choice.text for choice in choices)


def is_person(text: str) -> None:
    jsonschema.validate(json.loads(text), PERSON)


def is_city(text: str) -> None:
    assert text in CITIES


def is_number(text: str) -> None:
    assert re.fullmatch(NUMBER, text)


def is_object(text: str) -> None:
    assert isinstance(json.loads(text), dict)


def is_balanced(text: str) -> None:
    half = len(text) // 2
    assert text == "a" * half + "b" * half


def is_words(text: str) -> None:
    assert re.fullmatch("[a-z]{2,5}(,[a-z]{2,5}){1,3}", text)


def is_tagged(text: str) -> None:
    opened = re.fullmatch(r".*?<p>(.*)</p>.*", text, re.DOTALL)
    if opened:
        is_person(opened[1])


FIELDS: list[tuple[str, dict[str, Any], Any]] = [
    ("guided_choice", {"guided_choice": CITIES}, is_city),
    ("guided_regex", {"guided_regex": NUMBER}, is_number),
    ("guided_json", {"guided_json": PERSON}, is_person),
    ("guided_json as text", {"guided_json": json.dumps(PERSON)}, is_person),
    ("guided_grammar", {"guided_grammar": GBNF}, is_balanced),
    ("guided_grammar in Lark's form", {"guided_grammar": LARK}, is_words),
    ("guided_json_object", {"guided_json_object": True}, is_object),
    ("a backend", {"guided_choice": CITIES, "guided_decoding_backend": "outlines"}, is_city),
    ("structured_outputs.choice", {"structured_outputs": {"choice": CITIES}}, is_city),
    ("structured_outputs.regex", {"structured_outputs": {"regex": NUMBER}}, is_number),
    ("structured_outputs.json", {"structured_outputs": {"json": PERSON}}, is_person),
    ("structured_outputs.grammar", {"structured_outputs": {"grammar": GBNF}}, is_balanced),
    ("structured_outputs.json_object", {"structured_outputs": {"json_object": True}}, is_object),
    ("response_format json_object", {"response_format": {"type": "json_object"}}, is_object),
    (
        "response_format json_schema",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON, "strict": True}}},
        is_person,
    ),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("chat", [False, True], ids=["completion", "chat"])
@pytest.mark.parametrize(("extra", "check"), [pytest.param(*given, id=name) for name, *given in FIELDS])
def test_each_field_is_kept_to(client: OpenAI, extra: dict[str, Any], check: Any, chat: bool, stream: bool) -> None:
    # A bias towards what closes things, so that a small model comes to an end.
    check(text_of(client, extra, chat=chat, stream=stream, seed=4, temperature=0.7))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_structural_tag_is_free_text_with_a_schema_in_its_tags(client: OpenAI, stream: bool) -> None:
    tag = {
        "type": "structural_tag",
        "structures": [{"begin": "<p>", "schema": PERSON, "end": "</p>"}],
        "triggers": ["<p>"],
    }
    settings: dict[str, Any] = {"model": "demo", "max_tokens": 60, "extra_body": {"response_format": tag}}
    answer = client.chat.completions.create(messages=MESSAGES, stream=stream, **settings)
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    else:
        text = answer.choices[0].message.content or ""
    is_tagged(text)


def test_text_format_constrains_nothing(client: OpenAI) -> None:
    free = complete(client, {}, max_tokens=10).choices[0].text
    assert complete(client, {"response_format": {"type": "text"}}, max_tokens=10).choices[0].text == free


def test_the_number_of_the_bentoml_guide(client: OpenAI) -> None:
    for seed in range(5):
        is_number(complete(client, {"guided_regex": NUMBER}, seed=seed).choices[0].text)


def test_the_character_of_the_outlines_documents(client: OpenAI) -> None:
    for seed in range(5):
        text = complete(client, {"guided_json": Character.model_json_schema()}, seed=seed).choices[0].text
        Character.model_validate_json(text)


def test_a_pydantic_class_through_the_sdks_parse(client: OpenAI) -> None:
    answer = client.chat.completions.parse(model="demo", messages=MESSAGES, response_format=Character, max_tokens=300)
    assert isinstance(answer.choices[0].message.parsed, Character)


def test_the_properties_come_in_the_order_of_the_schema(client: OpenAI) -> None:
    names = ["zebra", "apple", "mango"]
    schema = {
        "type": "object",
        "properties": {name: {"type": "boolean"} for name in names},
        "required": names,
        "additionalProperties": False,
    }
    assert list(json.loads(complete(client, {"guided_json": schema}).choices[0].text)) == names


def test_no_white_space_where_it_is_turned_off(client: OpenAI) -> None:
    schema = {**PERSON, "properties": {**PERSON["properties"], "name": {"enum": ["Ann", "Bob"]}}}
    for extra in (
        {"structured_outputs": {"json": schema, "disable_any_whitespace": True}},
        {"guided_json": schema, "guided_decoding_backend": "xgrammar:disable-any-whitespace"},
        {"guided_json": schema, "guided_whitespace_pattern": ""},
    ):
        assert not re.search(r"\s", complete(client, extra).choices[0].text)


def test_a_pattern_of_white_space_is_kept_to(client: OpenAI) -> None:
    schema = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 4}
    text = complete(client, {"guided_json": schema, "guided_whitespace_pattern": "  "}).choices[0].text
    assert re.search(r"  [12]", text)
    assert not re.search(r"(^|[^ ])(  )*( )[^ ]", text.replace("  ", ""))


def test_additional_properties_can_be_turned_off(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}}
    outputs = {"json": schema, "disable_additional_properties": True}
    for seed in range(5):
        text = complete(client, {"structured_outputs": outputs}, seed=seed).choices[0].text
        assert set(json.loads(text)) <= {"a"}


def test_properties_come_in_the_order_of_the_schema_unless_any_is_allowed(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}, "required": ["a", "b"]}
    closed = {"guided_json": schema | {"additionalProperties": False}}
    any_order = closed | {"guided_decoding_backend": "auto:any-property-order"}

    def orders(extra_body: dict[str, Any]) -> set[str]:
        answers = complete(client, extra_body, n=64, temperature=2.0, seed=1).choices
        return {"".join(json.loads(answer.text)) for answer in answers}

    assert orders(closed) == {"ab"}
    assert orders(any_order) == {"ab", "ba"}


def test_32_answers_at_once_each_after_its_own_grammar(server: RunningServer) -> None:
    async def run() -> list[str]:
        async with server.async_openai() as client:

            async def one(number: int) -> str:
                pattern = rf"{number}: [a-z]{{{number + 1}}}( [0-9]){{{number}}}"
                answer = await client.completions.create(
                    model="demo", prompt=PROMPT, max_tokens=300, seed=number, extra_body={"guided_regex": pattern}
                )
                assert answer.choices[0].finish_reason == "stop"
                return answer.choices[0].text

            return await asyncio.gather(*[one(number) for number in range(32)])

    for number, text in enumerate(asyncio.run(run())):
        assert re.fullmatch(rf"{number}: [a-z]{{{number + 1}}}( [0-9]){{{number}}}", text)


def test_seeded_answers_are_the_same_again_and_streamed(client: OpenAI) -> None:
    extra = {"guided_json": PERSON}
    first = complete(client, extra, seed=8).choices[0].text
    assert complete(client, extra, seed=8).choices[0].text == first
    assert "".join(chunk.choices[0].text for chunk in complete(client, extra, seed=8, stream=True)) == first
    assert any(complete(client, extra, seed=seed).choices[0].text != first for seed in (9, 10))


def test_n_answers_and_several_prompts(client: OpenAI) -> None:
    choices = complete(client, {"guided_regex": "[a-z]{12}"}, prompt=[PROMPT, "Else"], n=3).choices
    assert len(choices) == 6
    assert all(re.fullmatch("[a-z]{12}", choice.text) for choice in choices)
    assert len({choice.text for choice in choices}) > 1


def test_the_best_of_several(client: OpenAI) -> None:
    (choice,) = complete(client, {"guided_choice": CITIES, "best_of": 4}).choices
    is_city(choice.text)


def test_logprobs_have_an_entry_a_token_and_join_to_the_text(client: OpenAI) -> None:
    answer = complete(client, {"guided_json": PERSON}, logprobs=3)
    choice = answer.choices[0]
    assert len(choice.logprobs.tokens) == answer.usage.completion_tokens
    assert "".join(choice.logprobs.tokens) == choice.text
    # The model's own: what the grammar forbids is among the likeliest.
    free = complete(client, {}, logprobs=3, max_tokens=1).choices[0].logprobs.top_logprobs[0]
    assert set(free) <= set(choice.logprobs.top_logprobs[0])


def test_forced_tokens_count_as_output(client: OpenAI, server: RunningServer) -> None:
    sentence = "The quick brown fox jumps over the lazy dog."
    answer = complete(client, {"guided_choice": [sentence], "return_token_ids": True})
    assert answer.choices[0].text == sentence
    assert len(answer.choices[0].token_ids) == answer.usage.completion_tokens > 3
    metrics = httpx.get(f"{server.url}/metrics", headers=server.headers, timeout=60).text
    assert re.search(r"^vllm:guided_forced_tokens_total\{.*\} [1-9]", metrics, re.MULTILINE)
    assert "vllm:grammar_compile_seconds_count" in metrics


def test_the_limit_cuts_with_length(client: OpenAI) -> None:
    answer = complete(client, {"guided_regex": "[a-z]{500}"}, max_tokens=7)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 7
    assert re.fullmatch("[a-z]*", answer.choices[0].text)


def test_stop_strings_end_a_constrained_answer_too(client: OpenAI) -> None:
    choice = complete(client, {"guided_choice": ["one two three"]}, stop=[" three"]).choices[0]
    assert (choice.text, choice.finish_reason, choice.stop_reason) == ("one two", "stop", " three")


def test_min_tokens_gives_way_where_the_constraint_is_at_its_end(client: OpenAI) -> None:
    choice = complete(client, {"guided_choice": ["yes"], "min_tokens": 50}).choices[0]
    assert (choice.text, choice.finish_reason) == ("yes", "stop")
    longer = complete(client, {"guided_regex": "[a-z]*", "min_tokens": 12}, max_tokens=40)
    assert longer.usage.completion_tokens >= 12


def test_biases_and_allowed_tokens_choose_among_what_is_left(client: OpenAI) -> None:
    from tests.running_server import DEMO_MODEL

    tokenizer = load_tokenizer(DEMO_MODEL)
    (yes,) = tokenizer.encode("y", add_special_tokens=False)
    (no,) = tokenizer.encode("n", add_special_tokens=False)
    for token_id, letter in ((yes, "y"), (no, "n")):
        extra = {"guided_regex": "[yn]"}
        assert complete(client, extra, logit_bias={str(token_id): 100}).choices[0].text == letter
        assert complete(client, {**extra, "allowed_token_ids": [token_id]}).choices[0].text == letter


def refused(server: RunningServer, path: str = "/v1/completions", **body: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"messages": MESSAGES} if "chat" in path else {"prompt": PROMPT}
    response = httpx.post(f"{server.url}{path}", json={**base, **body}, headers=server.headers, timeout=60)
    assert response.status_code == 400, response.text
    return response.json()["error"]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_two_constraints_are_refused_and_both_named(server: RunningServer, path: str) -> None:
    for body in (
        {"guided_regex": "a", "guided_choice": ["b"]},
        {"guided_json": {"type": "null"}, "response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a", "grammar": "b"}},
        {"structured_outputs": {"regex": "a"}, "guided_regex": "a"},
    ):
        error = refused(server, path, **body)
        names = re.findall(r"[a-z_]+(?:\.[a-z]+)?", error["message"].partition("got ")[2])
        assert len([name for name in names if name != "and"]) == 2
        assert error["param"] in error["message"]


def test_a_schema_that_is_refused_is_so_before_anything_is_sent(server: RunningServer) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(["}}}
    error = refused(server, guided_json=schema, stream=True)
    assert error["param"] == "guided_json"
    assert "/properties/a" in error["message"]
    assert "pattern" in error["message"]


def test_a_schema_that_nothing_satisfies_is_refused(server: RunningServer) -> None:
    error = refused(server, guided_json={"type": "string", "minLength": 5, "maxLength": 2})
    assert error["param"] == "guided_json"


def test_a_client_that_waits_for_a_grammar_does_not_hold_up_others(server: RunningServer, client: OpenAI) -> None:
    words = [f"{number * 7919 % 1_000_003:x}" for number in range(60_000)]

    async def run() -> None:
        async with server.async_openai() as other:
            tasks = [
                asyncio.ensure_future(
                    other.completions.create(
                        model="demo",
                        prompt=PROMPT,
                        max_tokens=20,
                        extra_body={"guided_choice": [f"{number}{word}" for word in words]},
                    )
                )
                for number in range(3)
            ]
            quick = await other.completions.create(
                model="demo", prompt=PROMPT, max_tokens=20, extra_body={"guided_choice": ["quick"]}
            )
            assert quick.choices[0].text == "quick"
            for answer in await asyncio.gather(*tasks):
                assert answer.choices[0].finish_reason == "stop"

    asyncio.run(run())


def compilers(server: RunningServer) -> list[psutil.Process]:
    """The processes that compile for a server."""
    found = []
    for child in psutil.Process(server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if (
                "zqserve.server.constraints.grammar_worker" in child.cmdline()
                and child.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(child)
    return found


def num_compiled(server: RunningServer) -> int:
    metrics = httpx.get(f"{server.url}/metrics", headers=server.headers, timeout=60).text
    (count,) = re.findall(r"^vllm:grammar_compile_seconds_count\S* (\S+)$", metrics, re.MULTILINE)
    return int(float(count))


def wait_for(holds: Any) -> None:
    """Return once it does."""
    deadline = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_its_grammar_compiles_ends_that(
    server: RunningServer, client: OpenAI, stream: bool
) -> None:
    complete(client, {"guided_regex": f"warm {stream}"})
    wait_for(lambda: len(compilers(server)) == 1)
    (worker,) = compilers(server)
    worker.suspend()  # as one that has far too much to do
    before = num_compiled(server)
    request = {"model": "demo", "prompt": PROMPT, "stream": stream, "guided_regex": f"never done {stream}"}

    async def leave() -> None:
        async with httpx.AsyncClient(headers=server.headers, timeout=60) as http:
            waiting = asyncio.ensure_future(http.post(f"{server.url}/v1/completions", json=request))
            while worker in compilers(server) and worker.nice() == psutil.Process(server.process.pid).nice():
                await asyncio.sleep(0.02)  # until it moves aside
            assert not waiting.done()
            waiting.cancel()

    asyncio.run(leave())
    wait_for(lambda: worker not in compilers(server))
    assert complete(client, {"guided_regex": f"others go on {stream}"}).choices[0].finish_reason == "stop"
    assert num_compiled(server) == before + 1, "it was given up, not refused"
