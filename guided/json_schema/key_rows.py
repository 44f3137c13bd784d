"""The rows of the keys of an object in which additional names may come: what may be written behind the quote.

Where only declared names may come, `json_object_machine` uses choices; here any text may come, but for some. Keys end
with the `key_code` of the key, at the closing quote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .keys import key_code

if TYPE_CHECKING:
    from ..languages.language import JointAutomaton
    from .keys import KeySpace


class KeyAutomaton:
    """Deterministic automaton over the text of the keys that an object may have next, in the form of a JointAutomaton.

    One belongs to each kind of object; `start` gives the state for a set of names on offer. States without declared
    names in reach are the same ones whatever is on offer, so that what is built from them is shared.
    """

    def __init__(self, space: KeySpace) -> None:
        self._space = space
        self._numbers: dict[tuple[int, int, int, int, int, int], int] = {}
        self._states: list[tuple[int, int, int, int, int, int]] = []
        self._additional: list[tuple[JointAutomaton, tuple[int, ...]]] = []
        self._additional_numbers: dict[tuple[JointAutomaton, tuple[int, ...]], int] = {}

    def start(self, offered: int, additional: JointAutomaton | None, classes: tuple[int, ...]) -> int:
        """The state before the first character.

        Args:
            offered: bit set of the declared names that may come.
            additional: automaton of the classes of additional names that may come; None: none.
            classes: the number of the class that each of its languages belongs to.
        """
        joint, state = -1, -1
        if additional is not None and additional.start is not None:
            key = (additional, classes)
            joint = self._additional_numbers.setdefault(key, len(self._additional))
            if joint == len(self._additional):
                self._additional.append(key)
            state = additional.start
        return self._number(offered, 0, len(self._space.names), 0, joint, state)

    def arcs(self, state: int) -> tuple[tuple[int, int, int], ...]:
        """`(first, last, next state)`: sorted, disjoint ranges of code points."""
        offered, low, high, depth, joint, inner = self._states[state]
        others = self._additional[joint][0].arcs(inner) if joint >= 0 else ()
        if not offered:
            return tuple((first, last, self._number(0, 0, 0, 0, joint, after)) for first, last, after in others)
        arcs: list[tuple[int, int, int]] = []
        position = 0
        for code, child_low, child_high in self._space.children(low, high, depth):
            if not offered >> child_low & (1 << child_high - child_low) - 1:
                continue
            while position < len(others) and others[position][1] < code:
                self._add(arcs, others[position], joint)
                position += 1
            after = -1
            if position < len(others) and others[position][0] <= code:
                first, last, after = others[position]
                if first < code:
                    self._add(arcs, (first, code - 1, after), joint)
                others = (*others[:position], (code + 1, last, after), *others[position + 1 :])
            below = self._number(offered, child_low, child_high, depth + 1, joint if after >= 0 else -1, after)
            arcs.append((code, code, below))
        for arc in others[position:]:
            self._add(arcs, arc, joint)
        return tuple(arcs)

    def accepted(self, state: int) -> int:
        """`key_code` of the key that ends here; 0: none does."""
        offered, low, high, depth, joint, inner = self._states[state]
        if offered >> low & 1 and self._space.ends(low, high, depth):
            return key_code(low)
        if joint < 0:
            return 0
        additional, classes = self._additional[joint]
        bits = additional.accepted(inner)
        return key_code(-1 - classes[bits.bit_length() - 1]) if bits else 0

    def _add(self, arcs: list[tuple[int, int, int]], arc: tuple[int, int, int], joint: int) -> None:
        if arc[0] <= arc[1]:
            arcs.append((arc[0], arc[1], self._number(0, 0, 0, 0, joint, arc[2])))

    def _number(self, offered: int, low: int, high: int, depth: int, joint: int, state: int) -> int:
        offered &= (1 << high) - (1 << low)
        key = (offered, low, high, depth, joint, state) if offered else (0, 0, 0, 0, joint, state)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._states)
            self._states.append(key)
        return number


class OpenKeyAutomaton:
    """The same for a space without `general` languages: any name may come, whatever is on offer. A declared name that
    is not must be refused when it has ended: until then it may go on and become an additional one. So all places of an
    object share the states: nodes of the trie of the declared names, and ANY_NAME, behind which there are none."""

    ANY_NAME = 0

    def __init__(self, space: KeySpace) -> None:
        self.space = space
        self._states: list[tuple[int, int, int]] = [(0, 0, 0)]
        self._numbers: dict[tuple[int, int, int], int] = {}
        self.start = self._number(0, len(space.names), 0) if space.names else self.ANY_NAME

    def children(self, number: int) -> list[tuple[int, int]]:
        """(code point, next state) for the characters behind which there are declared names."""
        if number == self.ANY_NAME:
            return []
        low, high, depth = self._states[number]
        return [
            (code, self._number(child_low, child_high, depth + 1))
            for code, child_low, child_high in self.space.children(low, high, depth)
        ]

    def arcs(self, state: int) -> tuple[tuple[int, int, int], ...]:
        """`(first, last, next state)`: sorted, disjoint ranges of code points."""
        arcs: list[tuple[int, int, int]] = []
        for first, last in ((0, 0xD7FF), (0xE000, 0x10FFFF)):
            for code, target in self.children(state):
                if first <= code <= last:
                    if first < code:
                        arcs.append((first, code - 1, self.ANY_NAME))
                    arcs.append((code, code, target))
                    first = code + 1
            if first <= last:
                arcs.append((first, last, self.ANY_NAME))
        return tuple(arcs)

    def accepted(self, state: int) -> int:
        """`key_code` of the key that ends here."""
        if state == self.ANY_NAME:
            return key_code(-1)
        low, high, depth = self._states[state]
        return key_code(low if self.space.ends(low, high, depth) else -1)

    def _number(self, low: int, high: int, depth: int) -> int:
        key = (low, high, depth)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._states)
            self._states.append(key)
        return number
