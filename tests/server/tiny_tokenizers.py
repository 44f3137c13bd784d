"""Small real tokenizers, trained here in a moment: each writes the files that a model's directory has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from zqserve.engine_core.tokenizer import Tokenizer, load_tokenizer

CORPUS = [
    "The capital of France is Paris. The quick brown fox jumps over the lazy dog.",
    "def main(argument: int) -> None:\n    return argument  # höher, naïve, 日本語",
    "An answer, a question; the end of the line. STOP here and stop there.",
] * 20

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_level(directory: Path, **config: Any) -> Tokenizer:
    """Byte-level BPE with ChatML's special tokens, as Qwen and Llama 3 have it."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.enable_truncation(5)  # the loader must take it off
    settings = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": CHATML, **config}
    return _saved(backend, directory, {"tokenizer_class": "PreTrainedTokenizerFast", **settings})


def sentencepiece(directory: Path, **config: Any) -> Tokenizer:
    """BPE as SentencePiece makes it: "▁" for spaces, byte fallback, BOS in front (Llama 2, Mistral)."""
    backend = Backend(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>", "<s>", "</s>", *bytes_], limit_alphabet=60, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _with_bos(backend, directory, config)


def unigram(directory: Path, **config: Any) -> Tokenizer:
    """A Unigram model with the Metaspace decoder (T5, XLNet)."""
    backend = Backend(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return _with_bos(backend, directory, config)


def word_pieces(directory: Path) -> Tokenizer:
    """WordPiece: a decoder that puts spaces between tokens, so that a token alone does not tell its text."""
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return _saved(backend, directory, {"eos_token": "[SEP]"})


def _with_bos(backend: Backend, directory: Path, config: dict[str, Any]) -> Tokenizer:
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    # Only these are special: the bytes are part of the text.
    data = json.loads(backend.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < 3]
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **config}
    return _saved(Backend.from_str(json.dumps(data)), directory, settings)


def _saved(backend: Backend, directory: Path, config: dict[str, Any]) -> Tokenizer:
    directory.mkdir(parents=True, exist_ok=True)
    backend.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(directory)
