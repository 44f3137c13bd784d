"""Changes to the logits before a token is chosen; each touches only the rows of requests that ask for it.

The order is that of `apply`: penalties, biases, then everything that forbids a token, so that no bias can bring back
what is forbidden.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch

from ..sampling_params import SamplingParams
from ..scheduling.request import Request

MAX_PENALTY = 1e15
"""A repetition penalty beyond it, or below its inverse, acts as this one does: logits, and what a temperature makes of
them, stay finite in float32.
"""


@dataclass(slots=True)
class LogitsState:
    """What the processors keep of one request between steps; made once, when the request first runs."""

    penalised: bool
    bias: tuple[torch.Tensor, torch.Tensor] | None
    """Tokens, int64 [k], and what to add to their logits, float32 [k]."""
    allowed_ids: torch.Tensor | None
    """int64 [k]: every other token is forbidden."""
    bad_words: list[list[int]]
    ending_ids: torch.Tensor | None
    """int64 [k]: tokens that end the output, forbidden until `min_tokens` are out."""
    prompt_ids: torch.Tensor | None = None
    """int64: the distinct tokens of the prompt, for the repetition penalty."""
    counts: Counter[int] = field(default_factory=Counter)
    """How often each token stands in the first `num_counted` output tokens."""
    num_counted: int = 0


def is_penalised(params: SamplingParams) -> bool:
    """Whether a request asks for any of the penalties."""
    return params.presence_penalty != 0.0 or params.frequency_penalty != 0.0 or params.repetition_penalty != 1.0


def repetition_penalty(params: SamplingParams) -> float:
    """The one that acts."""
    return min(max(params.repetition_penalty, 1 / MAX_PENALTY), MAX_PENALTY)


def ending_ids(request: Request) -> list[int]:
    """The tokens that are forbidden until `min_tokens` are out."""
    params, message = request.params, request.message
    return [*message.eos_token_ids, *(params.stop_token_ids or ())] if params.min_tokens else []


def make_state(request: Request, device: torch.device) -> LogitsState | None:
    """The state of a request, or None when no processor concerns it."""
    params, message = request.params, request.message
    penalised, ending = is_penalised(params), ending_ids(request)
    if not (penalised or params.logit_bias or params.allowed_token_ids or message.bad_words_token_ids or ending):
        return None
    bias = params.logit_bias or {}
    bias_ids = _ids(list(bias), device)
    prompt = sorted(set(request.token_ids[: request.num_prompt_tokens]))
    return LogitsState(
        penalised=penalised,
        bias=None if bias_ids is None else (bias_ids, torch.tensor(list(bias.values()), device=device)),
        allowed_ids=_ids(sorted(set(params.allowed_token_ids or ())), device),
        bad_words=message.bad_words_token_ids,
        ending_ids=_ids(ending, device),
        prompt_ids=_ids(prompt, device) if params.repetition_penalty != 1.0 else None,
    )


def apply(logits: torch.Tensor, request: Request, state: LogitsState) -> None:
    """Change `logits` float32 [vocab_size] of one request in place."""
    if state.penalised:
        _penalise(logits, request, state)
    if state.bias is not None:
        bias_ids, bias_values = state.bias
        logits[bias_ids] += bias_values
    if state.allowed_ids is not None:
        kept = logits[state.allowed_ids]
        logits.fill_(-torch.inf)
        logits[state.allowed_ids] = kept
    if state.bad_words:
        _forbid_bad_words(logits, request, state.bad_words)
    if state.ending_ids is not None and request.num_output_tokens < request.params.min_tokens:
        logits[state.ending_ids] = -torch.inf


def _penalise(logits: torch.Tensor, request: Request, state: LogitsState) -> None:
    """Repetition over prompt and output (Keskar et al., arXiv:1909.05858); frequency and presence, as OpenAI defines
    them, over the output only.
    """
    params = request.params
    first_output = request.num_prompt_tokens
    if state.num_counted > request.num_output_tokens:
        state.counts.clear()
        state.num_counted = 0
    state.counts.update(request.token_ids[first_output + state.num_counted :])
    state.num_counted = request.num_output_tokens
    output_ids = _ids(list(state.counts), logits.device)
    if state.prompt_ids is not None:
        seen = state.prompt_ids if output_ids is None else torch.cat([state.prompt_ids, output_ids]).unique()
        values = logits[seen]
        # On the device: where a GPU is given a number of the host's, it multiplies by the inverse, which rounds twice.
        penalty = torch.full((), repetition_penalty(params), device=logits.device)
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if output_ids is not None:
        counts = torch.tensor(list(state.counts.values()), dtype=torch.float32, device=logits.device)
        logits[output_ids] -= params.frequency_penalty * counts + params.presence_penalty


def _forbid_bad_words(logits: torch.Tensor, request: Request, bad_words: list[list[int]]) -> None:
    """Forbid the last token of each bad word whose other tokens are the end of the output."""
    output_len = request.num_output_tokens
    for word in bad_words:
        num_before = len(word) - 1
        if num_before <= output_len and request.token_ids[len(request.token_ids) - num_before :] == word[:-1]:
            logits[word[-1]] = -torch.inf


def _ids(ids: list[int], device: torch.device) -> torch.Tensor | None:
    return torch.tensor(ids, dtype=torch.long, device=device) if ids else None
