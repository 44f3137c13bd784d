"""From a prompt and sampling parameters to the engine's requests, with every limit that depends on the model.

Used by the endpoints (through `encode_prompt`, which keeps long texts off the event loop) and by the offline `LLM`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal

import msgspec

from ...engine_core.errors import InvalidRequestError
from ...engine_core.messages import EngineReady, EngineRequest, Grammar
from ...engine_core.sampling_params import MAX_SAMPLES, SamplingParams
from ...engine_core.scheduling.beam_limits import beam_search_problem
from ...engine_core.tokenizer import LONG_TEXT_CHARACTERS, Tokenizer
from ..constraints.constraint import Constraint
from .model_info import ModelInfo

DEFAULT_MAX_LOGPROBS = 20
MAX_FANNED_OUT_TOKENS = 8 * 2**20
"""Tokens of the prompts of one request, once for each answer: each goes to the engine with a copy of its prompt."""
MAX_PROMPT_LOGPROBS = 2 * 2**20
"""Log-probabilities of the prompts of one request, at all positions together."""

TruncationSide = Literal["left", "right"]


def random_seed() -> int:
    """63 random bits."""
    return int.from_bytes(os.urandom(8)) >> 1


class Prompt(msgspec.Struct, frozen=True):
    """A prompt as the model sees it."""

    token_ids: list[int]
    text: str | None = None
    """None when it came as token ids."""


class InputProcessor:
    """Checks and prepares the requests for one model.

    All methods raise `InvalidRequestError`, which names the field and the limit.
    """

    def __init__(
        self,
        model: ModelInfo,
        tokenizer: Tokenizer,
        *,
        max_logprobs: int = DEFAULT_MAX_LOGPROBS,
        make_seed: Callable[[], int] = random_seed,
    ) -> None:
        """`make_seed` gives the seed of a request that has none, in [0, 2**63)."""
        self.max_model_len = model.max_model_len
        """Longest prompt plus output in tokens; `meet` lowers it when the engine's cache holds less."""
        self._engine: EngineReady | None = None
        self._vocab_size = model.vocab_size or tokenizer.vocab_size
        self._eos_token_ids = model.eos_token_ids
        self._tokenizer = tokenizer
        self._max_logprobs = max_logprobs
        self._make_seed = make_seed

    def meet(self, engine: EngineReady) -> None:
        """Heed what the engine says of itself."""
        self._engine = engine
        self.max_model_len = engine.max_model_len

    async def encode_prompt(
        self,
        prompt: str | list[int],
        *,
        add_special_tokens: bool = True,
        truncate_prompt_tokens: int | None = None,
        truncation_side: TruncationSide = "left",
    ) -> Prompt:
        """The same as `encode_prompt_now`, in a thread where it takes long."""
        encode = functools.partial(
            self.encode_prompt_now,
            prompt,
            add_special_tokens=add_special_tokens,
            truncate_prompt_tokens=truncate_prompt_tokens,
            truncation_side=truncation_side,
        )
        return await asyncio.to_thread(encode) if len(prompt) >= LONG_TEXT_CHARACTERS else encode()

    async def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of any text, of an empty or an overlong one too; in a thread where it takes long."""
        if len(text) >= LONG_TEXT_CHARACTERS:
            return await asyncio.to_thread(self._tokenizer.encode, text, add_special_tokens)
        return self._tokenizer.encode(text, add_special_tokens)

    def encode_prompt_now(
        self,
        prompt: str | list[int],
        *,
        add_special_tokens: bool = True,
        truncate_prompt_tokens: int | None = None,
        truncation_side: TruncationSide = "left",
    ) -> Prompt:
        """Tokenise and truncate: `truncation_side="left"` drops the beginning, so that the last k tokens stay.

        The special tokens that the tokenizer puts around a text count, and stay.
        """
        limit = self._truncation_limit(truncate_prompt_tokens)
        if isinstance(prompt, str):
            if limit is None:
                self._check_text_length(prompt)
            result = Prompt(self._tokenizer.encode(prompt, add_special_tokens), prompt)
            special = self._tokenizer.encode("") if add_special_tokens and limit is not None else []
        else:
            self._check_token_ids("prompt", prompt)
            result, special = Prompt(prompt), []
        if not result.token_ids:
            raise InvalidRequestError("prompt", "The prompt must not be empty.")
        if limit is None or len(result.token_ids) <= limit:
            return result
        token_ids = _truncated(result.token_ids, limit, truncation_side, special)
        return Prompt(token_ids, None if result.text is None else self._tokenizer.decode(token_ids))

    def check_sizes(self, prompts: Sequence[Prompt], params: SamplingParams) -> None:
        """Refuse a request whose prompts are harmless one by one, and too much together or with all their answers."""
        param = "n" if params.best_of is None else "best_of"
        num_answers = len(prompts) * params.num_samples
        if num_answers > MAX_SAMPLES:
            raise InvalidRequestError(
                param, f"{len(prompts)} prompts make {num_answers} answers; a request has at most {MAX_SAMPLES}."
            )
        num_tokens = sum(len(prompt.token_ids) for prompt in prompts)
        num_copies = 1 if params.use_beam_search else params.num_samples
        if num_copies > 1 and num_tokens * num_copies > MAX_FANNED_OUT_TOKENS:
            raise InvalidRequestError(
                param,
                f"{num_copies} answers to prompts of {num_tokens} tokens are {num_tokens * num_copies} tokens to "
                f"compute; a request has at most {MAX_FANNED_OUT_TOKENS}.",
            )
        asked = params.prompt_logprobs
        if asked is not None:
            num_logprobs = num_tokens * (1 + (self._vocab_size if asked < 0 else asked))
            if num_logprobs > MAX_PROMPT_LOGPROBS:
                raise InvalidRequestError(
                    "prompt_logprobs",
                    f"Prompts of {num_tokens} tokens have {num_logprobs} logprobs to report; a request has at most "
                    f"{MAX_PROMPT_LOGPROBS}.",
                )

    def requests(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        first_key: int = 0,
        priority: int = 0,
        cache_salt: str = "",
        grammar: Grammar | None = None,
        user: str = "",
    ) -> list[EngineRequest]:
        """One engine request for each answer to generate, or one for a beam search; their keys count up from
        `first_key`.

        A request without a seed gets a random one: its answers can be told apart, resumed and replayed.
        """
        self.check_params(params)
        max_tokens = self._max_tokens(len(prompt.token_ids), params.max_tokens)
        searches = params.use_beam_search
        if searches:
            self._check_beam_search(params, len(prompt.token_ids), max_tokens)
        # What only the front-end looks at stays here.
        engine_params = params.clone(
            n=params.n if searches else 1,
            best_of=params.best_of if searches else None,
            seed=self._make_seed() if params.seed is None else params.seed,
            max_tokens=max_tokens,
            min_tokens=min(params.min_tokens, max_tokens),
            stop=params.stop if searches else [],
            bad_words=[],
            truncate_prompt_tokens=None,
            guided_decoding=None,
            structured_outputs=None,
            # The best answers are those with the highest sum.
            logprobs=0
            if not searches and params.num_samples > params.n and params.logprobs is None
            else params.logprobs,
        )
        # The prompt's logprobs are the same for all answers: the first one brings them.
        others = engine_params.clone(prompt_logprobs=None) if params.prompt_logprobs is not None else engine_params
        bad_words_token_ids = self._bad_words_token_ids(params.bad_words or ())
        self._check_any_allowed(params, bad_words_token_ids)
        arrival_time = time.time()
        return [
            EngineRequest(
                key=first_key + i,
                prompt_token_ids=prompt.token_ids,
                params=engine_params if i == 0 else others,
                sample_index=i,
                eos_token_ids=self._eos_token_ids,
                bad_words_token_ids=bad_words_token_ids,
                priority=priority,
                arrival_time=arrival_time,
                cache_salt=cache_salt,
                grammar=grammar,
                user=user,
            )
            for i in range(1 if searches else params.num_samples)
        ]

    def check_constraint(self, constraint: Constraint) -> None:
        """Refuse what this model's tokenizer cannot be held to."""
        if self._tokenizer.byte_table is None:
            raise InvalidRequestError(
                constraint.param, f"{constraint.param}: the tokens of this model's tokenizer have no text of their own."
            )

    def check_params(self, params: SamplingParams) -> None:
        """Limits that depend on the model or the server."""
        if params.max_tokens is not None and params.max_tokens > self.max_model_len:
            raise InvalidRequestError(
                "max_tokens",
                f"max_tokens is {params.max_tokens}, but this model's maximum context length is "
                f"{self.max_model_len} tokens.",
            )
        self._check_some_token_ids("stop_token_ids", params.stop_token_ids or ())
        self._check_some_token_ids("allowed_token_ids", params.allowed_token_ids or ())
        self._check_some_token_ids("logit_bias", params.logit_bias or ())
        self._check_logprobs("logprobs", params.logprobs)
        self._check_logprobs("prompt_logprobs", params.prompt_logprobs)

    def _check_beam_search(self, params: SamplingParams, num_prompt_tokens: int, max_tokens: int) -> None:
        if params.stop_strings and self._tokenizer.byte_table is None:
            raise InvalidRequestError(
                "stop", "stop: the tokens of this model's tokenizer have no text of their own, which beam search needs."
            )
        if self._engine is None:
            return
        problem = beam_search_problem(
            self._engine, width=params.num_samples, num_prompt_tokens=num_prompt_tokens, max_tokens=max_tokens
        )
        if problem is not None:
            raise InvalidRequestError("n" if params.best_of is None else "best_of", problem)

    def _max_tokens(self, num_prompt_tokens: int, max_tokens: int | None) -> int:
        """Tokens that may be generated: those asked for, up to the end of the context."""
        room = self.max_model_len - num_prompt_tokens
        if room < (0 if max_tokens == 0 else 1):
            raise InvalidRequestError(
                "input_tokens",
                f"This model's maximum context length is {self.max_model_len} tokens. However, you requested "
                f"{num_prompt_tokens} tokens in the prompt and at least {0 if max_tokens == 0 else 1} for the answer. "
                "Please shorten the prompt or set truncate_prompt_tokens.",
            )
        return room if max_tokens is None else min(max_tokens, room)

    def _truncation_limit(self, truncate_prompt_tokens: int | None) -> int | None:
        if truncate_prompt_tokens is None:
            return None
        if truncate_prompt_tokens == -1:
            return max(1, self.max_model_len - 1)
        if not 1 <= truncate_prompt_tokens <= self.max_model_len:
            raise InvalidRequestError(
                "truncate_prompt_tokens",
                f"truncate_prompt_tokens must be -1 or between 1 and {self.max_model_len}, the maximum context length, "
                f"got {truncate_prompt_tokens}.",
            )
        return truncate_prompt_tokens

    def _check_text_length(self, text: str) -> None:
        """Refuse a text that cannot fit before time is spent on tokenising it."""
        at_least = -(-len(text) // self._tokenizer.max_token_characters)
        if at_least > self.max_model_len:
            raise InvalidRequestError(
                "input_tokens",
                f"This model's maximum context length is {self.max_model_len} tokens. However, you requested at least "
                f"{at_least} tokens in the prompt of {len(text)} characters. Please shorten the prompt.",
            )

    def _check_some_token_ids(self, param: str, token_ids: Collection[int]) -> None:
        """The same for a list that needs no id twice."""
        if len(token_ids) > self._vocab_size:
            raise InvalidRequestError(
                param, f"{param} has {len(token_ids)} token ids; the vocabulary has {self._vocab_size}."
            )
        self._check_token_ids(param, token_ids)

    def _check_token_ids(self, param: str, token_ids: Iterable[int]) -> None:
        for token_id in token_ids:
            if not 0 <= token_id < self._vocab_size:
                raise InvalidRequestError(
                    param, f"{param} has the token id {token_id}; ids are from 0 to {self._vocab_size - 1}."
                )

    def _check_any_allowed(self, params: SamplingParams, bad_words_token_ids: list[list[int]]) -> None:
        """Refuse a list of allowed tokens of which other fields forbid each one."""
        if not params.allowed_token_ids:
            return
        forbidden = {token_ids[0] for token_ids in bad_words_token_ids if len(token_ids) == 1}
        if params.min_tokens:
            forbidden.update(self._eos_token_ids, params.stop_token_ids or ())
        if forbidden.issuperset(params.allowed_token_ids):
            raise InvalidRequestError(
                "allowed_token_ids", "allowed_token_ids has no token that bad_words and min_tokens leave."
            )

    def _check_logprobs(self, param: str, number: int | None) -> None:
        if number is None:
            return
        limit = self._vocab_size if self._max_logprobs == -1 else self._max_logprobs
        if number > limit or (number == -1 and self._max_logprobs != -1):
            asked = f"{number} (the whole vocabulary)" if number == -1 else str(number)
            raise InvalidRequestError(param, f"{param} must be at most {limit} (max_logprobs), got {asked}.")

    def _bad_words_token_ids(self, bad_words: Sequence[str]) -> list[list[int]]:
        """The token sequences of words, at the beginning of a text and after a space."""
        sequences: dict[tuple[int, ...], None] = {}
        for word in bad_words:
            for text in (word.lstrip() or word, " " + word.lstrip()):
                token_ids = self._tokenizer.encode(text, add_special_tokens=False)
                if token_ids:
                    sequences[tuple(token_ids)] = None
        return [list(token_ids) for token_ids in sequences]


def _truncated(token_ids: list[int], limit: int, side: TruncationSide, special: list[int]) -> list[int]:
    """`limit` of the tokens; `special` are those that stand around any text."""
    num_before = 0
    while num_before < len(special) and token_ids[num_before] == special[num_before]:
        num_before += 1
    num_after = len(special) - num_before
    end = len(token_ids) - num_after
    room = max(0, limit - len(special))
    start, stop = (end - room, end) if side == "left" else (num_before, num_before + room)
    return [*token_ids[:num_before], *token_ids[start:stop], *token_ids[end:]][:limit]
