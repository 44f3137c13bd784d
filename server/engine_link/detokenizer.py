"""Token ids to text as they come: never half a character, and at the end what a decoding of all ids would show.

One detokenizer a sequence, fed by the output processor. Most tokenizers have a table of bytes a token
(`token_bytes`): then the text is those bytes through Python's incremental UTF-8 decoder. The others decode the last
tokens again with each new one.

The text goes on from the prompt: the first token's leading space stays, although SentencePiece drops it at the
beginning of a text. A prompt that ends inside a character does not reach into the output. Where byte-fallback tokens
do not make a character, each piece of broken UTF-8 becomes one U+FFFD and the characters around it stay; a decoding of
all at once would spoil the whole run of byte tokens.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

from ...engine_core.token_bytes import TokenBytes
from ...engine_core.tokenizer import Tokenizer

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")
_REPLACEMENT = "\ufffd"
MAX_HELD_TOKENS = 8
"""A character has 4 bytes at most: tokens that make none by then never will."""
MAX_CONTEXT_TOKENS = 8


class Detokenizer(Protocol):
    """Ids in, text out; one a sequence."""

    def add(self, token_id: int) -> str:
        """The text that the token completes; may be empty."""
        ...

    def finish(self) -> str:
        """The text still held, with U+FFFD for an incomplete character."""
        ...


def make_detokenizer(
    tokenizer: Tokenizer,
    prompt_token_ids: Sequence[int] = (),
    *,
    skip_special_tokens: bool = True,
    spaces_between_special_tokens: bool = True,
) -> Detokenizer:
    """A detokenizer for what follows a prompt.

    `spaces_between_special_tokens=False` leaves out the spaces that the decoders of word tokenizers put between tokens
    where added tokens follow each other; other tokenizers put none.
    """
    skipped = tokenizer.all_special_ids if skip_special_tokens else frozenset[int]()
    table = tokenizer.byte_table
    if table is not None:
        at_start = not any(table[token_id] for token_id in prompt_token_ids if token_id not in skipped)
        return ByteDetokenizer(table, skipped, at_start=at_start)
    joined = {} if skip_special_tokens or spaces_between_special_tokens else tokenizer.added_tokens
    return ContextDetokenizer(tokenizer, prompt_token_ids, skipped, joined)


class ByteDetokenizer:
    """For tokenizers whose tokens are bytes."""

    def __init__(self, table: TokenBytes, skipped: frozenset[int], *, at_start: bool) -> None:
        self._table = table
        self._skipped = skipped
        self._at_start = at_start
        self._decoder = _Utf8Decoder("replace")
        self._holds_bytes = False
        """Whether a character is incomplete."""

    def add(self, token_id: int) -> str:
        if token_id in self._skipped:
            return ""
        data = self._table[token_id]
        if self._at_start and data:
            data = self._table.at_start(token_id)
            self._at_start = False
        if not self._holds_bytes:
            try:
                return data.decode()  # nearly always: whole characters, without the decoder's Python
            except UnicodeDecodeError:
                pass
        text = self._decoder.decode(data)
        self._holds_bytes = bool(self._decoder.getstate()[0])
        return text

    def finish(self) -> str:
        self._holds_bytes = False
        return self._decoder.decode(b"", True)


class ContextDetokenizer:
    """For all other tokenizers: text is what a decoding grows by."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_token_ids: Sequence[int],
        skipped: frozenset[int],
        joined_tokens: dict[int, str],
    ) -> None:
        self._tokenizer = tokenizer
        self._skipped = skipped
        self._joined_tokens = joined_tokens
        """Added tokens that follow each other without a space."""
        self._last_token: int | None = None
        self._held: list[int] = []
        seen = [token_id for token_id in prompt_token_ids[-4 * MAX_CONTEXT_TOKENS :] if token_id not in skipped]
        self._set_context(seen[-MAX_CONTEXT_TOKENS:])

    def add(self, token_id: int) -> str:
        if token_id in self._skipped:
            return ""
        follows_joined = self._last_token in self._joined_tokens
        self._last_token = token_id
        if follows_joined and token_id in self._joined_tokens:
            text = self.finish() + self._joined_tokens[token_id]
            self._set_context([token_id])
            return text
        self._held.append(token_id)
        text = self._held_text()
        if (not text or text.endswith(_REPLACEMENT)) and len(self._held) < MAX_HELD_TOKENS:
            return ""
        self._set_context((self._context + self._held)[-MAX_CONTEXT_TOKENS:])
        return text

    def finish(self) -> str:
        text = self._held_text() if self._held else ""
        self._set_context((self._context + self._held)[-MAX_CONTEXT_TOKENS:])
        return text

    def _held_text(self) -> str:
        text = self._decode(self._context + self._held)
        if text.startswith(self._context_text):
            return text[len(self._context_text) :]
        return self._decode(self._held)

    def _set_context(self, token_ids: list[int]) -> None:
        self._context = token_ids
        self._context_text = self._decode(token_ids)
        self._held = []

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)
