"""POST /generate: the endpoint of vLLM's demo server, of Outlines' server, and of BentoML's guide, in one.

A prompt and sampling parameters bring `{"text": [prompt + answer, …]}`; with `schema` or `regex` the answers stand
alone; `json_schema` brings the JSON value itself. A stream is one such object after another, each with all of the text
so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.types import Receive, Scope, Send

from ...engine_core.errors import InvalidRequestError
from ...engine_core.sampling_params import SamplingParams
from ..constraints.constraint import Constraint, json_text, request_constraint
from ..engine_link.input_processor import Prompt
from ..engine_link.output_processor import SampleDelta
from ..generation.generation import Answer, Generation, respond
from ..generation.sampling import check_stream_fields, generate_params, refuse_unsupported
from ..http.errors import ApiError
from ..http.request_body import decode, read_body
from ..http.request_id import answer_id
from ..http.sse import StreamFormat
from ..protocol.generate import GenerateRequest, GenerateResponse
from ..services import Services
from .character_schema import DEFAULT_PROMPT, DEFAULT_SCHEMA

SEPARATORS = {"\n": "application/x-ndjson", "\0": "text/plain; charset=utf-8"}
"""What may stand between the objects of a stream, and the type of such a stream."""

_OF_COMPLETIONS = (
    "echo",
    "logprobs",
    "prompt_logprobs",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "stream_options",
)
"""Fields that change what an answer tells: this one has no place for it."""


class Generate:
    """The endpoint, raw ASGI."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(GenerateRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        model = services.check_model(request.model)
        _check_fields(request)
        refuse_unsupported(request)
        check_stream_fields(request)
        constraint = _constraint(request, services.config.guided_decoding_backend)
        returns_value = constraint is not None and constraint.param == "json_schema"
        if returns_value:
            _check_single_answer(request)
        prompt = await services.input_processor.encode_prompt(
            _prompt(request, constraint),
            add_special_tokens=request.add_special_tokens is not False,
            truncate_prompt_tokens=request.truncate_prompt_tokens,
            truncation_side=request.truncation_side or "left",
        )
        params = generate_params(request, services.default_sampling, to_the_end=returns_value)
        await services.check_engine()
        generation = Generation(
            services,
            id=answer_id("gen", scope, request.request_id),
            model=model,
            request=request,
            params=params,
            prompts=[prompt],
            constraint=constraint,
        )
        echoes = constraint is None if request.echo_prompt is None else request.echo_prompt
        separator = request.stream_separator or "\n"
        writer = _GenerateWriter(
            params,
            prompt_text=_text_of(services, prompt) if echoes else "",
            returns_value=returns_value,
            separator=separator,
        )
        await respond(
            generation,
            writer,
            stream=bool(request.stream),
            receive=receive,
            send=send,
            stream_format=StreamFormat(SEPARATORS[separator]),
        )


class _GenerateWriter:
    """The texts of all answers, whole or so far; or the JSON value that is the one answer."""

    def __init__(self, params: SamplingParams, *, prompt_text: str, returns_value: bool, separator: str) -> None:
        self._prompt_text = prompt_text
        self._returns_value = returns_value
        self._separator = separator.encode()
        # Beams are known at the end, and may be fewer than were asked for.
        self._texts = [] if params.use_beam_search else [prompt_text] * params.n

    def response(self, answers: list[Answer]) -> bytes:
        if self._returns_value:
            return _json_value(answers[0])
        return msgspec.json.encode(GenerateResponse([self._prompt_text + answer.text for answer in answers]))

    def events(self, deltas: Sequence[SampleDelta]) -> bytes:
        for delta in deltas:
            if delta.index == len(self._texts):
                self._texts.append(self._prompt_text)
            self._texts[delta.index] += delta.text
        return msgspec.json.encode(GenerateResponse(self._texts)) + self._separator

    def last_events(self) -> bytes:
        return b""

    def failure(self, error: ApiError) -> bytes:
        return error.body() + self._separator


def _check_fields(request: GenerateRequest) -> None:
    """Refuse what has no meaning here. Raises `InvalidRequestError`."""
    for name in _OF_COMPLETIONS:
        if getattr(request, name) not in (None, False):
            hint = "use echo_prompt" if name == "echo" else "ask /v1/completions"
            raise InvalidRequestError(name, f"The answer of /generate has texts alone: instead of {name}, {hint}.")
    if request.stream_separator is not None and request.stream_separator not in SEPARATORS:
        raise InvalidRequestError("stream_separator", 'stream_separator must be "\\n" or "\\u0000".')


def _constraint(request: GenerateRequest, default_backend: str) -> Constraint | None:
    """What the answers must match; a request that has neither a prompt nor a constraint gets the guide's."""
    schema = json_text("schema", request.schema)
    constraint = request_constraint(
        request,
        default_backend,
        more=[
            ("json_schema", "json", json_text("json_schema", request.json_schema)),
            ("schema", "json", schema),
            ("regex", "regex", request.regex if schema is None else None),
        ],
    )
    if constraint is None and request.prompt in (None, DEFAULT_PROMPT):
        return Constraint(param="json_schema", kind="json", text=DEFAULT_SCHEMA)
    return constraint


def _prompt(request: GenerateRequest, constraint: Constraint | None) -> str | list[int]:
    if request.prompt is not None:
        return request.prompt
    if constraint is None or constraint.param != "json_schema":
        raise InvalidRequestError("prompt", "prompt is required.")
    return DEFAULT_PROMPT


def _check_single_answer(request: GenerateRequest) -> None:
    """Refuse what the answer cannot tell when it is a JSON value. Raises `InvalidRequestError`."""
    given = {"n": (request.n or 1) > 1, "stream": request.stream, "echo_prompt": request.echo_prompt}
    for name, is_given in given.items():
        if is_given:
            raise InvalidRequestError(name, f"{name}: with json_schema the answer is one JSON value. Try schema.")


def _json_value(answer: Answer) -> bytes:
    """The answer itself, which is JSON unless something cut it short. Raises `ApiError`."""
    if answer.finish_reason == "length":
        raise ApiError(400, "The answer came to its limit before its JSON was complete.", param="max_tokens")
    if isinstance(answer.stop_reason, str):
        raise ApiError(400, "A stop string ended the answer before its JSON was complete.", param="stop")
    return answer.text.encode()


def _text_of(services: Services, prompt: Prompt) -> str:
    return services.tokenizer.decode(prompt.token_ids) if prompt.text is None else prompt.text
