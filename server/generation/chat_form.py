"""How the other conversational APIs are answered by the chat path: their requests become chat requests, and errors
come back in the words of the API that was asked.

Used by `responses_input.py` and `messages_input.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...engine_core.errors import InvalidRequestError
from ..prompts.conversation import content_texts
from ..protocol.chat import ChatCompletionRequest
from ..protocol.sampling import GenerationFields

_FOREIGN = {
    "n": "There is one answer.",
    "best_of": "There is one answer.",
    "echo": "The answer is what is new.",
    "prompt_logprobs": "Ask /v1/chat/completions.",
    "return_token_ids": "Ask /v1/chat/completions.",
    "use_beam_search": "Ask /v1/completions.",
}
"""Fields of the other generation endpoints that must not be passed over, and what to do instead."""


def chat_request(request: GenerationFields, **fields: Any) -> ChatCompletionRequest:
    """A chat request with all that the request shares with it, and `fields` over that."""
    shared = {name: getattr(request, name) for name in GenerationFields.__struct_fields__}
    return ChatCompletionRequest(**(shared | fields))


def refuse_foreign(request: GenerationFields, path: str, advice: Mapping[str, str]) -> None:
    """Refuse fields that mean nothing at `path`; `advice` has those that it has another name for.

    Raises `InvalidRequestError`.
    """
    for name, what_to_do in {**_FOREIGN, **advice}.items():
        value = getattr(request, name)
        if value is None or value is False or (name == "n" and value == 1):
            continue
        raise InvalidRequestError(name, f"{path} takes no {name}. {what_to_do}")


@contextmanager
def errors_in_words_of(names: Mapping[str, str]) -> Iterator[None]:
    """Within it, `InvalidRequestError`s of the chat path get the names that the client knows: `names` maps from its
    patterns to them.
    """
    try:
        yield
    except InvalidRequestError as error:
        param, message = error.param, error.message
        for pattern, name in names.items():
            param = None if param is None else re.sub(pattern, name, param)
            message = re.sub(pattern, name, message)
        raise InvalidRequestError(param, message) from None


class ChatMessages:
    """Collects the messages of a chat request from items or blocks."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._call_ids: set[str] = set()

    def add_text(self, role: str, texts: list[str], *, joins: bool = False) -> None:
        """A message, or with `joins` more of the one before it, where that has the same role and no calls yet."""
        last = self.messages[-1] if self.messages else None
        if joins and last is not None and last["role"] == role and "tool_calls" not in last:
            texts = content_texts(last["content"], "") + texts
            last["content"] = _content(texts)
        else:
            self.messages.append({"role": role, "content": _content(texts)})

    def add_tool_call(self, id: str, name: str, arguments: str) -> None:
        """A call that the assistant made; `arguments` is JSON text. It joins the assistant's message before it."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": None})
        calls = self.messages[-1].setdefault("tool_calls", [])
        calls.append({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
        self._call_ids.add(id)

    def add_tool_output(self, id: str, texts: list[str], where: str) -> None:
        """What a call gave. Raises `InvalidRequestError` for a call that was not made before."""
        if id not in self._call_ids:
            raise InvalidRequestError(where, f"{where} is {id[:80]!r}, but no call with this id stands before it.")
        self.messages.append({"role": "tool", "tool_call_id": id, "content": _content(texts)})


def _content(texts: list[str]) -> str | list[dict[str, Any]]:
    """As short a form as there is: templates are given either."""
    if len(texts) == 1:
        return texts[0]
    return [{"type": "text", "text": text} for text in texts]
