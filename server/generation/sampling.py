"""From the fields of a request to `SamplingParams`, with the model's own defaults where the request is
silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...engine_core.errors import InvalidRequestError
from ...engine_core.sampling_params import SamplingParams
from ..http.errors import unsupported
from ..protocol.chat import ChatCompletionRequest
from ..protocol.completions import CompletionRequest
from ..protocol.generate import GenerateRequest
from ..protocol.sampling import GenerationFields

_PASSED_ON = (
    "n",
    "best_of",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "stop_token_ids",
    "bad_words",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "prompt_logprobs",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "truncate_prompt_tokens",
    "logit_bias",
    "allowed_token_ids",
    "use_beam_search",
    "length_penalty",
    "early_stopping",
)
"""Fields that mean the same in a request and in `SamplingParams`."""

_DRAWING = ("temperature", "top_p", "top_k", "min_p")
"""Defaults of a model that say how tokens are drawn: a beam search draws none."""

_UNSUPPORTED = {
    "logits_processors": "A logits processor of the request",
    "logprob_token_ids": "Choosing the tokens of logprobs",
    "prompt_embeds": "A prompt of embeddings",
}


def sampling_params(
    request: GenerationFields,
    defaults: Mapping[str, Any],
    *,
    max_tokens: int | None,
    logprobs: int | None,
) -> SamplingParams:
    """The checked parameters of a request. Raises `InvalidRequestError`.

    `defaults` are the model's (its generation config); a `max_tokens` there caps every request, as in vLLM.
    """
    values = dict(defaults)
    if request.use_beam_search:
        for name in _DRAWING:
            values.pop(name, None)
    for name in _PASSED_ON:
        value = getattr(request, name)
        if value is not None:
            values[name] = value
    cap = values.pop("max_tokens", None)
    values["max_tokens"] = cap if max_tokens is None else min(max_tokens, cap or max_tokens)
    values["logprobs"] = logprobs
    return SamplingParams(**values)


def completion_params(request: CompletionRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    """The parameters of a text completion: 16 tokens unless it says otherwise; none only for an echo."""
    max_tokens = 16 if request.max_tokens is None else request.max_tokens
    if max_tokens < (0 if request.echo else 1):
        raise InvalidRequestError(
            "max_tokens", f"max_tokens must be at least 1 (0 together with echo), got {max_tokens}."
        )
    params = sampling_params(request, defaults, max_tokens=max_tokens, logprobs=request.logprobs)
    if request.echo and request.logprobs is not None:
        asked = (request.logprobs, request.prompt_logprobs or 0)
        params.prompt_logprobs = -1 if -1 in asked else max(asked)
    return params


def generate_params(request: GenerateRequest, defaults: Mapping[str, Any], *, to_the_end: bool) -> SamplingParams:
    """The parameters of /generate: 16 tokens unless it says otherwise, or the answer must be whole (`to_the_end`)."""
    max_tokens = request.max_tokens
    if max_tokens is None:
        max_tokens = None if to_the_end else 16
    elif max_tokens < 1:
        raise InvalidRequestError("max_tokens", f"max_tokens must be at least 1, got {max_tokens}.")
    return sampling_params(request, defaults, max_tokens=max_tokens, logprobs=None)


def chat_params(request: ChatCompletionRequest, defaults: Mapping[str, Any], *, max_logprobs: int) -> SamplingParams:
    """The parameters of a chat completion: up to the end of the context unless it says otherwise."""
    name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    max_tokens = getattr(request, name)
    if max_tokens is not None and max_tokens < 1:
        raise InvalidRequestError(name, f"{name} must be at least 1, got {max_tokens}.")
    top_logprobs = request.top_logprobs or 0
    if top_logprobs and not request.logprobs:
        raise InvalidRequestError("top_logprobs", "top_logprobs needs logprobs to be true.")
    lowest = -1 if max_logprobs == -1 else 0
    if top_logprobs < lowest or top_logprobs > max_logprobs >= 0:
        limit = f"at most {max_logprobs}" if max_logprobs >= 0 else "-1 for all"
        raise InvalidRequestError("top_logprobs", f"top_logprobs must be at least 0 and {limit}, got {top_logprobs}.")
    logprobs = top_logprobs if request.logprobs else None
    return sampling_params(request, defaults, max_tokens=max_tokens, logprobs=logprobs)


def check_stream_fields(request: GenerationFields) -> None:
    """Refuse what makes no sense in a stream, or only in one. Raises `InvalidRequestError`."""
    if request.stream_options is not None and not request.stream:
        raise InvalidRequestError("stream_options", "stream_options needs stream to be true.")
    if request.stream_options is not None and request.stream_options.include_obfuscation:
        raise unsupported("stream_options.include_obfuscation", "Obfuscation of a stream")
    if request.stream and request.prompt_logprobs:
        raise InvalidRequestError("prompt_logprobs", "prompt_logprobs cannot be streamed.")
    picks_best = request.best_of is not None and request.best_of > (request.n or 1)
    if request.stream and picks_best and not request.use_beam_search:
        raise InvalidRequestError("best_of", "best_of above n cannot be streamed: the best are known at the end.")


def refuse_unsupported(request: GenerationFields) -> None:
    """Refuse the fields that we know and cannot honour: ignoring one would be a wrong answer."""
    for name, what in _UNSUPPORTED.items():
        value = getattr(request, name)
        if value is not None and value is not False:
            raise unsupported(name, what)
    if isinstance(request, CompletionRequest) and request.suffix not in (None, ""):
        raise unsupported("suffix", "Filling in before a suffix")
    if isinstance(request, ChatCompletionRequest):
        for name, instead in (("functions", "tools"), ("function_call", "tool_choice")):
            if getattr(request, name) is not None:
                raise InvalidRequestError(name, f"{name} is deprecated and not served: use {instead}.")
