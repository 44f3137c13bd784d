"""What each token of a vocabulary adds to a text, as bytes of UTF-8.

For the tokenizers that language models have (byte-level BPE; SentencePiece with its "▁" and byte fallback), a text is
nothing but the bytes of its tokens in a row. That makes streaming detokenisation one table look-up a token, and lets
logprobs show each token's own bytes. Other decoders (WordPiece, word suffixes) are recognised as such.
"""

from __future__ import annotations

import json
import re
from typing import Any

import tokenizers


class TokenBytes(dict[int, bytes]):
    """Bytes by token id, worked out when first asked for; b"" for ids outside of the vocabulary."""

    def __init__(self, backend: tokenizers.Tokenizer, num_tokens: int) -> None:
        """`num_tokens` is one more than the largest id."""
        super().__init__()
        self._backend = backend
        self._num_tokens = num_tokens
        rules = _Rules.read(backend)
        self.is_exact = rules is not None
        """Whether every token adds the same bytes wherever it stands, the beginning of a text aside."""
        self._rules = rules or _Rules()

    def __missing__(self, token_id: int) -> bytes:
        if not 0 <= token_id < self._num_tokens:
            return b""
        token = self._backend.id_to_token(token_id)
        if token is None:
            data = b""
        elif self.is_exact:
            data = self._rules.data(token)
        else:
            data = self._backend.decode([token_id], skip_special_tokens=False).encode()
        self[token_id] = data
        return data

    def at_start(self, token_id: int) -> bytes:
        """What a token adds at the beginning of a text, where SentencePiece leaves a space out."""
        data, rules = self[token_id], self._rules
        if rules.strips_first_token:
            token = self._backend.id_to_token(token_id) or ""
            return token.replace(rules.space, "").encode()
        num_spaces = len(data) - len(data.lstrip(b" "))
        return data[min(num_spaces, rules.num_stripped) :]


class _Rules:
    """How the decoder of a tokenizer makes text of a token."""

    def __init__(self) -> None:
        self.byte_level = False
        self.byte_fallback = False
        self.space = ""
        """What stands for a space: "▁"."""
        self.num_stripped = 0
        """Spaces that a text loses at its beginning."""
        self.strips_first_token = False
        """Whether the first token loses all its spaces (the Metaspace decoder)."""

    @classmethod
    def read(cls, backend: tokenizers.Tokenizer) -> _Rules | None:
        """The rules of a tokenizer; None when its decoder is of another kind."""
        if backend.decoder is None:
            return None
        rules, fused = cls(), False
        for step in _steps(json.loads(backend.decoder.__getstate__())):
            kind = step["type"]
            if kind == "ByteLevel":
                rules.byte_level = True
            elif kind == "ByteFallback":
                rules.byte_fallback = True
            elif kind == "Fuse":
                fused = True
            elif kind == "Replace" and not rules.space and not fused and step["content"] == " ":
                rules.space = step["pattern"].get("String", "")
            elif kind == "Metaspace" and not rules.space:
                rules.space = step["replacement"]
                rules.strips_first_token = step.get("prepend_scheme", "always") != "never"
            elif kind == "Strip" and fused and step["content"] == " " and step["stop"] == 0:
                rules.num_stripped = step["start"]
            else:
                return None
        return rules if rules.byte_level != bool(rules.space) else None

    def data(self, token: str) -> bytes:
        if self.byte_level:
            try:
                return bytes([_BYTE_OF_CHARACTER[character] for character in token])
            except KeyError:  # an added token, which is text as it stands
                return token.encode()
        if self.byte_fallback and _BYTE_TOKEN.fullmatch(token):
            return bytes([int(token[3:5], 16)])
        return token.replace(self.space, " ").encode()


def _steps(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    if decoder["type"] != "Sequence":
        return [decoder]
    return [step for inner in decoder["decoders"] for step in _steps(inner)]


def _byte_alphabet() -> dict[str, int]:
    """The characters in which byte-level BPE writes the 256 bytes: printable ones as they are, others above U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_alphabet()
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
