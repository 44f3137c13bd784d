"""The fields that completions and chat completions share: how tokens are chosen and what is told of them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .constraint import ABSENT, ResponseFormat, StructuredOutputs
from .limits import (
    Count,
    Int64,
    LengthPenalty,
    NonEmptyText,
    NumSamples,
    NumTokens,
    Penalty,
    PositiveNumber,
    PositiveProbability,
    Priority,
    Probability,
    Salt,
    Temperature,
    TokenId,
    TopCount,
)


class StreamOptions(msgspec.Struct):
    """What a stream tells beside the text."""

    include_usage: bool | None = False
    """A last event with the token counts and no choices."""
    continuous_usage_stats: bool | None = False
    """The running counts in every event."""
    include_obfuscation: bool | None = False
    """Refused: events are not padded to hide their length."""


class GenerationFields(msgspec.Struct, kw_only=True):
    """Fields of every request that generates. None is the same as absent: clients send null for what is not
    set.
    """

    model: str | None = None
    n: NumSamples | None = None
    best_of: NumSamples | None = None
    """Answers to generate; the n with the best cumulative logprob are returned."""
    max_tokens: NumTokens | None = None
    min_tokens: NumTokens | None = None
    temperature: Temperature | None = None
    """0: always the most likely token. Default: the model's, else 1."""
    top_p: PositiveProbability | None = None
    top_k: TopCount | None = None
    """0 or -1: all tokens."""
    min_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: PositiveNumber | None = None
    use_beam_search: bool | None = None
    """Find the likeliest answers: best_of (or n) beams, of which the n best are returned. A stream brings them at the
    end.
    """
    length_penalty: LengthPenalty | None = None
    """Of beam search: above 0 it favours long answers, below 0 short ones. Default: 1."""
    early_stopping: bool | Literal["never"] | None = None
    """Of beam search: true ends it once as many answers as beams are found; "never" only when none can be better."""
    seed: Int64 | None = None
    """The same seed gives the same answer, whatever runs beside it; -1: none."""
    stop: NonEmptyText | list[NonEmptyText] | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    prompt_logprobs: TopCount | None = None
    logit_bias: dict[str, float] | None = None
    allowed_token_ids: list[TokenId] | None = None
    bad_words: list[NonEmptyText] | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None
    """Keep so many tokens of the prompt, the last ones unless truncation_side is right; -1: what the context holds."""
    truncation_side: Literal["left", "right"] | None = None
    add_special_tokens: bool | None = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stream_interval: Count | None = None
    """Tokens per stream event, at least."""
    priority: Priority | None = None
    """Lower runs first, under --scheduling-policy priority."""
    request_id: str | None = None
    """Becomes part of the answer's id."""
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    cache_salt: Salt | None = None
    """Only requests of the same salt share cached prefixes."""
    user: str | None = None
    """Taken without an effect."""

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
