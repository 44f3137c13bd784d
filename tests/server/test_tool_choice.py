"""Answers held to tool calls in each format: whatever the grammar allows, the parser reads, and the schema takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.running_server import DEMO_MODEL
from zqserve import LLM, SamplingParams, StructuredOutputsParams
from zqserve.engine_core.errors import InvalidRequestError
from zqserve.engine_core.tokenizer import Tokenizer, load_tokenizer
from zqserve.server.constraints.constraint import Constraint
from zqserve.server.tools.formats import FORMATS
from zqserve.server.tools.pieces import ToolCall, gathered
from zqserve.server.tools.tool_choice import ToolPlan, plan_tools, shown_tools
from zqserve.server.tools.tool_settings import ToolSettings, load_tool_settings

NAMES = ("hermes", "llama3_json", "mistral", "pythonic", "qwen3_xml")


def tool(name: str, properties: dict[str, Any], required: list[str], **more: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required, **more}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


UNIT = {"enum": ["C", "F"]}
PLAIN = [
    tool(
        "get_weather",
        {
            "unit": UNIT,
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "exact": {"type": "boolean"},
            "point": {"$ref": "#/$defs/Point"},
        },
        ["days"],
        **{"$defs": {"Point": {"type": "array", "items": UNIT, "maxItems": 2}}},
    ),
    tool("set_mode", {"a": {"type": "boolean"}, "b": {"const": None}}, []),
    {"type": "function", "function": {"name": "now"}},
]
ENTANGLED = [tool("pick", {"a": UNIT, "b": UNIT}, [], minProperties=2), *PLAIN]
"""With a schema that no format can hold parameter by parameter."""


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(str(DEMO_MODEL), kv_cache_memory_bytes=32 << 20, max_num_seqs=16)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(DEMO_MODEL)


@dataclass
class Answered:
    """An answer as the server would tell it."""

    text: str
    finish_reason: str | None
    content: str
    calls: list[ToolCall]

    @property
    def whole_calls(self) -> list[ToolCall]:
        """Without one that was cut: the demo model goes on with further calls as long as it may."""
        return self.calls if self.finish_reason == "stop" else self.calls[:-1]


def settings(format: str | None, **changes: Any) -> ToolSettings:
    found = None if format is None else FORMATS[format]
    values = {"serves_auto": True, "excludes_tools_when_none": False, "mark_is_special": False, **changes}
    return ToolSettings(format=found, **values)


def answers(llm: LLM, plan: ToolPlan | None, num: int = 8, max_tokens: int = 400) -> list[Answered]:
    """Answers of the model under the plan's constraint."""
    assert plan is not None
    assert plan.constraint is not None
    outputs = StructuredOutputsParams(
        structural_tag=plan.constraint.text,
        disable_additional_properties=not plan.constraint.additional_properties,
    )
    params = SamplingParams(structured_outputs=outputs, n=num, max_tokens=max_tokens, seed=5)
    (output,) = llm.generate("Call a function.", params, use_tqdm=False)
    answered = []
    for completion in output.outputs:
        parser = plan.parser()
        assert parser is not None
        content, calls = gathered([*parser.feed(completion.text), *parser.finish()])
        answered.append(Answered(completion.text, completion.finish_reason, content, calls))
    return answered


def check_calls(calls: list[ToolCall], tools: list[dict[str, Any]]) -> None:
    schemas = {each["function"]["name"]: each["function"].get("parameters", {"maxProperties": 0}) for each in tools}
    for call in calls:
        jsonschema.validate(json.loads(call.arguments), schemas[call.name])


@pytest.mark.parametrize("tools", [PLAIN, ENTANGLED], ids=["plain", "entangled"])
@pytest.mark.parametrize("format", [None, *NAMES])
def test_required_calls_follow_the_schemas_in_every_format(
    llm: LLM, format: str | None, tools: list[dict[str, Any]]
) -> None:
    for each in answers(llm, plan_tools(settings(format), tools=tools, tool_choice="required"), max_tokens=150):
        assert each.calls
        assert each.content == ""
        check_calls(each.whole_calls, tools)


@pytest.mark.parametrize("format", [None, *NAMES])
def test_one_call_is_all_where_no_parallel_ones_are_wanted(llm: LLM, format: str | None) -> None:
    plan = plan_tools(settings(format), tools=PLAIN, tool_choice="required", parallel_tool_calls=False)
    for each in answers(llm, plan):
        assert each.finish_reason == "stop"
        assert len(each.calls) == 1
        check_calls(each.calls, PLAIN)


@pytest.mark.parametrize("tools", [PLAIN, ENTANGLED], ids=["plain", "entangled"])
@pytest.mark.parametrize("format", [None, *NAMES])
def test_named_function_is_called_once(llm: LLM, format: str | None, tools: list[dict[str, Any]]) -> None:
    name = tools[0]["function"]["name"]
    choice = {"type": "function", "function": {"name": name}}
    for each in answers(llm, plan_tools(settings(format), tools=tools, tool_choice=choice)):
        assert [call.name for call in each.calls] == [name]
        check_calls(each.calls, tools)


@pytest.mark.parametrize("format", NAMES)
def test_strict_holds_the_calls_that_the_model_decides_on(llm: LLM, format: str) -> None:
    tools = [{"type": "function", "function": {**each["function"], "strict": True}} for each in PLAIN]
    plan = plan_tools(settings(format), tools=tools)
    for each in answers(llm, plan, max_tokens=60):
        check_calls(each.whole_calls, tools)
    # The demo model does not know the formats; an answer that the grammar leads into a call shows it.
    whole = plan_tools(settings(format), tools=tools, constraint=json_format())
    for each in answers(llm, whole, max_tokens=150):
        check_calls(each.whole_calls, tools)
        assert each.calls or json.loads(each.content).keys() == {"a"}


def json_format() -> Constraint:
    schema = {"type": "object", "properties": {"a": UNIT}, "required": ["a"], "additionalProperties": False}
    return Constraint(param="response_format", kind="json", text=json.dumps(schema))


def test_cut_answer_is_the_beginning_of_calls_and_no_content(llm: LLM) -> None:
    for format in (None, *NAMES):
        plan = plan_tools(settings(format), tools=PLAIN, tool_choice="required")
        for num_tokens in (1, 5, 9, 14):
            for each in answers(llm, plan, num=3, max_tokens=num_tokens):
                assert each.content == "", each.text


def test_format_whose_mark_no_grammar_can_write_is_replaced_or_refused() -> None:
    special = settings("mistral", mark_is_special=True)
    plan = plan_tools(special, tools=PLAIN, tool_choice="required")
    assert plan is not None
    assert plan.constraint is not None
    assert "TOOL_CALLS" not in plan.constraint.text
    assert not plan.shows_special_tokens
    free = plan_tools(special, tools=PLAIN, parallel_tool_calls=False)
    assert free is not None
    assert (free.constraint, free.shows_special_tokens) == (None, True)
    parser = free.parser()
    assert parser is not None
    pieces = parser.feed("[TOOL_CALLS]now{}[TOOL_CALLS]now{} And so on.") + parser.finish()
    content, calls = gathered(pieces)
    assert (content, len(calls)) == ("And so on.", 1)
    strict = [{"type": "function", "function": {"name": "f", "strict": True}}]
    with pytest.raises(InvalidRequestError, match=r"strict: with tool_choice auto") as refused:
        plan_tools(special, tools=strict)
    assert refused.value.param == "tools[0].function.strict"


def test_template_sees_the_tools_that_may_be_called() -> None:
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    known = settings("hermes")
    assert shown_tools(known, PLAIN, choice) == PLAIN[2:]
    assert shown_tools(known, PLAIN, "none") == PLAIN
    assert shown_tools(settings("hermes", excludes_tools_when_none=True), PLAIN, "none") is None
    assert shown_tools(known, PLAIN, {"type": "function", "function": {"name": "now"}}) == PLAIN
    plan = plan_tools(known, tools=PLAIN, tool_choice={**choice, "allowed_tools": {**allowed, "mode": "required"}})
    assert plan is not None
    assert plan.constraint is not None
    assert "get_weather" not in plan.constraint.text


@pytest.mark.parametrize(
    ("parser", "enable_auto", "message"),
    [("nonesuch", None, "hermes"), ("auto", None, "--tool-call-parser"), (None, True, "--tool-call-parser")],
)
def test_flags_that_fit_no_format_stop_the_start(
    tokenizer: Tokenizer, parser: str | None, enable_auto: bool | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_tool_settings(
            parser,
            enable_auto=enable_auto,
            exclude_tools_when_none=False,
            template="{{ messages }}",
            tokenizer=tokenizer,
        )


def test_mark_that_is_a_special_token_is_noticed(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (DEMO_MODEL / name).read_text()
        (tmp_path / name).write_text(text.replace("<|im_start|>", "[TOOL_CALLS]"))
    for parser, is_special in (("mistral", True), ("hermes", False)):
        found = load_tool_settings(
            parser,
            enable_auto=None,
            exclude_tools_when_none=False,
            template=None,
            tokenizer=load_tokenizer(tmp_path),
        )
        assert found.mark_is_special == is_special


def test_format_may_be_named_found_or_unknown(tokenizer: Tokenizer) -> None:
    def load(parser: str | None, template: str, enable_auto: bool | None = None) -> ToolSettings:
        return load_tool_settings(
            parser, enable_auto=enable_auto, exclude_tools_when_none=False, template=template, tokenizer=tokenizer
        )

    found = load(None, '<tool_call>{"name": …, "arguments": …}</tool_call>')
    assert (found.format, found.serves_auto) == (FORMATS["hermes"], True)
    assert load("qwen3_coder", "").format is FORMATS["qwen3_xml"]
    assert not load("mistral", "", enable_auto=False).serves_auto
    unknown = load(None, "")
    assert (unknown.format, unknown.serves_auto) == (None, False)


def test_tools_of_an_offline_chat_are_shown_to_the_template(llm: LLM) -> None:
    template = "{% for tool in tools %}<{{ tool.function.name }}>{% endfor %}{{ messages[0].content }}"
    params = SamplingParams(max_tokens=1)
    messages = [{"role": "user", "content": "hi"}]
    (output,) = llm.chat(messages, params, use_tqdm=False, chat_template=template, tools=PLAIN)
    assert output.prompt == "<get_weather><set_mode><now>hi"
    with pytest.raises(InvalidRequestError, match="at least one tool"):
        llm.chat(messages, params, use_tqdm=False, chat_template=template, tools=[])
