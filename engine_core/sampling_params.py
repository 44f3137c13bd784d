"""How the tokens of one request are chosen: the public `SamplingParams`, checked when it is made.

Used by the offline API as it stands and built by the server from the fields of an HTTP request. Names, defaults and
ranges are those that users of vLLM and of the OpenAI API know.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any, Literal

import msgspec

from .errors import InvalidRequestError
from .guided_params import GuidedDecodingParams, StructuredOutputsParams

MAX_SAMPLES = 16_384
MAX_STOP_STRINGS = 64
MAX_STOP_CHARACTERS = 4096
"""Of one stop string: text that may be the beginning of one is held back, and looked through at each token."""
MAX_BAD_WORDS = 256
MAX_BAD_WORD_CHARACTERS = 16_384
"""Of all bad words together: they are tokenised while others wait, and looked through at each token."""
MAX_LENGTH_PENALTY = 10.0
INT64_MAX = 2**63 - 1


class RequestOutputKind(IntEnum):
    """Which outputs the caller wants to see; `LLM.generate` returns whole answers."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


class SamplingParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Sampling parameters of one request.

    Raises `InvalidRequestError` (a ValueError that names the field) for a value out of range.
    """

    n: int = 1
    """Number of answers to return."""
    best_of: int | None = None
    """Number of answers to generate; the `n` with the best cumulative logprob are returned."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    """Both penalise tokens of the output only, in [-2, 2]."""
    repetition_penalty: float = 1.0
    """Penalises tokens of prompt and output; above 1 discourages them."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 or -1: all tokens."""
    min_p: float = 0.0
    seed: int | None = None
    """With a seed the answer depends on nothing but the request: not on the batch, the schedule or the process."""
    stop: list[str] | str | None = None
    stop_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    """None: up to the end of the context."""
    min_tokens: int = 0
    logprobs: int | None = None
    """Number of the most likely tokens to report a position, beside the chosen one; -1: the whole vocabulary."""
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    """Keep only the last k tokens of the prompt; -1: as many as the context holds."""
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    use_beam_search: bool = False
    """Find the likeliest answers instead of drawing: `best_of` beams (or `n`), of which the `n` best are returned.
    `temperature` is 0 or 1 then, and nothing else limits what is drawn.
    """
    length_penalty: float = 1.0
    """Beam search ranks ended beams by the sum of their logprobs, divided by (number of tokens) ** length_penalty."""
    early_stopping: bool | Literal["never"] = False
    """When a beam search ends: once as many beams as it has have ended (True); once the best running one is worse than
    them as it stands (False), or would be even at the full length ("never").
    """
    guided_decoding: GuidedDecodingParams | None = None
    structured_outputs: StructuredOutputsParams | None = None
    """What the answer must match, in the older or the newer form. Offline only: the server compiles a request's own
    fields.
    """
    output_kind: RequestOutputKind = RequestOutputKind.FINAL_ONLY
    """CUMULATIVE means the same, since answers are returned whole; DELTA is refused."""
    logits_processors: list[Any] | None = None
    extra_args: dict[str, Any] | None = None
    """Both known and refused, unless empty: no code of the caller runs in the engine."""

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            self.stop = [self.stop]
        self.stop = self.stop or []
        self.stop_token_ids = self.stop_token_ids or []
        self.bad_words = self.bad_words or []
        if self.seed == -1:
            self.seed = None
        if self.top_k == -1:
            self.top_k = 0
        if self.logit_bias is not None:
            self.logit_bias = _clamped_bias(self.logit_bias)
        self._check()

    @property
    def greedy(self) -> bool:
        """Whether each token is simply the most likely one."""
        return self.temperature == 0.0

    @property
    def num_samples(self) -> int:
        """Answers to generate: `best_of` where it is given, else `n`."""
        return self.n if self.best_of is None else self.best_of

    @property
    def stop_strings(self) -> list[str]:
        """The stop strings as a list, whatever form they were given in."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def clone(self, **changes: Any) -> SamplingParams:
        """A checked copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)

    def _check(self) -> None:
        _in_range("n", self.n, 1, MAX_SAMPLES)
        if self.best_of is not None:
            _in_range("best_of", self.best_of, 1, MAX_SAMPLES)
            if self.best_of < self.n:
                raise InvalidRequestError("best_of", f"best_of must be at least n ({self.n}), got {self.best_of}.")
        _in_range("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _in_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise InvalidRequestError(
                "repetition_penalty", f"repetition_penalty must be above 0 and finite, got {self.repetition_penalty}."
            )
        _in_range("temperature", self.temperature, 0.0, 2.0)
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidRequestError("top_p", f"top_p must be above 0 and at most 1, got {self.top_p}.")
        _in_range("top_k", self.top_k, 0, INT64_MAX, note="(0 or -1: all tokens)")
        _in_range("min_p", self.min_p, 0.0, 1.0)
        if self.seed is not None:
            _in_range("seed", self.seed, -(2**63), INT64_MAX)
        stop = self.stop_strings
        if len(stop) > MAX_STOP_STRINGS:
            raise InvalidRequestError("stop", f"stop takes at most {MAX_STOP_STRINGS} strings, got {len(stop)}.")
        if any(not text for text in stop):
            raise InvalidRequestError("stop", "stop must not hold an empty string.")
        longest = max(map(len, stop), default=0)
        if longest > MAX_STOP_CHARACTERS:
            raise InvalidRequestError(
                "stop", f"A stop string has at most {MAX_STOP_CHARACTERS} characters, got one of {longest}."
            )
        self._check_bad_words()
        if stop and not self.detokenize:
            raise InvalidRequestError("stop", "stop strings need detokenize=True.")
        if self.max_tokens is not None:
            _in_range("max_tokens", self.max_tokens, 0, INT64_MAX)
        _in_range("min_tokens", self.min_tokens, 0, INT64_MAX)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequestError(
                "min_tokens", f"min_tokens must be at most max_tokens ({self.max_tokens}), got {self.min_tokens}."
            )
        if self.logprobs is not None:
            _in_range("logprobs", self.logprobs, -1, INT64_MAX)
        if self.prompt_logprobs is not None:
            _in_range("prompt_logprobs", self.prompt_logprobs, -1, INT64_MAX)
        if self.truncate_prompt_tokens is not None and self.truncate_prompt_tokens != -1:
            _in_range("truncate_prompt_tokens", self.truncate_prompt_tokens, 1, INT64_MAX, note="(or -1)")
        self._check_beam_search()
        self._refuse_unsupported()
        if self.guided_decoding is not None and self.structured_outputs is not None:
            raise InvalidRequestError(
                "structured_outputs", "guided_decoding and structured_outputs say the same; only one may be given."
            )
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise InvalidRequestError("allowed_token_ids", "allowed_token_ids must not be empty.")

    def _check_bad_words(self) -> None:
        words = self.bad_words or []
        if any(not word for word in words):
            raise InvalidRequestError("bad_words", "bad_words must not hold an empty string.")
        if len(words) > MAX_BAD_WORDS:
            raise InvalidRequestError("bad_words", f"bad_words takes at most {MAX_BAD_WORDS} words, got {len(words)}.")
        num_characters = sum(map(len, words))
        if num_characters > MAX_BAD_WORD_CHARACTERS:
            raise InvalidRequestError(
                "bad_words",
                f"bad_words takes at most {MAX_BAD_WORD_CHARACTERS} characters in all, got {num_characters}.",
            )

    def _refuse_unsupported(self) -> None:
        if self.logits_processors:
            raise InvalidRequestError(
                "logits_processors",
                "logits_processors are not supported: no code of the caller runs in the engine. logit_bias, "
                "allowed_token_ids, bad_words and structured_outputs do most of what they are used for.",
            )
        if self.extra_args:
            raise InvalidRequestError(
                "extra_args", f"extra_args are not supported: nobody reads {', '.join(map(str, self.extra_args))}."
            )
        if self.output_kind == RequestOutputKind.DELTA:
            raise InvalidRequestError(
                "output_kind", "output_kind DELTA is not supported: answers are returned whole. The server streams."
            )

    def _check_beam_search(self) -> None:
        limit = MAX_LENGTH_PENALTY
        _in_range("length_penalty", self.length_penalty, -limit, limit)
        if self.early_stopping not in (True, False, "never"):
            raise InvalidRequestError(
                "early_stopping", f'early_stopping must be true, false or "never", got {self.early_stopping!r}.'
            )
        if not self.use_beam_search:
            for name, default in (("length_penalty", 1.0), ("early_stopping", False)):
                if getattr(self, name) != default:
                    raise InvalidRequestError(name, f"{name} needs use_beam_search.")
            return
        if self.temperature not in (0.0, 1.0):
            raise InvalidRequestError(
                "temperature",
                f"Beam search draws nothing: temperature must be 0 or 1 with use_beam_search, got {self.temperature}.",
            )
        for name, neutral in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0)):
            if getattr(self, name) != neutral:
                raise InvalidRequestError(
                    name, f"Beam search draws nothing: {name} must be {neutral} with use_beam_search."
                )
        if self.max_tokens == 0:
            raise InvalidRequestError("max_tokens", "max_tokens must be at least 1 with use_beam_search.")


def _in_range(param: str, value: float, low: float, high: float, note: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        bounds = f"at least {low}" if high in (INT64_MAX,) else f"between {low} and {high}"
        raise InvalidRequestError(param, f"{param} must be {bounds}{' ' + note if note else ''}, got {value}.")


def _clamped_bias(logit_bias: dict[Any, Any]) -> dict[int, float]:
    """Token ids as ints and biases in [-100, 100]; JSON gives the ids as strings."""
    clamped: dict[int, float] = {}
    for key, bias in logit_bias.items():
        try:
            token_id = int(key)
        except (TypeError, ValueError):
            raise InvalidRequestError("logit_bias", f"logit_bias has the key {key!r}; keys are token ids.") from None
        if not isinstance(bias, int | float) or math.isnan(bias):
            raise InvalidRequestError("logit_bias", f"logit_bias of token {token_id} must be a number, got {bias!r}.")
        clamped[token_id] = max(-100.0, min(100.0, float(bias)))
    return clamped
