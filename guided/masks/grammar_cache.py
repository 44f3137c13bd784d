"""What all outputs under one grammar share: the configurations seen, where each token led, and their masks.

A mask depends on the row and on the few topmost return states that the walk looked at, and is found again by these,
however deep the stack below them is. Memory is bounded: masks are dropped oldest first, configurations all at once.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from ..automata.automaton_run import Run
from ..automata.cells import COMPLETE
from ..automata.configuration import Configuration, Forced, Frame, Mask, Starts
from ..automata.pushdown import Pushdown
from ..automata.remembered_texts import RememberedTexts
from .mask_builder import DEPENDS_ON_STACK, DEPENDS_ON_TEXT, MaskBuilder, base_level
from .token_steps import find_loops, take_steps
from .token_trie import Vocabulary

MASK_BYTES = 64 << 20
"""Masks that one grammar keeps."""
MAX_CONFIGURATIONS = 100_000
"""Configurations and stacks that one grammar remembers before it forgets them all and starts anew."""
MAX_FORCED_BYTES = 4096
MANY_TOKENS = 128
"""A configuration from which so many tokens are known to go on is one of free text: many more come back to it."""
CONFIGURATION_BYTES = 700
"""Memory of a configuration or a stack, with its place in the tables, about."""
MASK_OVERHEAD = 500
"""Memory of a mask besides its bits, about."""


class GrammarCache:
    """What the matchers of one grammar and vocabulary share: configurations, masks, and memory to work in."""

    @staticmethod
    def of(pushdown: Pushdown, vocabulary: Vocabulary) -> GrammarCache:
        """The one cache of a grammar and a vocabulary."""
        cache = pushdown.caches.get(vocabulary)
        if cache is None:
            cache = pushdown.caches[vocabulary] = GrammarCache(pushdown, vocabulary)
        return cache

    def __init__(self, pushdown: Pushdown, vocabulary: Vocabulary) -> None:
        self.pushdown, self.vocabulary = pushdown, vocabulary
        self._empty = Frame(None, -1, 0, None)
        self._frames: list[Frame] = []
        self._num_configurations = self._num_loops = 0
        self.ended = self._configuration(COMPLETE, self._empty)
        self._masks: dict[Any, _CachedMask] = {}
        self._order: deque[Any] = deque()
        self._looks: dict[int, list[int]] = {}
        """By row: how many levels of the stack its masks depend on."""
        self._builder = MaskBuilder(pushdown, vocabulary)

    # Configurations.

    def beginning(self) -> tuple[Configuration, Starts]:
        """The configuration of the empty text."""
        frame, starts = self._empty, None
        for ret in self.pushdown.start_returns:
            frame = self.pushed(frame, ret)
            if frame.remembering is frame:
                starts = (0, starts)
        return self._configuration(self.pushdown.start_row, frame), starts

    def run(
        self, configuration: Configuration, starts: Starts, text: bytearray, token: int
    ) -> tuple[Configuration, Starts, bool] | None:
        """Where a token leads; None: nowhere. The last of the three: whether that is so whatever the text before."""
        if self._is_full:
            self._forget()
        run = Run(self, configuration.row, configuration.frame, starts, text, keeps=True)
        vocabulary, tables, counts = self.vocabulary, self.pushdown.tables, self.pushdown.counts
        data, address = vocabulary.tokens[token], vocabulary.address_of(token)
        place, end = 0, len(data)
        while True:
            frame = run.frame
            if run.row != COMPLETE:
                allowed = -1 if frame.parent is None else int(tables.return_allowed.values[frame.ret])
                begun = place
                place, *reached = take_steps(tables.addresses, run.row, allowed, address, place, end)
                run.row = counts.row(*reached)
                run.data += data[begun:place]
            if place == end:
                break
            if not run.step(data[place]):
                return None
            place += 1
        lasting = not run.depends_on_text and run.starts is starts
        return self._configuration(run.row, run.frame), run.starts, lasting

    def step(self, configuration: Configuration, token: int) -> Configuration | None:
        """Where a token leads whose bytes all lead from row to row; None for any other, which takes `run`."""
        length, row, frame = len(self.vocabulary.tokens[token]), configuration.row, configuration.frame
        if length == 0 or row == COMPLETE or self._is_full:
            return None
        tables = self.pushdown.tables
        allowed = -1 if frame.parent is None else int(tables.return_allowed.values[frame.ret])
        address = self.vocabulary.address_of(token)
        place, inner, least, most, furthest = take_steps(tables.addresses, row, allowed, address, 0, length)
        if place < length:
            return None
        if inner == row:
            following = configuration
            if configuration.loops is None and len(configuration.following) >= MANY_TOKENS:
                loops = np.zeros(len(self.vocabulary.tokens), np.uint8)
                find_loops(tables.addresses, row, allowed, *self.vocabulary.places, loops)
                configuration.loops = loops.tobytes()
                self._num_loops += 1
        else:
            following = self._configuration(self.pushdown.counts.row(inner, least, most, furthest), frame)
        configuration.following[token] = following
        return following

    def accepts(self, configuration: Configuration, starts: Starts, text: bytearray) -> bool:
        """Whether the text may end in a configuration."""
        row = configuration.row
        if row != COMPLETE and self.pushdown.final(row) < 0:
            configuration.accepting = False
            return False
        run = Run(self, row, configuration.frame, starts, text)
        accepts = run.end()
        if not run.depends_on_text:
            configuration.accepting = accepts
        return accepts

    def forced(self, configuration: Configuration, starts: Starts, text: bytearray) -> Forced:
        """What must come next."""
        run = Run(self, configuration.row, configuration.frame, starts, text)
        depends_on_text = False
        while True:
            byte, then, uncertain = self._only_byte(run)
            depends_on_text |= uncertain
            if byte is None or len(run.data) == MAX_FORCED_BYTES:
                break
            run.step(byte)
        forced = Forced(bytes(run.data), then)
        if not depends_on_text:
            configuration.forced = forced
        return forced

    def _only_byte(self, run: Run) -> tuple[int | None, bytes, bool]:
        """The one byte that may follow (None: the text may end, or there is a choice); all that might, in order; and
        whether this depends on the text.
        """
        at_end = run.copy()
        possible: set[int] = set()
        may_end = False
        for row in at_end.end_by_end():
            if row == COMPLETE:
                may_end = True
            else:
                possible.update(self.pushdown.live_bytes(row))
        then = bytes(sorted(possible))
        only, depends_on_text = None, at_end.depends_on_text
        if may_end:
            return None, then, depends_on_text
        for byte in then:
            trial = run.copy()
            alive = trial.step(byte)
            depends_on_text |= trial.depends_on_text
            if alive:
                if only is not None:
                    return None, then, depends_on_text
                only = byte
        return only, then, depends_on_text

    def pushed(self, parent: Frame, ret: int, texts: RememberedTexts | None = None) -> Frame:
        """The stack with one more return state."""
        key = ret if texts is None else (ret, texts.identity)
        frame = parent.above.get(key)
        if frame is None:
            kind = int(self.pushdown.tables.return_kind.values[ret])
            frame = parent.above[key] = Frame(parent, ret, kind, texts)
            self._frames.append(frame)
        return frame

    @property
    def _is_full(self) -> bool:
        return self._num_configurations + len(self._frames) > MAX_CONFIGURATIONS

    def _configuration(self, row: int, frame: Frame) -> Configuration:
        configuration = frame.configurations.get(row)
        if configuration is None:
            configuration = frame.configurations[row] = Configuration(row, frame)
            if row == COMPLETE:
                configuration.accepting, configuration.only_end = True, True
                configuration.mask, configuration.forced = self.vocabulary.eos_mask, Forced(b"", b"")
            self._num_configurations += 1
        return configuration

    def _forget(self) -> None:
        """Lets go of all configurations but those that matchers hold."""
        for frame in (self._empty, *self._frames):
            for configuration in frame.configurations.values():
                configuration.following.clear()
                configuration.loops = None
            frame.configurations.clear()
            frame.above.clear()
        for cached in self._masks.values():
            cached.users.clear()
        self._frames, self._num_configurations, self._num_loops = [], 0, 0

    # Masks.

    def mask(self, configuration: Configuration, starts: Starts, text: bytearray) -> tuple[Mask, bool]:
        """The mask of a configuration, and whether only the end may follow. Kept, unless it depends on the text."""
        if configuration.mask is not None:
            return configuration.mask, bool(configuration.only_end)
        row = self.pushdown.counts.narrowed(configuration.row, self.vocabulary.longest)
        frame = configuration.frame
        accepting = configuration.accepting
        if accepting is None:
            accepting = self.accepts(configuration, starts, text)
        always_new, new = self._is_new(frame, starts, text)
        for look in self._looks.get(row, ()):
            if new or not _looks_at_remembering(frame, look):
                cached = self._masks.get((row, accepting, _top(frame, look)))
                if cached is not None:
                    break
        else:
            run = Run(self, configuration.row, frame, starts, text)
            mask, only_end, look, depends_on = self._builder.mask(run, row, accepting, new)
            if depends_on == DEPENDS_ON_TEXT:
                return mask, only_end
            if depends_on == DEPENDS_ON_STACK:
                if not always_new and _looks_at_remembering(frame, look):
                    return mask, only_end
                configuration.mask, configuration.only_end = mask, only_end
                cached = self._keep(configuration, mask, only_end)
            else:
                if look not in self._looks.setdefault(row, []):
                    self._looks[row].append(look)
                cached = self._keep((row, accepting, _top(frame, look)), mask, only_end)
        if configuration.accepting is not None and (always_new or not _looks_at_remembering(frame, look)):
            configuration.mask, configuration.only_end = cached.mask, cached.only_end
            cached.users.append(configuration)
        return cached.mask, cached.only_end

    def _is_new(self, frame: Frame, starts: Starts, text: bytearray) -> tuple[bool, bool]:
        """Whether the text of the innermost call to be remembered is new: after any text before; after this one."""
        remembering = frame.remembering
        if remembering is None or starts is None:
            return True, True
        texts = self.scope_of(remembering).texts
        if texts is None:
            return True, True
        owner, key = self.pushdown.owner_of_return(remembering.ret)
        return False, not texts.any_begins_with(owner.canonical_prefix(key, bytes(text[starts[0] :])))

    def scope_of(self, remembering: Frame) -> Frame:
        """Where the text of a call is remembered."""
        scope = remembering.parent and remembering.parent.scope
        if scope is None:
            raise ValueError("a call is to be remembered, but no scope is open")
        return scope

    def num_bytes(self) -> int:
        """About how much memory the configurations and masks take."""
        masks = len(self._masks) * (4 * self.vocabulary.num_words + MASK_OVERHEAD)
        loops = self._num_loops * len(self.vocabulary.tokens)
        return masks + loops + (self._num_configurations + len(self._frames)) * CONFIGURATION_BYTES

    def forget(self) -> None:
        """Lets go of everything but what matchers hold; it is found again on need."""
        self._forget()
        self._masks.clear()
        self._order.clear()
        self._looks.clear()

    @property
    def mask_bytes(self) -> int:
        """Memory of the masks that are kept."""
        return sum(cached.mask.nbytes for cached in self._masks.values())

    def _keep(self, key: Any, mask: Mask, only_end: bool) -> _CachedMask:
        while self._order and (len(self._order) + 1) * mask.nbytes > MASK_BYTES:
            for user in self._masks.pop(self._order.popleft()).users:
                user.mask = None
        cached = self._masks[key] = _CachedMask(mask, only_end, [])
        self._order.append(key)
        mask.flags.writeable = False
        return cached


def _looks_at_remembering(frame: Frame, look: int) -> bool:
    """Whether the innermost call to be remembered is among the `look` topmost levels of a stack."""
    remembering = frame.remembering
    return remembering is not None and frame.depth - remembering.depth < look


def _top(frame: Frame, look: int) -> tuple[int, ...]:
    """What a walk that looks at `look` levels of a stack sees of them; -1 for below the lowest."""
    seen = []
    remembering = frame.remembering
    for _ in range(look):
        if frame.parent is None:
            seen.append(-1)
            break
        seen.append(base_level(frame, remembering))
        frame = frame.parent
    return tuple(seen)


class _CachedMask(NamedTuple):
    mask: Mask
    only_end: bool
    users: list[Configuration]
