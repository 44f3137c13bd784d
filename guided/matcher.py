"""Follows one output through a grammar and tells which tokens may come next.

    matcher = GrammarMatcher(grammar, vocabulary)
    while not matcher.finished():
        token = choose(matcher.mask())
        matcher.advance(token)

All matchers of a grammar share what was seen before (see grammar_cache), so that most steps cost a look-up; they must
be used by one thread at a time. Masks belong to the cache: copy them, or use `fill_mask`; they cannot be written to.

Any method may raise `BudgetExceededError` (call it again: it goes on where it was) and `GrammarError` (the grammar
turned out too complex: the output cannot go on).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from numpy.typing import NDArray

from .automata.configuration import Configuration, Forced, Mask, Starts
from .automata.pushdown import Pushdown
from .masks.grammar_cache import GrammarCache
from .masks.token_trie import Vocabulary


class Grammar(Protocol):
    """What a matcher needs of a compiled grammar."""

    @property
    def pushdown(self) -> Pushdown: ...


class GrammarMatcher:
    """One output under a grammar."""

    __slots__ = ("_cache", "_configuration", "_history", "_mask", "_num_spelled", "_starts", "_text", "vocabulary")

    def __init__(self, grammar: Grammar, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._cache = GrammarCache.of(grammar.pushdown, vocabulary)
        self._configuration, self._starts = self._cache.beginning()
        self._history: list[tuple[Configuration, Starts, int]] = []
        """The tokens, and the place before each."""
        self._text = bytearray()
        self._num_spelled = 0
        """The text of so many tokens: few grammars ever ask for it. See `_spelled`."""
        self._mask: tuple[Mask, bool] | None = None
        """The mask of this very place, where it depends on the text."""

    def fork(self) -> GrammarMatcher:
        """Another one in the same place, which goes its own way."""
        other = object.__new__(GrammarMatcher)
        other.vocabulary, other._cache = self.vocabulary, self._cache
        other._configuration, other._starts, other._mask = self._configuration, self._starts, self._mask
        other._history, other._text, other._num_spelled = list(self._history), bytearray(self._text), self._num_spelled
        return other

    @property
    def num_tokens(self) -> int:
        """The length of the output."""
        return len(self._history)

    def last_tokens(self, count: int) -> list[int]:
        """The last `count` tokens, or all if there are not so many."""
        return [token for _, _, token in self._history[-count:]]

    def mask(self) -> Mask:
        """uint32[vocabulary.num_words]: bit t % 32 of word t // 32 is set if token t may come. Not to be written to.

        The bits of the end tokens are set exactly when the text may end here.
        """
        mask = self._configuration.mask
        if mask is None:
            mask = self._make_mask()[0]
        return mask

    def fill_mask(self, out: NDArray[Any]) -> None:
        """Copies the mask into int32 or uint32 words, which may be more than it has: those are cleared."""
        words = self.vocabulary.num_words
        out[:words] = self.mask().view(out.dtype)
        out[words:] = 0

    def advance(self, token: int) -> bool:
        """Takes a token; False, and nothing has changed, if it is not allowed."""
        configuration = self._configuration
        following = configuration.following.get(token)
        if following is None:
            return self._advance_slowly(token)
        self._history.append((configuration, self._starts, token))
        self._configuration = following
        self._mask = None
        return True

    def advance_known(self, token: int, *, settled: bool) -> bool:
        """Takes a token where that costs a look-up or two, and where it is known that more may follow.

        Args:
            token: one of the vocabulary's.
            settled: whether it must lead to a place that was settled (see `settle`).

        Returns:
            False, and nothing has changed, if it costs more, or if any of this is not known or not so.
        """
        configuration = self._configuration
        loops = configuration.loops
        following = configuration if loops is not None and loops[token] else configuration.following.get(token)
        if following is None:
            following = self._cache.step(configuration, token)
            if following is None:
                return False
        if settled:
            if not following.is_settled:
                return False
        elif following.accepting is not False and following.only_end is not False:
            return False
        self._history.append((configuration, self._starts, token))
        self._configuration = following
        self._mask = None
        return True

    def known_mask(self) -> Mask | None:
        """The mask, if it and whether the text may end here are known; see `mask`."""
        configuration = self._configuration
        return None if configuration.accepting is None else configuration.mask

    def accept_tokens(self, tokens: Iterable[int]) -> int:
        """Takes tokens until one is not allowed (an output that is replayed); returns how many were taken."""
        taken = 0
        for token in tokens:
            if not self.advance(token):
                break
            taken += 1
        return taken

    def rollback(self, count: int) -> None:
        """Takes back the last `count` tokens.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 <= count <= len(self._history):
            raise ValueError(f"{count} tokens are to be taken back, but only {len(self._history)} were taken")
        if count:
            self._configuration, self._starts, _ = self._history[-count]
            for _, _, token in self._history[len(self._history) - count : self._num_spelled]:
                del self._text[len(self._text) - len(self.vocabulary.tokens[token]) :]
            del self._history[-count:]
            self._num_spelled = min(self._num_spelled, len(self._history))
            self._mask = None

    def accepting(self) -> bool:
        """Whether the text may end here."""
        accepting = self._configuration.accepting
        if accepting is None:
            accepting = self._cache.accepts(self._configuration, self._starts, self._spelled())
        return accepting

    def finished(self) -> bool:
        """Whether the text may end here and nothing else may follow."""
        if not self.accepting():
            return False
        only_end = self._configuration.only_end
        if only_end is None:
            only_end = self._make_mask()[1]
        return only_end

    def forced_bytes(self) -> bytes:
        """What must come next, as far as there is no choice; b"" if there is one, or if the text may end here."""
        return self.forced().text

    def forced(self) -> Forced:
        """What must come next, and what may come behind it."""
        forced = self._configuration.forced
        if forced is None:
            forced = self._cache.forced(self._configuration, self._starts, self._spelled())
        return forced

    def settle(self) -> None:
        """Remember, for all outputs that come here, that nothing is left but to choose a token.

        To be told by who has looked whether the text is finished and what is forced, and made nothing of it. What
        depends on the text before is not remembered.
        """
        configuration = self._configuration
        if configuration.forced is not None and (configuration.accepting is False or configuration.only_end is False):
            configuration.is_settled = True

    def _spelled(self) -> bytearray:
        """The output as text."""
        for _, _, token in self._history[self._num_spelled :]:
            self._text += self.vocabulary.tokens[token]
        self._num_spelled = len(self._history)
        return self._text

    def _make_mask(self) -> tuple[Mask, bool]:
        if self._mask is None:
            mask = self._cache.mask(self._configuration, self._starts, self._spelled())
            if self._configuration.mask is not None:
                return mask
            self._mask = mask
        return self._mask

    def _advance_slowly(self, token: int) -> bool:
        if not 0 <= token < len(self.vocabulary.tokens):
            return False
        if token in self.vocabulary.eos_token_ids:
            if not self.accepting():
                return False
            following, starts, lasting = self._cache.ended, None, False
        else:
            if not self.vocabulary.tokens[token]:
                return False
            reached = self._cache.run(self._configuration, self._starts, self._spelled(), token)
            if reached is None:
                return False
            following, starts, lasting = reached
        if lasting:
            self._configuration.following[token] = following
        self._history.append((self._configuration, self._starts, token))
        self._configuration, self._starts, self._mask = following, starts, None
        return True
