"""Makes the mask of a configuration: walks the vocabulary's trie, and helps the walk where it needs Python."""

from __future__ import annotations

from itertools import compress

import numpy as np

from ..automata.automaton_run import Run
from ..automata.cells import COUNTED, UNEXPANDED
from ..automata.column import address_of
from ..automata.configuration import Frame, Mask
from ..automata.pushdown import Pushdown
from ..errors import GrammarError
from . import mask_walk as mw
from . import row_models, trie_nodes
from .slices import NO_SLICE, ROOT
from .token_trie import Vocabulary

DEPENDS_ON_TOP, DEPENDS_ON_STACK, DEPENDS_ON_TEXT = range(3)
"""What else the mask of a row depends on: the return states that the walk looked at; the whole stack; the output."""


def base_level(frame: Frame, remembering: Frame | None) -> int:
    """A level of a stack as a walk sees it: the return state and flags."""
    return frame.ret * 4 + mw.INNERMOST * (frame is remembering) + mw.SEEN * (frame.texts is not None)


class MaskBuilder:
    """Builds masks for one grammar and vocabulary."""

    def __init__(self, pushdown: Pushdown, vocabulary: Vocabulary) -> None:
        self._pushdown, self._vocabulary = pushdown, vocabulary
        self._row_model = np.empty(256, np.int32)
        self._row_model.fill(row_models.UNKNOWN_MODEL)
        self._models = np.zeros((16, row_models.MODEL_SIZE), np.uint8)
        self._num_models = 0
        self._loop_of_model: list[int] = []
        self._slice_of_loop: dict[int, int] = {}
        self._generation = vocabulary.slices.generation
        self._memory = vocabulary.walk_memory
        self._number = self._memory.new_user()
        self._control = self._memory.control

    def mask(self, run: Run, row: int, accepting: bool, new: bool) -> tuple[Mask, bool, int, int]:
        """The mask where a run is.

        Args:
            run: the place, no bytes taken.
            row: its row, as `narrowed` gives it.
            accepting: whether the text may end here.
            new: whether the text of the innermost call that is to be remembered is certainly new.

        Returns:
            The mask; whether it allows the end alone; how many levels of the stack were looked at; and what it
            depends on beyond them.
        """
        pushdown = self._pushdown
        if pushdown.tables.row_line.values[row] == UNEXPANDED:
            pushdown.expand(row)
        inner, least, most = row, 0, -1
        if pushdown.tables.row_line.values[row] == COUNTED:
            inner, least, most, _ = pushdown.counts.of(row)
        control, slices = self._control, self._vocabulary.slices
        if slices.full:
            slices.forget()
        mask = np.zeros(self._vocabulary.num_words, np.uint32)
        control[mw.NODE], control[mw.END], control[mw.TRIE_SIZE] = 0, slices.trie_size, slices.trie_size
        control[mw.LOOKED], control[mw.FOUND], control[mw.SEGMENTS] = 0, 0, 0
        if self._memory.user != self._number:
            self._note_addresses()
        model = self._model_of(inner)
        number = NO_SLICE if model == row_models.NO_MODEL else int(self._models[model, 256])
        piece = trie_nodes.NO_PIECE if number == NO_SLICE else slices.piece(number, ROOT)
        if piece != trie_nodes.NO_PIECE and (most < 0 or not self._models[model, :256].any()):
            if most < 0:
                ready = slices.masks[piece]
            else:
                needed = int(pushdown.tables.row_need.values[self._loop_of_model[model]]) >> 1
                ready = slices.limited_mask(number, max(0, most - needed))
            control[mw.FOUND], control[mw.NODE] = most < 0 or ready.any(), slices.trie_size
            control[mw.SEGMENTS] = mw.add_piece(
                *(self._models.reshape(-1), model, slices.nodes, 0, slices.trie_size, mask),
                *(ready, slices.rests[piece], self._memory.waiting, 0),
                *(slices.big_nodes, slices.piece_of[number], slices.masks),
            )
        control[mw.BASE_DEPTH], control[mw.BASE_KNOWN] = run.frame.depth, 0
        self._memory.levels[0] = inner, -1, 0, 0, 0, least, most
        self._memory.fresh.fill(new)
        depends_on = self._walk(run, mask, new)
        if len(self._vocabulary.twins):
            trie_nodes.add_twins(mask, self._vocabulary.twins)
        only_end = accepting and not control[mw.FOUND]
        if accepting:
            mask |= self._vocabulary.eos_mask
        return mask, only_end, int(control[mw.LOOKED]), depends_on

    def _walk(self, run: Run, mask: Mask, new: bool) -> int:
        control, pushdown, slices = self._control, self._pushdown, self._vocabulary.slices
        depends_on = DEPENDS_ON_TOP
        examined: set[int] = set()
        deepest: Frame | None = None
        while True:
            needs = mw.walk(
                pushdown.tables.addresses,
                control,
                slices.nodes,
                mask,
                slices.big_nodes,
                slices.piece_of,
                slices.rests,
                slices.masks,
            )
            if needs == mw.DONE:
                break
            pushdown.budget.spend()
            if needs == mw.NEEDS_ROW:
                pushdown.expand(int(control[mw.SUBJECT]))
            elif needs == mw.NEEDS_RESUME:
                pushdown.resume(int(control[mw.SUBJECT]), int(control[mw.CASE]))
            elif needs == mw.NEEDS_BASE:
                deepest = self._show_base(run.frame, deepest)
            elif needs == mw.NEEDS_CELLS:
                self._memory.grow_cells()
            elif needs == mw.NEEDS_TEXT:
                depends_on = max(depends_on, self._judge_text(run, mask, examined))
            elif needs == mw.NEEDS_MODEL:
                self._model_of(int(control[mw.SUBJECT]))
            elif needs == mw.NEEDS_PIECE:
                slices.piece(int(control[mw.SUBJECT]), int(control[mw.CASE]))
            else:
                raise GrammarError("too_complex", "the grammar calls itself without end at one place of the text")
        remembering = run.frame.remembering
        if remembering is not None and not new and run.frame.depth - remembering.depth < control[mw.LOOKED]:
            return DEPENDS_ON_TEXT
        return depends_on

    def _judge_text(self, run: Run, mask: Mask, examined: set[int]) -> int:
        """At a node where the text of a call ends, which may have come before. Returns what that depends on."""
        node = int(self._control[mw.NODE])
        packed = int(self._vocabulary.slices.nodes[node])
        depth = packed >> trie_nodes.DEPTH_SHIFT & trie_nodes.DEPTH_MASK
        path = bytes(self._memory.levels[1:depth, mw.BYTE].astype(np.uint8)) + bytes((packed & 0xFF,))
        if depth > 1 and run.starts is not None and path[0] not in examined and not self._memory.fresh[path[0]]:
            # Often the first byte (which the text holds, as it ends behind it) says that the text is none of those
            # before: then the walk goes on by itself.
            examined.add(path[0])
            if self._is_new(run, path[:1]):
                self._memory.fresh[path[0]] = 1
                return DEPENDS_ON_TEXT
        trial = run.copy()
        depends_on = DEPENDS_ON_STACK
        if all(trial.step(byte) for byte in path):
            token = packed >> trie_nodes.TOKEN_SHIFT
            if token != trie_nodes.NO_TOKEN:
                mask[token >> 5] |= np.uint32(1 << (token & 31))
                self._control[mw.FOUND] = 1
            self._set_level(run, trial, depth, path[-1])
            self._control[mw.NODE] = node + 1
        else:
            self._control[mw.NODE] = packed >> trie_nodes.SKIP_SHIFT & trie_nodes.SKIP_MASK
        return DEPENDS_ON_TEXT if trial.depends_on_text else depends_on

    def _is_new(self, run: Run, beginning: bytes) -> bool:
        remembering = run.frame.remembering
        assert remembering is not None
        assert remembering.parent is not None
        assert run.starts is not None
        scope = remembering.parent.scope
        if scope is None or scope.texts is None:
            return True
        owner, key = self._pushdown.owner_of_return(remembering.ret)
        text = bytes(run.text[run.starts[0] :]) + beginning
        return not scope.texts.any_begins_with(owner.canonical_prefix(key, text))

    def _set_level(self, run: Run, reached: Run, depth: int, byte: int) -> None:
        """Lets the walk go on at `depth` from where a run has come."""
        returns = []
        frame = reached.frame
        while frame.depth > reached.floor:
            returns.append(frame.ret)
            assert frame.parent is not None
            frame = frame.parent
        top = int(self._memory.levels[depth - 1, mw.TOP])
        while top + len(returns) > len(self._memory.cells):
            self._memory.grow_cells()
        stack = -1 - (run.frame.depth - reached.floor)
        for ret in reversed(returns):
            self._memory.cells[top] = stack, ret
            stack = top
            top += 1
        self._memory.levels[depth] = reached.row, stack, top, 1, byte, 0, -1

    def _show_base(self, top: Frame, deepest: Frame | None) -> Frame | None:
        """Lets the walk see deeper into the stack: twice as deep as before. Returns the frame below the last shown."""
        known = int(self._control[mw.BASE_KNOWN])
        frame = top if known == 0 else deepest
        until = min(max(4, 2 * known), top.depth)
        self._memory.grow_base(until)
        for level in range(known, until):
            assert frame is not None
            self._memory.base[level] = base_level(frame, top.remembering)
            frame = frame.parent
        self._control[mw.BASE_KNOWN] = until
        return frame

    def _model_of(self, row: int) -> int:
        """The model of a row (what it has in common with one in which text loops), or NO_MODEL."""
        slices = self._vocabulary.slices
        if self._generation != slices.generation:
            self._generation = slices.generation
            self._row_model.fill(row_models.UNKNOWN_MODEL)
            self._num_models = 0
            self._loop_of_model.clear()
            self._slice_of_loop.clear()
        if row >= len(self._row_model):
            more = np.full(max(row + 1, len(self._row_model)), row_models.UNKNOWN_MODEL, np.int32)
            self._row_model = np.concatenate((self._row_model, more))
            self._note_addresses()
        model = int(self._row_model[row])
        if model == row_models.UNKNOWN_MODEL:
            model = self._row_model[row] = self._find_model(row)
        return model

    def _find_model(self, row: int) -> int:
        pushdown = self._pushdown
        if pushdown.tables.row_line.values[row] == UNEXPANDED:
            pushdown.expand(row)
        if self._num_models == len(self._models):
            self._models = np.concatenate((self._models, np.zeros_like(self._models)))
            self._note_addresses()
        differs = self._models[self._num_models]
        while (found := row_models.find_model(pushdown.tables.addresses, row, differs)) <= row_models.NEEDS_EXPANSION:
            pushdown.expand(row_models.NEEDS_EXPANSION - found)
        if found == row_models.NO_MODEL:
            return row_models.NO_MODEL
        number = self._slice_of_loop.get(found)
        if number is None:
            number = self._find_slice(int(found))
        if number == NO_SLICE:
            return row_models.NO_MODEL
        differs[256] = number
        self._loop_of_model.append(int(found))
        self._num_models += 1
        return self._num_models - 1

    def _find_slice(self, loop: int) -> int:
        """The slice of a row in which text loops, or NO_SLICE."""
        pushdown = self._pushdown
        while (
            kind := row_models.find_loop(pushdown.tables.addresses, loop, self._memory.loops)
        ) <= row_models.NEEDS_EXPANSION:
            pushdown.expand(row_models.NEEDS_EXPANSION - kind)
        if kind == row_models.NOT_A_LOOP:
            self._slice_of_loop[loop] = NO_SLICE
            return NO_SLICE
        loops = bytes(compress(range(128), self._memory.loops.tobytes()))
        number = self._vocabulary.slices.number_of(loops, kind == row_models.LOOPS_BEYOND_ASCII)
        if number != NO_SLICE:
            self._slice_of_loop[loop] = number
        return number

    def _note_addresses(self) -> None:
        """Tells the walk where the models are."""
        self._memory.user = self._number
        self._control[mw.ROW_MODEL] = address_of(self._row_model)
        self._control[mw.MODELS] = address_of(self._models)
        self._control[mw.NUM_ROWS] = len(self._row_model)
