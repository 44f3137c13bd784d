"""The tokens of text that a grammar forces: what the tokenizer would make of it, as far as that is certain.

The model has learnt one way of cutting a text into tokens. So the forced bytes are encoded together with the text
before them, and a token is taken only when no text that may follow could change it.

What can change is seen from the vocabulary. With any text behind it, a last token crosses the end of the known text, or
none does. Where one begins at q, the known text from q on is the beginning of a longer token, which goes on with a byte
that the grammar allows there; and the tokens before q are those of the text before q alone, since a beginning of a
tokenisation is the tokenisation of that beginning (in BPE and in Unigram models). Cases in which no token begins where
the output ends cannot be, as the output's tokens are chosen. What is common to all others is certain.

Where none of the cases is left, the output was cut in a way of its own, by the sampling or where the prompt ends, and
no tokens can mend that: the forced bytes are then cut as a text of their own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from ..tokenizer import Tokenizer

CONTEXT_TOKENS = 3
"""Output tokens that are encoded again in front of forced text."""
MAX_CACHED = 4096


class JumpAhead:
    """Encodes forced text. Answers are a function of the arguments alone, and kept."""

    def __init__(self, tokenizer: Tokenizer, token_bytes: Sequence[bytes | None]) -> None:
        """token_bytes: what each id adds to a text, None for one that adds none."""
        self._backend = tokenizer.backend
        self._token_bytes = token_bytes
        self._sorted = sorted({piece for piece in token_bytes if piece})
        self._longest = max(map(len, self._sorted), default=0)
        self._known: OrderedDict[tuple[tuple[int, ...], bytes, bytes], list[int]] = OrderedDict()
        self._next_bytes: OrderedDict[bytes, frozenset[int]] = OrderedDict()
        """By the beginnings of tokens: the bytes with which these go on."""

    def tokens(self, context: tuple[int, ...], forced: bytes, then: bytes) -> list[int]:
        """The ids of forced bytes, as many as are certain; they spell a beginning of `forced`.

        Args:
            context: the last tokens before.
            forced: the bytes.
            then: those that may come next behind them, in order.
        """
        key = (context, forced, then)
        answer = self._known.get(key)
        if answer is None:
            answer = self._encode(self._bytes_before(context), forced, then)
            _keep(self._known, key, answer)
        return answer

    def is_open(self, forced: bytes, then: bytes) -> bool:
        """Whether one token may hold all the forced bytes and more: then none of them are certain in any context."""
        following = self._next_bytes.get(forced)
        if following is None:
            following = self._find_next_bytes(forced)
            _keep(self._next_bytes, forced, following)
        return not following.isdisjoint(then)

    def _encode(self, before: bytes, forced: bytes, then: bytes) -> list[int]:
        known = _without_broken_end(before + forced)
        if len(known) < len(before + forced):
            then = (before + forced)[len(known) : len(known) + 1]
            forced = known[len(before) :]
        if not forced or self.is_open(forced, then):
            return []
        ids = self._common_ids(before, forced, then)
        if ids is None and before:
            ids = self._common_ids(b"", forced, then)
        return ids or []

    def _common_ids(self, before: bytes, forced: bytes, then: bytes) -> list[int] | None:
        """What is common to all ways to cut forced bytes; None if in each a token begins before them and ends in them.

        `forced` does not end within a character, and is no beginning of a token that may come.
        """
        before = _readable(before, forced)
        text = before + forced
        common = self._ids_behind(before, text)
        for length in range(1, min(self._longest, len(forced))):
            if common == []:
                break
            if self.is_open(text[-length:], then):
                ids = self._ids_behind(before, _without_broken_end(text[:-length]))
                if ids is not None:
                    common = ids if common is None else common[: _num_equal(common, ids)]
        return common

    def _ids_behind(self, before: bytes, text: bytes) -> list[int] | None:
        """The last tokens of a text, those behind `before`; None where none of its tokens begins there."""
        try:
            ids = self._backend.encode(text.decode(), add_special_tokens=False).ids
        except UnicodeDecodeError:  # forced bytes may be no text
            return None
        # From the end, as a tokenizer may put a space in front of the first one.
        first, spelled = len(ids), b""
        while first > 0 and len(spelled) < len(text) - len(before):
            first -= 1
            spelled = (self._token_bytes[ids[first]] or b"") + spelled
        return ids[first:] if spelled == text[len(before) :] else None

    def _find_next_bytes(self, beginning: bytes) -> frozenset[int]:
        """The bytes with which tokens go on that begin so."""
        following: list[int] = []
        place = bisect_right(self._sorted, beginning)
        while place < len(self._sorted) and self._sorted[place].startswith(beginning):
            byte = self._sorted[place][len(beginning)]
            following.append(byte)
            if byte == 255:
                break
            place = bisect_left(self._sorted, beginning + bytes((byte + 1,)), place)
        return frozenset(following)

    def _bytes_before(self, context: tuple[int, ...]) -> bytes:
        """Text of the last ids, from behind the last special token."""
        pieces: list[bytes] = []
        for token_id in reversed(context[-CONTEXT_TOKENS:]):
            piece = self._token_bytes[token_id]
            if not piece:
                break
            pieces.append(piece)
        return b"".join(reversed(pieces))


def _num_equal(first: list[int], second: list[int]) -> int:
    for i, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return i
    return min(len(first), len(second))


def _readable(before: bytes, forced: bytes) -> bytes:
    """The end of what stands before, as much as is UTF-8 together with the forced bytes."""
    while True:
        try:
            (before + forced).decode()
            return before
        except UnicodeDecodeError as error:
            before = before[error.start + 1 :]
            if not before:
                return b""


def _without_broken_end(text: bytes) -> bytes:
    """Without the beginning of a character whose rest is not there."""
    for length in range(1, min(4, len(text)) + 1):
        lead = text[-length]
        if lead & 0xC0 != 0x80:
            needed = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return text if length >= needed else text[:-length]
    return text


def _keep(answers: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """Add what was found out; the oldest makes room."""
    answers[key] = value
    if len(answers) > MAX_CACHED:
        answers.popitem(last=False)
