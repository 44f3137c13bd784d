"""White space between the tokens of a JSON text: how much of it a model may write.

White space is a sub-automaton that the JSON rows call. A model that likes white space can write it for ever, so that
by default there is a bound: one space, or nothing, after `,` and `:` only, which leaves most of a text without a
choice. A pattern may allow more, or ask for some; it holds inside of brackets too, after `{` and `[` and before `}` and
`]`. There is never any before `,` and `:`, nor before or after the whole text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import GrammarError
from ..languages.language import JointAutomaton, Language
from ..languages.text_lowering import Utf8Rows

if TYPE_CHECKING:
    from ..automata.pushdown import Pushdown

SPACE = 0x20


@dataclass(frozen=True, slots=True)
class WhitespaceOptions:
    """How much white space may come at each place where some may.

    Attributes:
        kind: `bounded` (one space or nothing), `none`, or `pattern`.
        pattern: a regex (Python's syntax) of white-space characters, used with `pattern`. It is obeyed as it is: one
            without a bound lets a model write white space for ever, and one that does not match "" asks for some.
    """

    kind: Literal["bounded", "none", "pattern"] = "bounded"
    pattern: str = ""


class Whitespace:
    """Rows of white space, to be called; each ends by itself (result 0) before a byte that is no white space.

    Attributes:
        row: where to begin after `,` and `:`; None when no white space may come.
        bracket_row: where to begin inside of brackets; None when no white space may come there.
        optional: whether there may be none.

    Raises:
        GrammarError: the pattern is no regex, or matches something other than space, tab, line feed, carriage return.
    """

    def __init__(self, pushdown: Pushdown, options: WhitespaceOptions) -> None:
        self._pushdown = pushdown
        self.optional = True
        self.row: int | None = None
        self.bracket_row: int | None = None
        self._first: list[tuple[int, int, int]] = []
        if options.kind == "bounded":
            self.row = pushdown.new_row(self, ((SPACE, SPACE, pushdown.new_row(self, ())),))
        elif options.kind == "pattern":
            language = _white_language(options.pattern)
            self.optional = language.contains("")
            joint = JointAutomaton((language,), pushdown.budget)
            assert joint.start is not None
            rows = Utf8Rows(pushdown, joint)
            self.row = self.bracket_row = rows.start
            self._first = [(low, high, rows.row(state)) for low, high, state in joint.arcs(joint.start)]

    def expand_row(self, pushdown: Pushdown, row: int, key: tuple[tuple[int, int, int], ...]) -> None:
        """Bounded white space: the key is what may come."""
        pushdown.set_arcs(row, key)
        pushdown.set_final(row, 0)

    def entry_arcs(self, ret: int) -> list[tuple[int, int, int]]:
        """Arcs of a row before a closing bracket in which white space may begin, after which `ret` is resumed."""
        return [(low, high, self._pushdown.push((ret,), row)) for low, high, row in self._first]


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
