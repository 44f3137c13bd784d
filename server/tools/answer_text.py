"""The text of an answer while it comes, as the functions that read calls see it: one place, left to right.

A reading function is a generator that gives way wherever it needs text that has not come yet. So it is written as if
the text were whole, and how the text was cut into pieces cannot matter to what it finds.

    def read(answer: AnswerText) -> Reading[None]:
        while (yield from answer.content_until("<call>")):
            ...
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from typing import TypeVar

from .json_scanner import JsonScanner
from .pieces import Content, Piece, ToolCallArguments, ToolCallStart

T = TypeVar("T")
Reading = Generator[None, None, T]

SPACE = " \t\r\n"


def call_id() -> str:
    """The id of a new call."""
    return f"chatcmpl-tool-{uuid.uuid4().hex}"


class AnswerText:
    """What has come of the text, and the pieces that were made of it.

    Text that was read is kept until it is known what it is: markup of a call (`start_call`, `end_call`), or content
    after all (`no_call`). Positions are not to be held while waiting for more.
    """

    def __init__(
        self, make_id: Callable[[], str] = call_id, *, max_calls: int | None = None, only_calls: bool = False
    ) -> None:
        """`max_calls`: further ones are left out. `only_calls`: a grammar sees to it that there is nothing else."""
        self._text = ""
        self._kept = 0
        self._at = 0
        self._ended = False
        self._exhausted = False
        """Whether more text was needed than there is."""
        self._in_call = False
        self._name: str | None = None
        """Of a call that may be about to start."""
        self._num_calls = 0
        self._make_id = make_id
        self._max_calls = max_calls
        self._only_calls = only_calls
        self._pieces: list[Piece] = []

    # For whoever brings the text.

    def add(self, text: str) -> None:
        """More of it."""
        self._text = self._text[self._kept :] + text
        self._at -= self._kept
        self._kept = 0

    def end(self) -> None:
        """There is no more."""
        self._ended = True

    def take_pieces(self) -> list[Piece]:
        """What has been found since the last time; neighbours of one kind are one piece."""
        pieces, self._pieces = self._pieces, []
        return pieces

    # Reading.

    def more(self) -> Reading[bool]:
        """Wait for text; False when the answer has ended."""
        if self._ended:
            self._exhausted = True
            return False
        yield
        return True

    def peek(self) -> Reading[str]:
        """The next character; "" at the end."""
        while self._at == len(self._text):
            if not (yield from self.more()):
                return ""
        return self._text[self._at]

    def skip_space(self) -> Reading[str]:
        """Read white space; the character behind it, "" at the end."""
        while (character := (yield from self.peek())) and character in SPACE:
            self._at += 1
        return character

    def accept(self, literal: str) -> Reading[bool]:
        """Read this text if it comes next."""
        while not self._text.startswith(literal, self._at):
            if len(self._text) - self._at >= len(literal) or not literal.startswith(self._text[self._at :]):
                return False
            if not (yield from self.more()):
                return False
        self._at += len(literal)
        return True

    def some_of(self, characters: Callable[[str], bool]) -> Reading[str]:
        """Read characters of a kind, those that are there: "" only if the next one is not of it, or none comes."""
        yield from self.peek()
        start = self._at
        while self._at < len(self._text) and characters(self._text[self._at]):
            self._at += 1
        return self._text[start : self._at]

    def run_of(self, characters: Callable[[str], bool]) -> Reading[str]:
        """Read characters as long as they are of this kind."""
        found: list[str] = []
        while some := (yield from self.some_of(characters)):
            found.append(some)
        return "".join(found)

    def until(self, mark: str, into: Callable[[str], None]) -> Reading[bool]:
        """Read up to a mark and the mark itself, which does not go `into`; False if the answer ends before."""
        while True:
            end = _place(self._text, self._at, mark)
            text, self._at = self._text[self._at : end], end
            if text:
                into(text)
            if self._text.startswith(mark, end):
                self._at += len(mark)
                return True
            if not (yield from self.more()):
                text, self._at = self._text[self._at :], len(self._text)
                if text:
                    into(text)
                return False

    def json_value(self, into: Callable[[str], None]) -> Reading[bool]:
        """Read a JSON value; False where it is none, with all read that still could be one."""
        scanner = JsonScanner()
        while True:
            end = scanner.scan(self._text, self._at)
            text, self._at = self._text[self._at : end], end
            if text:
                into(text)
            if scanner.is_done or scanner.is_wrong:
                return scanner.is_done
            if not (yield from self.more()):
                return False

    # What the text is.

    def content_until(self, *marks: str) -> Reading[str]:
        """All up to one of these marks is content; the mark is read, and kept with the white space before it.

        The mark; "" if none comes, and all the rest was content.
        """
        while True:
            found, mark = min((_place(self._text, self._at, mark), mark) for mark in marks)
            end = self._at + len(self._text[self._at : found].rstrip(SPACE))
            self._content(self._text[self._kept : end])
            self._kept = self._at = end
            if self._text.startswith(mark, found):
                self._at = found + len(mark)
                return mark
            if not (yield from self.more()):
                self._at = len(self._text)
                self.no_call()
                return ""

    def rest_is_content(self) -> Reading[None]:
        """All that comes is content."""
        self.no_call()
        while (yield from self.peek()):
            self._at = len(self._text)
            self.no_call()

    def name_call(self, name: str) -> None:
        """What was read is the beginning of a call, if nothing shows that it is none."""
        self._name = name

    def start_call(self, name: str) -> None:
        """What was read is the beginning of a call."""
        self._in_call = True
        self._name = None
        self._kept = self._at
        self._num_calls += 1
        if self._is_wanted:
            self._pieces.append(ToolCallStart(self._num_calls - 1, self._make_id(), name))

    def arguments(self, text: str) -> None:
        """A piece of the call's arguments; what was read stands for it."""
        self._kept = self._at
        if not self._is_wanted:
            return
        index = self._num_calls - 1
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, ToolCallArguments) and last.index == index:
            self._pieces[-1] = ToolCallArguments(index, last.text + text)
        else:
            self._pieces.append(ToolCallArguments(index, text))

    def pass_markup(self) -> None:
        """What was read is markup: no content, whatever follows."""
        self._kept = self._at

    def end_call(self) -> None:
        """What was read ends the call."""
        self._in_call = False
        self._name = None
        self._kept = self._at

    def no_call(self) -> None:
        """What was read and kept was not of a call, so it is content.

        But where the answer was cut, it is of a call that has begun, and of nothing where there are calls alone.
        """
        if self._exhausted and self._name is not None:
            self.start_call(self._name)
        if self._exhausted and (self._in_call or self._only_calls):
            self._at = len(self._text)
        else:
            self._content(self._text[self._kept : self._at])
        self.end_call()

    @property
    def _is_wanted(self) -> bool:
        return self._max_calls is None or self._num_calls <= self._max_calls

    def _content(self, text: str) -> None:
        if not text:
            return
        if self._pieces and isinstance(last := self._pieces[-1], Content):
            self._pieces[-1] = Content(last.text + text)
        else:
            self._pieces.append(Content(text))


def _place(text: str, start: int, mark: str) -> int:
    """Where the mark stands behind `start`; else where it may have begun, which is the end if it has not."""
    found = text.find(mark, start)
    if found >= 0:
        return found
    for place in range(max(start, len(text) - len(mark) + 1), len(text)):
        if mark.startswith(text[place:]):
            return place
    return len(text)
