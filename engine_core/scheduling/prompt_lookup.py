"""Guesses the next tokens of a sequence from the sequence itself: what stood behind its last tokens before.

Speculative decoding without a second model ("prompt lookup", Saxena 2023): where an answer repeats its prompt or
itself, one step verifies several guessed tokens for little more than the price of one. The scheduler hands the guesses
to the model runner with the step (`ScheduledRequest.drafts`), which draws a token at each place as it would without
them, and keeps those up to the first that differs: so the tokens are the same with and without it, greedy or drawn.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from ..messages import EngineRequest

MAX_INDEXED = 2048
"""Tokens that one call takes into the index, so that a long prompt holds up no step."""
MAX_CANDIDATES = 16
"""Earlier places that are compared, the latest first."""
LONGEST_PAUSE = 64
"""Tokens without a guess behind many guesses in a row that were all wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLookupConfig:
    """How tokens are guessed."""

    num_speculative_tokens: int
    """Most tokens of a guess."""
    prompt_lookup_max: int
    """As many of the last tokens are compared with earlier places; the place that shares most of them is taken."""
    prompt_lookup_min: int
    """At least so many must be the same."""
    disable_by_batch_size: int
    """With more running requests than this nothing is guessed: the step is busy enough."""


def may_be_guessed(message: EngineRequest) -> bool:
    """Whether the tokens of a request can be verified side by side: no choice among them depends on those before it
    but through the model. A grammar, a beam search, penalties and bad words say no.
    """
    params = message.params
    return not (
        message.grammar is not None
        or params.use_beam_search
        or params.presence_penalty
        or params.frequency_penalty
        or params.repetition_penalty != 1.0
        or message.bad_words_token_ids
    )


class PromptLookup:
    """The index of one sequence, and how well its guesses fared.

    Places are found by the hash of the `prompt_lookup_min` tokens that end there; places of one hash form a chain.
    Memory: about 100 bytes a token.
    """

    __slots__ = ("_config", "_earlier", "_latest", "_length", "_num_indexed", "_pause", "_resume_at")

    def __init__(self, config: PromptLookupConfig) -> None:
        self._config = config
        self._latest: dict[int, int] = {}
        """By hash, the last token of the latest place."""
        self._earlier = array("i")
        """By token, the place before it that has the same hash; -1: none."""
        self._num_indexed = 0
        self._length = config.num_speculative_tokens
        self._pause = 0
        self._resume_at = 0

    def draft(self, token_ids: list[int], most: int) -> list[int]:
        """At most `most` tokens that may come next; empty while nothing like the end is known."""
        self._extend_index(token_ids)
        length = min(self._length, most)
        num_tokens = len(token_ids)
        if length < 1 or num_tokens < self._resume_at or self._num_indexed < num_tokens - 1:
            return []
        place = self._longest_match(token_ids)
        if place < 0:
            return []
        drafts = token_ids[place + 1 : place + 1 + length]
        # The place may be so near that it reads on in what it guesses: a text that repeats goes on repeating.
        period = num_tokens - 1 - place
        while len(drafts) < length:
            drafts.append(drafts[len(drafts) - period])
        return drafts

    def verified(self, num_tokens: int, num_drafted: int, num_accepted: int) -> None:
        """Learn from a guess: long ones where they are right, and pauses where they are wrong again and again.

        num_tokens: length of the sequence now.
        """
        if num_accepted == num_drafted:
            self._length = min(2 * self._length, self._config.num_speculative_tokens)
        else:
            self._length = num_accepted + 1
        self._pause = 0 if num_accepted else min(2 * self._pause + 1, LONGEST_PAUSE)
        self._resume_at = num_tokens + self._pause

    def _extend_index(self, token_ids: list[int]) -> None:
        """Take in the places that have a next token."""
        size = self._config.prompt_lookup_min
        first = self._num_indexed
        end = min(len(token_ids) - 1, first + MAX_INDEXED)
        latest, earlier = self._latest, self._earlier
        for place in range(first, end):
            if place < size - 1:
                earlier.append(-1)
                continue
            key = hash(tuple(token_ids[place - size + 1 : place + 1]))
            earlier.append(latest.get(key, -1))
            latest[key] = place
        self._num_indexed = max(first, end)

    def _longest_match(self, token_ids: list[int]) -> int:
        """Where most of the last tokens stood before, the latest of such places; -1: nowhere."""
        config = self._config
        last = len(token_ids) - 1
        if last < config.prompt_lookup_min:
            return -1
        best, best_shared = -1, config.prompt_lookup_min - 1
        place = self._latest.get(hash(tuple(token_ids[last - config.prompt_lookup_min + 1 :])), -1)
        for _ in range(MAX_CANDIDATES):
            if place < 0 or best_shared == config.prompt_lookup_max:
                break
            shared = 0
            most = min(config.prompt_lookup_max, place + 1)
            while shared < most and token_ids[place - shared] == token_ids[last - shared]:
                shared += 1
            if shared > best_shared:
                best, best_shared = place, shared
            place = self._earlier[place]
        return best
