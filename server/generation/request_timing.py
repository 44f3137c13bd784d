"""What a request took and brought: fed with the deltas of its answers, it tells the metrics and the log.

A request here is one HTTP request: one or several prompts, each with its answers.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ...engine_core.sampling_params import SamplingParams
from ..config import ServerConfig
from ..engine_link.input_processor import Prompt
from ..engine_link.output_processor import SampleDelta
from ..http.metrics import Metrics

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pace:
    """How an answer comes."""

    num_tokens: int = 0
    last_token: float = 0.0


class RequestTiming:
    """Clock and counters of a request. Seconds are those of `time.perf_counter()`."""

    def __init__(
        self,
        metrics: Metrics,
        config: ServerConfig,
        id: str,
        model: str,
        params: SamplingParams,
        prompts: Sequence[Prompt],
    ) -> None:
        self._metrics = metrics
        self._config = config
        self._id = id
        self._model = model
        self._params = params
        self._prompts = prompts
        self._start = time.perf_counter()
        self._first_token: float | None = None
        self._answers: dict[int, _Pace] = {}
        self._finish_reasons: Counter[str] = Counter()

    def add(self, deltas: Sequence[SampleDelta]) -> None:
        """Take note of what just came."""
        now = time.perf_counter()
        metrics = self._metrics
        for delta in deltas:
            num_tokens = len(delta.token_ids)
            answer = self._answers.get(delta.index)
            if answer is None:
                answer = self._answers[delta.index] = _Pace()
            if num_tokens:
                if answer.num_tokens:
                    # Tokens that come together share the time since the one before them.
                    metrics.token_times.add((now - answer.last_token) / num_tokens, num_tokens)
                else:
                    metrics.token_times.add_first(num_tokens)
                    self._note_first(now)
                answer.last_token = now
                answer.num_tokens += num_tokens
            if delta.finish_reason is not None:
                self._finish_reasons[delta.finish_reason] += 1
                metrics.count_finished(delta.finish_reason)
                metrics.request_generation_tokens.observe(answer.num_tokens)

    def _note_first(self, now: float) -> None:
        """An answer begins."""
        if self._first_token is None:
            self._first_token = now
            self._metrics.time_to_first_token.observe(now - self._start)

    def finish(self, queue_seconds: float | None) -> None:
        """The request is over, complete or not."""
        now = time.perf_counter()
        self._observe(now, queue_seconds)
        if self._config.log_requests:
            self._log(now, queue_seconds)

    def _observe(self, now: float, queue_seconds: float | None) -> None:
        metrics = self._metrics
        metrics.token_times.tell()
        metrics.e2e_latency.observe(now - self._start)
        metrics.request_n.observe(self._params.n)
        if self._params.max_tokens is not None:
            metrics.request_max_tokens.observe(self._params.max_tokens)
        for prompt in self._prompts:
            metrics.prompt_tokens.inc(len(prompt.token_ids))
            metrics.request_prompt_tokens.observe(len(prompt.token_ids))
        if queue_seconds is not None:
            scheduled = self._start + queue_seconds
            metrics.queue_time.observe(queue_seconds)
            metrics.inference_time.observe(max(0.0, now - scheduled))
            if self._first_token is not None:
                metrics.prefill_time.observe(max(0.0, self._first_token - scheduled))
        if self._first_token is not None:
            metrics.decode_time.observe(now - self._first_token)
            longest = max(answer.num_tokens for answer in self._answers.values())
            if longest > 1:
                metrics.time_per_output_token.observe((now - self._first_token) / (longest - 1))

    def _log(self, now: float, queue_seconds: float | None) -> None:
        reasons = ",".join(f"{reason}:{count}" for reason, count in sorted(self._finish_reasons.items()))
        first = "-" if self._first_token is None else f"{self._first_token - self._start:.3f}"
        logger.info(
            "%s model=%s prompts=%d prompt_tokens=%d output_tokens=%d finished=%s queue=%s first_token=%s total=%.3f%s",
            self._id,
            self._model,
            len(self._prompts),
            sum(len(prompt.token_ids) for prompt in self._prompts),
            sum(answer.num_tokens for answer in self._answers.values()),
            reasons or "aborted",
            "-" if queue_seconds is None else f"{queue_seconds:.3f}",
            first,
            now - self._start,
            self._shown_prompt(),
        )

    def _shown_prompt(self) -> str:
        """The beginning of the first prompt, when the server was asked to log it."""
        if not self._config.log_prompts:
            return ""
        prompt, limit = self._prompts[0], self._config.max_log_len
        if prompt.text is None:
            return f" prompt={str(prompt.token_ids[:limit])[:limit]}"
        return f" prompt={prompt.text[:limit]!r}"
