"""What `LLM.get_tokenizer()` returns: the model's tokenizer, called as those of transformers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..engine_core.tokenizer import Tokenizer
from ..server.prompts.chat_template import ChatTemplate


class OfflineTokenizer:
    """Gives the ids and the prompts that `LLM.generate` and `LLM.chat` work with."""

    def __init__(self, tokenizer: Tokenizer, chat_template: ChatTemplate) -> None:
        self._tokenizer = tokenizer
        self._chat_template = chat_template
        self.vocab_size = tokenizer.vocab_size
        """One more than the largest id."""
        self.bos_token_id = tokenizer.bos_token_id
        self.eos_token_id = tokenizer.eos_token_id
        self.bos_token = tokenizer.special_tokens.get("bos_token")
        self.eos_token = tokenizer.special_tokens.get("eos_token")
        self.all_special_ids = sorted(tokenizer.all_special_ids)

    def __len__(self) -> int:
        return self.vocab_size

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text. Special tokens that the text names are read as such."""
        return self._tokenizer.encode(text, add_special_tokens)

    def decode(self, token_ids: int | Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of ids; U+FFFD where they hold a part of a character."""
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        return self._tokenizer.decode(ids, skip_special_tokens)

    def convert_ids_to_tokens(self, token_ids: Sequence[int]) -> list[str]:
        """The pieces as they stand in the vocabulary ("Ġthe"); "" for an id that is not in it."""
        return self._tokenizer.convert_ids_to_tokens(token_ids)

    def apply_chat_template(
        self,
        conversation: Sequence[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        **template_kwargs: Any,
    ) -> str | list[int]:
        """The prompt of a conversation: its ids, or its text with `tokenize=False`.

        Further arguments are variables of the template. Raises `InvalidRequestError`.
        """
        text = self._chat_template.render(
            list(conversation),
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            documents=documents,
            chat_template=chat_template,
            chat_template_kwargs=template_kwargs,
        )
        return self._tokenizer.encode(text, add_special_tokens=False) if tokenize else text
