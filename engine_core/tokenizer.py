"""The model's tokenizer: text to token ids and back, straight on the `tokenizers` library.

Reads `tokenizer.json` and, beside it, `tokenizer_config.json`, `special_tokens_map.json` and the chat templates. Gives
the ids that `transformers.AutoTokenizer` gives, without importing it. The detokenizer takes from here what each token
adds to the text; the chat template its special tokens.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from .model_files import read_json
from .token_bytes import TokenBytes

LONG_TEXT_CHARACTERS = 10_000
"""From here on a text takes more than some milliseconds."""
SPECIAL_TOKEN_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


class Tokenizer:
    """Text to ids and back. Immutable and safe to use from several threads."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens: dict[str, str] | None = None,
        chat_templates: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.backend = backend
        """The tokenizer of the `tokenizers` library; without truncation and padding."""
        self.special_tokens = special_tokens or {}
        """`bos_token`, `eos_token`, … as templates name them."""
        self.chat_templates = chat_templates or {}
        """By name; the only one of most models is "default"."""
        self.config = config or {}
        """What `tokenizer_config.json` says."""
        backend.no_truncation()
        backend.no_padding()
        vocab = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocab.values(), default=-1) + 1
        """One more than the largest id."""
        self.max_token_characters = max(map(len, vocab), default=1)
        """No token stands for more characters of a text."""
        self.added_tokens: dict[int, str] = {
            token_id: token.content for token_id, token in backend.get_added_tokens_decoder().items()
        }
        self.all_special_ids = frozenset(
            token_id for token_id, token in backend.get_added_tokens_decoder().items() if token.special
        )
        self.bos_token_id = self._special_id("bos_token")
        self.eos_token_id = self._special_id("eos_token")
        self._token_bytes = TokenBytes(backend, self.vocab_size)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text. Special tokens that the text names are read as such.

        A long text leaves Python's lock to other threads.
        """
        if len(text) < LONG_TEXT_CHARACTERS:
            return self.backend.encode(text, add_special_tokens=add_special_tokens).ids
        # Of the library's functions only those for batches let go of the lock.
        return self.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ids; U+FFFD where they hold a part of a character. Ids outside of the vocabulary give nothing."""
        known = [token_id for token_id in token_ids if 0 <= token_id < self.vocab_size]
        if len(known) < LONG_TEXT_CHARACTERS:
            return self.backend.decode(known, skip_special_tokens=skip_special_tokens)
        return self.backend.decode_batch([known], skip_special_tokens=skip_special_tokens)[0]

    def convert_ids_to_tokens(self, token_ids: Sequence[int]) -> list[str]:
        """The pieces as they stand in the vocabulary ("Ġthe"); "" for an id that is not in it."""
        return [self.backend.id_to_token(token_id) or "" for token_id in token_ids]

    def token_text(self, token_id: int) -> str:
        """A token on its own, as logprobs show it; U+FFFD where it holds a part of a character."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of UTF-8 that a token adds to a text, leading space included; b"" outside of the vocabulary.

        Special tokens show their name.
        """
        return self._token_bytes[token_id]

    @property
    def byte_table(self) -> TokenBytes | None:
        """What each token adds to a text, where the tokenizer is one whose tokens add the same anywhere, else None."""
        return self._token_bytes if self._token_bytes.is_exact else None

    def _special_id(self, name: str) -> int | None:
        content = self.special_tokens.get(name)
        return None if content is None else self.backend.token_to_id(content)


def load_tokenizer(directory: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer from the directory of a model.

    Raises ValueError, with what to do about it, when there is no usable `tokenizer.json`.
    """
    directory = Path(directory)
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise ValueError(
            f"There is no tokenizer.json in {directory}. Where the model has another form of tokenizer, write one with:"
            f" python -c \"from transformers import AutoTokenizer as A; A.from_pretrained('{directory}')"
            f".save_pretrained('{directory}')\""
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises the bare class
        raise ValueError(f"{path} cannot be read: {error}") from None
    config = read_json(directory / "tokenizer_config.json")
    as_read = dict(config)
    if "added_tokens_decoder" not in config:
        config.update(read_json(directory / "special_tokens_map.json"))
    special_tokens = _special_tokens(config)
    _add_missing_tokens(backend, config, special_tokens)
    _rebuild_llama(backend, directory, config)
    templates = _chat_templates(directory, config)
    return Tokenizer(backend, special_tokens=special_tokens, chat_templates=templates, config=as_read)


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Texts of the special tokens by name, those that a model adds of its own ("image_token") among them."""
    named = {name: value for name, value in config.items() if name in SPECIAL_TOKEN_NAMES or name.endswith("_token")}
    extra = config.get("extra_special_tokens")
    if isinstance(extra, dict):
        named.update(extra)
    texts = {name: _content(value) for name, value in named.items()}
    return {name: text for name, text in texts.items() if text is not None}


def _content(token: Any) -> str | None:
    """The text of a token, which is given as such or as an object; None for anything else (a switch, null)."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _add_missing_tokens(backend: tokenizers.Tokenizer, config: dict[str, Any], special_tokens: dict[str, str]) -> None:
    """Add the tokens that only the configuration knows, as transformers does."""
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    missing: dict[str, AddedToken] = {}
    decoder = config.get("added_tokens_decoder") or {}
    for _, token in sorted(decoder.items(), key=lambda item: int(item[0])):
        missing.setdefault(token["content"], AddedToken(**token))
    more = config.get("extra_special_tokens") or config.get("additional_special_tokens") or ()
    for text in (*special_tokens.values(), *map(_content, more if isinstance(more, list) else ())):
        if text is not None:
            missing.setdefault(text, AddedToken(text, special=True, normalized=False))
    backend.add_tokens([token for text, token in missing.items() if text not in known])


def _rebuild_llama(backend: tokenizers.Tokenizer, directory: Path, config: dict[str, Any]) -> None:
    """What transformers 5 makes of a Llama model's SentencePiece tokenizer, whatever the file says of spaces.

    Older files put a "▁" before every section of a text; it comes only before the first one now, unless the
    configuration says `legacy`.
    """
    is_llama = str(config.get("tokenizer_class")).removesuffix("Fast") == "LlamaTokenizer"
    if (
        not is_llama
        or read_json(directory / "config.json").get("model_type", "llama") != "llama"
        or not isinstance(backend.model, models.BPE)
        or isinstance(backend.decoder, decoders.ByteLevel)
    ):
        return
    add_prefix_space = config.get("add_prefix_space")
    adds_space = add_prefix_space is None or bool(add_prefix_space)
    scheme = ("always" if config.get("legacy") else "first") if adds_space else "never"
    backend.normalizer = None  # pyright: ignore[reportAttributeAccessIssue]
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(content=" ", left=1)] if adds_space else steps)


def _chat_templates(directory: Path, config: dict[str, Any]) -> dict[str, str]:
    """The chat templates by name; files win over the configuration."""
    templates: dict[str, str] = {}
    path = directory / "chat_template.jinja"
    if path.is_file():
        templates["default"] = path.read_text(encoding="utf-8")
    for path in sorted((directory / "additional_chat_templates").glob("*.jinja")):
        templates[path.stem] = path.read_text(encoding="utf-8")
    if templates:
        return templates
    given = config.get("chat_template")
    if isinstance(given, str):
        return {"default": given}
    if isinstance(given, list):
        return {entry["name"]: entry["template"] for entry in given}
    return {}
