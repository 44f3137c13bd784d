"""Finds stop strings in a text that comes in pieces, and holds back what may be the beginning of one.

Between the detokenizer and the client; one for each sequence that has stop strings.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopChecker:
    """Text in, text that may be shown out, until `matched` is set.

    The stop string that is complete first wins, of several the first in the list: where the tokens' borders lie makes
    no difference. Held back is the longest end of the text that a stop string begins with.
    """

    def __init__(self, stop: Sequence[str], *, include_in_output: bool = False) -> None:
        self._stop = stop
        self._include_in_output = include_in_output
        self._held = ""
        self._num_exempt = 0
        """Characters at the beginning of the held text in which no match may end."""
        self.matched: str | None = None
        """The stop string that was found."""

    def add(self, text: str, *, exempt: bool = False) -> str:
        """What may be shown now that `text` has come. `exempt`: no stop string may end in it (min_tokens).

        After a match the text ends before the stop string, or behind it when that is included.
        """
        text = self._held + text
        if exempt:
            self._num_exempt = len(text)
        else:
            match = self._first_match(text)
            if match is not None:
                self.matched, start = match
                self._held = ""
                return text[: start + len(self.matched) if self._include_in_output else start]
        num_shown = len(text) - self._num_prefix(text)
        self._held = text[num_shown:]
        self._num_exempt = max(0, self._num_exempt - num_shown)
        return text[:num_shown]

    def finish(self) -> str:
        """The text held back, when nothing more comes."""
        text, self._held = self._held, ""
        return text

    def _first_match(self, text: str) -> tuple[str, int] | None:
        """The stop string that ends first, and where it begins."""
        found: tuple[str, int] | None = None
        first_end = len(text) + 1
        for stop in self._stop:
            start = text.find(stop, max(0, self._num_exempt - len(stop) + 1), first_end)
            if start >= 0 and start + len(stop) < first_end:
                found, first_end = (stop, start), start + len(stop)
        return found

    def _num_prefix(self, text: str) -> int:
        """Length of the longest end of the text that is the beginning of a stop string, but not all of it."""
        longest = 0
        for stop in self._stop:
            start = text.find(stop[0], max(0, len(text) - len(stop) + 1), len(text) - longest)
            while start >= 0:
                if stop.startswith(text[start:]):
                    longest = len(text) - start
                    break
                start = text.find(stop[0], start + 1, len(text) - longest)
        return longest
