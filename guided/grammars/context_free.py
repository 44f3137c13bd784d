"""Context-free grammars on the pushdown: what all parses of the text read so far still expect, as one row.

A row's key is a node of `stack_sets`: the set of stacks of frames that are still to be read, of all parses at once. So
ambiguity, empty rules and recursion of any kind (left recursion through `RETURN` frames) need no case of their own,
and two texts that may be continued alike share their rows. Where all parses agree on what lies deep in their stacks,
that part goes onto the pushdown's own stack (`StackSets.split`): `{` in a grammar of JSON is a call, whose rows are the
same at each depth. The callee ends as soon as one of its parses reaches the base, with the node of what remains as its
result; the return state puts what it holds below that. Nothing is approximated, with one exception:

A JSON value inside a grammar is a call of the JSON automaton. Its numbers are read here, as a regular language; at the
first byte of any other value, all other parses that could take this byte are given up. So
`"{" | value` never gives `{` alone.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING

from ..automata.cells import DEAD
from ..automata.pushdown import Pushdown
from .grammar_frames import CHOICE, JSON, NOTHING_LEFT, REPETITION, RETURN, RULE, SEQUENCE, VALUE, FrameTable
from .grammar_rules import Rules, analyse
from .stack_sets import BASE, NONE, StackSets

if TYPE_CHECKING:
    from ..json_schema.machine import JsonMachine
    from ..json_schema.schema import Schema

JSON_FIRST_BYTES = b'{["tfn'
"""What a JSON value that is no number begins with."""


class ContextFreeMachine:
    """The owner of a context-free grammar's rows and return states.

    Keys of rows: (node, whether its base is the end of the text). Keys of return states: (nodes, the same), where
    `nodes` is the node that the callee was split from, or, for a call of the JSON automaton, a tuple of nodes, one for
    each goal.
    """

    def __init__(self, pushdown: Pushdown, rules: Rules, json_machine: JsonMachine | None = None) -> None:
        """Prepares the grammar.

        Args:
            json_machine: on the same pushdown; needed where `rules` hold a JsonValue.

        Raises:
            GrammarError: (unsatisfiable) no text can be derived.
        """
        self._pushdown, self._budget, self._json_machine = pushdown, pushdown.budget, json_machine
        self._table = FrameTable(rules, analyse(rules, pushdown.budget), pushdown.budget)
        self._sets = StackSets(self._table, pushdown.budget)
        self._rows: dict[tuple[int, bool], int] = {}
        self._returns: dict[tuple[int | tuple[int, ...], bool], int] = {}
        self._readers: dict[int, tuple[tuple[int, int], ...]] = {}

    def start_row(self) -> int:
        """The row before the first byte of a text of the grammar, which is the whole text."""
        return self._row(self._sets.push(self._table.start, BASE), True)

    def expand_row(self, pushdown: Pushdown, row: int, key: tuple[int, bool]) -> None:
        """Sets what each byte does to a node."""
        node, is_outermost = key
        arcs: dict[int, list[tuple[int, int, int, int]]] = {}
        for frame, below in self._readers_of(node):
            if self._table.frames[frame][0] != JSON:
                for low, high, after in self._table.arcs(frame):
                    self._budget.spend()
                    arcs.setdefault(low, []).append((low, high, after, below))
        cells = [(low, high, self._cell(target, is_outermost)) for low, high, target in self._overlay(arcs)]
        cells += self._json_cells(node, is_outermost)
        if self._sets.nullable[node]:
            pushdown.set_final(row, 0)
        pushdown.set_arcs(row, cells)

    def resume(self, pushdown: Pushdown, ret: int, key: tuple[int | tuple[int, ...], bool], result: int) -> int:
        """Goes on below a callee: with what it left unread, or behind a JSON value that reached these goals."""
        held, is_outermost = key
        if isinstance(held, int):
            node = self._sets.compose(result, held)
        else:
            node = self._sets.union_all([after for goal, after in enumerate(held) if result >> goal & 1])
        return self._ended(node, is_outermost) or self._row(node, is_outermost)

    def _ended(self, node: int, is_outermost: bool) -> int:
        """The cell with which a callee ends that may have reached its base, or else 0. A whole text ends at its end."""
        if node == BASE if is_outermost else self._sets.nullable[node]:
            return self._pushdown.pop(node)
        return 0

    def _row(self, node: int, is_outermost: bool) -> int:
        row = self._rows.get((node, is_outermost))
        if row is None:
            row = self._rows[node, is_outermost] = self._pushdown.new_row(self, (node, is_outermost))
        return row

    def _return(self, held: int | tuple[int, ...], is_outermost: bool) -> int:
        ret = self._returns.get((held, is_outermost))
        if ret is None:
            ret = self._returns[held, is_outermost] = self._pushdown.new_return(self, (held, is_outermost))
        return ret

    def _cell(self, target: int, is_outermost: bool) -> int:
        """The cell of a byte after which `target` is still to be read."""
        if target == NONE:
            return DEAD
        if ended := self._ended(target, is_outermost):
            return ended
        parts = self._sets.split(target)
        if parts is None:
            return self._row(target, is_outermost)
        upper, lower = parts
        return self._pushdown.push((self._return(lower, is_outermost),), self._row(upper, False))

    def _overlay(self, arcs: dict[int, list[tuple[int, int, int, int]]]) -> list[tuple[int, int, int]]:
        """(first byte, last byte, node): the arcs of all readers, those over the same bytes united."""
        push = self._sets.push
        overlaid: list[tuple[int, int, int]] = []
        active: list[tuple[int, int, int, int]] = []
        edges = sorted({edge for group in arcs.values() for low, high, _, _ in group for edge in (low, high + 1)})
        for edge, following in pairwise(edges):
            active = [arc for arc in active if arc[1] >= edge] + arcs.get(edge, [])
            self._budget.spend(1 + len(active))
            if active:
                target = self._sets.union_all([push(after, below) for _, _, after, below in active])
                overlaid.append((edge, following - 1, target))
        return overlaid

    def _json_cells(self, node: int, is_outermost: bool) -> list[tuple[int, int, int]]:
        """The cells with which a JSON value begins: those of the JSON automaton's row, with our return state below."""
        values: dict[Schema, list[int]] = {}
        for frame, below in self._readers_of(node):
            if self._table.frames[frame][0] == JSON:
                values.setdefault(self._table.schemas[self._table.frames[frame][1]], []).append(below)
        if not values:
            return []
        assert self._json_machine is not None, "a grammar with JSON values comes with a JSON machine"
        ret = self._return(tuple(self._sets.union_all(below) for below in values.values()), is_outermost)
        return [
            (byte, byte, self._pushdown.push((ret, *returns), row))
            for byte, returns, row in self._json_machine.entries(tuple(values))
            if byte in JSON_FIRST_BYTES
        ]

    def _readers_of(self, node: int) -> tuple[tuple[int, int], ...]:
        """The frames that read the next byte, each with the node of what is left below it."""
        known = self._readers.get(node)
        if known is None:
            known = self._readers[node] = self._find_readers(node)
        return known

    def _find_readers(self, node: int) -> tuple[tuple[int, int], ...]:
        """Enters rules until something reads. A rule is entered when all that may ask for it has been seen."""
        table, sets, frames = self._table, self._sets, self._table.frames
        push = sets.push
        readers: dict[int, list[int]] = {}
        asked: dict[int, list[int]] = {}
        order: list[tuple[int, int]] = []
        seen_nodes: set[int] = set()
        seen: set[tuple[int, int]] = set()
        nodes, waiting = [node], []
        while True:
            if nodes:
                current = nodes.pop()
                if current not in seen_nodes:
                    seen_nodes.add(current)
                    for frame, below in sets.entries[current]:
                        if frames[frame][0] == RETURN:
                            nodes += self._after_return(frame, below)
                            continue
                        waiting.append((frame, below))
                        if table.nullable[frame]:
                            nodes.append(below)
                continue
            if waiting:
                frame, below = item = waiting.pop()
                if item in seen:
                    continue
                seen.add(item)
                self._budget.spend(2)
                fields = frames[frame]
                kind = fields[0]
                if kind == SEQUENCE:
                    waiting.append((fields[1], push(fields[2], below)))
                    if table.nullable[fields[1]]:
                        waiting.append((fields[2], below))
                elif kind == CHOICE:
                    waiting += [(option, below) for option in fields[1]]
                elif kind == REPETITION:
                    waiting.append((fields[1], push(table.one_less(frame), below)))
                elif kind == RULE:
                    rule = fields[1]
                    if rule not in asked:
                        heappush(order, (table.rank[rule], rule))
                    asked.setdefault(rule, []).append(below)
                elif kind == VALUE:
                    waiting += [(option, below) for option in table.value_options(frame)]
                elif frame != NOTHING_LEFT:
                    readers.setdefault(frame, []).append(below)
                continue
            if not order:
                return tuple([(frame, sets.union_all(below)) for frame, below in readers.items()])
            _, rule = heappop(order)
            waiting = self._enter(rule, sets.union_all(asked.pop(rule)))

    def _enter(self, rule: int, below: int) -> list[tuple[int, int]]:
        """What may be read first of a rule, with what follows it."""
        together = self._table.recursive_with(rule)
        if not together:
            return [(self._table.body(rule), below)]
        begun = []
        for member in together:
            after_member = self._sets.push(self._table.intern((RETURN, member, rule)), below)
            for frame, after in self._table.corners(member):
                self._budget.spend()
                begun.append((frame, self._sets.push_all(after, after_member)))
        return begun

    def _after_return(self, frame: int, below: int) -> list[int]:
        """What may follow a left recursive rule that has just been read."""
        _, rule, entry = self._table.frames[frame]
        nodes = [below] if rule == entry else []
        for outer, after in self._table.after_corner(rule):
            self._budget.spend()
            after_outer = self._sets.push(self._table.intern((RETURN, outer, entry)), below)
            nodes.append(self._sets.push_all(after, after_outer))
        return nodes
