"""Writes the answer of /v1/responses, whole or as stream events."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from ...engine_core.messages import TokenLogprobs
from ..engine_link.output_processor import SampleDelta
from ..generation.generation import Answer, Generation
from ..http.errors import ApiError
from ..protocol.chat import ChatTokenLogprob
from ..protocol.responses import (
    IncompleteDetails,
    InputTokensDetails,
    OutputItem,
    ReasoningEcho,
    Response,
    ResponseCompleted,
    ResponseCreated,
    ResponseError,
    ResponseEvent,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponsesRequest,
    ResponseUsage,
    Status,
    TextConfig,
    TextFormat,
)
from ..tools.pieces import Content, Piece
from .responses_input import LOGPROBS
from .responses_output import ResponseOutput

_encode = msgspec.json.encode


class ResponseWriter:
    """For one request."""

    def __init__(self, request: ResponsesRequest, generation: Generation) -> None:
        self._request = request
        self._generation = generation
        self._parser = generation.tools.parser() if generation.tools else None
        self._formatter = generation.logprobs_formatter() if LOGPROBS in (request.include or ()) else None
        self._output = ResponseOutput(generation.id.removeprefix("resp_"))
        self._finish_reason: str | None = None
        self._next_number = 0

    def response(self, answers: list[Answer]) -> bytes:
        (answer,) = answers
        self._output.add(self._pieces(answer.text), self._logprobs(answer.logprobs))
        self._finish_reason = answer.finish_reason
        self._finish()
        return _encode(self._final())

    def events(self, deltas: Sequence[SampleDelta]) -> bytes:
        events: list[ResponseEvent] = []
        if self._next_number == 0:
            begun = self._response("in_progress", [])
            events = [ResponseCreated(response=begun), ResponseInProgress(response=begun)]
        for delta in deltas:
            events += self._output.add(self._pieces(delta.text), self._logprobs(delta.logprobs or ()))
            self._finish_reason = delta.finish_reason
        return self._encode(events)

    def last_events(self) -> bytes:
        events = self._finish()
        final = self._final()
        event = ResponseCompleted if final.status == "completed" else ResponseIncomplete
        return self._encode([*events, event(response=final)])

    def failure(self, error: ApiError) -> bytes:
        events = self._output.finish("incomplete")
        failed = self._response("failed", self._output.items)
        failed.error = ResponseError(error.message)
        return self._encode([*events, ResponseFailed(response=failed)])

    def _encode(self, events: Sequence[ResponseEvent]) -> bytes:
        written = []
        for event in events:
            event.sequence_number = self._next_number
            self._next_number += 1
            name = event.__struct_config__.tag
            written.append(b"event: %b\ndata: %b\n\n" % (str(name).encode(), _encode(event)))
        return b"".join(written)

    def _finish(self) -> list[ResponseEvent]:
        """The last pieces of the answer, and the end of its last item."""
        rest = self._parser.finish() if self._parser else []
        return self._output.add(rest) + self._output.finish(self._status())

    def _pieces(self, text: str) -> list[Piece]:
        if self._parser is not None:
            return self._parser.feed(text)
        return [Content(text)] if text else []

    def _status(self) -> Status:
        return "incomplete" if self._finish_reason == "length" else "completed"

    def _final(self) -> Response:
        response = self._response(self._status(), self._output.items)
        if response.status == "incomplete":
            response.incomplete_details = IncompleteDetails()
        else:
            response.completed_at = int(time.time())
        response.usage = self._usage()
        return response

    def _usage(self) -> ResponseUsage:
        counts = self._generation.usage()
        details = counts.prompt_tokens_details
        return ResponseUsage(
            input_tokens=counts.prompt_tokens,
            input_tokens_details=InputTokensDetails(details.cached_tokens if details else 0),
            output_tokens=counts.completion_tokens,
            total_tokens=counts.total_tokens,
        )

    def _logprobs(self, positions: Sequence[TokenLogprobs]) -> Sequence[ChatTokenLogprob]:
        if self._formatter is None:
            return ()
        return self._formatter.chat(positions, self._request.top_logprobs or 0).content

    def _response(self, status: Status, items: list[OutputItem]) -> Response:
        request, generation = self._request, self._generation
        text = request.text or TextConfig()
        return Response(
            id=generation.id,
            created_at=generation.created,
            status=status,
            instructions=request.instructions,
            max_output_tokens=request.max_output_tokens,
            model=generation.model,
            output=items,
            parallel_tool_calls=request.parallel_tool_calls is not False,
            prompt_cache_key=request.prompt_cache_key,
            reasoning=ReasoningEcho(request.reasoning.effort if request.reasoning else None),
            safety_identifier=request.safety_identifier,
            temperature=generation.params.temperature,
            text=TextConfig(format=text.format or TextFormat(type="text"), verbosity=text.verbosity),
            tool_choice=request.tool_choice or "auto",
            tools=request.tools or [],
            top_logprobs=request.top_logprobs or 0,
            top_p=generation.params.top_p,
            truncation=request.truncation or "disabled",
            user=request.user,
            metadata=request.metadata or {},
        )
