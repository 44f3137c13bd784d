"""POST /v1/completions: texts or token ids in, their continuations out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import msgspec
from msgspec import UNSET
from starlette.types import Receive, Scope, Send

from ...engine_core.errors import InvalidRequestError
from ...engine_core.messages import TokenLogprobs
from ...engine_core.sampling_params import SamplingParams
from ..constraints.constraint import request_constraint
from ..engine_link.input_processor import Prompt
from ..engine_link.output_processor import SampleDelta
from ..generation.generation import Answer, Generation, respond
from ..generation.logprobs import TextOffset, trimmed
from ..generation.sampling import check_stream_fields, completion_params, refuse_unsupported
from ..http.errors import ApiError
from ..http.request_body import decode, read_body
from ..http.request_id import answer_id
from ..protocol.completions import CompletionChoice, CompletionLogprobs, CompletionRequest, CompletionResponse
from ..protocol.sampling import PromptLogprobs
from ..services import Services

MAX_PROMPTS = 1024
"""Prompts of one request."""


class Completions:
    """The endpoint, raw ASGI."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(CompletionRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        model = services.check_model(request.model)
        refuse_unsupported(request)
        check_stream_fields(request)
        params = completion_params(request, services.default_sampling)
        prompts: list[Prompt] = []
        for prompt in _split(request.prompt):
            prompts.append(
                await services.input_processor.encode_prompt(
                    prompt,
                    add_special_tokens=request.add_special_tokens is not False,
                    truncate_prompt_tokens=request.truncate_prompt_tokens,
                    truncation_side=request.truncation_side or "left",
                )
            )
            await asyncio.sleep(0)  # a thousand short ones are a long one
        constraint = request_constraint(request, services.config.guided_decoding_backend)
        await services.check_engine()
        generation = Generation(
            services,
            id=answer_id("cmpl", scope, request.request_id),
            model=model,
            request=request,
            params=params,
            prompts=prompts,
            constraint=constraint,
        )
        writer = _CompletionWriter(services, request, params, generation)
        await respond(generation, writer, stream=bool(request.stream), receive=receive, send=send)


class _CompletionWriter:
    def __init__(
        self, services: Services, request: CompletionRequest, params: SamplingParams, generation: Generation
    ) -> None:
        self._services = services
        self._request = request
        self._params = params
        self._generation = generation
        self._formatter = generation.logprobs_formatter()
        self._encoder = generation.encoder("text_completion")
        self._tells_text_alone = not (
            request.echo or request.logprobs is not None or request.return_token_ids or self._encoder.continuous_usage
        )
        self._begun: set[int] = set()
        """Answers of which an event was sent."""
        self._offsets: dict[int, TextOffset] = {}

    def response(self, answers: list[Answer]) -> bytes:
        response = CompletionResponse(
            id=self._generation.id,
            created=self._generation.created,
            model=self._generation.model,
            choices=[self._choice(answer) for answer in answers],
            usage=self._generation.usage(),
        )
        return msgspec.json.encode(response)

    def events(self, deltas: Sequence[SampleDelta]) -> bytes:
        return self._event(deltas[0]) if len(deltas) == 1 else b"".join(map(self._event, deltas))

    def last_events(self) -> bytes:
        return self._encoder.last_events(self._generation.usage())

    def failure(self, error: ApiError) -> bytes:
        return self._encoder.failure(error)

    def _choice(self, answer: Answer) -> CompletionChoice:
        request = self._request
        prompt_logprobs = UNSET
        if request.prompt_logprobs is not None:
            prompt_logprobs = self._prompt_logprobs(answer.index)
        return CompletionChoice(
            index=answer.index,
            text=self._echo(answer.index) + answer.text,
            logprobs=self._logprobs(answer.index, answer.token_ids, answer.logprobs),
            finish_reason=answer.finish_reason,
            stop_reason=answer.stop_reason,
            token_ids=answer.token_ids if request.return_token_ids else UNSET,
            prompt_token_ids=self._generation.prompt(answer.index).token_ids if request.return_token_ids else UNSET,
            prompt_logprobs=prompt_logprobs,
        )

    def _event(self, delta: SampleDelta) -> bytes:
        if self._tells_text_alone:  # nearly all streams
            return self._text_event(delta)
        request, index = self._request, delta.index
        first = index not in self._begun
        text = delta.text
        if first:
            self._begun.add(index)
            text = self._echo(index) + text
        tells_tokens = delta.logprobs or request.return_token_ids or self._encoder.continuous_usage
        if not text and delta.finish_reason is None and not tells_tokens:
            return b""
        choice = CompletionChoice(
            index=index,
            text=text,
            logprobs=self._logprobs(index, delta.token_ids, delta.logprobs or ()),
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason,
        )
        if request.return_token_ids:
            choice.token_ids = delta.token_ids
            if first:
                choice.prompt_token_ids = self._generation.prompt(index).token_ids
        return self._encoder.choice(choice, index, len(delta.token_ids))

    def _text_event(self, delta: SampleDelta) -> bytes:
        if not delta.text and delta.finish_reason is None:
            return b""
        choice = CompletionChoice(delta.index, delta.text, None, delta.finish_reason, delta.stop_reason)
        return self._encoder.choice(choice, delta.index, len(delta.token_ids))

    def _echo(self, index: int) -> str:
        """The prompt's text, where it stands in front of the answer."""
        if not self._request.echo:
            return ""
        prompt = self._generation.prompt(index)
        if prompt.text is not None and self._request.truncate_prompt_tokens is None:
            return prompt.text
        return self._services.tokenizer.decode(prompt.token_ids, self._params.skip_special_tokens)

    def _prompt_logprobs(self, index: int) -> PromptLogprobs:
        positions = self._generation.prompt_logprobs(index // self._params.n)
        return self._formatter.prompt([trimmed(position, self._request.prompt_logprobs) for position in positions])

    def _logprobs(
        self, index: int, token_ids: Sequence[int], positions: Sequence[TokenLogprobs]
    ) -> CompletionLogprobs | None:
        """The lists of these tokens; the first call for an answer puts an echoed prompt in front."""
        if self._request.logprobs is None:
            return None
        offset = self._offsets.get(index)
        if offset is not None:
            return self._formatter.completion(token_ids, positions, offset)
        offset = self._offsets[index] = TextOffset()
        if not self._request.echo:
            return self._formatter.completion(token_ids, positions, offset)
        prompt_positions = [
            trimmed(position, self._request.logprobs)
            for position in self._generation.prompt_logprobs(index // self._params.n)
        ]
        of_prompt = self._formatter.completion(
            self._generation.prompt(index).token_ids, [None, *prompt_positions], offset
        )
        offset = self._offsets[index] = TextOffset(len(self._echo(index)))
        of_answer = self._formatter.completion(token_ids, positions, offset)
        return CompletionLogprobs(
            tokens=of_prompt.tokens + of_answer.tokens,
            token_logprobs=of_prompt.token_logprobs + of_answer.token_logprobs,
            top_logprobs=of_prompt.top_logprobs + of_answer.top_logprobs,
            text_offset=of_prompt.text_offset + of_answer.text_offset,
        )


def _split(prompt: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """The prompts of a request: one text, several texts, one list of ids or several. Raises
    `InvalidRequestError`.
    """
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise InvalidRequestError("prompt", "prompt must not be empty.")
    if all(isinstance(item, int) for item in prompt):
        return [cast("list[int]", prompt)]
    if not (all(isinstance(item, str) for item in prompt) or all(isinstance(item, list) for item in prompt)):
        raise InvalidRequestError("prompt", "prompt must hold either texts, or token ids, or lists of token ids.")
    if len(prompt) > MAX_PROMPTS:
        raise InvalidRequestError("prompt", f"prompt takes at most {MAX_PROMPTS} prompts, got {len(prompt)}.")
    return cast("list[str | list[int]]", prompt)
