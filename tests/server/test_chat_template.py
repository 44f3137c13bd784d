"""Conversations are rendered as transformers renders them; what is wrong in one is an error that names the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.server import tiny_tokenizers
from zqserve.engine_core.errors import InvalidRequestError
from zqserve.engine_core.tokenizer import Tokenizer
from zqserve.server.prompts.chat_template import ChatTemplate, detect_content_format, load_chat_template

LLAMA_3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
<|start_header_id|>system<|end_header_id|>

{% if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
    {%- endfor %}
{%- endif %}
{{- system_message }}<|eot_id|>
{%- for message in messages %}
    {%- if not ('tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""

MISTRAL = """{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}
{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}
{% endif %}
{% endfor %}"""

LOOPS_AND_NAMESPACES = """{% set ns = namespace(found=false, text='') %}
{% for m in messages %}{% if m.role == 'skip' %}{% continue %}{% endif %}
{% set ns.text = ns.text ~ m.role ~ ':' ~ m.content ~ ';' %}{% set ns.found = true %}{% endfor %}
{{ ns.text }}{{ documents | tojson if documents else '' }}{{ style | default('plain') }}{{ undefined_name }}"""

PARTS = (
    "{% for message in messages %}{{ message.role }}:{% for part in message['content'] %}"
    "{{ part['text'] }}|{% endfor %};{% endfor %}"
)

CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": 'Tell me of <b>naïve</b> "things" '},
    {"role": "assistant", "content": " Well, here "},
    {"role": "user", "content": "More"},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tiny_tokenizers.byte_level(tmp_path_factory.mktemp("tokenizer"), bos_token="<|endoftext|>")


@pytest.fixture(scope="module")
def transformers_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("theirs")
    tiny_tokenizers.byte_level(folder, bos_token="<|endoftext|>")
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("template", [tiny_tokenizers.CHATML, LLAMA_3, MISTRAL, LOOPS_AND_NAMESPACES])
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_text_is_that_of_transformers(
    template: str, add_generation_prompt: bool, tokenizer: Tokenizer, transformers_tokenizer: Any
) -> None:
    options: dict[str, Any] = {
        "documents": [{"title": "é", "text": "<x>"}],
        "tools": [{"type": "function", "function": {"name": "ü", "parameters": {}}}],
    }
    theirs = transformers_tokenizer.apply_chat_template(
        CHAT,
        chat_template=template,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        style="fine",
        **options,
    )
    ours = ChatTemplate(tokenizer, template).render(
        CHAT, add_generation_prompt=add_generation_prompt, chat_template_kwargs={"style": "fine"}, **options
    )
    assert ours == theirs


@pytest.mark.parametrize("template", [tiny_tokenizers.CHATML, LLAMA_3, MISTRAL])
@pytest.mark.parametrize("content", ["It is", "It is ", "x"])
def test_a_continued_message_ends_where_transformers_ends_it(
    template: str, content: str, tokenizer: Tokenizer, transformers_tokenizer: Any
) -> None:
    chat = [*CHAT, {"role": "assistant", "content": content}]
    theirs = transformers_tokenizer.apply_chat_template(
        chat, chat_template=template, tokenize=False, continue_final_message=True
    )
    ours = ChatTemplate(tokenizer, template).render(chat, add_generation_prompt=False, continue_final_message=True)
    assert ours == theirs
    assert ours.rstrip().endswith(content.strip())


def test_a_message_is_not_continued_and_answered_at_once(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequestError, match="add_generation_prompt") as error:
        ChatTemplate(tokenizer).render(CHAT, add_generation_prompt=True, continue_final_message=True)
    assert error.value.param == "continue_final_message"


def test_the_models_tool_template_is_used_for_tools(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ tools[0].name }}"}]
    template = ChatTemplate(tiny_tokenizers.byte_level(tmp_path, chat_template=named))
    assert template.render(CHAT) == "plain"
    assert template.render(CHAT, tools=[{"name": "add"}]) == "add"
    assert template.render(CHAT, chat_template="tool_use", tools=[{"name": "add"}]) == "add"
    assert template.render(CHAT, chat_template="{{ messages[0].role }}!") == "user!"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (tiny_tokenizers.CHATML, "string"),
        (LLAMA_3, "string"),
        (PARTS, "openai"),
        ("{% for m in messages %}{% for p in m.content %}{% endfor %}{% endfor %}", "openai"),
        (
            "{% for m in messages %}{% set c = m['content'] %}{% for p in c | list %}{% endfor %}{% endfor %}",
            "openai",
        ),
        ("{% for m in messages %}{% for t in m.tool_calls %}{% endfor %}{% endfor %}", "string"),
    ],
)
def test_content_format_is_read_off_the_template(source: str, expected: str) -> None:
    assert detect_content_format(source) == expected


def test_parts_are_joined_or_passed_on_by_what_the_template_wants(tokenizer: Tokenizer) -> None:
    content = [
        {"type": "text", "text": "a"},
        {"type": "input_text", "text": "b"},
        "c",
        {"type": "refusal", "refusal": "d"},
        {"type": "thinking", "thinking": "e"},
    ]
    chat = [{"role": "user", "content": content}, {"role": "assistant", "content": None}]
    as_string = ChatTemplate(tokenizer, "{% for m in messages %}{{ m.content }}.{% endfor %}")
    assert as_string.render(chat) == "a\nb\nc\nd\ne.."
    assert ChatTemplate(tokenizer, PARTS).render(chat) == "user:a|b|c|d|e|;assistant:;"
    assert ChatTemplate(tokenizer, PARTS).render([{"role": "user", "content": "x"}]) == "user:x|;"
    forced = ChatTemplate(tokenizer, "{{ messages[0].content[0].text }}", content_format="openai")
    assert forced.render(chat) == "a"


def test_developer_becomes_system_unless_the_template_knows_it(tokenizer: Tokenizer) -> None:
    chat = [{"role": "developer", "content": "x"}]
    assert ChatTemplate(tokenizer, "{{ messages[0].role }}").render(chat) == "system"
    knows = "{{ messages[0].role }}{% if messages[0].role == 'developer' %}!{% endif %}"
    assert ChatTemplate(tokenizer, knows).render(chat) == "developer!"


def test_arguments_of_tool_calls_reach_the_template_as_objects(tokenizer: Tokenizer) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, "é"]}'}}
    chat = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    template = ChatTemplate(tokenizer, "{{ messages[0].tool_calls[0].function.arguments | tojson }}")
    assert template.render(chat) == '{"a": [1, "é"]}'
    assert call["function"]["arguments"] == '{"a": [1, "é"]}'  # the caller's data is left alone


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "empty"),
        ([{"content": "x"}], r"messages\[0\].*role"),
        ([{"role": 5, "content": "x"}], "role"),
        (["text"], r"messages\[0\]"),
        ([{"role": "user", "content": 5}], r"messages\[0\]\.content"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "'image_url'.*not a multimodal"),
        ([{"role": "user", "content": [{"type": "hologram"}]}], r"content\[0\].*'hologram'"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], r"content\[0\]\.text"),
        ([{"role": "user", "content": [{}]}], r"content\[0\].*type"),
        ([{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}], "not JSON"),
    ],
)
def test_bad_messages_are_refused_with_their_place(messages: Any, words: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequestError, match=words) as error:
        ChatTemplate(tokenizer).render(messages)
    assert error.value.param is not None
    assert error.value.param.startswith("messages")


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ messages[0].content.nothing.at_all }}",
        "{{ 1 // 0 }}",
        "{{ raise_exception('no') }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__.x }}",
        "{% include 'x' %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    ],
)
def test_a_failing_template_of_a_request_is_its_senders_error(source: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequestError) as error:
        ChatTemplate(tokenizer).render(CHAT, chat_template=source)
    assert error.value.param == "chat_template"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{{ 'x' * 10 ** 12 }}",
        "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% for i in range(99999) %}" + "x" * 10_000 + "{% endfor %}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ range(10 ** 12) | list }}",
        "x" * 300_000,
    ],
    ids=lambda source: source[:40],
)
def test_a_template_that_takes_too_much_is_stopped(source: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequestError):
        ChatTemplate(tokenizer).render(CHAT, chat_template=source)


def test_without_a_template_the_error_says_what_to_do(tmp_path: Path) -> None:
    template = ChatTemplate(tiny_tokenizers.byte_level(tmp_path, chat_template=None))
    with pytest.raises(InvalidRequestError, match="--chat-template"):
        template.render(CHAT)
    assert template.render(CHAT, chat_template="ok") == "ok"


def test_a_servers_template_that_is_not_valid_is_refused_at_once(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="not valid"):
        ChatTemplate(tokenizer, "{% if %}")


def test_a_template_is_loaded_from_a_path_or_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    path.write_text("{{ x }}\n")
    assert load_chat_template(str(path)) == "{{ x }}\n"
    assert load_chat_template("{{ x }}\\n") == "{{ x }}\n"
    assert load_chat_template("words", is_literal=True) == "words"
    assert load_chat_template(None) is None
    with pytest.raises(ValueError, match="missing"):
        load_chat_template(str(tmp_path / "missing.jinja"))


def test_what_a_template_sees_is_plain_data(tokenizer: Tokenizer) -> None:
    class Odd:
        def __str__(self) -> str:
            raise AssertionError

    text = ChatTemplate(tokenizer).render(
        CHAT, chat_template="{{ odd }}{{ pair | tojson }}", chat_template_kwargs={"odd": Odd(), "pair": (1, None)}
    )
    assert text == "<Odd>" + json.dumps([1, None])
