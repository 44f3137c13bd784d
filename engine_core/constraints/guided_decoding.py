"""Follows the outputs of guided requests through their grammars and says which tokens may come next.

`GuidedDecoding` is the engine's: the vocabulary, the grammars, the tokenizer. It makes a `Guide` for each guided
request, which stays with it over preemptions. In each step the model runner has `GuidedStep.prepare` fill the masks of
the rows that are to be sampled, and tells each guide what was sampled.

What a request's fields mean together:
- The mask comes after penalties, biases and everything that forbids tokens; temperature, top-k, top-p and min-p act on
  what it leaves. Reported logprobs are the model's own, without it.
- A token that ends the output (EOS, a stop token without text) may come where the grammar is complete and `min_tokens`
  are out. With `ignore_eos` EOS never comes.
- Where the grammar allows nothing more, the request ends at once with "stop", whatever `min_tokens` or `ignore_eos`
  say.
- It ends too where the grammar is complete and the request's own fields forbid every token; where it is not complete,
  the request fails.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...guided.errors import BudgetExceededError, GrammarError
from ..errors import GRAMMAR_TOO_COMPLEX, NO_TOKEN_LEFT
from ..messages import EngineRequest
from .grammar_reader import GrammarReader
from .jump_ahead import CONTEXT_TOKENS, JumpAhead

if TYPE_CHECKING:
    from ...guided.automata.configuration import Forced, Mask
    from ...guided.grammar import CompiledGrammar
    from ...guided.masks.token_trie import Vocabulary
    from ...guided.matcher import GrammarMatcher
    from ..scheduling.request import Request
    from ..tokenizer import Tokenizer

logger = logging.getLogger(__name__)

MASKS_PER_TRIM = 64
"""New masks between two looks at how much memory all grammars take."""
END_SECONDS = 0.05
"""Time to find out whether an output that cannot go on is complete: asked once, and wrong where it is too short."""
LATE_BEFORE_PATIENCE = 8
"""A mask that is late for the so manieth time in a row is to have more time."""
MAX_LATE_SECONDS = 10.0
"""Time that a request may spend on masks that were not ready within their step before it fails."""


class GuidedDecoding:
    """What the guided requests of one engine share."""

    def __init__(self, tokenizer_dir: str, vocab_size: int, *, jump_ahead: bool = True) -> None:
        """vocab_size: width of the logits, which may be more than the tokenizer's ids."""
        self.num_forced_tokens = 0
        self.num_late_masks = 0
        self._tokenizer_dir = tokenizer_dir
        self._vocab_size = vocab_size
        self._jump_ahead = jump_ahead
        self._grammars = GrammarReader()
        self._num_new_masks = 0
        self._loader: threading.Thread | None = None
        self._loaded: LoadedVocabulary | Exception | None = None

    @property
    def vocabulary(self) -> LoadedVocabulary | None:
        """None while it is not loaded yet. Raises `GrammarError` when that failed."""
        if isinstance(self._loaded, Exception):
            raise GrammarError("unsupported", f"this model's tokenizer cannot be guided: {self._loaded}")
        return self._loaded

    def prepare(self, when_done: Callable[[], object] = lambda: None) -> None:
        """Begin to load the vocabulary in the background, unless that was done: it takes some tenths of a second.

        when_done: called in that thread behind it, if this call is the one that began.
        """
        if self._loader is None:
            self._loader = threading.Thread(target=self._load, args=(when_done,), name="vocabulary", daemon=True)
            self._loader.start()

    def wait_for_vocabulary(self) -> LoadedVocabulary:
        """The vocabulary, once it is loaded. Raises `GrammarError` where it cannot be."""
        self.prepare()
        assert self._loader is not None
        self._loader.join()
        vocabulary = self.vocabulary
        assert vocabulary is not None
        return vocabulary

    def guide(self, message: EngineRequest) -> Guide | None:
        """The guide of a new request; None for one without a grammar. Raises ValueError for one that is broken."""
        if message.grammar is None:
            return None
        self.prepare()
        return Guide(self, self._grammars.read(message.grammar), message, jumps=self._jump_ahead)

    def note_new_mask(self) -> None:
        """To be told of masks that were not known: these are what grammars grow by."""
        self._num_new_masks += 1
        if self._num_new_masks % MASKS_PER_TRIM == 0:
            self._grammars.trim()

    def _load(self, when_done: Callable[[], object]) -> None:
        try:
            self._loaded = load_vocabulary(self._tokenizer_dir, self._vocab_size)
        except Exception as error:
            logger.exception("The vocabulary for guided decoding cannot be made.")
            self._loaded = error
        when_done()


@dataclass(frozen=True)
class LoadedVocabulary:
    """The vocabulary as the masks need it."""

    vocabulary: Vocabulary
    jump: JumpAhead
    token_bytes: Sequence[bytes | None]
    """By id, for the whole width of the logits; None for ids that add no text."""


def load_loops() -> None:
    """Load what is compiled of guided decoding: some tenths of a second, but many seconds the first time on a machine.

    While streams run, compiling would slow them; so it is for an engine to do before them.
    """
    from ...guided.masks.token_trie import Vocabulary
    from ...guided.warm_up import load_compiled_loops

    load_compiled_loops(Vocabulary([bytes((byte,)) for byte in range(256)], ()))


def load_vocabulary(tokenizer_dir: str, vocab_size: int) -> LoadedVocabulary:
    """Read the tokenizer and build the trie of its tokens. Raises ValueError where a token alone has no fixed text."""
    # Here and not above: most engines never guide.
    from ...guided.grammar import GrammarSpec, compile_grammar
    from ...guided.masks.token_trie import Vocabulary
    from ...guided.matcher import GrammarMatcher
    from ..tokenizer import load_tokenizer

    started = time.monotonic()
    tokenizer = load_tokenizer(Path(tokenizer_dir))
    token_bytes = text_of_tokens(tokenizer, vocab_size)
    # Tokens that end the output are each request's own, so the vocabulary knows none.
    vocabulary = Vocabulary(token_bytes, ())
    # One mask of a text with everything in it, so that no request waits for the compiled loops.
    warm_up = GrammarMatcher(compile_grammar(GrammarSpec("json_object")), vocabulary)
    for text in (b"{", b'"'):
        warm_up.mask()
        if text in token_bytes:
            warm_up.advance(token_bytes.index(text))
    warm_up.mask()
    logger.info("Vocabulary of %d tokens for guided decoding: %.2f s.", vocab_size, time.monotonic() - started)
    return LoadedVocabulary(vocabulary, JumpAhead(tokenizer, token_bytes), token_bytes)


def text_of_tokens(tokenizer: Tokenizer, vocab_size: int) -> list[bytes | None]:
    """What each id adds to a text; None for special tokens, and for ids that the tokenizer does not have."""
    table = tokenizer.byte_table
    if table is None:
        raise ValueError("what its tokens add to a text depends on the tokens beside them")
    special = tokenizer.all_special_ids
    return [None if token_id in special else table[token_id] or None for token_id in range(vocab_size)]


@dataclass(frozen=True, slots=True)
class Move:
    """What a guide says of a request whose next token is to be chosen."""

    is_ready: bool = False
    """Whether the mask is filled and a token may be sampled."""
    token_ids: Sequence[int] = ()
    """Tokens that come next without being sampled."""
    is_complete: bool = False
    """Whether nothing may follow `token_ids`."""
    error: str | None = None


NOTHING = Move()
READY = Move(is_ready=True)
COMPLETE = Move(is_complete=True)


class RowMask(NamedTuple):
    """What may come next in one row of a step; the same for rows with the same parts."""

    known: Mask
    """What the grammar allows."""
    endings: frozenset[int]
    """Tokens that may end the output here."""
    eos_as_text: frozenset[int]
    """Tokens that may not be taken for the text that they have."""

    def fill(self, mask: np.ndarray) -> None:
        """Write it into uint32 words."""
        mask[:] = self.known
        for token_id in self.eos_as_text:
            mask[token_id >> 5] &= ~np.uint32(1 << (token_id & 31))
        for token_id in self.endings:
            mask[token_id >> 5] |= np.uint32(1 << (token_id & 31))


class Guide:
    """One output on its way through its grammar."""

    def __init__(
        self, shared: GuidedDecoding, grammar: CompiledGrammar, message: EngineRequest, *, jumps: bool
    ) -> None:
        params = message.params
        self._shared = shared
        self._grammar = grammar
        self._budget = grammar.pushdown.budget
        self._min_tokens = params.min_tokens
        self._eos_ids = frozenset(message.eos_token_ids)
        self._stop_ids = frozenset(params.stop_token_ids or ())
        self._end_ids = self._eos_ids | self._stop_ids
        self._ignores_eos = params.ignore_eos
        # Forced tokens are not scored, beams grow by one token at a time, and fields that forbid tokens must have
        # their say at each one.
        self._jumps = (
            jumps
            and params.logprobs is None
            and not params.use_beam_search
            and not (params.logit_bias or params.allowed_token_ids or message.bad_words_token_ids)
        )
        self._matcher: GrammarMatcher | None = None
        self._endings: frozenset[int] = frozenset()
        """Tokens that may end the output."""
        self._eos_as_text: frozenset[int] = frozenset()
        """Tokens that end the output but have text too: they are never taken for it."""
        self._is_settled = False
        """Whether the output is read to its end and found to leave a choice."""
        self._prompt_end = message.prompt_token_ids[-CONTEXT_TOKENS:]
        self._late_seconds = 0.0
        self._num_late = 0
        """How often in a row it was not ready."""

    def fork(self) -> Guide:
        """Another one that has followed the same output, for another beam."""
        other = copy.copy(self)
        other._matcher = None if self._matcher is None else self._matcher.fork()
        return other

    def appended(self, token_id: int) -> None:
        """A beam goes on with this token: read it now if that costs a look-up, else with the next mask."""
        if not self.follow_known(token_id):
            self._is_settled = False

    def known_mask(self, request: Request) -> RowMask | None:
        """What may come next, if that costs a look-up; None if it takes `before_sampling`."""
        matcher = self._matcher
        if not self._is_settled or matcher is None:
            return None
        known = matcher.known_mask()
        return None if known is None else self._row_mask(known, request, matcher)

    def follow_known(self, token_id: int) -> bool:
        """Read the token that was sampled if that costs a look-up; False if it takes `after_sampling`."""
        matcher = self._matcher
        return (
            self._is_settled
            and matcher is not None
            and token_id >= 0
            and token_id not in self._end_ids
            and matcher.advance_known(token_id, settled=self._jumps)
        )

    @property
    def grammar(self) -> CompiledGrammar:
        return self._grammar

    @property
    def is_settled(self) -> bool:
        """Whether the output is read to its end and found to leave a choice, so that a token can be drawn next."""
        return self._is_settled and self._matcher is not None

    @property
    def tokens(self) -> Sequence[bytes] | None:
        """The text that each token has for the grammar, b"" for none; None until its first mask is asked for."""
        return None if self._matcher is None else self._matcher.vocabulary.tokens

    @property
    def endings(self) -> frozenset[int]:
        """Tokens that end the output where the grammar is complete; known with `tokens`."""
        return self._endings

    @property
    def eos_as_text(self) -> frozenset[int]:
        """Tokens that have text, but are never taken for it; known with `tokens`."""
        return self._eos_as_text

    @property
    def is_stuck(self) -> bool:
        """Whether its mask was late so often that it is to have more time."""
        return self._num_late % LATE_BEFORE_PATIENCE == LATE_BEFORE_PATIENCE - 1

    def sit_out(self) -> Move:
        """There is no time left for its mask in this step."""
        self._shared.num_late_masks += 1
        return NOTHING

    def put_off(self) -> Move:
        """There is no time left to read the token that was sampled: the next step catches up."""
        self._is_settled = False
        return NOTHING

    def before_sampling(self, request: Request, mask: np.ndarray, seconds: float) -> Move:
        """Catch up with the output and fill `mask`, uint32 words; or say what happens instead of sampling."""
        started = time.perf_counter()
        self._shared.note_new_mask()
        self._budget.allow(seconds)
        try:
            move = self._before_sampling(request, mask)
            self._num_late = 0
            return move
        except BudgetExceededError:
            self._num_late += 1
            self._shared.num_late_masks += 1
            self._late_seconds += time.perf_counter() - started
            if self._late_seconds > MAX_LATE_SECONDS:
                return Move(error=f"{GRAMMAR_TOO_COMPLEX}: finding what may come next takes too long.")
            return NOTHING
        except GrammarError as error:
            return Move(error=f"{GRAMMAR_TOO_COMPLEX}: {error}")
        except Exception:
            # Whatever goes wrong with one grammar shall not end the others' step.
            logger.exception("A grammar could not be followed.")
            return Move(error="The grammar cannot be followed.")

    def after_sampling(self, token_id: int, seconds: float) -> Move:
        """Read the token that was sampled, and say what follows it without a choice."""
        if token_id in self._end_ids:
            return NOTHING  # it ends the output
        self._budget.allow(seconds)
        try:
            self._follow((token_id,))
            return self._without_choice()
        except Exception:
            return NOTHING  # the next step catches up, or says what is wrong

    def without_a_token(self) -> Move:
        """No token is left that both the grammar and the request's other fields allow."""
        self._budget.allow(END_SECONDS)
        with contextlib.suppress(BudgetExceededError, GrammarError):
            if self._matcher is not None and self._matcher.accepting():
                return COMPLETE
        return Move(error=NO_TOKEN_LEFT)

    def _before_sampling(self, request: Request, mask: np.ndarray) -> Move:
        matcher = self._matcher or self._begin()
        if matcher is None:
            return NOTHING
        if not self._is_settled:
            self._follow(request.token_ids[request.num_prompt_tokens + matcher.num_tokens :])
            move = self._without_choice()
            if move is not NOTHING:
                return move
        self._row_mask(matcher.mask(), request, matcher).fill(mask)
        return READY

    def _row_mask(self, known: Mask, request: Request, matcher: GrammarMatcher) -> RowMask:
        may_end = self._endings and request.num_output_tokens >= self._min_tokens and matcher.accepting()
        return RowMask(known, self._endings if may_end else frozenset(), self._eos_as_text)

    def _begin(self) -> GrammarMatcher | None:
        """The matcher at the beginning of the output; None while the vocabulary is being loaded."""
        loaded = self._shared.vocabulary
        if loaded is None:
            return None
        from ...guided.matcher import GrammarMatcher

        eos_ids = frozenset[int]() if self._ignores_eos else self._eos_ids
        silent_stop_ids = {token_id for token_id in self._stop_ids if not loaded.token_bytes[token_id]}
        self._endings = eos_ids | silent_stop_ids
        self._eos_as_text = frozenset(token_id for token_id in self._eos_ids if loaded.token_bytes[token_id])
        self._matcher = GrammarMatcher(self._grammar, loaded.vocabulary)
        return self._matcher

    def _follow(self, token_ids: Sequence[int]) -> None:
        """Read output tokens; what was read stays read when the time is over."""
        assert self._matcher is not None
        self._is_settled = False
        for token_id in token_ids:
            if not self._matcher.advance(token_id):
                raise GrammarError("invalid", "the output so far does not match it.")

    def _without_choice(self) -> Move:
        """What follows the output without a choice: tokens, or its end."""
        matcher = self._matcher
        assert matcher is not None
        if matcher.finished():
            return COMPLETE
        if self._jumps:
            forced = matcher.forced()
            if forced.text:
                move = self._forced_tokens(matcher, forced)
                # What is left of the text now leaves a choice of tokens.
                self._is_settled = not move.is_complete
                return move
            matcher.settle()
        self._is_settled = True
        return NOTHING

    def _forced_tokens(self, matcher: GrammarMatcher, forced: Forced) -> Move:
        """Read the tokens of what the grammar forces."""
        loaded = self._shared.vocabulary
        assert loaded is not None
        if loaded.jump.is_open(*forced):
            matcher.settle()
            return NOTHING
        num_read = 0
        context = [*self._prompt_end, *matcher.last_tokens(CONTEXT_TOKENS)]
        token_ids = loaded.jump.tokens(tuple(context[-CONTEXT_TOKENS:]), *forced)
        try:
            for token_id in token_ids:
                if token_id in self._eos_ids or not matcher.advance(token_id):
                    break
                num_read += 1
            is_complete = 0 < num_read == len(token_ids) and matcher.finished()
        except BudgetExceededError:
            matcher.rollback(num_read)
            raise
        if num_read == 0:
            return NOTHING
        token_ids = token_ids[:num_read]
        self._shared.num_forced_tokens += num_read
        return Move(token_ids=token_ids, is_complete=is_complete)
