"""From texts, pairs of texts and token ids to what a pooling model reads, with every limit that depends on the model.

Truncation leaves out tokens of the text and keeps the special ones around it, as sentence-transformers does. Used by
the endpoints and by the offline `LLM`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from tokenizers import Encoding

from ...engine_core.errors import InvalidRequestError
from ...engine_core.pooling.pooling_config import PoolingConfig
from ...engine_core.tokenizer import LONG_TEXT_CHARACTERS, Tokenizer


class PoolingInput(msgspec.Struct, frozen=True):
    """A text as the model sees it."""

    token_ids: list[int]
    token_type_ids: list[int] | None = None
    """Which part of a pair each token belongs to."""


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """How long a text may get."""

    limit: int | None = None
    """Most tokens, special ones included; -1: what the model takes; None: a longer text is an error."""
    side: Literal["left", "right"] = "right"
    """Where tokens are left out."""
    max_first: int = 0
    """Most tokens of the first text of a pair, special ones not counted; 0: any."""
    max_second: int = 0


class PoolingProcessor:
    """Prepares the inputs of one model. Methods raise `InvalidRequestError`, which names the field and the limit."""

    def __init__(
        self, tokenizer: Tokenizer, config: PoolingConfig, max_model_len: Callable[[], int], vocab_size: int
    ) -> None:
        """`max_model_len` gives the longest text in tokens; the engine tells it when it is ready."""
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend
        self._config = config
        self._engine_max_model_len = max_model_len
        self._vocab_size = vocab_size

    @property
    def max_model_len(self) -> int:
        """Longest text in tokens."""
        limit = self._engine_max_model_len()
        own = self._config.max_seq_length
        return limit if own is None else min(limit, own)

    def check_dimensions(self, dimensions: int) -> None:
        """Whether vectors may be cut to this size."""
        config = self._config
        if not config.is_matryoshka:
            raise InvalidRequestError(
                "dimensions",
                "This model was not trained for vectors of other sizes (matryoshka), so dimensions cannot be set. "
                'Where it was, let its config.json say "is_matryoshka": true.',
            )
        allowed = config.matryoshka_dimensions
        if allowed and dimensions not in allowed:
            raise InvalidRequestError("dimensions", f"dimensions must be one of {list(allowed)}, got {dimensions}.")
        if dimensions < 1 or (config.vector_size is not None and dimensions > config.vector_size):
            raise InvalidRequestError(
                "dimensions", f"dimensions must be between 1 and {config.vector_size}, got {dimensions}."
            )

    async def encode(
        self, texts: Sequence[str | list[int]], truncation: Truncation, *, add_special_tokens: bool = True
    ) -> list[PoolingInput]:
        """The same as `encode_now`, in a thread where it takes long."""
        if sum(map(len, texts)) < LONG_TEXT_CHARACTERS:
            return self.encode_now(texts, truncation, add_special_tokens=add_special_tokens)
        return await asyncio.to_thread(self.encode_now, texts, truncation, add_special_tokens=add_special_tokens)

    def encode_now(
        self, texts: Sequence[str | list[int]], truncation: Truncation, *, add_special_tokens: bool = True
    ) -> list[PoolingInput]:
        """An input for each text or list of token ids. Ids get no special tokens."""
        limit = self._limit(truncation)
        strings = [self._cased(text) for text in texts if isinstance(text, str)]
        encodings = iter(self._backend.encode_batch(strings, add_special_tokens=False))
        inputs: list[PoolingInput] = []
        for index, text in enumerate(texts):
            param = "input" if len(texts) == 1 else f"input[{index}]"
            if isinstance(text, str):
                encoding = _cut(next(encodings), truncation.max_first, truncation.side)
                given = self._joined(encoding, None, limit, truncation, add_special_tokens)
            else:
                self._check_token_ids(param, text)
                token_ids = text
                if limit is not None and len(text) > limit:
                    token_ids = text[:limit] if truncation.side == "right" else text[-limit:]
                given = PoolingInput(token_ids)
            inputs.append(self._checked(param, given))
        return inputs

    async def encode_pairs(self, pairs: Sequence[tuple[str, str]], truncation: Truncation) -> list[PoolingInput]:
        """The same as `encode_pairs_now`, in a thread where it takes long."""
        if sum(len(first) + len(second) for first, second in pairs) < LONG_TEXT_CHARACTERS:
            return self.encode_pairs_now(pairs, truncation)
        return await asyncio.to_thread(self.encode_pairs_now, pairs, truncation)

    def encode_pairs_now(self, pairs: Sequence[tuple[str, str]], truncation: Truncation) -> list[PoolingInput]:
        """An input for each pair of texts, joined as the tokenizer joins pairs. What is too long loses tokens of its
        longer text first.
        """
        limit = self._limit(truncation)
        distinct = list(dict.fromkeys(self._cased(text) for pair in pairs for text in pair))
        # A query stands beside many documents: each text is read once.
        numbers = {text: number for number, text in enumerate(distinct)}
        encodings = self._backend.encode_batch(distinct, add_special_tokens=False)
        inputs: list[PoolingInput] = []
        for index, pair in enumerate(pairs):
            first, second = (encodings[numbers[self._cased(text)]] for text in pair)
            first = _cut(_copy(first), truncation.max_first, truncation.side)
            second = _cut(_copy(second), truncation.max_second, truncation.side)
            joined = self._joined(first, second, limit, truncation, True)
            inputs.append(self._checked("text_2" if len(pairs) == 1 else f"text_2[{index}]", joined))
        return inputs

    def _joined(
        self,
        first: Encoding,
        second: Encoding | None,
        limit: int | None,
        truncation: Truncation,
        add_special_tokens: bool,
    ) -> PoolingInput:
        """Truncated, and with the special tokens around."""
        if limit is not None:
            special = self._backend.num_special_tokens_to_add(second is not None) if add_special_tokens else 0
            room = max(limit - special, 0)
            excess = len(first.ids) + (0 if second is None else len(second.ids)) - room
            if excess > 0:
                keep_first, keep_second = _longest_first(len(first.ids), 0 if second is None else len(second.ids), room)
                first.truncate(keep_first, direction=truncation.side)
                if second is not None:
                    second.truncate(keep_second, direction=truncation.side)
        encoding = self._backend.post_process(first, second, add_special_tokens)
        token_ids = encoding.ids if limit is None else encoding.ids[:limit]
        types = encoding.type_ids[: len(token_ids)]
        return PoolingInput(token_ids, types if any(types) else None)

    def _checked(self, param: str, given: PoolingInput) -> PoolingInput:
        num_tokens, limit = len(given.token_ids), self.max_model_len
        if not num_tokens:
            raise InvalidRequestError(param, f"{param} must not be empty.")
        if num_tokens > limit:
            raise InvalidRequestError(
                param,
                f"This model's maximum context length is {limit} tokens. However, {param} has {num_tokens} tokens. "
                "Please shorten it or set truncate_prompt_tokens (-1: as long as the model takes).",
            )
        return given

    def _check_token_ids(self, param: str, token_ids: list[int]) -> None:
        if token_ids and not (min(token_ids) >= 0 and max(token_ids) < self._vocab_size):
            raise InvalidRequestError(param, f"{param} holds a token id that is not from 0 to {self._vocab_size - 1}.")

    def _limit(self, truncation: Truncation) -> int | None:
        limit, most = truncation.limit, self.max_model_len
        if limit is None:
            return None
        if limit == -1:
            return most
        if not 1 <= limit <= most:
            raise InvalidRequestError(
                "truncate_prompt_tokens",
                f"truncate_prompt_tokens must be -1 or between 1 and {most}, the maximum context length, got {limit}.",
            )
        return limit

    def _cased(self, text: str) -> str:
        return text.lower() if self._config.do_lower_case else text


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts fit, when the longer one loses them first."""
    half = room // 2
    if second <= half:
        return min(first, room - second), second
    if first <= room - half:
        return first, min(second, room - first)
    return room - half, half


def _cut(encoding: Encoding, limit: int, side: Literal["left", "right"]) -> Encoding:
    if limit and len(encoding.ids) > limit:
        encoding.truncate(limit, direction=side)
    return encoding


def _copy(encoding: Encoding) -> Encoding:
    """`truncate` and `post_process` may change what they are given."""
    return Encoding.merge([encoding], growing_offsets=False)
