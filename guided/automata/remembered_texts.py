"""The texts that a scope of an output remembers, so that none of them comes twice: immutable, and cheap to add to."""

from __future__ import annotations

from bisect import bisect_left, insort


class RememberedTexts:
    """A set of texts in the order in which they came.

    Sets that grow out of each other share one index, in which a set is what came before a certain place; only two
    different additions to the same set cost a copy.
    """

    __slots__ = ("_index", "_size")

    def __init__(self, index: _Index, size: int) -> None:
        self._index, self._size = index, size

    @staticmethod
    def adding(texts: RememberedTexts | None, text: bytes) -> RememberedTexts:
        """`texts` (None: the empty set) and a text that is not among them."""
        if texts is None:
            index, size = _Index([]), 0
        else:
            index, size = texts._index, texts._size
        if len(index.order) > size and index.order[size] != text:
            index = _Index(index.order[:size])
        if len(index.order) == size:
            index.add(text)
        return RememberedTexts(index, size + 1)

    @property
    def identity(self) -> tuple[int, int]:
        """The same for the same set, as long as it lives."""
        return id(self._index), self._size

    def __contains__(self, text: bytes) -> bool:
        return self._index.places.get(text, self._size) < self._size

    def any_begins_with(self, prefix: bytes) -> bool:
        """Whether one of the texts begins with `prefix`."""
        return self.count(prefix, 1) > 0

    def count(self, prefix: bytes, enough: int) -> int:
        """How many of the texts begin with `prefix`; `enough` if there are more."""
        ordered, found = self._index.ordered, 0
        for place in range(bisect_left(ordered, prefix), len(ordered)):
            if found >= enough or not ordered[place].startswith(prefix):
                break
            found += ordered[place] in self
        return found


class _Index:
    """Texts by their place in the order, and in alphabetical order."""

    __slots__ = ("order", "ordered", "places")

    def __init__(self, order: list[bytes]) -> None:
        self.order, self.ordered = order, sorted(order)
        self.places = {text: place for place, text in enumerate(order)}

    def add(self, text: bytes) -> None:
        self.places[text] = len(self.order)
        self.order.append(text)
        insort(self.ordered, text)
