"""Tiny models with random weights for the pooling tests: encoders, classifiers, decoders, with real tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.server import tiny_tokenizers

MAX_LENGTH = 64
TEXTS = [
    "The capital of France is Paris.",
    "A quick brown fox",
    "the end of the line, and a question; an answer",
    "dog",
    "The lazy dog jumps over the quick brown fox. The capital of France is Paris. An answer here.",
    "fox",
    "STOP here and stop there.",
]

_ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_LENGTH,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
_ROBERTA = {**_ENCODER, "max_position_embeddings": MAX_LENGTH + 1, "type_vocab_size": 1}
ENCODERS: dict[str, dict[str, Any]] = {
    "Bert": _ENCODER,
    "Roberta": _ROBERTA,
    "XLMRoberta": _ROBERTA,
    "DistilBert": {
        "dim": 32,
        "hidden_dim": 48,
        "n_layers": 2,
        "n_heads": 4,
        "max_position_embeddings": MAX_LENGTH,
        "initializer_range": 0.2,
        "pad_token_id": 0,
    },
    "MPNet": {**_ENCODER, "max_position_embeddings": MAX_LENGTH + 2},
    "Electra": {**_ENCODER, "embedding_size": 32},
    "Albert": {**_ENCODER, "embedding_size": 16},
    "ModernBert": {**_ENCODER, "local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": 1},
}
_DECODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
    "pad_token_id": 0,
}
DECODERS: dict[str, dict[str, Any]] = {
    "Llama": _DECODER,
    "Qwen3": {**_DECODER, "head_dim": 16},
    "Mistral": {**_DECODER, "sliding_window": 8, "head_dim": 16},
    "GPT2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.15},
}


def word_pieces(directory: Path) -> Backend:
    """A WordPiece tokenizer with BERT's [CLS] and [SEP]; its files are written into the directory."""
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[PAD]", "[CLS]", "[SEP]", "[UNK]"], show_progress=False
    )
    backend.train_from_iterator(tiny_tokenizers.CORPUS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    directory.mkdir(parents=True, exist_ok=True)
    backend.save(str(directory / "tokenizer.json"))
    config = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return backend


def save_encoder(name: str, directory: Path, *, auto_class: Any = AutoModel, **config: Any) -> Path:
    """Write a tiny encoder; `config` is put over its own."""
    vocab_size = word_pieces(directory).get_vocab_size()
    made = getattr(transformers, f"{name}Config")(**{**ENCODERS[name], "vocab_size": vocab_size, **config})
    return _save(auto_class, made, directory)


def save_decoder(name: str, directory: Path, *, auto_class: Any = AutoModelForCausalLM, **config: Any) -> Path:
    """Write a tiny decoder whose tokenizer has a chat template."""
    vocab_size = tiny_tokenizers.byte_level(directory).vocab_size
    ids = {"bos_token_id": None, "eos_token_id": 2}
    made = getattr(transformers, f"{name}Config")(**{**DECODERS[name], "vocab_size": vocab_size, **ids, **config})
    return _save(auto_class, made, directory)


def save_cross_encoder(directory: Path, **config: Any) -> Path:
    """Write a tiny BERT with one score for a pair of texts."""
    return save_encoder("Bert", directory, auto_class=AutoModelForSequenceClassification, **{"num_labels": 1, **config})


def add_sentence_transformers_files(directory: Path, *, mode: str = "mean", max_seq_length: int = 32) -> Path:
    """Make the directory one of sentence-transformers: pooling by `mode`, normalised."""
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()
    pooling = {f"pooling_mode_{key}": key.startswith(mode) for key in ("cls_token", "mean_tokens", "max_tokens")}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    sentence_bert = {"max_seq_length": max_seq_length, "do_lower_case": False}
    (directory / "sentence_bert_config.json").write_text(json.dumps(sentence_bert))
    return directory


def _save(auto_class: Any, config: Any, directory: Path) -> Path:
    torch.manual_seed(17)
    model = auto_class.from_config(config, dtype=torch.float32).eval()
    model.save_pretrained(directory)
    return directory
