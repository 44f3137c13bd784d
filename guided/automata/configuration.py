"""Where a text has led in an automaton: a row and the stack above it, interned so that each remembers what it knows."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .cells import REMEMBERS, SCOPE
from .remembered_texts import RememberedTexts

Mask = NDArray[np.uint32]
Starts: TypeAlias = "tuple[int, Starts] | None"
"""Where in the output the texts of the open calls begin that are to be remembered, the innermost first."""


class Frame:
    """A stack: the return state on top and the stack below it. Interned: equal stacks are the same object.

    `texts`: what a scope remembers; `remembering`, `scope`: the nearest frame of that kind, this one included.
    """

    __slots__ = ("above", "configurations", "depth", "parent", "remembering", "ret", "scope", "texts")

    def __init__(self, parent: Frame | None, ret: int, kind: int, texts: RememberedTexts | None) -> None:
        self.parent, self.ret, self.texts = parent, ret, texts
        self.depth: int = 0 if parent is None else parent.depth + 1
        inherited = (None, None) if parent is None else (parent.remembering, parent.scope)
        self.remembering: Frame | None = self if kind & REMEMBERS else inherited[0]
        self.scope: Frame | None = self if kind & SCOPE else inherited[1]
        self.above: dict[Any, Frame] = {}
        self.configurations: dict[int, Configuration] = {}


class Forced(NamedTuple):
    """What must come next.

    `text`: the bytes, b"" if there is a choice at once. `then`: those that may come behind them, in order, and perhaps
    some that turn out not to.
    """

    text: bytes
    then: bytes


class Configuration:
    """A row and a stack.

    `mask`, `accepting`, `forced` are None until they are known, and while they depend on the text before.
    `only_end`: whether the mask allows end tokens alone. `following`: token to configuration. `loops`: once it
    is known, 1 for each token that leads back here. `is_settled`: see `GrammarMatcher.settle`.
    """

    __slots__ = ("accepting", "following", "forced", "frame", "is_settled", "loops", "mask", "only_end", "row")

    def __init__(self, row: int, frame: Frame) -> None:
        self.row, self.frame = row, frame
        self.mask: Mask | None = None
        self.only_end: bool | None = None
        self.accepting: bool | None = None
        self.forced: Forced | None = None
        self.loops: bytes | None = None
        self.is_settled = False
        self.following: dict[int, Configuration] = {}
