"""POST /v1/chat/completions: a conversation in, the next message out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET
from starlette.types import Receive, Scope, Send

from ..engine_core.messages import TokenLogprobs
from ..engine_core.sampling_params import SamplingParams
from .chat_prompt import echoed_text, generation_prompt_wanted, render_chat_prompt
from .constraint import request_constraint
from .generation import Answer, Generation, respond
from .output_processor import SampleDelta
from .protocol.chat import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
)
from .request_body import decode, read_body
from .request_id import answer_id
from .sampling import chat_params, check_stream_fields, refuse_unsupported
from .services import Services


class ChatCompletions:
    """The endpoint, raw ASGI."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(ChatCompletionRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        model = services.check_model(request.model)
        refuse_unsupported(request)
        check_stream_fields(request)
        params = chat_params(request, services.default_sampling, max_logprobs=services.config.max_logprobs)
        text = await render_chat_prompt(services, request)
        prompt = await services.input_processor.encode_prompt(
            text,
            add_special_tokens=bool(request.add_special_tokens),
            truncate_prompt_tokens=request.truncate_prompt_tokens,
            truncation_side=request.truncation_side or "left",
        )
        constraint = request_constraint(request, services.config.guided_decoding_backend)
        services.check_engine()
        generation = Generation(
            services,
            id=answer_id("chatcmpl", scope, request.request_id),
            model=model,
            request=request,
            params=params,
            prompts=[prompt],
            constraint=constraint,
        )
        writer = _ChatWriter(services, request, params, generation)
        await respond(generation, writer, stream=bool(request.stream), receive=receive, send=send)


class _ChatWriter:
    def __init__(
        self, services: Services, request: ChatCompletionRequest, params: SamplingParams, generation: Generation
    ) -> None:
        self._request = request
        self._params = params
        self._generation = generation
        self._role = services.config.response_role
        if not generation_prompt_wanted(request):
            self._role = request.messages[-1]["role"]  # the answer goes on with that message
        self._echo = echoed_text(request.messages, self._role) if request.echo else ""
        self._formatter = generation.logprobs_formatter()
        self.encoder = generation.encoder("chat.completion.chunk")
        self._begun = False

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
        events = [self._event(delta) for delta in deltas]
        if not self._begun:
            self._begun = True
            events[:0] = [self._opening(index) for index in range(self._generation.num_answers)]
        return b"".join(events)

    def _choice(self, answer: Answer) -> ChatChoice:
        return ChatChoice(
            index=answer.index,
            message=ChatMessage(role=self._role, content=self._echo + answer.text),
            logprobs=self._logprobs(answer.logprobs),
            finish_reason=answer.finish_reason,
            stop_reason=answer.stop_reason,
            token_ids=answer.token_ids if self._request.return_token_ids else UNSET,
        )

    def _opening(self, index: int) -> bytes:
        """The role event of an answer, and the echo."""
        role = ChatChunkChoice(index, ChatDelta(role=self._role, content=""), None, None)
        events = self.encoder.choice(role, index, 0)
        if self._echo:
            events += self.encoder.choice(ChatChunkChoice(index, ChatDelta(content=self._echo), None, None), index, 0)
        return events

    def _event(self, delta: SampleDelta) -> bytes:
        request = self._request
        tells_tokens = delta.logprobs or request.return_token_ids or self.encoder.continuous_usage
        if not delta.text and delta.finish_reason is None and not tells_tokens:
            return b""
        choice = ChatChunkChoice(
            delta.index,
            ChatDelta(content=delta.text) if delta.text or delta.finish_reason is None else ChatDelta(),
            self._logprobs(delta.logprobs or ()) if delta.token_ids else None,
            delta.finish_reason,
        )
        if delta.finish_reason is not None:
            choice.stop_reason = delta.stop_reason
        if request.return_token_ids:
            choice.token_ids = delta.token_ids
        return self.encoder.choice(choice, delta.index, len(delta.token_ids))

    def _logprobs(self, positions: Sequence[TokenLogprobs]) -> ChatLogprobs | None:
        if not self._request.logprobs:
            return None
        return self._formatter.chat(positions, self._params.logprobs or 0)
