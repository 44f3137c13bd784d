"""Follows bytes through an automaton one at a time, and asks the grammar's owners for what is not expanded yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ..errors import GrammarError
from .cells import COMPLETE, DEAD
from .configuration import Frame, Starts
from .pushdown import MAX_CALLS_PER_BYTE, Pushdown
from .remembered_texts import RememberedTexts


class Stacks(Protocol):
    """Who interns stacks."""

    @property
    def pushdown(self) -> Pushdown: ...

    def pushed(self, parent: Frame, ret: int, texts: RememberedTexts | None = None) -> Frame:
        """The stack with one more return state."""
        ...

    def scope_of(self, remembering: Frame) -> Frame:
        """Where the text of a call is remembered."""
        ...


class Run:
    """From a configuration on. After a step that fails it is of no more use.

    Attributes:
        row, frame, starts: where it is.
        text, data: the output before the run, and the bytes of the run.
        floor: the height that the stack did not fall below.
        depends_on_text: whether the way depended on the text before the run.
    """

    __slots__ = ("_added", "_keeps", "_stacks", "data", "depends_on_text", "floor", "frame", "row", "starts", "text")

    def __init__(
        self, stacks: Stacks, row: int, frame: Frame, starts: Starts, text: bytearray, *, keeps: bool = False
    ) -> None:
        """`keeps`: texts that are to be remembered go into the stack; else they are remembered for the run only."""
        self._stacks, self._keeps = stacks, keeps
        self.row, self.frame, self.starts, self.text = row, frame, starts, text
        self.data = bytearray()
        self.floor = frame.depth
        self.depends_on_text = False
        self._added: set[tuple[int, bytes]] = set()

    def copy(self) -> Run:
        """Another run from here, which keeps nothing."""
        other = Run(self._stacks, self.row, self.frame, self.starts, self.text)
        other.data[:] = self.data
        other.floor, other.depends_on_text = self.floor, self.depends_on_text
        other._added |= self._added
        return other

    def step(self, byte: int) -> bool:
        """Takes a byte; False if it cannot come."""
        pushdown = self._stacks.pushdown
        row, calls = self.row, 0
        while row != COMPLETE:
            cell = pushdown.cell(row, byte)
            if cell != DEAD:
                self.data.append(byte)
                self.row = row = self._settle(cell) if cell < DEAD else cell
                return row == COMPLETE or (row != DEAD and self._is_allowed(row))
            calls = self._count(calls)
            result = pushdown.final(row)
            row = self._settle(-2 - 2 * result) if result >= 0 else DEAD
            if row == DEAD:
                break
        return False

    def end_by_end(self) -> Iterator[int]:
        """Ends callee after callee without a byte, as far as that goes, and gives each row on the way."""
        calls = 0
        while True:
            yield self.row
            if self.row == COMPLETE:
                return
            calls = self._count(calls)
            result = self._stacks.pushdown.final(self.row)
            row = self._settle(-2 - 2 * result) if result >= 0 else DEAD
            if row == DEAD:
                return
            self.row = row

    def end(self) -> bool:
        """Ends the text; False if it cannot end here."""
        for _ in self.end_by_end():
            pass
        return self.row == COMPLETE

    def _settle(self, cell: int) -> int:
        """Makes the calls and ends of a cell that is no row, up to the next row (or DEAD, or COMPLETE)."""
        pushdown, frame = self._stacks.pushdown, self.frame
        while cell < DEAD:
            if cell & 1:
                capacity = pushdown.capacity(cell)
                returns, cell = pushdown.pushed(cell)
                if capacity and not self._has_room(frame, capacity):
                    return DEAD
                for ret in returns:
                    frame = self._stacks.pushed(frame, ret)
                    if frame.remembering is frame:
                        self.starts = (len(self.text) + len(self.data), self.starts)
                break
            ended = frame
            if ended.parent is None:
                cell = COMPLETE
                break
            frame = ended.parent
            self.floor = min(self.floor, frame.depth)
            repeated = False
            if ended.remembering is ended:
                repeated, frame = self._remember(ended)
            elif ended.scope is ended and self._added:
                self._added = {entry for entry in self._added if entry[0] != ended.depth}
            cell = pushdown.resume(ended.ret, (-2 - cell) >> 1, repeated=repeated)
        self.frame = frame
        return cell

    def _has_room(self, frame: Frame, capacity: int) -> bool:
        """Whether fewer than `capacity` of the remembered texts could begin like that of the innermost call."""
        remembering = frame.remembering
        if remembering is None:
            return True
        scope = self._stacks.scope_of(remembering)
        if scope.texts is None and not self._added:
            return True
        assert self.starts is not None
        start, known = self.starts[0], len(self.text)
        if start < known:
            self.depends_on_text = True
        text = bytes(self.text[start:]) + bytes(self.data[max(0, start - known) :])
        owner, key = self._stacks.pushdown.owner_of_return(remembering.ret)
        beginning = owner.canonical_beginning(key, text)
        num_like_this = scope.texts.count(beginning, capacity) if scope.texts is not None else 0
        num_like_this += sum(depth == scope.depth and other.startswith(beginning) for depth, other in self._added)
        return num_like_this < capacity

    def _remember(self, ended: Frame) -> tuple[bool, Frame]:
        """Whether the text of a call came before, and the stack below the call, with the text in it."""
        assert self.starts is not None
        assert ended.parent is not None
        start, self.starts = self.starts
        known = len(self.text)
        if start < known:
            self.depends_on_text = True
            text = bytes(self.text[start:]) + bytes(self.data)
        else:
            text = bytes(self.data[start - known :])
        owner, key = self._stacks.pushdown.owner_of_return(ended.ret)
        text = owner.canonical(key, text)
        scope = self._stacks.scope_of(ended)
        if (scope.texts is not None and text in scope.texts) or (scope.depth, text) in self._added:
            return True, ended.parent
        if not self._keeps:
            self._added.add((scope.depth, text))
            return False, ended.parent
        between = []
        frame = ended.parent
        while frame is not scope:
            between.append(frame)
            assert frame.parent is not None
            frame = frame.parent
        assert scope.parent is not None
        rebuilt = self._stacks.pushed(scope.parent, scope.ret, RememberedTexts.adding(scope.texts, text))
        for frame in reversed(between):
            rebuilt = self._stacks.pushed(rebuilt, frame.ret, frame.texts)
        return False, rebuilt

    def _is_allowed(self, row: int) -> bool:
        frame = self.frame
        return frame.parent is None or self._stacks.pushdown.is_allowed(frame.ret, row)

    def _count(self, calls: int) -> int:
        # A stack that is left level by level is no sign of an endless grammar, however high it is.
        if calls > MAX_CALLS_PER_BYTE + self.floor + len(self.data):
            raise GrammarError("too_complex", "the grammar calls itself without end at one place of the text")
        return calls + 1
