"""POST /v1/chat/completions/batch: several conversations in, a choice for each out."""

from __future__ import annotations

import msgspec
from starlette.types import Receive, Scope, Send

from ...engine_core.errors import InvalidRequestError
from ..engine_link.input_processor import Prompt
from ..generation.chat_form import chat_request
from ..generation.chat_generation import chat_generation, chat_prompt
from ..generation.generation import respond
from ..http.request_body import decode, read_body
from ..http.request_id import answer_id
from ..protocol.chat import ChatBatchRequest, ChatCompletionRequest
from ..services import Services
from .chat_completions import ChatWriter

MAX_CONVERSATIONS = 1024
"""Conversations of one request."""

_PASSED_ON = (
    "documents",
    "chat_template",
    "chat_template_kwargs",
    "reasoning_effort",
    "max_completion_tokens",
    "logprobs",
    "top_logprobs",
)
"""Fields that mean for each conversation what they mean for one."""

_OF_ONE = (
    *("n", "best_of", "stream", "stream_options", "use_beam_search", "echo", "prompt_logprobs", "return_token_ids"),
    *("return_prompt_text", "add_generation_prompt", "continue_final_message"),
    *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"),
)
"""Fields that only a request about one conversation takes, and what they may say here: what they say anyway."""
_HARMLESS = {"n": 1, "best_of": 1, "add_generation_prompt": True, "tool_choice": "none"}


class ChatBatch:
    """The endpoint, raw ASGI."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(ChatBatchRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        model = services.check_model(request.model)
        _refuse(request)
        fields = {name: getattr(request, name) for name in _PASSED_ON}
        chats = [chat_request(request, messages=messages, **fields) for messages in request.messages]
        prompts = [await self._prompt(chat, number) for number, chat in enumerate(chats)]
        id = answer_id("chatcmpl", scope, request.request_id)
        generation = await chat_generation(services, chats[0], id=id, model=model, prompts=prompts)
        writer = ChatWriter(services, chats[0], generation)
        await respond(generation, writer, stream=False, receive=receive, send=send)

    async def _prompt(self, chat: ChatCompletionRequest, number: int) -> Prompt:
        """The prompt of a conversation; what is wrong with it is told with its number."""
        try:
            return await chat_prompt(self._services, chat)
        except InvalidRequestError as error:
            if error.param is None or not error.param.startswith("messages"):
                raise
            param = f"messages[{number}]" + error.param.removeprefix("messages")
            raise InvalidRequestError(param, error.message.replace(error.param, param, 1)) from None


def _refuse(request: ChatBatchRequest) -> None:
    for name in _OF_ONE:
        value = getattr(request, name)
        if value is not None and value != _HARMLESS.get(name, False):
            raise InvalidRequestError(name, f"A batch of conversations takes no {name}. Ask /v1/chat/completions.")
    if not request.messages:
        raise InvalidRequestError("messages", "messages must not be empty.")
    if len(request.messages) > MAX_CONVERSATIONS:
        raise InvalidRequestError(
            "messages", f"messages takes at most {MAX_CONVERSATIONS} conversations, got {len(request.messages)}."
        )
