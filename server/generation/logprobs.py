"""Log-probabilities in the two forms of the OpenAI API and in that of `prompt_logprobs`.

All are the model's own, before temperature, penalties and biases. JSON has no minus infinity; -9999 stands
for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...engine_core.messages import TokenLogprobs
from ...engine_core.tokenizer import Tokenizer
from ..protocol.chat import ChatLogprobs, ChatTokenLogprob, TopLogprob
from ..protocol.completions import CompletionLogprobs
from ..protocol.sampling import PromptLogprobs, TokenLogprob

LOWEST = -9999.0


class LogprobsFormatter:
    """Writes the logprobs of one request. With `as_ids` a token is written `token_id:N` instead of its text."""

    def __init__(self, tokenizer: Tokenizer, *, as_ids: bool, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids
        self._unseen = frozenset(tokenizer.all_special_ids) if skip_special_tokens else frozenset[int]()
        """Tokens that the text leaves out."""

    def chat(self, positions: Sequence[TokenLogprobs], num_top: int) -> ChatLogprobs:
        """One entry a token; `top_logprobs` are the `num_top` most likely ones (-1: all), falling."""
        return ChatLogprobs([self._chat_token(trimmed(position, num_top)) for position in positions])

    def completion(
        self, token_ids: Sequence[int], positions: Sequence[TokenLogprobs | None], offset: TextOffset
    ) -> CompletionLogprobs:
        """Four parallel lists. A position without logprobs (the first of a prompt) has null in two of them.

        `top_logprobs` holds the chosen token even when it is not among the most likely ones.
        """
        token_logprobs: list[float | None] = []
        top_logprobs: list[dict[str, float] | None] = []
        for position in positions:
            if position is None:
                token_logprobs.append(None)
                top_logprobs.append(None)
                continue
            token_logprobs.append(_finite(position.logprobs[0]))
            top: dict[str, float] = {}
            for token_id, logprob in zip(position.token_ids, position.logprobs, strict=True):
                top.setdefault(self._token(token_id), _finite(logprob))
            top_logprobs.append(top)
        return CompletionLogprobs(
            tokens=[self._token(token_id) for token_id in token_ids],
            token_logprobs=token_logprobs,
            top_logprobs=top_logprobs,
            text_offset=[
                offset.advance(b"" if token_id in self._unseen else self._tokenizer.token_bytes(token_id))
                for token_id in token_ids
            ],
        )

    def prompt(self, positions: Sequence[TokenLogprobs]) -> PromptLogprobs:
        """One entry a prompt token, the first null; each maps ids to logprob, rank and text."""
        return [None, *(self._prompt_token(position) for position in positions)]

    def _chat_token(self, position: TokenLogprobs) -> ChatTokenLogprob:
        top = [
            TopLogprob(self._token(token_id), _finite(logprob), self._bytes(token_id))
            for token_id, logprob in _most_likely(position)
        ]
        chosen = position.token_ids[0]
        return ChatTokenLogprob(self._token(chosen), _finite(position.logprobs[0]), self._bytes(chosen), top)

    def _prompt_token(self, position: TokenLogprobs) -> dict[str, TokenLogprob]:
        entries: dict[str, TokenLogprob] = {}
        chosen = position.token_ids[0]
        entries[str(chosen)] = TokenLogprob(
            _finite(position.logprobs[0]), position.rank, self._tokenizer.token_text(chosen)
        )
        for rank, (token_id, logprob) in enumerate(_most_likely(position), 1):
            if token_id != chosen:
                entries[str(token_id)] = TokenLogprob(_finite(logprob), rank, self._tokenizer.token_text(token_id))
        return entries

    def _token(self, token_id: int) -> str:
        return f"token_id:{token_id}" if self._as_ids else self._tokenizer.token_text(token_id)

    def _bytes(self, token_id: int) -> list[int]:
        return list(self._tokenizer.token_bytes(token_id))


class TextOffset:
    """Where in a text its next token begins, in characters; a token inside a character begins at that
    character.
    """

    def __init__(self, start: int = 0) -> None:
        self._num_characters = start

    def advance(self, token: bytes) -> int:
        """The offset of the next token, whose bytes are given."""
        inside = bool(token) and token[0] & 0xC0 == 0x80
        offset = self._num_characters - inside
        self._num_characters += sum(byte & 0xC0 != 0x80 for byte in token)
        return offset


def trimmed(position: TokenLogprobs, num_top: int | None) -> TokenLogprobs:
    """The position with only the `num_top` most likely tokens beside the chosen one (-1: all)."""
    if num_top is None or num_top < 0 or len(position.token_ids) <= num_top + 1:
        return position
    return TokenLogprobs(position.token_ids[: num_top + 1], position.logprobs[: num_top + 1], position.rank)


def _most_likely(position: TokenLogprobs) -> list[tuple[int, float]]:
    """The most likely tokens in falling order; the wire has the chosen one in front of them."""
    return list(zip(position.token_ids, position.logprobs, strict=True))[1:]


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST)
