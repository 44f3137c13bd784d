"""A prompt of the offline API on its way to its `RequestOutput`, and the progress bar of all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from ..engine_core.messages import TokenLogprobs
from ..engine_core.tokenizer import Tokenizer
from ..outputs import CompletionOutput, Logprob, PositionLogprobs, RequestMetrics, RequestOutput
from ..server.engine_link.input_processor import Prompt
from ..server.engine_link.output_processor import RequestState, SampleDelta, merge_deltas


@dataclass(slots=True)
class Job:
    """A prompt whose answers are being put together."""

    request_id: str
    prompt: Prompt
    state: RequestState
    arrival_time: float
    deltas: dict[int, list[SampleDelta]] = field(default_factory=dict)
    """By answer."""
    metrics: RequestMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = RequestMetrics(self.arrival_time)

    def add(self, deltas: list[SampleDelta]) -> None:
        if deltas and self.metrics.first_token_time is None:
            self.metrics.first_token_time = time.time()
        for delta in deltas:
            self.deltas.setdefault(delta.index, []).append(delta)

    def output(self, tokenizer: Tokenizer) -> RequestOutput:
        """The finished answers, in their order."""
        state = self.state
        self.metrics.time_in_queue = state.queue_seconds
        prompt_logprobs: list[PositionLogprobs | None] | None = None
        if state.prompt_logprobs is not None:
            prompt_logprobs = [
                None,
                *(_by_token_id(position, tokenizer) for position in state.prompt_logprobs),
            ]
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt.text,
            prompt_token_ids=self.prompt.token_ids,
            prompt_logprobs=prompt_logprobs,
            outputs=[_completion(merge_deltas(deltas), tokenizer) for _, deltas in sorted(self.deltas.items())],
            finished=True,
            metrics=self.metrics,
            num_cached_tokens=state.num_cached_tokens,
        )


class Speed:
    """Tokens a second since it was made, for the progress bar."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._num_prompt_tokens = 0
        self._num_output_tokens = 0

    def add(self, state: RequestState) -> None:
        self._num_prompt_tokens += state.num_prompt_tokens
        self._num_output_tokens += state.num_output_tokens

    def __str__(self) -> str:
        seconds = time.perf_counter() - self._start
        return (
            f"est. speed input: {self._num_prompt_tokens / seconds:.2f} toks/s, "
            f"output: {self._num_output_tokens / seconds:.2f} toks/s"
        )


def progress_bar(use_tqdm: bool | Callable[..., tqdm[Any]], total: int) -> tqdm[Any]:
    make = use_tqdm if callable(use_tqdm) else tqdm
    return make(total=total, desc="Processed prompts", dynamic_ncols=True, disable=use_tqdm is False)


def _completion(delta: SampleDelta, tokenizer: Tokenizer) -> CompletionOutput:
    return CompletionOutput(
        index=delta.index,
        text=delta.text,
        token_ids=delta.token_ids,
        cumulative_logprob=delta.cumulative_logprob,
        logprobs=None if delta.logprobs is None else [_by_token_id(position, tokenizer) for position in delta.logprobs],
        finish_reason=delta.finish_reason,
        stop_reason=delta.stop_reason,
    )


def _by_token_id(position: TokenLogprobs, tokenizer: Tokenizer) -> PositionLogprobs:
    """The chosen token first, then the most likely ones; those count their ranks up from 1."""
    chosen = position.token_ids[0]
    entries = {chosen: Logprob(position.logprobs[0], position.rank, tokenizer.token_text(chosen))}
    for rank, (token_id, logprob) in enumerate(zip(position.token_ids[1:], position.logprobs[1:], strict=True), 1):
        if token_id not in entries:
            entries[token_id] = Logprob(logprob, rank, tokenizer.token_text(token_id))
    return entries
