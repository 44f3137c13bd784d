"""One parser of tool calls for streamed and whole answers: text in, pieces out."""

from __future__ import annotations

from collections.abc import Callable

from .answer_text import AnswerText, Reading
from .pieces import Piece


class ToolCallParser:
    """Reads one answer.

        parser = ToolCallParser(read_hermes)
        pieces = parser.feed("Let me see.\\n<tool_ca") + parser.feed("ll>…") + parser.finish()

    However the text is cut, the pieces together are the same. No text makes it fail: what is no call is content.
    """

    def __init__(self, read: Callable[[AnswerText], Reading[None]], answer: AnswerText | None = None) -> None:
        self._answer = answer or AnswerText()
        self._reading = read(self._answer)

    def feed(self, text: str) -> list[Piece]:
        """What is certain now that this has come."""
        if not text:
            return []
        self._answer.add(text)
        next(self._reading, None)
        return self._answer.take_pieces()

    def finish(self) -> list[Piece]:
        """The rest, when nothing more comes."""
        self._answer.end()
        next(self._reading, None)
        return self._answer.take_pieces()
