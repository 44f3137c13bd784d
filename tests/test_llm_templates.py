"""Chat templates of a model that has several, through `LLM.chat`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.server import tiny_tokenizers
from tests.tiny_poolers import save_decoder
from zqserve import LLM, SamplingParams

CONVERSATION: Any = [{"role": "user", "content": "fox"}]
TOOLS: Any = [{"type": "function", "function": {"name": "add"}}]
NAMED = [
    {"name": "default", "template": "plain {{ messages[0].content }}"},
    {"name": "tool_use", "template": "{{ tools[0].function.name }} {{ messages[0].content }}"},
]


def test_a_template_is_chosen_by_its_name_and_by_the_tools(tmp_path: Path) -> None:
    directory = save_decoder("Llama", tmp_path)
    tiny_tokenizers.byte_level(directory, chat_template=NAMED)
    llm = LLM(str(directory), num_gpu_blocks_override=16)

    def prompt(**fields: Any) -> str | None:
        (output,) = llm.chat(CONVERSATION, SamplingParams(max_tokens=1), use_tqdm=False, **fields)
        return output.prompt

    assert prompt() == "plain fox"
    assert prompt(tools=TOOLS) == "add fox"
    assert prompt(chat_template="tool_use", tools=TOOLS) == "add fox"
    assert prompt(chat_template="default", tools=TOOLS) == "plain fox"
    assert prompt(chat_template="{{ messages[0].role }}") == "user"
