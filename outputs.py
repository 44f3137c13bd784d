"""What the offline API returns: `RequestOutput` and its parts, named, shaped and printed as users of vLLM know them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(slots=True)
class Logprob:
    """The log-probability of one token at a position: the model's own, before temperature and penalties."""

    logprob: float
    rank: int | None = None
    """1 is the most likely token."""
    decoded_token: str | None = None
    """The token's text on its own; U+FFFD where it holds a part of a character."""


PositionLogprobs: TypeAlias = dict[int, Logprob]
"""By token id: the chosen token and the most likely ones."""


@dataclass(slots=True, repr=False)
class CompletionOutput:
    """One answer."""

    index: int
    """Number of the answer, from 0."""
    text: str
    token_ids: list[int]
    """All generated tokens, those of a stop string and of the end of the sequence too."""
    cumulative_logprob: float | None = None
    """Sum over the tokens; None unless logprobs were asked for."""
    logprobs: list[PositionLogprobs] | None = None
    """One entry a token; None unless asked for."""
    finish_reason: str | None = None
    """"stop", "length", or "abort"."""
    stop_reason: int | str | None = None
    """The stop string or the stop token id that ended it; None for the end of the sequence and for length."""

    def finished(self) -> bool:
        """Whether the answer has ended."""
        return self.finish_reason is not None

    def __repr__(self) -> str:
        return (
            f"CompletionOutput(index={self.index}, text={self.text!r}, token_ids={self.token_ids}, "
            f"cumulative_logprob={self.cumulative_logprob}, logprobs={self.logprobs}, "
            f"finish_reason={self.finish_reason}, stop_reason={self.stop_reason})"
        )


@dataclass(slots=True)
class RequestMetrics:
    """When what happened; seconds of `time.time()`."""

    arrival_time: float
    first_token_time: float | None = None
    finished_time: float | None = None
    time_in_queue: float | None = None
    """Seconds from arrival to the first schedule."""

    @property
    def first_scheduled_time(self) -> float | None:
        return None if self.time_in_queue is None else self.arrival_time + self.time_in_queue

    @property
    def last_token_time(self) -> float | None:
        return self.finished_time


@dataclass(slots=True, repr=False)
class RequestOutput:
    """A prompt and the answers to it."""

    request_id: str
    prompt: str | None
    """None when the prompt came as token ids."""
    prompt_token_ids: list[int]
    prompt_logprobs: list[PositionLogprobs | None] | None
    """One entry a prompt token, the first None; None unless asked for."""
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestMetrics | None = None
    num_cached_tokens: int = 0
    """Prompt tokens whose keys and values were found in the prefix cache."""
    lora_request: None = None
    encoder_prompt: None = None
    encoder_prompt_token_ids: None = None
    """These three are always None: there are no adapters, and no encoder-decoder models."""

    def __repr__(self) -> str:
        return (
            f"RequestOutput(request_id={self.request_id}, prompt={self.prompt!r}, "
            f"prompt_token_ids={self.prompt_token_ids}, encoder_prompt={self.encoder_prompt}, "
            f"encoder_prompt_token_ids={self.encoder_prompt_token_ids}, prompt_logprobs={self.prompt_logprobs}, "
            f"outputs={self.outputs}, finished={self.finished}, metrics={self.metrics}, "
            f"lora_request={self.lora_request}, num_cached_tokens={self.num_cached_tokens})"
        )
