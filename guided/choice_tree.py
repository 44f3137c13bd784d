"""Byte strings as a tree of their beginnings."""

from __future__ import annotations

from collections.abc import Sequence

from .budget import Budget


class ChoiceTree:
    """The nodes of a tree: for each beginning of the strings what may follow.

    Attributes:
        arcs: for each node, the first of which is the root: byte, target, byte, target ... A target >= 0 is a node;
            -1 - n is the end of string n.
        lows, highs: for each node the range of strings that lie behind it.
    """

    def __init__(self, texts: Sequence[tuple[bytes, int]], budget: Budget) -> None:
        """`texts`: sorted strings, none of which is the beginning of another; their results do not matter here."""
        self.arcs: list[list[int]] = [[]]
        self.lows, self.highs = [0], [len(texts)]
        # `path`: the node of each beginning of the string before.
        path = [0]
        previous = b""
        for index, (text, _) in enumerate(texts):
            budget.spend(1 + len(text) // 2)
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
            previous = text
        self.highs[0] = len(texts)


def _common_prefix(one: bytes, other: bytes) -> int:
    length = min(len(one), len(other))
    for place in range(length):
        if one[place] != other[place]:
            return place
    return length
