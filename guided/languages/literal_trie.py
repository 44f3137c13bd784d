"""A finite set of texts as a leaf automaton: a trie that is never built.

The texts are sorted, and a state is a slice of them that has a beginning in common; expanding a state looks for the
borders between next characters by bisection. 20,000 texts cost one sort.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from .char_set import CharSet

State = tuple[int, int, int]
"""(first, end, depth): texts[first:end] agree in their first `depth` characters, which were read."""


class LiteralTrie:
    """Accepts the texts given, and for each text a set of bits.

    Args:
        bits_of: text -> bits (not 0); not empty.
        tells_ends_apart: whether `bits` will be asked.
    """

    __slots__ = ("_bits", "_texts", "start", "tells_ends_apart")

    def __init__(self, bits_of: dict[str, int], *, tells_ends_apart: bool = False) -> None:
        self.tells_ends_apart = tells_ends_apart
        self._texts = sorted(bits_of)
        self._bits = [bits_of[text] for text in self._texts]
        self.start: State = (0, len(self._texts), 0)

    is_empty = False

    def joined(self, other: object) -> None:
        """Finite languages are intersected before they become automata."""
        return None

    def char_sets(self) -> Iterable[CharSet]:
        """Each character of the texts alone."""
        return map(CharSet.of, sorted(set().union(*self._texts)))

    def arcs(self, state: State) -> Iterator[tuple[CharSet, State]]:
        """(character, the texts that go on with it)."""
        first, end, depth = state
        texts = self._texts
        if len(texts[first]) == depth:
            first += 1
        while first < end:
            character = texts[first][depth]
            if texts[end - 1][depth] == character:
                border = end
            else:
                border = bisect_right(texts, character, first, end, key=lambda text: text[depth])
            yield CharSet(((ord(character), ord(character)),)), (first, border, depth + 1)
            first = border

    def accepts(self, state: State) -> bool:
        """Whether what was read is one of the texts."""
        first, _, depth = state
        return len(self._texts[first]) == depth

    def bits(self, state: State) -> int:
        """The bits of the text read, 0 when it is none of them."""
        first, _, depth = state
        return self._bits[first] if len(self._texts[first]) == depth else 0

    def min_length(self, state: State) -> int:
        """Characters to the nearest text (1 stands for any number when there are many)."""
        first, end, depth = state
        if end - first > 64:
            return 0 if self.accepts(state) else 1
        return min(map(len, self._texts[first:end])) - depth

    def max_length(self, state: State) -> int:
        """Characters to the longest text."""
        first, end, depth = state
        return max(map(len, self._texts[first:end])) - depth
