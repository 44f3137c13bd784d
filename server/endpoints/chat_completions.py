"""POST /v1/chat/completions: a conversation in, the next message out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET
from starlette.types import Receive, Scope, Send

from ...engine_core.messages import TokenLogprobs
from ..engine_link.output_processor import SampleDelta
from ..generation.chat_generation import chat_generation
from ..generation.generation import Answer, Generation, respond
from ..http.errors import ApiError
from ..http.request_body import decode, read_body
from ..http.request_id import answer_id
from ..prompts.chat_prompt import echoed_text, generation_prompt_wanted
from ..protocol.chat import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    ChatToolCall,
    ChatToolCallDelta,
    FunctionCall,
    FunctionCallDelta,
)
from ..services import Services
from ..tools.pieces import Content, Piece, ToolCallArguments, ToolCallStart, gathered


class ChatCompletions:
    """The endpoint, raw ASGI."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(ChatCompletionRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        model = services.check_model(request.model)
        generation = await chat_generation(
            services, request, id=answer_id("chatcmpl", scope, request.request_id), model=model
        )
        writer = ChatWriter(services, request, generation)
        await respond(generation, writer, stream=bool(request.stream), receive=receive, send=send)


class ChatWriter:
    """Writes what a generation brings, as chat completions."""

    def __init__(self, services: Services, request: ChatCompletionRequest, generation: Generation) -> None:
        self._request = request
        self._params = generation.params
        self._generation = generation
        self._role = services.config.response_role
        if not generation_prompt_wanted(request):
            self._role = request.messages[-1]["role"]  # the answer goes on with that message
        self._echo = echoed_text(request.messages, self._role) if request.echo else ""
        self._formatter = generation.logprobs_formatter()
        self._encoder = generation.encoder("chat.completion.chunk")
        self._begun = False
        self._tools = generation.tools
        self._parsers = [None if self._tools is None else self._tools.parser() for _ in range(generation.num_answers)]
        self._calling: set[int] = set()
        """Answers that have called a tool."""

    def response(self, answers: list[Answer]) -> bytes:
        request, prompt = self._request, self._generation.prompts[0]
        response = ChatCompletionResponse(
            id=self._generation.id,
            created=self._generation.created,
            model=self._generation.model,
            choices=[self._choice(answer) for answer in answers],
            usage=self._generation.usage(),
        )
        if request.prompt_logprobs is not None:
            response.prompt_logprobs = self._formatter.prompt(self._generation.prompt_logprobs(0))
        if request.return_token_ids:
            response.prompt_token_ids = prompt.token_ids
        if request.return_prompt_text:
            response.prompt_text = prompt.text or ""
        return msgspec.json.encode(response)

    def events(self, deltas: Sequence[SampleDelta]) -> bytes:
        events: list[bytes] = []
        if not self._begun:
            self._begun = True
            events += [self._opening(index) for index in range(self._generation.num_answers)]
        events += [self._event(delta) for delta in deltas]
        return b"".join(events)

    def last_events(self) -> bytes:
        return self._encoder.last_events(self._generation.usage())

    def failure(self, error: ApiError) -> bytes:
        return self._encoder.failure(error)

    def _choice(self, answer: Answer) -> ChatChoice:
        content, calls = answer.text, []
        parser = None if self._tools is None else self._tools.parser()
        if parser is not None:
            content, calls = gathered([*parser.feed(answer.text), *parser.finish()])
        message = ChatMessage(role=self._role, content=self._echo + content)
        if calls:
            message.content = message.content or None
            message.tool_calls = [
                ChatToolCall(id=call.id, function=FunctionCall(call.name, call.arguments)) for call in calls
            ]
        return ChatChoice(
            index=answer.index,
            message=message,
            logprobs=self._logprobs(answer.logprobs),
            finish_reason=self._finish_reason(answer.finish_reason, has_calls=bool(calls)),
            stop_reason=answer.stop_reason,
            token_ids=answer.token_ids if self._request.return_token_ids else UNSET,
        )

    def _opening(self, index: int) -> bytes:
        """The role event of an answer, and the echo."""
        role = ChatChunkChoice(index, ChatDelta(role=self._role, content=""), None, None)
        events = self._encoder.choice(role, index, 0)
        if self._echo:
            events += self._encoder.choice(ChatChunkChoice(index, ChatDelta(content=self._echo), None, None), index, 0)
        return events

    def _event(self, delta: SampleDelta) -> bytes:
        """The events of a step's text. What is told of tokens and of the end stands in the last of them."""
        request = self._request
        additions = self._additions(delta)
        if not additions:
            tells_tokens = delta.logprobs or request.return_token_ids or self._encoder.continuous_usage
            if delta.finish_reason is None and not tells_tokens:
                return b""
            additions.append(ChatDelta(content="") if delta.finish_reason is None else ChatDelta())
        *before, last = additions
        events = [
            self._encoder.choice(ChatChunkChoice(delta.index, each, None, None), delta.index, 0) for each in before
        ]
        choice = ChatChunkChoice(
            delta.index,
            last,
            self._logprobs(delta.logprobs or ()) if delta.token_ids else None,
            self._finish_reason(delta.finish_reason, has_calls=delta.index in self._calling),
        )
        if delta.finish_reason is not None:
            choice.stop_reason = delta.stop_reason
        if request.return_token_ids:
            choice.token_ids = delta.token_ids
        events.append(self._encoder.choice(choice, delta.index, len(delta.token_ids)))
        return b"".join(events)

    def _additions(self, delta: SampleDelta) -> list[ChatDelta]:
        """What a step's text adds to the message."""
        parser = self._parsers[delta.index]
        if parser is None:
            return [ChatDelta(content=delta.text)] if delta.text else []
        pieces = parser.feed(delta.text)
        if delta.finish_reason is not None:
            pieces += parser.finish()
        if any(isinstance(piece, ToolCallStart) for piece in pieces):
            self._calling.add(delta.index)
        return [_addition(piece) for piece in pieces]

    def _finish_reason(self, reason: str | None, *, has_calls: bool) -> str | None:
        return reason if self._tools is None else self._tools.finish_reason(reason, has_calls=has_calls)

    def _logprobs(self, positions: Sequence[TokenLogprobs]) -> ChatLogprobs | None:
        if not self._request.logprobs:
            return None
        return self._formatter.chat(positions, self._params.logprobs or 0)


def _addition(piece: Piece) -> ChatDelta:
    match piece:
        case Content(text):
            return ChatDelta(content=text)
        case ToolCallStart(index, id, name):
            function = FunctionCallDelta(name=name, arguments="")
            call = ChatToolCallDelta(index=index, id=id, type="function", function=function)
        case ToolCallArguments(index, text):
            call = ChatToolCallDelta(index=index, function=FunctionCallDelta(arguments=text))
    return ChatDelta(tool_calls=[call])
