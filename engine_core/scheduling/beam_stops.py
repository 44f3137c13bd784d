"""Stop strings of a beam search: a beam ends with the token that completes one.

For other requests the front-end looks for stop strings. Here it would be late: an ended beam competes with the others.
The front-end still cuts the text, as it does for every answer.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """The stop strings of one request, looked for in the bytes of its tokens."""

    def __init__(self, strings: Sequence[str], token_bytes: Sequence[bytes | None]) -> None:
        """token_bytes: what each token adds to a text; None for one that adds nothing."""
        self._strings = [text.encode() for text in strings]
        self._token_bytes = token_bytes
        self._longest = max(map(len, self._strings))

    def read(self, tail: bytes, token_id: int) -> tuple[bytes, bool]:
        """Go on with a token behind a text that ends in `tail`: the new tail, and whether a stop string ends in it."""
        text = tail + (self._token_bytes[token_id] or b"")
        found = any(string in text[max(0, len(tail) - len(string) + 1) :] for string in self._strings)
        return text[max(0, len(text) - self._longest + 1) :], found
