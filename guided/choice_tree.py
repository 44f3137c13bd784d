"""Byte strings as a tree of their beginnings."""

from __future__ import annotations

from collections.abc import Iterable

from .budget import Budget


class ChoiceTree:
    """The nodes of a tree: for each beginning of the strings what may follow.

    `grow` makes it, and goes on where it was when the budget stopped it.

    Attributes:
        texts: the sorted strings, each with its result.
        arcs: for each node, the first of which is the root: byte, target, byte, target ... A target >= 0 is a node;
            -1 - n is the end of string n.
        lows, highs: for each node the range of strings that lie behind it.
        row, num_placed: for whoever makes rows of the nodes: the first row (-1: none yet), and how many are done.
    """

    def __init__(self, texts: Iterable[tuple[bytes, int]]) -> None:
        """`texts`: strings, none of which is the beginning of another, and results, which do not matter here."""
        self.texts = sorted(texts)
        self.arcs: list[list[int]] = [[]]
        self.lows, self.highs = [0], [len(self.texts)]
        # The node of each beginning of the string before.
        self._path = [0]
        self._num_grown = 0
        self.row, self.num_placed = -1, 0

    def grow(self, budget: Budget) -> None:
        """Takes in the strings that are not in yet."""
        texts, path = self.texts, self._path
        for index in range(self._num_grown, len(texts)):
            text, previous = texts[index][0], texts[index - 1][0] if index else b""
            budget.spend(2 + len(text) // 2)
            shared = _common_prefix(previous, text)
            if shared == len(text) or (index and shared == len(previous)):
                raise ValueError("a choice is empty, or the beginning of another")
            del path[shared + 1 :]
            for byte in text[shared:-1]:
                node = len(self.arcs)
                self.arcs[path[-1]] += (byte, node)
                self.arcs.append([])
                self.lows.append(index)
                self.highs.append(index + 1)
                path.append(node)
            for node in path:
                self.highs[node] = index + 1
            self.arcs[path[-1]] += (text[-1], -1 - index)
            self._num_grown = index + 1
        self.highs[0] = len(texts)


def _common_prefix(one: bytes, other: bytes) -> int:
    length = min(len(one), len(other))
    for place in range(length):
        if one[place] != other[place]:
            return place
    return length
