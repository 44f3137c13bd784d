"""The grammars of running requests as automata on a GPU, for those that have finitely many states, and not too many.

A table is made in pieces, while the device computes, and put into a buffer of fixed size and address, from which
recorded steps read; who was not used for longest makes room. Until then, and where a grammar has no table or finds no
room, its requests' tokens are drawn by the host.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...guided.errors import BudgetExceededError
from ...kernels.triton.request_state import RequestState
from ..constraints.guided_decoding import Guide
from ..scheduling.request import Request

if TYPE_CHECKING:
    from ...guided.automata.finite_table import FiniteTable, FiniteTableBuilder
    from ...guided.grammar import CompiledGrammar

MAX_STATES = 32_768
"""Of all grammars that the device holds at a time; a KiB each."""
MAX_GRAMMAR_STATES = 8_192
"""Of one grammar."""
WORK_SECONDS = 0.001
"""A step for making tables."""
TURNS_WITHOUT_ROOM = 1_000
"""Steps until a table that found no room is made once more: it is not kept."""


@dataclass(slots=True)
class _Entry:
    """What is known of a grammar."""

    builder: FiniteTableBuilder | None = None
    """While the table is made."""
    table: FiniteTable | None = None
    """While it is on the device."""
    first_state: int = -1
    """Where it lies there."""
    next_build: int = 0
    """The turn from which on the table may be made, if it is missed."""
    last_turn: int = -1
    """When it was used."""


@dataclass(slots=True)
class _Walk:
    """How far an output was followed through a table."""

    table: FiniteTable
    state: int = 0
    num_tokens: int = 0


@dataclass(slots=True)
class DeviceAutomata:
    """The tables of one `RequestState`."""

    device: RequestState
    _entries: weakref.WeakKeyDictionary[CompiledGrammar, _Entry] = field(default_factory=weakref.WeakKeyDictionary)
    _walks: dict[Request, _Walk] = field(default_factory=dict)
    _has_tokens: bool | None = None
    """Whether the device has the vocabulary; None before that was tried."""
    _turn: int = 0

    def begin_turn(self) -> None:
        """A step is to be begun. What the one before it used is not thrown out for it."""
        self._turn += 1

    def has(self, guide: Guide) -> bool:
        """Whether the device can follow the outputs of a request's grammar."""
        entry = self._entry(guide)
        if entry is None or entry.table is None:
            return False
        entry.last_turn = self._turn
        return True

    def state_of(self, request: Request, guide: Guide, token_ids: Sequence[int]) -> int | None:
        """The state on the device behind the request's output and the tokens that come to it; None where there is none.

        To be asked after `has`, which said so.
        """
        entry, tokens = self._entry(guide), guide.tokens
        assert entry is not None
        assert entry.table is not None
        assert tokens is not None
        walk = self._walks.get(request)
        if walk is None or walk.table is not entry.table:
            walk = self._walks[request] = _Walk(entry.table)
        for token_id in [*request.token_ids[request.num_prompt_tokens :], *token_ids][walk.num_tokens :]:
            walk.state = entry.table.walk(walk.state, tokens[token_id]) if walk.state >= 0 else walk.state
            walk.num_tokens += 1
        return None if walk.state < 0 else entry.first_state + walk.state

    def forget(self, request: Request) -> None:
        self._walks.pop(request, None)

    def work(self, guide: Guide) -> bool:
        """Go on with the table of a grammar for a little time; False where there is nothing to do."""
        entry = self._entry(guide)
        if entry is None or entry.table is not None or self._turn < entry.next_build:
            return False
        if entry.builder is None:
            from ...guided.automata.finite_table import FiniteTableBuilder

            entry.builder = FiniteTableBuilder(guide.grammar.pushdown, MAX_GRAMMAR_STATES)
        with contextlib.suppress(BudgetExceededError), guide.grammar.pushdown.budget.limited(WORK_SECONDS):
            table = entry.builder.build()
            entry.builder = None
            if table is None:
                entry.next_build = sys.maxsize
            else:
                self._place(entry, table)
        return True

    def _entry(self, guide: Guide) -> _Entry | None:
        """What is known of a guide's grammar; None where the vocabulary is not there, or too large."""
        if guide.tokens is None or self._has_tokens is False:
            return None
        if self._has_tokens is None:
            self._has_tokens = self._send_tokens(guide.tokens)
        return self._entries.setdefault(guide.grammar, _Entry())

    def _send_tokens(self, tokens: Sequence[bytes]) -> bool:
        flat = np.frombuffer(b"".join(tokens), np.uint8)
        room, starts = self.device.tokens.flat, self.device.tokens.start
        if len(flat) > len(room):
            return False
        _send(room[: len(flat)], flat)
        _send(starts, np.cumsum([0, *map(len, tokens)]).astype(np.int32))
        return True

    def _place(self, entry: _Entry, table: FiniteTable) -> None:
        """Put a table onto the device, if there is room or can be made some."""
        count = len(table.cells)
        placed = sorted((other for other in self._entries.values() if other.table), key=lambda other: other.last_turn)
        needed = [other for other in placed if other.last_turn >= self._turn - 1]
        if _first_gap(needed, count) is None:
            entry.next_build = self._turn + TURNS_WITHOUT_ROOM
            return
        while (first := _first_gap(placed, count)) is None:
            placed.pop(0).table = None
        cells = np.where(table.cells >= 0, table.cells + np.int32(first), table.cells)
        _send(self.device.automata.cells[first : first + count], cells)
        _send(self.device.automata.accepting[first : first + count], table.accepting)
        entry.table, entry.first_state, entry.last_turn = table, first, self._turn


def _first_gap(placed: list[_Entry], count: int) -> int | None:
    """Where `count` states find room between tables."""
    end = 0
    for entry in sorted(placed, key=lambda entry: entry.first_state):
        assert entry.table is not None
        if entry.first_state - end >= count:
            return end
        end = entry.first_state + len(entry.table.cells)
    return end if MAX_STATES - end >= count else None


def _send(target: torch.Tensor, array: np.ndarray) -> None:
    """Fill a part of a buffer on the device, behind what was launched before."""
    source = torch.from_numpy(array.copy())
    if target.is_cuda:
        source = source.pin_memory()
    target.copy_(source, non_blocking=True)
