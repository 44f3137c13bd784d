"""What becomes of a conversation on its way into the prompt: roles, parts, templates. `return_prompt_text` shows it."""

from __future__ import annotations

import datetime
from typing import Any

import openai
import pytest

from tests.running_server import RunningServer
from tests.sdk_types import read_error

from .test_http_chat import ask, post

USER = {"role": "user", "content": "What is the capital of France?"}
SHOWN = (
    "{% for m in messages %}{{ m.role }}|{{ m.name }}|{{ m.content }}|{{ m.reasoning_content }}|{{ m.refusal }}|"
    "{{ m.tool_call_id }}|{% for call in m.tool_calls or [] %}{{ call.id }} {{ call.function.name }} "
    "{{ call.function.arguments.n }}{% endfor %};{% endfor %}"
)
PARTS = "{% for m in messages %}{% for part in m.content %}<{{ part.type }} {{ part.text }}>{% endfor %};{% endfor %}"


def prompt(server: RunningServer, *messages: dict[str, Any], template: str | None = SHOWN, **fields: Any) -> str:
    """The prompt's text."""
    body = {"messages": list(messages), "chat_template": template, "max_tokens": 1, "return_prompt_text": True}
    return post(server, **body | fields)["prompt_text"]


def refused(server: RunningServer, param: str, said: str, **fields: Any) -> None:
    response = ask(server, **fields)
    assert response.status_code == 400, response.text
    error = read_error(response)
    assert (error.type, error.param) == ("BadRequestError", param)
    assert said in error.message


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool", "wizard"])
def test_a_role_may_be_any(server: RunningServer, role: str) -> None:
    messages = [{"role": role, "content": "Hello"}, USER]
    assert prompt(server, *messages, template=None).startswith(f"<|im_start|>{role}\nHello<|im_end|>\n")


def test_developer_is_system_where_the_template_does_not_know_it(server: RunningServer) -> None:
    developer = {"role": "developer", "content": "Be short."}
    assert prompt(server, developer, USER, template=None).startswith("<|im_start|>system\nBe short.")
    knows = "{{ messages[0].role }}{% if messages[0].role == 'developer' %}!{% endif %}"
    assert prompt(server, developer, USER, template=knows) == "developer!"


def test_content_is_a_text_or_null_or_parts(server: RunningServer) -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "input_text", "text": "b"},
        {"type": "output_text", "text": "c"},
        "d",
        {"type": "refusal", "refusal": "e"},
        {"type": "thinking", "thinking": "f"},
    ]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None}, USER]
    contents = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    assert prompt(server, *messages, template=contents) == f"[a\nb\nc\nd\ne\nf][][{USER['content']}]"
    as_parts = "".join(f"<text {text}>" for text in "abcdef")
    assert prompt(server, *messages, template=PARTS) == f"{as_parts};;<text {USER['content']}>;"


def test_what_a_message_says_beside_its_content_reaches_the_template(server: RunningServer) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"n": 7}'}}
    shown = prompt(
        server,
        {"role": "user", "content": "x", "name": "Ann"},
        {"role": "assistant", "content": "y", "reasoning": "why", "refusal": "no"},
        {"role": "assistant", "content": None, "reasoning_content": "so", "tool_calls": [call]},
        {"role": "tool", "content": "z", "tool_call_id": "c1"},
    )
    assert shown == "user|Ann|x||||;assistant||y|why|no||;assistant|||so|||c1 f 7;tool|f|z|||c1|;"


@pytest.mark.parametrize(
    ("content", "place", "said"),
    [
        ([{"type": "hologram"}], "messages[0].content[0]", "'hologram'"),
        (["a", {"type": "text", "text": 5}], "messages[0].content[1]", "content[1].text"),
        ([{"text": "no type"}], "messages[0].content[0]", "type"),
        ([["a"]], "messages[0].content[0]", "type"),
    ],
)
def test_a_part_of_no_known_type_is_named(server: RunningServer, content: Any, place: str, said: str) -> None:
    refused(server, place, said, messages=[{"role": "user", "content": content}])


def test_variables_of_the_request_reach_the_template(server: RunningServer) -> None:
    assert prompt(server, USER, template="{{ reasoning_effort }}", reasoning_effort="low") == "low"
    both = {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}}
    assert prompt(server, USER, template="{{ reasoning_effort }}", **both) == "high"
    documents = [{"title": "T", "text": "x"}, {"title": "U", "text": "y"}]
    listed = "{% for d in documents %}{{ d.title }}{{ d.text }};{% endfor %}"
    assert prompt(server, USER, template=listed, documents=documents) == "Tx;Uy;"
    tokens = "{{ eos_token }}{{ pad_token }}{{ add_generation_prompt }}{{ tools }}"
    assert prompt(server, USER, template=tokens) == "<|im_end|><|endoftext|>TrueNone"


def test_the_environment_of_templates_is_that_of_transformers(server: RunningServer) -> None:
    template = (
        "  {% if true %}\n"
        "{% generation %}{{ {'ä': ['<b>']} | tojson }}{% endgeneration %}\n"
        "  {% endif %}\n"
        "{% for n in range(9) %}{% if n == 1 %}{% continue %}{% endif %}{% if n == 3 %}{% break %}{% endif %}{{ n }}"
        "{% endfor %}"
        "{{ strftime_now('%Y') }}"
    )
    this_year = datetime.date.today().year
    expected = [f'{{"ä": ["<b>"]}}02{year}' for year in (this_year, this_year + 1)]
    assert prompt(server, USER, template=template) in expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('Roles must alternate.') }}", "Roles must alternate."),
        ("{% if %}", "not valid"),
        ("{{ messages.append(1) }}", "template"),
        ("{{ ''.__class__.__mro__ }}", "template"),
        ("{{ messages[0].content.nothing.at_all }}", "no attribute 'nothing'"),
    ],
)
def test_a_template_that_fails_says_why(server: RunningServer, template: str, said: str) -> None:
    refused(server, "chat_template", said, messages=[USER], chat_template=template)


def test_the_continued_message_stays_open(server: RunningServer) -> None:
    opened = {"role": "assistant", "content": "It is"}
    fields = {"template": None, "add_generation_prompt": False}
    closed = prompt(server, USER, opened, **fields)
    continued = prompt(server, USER, opened, continue_final_message=True, **fields)
    assert closed.endswith("It is<|im_end|>\n")
    assert closed.startswith(continued)
    assert continued.endswith("It is")
    with pytest.raises(openai.BadRequestError) as both:
        server.openai().chat.completions.create(
            model="demo",
            messages=[USER, opened],
            extra_body={"continue_final_message": True, "add_generation_prompt": True},
        )
    assert both.value.param == "continue_final_message"


def test_an_echo_is_the_last_message_of_the_same_role(server: RunningServer) -> None:
    fields: dict[str, Any] = {"echo": True, "max_tokens": 4, "n": 2, "seed": 1, "temperature": 1}
    plain = post(server, messages=[USER], **fields | {"echo": False})["choices"]
    assert post(server, messages=[USER], **fields)["choices"] == plain  # that message was the user's
    own = [USER, {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}]
    echoed = post(server, messages=own, continue_final_message=True, **fields)["choices"]
    assert all(choice["message"]["content"].startswith("It is") for choice in echoed)


def test_the_format_of_content_is_told_once(server: RunningServer) -> None:
    for _ in range(3):
        post(server, messages=[USER], max_tokens=1)
    assert server.log.read_text().count("Detected the chat template content format to be 'string'") == 1
