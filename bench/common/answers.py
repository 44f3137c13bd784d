"""Reads what a stream brought: when its tokens came, how many they were, and what went wrong.

The arithmetic is that of `vllm bench serve`: TTFT to the first event with a choice, TPOT over the tokens behind the
first, ITL between two such events, E2E to the last one. Tokens are what the server counts in `usage`, or else the
events. An event that only names the role of a chat message is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from .http_stream import Exchange

END_OF_STREAM = b"[DONE]"
MOST_SHOWN = 300
"""Characters of an error that are told."""


class _Delta(msgspec.Struct):
    content: str | None = None
    role: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int = 0
    prompt_tokens: int = 0


class _Event(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


_decode = msgspec.json.Decoder(_Event).decode


@dataclass
class Answer:
    """One streamed answer; times are seconds since its request was sent."""

    times: list[float] = field(default_factory=list)
    """Of the events that brought something."""
    text: str = ""
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    """As the server counts it; 0 where it does not."""
    finish_reason: str | None = None
    is_complete: bool = False
    """Whether the stream said that it had ended."""
    error: str | None = None

    @property
    def ttft(self) -> float:
        return self.times[0]

    @property
    def latency(self) -> float:
        return self.times[-1]

    @property
    def tpot(self) -> float | None:
        """Seconds a token behind the first one; None of an answer of one token."""
        return (self.times[-1] - self.times[0]) / (self.num_tokens - 1) if self.num_tokens > 1 else None

    @property
    def itls(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


def read_answer(exchange: Exchange) -> Answer:
    """What came back for one request."""
    answer = Answer(error=exchange.error)
    if exchange.status != 200:
        text = b"".join(piece for _, piece in exchange.pieces).decode(errors="replace")
        answer.error = answer.error or f"{exchange.status}: {text[:MOST_SHOWN]}"
        return answer
    texts: list[str] = []
    for arrived, data in _events(exchange.pieces):
        if data == END_OF_STREAM:
            answer.is_complete = True
            continue
        try:
            event = _decode(data)
        except msgspec.DecodeError as error:
            answer.error = f"an event that is none ({error}): {data[:MOST_SHOWN]!r}"
            break
        _take(event, answer, texts, arrived - exchange.sent)
    answer.text = "".join(texts)
    answer.num_tokens = answer.num_tokens or len(answer.times)
    if answer.error is None and not answer.times:
        answer.error = "the stream ended without a token"
    return answer


def _take(event: _Event, answer: Answer, texts: list[str], seconds: float) -> None:
    if event.error and bytes(event.error) != b"null":
        answer.error = bytes(event.error).decode(errors="replace")[:MOST_SHOWN]
    if event.usage is not None:
        answer.num_tokens = event.usage.completion_tokens
        answer.num_prompt_tokens = event.usage.prompt_tokens
    for choice in event.choices[:1]:
        answer.finish_reason = choice.finish_reason or answer.finish_reason
        delta = choice.delta
        if delta is None:
            texts.append(choice.text or "")
            answer.times.append(seconds)
        elif delta.content or delta.reasoning_content or choice.finish_reason or not delta.role:
            texts.append((delta.reasoning_content or "") + (delta.content or ""))
            answer.times.append(seconds)


def _events(pieces: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The data of each event, and when its end had arrived."""
    rest = b""
    for arrived, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield arrived, line[5:].strip()
