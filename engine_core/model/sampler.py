"""Chooses the next token of each sequence and reports log-probabilities.

A token's random number depends only on (seed, sample index, output position), and a row's arithmetic only on its own
logits, so a choice can be repeated in any batch, after a preemption and after a crash. Reported logprobs are the
model's own, taken before penalties, biases and temperature, unless the configuration asks for processed ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...kernels.reference import forbid_others, kept_weights
from ...kernels.sampling import AllowedTokens, SamplingRows
from ..config import LogprobsMode
from ..messages import TokenLogprobs
from ..scheduling.request import Request
from ..scheduling.step import Candidates
from . import logits_processors
from .beam_candidates import likeliest
from .device import Device
from .logits_processors import LogitsState

MIN_TEMPERATURE = 1e-15


@dataclass(frozen=True)
class RowsToSample:
    """The rows of a step and what their requests ask for, which stays while the same ones are sampled."""

    requests: list[Request]
    rows: list[int]
    scored: list[int]
    """Numbers of the rows whose logprobs are asked for."""
    adjusted: list[tuple[int, LogitsState]]
    """Numbers of the rows that have processors."""
    parameters: SamplingRows
    """Whose `position` each step writes."""
    last_prompt_position: np.ndarray
    """int64: where the first output token of each row is drawn."""


@dataclass(frozen=True)
class Sampled:
    """The choice for each row."""

    token_ids: list[int]
    """-1 where no logit of the row was finite."""
    logprobs: dict[int, TokenLogprobs]
    """By the number of the row."""


class Sampler:
    """Samples the rows of a step. Keeps the parameters of running requests in arrays, a row a request."""

    def __init__(self, vocab_size: int, max_num_seqs: int, device: Device, logprobs_mode: LogprobsMode = "raw") -> None:
        self._kernel = device.sampling_kernel(vocab_size)
        self._device = device.torch_device
        self._vocab_size = vocab_size
        self._logprobs_mode: LogprobsMode = logprobs_mode
        self._rows = SamplingRows(
            temperature=np.zeros(max_num_seqs, np.float32),
            top_k=np.zeros(max_num_seqs, np.int64),
            top_p=np.ones(max_num_seqs, np.float32),
            min_p=np.zeros(max_num_seqs, np.float32),
            seed=np.zeros(max_num_seqs, np.int64),
            sample_index=np.zeros(max_num_seqs, np.int64),
            position=np.zeros(max_num_seqs, np.int64),
        )
        self._states: dict[int, LogitsState] = {}

    def add(self, row: int, request: Request) -> None:
        """Put the parameters of a request into `row`."""
        params, rows = request.params, self._rows
        # A lower one would choose the same, but may lead out of float32.
        rows.temperature[row] = max(params.temperature, MIN_TEMPERATURE) if params.temperature else 0.0
        rows.top_k[row] = min(params.top_k, self._vocab_size)
        rows.top_p[row] = params.top_p
        rows.min_p[row] = params.min_p
        rows.seed[row] = params.seed or 0
        rows.sample_index[row] = request.message.sample_index
        state = logits_processors.make_state(request, self._device)
        if state is not None:
            self._states[row] = state

    def remove(self, row: int) -> None:
        """The row's request is gone."""
        self._states.pop(row, None)

    def parameters(self, rows: list[int]) -> SamplingRows:
        """Copies of the parameters of these rows, in this order; `position` is for the caller to write."""
        index, kept = np.array(rows, np.int64), self._rows
        return SamplingRows(
            temperature=kept.temperature[index],
            top_k=kept.top_k[index],
            top_p=kept.top_p[index],
            min_p=kept.min_p[index],
            seed=kept.seed[index],
            sample_index=kept.sample_index[index],
            position=kept.position[index],
        )

    def gather(self, requests: list[Request], rows: list[int]) -> RowsToSample:
        """What `sample` must know of the rows of a step."""
        states = [(i, self._states[row]) for i, row in enumerate(rows) if row in self._states]
        parameters = self.parameters(rows)
        scored = [i for i, request in enumerate(requests) if request.params.logprobs is not None]
        last_prompt_position = np.array([request.num_prompt_tokens - 1 for request in requests], np.int64)
        return RowsToSample(requests, rows, scored, states, parameters, last_prompt_position)

    def sample(
        self, logits: torch.Tensor, asked: RowsToSample, positions: np.ndarray, allowed: AllowedTokens | None = None
    ) -> Sampled:
        """One token for each row; logits float32 [num_rows, vocab_size] are changed in place.

        positions: int64, of the tokens whose logits these are: the ones before those that are drawn.

        The masks of guided requests come last, over whatever the processors did, and before temperature, top-k, top-p
        and min-p, which so act on what the grammar allows.
        """
        requests, scored = asked.requests, asked.scored
        raw = logits[scored] if scored and self._logprobs_mode == "raw" else None
        for i, state in asked.adjusted:
            logits_processors.apply(logits[i], requests[i], state)
        np.subtract(positions, asked.last_prompt_position, out=asked.parameters.position)
        tokens = self._kernel.sample(logits, asked.parameters, allowed).tolist()
        if not scored:
            return Sampled(tokens, {})
        if raw is None:
            raw = torch.stack([self._processed(logits[i], asked.rows[i]) for i in scored])
        # A row without a finite logit has no token; any will do for its score, which nobody reads.
        chosen = [max(tokens[i], 0) for i in scored]
        counts = [requests[i].params.logprobs or 0 for i in scored]
        return Sampled(tokens, dict(zip(scored, self.logprobs(raw, chosen, counts), strict=True)))

    def candidates(
        self, logits: torch.Tensor, beams: list[Request], rows: list[int], allowed: AllowedTokens | None = None
    ) -> list[Candidates]:
        """What may follow each beam; logits float32 [len(beams), vocab_size] are changed in place.

        As in transformers, processors change log-probabilities here, which are not normalised again: a beam does not
        gain by what was forbidden to it.
        """
        log_sums, _, _ = self._kernel.score(logits, np.zeros(len(beams), np.int64))
        logits -= torch.from_numpy(log_sums)[:, None].to(logits)
        reported = list(logits)
        for i, row in enumerate(rows):
            state = self._states.get(row)
            if state is not None:
                if self._logprobs_mode == "raw":
                    reported[i] = logits[i].clone()
                logits_processors.apply(logits[i], beams[i], state)
        if allowed is not None:
            if self._logprobs_mode == "raw":
                reported = [row.clone() for row in reported]
            forbid_others(logits, allowed)
        found = []
        for scores, own, request in zip(logits, reported, beams, strict=True):
            assert request.beams is not None
            found.append(likeliest(scores, own, request.beams.num_candidates, request.params.logprobs))
        return found

    def _processed(self, logits: torch.Tensor, row: int) -> torch.Tensor:
        """What the token of a row was drawn from: float32 [vocab_size], -inf for what could not be drawn.

        `logits` have been through the processors and the mask. A greedy row's are as they are.
        """
        rows = self._rows
        temperature = float(rows.temperature[row])
        if temperature == 0.0 or not torch.isfinite(logits.max()):
            return logits
        weights = kept_weights(
            logits, temperature, int(rows.top_k[row]), float(rows.top_p[row]), float(rows.min_p[row])
        )
        return weights.log().float()

    def logprobs(self, logits: torch.Tensor, tokens: list[int], counts: list[int]) -> list[TokenLogprobs]:
        """Log-probabilities of one token a row, with the `counts[i]` most likely ones (-1: all).

        logits: float32 [num_rows, vocab_size], contiguous.
        """
        log_sums, chosen, ranks = self._kernel.score(logits, np.array(tokens, np.int64))
        top_values: list[list[float]] = [[] for _ in tokens]
        top_ids: list[list[int]] = [[] for _ in tokens]
        # Which of equal logits are taken depends on how many are asked for: so on what the row itself asks, and not on
        # what the others of its step do.
        for count in set(counts) - {0}:
            rows = [i for i, asked in enumerate(counts) if asked == count]
            num_top = self._vocab_size if count < 0 else min(count, self._vocab_size)
            top = (logits if len(rows) == len(counts) else logits[rows]).topk(num_top, dim=-1)
            values = (top.values.double().cpu() - torch.from_numpy(log_sums[rows])[:, None]).tolist()
            for i, row_values, row_ids in zip(rows, values, top.indices.tolist(), strict=True):
                top_values[i], top_ids[i] = row_values, row_ids
        return [
            TokenLogprobs([token, *top_ids[i]], [float(chosen[i]), *top_values[i]], int(ranks[i]))
            for i, token in enumerate(tokens)
        ]
