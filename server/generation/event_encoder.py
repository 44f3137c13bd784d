"""Stream events as bytes: what is the same in all events of an answer is encoded once."""

from __future__ import annotations

import msgspec

from ..http.errors import ApiError
from ..protocol.sampling import GenerationFields, UsageInfo

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.encode


class EventEncoder:
    """`data: {id, object, created, model, choices: [one], usage?}` for the events of one HTTP request.

    `prompt_lengths` has the number of prompt tokens of each answer: what continuous usage counts from. With
    `force_usage` the final usage is sent whether the request asks for it or not.
    """

    def __init__(
        self,
        *,
        id: str,
        object: str,
        created: int,
        model: str,
        request: GenerationFields,
        prompt_lengths: list[int],
        force_usage: bool = False,
    ) -> None:
        options = request.stream_options
        self._include_usage = force_usage or bool(options and options.include_usage)
        self.continuous_usage = bool(options and options.continuous_usage_stats)
        self._prompt_lengths = prompt_lengths
        self._output_lengths = [0] * len(prompt_lengths)
        head = _encode({"id": id, "object": object, "created": created, "model": model})
        self._head = b"data: " + head[:-1] + b',"choices":['
        # OpenAI sends `usage: null` in every event before the one that has it.
        self._tail = b'],"usage":null}\n\n' if self._include_usage else b"]}\n\n"

    def choice(self, choice: msgspec.Struct, index: int, num_new_tokens: int) -> bytes:
        """The event of one choice of answer `index`; with the counts so far, where the client wants them."""
        if not self.continuous_usage:
            return b"%b%b%b" % (self._head, _encode(choice), self._tail)
        self._output_lengths[index] += num_new_tokens
        num_prompt, num_output = self._prompt_lengths[index], self._output_lengths[index]
        usage = UsageInfo(num_prompt, num_prompt + num_output, num_output)
        return b'%b%b],"usage":%b}\n\n' % (self._head, _encode(choice), _encode(usage))

    def last_events(self, usage: UsageInfo) -> bytes:
        """What comes behind all choices: the final counts, where the client wants them, and the mark of the end."""
        counts = b'%b],"usage":%b}\n\n' % (self._head, _encode(usage)) if self._include_usage else b""
        return counts + DONE

    def failure(self, error: ApiError) -> bytes:
        """What ends a stream that fails."""
        return b"data: %b\n\n%b" % (error.body(), DONE)
