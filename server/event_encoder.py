"""Stream events as bytes: what is the same in all events of an answer is encoded once."""

from __future__ import annotations

import msgspec

from .protocol.sampling import GenerationFields, UsageInfo

_encode = msgspec.json.encode


class EventEncoder:
    """`data: {id, object, created, model, choices: [one], usage?}` for the events of one answer."""

    def __init__(self, *, id: str, object: str, created: int, model: str, request: GenerationFields) -> None:
        options = request.stream_options
        self.include_usage = bool(options and options.include_usage)
        self.continuous_usage = bool(options and options.continuous_usage_stats)
        head = _encode({"id": id, "object": object, "created": created, "model": model})
        self._head = b"data: " + head[:-1] + b',"choices":['
        # OpenAI sends `usage: null` in every event before the one that has it.
        self._tail = b'],"usage":null}\n\n' if self.include_usage else b"]}\n\n"

    def choice(self, choice: msgspec.Struct) -> bytes:
        """The event of one choice."""
        return b"%b%b%b" % (self._head, _encode(choice), self._tail)

    def choice_with_usage(self, choice: msgspec.Struct, usage: UsageInfo) -> bytes:
        """The event of one choice, with the counts so far."""
        return b'%b%b],"usage":%b}\n\n' % (self._head, _encode(choice), _encode(usage))

    def usage(self, usage: UsageInfo) -> bytes:
        """The event behind all choices, with the final counts."""
        return b'%b],"usage":%b}\n\n' % (self._head, _encode(usage))
