"""The fields that completions and chat completions share: how tokens are chosen and what is told of them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .constraint import ABSENT, ResponseFormat, StructuredOutputs


class StreamOptions(msgspec.Struct):
    """What a stream tells beside the text."""

    include_usage: bool | None = False
    """A last event with the token counts and no choices."""
    continuous_usage_stats: bool | None = False
    """The running counts in every event."""


class GenerationFields(msgspec.Struct, kw_only=True):
    """Fields of every request that generates. None is the same as absent: clients send null for what is not
    set.
    """

    model: str | None = None
    n: int | None = None
    best_of: int | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    length_penalty: float | None = None
    """Of beam search alone; taken and without effect."""
    early_stopping: bool | None = None
    """Of beam search alone; taken and without effect."""
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    prompt_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None
    truncation_side: Literal["left", "right"] | None = None
    add_special_tokens: bool | None = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stream_interval: int | None = None
    """Tokens per stream event, at least."""
    priority: int | None = None
    request_id: str | None = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    cache_salt: str | None = None
    user: str | None = None

    guided_json: msgspec.Raw = ABSENT
    """A JSON Schema, or the text of one."""
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    guided_json_object: bool | None = None
    guided_whitespace_pattern: str | None = None
    guided_decoding_backend: str | None = None
    structured_outputs: StructuredOutputs | None = None
    response_format: ResponseFormat | None = None

    # Known, not served yet: anything but null is refused by `sampling.refuse_unsupported`.
    logits_processors: Any = None
    logprob_token_ids: Any = None
    prompt_embeds: Any = None
    use_beam_search: Any = None


class PromptTokensDetails(msgspec.Struct):
    """Where the prompt's tokens came from."""

    cached_tokens: int


class UsageInfo(msgspec.Struct, omit_defaults=True):
    """Token counts; a prompt counts once, however many answers it has."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None


class TokenLogprob(msgspec.Struct):
    """An entry of `prompt_logprobs`, under the token's id."""

    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, TokenLogprob] | None]
