"""The tokens of text that a grammar forces: what the tokenizer would make of it, as far as that is certain.

The model has learnt one way of cutting a text into tokens. So the forced bytes are encoded together with the text
before them, and a token is taken only when it begins where the output ends and when no text that may follow could
change it.

What can change is seen from the vocabulary. With any text behind it, a last token crosses the end of the known text, or
none does. Where one begins at q, the known text from q on is the beginning of a longer token; and the tokens before q
are those of the text before q alone, since a beginning of a tokenisation is the tokenisation of that beginning (in BPE
and in Unigram models). What is common to all these cases is certain.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence

from .tokenizer import Tokenizer

CONTEXT_TOKENS = 3
"""Output tokens that are encoded again in front of forced text."""
MAX_FORCED_BYTES = 4096
"""More is appended in later steps."""
MAX_CACHED = 4096


class JumpAhead:
    """Encodes forced text. Answers are a function of the arguments alone, and kept."""

    def __init__(self, tokenizer: Tokenizer, token_bytes: Sequence[bytes | None]) -> None:
        """token_bytes: what each id adds to a text, None for one that adds none."""
        self._backend = tokenizer.backend
        self._token_bytes = token_bytes
        self._sorted = sorted({piece for piece in token_bytes if piece})
        self._longest = max(map(len, self._sorted), default=0)
        self._known: OrderedDict[tuple[tuple[int, ...], bytes], tuple[list[int], int]] = OrderedDict()

    def tokens(self, context: tuple[int, ...], forced: bytes) -> tuple[list[int], int]:
        """The ids of forced bytes behind the output's last ids, and how many of them are certain whatever follows.

        Together the ids spell a beginning of `forced`; none where the tokenizer would not begin a token there.
        """
        key = (context, forced)
        answer = self._known.get(key)
        if answer is None:
            answer = self._known[key] = self._encode(context, forced[:MAX_FORCED_BYTES])
            if len(self._known) > MAX_CACHED:
                self._known.popitem(last=False)
        return answer

    def _encode(self, context: tuple[int, ...], forced: bytes) -> tuple[list[int], int]:
        before = self._bytes_before(context)
        forced = _without_broken_end(before + forced)[len(before) :]
        before, text = _decoded(before, forced)
        whole = self._ids(text)
        # The tokens of the forced bytes are the last ones; a tokenizer may put a space in front of the first one.
        first, num_bytes = len(whole), 0
        while first > 0 and num_bytes < len(forced):
            first -= 1
            num_bytes += len(self._token_bytes[whole[first]] or b"")
        ids = whole[first:]
        if num_bytes != len(forced) or b"".join(self._token_bytes[token_id] or b"" for token_id in ids) != forced:
            return [], 0
        return ids, self._num_certain(before + forced, whole, first) - first

    def _num_certain(self, text: bytes, whole: list[int], least: int) -> int:
        """How many of the ids of a text stay whatever follows it; `least` for fewer."""
        num_certain = len(whole)
        for length in range(1, min(self._longest, len(text)) + 1):
            if num_certain <= least:
                return least
            if self._is_extended(text[-length:]):
                shorter = _without_broken_end(text[:-length]).decode()
                num_certain = _num_equal(whole, self._ids(shorter), num_certain)
        return max(num_certain, least)

    def _is_extended(self, beginning: bytes) -> bool:
        """Whether a token begins so and goes on."""
        place = bisect_right(self._sorted, beginning)
        return place < len(self._sorted) and self._sorted[place].startswith(beginning)

    def _bytes_before(self, context: tuple[int, ...]) -> bytes:
        """Text of the last ids, from behind the last special token."""
        pieces: list[bytes] = []
        for token_id in reversed(context[-CONTEXT_TOKENS:]):
            piece = self._token_bytes[token_id]
            if not piece:
                break
            pieces.append(piece)
        return b"".join(reversed(pieces))

    def _ids(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids


def _num_equal(first: list[int], second: list[int], limit: int) -> int:
    for i in range(min(limit, len(second))):
        if first[i] != second[i]:
            return i
    return min(limit, len(second))


def _decoded(before: bytes, forced: bytes) -> tuple[bytes, str]:
    """As much of what stands before as is UTF-8 together with the forced bytes, and the text of both."""
    while True:
        try:
            return before, (before + forced).decode()
        except UnicodeDecodeError as error:
            if error.start >= len(before):
                return b"", ""  # forced bytes that are no text are not encoded
            before = before[error.start + 1 :]


def _without_broken_end(text: bytes) -> bytes:
    """Without the beginning of a character whose rest is not there."""
    for length in range(1, min(4, len(text)) + 1):
        lead = text[-length]
        if lead & 0xC0 != 0x80:
            needed = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return text if length >= needed else text[:-length]
    return text
