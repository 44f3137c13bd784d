"""Writes the answer of /v1/messages, whole or as stream events."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..engine_link.output_processor import SampleDelta
from ..generation.generation import Answer, Generation
from ..http.errors import ApiError
from ..http.messages_error import message_error
from ..protocol.messages import (
    Block,
    Message,
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
    MessageUsage,
    StopDelta,
)
from ..tools.pieces import Content, Piece
from .messages_output import MessageOutput

_encode = msgspec.json.encode


class MessageWriter:
    """For one request."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._parser = generation.tools.parser() if generation.tools else None
        self._output = MessageOutput()
        self._finish_reason: str | None = None
        self._stop_reason: int | str | None = None
        self._begun = False

    def response(self, answers: list[Answer]) -> bytes:
        (answer,) = answers
        self._output.add(self._pieces(answer.text))
        self._finish_reason, self._stop_reason = answer.finish_reason, answer.stop_reason
        self._finish()
        stop = self._stop()
        message = self._message(self._output.blocks)
        message.stop_reason, message.stop_sequence = stop.stop_reason, stop.stop_sequence
        return _encode(message)

    def events(self, deltas: Sequence[SampleDelta]) -> bytes:
        events: list[MessageEvent] = []
        if not self._begun:
            self._begun = True
            events.append(MessageStart(self._message([])))
        for delta in deltas:
            events += self._output.add(self._pieces(delta.text))
            self._finish_reason, self._stop_reason = delta.finish_reason, delta.stop_reason
        return _written(events)

    def last_events(self) -> bytes:
        return _written([*self._finish(), MessageDelta(self._stop(), self._usage()), MessageStop()])

    def failure(self, error: ApiError) -> bytes:
        return _written([message_error(error.status, error.message)])

    def _pieces(self, text: str) -> list[Piece]:
        if self._parser is not None:
            return self._parser.feed(text)
        return [Content(text)] if text else []

    def _finish(self) -> list[MessageEvent]:
        """The last pieces of the answer, and the end of its last block."""
        rest = self._parser.finish() if self._parser else []
        return self._output.add(rest) + self._output.finish()

    def _stop(self) -> StopDelta:
        if self._finish_reason == "length":
            return StopDelta("max_tokens", None)
        if self._output.calls_tools:
            return StopDelta("tool_use", None)
        if isinstance(self._stop_reason, str):
            return StopDelta("stop_sequence", self._stop_reason)
        return StopDelta("end_turn", None)

    def _message(self, blocks: list[Block]) -> Message:
        generation = self._generation
        return Message(
            id=generation.id,
            model=generation.model,
            content=blocks,
            stop_reason=None,
            stop_sequence=None,
            usage=self._usage(),
        )

    def _usage(self) -> MessageUsage:
        counts = self._generation.usage()
        cached = counts.prompt_tokens_details.cached_tokens if counts.prompt_tokens_details else None
        return MessageUsage(
            input_tokens=counts.prompt_tokens - (cached or 0),
            output_tokens=counts.completion_tokens,
            cache_read_input_tokens=cached,
        )


def _written(events: Sequence[MessageEvent]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (str(event.__struct_config__.tag).encode(), _encode(event)) for event in events
    )
