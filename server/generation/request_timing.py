"""What a request took and brought: fed with the deltas of its answers, it tells the metrics and the log.

A request here is one HTTP request: one or several prompts, each with its answers.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence

from ...engine_core.sampling_params import SamplingParams
from ..config import ServerConfig
from ..engine_link.input_processor import Prompt
from ..engine_link.output_processor import SampleDelta
from ..http.metrics import Metrics

logger = logging.getLogger(__name__)


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
        self._last_token: dict[int, float] = {}
        """By answer."""
        self._num_tokens: Counter[int] = Counter()
        """By answer."""
        self._finish_reasons: Counter[str] = Counter()

    def add(self, deltas: Sequence[SampleDelta]) -> None:
        """Take note of what just came."""
        now = time.perf_counter()
        metrics = self._metrics
        num_new_tokens = 0
        for delta in deltas:
            index, num_tokens = delta.index, len(delta.token_ids)
            if num_tokens:
                num_new_tokens += num_tokens
                # Tokens that come together share the time since the one before them.
                last = self._last_token.get(index)
                interval = 0.0 if last is None else (now - last) / num_tokens
                for _ in range(num_tokens - (last is None)):
                    metrics.inter_token_latency.observe(interval)
                if self._first_token is None:
                    self._first_token = now
                    metrics.time_to_first_token.observe(now - self._start)
                self._last_token[index] = now
                self._num_tokens[index] += num_tokens
            if delta.finish_reason is not None:
                self._finish_reasons[delta.finish_reason] += 1
                metrics.count_finished(delta.finish_reason)
                metrics.request_generation_tokens.observe(self._num_tokens[index])
        if num_new_tokens:
            metrics.generation_tokens.inc(num_new_tokens)

    def finish(self, queue_seconds: float | None) -> None:
        """The request is over, complete or not."""
        now = time.perf_counter()
        self._observe(now, queue_seconds)
        if self._config.log_requests:
            self._log(now, queue_seconds)

    def _observe(self, now: float, queue_seconds: float | None) -> None:
        metrics = self._metrics
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
            longest = max(self._num_tokens.values())
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
            self._num_tokens.total(),
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
