"""White space between the tokens of a JSON text: how much of it a model may write.

White space is a sub-automaton that the JSON rows call. It may come after `{`, `[`, `,` and `:`, and before `}` and
`]`; never before `,` and `:`, and neither before nor after the whole text. A model that likes white space can
write it for ever, so that by default there is a bound: nothing, one space, or one line break and an indentation of at
most 64 spaces and tabs. That is what `json.dumps` writes with any `indent`, and what people write by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .errors import GrammarError
from .language import JointAutomaton, Language
from .text_lowering import Utf8Rows

if TYPE_CHECKING:
    from .pushdown import Pushdown

MAX_INDENTATION = 64
"""Spaces and tabs behind a line break."""

_AFTER_SPACE = -1
_START = -2


@dataclass(frozen=True, slots=True)
class WhitespaceOptions:
    """How much white space may come at each place where some may.

    Attributes:
        kind: `bounded` (see the module), `none`, or `pattern`.
        pattern: a regex (Python's syntax) of white-space characters, used with `pattern`. It is obeyed as it is: one
            without a bound lets a model write white space for ever, and one that does not match "" asks for some.
    """

    kind: Literal["bounded", "none", "pattern"] = "bounded"
    pattern: str = ""


class Whitespace:
    """Rows of white space, to be called; each ends by itself (result 0) before a byte that is no white space.

    Attributes:
        row: where to begin; None when no white space may come.
        optional: whether there may be none.

    Raises:
        GrammarError: the pattern is no regex, or matches something other than space, tab, line feed, carriage return.
    """

    def __init__(self, pushdown: Pushdown, options: WhitespaceOptions) -> None:
        self._pushdown = pushdown
        self._rows: dict[int, int] = {}
        self.optional = True
        self.row: int | None = None
        self._first: list[tuple[int, int, int]] = []
        if options.kind == "bounded":
            self.row = self._row(_START)
            self._first = [(0x20, 0x20, self._row(_AFTER_SPACE)), (0x0A, 0x0A, self._row(0))]
        elif options.kind == "pattern":
            language = _white_language(options.pattern)
            self.optional = language.contains("")
            joint = JointAutomaton((language,), pushdown.budget)
            assert joint.start is not None
            rows = Utf8Rows(pushdown, joint)
            self.row = rows.start
            self._first = [(low, high, rows.row(state)) for low, high, state in joint.arcs(joint.start)]

    def expand_row(self, pushdown: Pushdown, row: int, key: int) -> None:
        """Bounded white space: `key` is the indentation so far, or one of the two states without a line break."""
        arcs: list[tuple[int, int, int]] = []
        if key == _START:
            arcs = self._first
        elif 0 <= key < MAX_INDENTATION:
            arcs = [(byte, byte, self._row(key + 1)) for byte in (0x20, 0x09)]
        pushdown.set_arcs(row, arcs)
        pushdown.set_final(row, 0)

    def entry_arcs(self, ret: int) -> list[tuple[int, int, int]]:
        """Arcs of a row in which white space may begin, after which `ret` is resumed."""
        return [(low, high, self._pushdown.push((ret,), row)) for low, high, row in self._first]

    def _row(self, key: int) -> int:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._pushdown.new_row(self, key)
        return row


def _white_language(pattern: str) -> Language:
    language = Language.regex(pattern, "python")
    white = Language.regex("[ \\t\\n\\r]*", "python")
    if not (language - white).is_empty():
        raise GrammarError(
            "invalid", "only space, \\t, \\n and \\r are white space in JSON", keyword="whitespace_pattern"
        )
    if language.is_empty():
        raise GrammarError("unsatisfiable", "matches nothing", keyword="whitespace_pattern")
    return language
