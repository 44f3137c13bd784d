"""What the front-end and the engine core say to each other: tagged msgspec Structs in msgpack.

A message on the socket is two frames: a seal that begins with `PROTOCOL` (a peer of another version is told apart
before its payload is read; see `wire`) and the encoded Struct. A front-end names its requests by integers of its own;
the engine keeps them apart by the socket's identity. Torch-free.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .pooling.pooling_messages import Pooled, PoolingRequest
from .sampling_params import SamplingParams

PROTOCOL = b"zq2"

FinishReason = Literal["stop", "length", "abort", "error"]


class Grammar(msgspec.Struct, array_like=True):
    """What an answer must match, compiled."""

    key: bytes
    """Equal for equal content: the engine reads each grammar once."""
    data: bytes
    """The pickled `guided.grammar.CompiledGrammar`."""


class EngineRequest(msgspec.Struct, tag="request", omit_defaults=True, kw_only=True):
    """One sequence to generate, or one beam search. A request with n answers is n of these that differ in
    `sample_index`; a beam search finds all answers itself.
    """

    key: int
    """Unique among the live requests of one front-end."""
    prompt_token_ids: list[int]
    params: SamplingParams
    """`seed` is always set here, and `max_tokens` never None."""
    sample_index: int = 0
    eos_token_ids: list[int] = msgspec.field(default_factory=list)
    bad_words_token_ids: list[list[int]] = msgspec.field(default_factory=list)
    output_token_ids: list[int] = msgspec.field(default_factory=list)
    """Tokens already generated (by an engine that died): generation goes on after them."""
    priority: int = 0
    """Lower runs first; used under the priority policy."""
    arrival_time: float = 0.0
    """Seconds of `time.time()`."""
    cache_salt: str = ""
    """Requests share cached prefixes only with requests of the same salt."""
    grammar: Grammar | None = None
    """What the output must match."""
    user: str = ""
    """Whose request it is: within a priority, users take turns."""


class AbortRequests(msgspec.Struct, tag="abort"):
    """Forget these requests; no more is sent of them."""

    keys: list[int]


class Hello(msgspec.Struct, tag="hello"):
    """A front-end is here; the engine answers with `EngineReady` (once its model is loaded)."""


class ResetPrefixCache(msgspec.Struct, tag="reset_prefix_cache"):
    """Forget every cached prefix that no running request uses."""


ToEngine = EngineRequest | PoolingRequest | AbortRequests | Hello | ResetPrefixCache


class TokenLogprobs(msgspec.Struct, array_like=True):
    """Log-probabilities at one position: the chosen token first, then the most likely ones in falling order."""

    token_ids: list[int]
    logprobs: list[float]
    rank: int
    """Rank of the chosen token; 1 is the most likely."""


class BeamOutput(msgspec.Struct, array_like=True):
    """One sequence that a beam search found."""

    token_ids: list[int]
    finish_reason: FinishReason
    cumulative_logprob: float
    """The model's own, whatever the search ranked it by."""
    stop_reason: int | None = None
    logprobs: list[TokenLogprobs] | None = None
    is_complete: bool = False
    """Whether the last token is text, and not what ended it: its grammar allows nothing more, or there is a stop string
    in it.
    """


class EngineOutput(msgspec.Struct, array_like=True):
    """What one step brought to one request."""

    key: int
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    """The stop token id that ended it; None for EOS and length."""
    logprobs: list[TokenLogprobs] | None = None
    """One entry a token of `token_ids`, when asked for."""
    prompt_logprobs: list[TokenLogprobs] | None = None
    """Entries for prompt positions 1, 2, … in order; may come in several outputs, before the first token."""
    num_cached_tokens: int = 0
    """Prompt tokens whose keys and values were found in the prefix cache."""
    queue_seconds: float | None = None
    """Time from arrival to the first schedule; sent once, with the first output."""
    error: str | None = None
    """Why the request failed, when `finish_reason` is "error"."""
    is_complete: bool = False
    """Whether "stop" means that the grammar allows nothing more: the last token is text then, and not what ended it."""
    pooled: Pooled | None = None
    """The whole answer to a `PoolingRequest`."""
    beams: list[BeamOutput] | None = None
    """What a beam search found, the best first: all that is told of its tokens."""


class EngineStats(msgspec.Struct, array_like=True):
    """Counters and gauges of the engine at the end of a step; totals count from the engine's start."""

    num_running: int = 0
    num_waiting: int = 0
    kv_cache_usage: float = 0.0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    """Both in tokens."""
    num_preemptions: int = 0
    num_steps: int = 0
    num_step_tokens: int = 0
    """Tokens computed since the start, of prompts and outputs."""
    num_forced_tokens: int = 0
    """Output tokens that a grammar left no choice about, appended without sampling."""
    num_late_masks: int = 0
    """Times that a request sat out a step because its mask was not ready."""
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    """Steps that verified guesses of next tokens, the tokens guessed, and those of them that were right."""
    num_dropped_messages: int = 0
    """What front-ends, or others, have sent that made no sense."""


class StepOutputs(msgspec.Struct, tag="step"):
    """All that one step brought to one front-end's requests."""

    outputs: list[EngineOutput]
    stats: EngineStats


class Heartbeat(msgspec.Struct, tag="heartbeat"):
    """Sent about once a second while the loop turns, busy or idle."""

    stats: EngineStats


class EngineReady(msgspec.Struct, tag="ready", kw_only=True):
    """The engine serves; what the front-end must know of it."""

    max_model_len: int
    vocab_size: int
    num_blocks: int
    block_size: int
    dtype: str
    enable_prefix_caching: bool = True
    incarnation: int = 0
    """How many engines of this server came before it: each death makes a new one."""
    max_beam_width: int = 0
    """Most beams of one search."""


class MessageLost(msgspec.Struct, tag="lost"):
    """Something that the front-end said has not come through, and all its requests are forgotten. Nothing more that
    comes from its socket will be read: it begins anew with another one.
    """

    is_senders_fault: bool = False
    """Whether the message arrived as it was sent, and makes no sense."""


News = StepOutputs | Heartbeat | EngineReady
"""What the engine tells of its work."""
FromEngine = News | MessageLost

encode = msgspec.msgpack.Encoder().encode
decode_to_engine = msgspec.msgpack.Decoder(ToEngine).decode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode
