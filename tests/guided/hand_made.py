"""Small grammars written by hand, and a vocabulary, for the tests of the automaton and the matcher."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zqserve.guided.automata.cells import DEAD
from zqserve.guided.automata.choice_rows import Choices, add_choices
from zqserve.guided.automata.pushdown import Pushdown
from zqserve.guided.masks.token_trie import Vocabulary
from zqserve.guided.matcher import GrammarMatcher

EOS = 0


def make_vocabulary(alphabet: bytes, texts: Iterable[bytes] = ()) -> Vocabulary:
    """End token, a special token, the bytes of the alphabet, and texts (which may repeat)."""
    return Vocabulary([None, b"", *(bytes([byte]) for byte in alphabet), *texts], [EOS])


def allowed_tokens(matcher: GrammarMatcher) -> set[int]:
    """The tokens that the mask allows."""
    bits = np.unpackbits(matcher.mask().view(np.uint8), bitorder="little")
    return set(np.flatnonzero(bits[: len(matcher.vocabulary.tokens)]).tolist())


def tokens_taken(matcher: GrammarMatcher) -> set[int]:
    """The tokens that `advance` takes: the slow truth that a mask must equal."""
    taken = set()
    for token in range(len(matcher.vocabulary.tokens)):
        if matcher.advance(token):
            matcher.rollback(1)
            taken.add(token)
    return taken


def generate(matcher: GrammarMatcher, seed: int, most: int = 200) -> tuple[bytes, bool]:
    """A random output under the mask; whether it came to its end. Checks each mask on the way."""
    choice = random.Random(seed)
    output = b""
    for _ in range(most):
        allowed = allowed_tokens(matcher)
        assert allowed == tokens_taken(matcher)
        assert (EOS in allowed) == matcher.accepting()
        assert allowed, f"dead end behind {output!r}"
        token = choice.choice(sorted(allowed))
        assert matcher.advance(token)
        if token == EOS:
            return output, True
        output += matcher.vocabulary.tokens[token]
    return output, False


@dataclass
class HandMade:
    """A grammar as a matcher wants it."""

    pushdown: Pushdown


class Automaton:
    """A finite automaton: for each state its arcs (byte, next state), and the states in which the text may end."""

    def __init__(self, arcs: list[dict[int, int]], ends: set[int]) -> None:
        # Only states from which an end can be reached count.
        self.alive = set(ends)
        before = 0
        while before != len(self.alive):
            before = len(self.alive)
            self.alive |= {state for state, out in enumerate(arcs) if self.alive & set(out.values())}
        self.arcs, self.ends = arcs, ends
        self.rows: dict[int, int] = {}

    def grammar(self) -> HandMade:
        pushdown = Pushdown()
        self.rows = {}
        pushdown.start_row = self._row(pushdown, 0)
        return HandMade(pushdown)

    def accepts(self, text: bytes) -> bool:
        state: int | None = 0
        for byte in text:
            state = self.arcs[state].get(byte) if state is not None else None
        return state in self.ends

    def expand_row(self, pushdown: Pushdown, row: int, key: int) -> None:
        arcs = self.arcs[key].items()
        pushdown.set_arcs(
            row, [(byte, byte, self._row(pushdown, target)) for byte, target in arcs if target in self.alive]
        )
        if key in self.ends:
            pushdown.set_final(row, 0)

    def _row(self, pushdown: Pushdown, state: int) -> int:
        if state not in self.rows:
            self.rows[state] = pushdown.new_row(self, state)
        return self.rows[state]


@dataclass
class Counted:
    """Quoted texts of at least `least` and at most `most` characters: `é`, `\\n`, and whatever is printable."""

    least: int
    most: int | None
    inside: int = -1
    escape: int = -1
    second: int = -1

    def grammar(self) -> HandMade:
        pushdown = Pushdown()
        pushdown.start_row = pushdown.new_row(self, "begin")
        self.inside, self.escape = pushdown.new_row(self, "inside"), pushdown.new_row(self, "escape")
        self.second = pushdown.new_row(self, "second")
        return HandMade(pushdown)

    def expand_row(self, pushdown: Pushdown, row: int, key: str) -> None:
        match key:
            case "begin":
                arcs = [(ord('"'), ord('"'), pushdown.counted(self.inside, self.least, self.most))]
            case "inside":
                arcs = [(ord(" "), ord("~"), row), (0xC3, 0xC3, self.second)]
                arcs += [(ord("\\"), ord("\\"), self.escape), (ord('"'), ord('"'), pushdown.pop(0))]
            case "escape":
                arcs = [(ord("n"), ord("n"), self.inside)]
            case _:
                arcs = [(0xA9, 0xA9, self.inside)]
        pushdown.set_arcs(row, arcs)

    def resume(self, pushdown: Pushdown, ret: int, key: Any, result: int) -> int:
        raise AssertionError


@dataclass
class Resembling(Counted):
    """Quoted texts that are none of some names: rows that are like the one of any text, but for a byte or two."""

    names: tuple[bytes, ...] = ()

    def __init__(self, names: tuple[bytes, ...]) -> None:
        super().__init__(0, None)
        self.names = names

    def expand_row(self, pushdown: Pushdown, row: int, key: Any) -> None:
        if key == "begin":
            first = pushdown.new_row(self, (b"",))
            pushdown.set_arcs(row, [(ord('"'), ord('"'), first)])
        elif isinstance(key, tuple):
            (read,) = key
            arcs = [(ord(" "), ord("~"), self.inside), (0xC3, 0xC3, self.second)]
            arcs.append((ord("\\"), ord("\\"), self.escape))
            arcs.append((ord('"'), ord('"'), DEAD if read in self.names else pushdown.pop(0)))
            for byte in {name[len(read)] for name in self.names if name.startswith(read) and name != read}:
                arcs.append((byte, byte, pushdown.new_row(self, (read + bytes([byte]),))))
            pushdown.set_arcs(row, arcs)
        else:
            super().expand_row(pushdown, row, key)


@dataclass
class Json:
    """Values of JSON without escapes: numbers of digits, strings, arrays, and objects whose keys are all different.

    One space may come before an item. With `unique`, arrays hold no item twice. `names`: the keys that may come.
    """

    unique: bool = False
    names: tuple[bytes, ...] | None = None
    rows: dict[Any, int] = field(default_factory=dict)
    returns: dict[Any, int] = field(default_factory=dict)
    choices: Choices | None = None

    def grammar(self) -> HandMade:
        pushdown = Pushdown()
        if self.names is not None:
            self.choices = add_choices(pushdown, ((name + b'"', index) for index, name in enumerate(self.names)))
        pushdown.start_returns = (self._return(pushdown, ("end",)),)
        pushdown.start_row = self._row(pushdown, ("value", False))
        return HandMade(pushdown)

    def expand_row(self, pushdown: Pushdown, row: int, key: tuple) -> None:
        arcs: dict[str, int] = {}
        match key:
            case ("value", or_end):
                space = self._row(pushdown, ("space",))
                first_item = (self._return(pushdown, ("array scope",)), self._return(pushdown, ("space", True)))
                arcs = dict.fromkeys("123456789", self._row(pushdown, ("digits",)))
                arcs['"'] = self._row(pushdown, ("string",))
                arcs["["] = pushdown.push(first_item, space)
                first_key = self._row(pushdown, ("key", frozenset(), True))
                arcs["{"] = pushdown.push((self._return(pushdown, ("object scope",)),), first_key)
                if or_end:
                    arcs["]"] = pushdown.pop(1)
            case ("digits",):
                arcs = dict.fromkeys("0123456789", row)
                pushdown.set_final(row, 0)
            case ("string",):
                arcs = {chr(byte): row for byte in range(32, 127)} | {'"': pushdown.pop(0)}
            case ("space",):
                arcs[" "] = self._row(pushdown, ("spaced",))
                pushdown.set_final(row, 0)
            case ("spaced",):
                pushdown.set_final(row, 0)
            case ("after item",):
                next_item = (self._return(pushdown, ("space", False)),)
                arcs = {",": pushdown.push(next_item, self._row(pushdown, ("space",))), "]": pushdown.pop(0)}
            case ("key", seen, is_first):
                if not self._is_full(seen):
                    row_of_key = self._row(pushdown, ("string",)) if self.choices is None else self.choices.row
                    arcs['"'] = pushdown.push((self._return(pushdown, ("key", seen)),), row_of_key)
                if is_first:
                    arcs["}"] = pushdown.pop(0)
            case ("colon", seen):
                value = self._row(pushdown, ("value", False))
                arcs[":"] = pushdown.push((self._return(pushdown, ("property", seen)),), value)
            case ("after property", seen):
                arcs["}"] = pushdown.pop(0)
                if not self._is_full(seen):
                    arcs[","] = self._row(pushdown, ("key", seen, False))
        pushdown.set_arcs(row, [(ord(byte), ord(byte), cell) for byte, cell in arcs.items()])

    def resume(self, pushdown: Pushdown, ret: int, key: Any, result: int) -> int:
        match key:
            case ("space", is_first):
                value = self._row(pushdown, ("value", is_first))
                return pushdown.push((self._return(pushdown, ("item",)),), value)
            case ("item",):
                return pushdown.pop(0) if result else self._row(pushdown, ("after item",))
            case ("key", seen):
                if self.names is None:
                    return self._row(pushdown, ("colon", seen))
                return DEAD if result in seen else self._row(pushdown, ("colon", seen | {result}))
            case ("property", seen):
                return self._row(pushdown, ("after property", seen))
        return pushdown.pop(0)

    def resume_repeated(self, pushdown: Pushdown, ret: int, key: Any, result: int) -> int:
        return DEAD

    def canonical(self, key: Any, text: bytes) -> bytes:
        if key[0] == "key" or text == b"]":
            return text
        return json.dumps(json.loads(text)).encode()

    def canonical_prefix(self, key: Any, text: bytes) -> bytes:
        return text if key[0] == "key" else b""

    def _is_full(self, seen: frozenset[int]) -> bool:
        return self.names is not None and len(seen) == len(self.names)

    def _row(self, pushdown: Pushdown, key: Any) -> int:
        if key not in self.rows:
            self.rows[key] = pushdown.new_row(self, key)
        return self.rows[key]

    def _return(self, pushdown: Pushdown, key: tuple) -> int:
        if key not in self.returns:
            options: dict[str, Any] = {"scope": key[0].endswith("scope")}
            if key[0] == "item":
                options["remembers"] = self.unique
            elif key[0] == "key" and self.names is None:
                options["remembers"] = True
            elif key[0] == "key" and self.names is not None:
                allowed = [index for index in range(len(self.names)) if index not in key[1]]
                options |= {"choices": self.choices, "allowed": allowed}
            self.returns[key] = pushdown.new_return(self, key, **options)
        return self.returns[key]


def has_duplicate_keys(text: bytes) -> bool:
    """Whether an object of a JSON text has a key twice."""
    found = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found |= len({key for key, _ in pairs}) < len(pairs)
        return dict(pairs)

    json.loads(text, object_pairs_hook=look)
    return found
